"""JSON files are read by key and type, and every fault names the file and the key."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_mnnquant.llm.config import merge_config
from pytest_mnnquant.llm.json_object import BadExport, JsonObject, parse_json, read_json
from pytest_mnnquant.llm.options import read_options

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


def refusal(read: Callable[[], object]) -> BadExport | None:
    """What a reader refuses; every other exception is a failure of the test."""
    try:
        read()
    except BadExport as error:
        return error
    return None


@pytest.mark.parametrize("text", ["", "[]", "{", '"a"', "{'a': 1}", "[" * 100_000, "\xff"])
def test_what_is_not_an_object_is_one_line(text: str, tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(BadExport) as caught:
        read_json(path)
    assert caught.value.file == str(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("read", "value"),
    [
        (lambda values: values.text("k"), 1),
        (lambda values: values.integer("k"), "1"),
        (lambda values: values.integer("k"), True),
        (lambda values: values.integer("k"), 1 << 70),
        (lambda values: values.integer("k"), None),
        (lambda values: values.number("k", 0.0), [1.0]),
        (lambda values: values.flag("k"), 0),
        (lambda values: values.member("k"), []),
        (lambda values: values.integers("k"), [1, "2"]),
        (lambda values: values.array("k"), {}),
        (lambda values: list(values.objects("k")), [1]),
    ],
)
def test_another_type_names_the_key(read: Callable[[JsonObject], object], value: object) -> None:
    with pytest.raises(BadExport) as caught:
        read(JsonObject("x.json", {"k": value}, "outer."))
    assert caught.value.file == "x.json"
    assert caught.value.key.startswith("outer.k")


def test_missing_keys_have_defaults() -> None:
    values = JsonObject("x.json", {})
    assert (values.text("k", "a"), values.integer("k", 3), values.flag("k", True)) == ("a", 3, True)
    assert (values.integers("k"), values.member("k").values, values.number("k", 2.0)) == ((), {}, 2.0)


@given(st.dictionaries(st.sampled_from(["tie_embeddings", "jinja", "hidden_size", "llm_model", "is_visual"]), VALUES))
def test_any_configuration_is_read_or_refused(values: dict[str, object]) -> None:
    error = refusal(lambda: merge_config(JsonObject("config.json", {}), JsonObject("llm_config.json", values)))
    assert error is None or (error.file == "llm_config.json" and error.key)


@given(st.dictionaries(st.sampled_from(["quant_bit", "lm_quant_block", "sym", "gptq_path", "scale_bit"]), VALUES))
def test_any_options_are_read_or_refused(values: dict[str, object]) -> None:
    error = refusal(lambda: read_options(JsonObject("export_args.json", values)))
    assert error is None or error.key in values


@given(st.binary(max_size=40))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    error = refusal(lambda: parse_json(data, "x.json"))
    assert error is None or error.file == "x.json"


def test_a_key_that_is_there_twice_is_a_fault() -> None:
    with pytest.raises(BadExport, match="'b'"):
        parse_json(b'{"a": {"b": 1, "c": 2, "b": 1}}', "config.json")
