"""The parts of an output are those that the network joins, wherever its operators move them."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pytest_mnnquant.evidence.output_parts import find_parts
from pytest_mnnquant.mnnfile.model import Model
from pytest_mnnquant.mnnfile.output_parts import output_parts, probabilities, tensors_behind
from tests.conftest import TIMEOUT
from tests.workshop import Workshop

INPUTS = {"x": np.random.default_rng(0).standard_normal((2, 4, 4, 4)).astype(np.float32)}


class Heads(nn.Module):
    """Outputs that join heads: rows of a detector, of two scales, stacked, and from a single layer."""

    def __init__(self) -> None:
        super().__init__()
        self.box, self.score, self.fine = (nn.Conv2d(4, count, 1) for count in (4, 3, 7))
        self.register_buffer("anchors", torch.rand(1, 4, 16) + 1)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Rows [N, 32, 7], a stack [N, 2, 4], and a map [N, 7, 4, 4]."""
        boxes, scores = self.box(x).flatten(2) * self.anchors, self.score(x).flatten(2).sigmoid()
        rows = torch.cat([torch.cat([boxes, scores], 1), self.fine(x).flatten(2)], 2).transpose(1, 2)
        pooled = torch.relu(self.box(x)).mean((2, 3))
        return rows, torch.stack([pooled.sin(), pooled.cos()], 1), torch.relu(self.fine(x)) + 1


@pytest.fixture(scope="module")
def heads(workshop: Workshop) -> Model:
    torch.manual_seed(0)
    return workshop.floats(Heads().eval(), INPUTS)


def test_parts_are_followed_to_their_places(heads: Model) -> None:
    rows, stack, single = heads.output_names
    found = find_parts(heads, INPUTS, TIMEOUT)
    assert set(found) == {rows, stack}
    places = found[rows].places
    assert places.shape == (1, 32, 7)
    boxes, scores, fine = places[0, 0, 0], places[0, 0, 4], places[0, 16, 0]
    assert len({boxes, scores, fine}) == 3
    assert (places[0, :16, :4] == boxes).all()
    assert (places[0, :16, 4:] == scores).all()
    assert (places[0, 16:] == fine).all()
    assert [found[rows].parts[number].is_probability for number in (boxes, scores, fine)] == [False, True, False]
    assert len({found[rows].parts[number].joined for number in (boxes, scores, fine)}) == 2
    assert (found[stack].places[0, 0] != found[stack].places[0, 1]).all()
    assert tensors_behind(heads, single) == ()
    assert probabilities(heads) == frozenset()


def test_outputs_of_sigmoid_and_softmax_are_probabilities(workshop: Workshop) -> None:
    class Probabilities(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, ...]:
            return x.sigmoid().flatten(1), (x + 1).softmax(1), 2 * x.sigmoid() - 1

    model = workshop.floats(Probabilities().eval(), INPUTS)
    assert probabilities(model) == set(model.output_names[:2])


def test_without_the_shapes_there_are_no_parts(heads: Model) -> None:
    rows = heads.output_names[0]
    assert output_parts(heads, rows, {}) is None
    assert output_parts(heads, rows, {rows: (1, 32, 7)}) is None
    assert tensors_behind(heads, "unknown") == ()
    wrong = dict.fromkeys(tensors_behind(heads, rows), (1, 5, 5))
    assert output_parts(heads, rows, wrong) is None


def test_a_tensor_that_mnn_does_not_know_leaves_the_output_whole(heads: Model) -> None:
    renamed = dataclasses.replace(heads, tensor_names=tuple(f"{name}?" for name in heads.tensor_names))
    renamed = dataclasses.replace(renamed, output_names=tuple(f"{name}?" for name in heads.output_names))
    assert find_parts(renamed, INPUTS, TIMEOUT) == {}
