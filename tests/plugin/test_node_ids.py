"""What ids of the suite say: models, recipes and targets, of whatever ids are pasted back."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_mnnquant.plugin.node_ids import (
    is_part,
    is_suite_id,
    model_names,
    models_of,
    place_of,
    recipes_of,
    renamed,
    targets_of,
)

PLACES = {
    "net.py:build::int8-eval::size": ("int8-eval", ""),
    "net.py:build::int8-eval@aarch64:cortex-a76::accuracy": ("int8-eval", "aarch64:cortex-a76"),
    "net.onnx::w8@phone::accuracy": ("w8", "phone"),
    "net.onnx::w8@ssh://me@host::accuracy": ("w8", "ssh://me@host"),
    "net.onnx::p.py:make@w8::size": ("p.py:make@w8", ""),
    "net.onnx::p.py:make@w8@phone::size": ("p.py:make@w8", "phone"),
    "net.onnx::p.py:make@w8-eval@phone::size": ("p.py:make@w8-eval", "phone"),
    "net.onnx::p.py:make-train::size": ("p.py:make-train", ""),
    "net.onnx": ("", ""),
    "mnnquant-baseline.json::entries": ("entries", ""),
}


@pytest.mark.parametrize("check_id", PLACES)
def test_an_id_names_its_variant_and_its_target(check_id: str) -> None:
    assert place_of(check_id) == PLACES[check_id]


def test_models_recipes_and_targets_come_from_ids_in_their_order() -> None:
    ids = ["b.onnx::w8::size", "a.py:net::int8-eval@phone::accuracy", "b.onnx::w8", "baseline.json::entries"]
    assert models_of(ids) == ("b.onnx", "a.py:net")
    assert recipes_of(ids) == ("w8", "int8")
    assert recipes_of(["a.py:net::p.py:make@w8-eval::size"]) == ("p.py:make@w8",)
    assert targets_of(ids) == ("host", "phone")
    assert targets_of(ids[:1]) == ()


def test_ids_start_with_a_model_by_its_specification_or_its_name() -> None:
    assert model_names(["mine=net.py:build", "x.onnx"]) == {"mine=net.py:build", "mine", "x.onnx"}


@pytest.mark.parametrize(
    ("arg", "expected"),
    [
        ("mine::int8::size", True),
        ("net.onnx::int8::size", True),
        ("any.json::entries", True),
        ("test_own.py::entries", False),
        ("test_own.py::test_own", False),
        ("none.onnx::int8::size", False),
        ("net.onnx", False),
    ],
)
def test_ids_of_the_suite_are_distinguished_from_those_of_tests(tmp_path: Path, arg: str, expected: bool) -> None:
    (tmp_path / "net.onnx").touch()
    assert is_suite_id(arg, {"mine"}, tmp_path) is expected


OLD_FORMS = {
    "net.py:build::int8[eval]": "net.py:build::int8-eval",
    "net.py:build::int8[eval]]": "net.py:build::int8-eval",
    "net.py:build::int8-kl+w8[train]::size": "net.py:build::int8-kl+w8-train::size",
    "net.py:build::int8[train]::size]": "net.py:build::int8-train::size",
    "net.py:build::int8[train]@aarch64:cortex-a76::accuracy]": "net.py:build::int8-train@aarch64:cortex-a76::accuracy",
    "net.py:build::p.py:make@w8[eval]::size": "net.py:build::p.py:make@w8-eval::size",
}


@pytest.mark.parametrize("check_id", OLD_FORMS)
def test_ids_with_a_mode_in_brackets_have_a_new_form(check_id: str) -> None:
    assert renamed(check_id) == OLD_FORMS[check_id]
    assert renamed(OLD_FORMS[check_id]) == OLD_FORMS[check_id]


@pytest.mark.parametrize(
    "check_id", ["net[1].onnx::w8::size", "net[train].onnx::w8", "net.onnx", "net.onnx::w8::size]"]
)
def test_brackets_of_other_parts_stay(check_id: str) -> None:
    assert renamed(check_id) == check_id


@pytest.mark.parametrize("requested", ["m::int8-eval::size", "m::int8-eval", "m::int8", "m"])
def test_an_id_is_part_of_what_it_stands_below(requested: str) -> None:
    assert is_part("m::int8-eval::size", requested)
    assert not is_part("m::int8-kl::size", requested) or requested == "m"
    assert not is_part("more::int8-eval::size", requested)
    assert is_part("m::int8-eval@phone::accuracy", requested) is not requested.endswith("size")
