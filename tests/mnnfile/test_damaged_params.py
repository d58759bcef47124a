"""A damaged params file is params or `BadParams`, in both forms; never a crash or another exception."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pytest_mnnquant.mnnfile.params import BadParams, Params, read_params, write_params
from pytest_mnnquant.quantize.variant import Variant
from tests.mnnfile.test_params import as_json, layer
from tests.mutations import Edit, damaged, edits
from tests.smallnets import one_layer
from tests.workshop import Workshop


@pytest.fixture(scope="module")
def real(digits_int8: Variant) -> bytes:
    assert digits_int8.params is not None
    return digits_int8.params.read_bytes()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("damaged")


def read(path: Path, content: bytes) -> Params | None:
    path.write_bytes(content)
    try:
        return read_params(path)
    except BadParams as error:
        told = str(error)
    assert str(path) in told
    return None


@given(changes=edits)
def test_damaged_binary_params_are_params_or_bad(folder: Path, real: bytes, changes: list[Edit]) -> None:
    read(folder / "p.bin", damaged(real, changes))


@given(changes=edits)
def test_damaged_json_params_are_params_or_bad(folder: Path, changes: list[Edit]) -> None:
    text = json.dumps(as_json(Params((layer("a"), layer("b")), "uuid"), snake=False))
    read(folder / "p.json", damaged(text.encode(), changes))


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=3), st.just(10**400), st.just(-1)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["name", "scales", "x"]), inner),
    max_leaves=5,
)
PATHS: list[tuple[Any, ...]] = [
    ("version",),
    ("mnnUuid",),
    ("algo",),
    ("algo", 1),
    ("algo", 1, "type"),
    ("algo", 1, "quantParams"),
    ("algo", 1, "quantParams", "layer"),
    *(("algo", 1, "quantParams", "layer", 0, *rest) for rest in [(), ("input",), ("weight",), ("opName",)]),
    *(
        ("algo", 1, "quantParams", "layer", 0, side, 0, key)
        for side in ("input", "weight", "output")
        for key in ("name", "bits", "scales", "zeroPoint", "clampMax")
    ),
]


@pytest.mark.parametrize("place", PATHS, ids=lambda place: ".".join(map(str, place)))
@given(value=JSON)
@example(value=10**400)
@example(value=[10**400])
@example(value=float("inf"))
@example(value=[None])
@example(value=[{}])
def test_any_value_anywhere_in_json_is_params_or_bad(folder: Path, place: tuple[Any, ...], value: Any) -> None:
    root: Any = as_json(Params((layer("a"),), "uuid"), snake=False)
    holder = root
    for key in place[:-1]:
        holder = holder[key]
    holder[place[-1]] = value
    read(folder / "p.json", json.dumps(root).encode())


@pytest.mark.parametrize(
    "content", [b"{", b"[]", b"3", b"null", b"\xff{}", b'{"version": ' + b"9" * 5000 + b"}", b"[" * 100_000, b" "]
)
def test_json_that_is_no_params_file_is_refused(folder: Path, content: bytes) -> None:
    assert read(folder / "p.json", content) is None


@pytest.mark.parametrize("cut", [1, 10, 100, 1000])
def test_truncated_params_are_refused(folder: Path, real: bytes, cut: int) -> None:
    """Without its last bytes the file lacks part of its uuid or its last layers, and MNN would ignore it."""
    assert read(folder / "p.bin", real[:-cut]) is None


def test_json_in_a_bin_is_refused_unless_the_converter_wrote_it(
    folder: Path, workshop: Workshop, tmp_path: Path
) -> None:
    text = json.dumps(as_json(Params((layer(),)), snake=False)).encode()
    path = folder / "p.bin"
    path.write_bytes(text)
    with pytest.raises(BadParams, match=r"\.json$"):
        read_params(path)
    net = one_layer("linear")
    missing = tmp_path / "missing.bin"
    workshop.quantized(workshop.floats(net.network, {"input": net.identity}), "--compressionParamsFile", str(missing))
    guide = read_params(missing)
    assert guide.is_guide
    assert len(guide.layers) == 1


@pytest.mark.parametrize("length", [9, 10, 11, 12, 13, 32, 123])
def test_binary_whose_first_bytes_look_like_blanks_or_json_is_binary(folder: Path, length: int) -> None:
    params = Params((layer(),), version="{" * length)
    write_params(params, folder / "p.bin")
    assert read_params(folder / "p.bin") == params
