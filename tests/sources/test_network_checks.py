"""Weights of networks: broken ones are refused, and masks are not taken for them."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn

from pytest_mnnquant.sources.network_checks import require_no_bfloat16, require_usable
from pytest_mnnquant.sources.spec import QuantizedSource, SourceError


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


def observed(network: nn.Module) -> nn.Module:
    """The network after a calibration with torch's own tools."""
    quantization: Any = torch.ao.quantization
    network.qconfig = quantization.get_default_qconfig("fbgemm")
    stub, back = quantization.QuantStub(), quantization.DeQuantStub()
    whole = nn.Sequential(stub, network, back).eval()
    quantization.prepare(whole, inplace=True)
    whole(torch.ones(2, 3, 8, 8))
    return whole


@pytest.mark.filterwarnings("ignore")
def test_modules_that_torch_quantized_are_named() -> None:
    quantization: Any = torch.ao.quantization
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
    require_usable(observed(network), "net")
    converted = quantization.convert(observed(network))
    with pytest.raises(QuantizedSource, match=r"net: 1\.0 is quantized already \(torch\.ao\.nn\.quantized"):
        require_usable(converted, "net")
    dynamic = quantization.quantize_dynamic(nn.Sequential(nn.Linear(3, 4)), {nn.Linear})
    with pytest.raises(QuantizedSource, match="net: 0 is quantized already"):
        require_usable(dynamic, "net")


def test_batch_norms_without_statistics_are_named() -> None:
    network = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4, track_running_stats=False))
    with pytest.raises(SourceError, match="net: 1 is a BatchNorm without running statistics"):
        require_usable(network, "net")


def test_weights_in_bfloat16_are_named() -> None:
    network = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2).bfloat16())
    with pytest.raises(SourceError, match=r"net: 1\.weight is bfloat16"):
        require_no_bfloat16(network, "net")
    require_no_bfloat16(network.half(), "net")
