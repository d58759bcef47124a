"""Figures of agreement: exact where they can be, never flattering where something is broken."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pytest_mnnquant.metrics.agreement import Agreement, accuracy, agreement, is_same, sqnr_db

Floats = npt.NDArray[np.float32]
SHAPES = hnp.array_shapes(min_dims=1, max_dims=3, min_side=1, max_side=5)
VALUES = st.floats(-1e4, 1e4, width=32, allow_subnormal=False)


def arrays(shape: tuple[int, ...]) -> st.SearchStrategy[Floats]:
    return hnp.arrays(np.float32, shape, elements=VALUES)


PAIRS = SHAPES.flatmap(lambda shape: st.tuples(arrays(shape), arrays(shape)))


def figures(found: Agreement, *names: str) -> list[float]:
    """Those of the figures that there are."""
    values = (getattr(found, name) for name in names)
    return [value for value in values if value is not None]


@given(SHAPES.flatmap(arrays))
def test_equal_outputs_agree_wholly(values: Floats) -> None:
    found = agreement(values, values.copy())
    assert (found.samples, found.sqnr_db, found.max_error, found.relative_error) == (len(values), math.inf, 0, 0)
    assert found.cosine is None or found.cosine == pytest.approx(1)
    assert found.top1 in (None, 1.0)


@given(PAIRS)
def test_figures_stay_within_their_bounds(pair: tuple[Floats, Floats]) -> None:
    found = agreement(*pair)
    assert found.cosine is None or -1 - 1e-9 <= found.cosine <= 1 + 1e-9
    assert found.max_error >= 0
    assert found.relative_error >= 0
    assert found.top1 is None or 0 <= found.top1 <= 1
    assert (found.max_error == 0) == np.array_equal(*pair) == (found.sqnr_db == math.inf)
    assert (found.cosine is None) == (pair[0][0].size == 1)
    classes = pair[0].ndim == 2 and pair[0].shape[1] > 1
    assert (found.top1 is not None) == (classes and (len(pair[0]) == 1 or len(set(pair[0].argmax(1))) > 1))


@given(PAIRS, st.randoms(use_true_random=False))
def test_the_order_of_samples_does_not_matter(pair: tuple[Floats, Floats], random: object) -> None:
    order = list(range(len(pair[0])))
    random.shuffle(order)  # type: ignore[attr-defined]
    first, second = agreement(*pair), agreement(pair[0][order], pair[1][order])
    assert figures(first, "sqnr_db", "cosine", "max_error", "range", "top1") == pytest.approx(
        figures(second, "sqnr_db", "cosine", "max_error", "range", "top1"), rel=1e-6, abs=1e-6
    )


@given(PAIRS, st.sampled_from([0.25, 2.0, 1024.0]))
def test_the_unit_does_not_matter(pair: tuple[Floats, Floats], unit: float) -> None:
    first, second = agreement(*pair), agreement(pair[0] * np.float32(unit), pair[1] * np.float32(unit))
    assert figures(first, "sqnr_db", "cosine", "relative_error", "top1") == pytest.approx(
        figures(second, "sqnr_db", "cosine", "relative_error", "top1"), rel=1e-6, abs=1e-6
    )


@given(arrays((4, 6)), st.floats(0.015625, 100, width=32))
def test_sqnr_is_the_ratio_of_powers(values: Floats, share: float) -> None:
    assume(np.abs(values).max() > 1)
    expected = -20 * math.log10(share)
    reference = values.astype(np.float64)
    assert sqnr_db(reference, reference * (1 + share)) == pytest.approx(expected, abs=1e-6)


def test_a_constant_part_does_not_flatter_the_centred_figure() -> None:
    """Outputs 1000 +- 1 in which the part that depends on the input is lost."""
    reference = 1000 + np.array([[-1.0, 1.0], [1.0, -1.0]])
    found = agreement(reference, np.full((2, 2), 1000.0))
    assert found.sqnr_db == pytest.approx(60, abs=0.1)
    assert found.centred_sqnr_db == pytest.approx(0, abs=1e-9)
    assert found.relative_error == 0.5


def test_cosine_is_the_mean_over_samples() -> None:
    reference = np.array([[1.0, 0.0], [0.0, 1.0]])
    output = np.array([[5.0, 0.0], [3.0, 0.0]])
    found = agreement(reference, output)
    assert found.cosine == pytest.approx(0.5)
    assert found.top1 == 0.5


def test_samples_of_noise_alone_do_not_count_in_the_cosine() -> None:
    reference = np.array([[100.0, 0.0], [1e-6, 0.0]])
    output = np.array([[100.0, 0.0], [-1e-6, 1e-6]])
    assert agreement(reference, output).cosine == pytest.approx(1)


@pytest.mark.parametrize(("output", "cosine"), [(np.zeros((2, 3)), 1.0), (np.ones((2, 3)), 0.0)])
def test_a_silent_reference_agrees_with_silence_only(output: Floats, cosine: float) -> None:
    found = agreement(np.zeros((2, 3)), output)
    assert found.cosine == cosine
    assert found.sqnr_db == (math.inf if cosine else -math.inf)
    assert found.relative_error == (0 if cosine else math.inf)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 3e38])
@pytest.mark.parametrize("side", ["reference", "output", "both"])
def test_broken_numbers_never_pass_for_agreement(bad: float, side: str) -> None:
    """NaN compares false with every limit, so a limit that must not be exceeded has to be passed in so many words."""
    reference = np.arange(12, dtype=np.float32).reshape(3, 4)
    output = reference + np.float32(0.001)
    if side != "output":
        reference[1, 2] = bad
    if side != "reference":
        output[1, 2] = bad
    if side == "both" and bad == 3e38:
        output[1, 2] = -bad
    found = agreement(reference, output)
    assert not found.relative_error <= 0.01
    assert not found.sqnr_db >= 10


def test_integers_are_compared_one_by_one() -> None:
    """The distance between two classes means nothing."""
    reference = np.arange(200).reshape(50, 4) % 9
    output = reference.copy()
    output[:2, 1] += 1
    found = agreement(reference, output)
    assert found.equal == 0.99
    assert found.cosine is None
    assert found.top1 is None
    assert is_same(found)
    output[:10, 1] += 1
    assert not is_same(agreement(reference, output))


@pytest.mark.parametrize(("error", "elements", "same"), [(0.016, 1, True), (0.031, 1, False), (0.016, 40, False)])
def test_single_elements_of_a_sparse_map_may_differ_more(error: float, elements: int, same: bool) -> None:
    """Approximations of MNN's GELU behind the steep sigmoid of a text detector."""
    reference = np.zeros((4, 100))
    reference[:, ::10] = 1
    output = reference.copy()
    output.flat[:elements] += error
    assert is_same(agreement(reference, output)) is same


@pytest.mark.parametrize(
    ("error", "same"), [(0.0, True), (0.009, True), (0.011, False), (np.nan, False), (np.inf, False)]
)
def test_reals_are_the_same_up_to_a_share_of_their_range(error: float, same: bool) -> None:
    reference = np.linspace(-1, 1, 40).reshape(10, 4)
    output = reference.copy()
    output[3, 1] += 2 * error
    assert is_same(agreement(reference, output)) is same


def test_nothing_and_other_shapes_can_not_be_compared() -> None:
    with pytest.raises(ValueError, match="no samples"):
        agreement(np.zeros((0, 3)), np.zeros((0, 3)))
    with pytest.raises(ValueError, match="shapes differ"):
        agreement(np.zeros((2, 3)), np.zeros((2, 4)))
    with pytest.raises(ValueError, match="shapes differ"):
        agreement(np.zeros((2, 3)), np.zeros((3, 3)))


def test_accuracy_is_the_share_of_right_answers() -> None:
    output = np.array([[0.1, 0.9], [0.8, 0.2], [0.3, 0.7], [0.6, 0.4]])
    assert accuracy(output, np.array([1, 0, 0, 0])) == 0.75
    assert accuracy(output.reshape(4, 2, 1), np.array([[1], [0], [0], [0]])) == 0.75


@given(
    st.integers(1, 6).flatmap(
        lambda n: st.tuples(arrays((n, 4)), hnp.arrays(np.int64, (n,), elements=st.integers(0, 3)))
    )
)
def test_accuracy_of_the_labels_themselves_is_one(pair: tuple[Floats, npt.NDArray[np.int64]]) -> None:
    output, labels = pair
    assert accuracy(np.eye(4)[labels], labels) == 1
    right = sum(int(row.argmax()) == label for row, label in zip(output, labels, strict=True))
    assert accuracy(output, labels) == pytest.approx(right / len(labels))
