"""What single operators make, on this host and on a target, and what the outputs become of it."""

from __future__ import annotations

import dataclasses
import shlex
import sys

import numpy as np
import pytest

from pytest_mnnquant.quantize.prepared import Prepared
from pytest_mnnquant.quantize.variant import Variant
from pytest_mnnquant.runtime.inference import Arrays, run
from pytest_mnnquant.runtime.operator_outputs import operators_on_host, operators_on_target, spliced_outputs
from pytest_mnnquant.runtime.options import RunOptions
from pytest_mnnquant.targets.parse import command_target
from tests.conftest import TIMEOUT

PYTHON = shlex.quote(sys.executable)


@pytest.fixture
def images(digits: Prepared) -> Arrays:
    assert digits.evaluation is not None
    return digits.evaluation.head(40)


def test_operators_are_given_what_reached_them_here_whatever_reaches_them_there(
    digits_int8: Variant, images: Arrays
) -> None:
    """Other images go in, and one operator in the middle is given its values in another order: it alone differs."""
    model, mine = digits_int8.model, command_target("mine", {"command": PYTHON})
    here, samples = operators_on_host(model, images, range(40), RunOptions(TIMEOUT), held=1e9)
    assert samples == list(range(40))
    assert {op.name for op in model.convolutions} <= {which.name for which in here}
    odd = [which for which, ran in here.items() if which.kind == "Convolution" and ran.int8][1]
    turned = dataclasses.replace(here[odd], inputs=tuple(array[::-1] for array in here[odd].inputs))
    others = {name: array[::-1] for name, array in images.items()}
    there = operators_on_target(model, others, {**here, odd: turned}, RunOptions(TIMEOUT, send=mine.send))
    assert there.keys() == here.keys()
    for which, ran in there.items():
        assert not ran.ignored_inputs, which
        for ours, theirs in zip(here[which].outputs, ran.outputs, strict=True):
            np.testing.assert_array_equal(ours, theirs[::-1] if which == odd else theirs)


def test_what_one_operator_makes_is_carried_on_to_the_outputs(digits_int8: Variant, images: Arrays) -> None:
    model = digits_int8.model
    here, _ = operators_on_host(model, images, range(40), RunOptions(TIMEOUT), held=1e9)
    first, *_, last = [which for which in here if which.kind == "Convolution"]
    mixed = {which: tuple(array[::-1] for array in here[which].outputs) for which in (first, last)}
    same = {which: ran.outputs for which, ran in here.items() if which.kind == "Pooling"}
    plain, changed = spliced_outputs(model, images, mixed | same, RunOptions(TIMEOUT))
    np.testing.assert_array_equal(plain["output"], run(model, images, RunOptions(TIMEOUT)).outputs["output"][:40])
    for which in same:
        np.testing.assert_array_equal(changed[which]["output"], plain["output"])
    for which in mixed:  # All that follows is of the images in the other order.
        np.testing.assert_array_equal(changed[which]["output"], plain["output"][::-1])


def test_of_large_tensors_the_samples_that_differ_most_are_looked_at(digits_int8: Variant, images: Arrays) -> None:
    order = [*range(30, 40), *range(30)]
    here, _ = operators_on_host(digits_int8.model, images, order, RunOptions(TIMEOUT), held=1e9)
    few = sum(array.nbytes for ran in here.values() for array in (*ran.inputs, *ran.outputs)) / 10
    some, samples = operators_on_host(digits_int8.model, images, order, RunOptions(TIMEOUT), held=few)
    assert samples == [30, 31, 32, 33]
    which = next(iter(some))
    np.testing.assert_array_equal(some[which].outputs[0], here[which].outputs[0][30:34])
