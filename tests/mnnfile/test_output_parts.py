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


class Assigned(nn.Module):
    """Rows of boxes in pixels beside scores, written into slices of the scores as YOLOv5 does, and cut and taken."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Conv2d(4, 7, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Rows [N, 16, 7], the first 12 of joined rows [N, 12, 8], and their columns in another order."""
        raw = self.head(x).flatten(2).transpose(1, 2)
        rows = raw.sigmoid()
        rows[..., :2] = (rows[..., :2] * 2 - 0.5) * 32
        rows[..., 2:4] = (rows[..., 2:4] * 2) ** 2 * 50
        joined = torch.cat([raw.sigmoid(), raw[..., :1] * 100], 2)
        return rows, joined[:, :12], joined[..., [7, 0, 1, 2]]


def test_slices_looked_up_columns_and_assigned_values_are_followed(workshop: Workshop) -> None:
    torch.manual_seed(0)
    model = workshop.floats(Assigned().eval(), INPUTS)
    found = find_parts(model, INPUTS, TIMEOUT)
    assert set(found) == set(model.output_names)
    rows, cut, taken = (found[name].places[0] for name in model.output_names)
    for columns in ((0, 2), (2, 4), (4, 7)):
        assert len(np.unique(rows[:, slice(*columns)])) == 1
    assert len(np.unique(rows)) == 3
    assert [found[model.output_names[0]].parts[number].is_probability for number in rows[0, ::2]][2:] == [True, True]
    assert cut.shape == (12, 8)
    assert (cut[:, :7] == cut[0, 0]).all()
    assert (cut[:, 7] != cut[0, 0]).all()
    assert (taken[:, 0] != taken[0, 1]).all()
    assert (taken[:, 1:] == taken[0, 1]).all()


def test_outputs_of_sigmoid_and_softmax_are_probabilities(workshop: Workshop) -> None:
    class Probabilities(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, ...]:
            return x.sigmoid().flatten(1), (x + 1).softmax(1), 2 * x.sigmoid() - 1

    model = workshop.floats(Probabilities().eval(), INPUTS)
    assert probabilities(model) == set(model.output_names[:2])


def test_without_the_shapes_there_are_no_parts(heads: Model) -> None:
    rows = heads.output_names[0]
    assert output_parts(heads, rows, {}) is None
    assert output_parts(heads, rows, {rows: np.zeros((1, 32, 7))}) is None
    assert tensors_behind(heads, "unknown") == ()
    wrong = dict.fromkeys(tensors_behind(heads, rows), np.zeros((1, 5, 5)))
    assert output_parts(heads, rows, wrong) is None


def test_a_tensor_that_mnn_does_not_know_leaves_the_output_whole(heads: Model) -> None:
    renamed = dataclasses.replace(heads, tensor_names=tuple(f"{name}?" for name in heads.tensor_names))
    renamed = dataclasses.replace(renamed, output_names=tuple(f"{name}?" for name in heads.output_names))
    assert find_parts(renamed, INPUTS, TIMEOUT) == {}
