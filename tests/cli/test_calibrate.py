"""`calibrate` gives a sound int8 model, or says why there is none: for configurations with which MNN says "done"."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pytest_mnnquant.mnnfile.model import Model, read_model
from pytest_mnnquant.quantize.prepared import Prepared
from pytest_mnnquant.quantize.variant import Variant
from tests.cli.conftest import Net, Result, write_png, write_sample
from tests.golden_text import check_golden, without_numbers
from tests.smallnets import PoolNet, Residual, TwoWays, Words
from tests.workshop import Workshop

SAMPLES = 12
Calibrate = Callable[..., Result]


@pytest.fixture(scope="module")
def images(digits: Prepared, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Digits as image files."""
    folder = tmp_path_factory.mktemp("images")
    assert digits.calibration is not None
    for number, image in enumerate(digits.calibration.inputs["x"][:SAMPLES]):
        write_png(folder / f"{number}.png", np.clip(image[0] * 255, 0, 255).astype(np.uint8))
    return folder


@pytest.fixture(scope="module")
def sequence(digits: Prepared, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same digits as numbers."""
    folder = tmp_path_factory.mktemp("sequence")
    assert digits.calibration is not None
    for number, image in enumerate(digits.calibration.inputs["x"][:SAMPLES]):
        write_sample(folder / f"{number:03d}", {"x": image[np.newaxis]})
    return folder


def of_images(folder: Path, **other: Any) -> dict[str, Any]:
    usual = {"format": "GRAY", "mean": [0.0], "normal": [1 / 255], "width": 16, "height": 16, "path": str(folder)}
    return {**usual, **other}


def of_sequence(folder: Path, **other: Any) -> dict[str, Any]:
    return {"input_type": "sequence", "path": str(folder), "batch_size": 1, **other}


@pytest.fixture
def calibrate(net: Net, tool: Callable[..., Result], tmp_path: Path) -> Calibrate:
    """Runs `calibrate` with a configuration into `out/net.mnn`, which holds an old output."""
    (tmp_path / "out").mkdir()
    (tmp_path / "out/net.mnn").write_bytes(b"the old output")

    def run(config: dict[str, Any] | str, source: Path = net.mnn) -> Result:
        path = tmp_path / "config.json"
        path.write_text(config if isinstance(config, str) else json.dumps(config))
        return tool("calibrate", source, tmp_path / "out/net.mnn", path)

    return run


@pytest.fixture
def refuse(calibrate: Calibrate, tmp_path: Path, without_folders: Callable[[str], str]) -> Callable[..., str]:
    """Runs `calibrate` with a configuration that must fail; returns its reasons, without folders."""

    def run(config: dict[str, Any] | str, *source: Path) -> str:
        result = calibrate(config, *source)
        assert (result.status, result.out) == (1, "")
        assert [path.name for path in (tmp_path / "out").iterdir()] == ["net.mnn"]
        assert (tmp_path / "out/net.mnn").read_bytes() == b"the old output"
        return without_folders(result.err)

    return run


@pytest.mark.parametrize(
    ("kind", "other", "recipe"),
    [
        ("images", {}, "mnnquant-kl"),
        ("images", {"feature_quantize_method": "EMA", "batch_size": 4, "used_image_num": 0}, "mnnquant-ema"),
        ("sequence", {"weight_quantize_method": "ADMM", "quant_bits": 8}, "mnnquant-kl-admm"),
        ("sequence", {"feature_quantize_method": "EMA"}, "mnnquant-ema"),
        ("sequence", {"feature_quantize_method": "ADMM", "debug": False}, "mnnquant-admm"),
    ],
)
def test_right_configurations(
    calibrate: Calibrate, images: Path, sequence: Path, tmp_path: Path, kind: str, other: dict[str, Any], recipe: str
) -> None:
    config = of_images(images, **other) if kind == "images" else of_sequence(sequence, **other)
    result = calibrate(config)
    assert (result.status, result.out.count("\n")) == (0, 1), result.err
    assert f"{recipe}: 4 of 4" in result.out
    assert "coverage 100.0%" in result.out
    assert {op.weights[0].label for op in read_model(tmp_path / "out/net.mnn").layers} == {"int8"}
    assert "warning: " in result.err  # 12 samples are few.


def test_a_layer_left_out_by_name(net: Net, calibrate: Calibrate, images: Path, tmp_path: Path) -> None:
    name = net.model.layers[1].name
    result = calibrate(of_images(images, skip_quant_op_names=[name]))
    assert "3 of 3" in result.out, result.err
    labels = {op.name: op.weights[0].label for op in read_model(tmp_path / "out/net.mnn").layers}
    assert labels.pop(name) == "float32"
    assert set(labels.values()) == {"int8"}


def test_several_inputs(workshop: Workshop, calibrate: Calibrate, refuse: Callable[..., str], tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    torch.manual_seed(0)
    arrays = {"image": random.random((8, 2, 8, 8), np.float32), "extra": random.random((8, 5), np.float32)}
    model = workshop.floats(TwoWays().eval(), arrays)
    for number in range(8):
        write_sample(tmp_path / f"data/{number}", {name: array[number : number + 1] for name, array in arrays.items()})
    shutil.copytree(tmp_path / "data", tmp_path / "gap")
    (tmp_path / "gap/3/extra.txt").unlink()
    check_golden("calibrate/a-sample-without-an-input", refuse(of_sequence(tmp_path / "gap"), model.path))
    check_golden("calibrate/images-for-two-inputs", refuse(of_images(tmp_path / "data"), model.path))
    assert calibrate(of_sequence(tmp_path / "data"), model.path).status == 0


def of_network(workshop: Workshop, network: torch.nn.Module, folder: Path) -> Model:
    """A network on small images, with the samples it is calibrated on in `folder`."""
    images = np.random.default_rng(0).random((12, 1, 8, 8), np.float32)
    for number, image in enumerate(images):
        write_sample(folder / f"{number:02d}", {"x": image[np.newaxis]})
    return workshop.floats(network.eval(), {"x": images})


def test_an_int8_model_that_is_ruined(workshop: Workshop, refuse: Callable[..., str], tmp_path: Path) -> None:
    """EMA gives a sum with a fused ReLU a zero point at which MNN's int8 sum cuts it off."""
    torch.manual_seed(0)
    model = of_network(workshop, Residual(), tmp_path / "data")
    text = refuse(of_sequence(tmp_path / "data", feature_quantize_method="EMA"), model.path)
    assert "accuracy failed: MNQ70" in text


def test_a_max_pool_that_only_x86_gets_wrong(workshop: Workshop, calibrate: Calibrate, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = of_network(workshop, PoolNet(), tmp_path / "data")
    result = calibrate(of_sequence(tmp_path / "data"), model.path)
    assert result.status == 0, result.err
    assert "MNQ710 x86-max-pool" in result.err


def test_samples_that_are_batches(
    workshop: Workshop, calibrate: Calibrate, random: np.random.Generator, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    images = random.random((4, 1, 8, 8), np.float32)
    model = workshop.floats(PoolNet().eval(), {"x": images}, dynamic=False)
    for number in range(3):
        write_sample(tmp_path / f"data/{number}", {"x": images})
    assert calibrate(of_sequence(tmp_path / "data"), model.path).status == 0


CONFIGS: dict[str, dict[str, Any]] = {
    "typo-in-a-key": {"used_image_nums": 3},
    "format": {"format": "rgb"},
    "input_type": {"input_type": "Sequence"},
    "feature-method": {"feature_quantize_method": "kl"},
    "weight-method": {"weight_quantize_method": "MAXABS"},
    "ADMM-on-images": {"feature_quantize_method": "ADMM"},
    "EMA-and-ADMM-weights": {"feature_quantize_method": "EMA", "weight_quantize_method": "ADMM"},
    "winograd": {"winogradOpt": True},
    "4-bits": {"quant_bits": 4},
    "clamp-0": {"feature_clamp_value": 0},
    "clamp-0.5": {"weight_clamp_value": 0.5},
    "clamp-200": {"feature_clamp_value": 200},
    "width": {"width": 32},
    "height": {"height": "16"},
    "channels": {"format": "RGB", "mean": [0] * 3, "normal": [1] * 3},
    "mean-of-other-channels": {"format": "RGB", "mean": [0]},
    "normal-0": {"normal": [0]},
    "pixels-of-0-to-1": {"mean": [0.1307], "normal": [1 / 0.3081]},
    "too-many": {"used_image_num": 13},
    "two-numbers": {"used_image_num": 3, "used_sample_num": 4},
    "skip-nothing": {"skip_quant_op_names": ["unlike-any"]},
    "skip-with-EMA": {"feature_quantize_method": "EMA", "skip_quant_op_names": ["output__matmul_converted"]},
    "other-inputs": {"inputs": [{"name": "X"}]},
}


@pytest.mark.parametrize("name", CONFIGS)
def test_configurations_that_do_other_than_they_say(refuse: Callable[..., str], images: Path, name: str) -> None:
    check_golden(f"calibrate/{name}", refuse(of_images(images, **CONFIGS[name])))


@pytest.mark.parametrize("key", ["mean", "normal", "format", "width", "height", "path"])
def test_what_must_be_said(refuse: Callable[..., str], images: Path, key: str) -> None:
    config = of_images(images)
    del config[key]
    assert f"{key} is missing: " in refuse(config)


def test_a_tensor_where_an_operator_is_needed(net: Net, refuse: Callable[..., str], images: Path) -> None:
    op = next(op for op in net.model.layers if op.output_names[0] != op.name)
    text = refuse(of_images(images, skip_quant_op_names=[op.output_names[0]]))
    check_golden("calibrate/a-tensor-to-skip", text, operator=op.name, tensor=op.output_names[0])


def test_files_that_are_no_configuration(refuse: Callable[..., str], tool: Callable[..., Result], net: Net) -> None:
    assert "is not JSON" in refuse("{'path': 1}")
    check_golden("calibrate/a-key-given-twice", refuse('{"path": "a", "path": "b"}'))
    check_golden("calibrate/no-object", refuse("[]"))
    check_golden("calibrate/no-such-file", tool("calibrate", net.mnn, "out.mnn", "none.json").err)
    check_golden("calibrate/two-arguments", tool("calibrate", net.mnn, "out.mnn").err)


def test_images_that_are_none(refuse: Callable[..., str], images: Path, tmp_path: Path) -> None:
    assert "no such folder" in refuse(of_images(tmp_path / "none"))
    (tmp_path / "data").mkdir()
    check_golden("calibrate/an-empty-folder", refuse(of_images(tmp_path / "data")))
    shutil.copy(images / "0.png", tmp_path / "data")
    (tmp_path / "data/labels.csv").write_text("0,1\n")
    check_golden("calibrate/a-file-that-is-no-image", refuse(of_images(tmp_path / "data")))
    (tmp_path / "data/labels.csv").unlink()
    (tmp_path / "data/more").mkdir()
    check_golden("calibrate/a-folder-among-images", refuse(of_images(tmp_path / "data")))


def test_sequences_with_gaps(refuse: Callable[..., str], sequence: Path, tmp_path: Path) -> None:
    def damaged(change: Callable[[Path], object]) -> str:
        shutil.rmtree(tmp_path / "data", ignore_errors=True)
        shutil.copytree(sequence, tmp_path / "data")
        change(tmp_path / "data" / "005")
        return refuse(of_sequence(tmp_path / "data"))

    shape = '{"inputs": [{"name": "x", "shape": [1, 1, 8, 8]}]}'
    check_golden("calibrate/sample-without-values", damaged(lambda folder: (folder / "x.txt").unlink()))
    check_golden("calibrate/sample-without-shapes", damaged(lambda folder: (folder / "input.json").unlink()))
    check_golden("calibrate/another-shape", damaged(lambda folder: (folder / "input.json").write_text(shape)))
    check_golden("calibrate/three-numbers", damaged(lambda folder: (folder / "x.txt").write_text("1 2 3")))
    check_golden("calibrate/a-comma", damaged(lambda folder: (folder / "x.txt").write_text("1, 2")))
    check_golden("calibrate/mean-of-a-sequence", refuse(of_sequence(sequence, mean=[1])))
    text = refuse(of_sequence(sequence, feature_quantize_method="EMA", batch_size=4))
    check_golden("calibrate/batches-with-ema", text)


def words(workshop: Workshop) -> Model:
    torch.manual_seed(0)
    return workshop.floats(Words().eval(), {"tokens": np.random.default_rng(0).integers(0, 50, (8, 6))})


def test_sources_on_which_mnnquant_crashes(
    refuse: Callable[..., str], workshop: Workshop, net: Net, digits_int8: Variant, sequence: Path, tmp_path: Path
) -> None:
    config = of_sequence(sequence)
    check_golden("calibrate/an-int8-source", refuse(config, digits_int8.model.path))
    check_golden("calibrate/loops", refuse(config, words(workshop).path))
    (tmp_path / "half.mnn").write_bytes(net.mnn.read_bytes()[:5000])
    check_golden("calibrate/half-a-model", without_numbers(refuse(config, tmp_path / "half.mnn")))
    check_golden("calibrate/an-onnx-model", without_numbers(refuse(config, net.onnx)))
    check_golden("calibrate/no-model", refuse(config, tmp_path / "none.mnn"))
    external = workshop.quantized(net.model, "--saveExternalData").path
    text = refuse(of_sequence(sequence, feature_quantize_method="EMA"), external)
    check_golden("calibrate/external-weights-with-ema", text)


def test_scales_of_absurd_data(refuse: Callable[..., str], tmp_path: Path) -> None:
    write_sample(tmp_path / "data/0", {"x": np.full((1, 1, 16, 16), 1e30)})
    assert "has scale " in refuse(of_sequence(tmp_path / "data"))
