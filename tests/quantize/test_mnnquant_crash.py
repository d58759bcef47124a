"""The operator on which mnnquant's KL crashes, from the file alone; `benchmarks/mnnquant_crashes.py` runs the tool."""

from __future__ import annotations

import pytest

from pytest_mnnquant.mnnfile.model import Model, Op
from pytest_mnnquant.quantize.mnnquant_crash import crashing_operator
from tests.synthetic_evidence import model

NAMES = ("image", "first", "second", "third", "last", "axes")


def op(name: str, kind: str, inputs: tuple[int, ...], output: int, shape: tuple[int, ...] = ()) -> Op:
    ends = tuple(NAMES[i] for i in inputs), (NAMES[output],)
    return Op(name, kind, inputs, (output,), *ends, shape=shape)


def net(*ops: Op) -> Model:
    return model((op("image", "Input", (), 0), *ops), tensor_names=NAMES, output_names=("last",))


CONV, RESIZE = op("conv", "Convolution", (0,), 1), op("resize", "Interp", (1,), 2)


@pytest.mark.parametrize(
    ("ops", "name"),
    [
        ((CONV, RESIZE, op("out", "ConvertTensor", (2,), 4)), "resize"),
        ((CONV, RESIZE, op("pool", "Pooling", (2,), 4)), "resize"),
        ((CONV, RESIZE, op("other", "Interp", (1,), 3), op("join", "Concat", (2, 3), 4)), "resize"),
        ((CONV, op("sum", "CumSum", (1,), 4)), "sum"),
        ((CONV, op("axes", "Const", (), 5, (2,)), op("mean", "Reduction", (1, 5), 4)), "mean"),
    ],
    ids=["output", "pool", "all copies", "steps", "axes"],
)
def test_it_is_named(ops: tuple[Op, ...], name: str) -> None:
    crashing = crashing_operator(net(*ops))
    assert crashing is not None
    assert crashing.name == name


@pytest.mark.parametrize(
    "ops",
    [
        (CONV, op("out", "ConvertTensor", (1,), 4)),
        (CONV, RESIZE, op("next", "Convolution", (2,), 4)),
        (CONV, RESIZE, op("other", "Convolution", (1,), 3), op("join", "Concat", (2, 3), 4)),
        (CONV, op("axes", "Const", (), 5, (1,)), op("mean", "Reduction", (1, 5), 4)),
    ],
    ids=["moved", "convolution", "copy beside a tensor", "axis"],
)
def test_forms_that_run_have_none(ops: tuple[Op, ...]) -> None:
    assert crashing_operator(net(*ops)) is None
