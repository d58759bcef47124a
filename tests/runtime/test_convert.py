"""One conversion is believed only for what its output file holds."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from pytest_mnnquant.mnnfile.model import read_model
from pytest_mnnquant.quantize.prepared import Prepared
from pytest_mnnquant.runtime.convert import convert
from pytest_mnnquant.runtime.jobs import FailureKind, NativeFailure
from tests.conftest import TIMEOUT


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def labels(path: Path) -> list[str]:
    return [op.weights[0].label for op in read_model(path).layers]


def test_an_onnx_becomes_a_float_model(digits: Prepared, tmp_path: Path) -> None:
    onnx = digits.model.path.with_suffix(".onnx")
    model = convert(onnx, tmp_path / "deep" / "net.mnn", timeout=TIMEOUT)
    assert model.path == tmp_path / "deep" / "net.mnn"
    assert labels(model.path) == ["float32"] * 4
    np.testing.assert_array_equal(model.decoded(model.layers[1]), digits.model.decoded(digits.model.layers[1]))
    assert names(tmp_path / "deep") == ["net.mnn"]


def test_flags_reach_the_converter_and_external_weights_come_along(digits: Prepared, tmp_path: Path) -> None:
    flags = ("--weightQuantBits", "4", "--saveExternalData")
    model = convert(digits.model.path, tmp_path / "net.mnn", flags, timeout=TIMEOUT)
    assert labels(model.path) == ["w4"] * 4
    assert names(tmp_path) == ["net.mnn", "net.mnn.weight"]
    assert model.external_missing == 0


def test_relative_paths_are_the_callers(digits: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "in.mnn").write_bytes(digits.model.path.read_bytes())
    monkeypatch.chdir(tmp_path)
    assert convert(Path("in.mnn"), Path("out.mnn"), ("--fp16",), timeout=TIMEOUT).path == tmp_path / "out.mnn"


def broken_sources(digits: Prepared, folder: Path) -> dict[str, Path]:
    onnx, mnn = digits.model.path.with_suffix(".onnx").read_bytes(), digits.model.path.read_bytes()
    contents = {
        "truncated.onnx": onnx[: len(onnx) // 2],
        "random.onnx": bytes(range(256)) * 8,
        "empty.onnx": b"",
        "truncated.mnn": mnn[: len(mnn) // 2],
        "random.mnn": bytes(range(1, 256)) * 8,
        "really_onnx.mnn": onnx,
    }
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return {name: folder / name for name in [*contents, "missing.onnx", "missing.mnn"]}


def test_what_can_not_be_converted_fails_and_leaves_the_old_output_alone(digits: Prepared, tmp_path: Path) -> None:
    """MNN ends each of these with exit status 0 and a Success, or with a crash."""
    output = tmp_path / "out" / "net.mnn"
    output.parent.mkdir()
    output.write_bytes(b"the old output")
    for name, source in broken_sources(digits, tmp_path).items():
        with pytest.raises(NativeFailure, match=rf"^converting {name} \(float\): ") as error:
            convert(source, output, timeout=TIMEOUT)
        if source.suffix == ".mnn":  # Refused before MNN runs.
            assert error.value.kind is FailureKind.BAD_INPUT, name
        else:
            assert error.value.kind in (FailureKind.BAD_OUTPUT, FailureKind.CRASHED, FailureKind.RAISED), name
        assert output.read_bytes() == b"the old output", name
        assert names(output.parent) == ["net.mnn"], name


def test_an_old_output_is_replaced(digits: Prepared, tmp_path: Path) -> None:
    output = tmp_path / "net.mnn"
    output.write_bytes(b"the old output")
    convert(digits.model.path, output, ("--fp16",), timeout=TIMEOUT)
    assert labels(output) == ["float16"] * 4


@pytest.mark.parametrize(
    "flags",
    [("--weightQuantBit", "8"), ("--weightQuantBits",), ("--compressionParams", "x.bin")],
    ids=str,
)
def test_flags_that_mnn_ignores_give_the_float_model_they_made(
    digits: Prepared, tmp_path: Path, flags: tuple[str, ...]
) -> None:
    """MNN prints Success for these; the model that comes back says what it is."""
    model = convert(digits.model.path, tmp_path / "net.mnn", flags, timeout=TIMEOUT)
    assert labels(model.path) == ["float32"] * 4


def test_conversions_at_the_same_time_into_one_folder_do_not_disturb_each_other(
    digits: Prepared, tmp_path: Path
) -> None:
    """MNN puts external weights through a file of a fixed name in the working directory."""

    def one(number: int) -> Path:
        flags = ("--saveExternalData",) if number % 2 else ("--weightQuantBits", "8", "--saveExternalData")
        return convert(digits.model.path, tmp_path / f"{number}.mnn", flags, timeout=TIMEOUT).path

    with ThreadPoolExecutor(4) as pool:
        paths = list(pool.map(one, range(6)))
    for number, path in enumerate(paths):
        alone = read_model(paths[number % 2])
        model = read_model(path)
        for ours, theirs in zip(model.layers, alone.layers, strict=True):
            np.testing.assert_array_equal(model.decoded(ours), alone.decoded(theirs))
    for ours, theirs in zip(read_model(paths[1]).layers, digits.model.layers, strict=True):
        np.testing.assert_array_equal(read_model(paths[1]).decoded(ours), digits.model.decoded(theirs))


def test_weights_beside_an_earlier_model_do_not_stay(digits: Prepared, tmp_path: Path) -> None:
    output, beside = tmp_path / "net.mnn", tmp_path / "net.mnn.weight"
    convert(digits.model.path, output, ("--saveExternalData",), timeout=TIMEOUT)
    assert beside.exists()
    convert(digits.model.path, output, (), timeout=TIMEOUT)
    assert not beside.exists()


def test_a_source_with_external_weights_keeps_them(digits: Prepared, tmp_path: Path) -> None:
    outside = convert(digits.model.path, tmp_path / "outside.mnn", ["--saveExternalData"], timeout=TIMEOUT)
    assert outside.external_path is not None
    before = outside.external_path.read_bytes()
    inside = convert(outside.path, tmp_path / "inside.mnn", timeout=TIMEOUT)
    assert inside.external_path is None
    assert outside.external_path.read_bytes() == before
    for ours, theirs in zip(digits.model.layers, inside.layers, strict=True):
        assert np.array_equal(digits.model.decoded(ours), inside.decoded(theirs))
