"""Options: parsed the same from command line, ini file and TOML; what is wrong is named with its place."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_mnnquant.config.option import Option
from pytest_mnnquant.config.options import BY_NAME, OPTIONS
from pytest_mnnquant.recipes.recipe import MODES
from pytest_mnnquant.sources.pytorch import EXPORTERS
from tests.golden_text import check_golden

ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)


@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: option.name)
@given(value=ANYTHING)
def test_any_value_is_parsed_or_refused_with_its_place(option: Option, value: Any) -> None:
    try:
        parsed = option.parse(value, "the place")
    except ValueError as error:
        told = str(error)
    else:
        told = "the place: "
        items = parsed.values() if isinstance(parsed, dict) else parsed if option.many else (parsed,)
        assert option.named or option.pairs or not isinstance(parsed, dict)
        assert all(isinstance(item, option.kind) for item in items)
        assert all(not option.choices or item in option.choices for item in items)
        assert all(option.low <= item <= option.high for item in items if option.kind in (int, float))
        assert option.kind is bool or "" not in items
    assert told.startswith("the place: ")


@pytest.mark.parametrize(
    ("name", "value", "parsed"),
    [
        ("min_coverage", "0.5", 0.5),
        ("min_coverage", 1, 1.0),
        ("timeout", "1e3", 1000.0),
        ("max_accuracy_drop", "-0.5", -0.5),
        ("recipe", "w8", ("w8",)),
        ("recipe", ["w8", "int8"], ("w8", "int8")),
        ("ignore", [], ()),
        ("mode", "train", "train"),
        ("strict", True, True),
        ("min_sqnr", "20", 20.0),
        ("min_sqnr", ["boxes=25", "20"], {"boxes": 25.0, "*": 20.0}),
        ("min_cosine", {"boxes": 0.5}, {"boxes": 0.5}),
        ("calibration", "data/c.npz", "data/c.npz"),
        ("state", ["h=h_out", "c=c_out"], {"h": "h_out", "c": "c_out"}),
        ("state", {"h": "h_out"}, {"h": "h_out"}),
    ],
)
def test_values_are_parsed_by_kind(name: str, value: Any, parsed: Any) -> None:
    assert BY_NAME[name].parse(value, "x") == parsed
    assert type(BY_NAME[name].parse(value, "x")) is type(parsed)


@pytest.mark.parametrize(
    ("name", "value", "entry"),
    [
        ("min_coverage", "99", "out-of-range"),
        ("min_coverage", "99%", "not-a-number"),
        ("min_coverage", "nan", "nan"),
        ("min_coverage", True, "a-boolean-for-a-number"),
        ("min_size_ratio", "-1", "below-0"),
        ("timeout", "0.5", "below-1"),
        ("recipe", 8, "not-a-list"),
        ("recipe", [8], "not-a-list-of-strings"),
        ("mode", "Eval", "not-a-choice"),
        ("strict", "yes", "not-a-boolean"),
        ("calibration", 3, "not-a-string"),
        ("min_cosine", {"boxes": 2}, "out-of-range-by-name"),
        ("min_agreement", "boxes=most", "not-a-number-by-name"),
        ("min_sqnr", [], "no-number"),
        ("state", "h", "no-pair"),
        ("state", ["h=a", "h=b"], "a-state-twice"),
    ],
)
def test_bad_values_are_named(name: str, value: Any, entry: str) -> None:
    with pytest.raises(ValueError) as error:
        BY_NAME[name].parse(value, "[tool.mnnquant]")
    assert str(error.value).startswith("[tool.mnnquant]: ")
    check_golden(f"options/{entry}", str(error.value))


def test_an_unknown_recipe_is_named() -> None:
    with pytest.raises(ValueError, match="'int4'"):
        BY_NAME["recipe"].parse("int4", "[tool.mnnquant]")


def test_an_infinite_limit_is_no_limit_where_there_is_no_upper_bound() -> None:
    assert BY_NAME["max_latency_ratio"].parse("inf", "x") == math.inf
    with pytest.raises(ValueError, match="out of range"):
        BY_NAME["min_coverage"].parse("inf", "x")


def test_options_offer_what_the_package_has() -> None:
    assert BY_NAME["mode"].choices == ("both", *MODES)
    assert BY_NAME["exporter"].choices == EXPORTERS
    assert len(BY_NAME) == len(OPTIONS)
    for option in OPTIONS:
        assert option.flag == "--" + option.key.replace("_", "-")
        assert option.help


@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: option.name)
def test_defaults_are_values_of_their_option(option: Option) -> None:
    if option.default is not None:
        assert option.parse(option.default, "x") == option.default


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("config", ""),
        ("quantized", "  "),
        ("target", []),
        ("recipe", []),
        ("mode", []),
        ("skip_layer", [""]),
        ("min_cosine", {}),
        ("max_latency_ratio", []),
        ("threads", 1.5),
        ("threads", math.inf),
        ("batch", "2.5"),
        ("batch", True),
        ("timeout", 10**400),
        ("min_sqnr", {"y": 10**400}),
    ],
)
def test_what_is_empty_or_of_the_wrong_kind_is_refused(name: str, value: object) -> None:
    with pytest.raises(ValueError, match=r"^the place"):
        BY_NAME[name].parse(value, "the place")


@pytest.mark.parametrize("name", ["ignore", "skip_layer", "report"])
def test_lists_that_are_empty_by_default_may_be_empty(name: str) -> None:
    assert BY_NAME[name].parse([], "the place") == ()
