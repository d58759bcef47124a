"""Weights of networks: broken ones are refused, and masks are not taken for them."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from pytest_mnnquant.sources.network_checks import require_usable
from pytest_mnnquant.sources.spec import SourceError


def masked(value: float, kind: str) -> nn.Module:
    """A network with a mask that holds this value."""
    network = nn.Linear(3, 4)
    values = torch.full((4, 4), value).triu(1)
    if kind == "buffer":
        network.register_buffer("mask", values)
    else:
        network.mask = nn.Parameter(values, requires_grad=kind == "parameter")
    return network


@pytest.mark.parametrize(
    ("value", "kind"), [(-math.inf, "buffer"), (math.inf, "buffer"), (-math.inf, "frozen"), (-1e9, "parameter")]
)
def test_masks_are_accepted(value: float, kind: str) -> None:
    require_usable(masked(value, kind), "net.py:build")


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (math.nan, "buffer"),
        (math.nan, "frozen"),
        (math.inf, "frozen"),
        (-math.inf, "parameter"),
        (math.nan, "parameter"),
    ],
)
def test_broken_weights_are_refused(value: float, kind: str) -> None:
    with pytest.raises(SourceError):
        require_usable(masked(value, kind), "net.py:build")


def test_eight_bit_floats_have_a_verdict() -> None:
    network = nn.Linear(3, 4)
    network.register_buffer("table", torch.zeros(3).to(torch.float8_e4m3fn))
    require_usable(network, "net.py:build")
