"""The copy of a model that computes here what the model computes on ARM."""

from __future__ import annotations

import numpy as np

from pytest_mnnquant.mnnfile.pooling import is_max_pool, pools_right
from pytest_mnnquant.quantize.prepared import Prepared
from pytest_mnnquant.quantize.variant import Variant
from pytest_mnnquant.runtime.arm_equivalent import arm_equivalent
from pytest_mnnquant.runtime.inference import run
from pytest_mnnquant.runtime.options import RunOptions
from tests.conftest import TIMEOUT


def test_max_pools_in_int8_are_changed_where_mnn_pools_wrongly(digits: Prepared, digits_int8: Variant) -> None:
    assert digits.evaluation is not None
    model, inputs = digits_int8.model, digits.evaluation.head(64)
    as_run = run(model, inputs, RunOptions(TIMEOUT))
    pools = tuple(op.name for op in model.ops if is_max_pool(op))
    with arm_equivalent(model, as_run) as (copy, changed):
        assert changed == (() if pools_right() else pools)
        outputs = run(copy, inputs, RunOptions(TIMEOUT)).outputs["output"]
    reference = run(digits.model, inputs, RunOptions(TIMEOUT)).outputs["output"]
    assert (outputs.argmax(1) == reference.argmax(1)).mean() > 0.95
    assert np.array_equal(outputs, as_run.outputs["output"]) == (not changed)
    assert copy.path.exists() == (not changed)


def test_a_float_model_is_its_own_equivalent(digits: Prepared) -> None:
    assert digits.evaluation is not None
    as_run = run(digits.model, digits.evaluation.head(8), RunOptions(TIMEOUT))
    with arm_equivalent(digits.model, as_run) as (model, changed):
        assert (model, changed) == (digits.model, ())
