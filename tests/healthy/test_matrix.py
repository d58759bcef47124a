"""No error is found in healthy models, of every kind of source and tool; warnings only where a person would agree.

A fast part of `benchmarks/healthy.py`, which has all architectures and recipes.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from pytest_mnnquant.cache.store import Store
from pytest_mnnquant.config.settings import model_settings
from pytest_mnnquant.evidence.check_runner import run_check
from pytest_mnnquant.evidence.source import FixtureValues, SourceUnderTest
from pytest_mnnquant.evidence.variant import VariantUnderTest, variant_under_test
from pytest_mnnquant.findings.catalogue import CHECKS
from pytest_mnnquant.findings.finding import Finding
from pytest_mnnquant.runtime.convert import convert, run_converter
from pytest_mnnquant.runtime.source_runtime import LITERT
from pytest_mnnquant.sources.spec import Spec, parse_spec
from tests.conftest import FIXTURES, TIMEOUT, quietly
from tests.tflite_nets import NETS, TfliteNet

sys.path.append(str(FIXTURES))
import digits_data
import garment_classifier

SAMPLES = 300
#: A MaxPool on x86, and too few samples for a bound: told of any such model.
USUAL = {"MNQ710", "MNQ730"}
NOT_TIMED = [check.name for check in CHECKS if not check.is_timed]


def told(case: VariantUnderTest) -> list[Finding]:
    results = [run_check(case, name) for name in NOT_TIMED]
    assert sum(map(bool, results)) > 3, results  # What is skipped tells nothing.
    return [finding for result in results for finding in result.findings]


def assert_healthy(case: VariantUnderTest, *warnings: str) -> None:
    others = [one for one in told(case) if one.code not in {*USUAL, *warnings}]
    assert not others, others
    errors = [one for one in told(case) if one.severity.value in ("error", "consequence")]
    assert not errors, errors


def few(arrays: dict[str, Any]) -> dict[str, Any]:
    return {name: array[:SAMPLES] for name, array in arrays.items()}


def train(size: int) -> dict[str, Any]:
    return digits_data.calibration(size, 160)


def held_out(size: int) -> dict[str, Any]:
    return few(digits_data.evaluation(size))


def gate_on(store: Store, source: Any, calibration: Any, evaluation: Any, **values: Any) -> SourceUnderTest:
    """The gate on a network, on a file, or on `FILE.py:callable` of the fixtures."""
    named = isinstance(source, str | Path)
    spec = parse_spec(str(source), FIXTURES) if named else Spec("net", "net")
    settings = model_settings(spec.text, spec.name, FIXTURES, {"timeout": TIMEOUT, **values})
    given = None if named else source
    return SourceUnderTest(
        settings, spec, store, quietly, FixtureValues(given, calibration=calibration, evaluation=evaluation)
    )


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # Waiting threads of torch would fight MNN's processes for the cores.
    yield
    torch.set_num_threads(before)


# PyTorch ------------------------------------------------------------------------------------------------------------

SIZES = {"digits_cnn": 16, "garment_classifier": 28, "mobile_net": 24, "tiny_transformer": 12}


def fixture_gate(store: Store, net: str, **values: Any) -> SourceUnderTest:
    return gate_on(store, f"{net}.py:build", train(SIZES[net]), held_out(SIZES[net]), **values)


@pytest.mark.parametrize("net", SIZES)
def test_int8_of_pytorch(net: str, store: Store) -> None:
    assert_healthy(variant_under_test(fixture_gate(store, net), "int8", "eval"))


def test_int8_of_pytorch_in_train_mode(store: Store) -> None:
    """There is neither BatchNorm nor Dropout that train mode could spoil."""
    assert_healthy(variant_under_test(fixture_gate(store, "garment_classifier"), "int8", "train"))


@pytest.mark.parametrize("recipe", ["int8-average", "int8+w8", "mnncompress-repaired"])
def test_other_calibrations(recipe: str, store: Store) -> None:
    assert_healthy(variant_under_test(fixture_gate(store, "digits_cnn"), recipe, "eval"))


def test_half_precision_of_what_was_half_before(store: Store) -> None:
    """All outputs then equal the float model's in every bit, and that is right."""
    network = garment_classifier.build()
    with torch.no_grad():
        for tensor in network.parameters():
            tensor.copy_(tensor.half())
    case = variant_under_test(gate_on(store, network, train(28), held_out(28)), "fp16", None)
    assert_healthy(case)
    assert case.runs.same_as_float is None


@pytest.mark.parametrize("recipe", ["w8", "w8-sym", "w8-scale16", "w4", "w4-hqq", "fp16"])
def test_weights_only(recipe: str, store: Store) -> None:
    assert_healthy(variant_under_test(fixture_gate(store, "mobile_net"), recipe, None))


def test_blocks_where_mnn_can(store: Store) -> None:
    """Of the others MNN makes no blocks; a person wants to know."""
    assert_healthy(variant_under_test(fixture_gate(store, "tiny_transformer"), "w8b32", None), "MNQ414")


@pytest.mark.parametrize("recipe", ["mnnquant-kl", "mnnquant-ema"])
def test_mnnquant(recipe: str, store: Store) -> None:
    assert_healthy(variant_under_test(fixture_gate(store, "digits_cnn"), recipe, None))


def test_exported_by_dynamo(store: Store) -> None:
    assert_healthy(variant_under_test(fixture_gate(store, "garment_classifier", exporter="dynamo"), "int8", "eval"))


@pytest.mark.parametrize("recipe", ["int8", "w8"])
def test_a_layer_left_float(recipe: str, store: Store) -> None:
    gate = fixture_gate(store, "digits_cnn", skip_layer=("*features.0*",))
    assert_healthy(variant_under_test(gate, recipe, "eval" if recipe == "int8" else None))


# Finished files -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Files:
    onnx: Path
    floats: Path
    params: Path
    folder: Path

    def made(self, source: Path, *flags: str | Path) -> Path:
        output = self.folder / f"{len(list(self.folder.iterdir()))}" / "net.mnn"
        output.parent.mkdir()
        convert(source, output, [str(flag) for flag in flags], timeout=TIMEOUT)
        return output


@pytest.fixture(scope="module")
def files(store: Store, tmp_path_factory: pytest.TempPathFactory) -> Files:
    case = variant_under_test(fixture_gate(store, "digits_cnn"), "int8", "eval")
    floats, params = case.source.prepared.model.path, case.variant.params
    assert params is not None
    return Files(floats.with_name("float.onnx"), floats, params, tmp_path_factory.mktemp("files"))


def finished(store: Store, source: Path, quantized: Path, **values: Any) -> SourceUnderTest:
    return gate_on(store, source, None, held_out(16), quantized=str(quantized), **values)


@pytest.mark.parametrize(
    ("kind", "with_params", "external"),
    [
        ("onnx", True, ()),
        ("onnx", False, ("--saveExternalData",)),
        ("floats", True, ("--saveExternalData",)),
        ("floats", False, ()),
    ],
    ids=["onnx, params", "onnx, external", "mnn, params, external", "mnn"],
)
def test_int8_files(kind: str, with_params: bool, external: tuple[str, ...], files: Files, store: Store) -> None:
    source: Path = getattr(files, kind)
    quantized = files.made(source, "--compressionParamsFile", files.params, *external)
    gate = finished(store, source, quantized, params=str(files.params) if with_params else None)
    assert_healthy(variant_under_test(gate, "int8", None))


@pytest.mark.parametrize("flags", [("--weightQuantBits", "8"), ("--fp16",)], ids=["w8", "fp16"])
def test_weight_only_files_with_external_weights(flags: tuple[str, ...], files: Files, store: Store) -> None:
    gate = finished(store, files.onnx, files.made(files.onnx, *flags, "--saveExternalData"))
    assert_healthy(variant_under_test(gate, "fp16" if flags == ("--fp16",) else "w8", None))


@pytest.mark.parametrize(("kind", "recipe"), [("onnx", "int8"), ("floats", "int8"), ("floats", "w8")])
def test_model_files_as_sources(kind: str, recipe: str, files: Files, store: Store) -> None:
    gate = gate_on(store, getattr(files, kind), train(16), held_out(16))
    assert_healthy(variant_under_test(gate, recipe, None))


def test_onnx_with_its_weights_beside_it(files: Files, store: Store, tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    options: Any = {"save_as_external_data": True, "location": "net.onnx.data", "size_threshold": 0}
    onnx.save_model(onnx.load(files.onnx), path, **options)
    assert_healthy(variant_under_test(gate_on(store, path, train(16), held_out(16)), "int8", None))


@pytest.mark.parametrize("recipe", ["int8", "w8", "fp16"])
def test_mnn_source_with_its_weights_beside_it(recipe: str, files: Files, store: Store) -> None:
    source = files.made(files.onnx, "--saveExternalData")
    assert_healthy(variant_under_test(gate_on(store, source, train(16), held_out(16)), recipe, None))


def test_a_file_of_mnnquant_that_renamed_operators(store: Store) -> None:
    """EMA gives layers other names than they had, and no uuid."""
    gate = fixture_gate(store, "mobile_net")
    made = variant_under_test(gate, "mnnquant-ema", None).variant
    ours, theirs = ({op.name for op in model.convolutions} for model in (made.base, made.model))
    assert ours - theirs
    assert not made.model.uuid
    source = gate.prepared.model.path.with_name("float.onnx")
    again = gate_on(store, source, None, held_out(24), quantized=str(made.model.path))
    assert_healthy(variant_under_test(again, "int8", None))


def test_files_of_mnncompress_with_repaired_names(store: Store) -> None:
    made = variant_under_test(fixture_gate(store, "digits_cnn"), "mnncompress-repaired", "eval").variant
    gate = finished(store, made.base.path, made.model.path, params=str(made.params))
    assert_healthy(variant_under_test(gate, "int8", None))


def test_a_file_with_a_layer_left_float(files: Files, store: Store) -> None:
    skip = ("*features.0*",)
    made = variant_under_test(fixture_gate(store, "digits_cnn", skip_layer=skip), "int8", "eval").variant
    gate = finished(store, files.onnx, made.model.path, params=str(made.params), skip_layer=skip)
    assert_healthy(variant_under_test(gate, "int8", None))


# TFLite -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=NETS)
def lite(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def lite_files(lite: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[TfliteNet, Path, Path]:
    """The `.tflite` file, and the `.mnn` that MNN's converter makes of it."""
    folder = tmp_path_factory.mktemp("lite")
    path = NETS[lite].write(folder / f"{lite}.tflite")
    return NETS[lite], path, from_tflite(path, folder / "float.mnn")


def from_tflite(path: Path, output: Path, *flags: str) -> Path:
    arguments = ["-f", "TFLITE", "--modelFile", str(path), "--bizCode", "MNN", *flags]
    run_converter(arguments, output, timeout=TIMEOUT, what=f"converting {path.name}")
    return output


def test_the_file_computes_what_pytorch_does(lite_files: tuple[TfliteNet, Path, Path], store: Store) -> None:
    net, _, floats = lite_files
    data = few(net.evaluation())
    (found,) = gate_on(store, floats, None, data).float_run.outputs.values()
    expected = net.expected(data["x"])
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert (expected.argmax(1) == data["labels"]).mean() > 0.9


def test_tflite_as_the_source(lite_files: tuple[TfliteNet, Path, Path], store: Store) -> None:
    net, path, _ = lite_files
    unproven = () if LITERT.is_installed else ("MNQ111",)
    assert_healthy(
        variant_under_test(gate_on(store, path, net.calibration(160), few(net.evaluation())), "int8", None), *unproven
    )


OTHERS = {"cnn": "mnnquant-kl", "mobile": "int8-average", "mlp": "fp16"}


def test_mnn_made_of_tflite(lite: str, lite_files: tuple[TfliteNet, Path, Path], store: Store) -> None:
    net, _, floats = lite_files
    assert_healthy(
        variant_under_test(gate_on(store, floats, net.calibration(160), few(net.evaluation())), OTHERS[lite], None)
    )


def test_a_file_made_of_tflite_at_once(lite_files: tuple[TfliteNet, Path, Path], store: Store, tmp_path: Path) -> None:
    net, path, floats = lite_files
    quantized = from_tflite(path, tmp_path / "w8.mnn", "--weightQuantBits", "8")
    gate = gate_on(store, floats, None, few(net.evaluation()), quantized=str(quantized))
    assert_healthy(variant_under_test(gate, "w8", None))


# Odd but healthy ----------------------------------------------------------------------------------------------------


def noise(*shape: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).standard_normal((SAMPLES, *shape)).astype(np.float32)


TINY: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "one Linear": (lambda: nn.Sequential(nn.Linear(8, 4)), (8,)),
    "two layers": (lambda: nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3)), (1, 8, 8)),
    "transposed": (lambda: nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.ConvTranspose2d(8, 4, 3, 2)), (1, 8, 8)),
}


@pytest.mark.parametrize("recipe", ["int8+w8", "w8"])
@pytest.mark.parametrize("name", TINY)
def test_tiny_models_that_cannot_shrink(name: str, recipe: str, store: Store) -> None:
    build, shape = TINY[name]
    torch.manual_seed(0)
    # Even values: of the tails of a normal distribution the ranges would not settle so soon.
    data = [{"input": np.random.default_rng(seed).random((SAMPLES, *shape), np.float32)} for seed in (0, 1)]
    gate = gate_on(store, build().eval(), *data)
    assert_healthy(variant_under_test(gate, recipe, "eval" if recipe == "int8+w8" else None))


class ZeroBranch(nn.Module):
    """A residual branch of zeros, and biases of zero."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.branch = nn.Conv2d(1, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.head = nn.Linear(8 * 64, 5)
        for layer in (self.first, self.branch, self.head):
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)
        nn.init.zeros_(self.branch.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.first(x))
        out: torch.Tensor = self.head((x + self.branch(x)).flatten(1))
        return out


@pytest.mark.parametrize("recipe", ["int8", "w8", "w8-sym"])
def test_weights_and_biases_of_zero(recipe: str, store: Store) -> None:
    torch.manual_seed(0)
    gate = gate_on(store, ZeroBranch().eval(), {"x": noise(1, 8, 8)}, {"x": noise(1, 8, 8, seed=1)})
    assert_healthy(variant_under_test(gate, recipe, "eval" if recipe == "int8" else None))


class Sequence(nn.Module):
    """Steps in, scores out, through a loop in MNN."""

    def __init__(self, kind: type[nn.LSTM | nn.GRU]) -> None:
        super().__init__()
        self.rnn, self.head = kind(6, 24, batch_first=True), nn.Linear(24, 12)

    def forward(self, steps: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.head(self.rnn(steps)[0][:, -1])
        return out


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
def test_recurrent_layers_with_8_bit_weights(kind: type[nn.LSTM | nn.GRU], store: Store) -> None:
    torch.manual_seed(0)
    gate = gate_on(store, Sequence(kind).eval(), {"steps": noise(7, 6)}, {"steps": noise(7, 6, seed=1)})
    assert_healthy(variant_under_test(gate, "w8", None))


class Ends(nn.Module):
    """Two inputs, two outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.see, self.count, self.head = nn.Conv2d(1, 8, 3), nn.Linear(6, 8), nn.Linear(8 * 36 + 8, 12)

    def forward(self, image: torch.Tensor, sums: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        seen = torch.relu(self.see(image))
        return self.head(torch.cat([seen.flatten(1), torch.relu(self.count(sums))], 1)), seen


@pytest.mark.parametrize("recipe", ["int8", "mnnquant-kl"])
def test_several_inputs_and_outputs(recipe: str, store: Store) -> None:
    torch.manual_seed(0)
    data = [{"image": noise(1, 8, 8, seed=seed), "sums": noise(6, seed=seed + 2)} for seed in (0, 1)]
    gate = gate_on(store, Ends().eval(), *data)
    assert_healthy(variant_under_test(gate, recipe, "eval" if recipe == "int8" else None))


class OneAtATime(nn.Module):
    """A batch of one is written into the graph."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(1, 8, 3), nn.Linear(8 * 36, 12)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.head(torch.relu(self.conv(x)).reshape(1, 8 * 36))
        return out


def test_a_batch_of_one_alone(store: Store) -> None:
    torch.manual_seed(0)
    gate = gate_on(store, OneAtATime().eval(), {"x": noise(1, 8, 8)}, {"x": noise(1, 8, 8, seed=1)})
    assert not gate.prepared.batched
    assert_healthy(variant_under_test(gate, "int8", "eval"))


def test_16_bits_of_a_net_that_int8_ruins(store: Store) -> None:
    """One channel is 300 times as large as the others, and its weights in the next layer as much smaller."""
    gate = fixture_gate(store, "digits_cnn")
    network: Any = gate.prepared.network
    with torch.no_grad():
        norm, second = network.features[1], network.features[4]
        norm.weight[3] *= 300
        norm.bias[3] *= 300
        second.weight[:, 3] /= 300
    assert_healthy(variant_under_test(gate_on(store, network, train(16), held_out(16)), "fp16", None))
