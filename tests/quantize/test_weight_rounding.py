"""Rounding by the effect on outputs: never worse than the nearest codes, and as good as the best of all choices."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from pytest_mnnquant.cache.store import Store
from pytest_mnnquant.metrics.agreement import sqnr_db
from pytest_mnnquant.quantize.job import Job
from pytest_mnnquant.quantize.prepared import Prepared
from pytest_mnnquant.quantize.variant import make_variant
from pytest_mnnquant.quantize.weight_rounding import Moments, choose_codes, has_square_pictures
from pytest_mnnquant.recipes.names import recipe_named
from pytest_mnnquant.runtime.inference import run
from tests.conftest import TIMEOUT, quietly
from tests.quantize.test_bias_correction import CHOICES, DATA, source

__all__ = ["source"]  # A fixture.


def losses(codes: Moments, exact: Moments, moments: Moments) -> Moments:
    error = codes - exact
    shared = np.broadcast_to(moments, (len(exact), *moments.shape[1:]))
    return np.asarray(np.einsum("fn,fnm,fm->f", error, shared, error))


@pytest.mark.parametrize("filters", [1, 6])
def test_codes_are_nearly_the_best_of_all_choices(filters: int) -> None:
    generator = np.random.default_rng(0)
    exact = generator.uniform(-120, 120, (6, 8))
    values = generator.random((filters, 8, 64))  # Not negative, as after a ReLU: the errors add up.
    moments = values @ values.swapaxes(1, 2)
    codes = choose_codes(exact, moments, -127, 127)
    chosen, nearest = losses(codes, exact, moments), losses(np.rint(exact), exact, moments)
    assert (np.abs(codes - exact) < 1).all()
    assert (chosen <= nearest).all()
    assert chosen.sum() < nearest.sum() / 2
    ways = [np.floor(exact) + np.array(way) for way in itertools.product((0, 1), repeat=8)]
    best = np.min([losses(way, exact, moments) for way in ways], 0)
    assert chosen.sum() < 4 * best.sum()


def test_codes_stay_in_their_range() -> None:
    # The clipped weight lacks 3 steps, for which the second can make up in part.
    codes = choose_codes(np.array([[126.9, -126.7, 130.0]]), np.ones((1, 3, 3)), -127, 127)
    assert codes.tolist() == [[127.0, -126.0, 127.0]]


@pytest.mark.parametrize(
    ("shapes", "expected"),
    [
        ([(2, 3, 8, 8)], True),
        ([(2, 8, 8, 3), (2, 5)], True),
        ([(2, 2, 4, 16)], False),
        ([(2, 3, 8, 8), (2, 1, 4, 16)], False),
        ([(2, 64)], False),
    ],
    ids=["channels first", "channels last", "wide", "one of two", "no picture"],
)
def test_maps_are_read_as_squares_only_if_pictures_are(shapes: list[tuple[int, ...]], expected: bool) -> None:
    inputs = {str(number): np.zeros(shape, np.float32) for number, shape in enumerate(shapes)}
    assert has_square_pictures(inputs) == expected


def test_weights_that_round_to_zero_are_made_up_for(source: Prepared, store: Store) -> None:
    expected = next(iter(run(source.model, DATA, source.options(TIMEOUT)).outputs.values()))
    qualities = {}
    for recipe in ("int8", "int8+rounded"):
        variant = make_variant(Job(source, recipe_named(recipe), "eval", (), CHOICES), store, quietly)
        computed = next(iter(run(variant.model, DATA, source.options(TIMEOUT)).outputs.values()))
        qualities[recipe] = sqnr_db(expected, computed)
    assert qualities["int8+rounded"] > qualities["int8"] + 3
    (step,) = variant.provenance["transformations"]
    assert (step["suffix"], step["is_refused"]) == ("rounded", False)
