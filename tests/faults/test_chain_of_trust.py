"""An export or a conversion that goes wrong is told as that, step by step, and never blamed on quantization."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from pytest_mnnquant.mnnfile.model import Model, read_model
from pytest_mnnquant.quantize import convert_twice
from pytest_mnnquant.runtime.convert import convert
from tests.conftest import FIXTURES
from tests.faults.factory import FIRST, NET, Factory
from tests.plugin.outcomes import Outcome

SOURCE = """
import numpy as np
import torch
from torch.nn import functional

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last = torch.nn.Conv2d(1, 4, 3, padding=1), torch.nn.Conv2d(4, 2, 1)

    def forward(self, x):
        y = self.first(x)
        return self.last({inside})

def build():
    return Net().eval()

def evaluation():
    return {{"x": np.random.default_rng(0).standard_normal((64, 1, 8, 8)).astype("float32")}}
"""
HALVED = "torch.floor_divide(4 * y, 2.0)"
EXAMPLES_OWN = "y / float(y[:1].abs().max())"
SHRUNK = "functional.softshrink(y)"
ENLARGED = "functional.interpolate(y, scale_factor=2, mode='bicubic')"


@pytest.fixture
def judged(factory: Factory, gate: Callable[..., Outcome]) -> Callable[..., Outcome]:
    """Judges a net with an expression inside; weight-only, so that nothing but the chain can be at fault."""

    def run(inside: str, *more: str) -> Outcome:
        path = factory.fresh("net.py", SOURCE.format(inside=inside).encode())
        return gate("--mnn-model", f"{path}:build", "--mnn-recipe=w8", *more)

    return run


@pytest.mark.parametrize("inside", [HALVED, EXAMPLES_OWN])
def test_a_wrong_export_fails_as_that(judged: Callable[..., Outcome], inside: str) -> None:
    """PyTorch's torchscript exporter writes a floor division as one that truncates, and a Python number as it was."""
    verdict = judged(inside)
    assert verdict.status == 1
    assert verdict.failed == {"w8::conversion"}
    assert verdict.codes("conversion") - {"MNQ114"} == {"MNQ112"}  # What one sample decides, others get in a batch.
    verdict.tells("MNQ112", where="output 'output' of the ONNX export", fix="--mnn-exporter")


@pytest.mark.parametrize("inside", [SHRUNK, ENLARGED])
def test_a_wrong_conversion_fails_as_that(judged: Callable[..., Outcome], inside: str) -> None:
    verdict = judged(inside)
    assert verdict.status == 1
    assert verdict.failed == {"w8::conversion"}
    assert verdict.codes("conversion") == {"MNQ110"}
    verdict.tells("MNQ110", where="output 'output' of the float .mnn", why="PyTorch to ONNX")


def test_where_both_are_wrong_both_are_told(judged: Callable[..., Outcome]) -> None:
    verdict = judged(f"torch.floor_divide(4 * y, 2.0) + {SHRUNK}")
    assert verdict.failed == {"w8::conversion"}
    assert verdict.codes("conversion") == {"MNQ110"}
    verdict.tells("MNQ110", why="PyTorch to ONNX")


def test_an_onnx_model_that_mnn_converts_wrongly_fails_as_that(
    factory: Factory, gate: Callable[..., Outcome], random: np.random.Generator
) -> None:
    shapes = [onnx.helper.make_tensor_value_info(name, 1, ["n", size, 8, 8]) for name, size in (("x", 1), ("y", 4))]
    weights = onnx.numpy_helper.from_array(random.standard_normal((4, 1, 3, 3), np.float32), "w")
    nodes = [
        onnx.helper.make_node("Conv", ["x", "w"], ["c"], pads=[1, 1, 1, 1]),
        onnx.helper.make_node("Shrink", ["c"], ["y"], bias=0.5, lambd=0.5),
    ]
    graph = onnx.helper.make_graph(nodes, "net", shapes[:1], shapes[1:], [weights])
    net = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 13)], ir_version=8)
    source, data = factory.fresh("net.onnx", net.SerializeToString()), factory.fresh("data.npz")
    np.savez(data, x=random.standard_normal((20, 1, 8, 8), np.float32))
    verdict = gate("--mnn-model", source, "--mnn-evaluation", data, "--mnn-recipe=w8")
    assert verdict.failed == {"w8::conversion"}
    assert verdict.codes("conversion") == {"MNQ110"}
    verdict.tells("MNQ110", why="ONNX")


@pytest.mark.parametrize("name", ["digits_cnn", "garment_classifier", "mobile_net", "tiny_transformer"])
def test_the_shipped_models_have_every_step_in_the_report(
    factory: Factory, gate: Callable[..., Outcome], name: str
) -> None:
    verdict = gate("--mnn-model", f"{FIXTURES / name}.py:build", "--mnn-mode=eval", "-k", "conversion")
    assert verdict.status == 0, verdict.text
    metrics = verdict.metrics("conversion")
    steps = [(step["from"], step["to"]) for step in metrics["chain"]]
    assert steps == [("PyTorch", "ONNX"), ("ONNX", "float .mnn")]
    assert all(step["outputs"]["output"]["relative_error"] < 1e-4 for step in metrics["chain"])
    assert metrics["chain_lacks"] is None
    assert metrics["converted_twice"] == ["float .mnn", "quantized .mnn"]


@pytest.fixture
def second_differs(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Has each second conversion of a file with this ending start from weights of which one is another."""

    def plant(suffix: str) -> None:
        def wavering(source: Path, output: Path, flags: Any = (), *, timeout: float) -> Model:
            if source.suffix == suffix and output.parent.name.startswith("again-"):
                source = _nudged(source, output.with_name(f"nudged{suffix}"))
            return convert(source, output, flags, timeout=timeout)

        monkeypatch.setattr(convert_twice, "convert", wavering)

    return plant


def _nudged(source: Path, target: Path) -> Path:
    """A copy in which one weight of the first convolution is twice as large."""
    if source.suffix == ".onnx":
        graph = onnx.load(source)
        name = next(node for node in graph.graph.node if node.op_type == "Conv").input[1]
        tensor = next(tensor for tensor in graph.graph.initializer if tensor.name == name)
        values = onnx.numpy_helper.to_array(tensor).copy()
        values.flat[0] *= 2
        tensor.CopyFrom(onnx.numpy_helper.from_array(values, name))
        onnx.save(graph, target)
    else:
        model, content = read_model(source), source.read_bytes()
        weights = model.decoded(model.layers[0]).reshape(-1)
        start = content.index(weights.tobytes())
        target.write_bytes(content[:start] + (2 * weights[:1]).tobytes() + content[start + 4 :])
    return target


@pytest.mark.parametrize(
    ("suffix", "title"), [(".onnx", "float .mnn"), (".mnn", "quantized .mnn")], ids=["to float", "to a variant"]
)
def test_a_conversion_that_is_another_each_time_fails(
    factory: Factory,
    gate: Callable[..., Outcome],
    second_differs: Callable[[str], None],
    tmp_path: Path,
    suffix: str,
    title: str,
) -> None:
    second_differs(suffix)
    own = f"--mnn-cache-dir={tmp_path / 'cache'}"
    for _ in ("made", "from the cache"):
        verdict = gate("--mnn-model", f"{FIXTURES / NET}.py:build", "--mnn-recipe=fp16", own)
        assert verdict.status == 1
        assert verdict.failed == {"fp16::conversion"}
        assert verdict.codes("conversion") == {"MNQ113"}
        verdict.tells("MNQ113", where=f"{title}: {FIRST}: 1 of ", fix="--mnn-quantized")
