"""Files in which an operator reads a copy of its input: everything else stays, and so does what MNN computes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pytest_mnnquant.mnnfile.matching import match_layers
from pytest_mnnquant.mnnfile.model import BadModel, read_model
from pytest_mnnquant.mnnfile.separate_inputs import with_separate_inputs
from pytest_mnnquant.mnnfile.structure import differences
from pytest_mnnquant.runtime.inference import run
from pytest_mnnquant.runtime.options import RunOptions
from tests.conftest import TIMEOUT
from tests.workshop import Workshop


def test_only_the_operators_that_are_named_read_a_copy(workshop: Workshop, tmp_path: Path) -> None:
    model = workshop.prepared("digits_cnn").model
    layers = list(model.convolutions)[:2]
    copies = {op.name: f"copy of {op.name}" for op in layers}
    path = tmp_path / "copy.mnn"
    path.write_bytes(with_separate_inputs(model.path.read_bytes(), copies))
    changed = read_model(path)
    assert changed.tensor_names == (*model.tensor_names, *copies.values())
    rewired = {op.name: op for op in changed.ops}
    assert [rewired[op.name].input_names[0] for op in layers] == list(copies.values())
    assert [rewired[copy].input_names[0] for copy in copies.values()] == [op.input_names[0] for op in layers]
    unchanged = [op for op in changed.ops if op.name not in copies and op.name not in copies.values()]
    assert unchanged == [op for op in model.ops if op.name not in copies]
    for before, after in zip(model.layers, changed.layers, strict=True):
        assert np.array_equal(model.decoded(before), changed.decoded(after))
    assert (changed.inputs, changed.output_names, changed.uuid) == (model.inputs, model.output_names, model.uuid)
    assert differences(model, changed, match_layers(model, changed)) == []
    data = workshop.prepared("digits_cnn").data
    assert data is not None
    first, second = (run(each, data.head(4), RunOptions(TIMEOUT)).outputs["output"] for each in (model, changed))
    assert np.array_equal(first, second)


def test_a_file_cut_short_is_refused(workshop: Workshop) -> None:
    data = workshop.prepared("digits_cnn").model.path.read_bytes()
    with pytest.raises(BadModel):
        with_separate_inputs(data[:100], {})
