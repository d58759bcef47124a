"""MNN's propagation of quantizations, repeated: what it leaves where, and what depends on the order of addresses."""

from __future__ import annotations

from pytest_mnnquant.mnnfile.commands import RASTER, Command
from pytest_mnnquant.mnnfile.model import Op, TensorQuant
from pytest_mnnquant.mnnfile.propagated_values import Values, computed
from pytest_mnnquant.mnnfile.scale_propagation import outcomes, possible_outcomes, propagated

FINE, COARSE = (TensorQuant(scale, 0.0, -127.0, 127.0, "int8") for scale in (0.01, 0.04))


def step(kind: str, inputs: tuple[int, ...], output: int) -> Command:
    op = Op(f"{kind}{output}", kind, inputs, (output,), (), ())
    return Command(kind, inputs, output, op)


#: Tensor 1 goes through an Interp into the joined tensor 4, and unmodified into the joined tensor 5.
NECK = (
    step("UnaryOp", (0,), 1),
    step("Interp", (1,), 2),
    step(RASTER, (2, 3), 4),
    step(RASTER, (6, 1), 5),
)


def test_a_quantization_goes_backward_through_rasters_and_interps() -> None:
    sources = propagated(NECK[1:3], {4: FINE}, order=int)
    assert sources == {4: 4, 3: 4, 2: 4, 1: 4}


def test_a_quantization_goes_forward_where_a_command_has_one_input() -> None:
    steps = (step("Pooling", (1,), 2), step(RASTER, (2,), 3), step("UnaryOp", (3,), 4))
    assert propagated(steps, {1: FINE}, order=int) == {1: 1, 2: 1, 3: 1}


def test_what_several_inputs_are_joined_to_takes_none_of_theirs() -> None:
    assert propagated((step(RASTER, (1, 2), 3),), {1: FINE, 2: FINE}, order=int) == {1: 1, 2: 2}


def test_described_tensors_keep_their_quantization() -> None:
    quants = {1: COARSE, 2: COARSE, 4: FINE, 5: FINE}
    (only,) = outcomes(NECK, quants)
    assert {tensor: only.sources[tensor] for tensor in quants} == {1: 1, 2: 2, 4: 4, 5: 5}


def test_a_tensor_that_two_scales_reach_has_either() -> None:
    found = outcomes(NECK, {4: FINE, 5: COARSE})
    assert {outcome.sources[1] for outcome in found} == {4, 5}
    assert {outcome.sources[2] for outcome in found} == {4}


def test_a_resize_propagates_what_was_propagated_before() -> None:
    """Tensor 1, which two operators take, is reached only from what these got in the first round."""
    steps = (
        step("UnaryOp", (0,), 1),
        step("Pooling", (1,), 2),
        step("Interp", (1,), 3),
        step(RASTER, (2, 8), 4),
        step(RASTER, (3, 9), 5),
    )
    quants = {4: FINE, 5: COARSE}
    (first,) = outcomes(steps, quants)
    assert (first.sources[2], first.sources[3]) == (4, 5)
    assert 1 not in first.sources
    assert {outcome.sources[1] for outcome in outcomes(steps, quants, resized=True)} == {4, 5}
    assert len(possible_outcomes(steps, quants)) == 3
    described = {**quants, 1: FINE, 2: FINE, 3: FINE}
    assert len(possible_outcomes(steps, described)) == 1


def test_an_interp_between_two_scales_computes_something_else() -> None:
    quants, values = {4: FINE, 5: COARSE}, Values()
    made = [computed(NECK, quants, outcome, values)[4] for outcome in outcomes(NECK, quants)]
    assert len(set(made)) == 2


def test_rounding_before_or_after_moving_values_is_the_same() -> None:
    steps = (step("UnaryOp", (0,), 1), step(RASTER, (1, 3), 4), step(RASTER, (6, 1), 5), step("Convolution", (4,), 7))
    quants, values = {4: FINE, 5: COARSE}, Values()
    found = outcomes(steps, quants)
    assert len(found) == 2
    made = [computed(steps, quants, outcome, values) for outcome in found]
    assert values.rounded(made[0][4], values.grid(FINE)) == values.rounded(made[1][4], values.grid(FINE))


def test_nearly_equal_scales_are_one() -> None:
    values = Values()
    nearly = TensorQuant(FINE.scale * 1.001, 0.0, -127.0, 127.0, "int8")
    assert values.grid(FINE) == values.grid(nearly) != values.grid(COARSE)
