"""Layers of two models find each other, whatever tools did to names and order."""

from __future__ import annotations

import dataclasses
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_mnnquant.mnnfile.matching import match_layers, signature
from pytest_mnnquant.mnnfile.model import Op
from pytest_mnnquant.quantize.prepared import Prepared
from pytest_mnnquant.quantize.variant import Variant
from tests.synthetic_evidence import layer, model
from tests.workshop import Workshop

SHAPES = st.sampled_from([(8, 4, 3, 3), (4, 8, 3, 3), (8, 8, 1, 1)])
KINDS = st.sampled_from(["Convolution", "Deconvolution", "Const"])


@st.composite
def networks(draw: st.DrawFn, smallest: int = 1) -> tuple[Op, ...]:
    specs = draw(st.lists(st.tuples(SHAPES, KINDS), min_size=smallest, max_size=8))
    return tuple(layer(f"layer{number}", shape, kind=kind) for number, (shape, kind) in enumerate(specs))


def renamed(ops: tuple[Op, ...]) -> tuple[Op, ...]:
    return tuple(dataclasses.replace(op, name=f"Converted{1000 - number}") for number, op in enumerate(ops))


def names(pairs: tuple[tuple[Op, Op], ...]) -> set[tuple[str, str]]:
    return {(first.name, second.name) for first, second in pairs}


@given(networks())
def test_a_model_matches_itself(ops: tuple[Op, ...]) -> None:
    found = match_layers(model(ops), model(ops))
    assert all(first is second for first, second in found.pairs)
    assert (len(found.pairs), found.missing, found.extra) == (len(ops), (), ())


@given(networks())
def test_renamed_layers_match_in_order_of_execution(ops: tuple[Op, ...]) -> None:
    found = match_layers(model(ops), model(renamed(ops)))
    assert names(found.pairs) == {(a.name, b.name) for a, b in zip(ops, renamed(ops), strict=True)}
    assert (found.missing, found.extra) == ((), ())


@given(networks(), st.randoms(use_true_random=False))
def test_reordered_layers_match_by_name(ops: tuple[Op, ...], random: object) -> None:
    shuffled = list(ops)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    found = match_layers(model(ops), model(shuffled))
    assert names(found.pairs) == {(op.name, op.name) for op in ops}


@given(st.permutations([(8, 4, 3, 3), (4, 8, 3, 3), (8, 8, 1, 1), (2, 2, 1, 1)]))
def test_layers_of_different_shapes_match_even_when_renamed_and_reordered(shapes: list[tuple[int, ...]]) -> None:
    first = [layer(f"a{shape}", shape) for shape in sorted(shapes)]
    second = [layer(f"b{shape}", shape) for shape in shapes]
    found = match_layers(model(first), model(second))
    assert names(found.pairs) == {(f"a{shape}", f"b{shape}") for shape in shapes}


@given(networks(), networks(), st.booleans())
def test_every_layer_is_in_one_pair_or_left_over_and_pairs_are_alike(
    first: tuple[Op, ...], second: tuple[Op, ...], rename: bool
) -> None:
    other = renamed(second) if rename else second
    found = match_layers(model(first), model(other))
    assert Counter(id(op) for op, _ in found.pairs) + Counter(map(id, found.missing)) == Counter(map(id, first))
    assert Counter(id(op) for _, op in found.pairs) + Counter(map(id, found.extra)) == Counter(map(id, other))
    assert all(signature(a) == signature(b) for a, b in found.pairs)
    shared = Counter(map(signature, first)) & Counter(map(signature, second))
    assert len(found.pairs) == shared.total()


@given(networks(smallest=2), st.data())
def test_a_layer_that_is_gone_is_missed_alone(ops: tuple[Op, ...], data: st.DataObject) -> None:
    gone = data.draw(st.sampled_from(ops))
    rest = tuple(op for op in ops if op is not gone)
    found = match_layers(model(ops), model(rest))
    assert [id(op) for op in found.missing] == [id(gone)]
    assert found.extra == ()


def test_swapped_names_of_other_shapes_do_not_mislead() -> None:
    first = [layer("a", (8, 4, 3, 3)), layer("b", (4, 8, 3, 3))]
    second = [layer("b", (8, 4, 3, 3)), layer("a", (4, 8, 3, 3))]
    assert names(match_layers(model(first), model(second)).pairs) == {("a", "b"), ("b", "a")}


def test_the_same_name_in_a_loop_body_is_another_layer() -> None:
    first = [layer("a"), layer("a", subgraph="body")]
    second = [layer("a", subgraph="body"), layer("a")]
    found = match_layers(model(first), model(second))
    assert all(a.subgraph == b.subgraph for a, b in found.pairs)


def test_group_and_family_tell_layers_apart() -> None:
    assert signature(layer("a", group=1)) != signature(layer("a", group=2))
    assert signature(layer("a")) != signature(layer("a", kind="Const"))
    assert signature(layer("a")) == signature(layer("b", kind="ConvInt8"))


def test_partner_is_the_other_of_the_pair() -> None:
    first, second = [layer("a"), layer("gone", (9, 9, 1, 1))], [layer("a")]
    found = match_layers(model(first), model(second))
    assert found.partner(first[0]) is second[0]
    assert found.partner(first[1]) is None


@pytest.mark.parametrize("flags", [("--weightQuantBits", "4"), ("--fp16",)], ids=str)
def test_real_layers_match_whatever_they_are_stored_as(
    workshop: Workshop, digits: Prepared, flags: tuple[str, ...]
) -> None:
    found = match_layers(digits.model, workshop.quantized(digits.model, *flags))
    assert len(found.pairs) == 4
    assert (found.missing, found.extra) == ((), ())


def test_int8_layers_match_their_float_ones_by_weights(digits: Prepared, digits_int8: Variant) -> None:
    found = match_layers(digits.model, digits_int8.model)
    for first, second in found.pairs:
        step = digits_int8.model.steps(second).max()
        assert abs(digits.model.decoded(first) - digits_int8.model.decoded(second)).max() <= step * 0.51


def test_another_network_does_not_match(workshop: Workshop, digits: Prepared) -> None:
    found = match_layers(digits.model, workshop.prepared("garment_classifier").model)
    assert not found.pairs
    assert (len(found.missing), len(found.extra)) == (4, 5)
