"""The reader and MNN's own JSON dump agree in every field, on real files; benchmarks/dump_agreement.py has them all."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT


@pytest.fixture(scope="module", autouse=True)
def _benchmarks() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "benchmarks"))
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("corpus")


@pytest.mark.parametrize(
    ("name", "layers"),
    [
        ("cnn/w4b16-half-scales", 4),
        ("multi/params", 2),
        ("conv1d/mnnquant-admm", 3),
        ("lstm/w8", 0),
        ("gru/origin", 1),
        ("norms/w8-ext", 2),
        ("deconv/fp16", 3),
        ("sparse/sparse-w4b16", 2),
        ("tflite/float", 2),
    ],
)
def test_no_field_differs_and_layers_compute_with_what_is_decoded(folder: Path, name: str, layers: int) -> None:
    from corpus import entries
    from dump_agreement import compare

    (entry,) = (entry for entry in entries() if entry.name == name)
    row = compare(name, entry.path(folder), {})
    assert row.wrong == ()
    assert row.ran == layers
    assert row.fields > 80
    assert row.decoded >= max(1, layers)


def test_a_difference_is_found(folder: Path) -> None:
    from corpus import Wheel, entries
    from dump_fields import differences, dump_fields, load_dump, read_fields

    from pytest_mnnquant.mnnfile.model import read_model

    (entry,) = (entry for entry in entries() if entry.name == "tflite/w8")
    path = entry.path(folder)
    Wheel().dump(path, folder / "dump.json")
    mine, theirs = read_fields(read_model(path)), dump_fields(load_dump(folder / "dump.json"))
    assert differences(mine, theirs) == []
    for name in mine:
        assert differences({**mine, name: "changed"}, theirs), name
        assert differences({key: value for key, value in mine.items() if key != name}, theirs), name


def test_numbers_that_json_has_not_are_read(tmp_path: Path) -> None:
    from dump_fields import load_dump

    path = tmp_path / "dump.json"
    path.write_text('{"a": [ inf, -inf, -nan, 1.5 ], "inf": "nan \\" inf"}', encoding="utf-8")
    loaded = load_dump(path)
    assert loaded["a"][:2] == [float("inf"), float("-inf")]
    assert loaded["a"][2] != loaded["a"][2]
    assert loaded["inf"] == 'nan " inf'
