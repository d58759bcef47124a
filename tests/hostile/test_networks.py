"""Networks of users that fail in every way: a result, or one line that names the model, and no exit of the run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from pytest_mnnquant.cache.store import Store
from pytest_mnnquant.measurements.dataset import Dataset
from pytest_mnnquant.quantize.float_model import prepare
from pytest_mnnquant.quantize.prepared import Choices
from pytest_mnnquant.sources.data import as_dataset
from pytest_mnnquant.sources.model_digest import digest
from pytest_mnnquant.sources.pytorch import outputs
from pytest_mnnquant.sources.spec import DataError, SourceError, parse_spec
from pytest_mnnquant.sources.torch_call import forward_inputs
from pytest_mnnquant.sources.torch_module import private_copy
from pytest_mnnquant.sources.user_code import UserCodeExit, contained
from tests.conftest import TIMEOUT, quietly
from tests.hostile.cases import require_line


class Net(nn.Module):
    """A network that tests change."""

    def __init__(self, result: Callable[[torch.Tensor], Any] = lambda value: value) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.fc = nn.Linear(3, 2)
        self.result = result

    def forward(self, x: torch.Tensor) -> Any:
        return self.result(self.fc(x))


class Unnamed(BaseException):
    """An exception that is not an `Exception`."""


class Untold(Exception):
    """An exception without a text."""

    def __str__(self) -> str:
        raise RuntimeError("no text")


def failing(name: str, error: BaseException) -> nn.Module:
    """A network of which one method or attribute raises."""

    def fail(*_: Any, **__: Any) -> Any:
        raise error

    return type("Failing", (Net,), {name: property(fail) if name == "forward" else fail})()  # type: ignore[no-any-return]


def raising(error: BaseException) -> nn.Module:
    """A network whose forward raises."""

    def fail(_: torch.Tensor) -> Any:
        raise error

    return Net(fail)


def nested(value: torch.Tensor) -> Any:
    """A tensor in thousands of lists."""
    result: Any = value
    for _ in range(5000):
        result = [result]
    return result


def with_weight(value: float) -> nn.Module:
    """A network with one other weight."""
    model = Net()
    model.fc.weight.data[0, 0] = value
    return model


NETWORKS: dict[str, Callable[[], Any]] = {
    **{
        f"{name} raises {type(error).__name__}": lambda name=name, error=error: failing(name, error)  # type: ignore[misc]
        for name in ("__repr__", "__deepcopy__", "state_dict", "named_modules", "parameters", "named_buffers", "eval",
                     "train", "forward")
        for error in (ValueError("a\nb"), SystemExit(0), Untold())
    },
    **{
        f"forward raises {type(error).__name__}": lambda error=error: raising(error)  # type: ignore[misc]
        for error in (KeyboardInterrupt(), SystemExit(0), Unnamed("x"), Untold(), MemoryError(), RecursionError())
    },
    "none": lambda: None,
    "class": lambda: Net,
    "function": lambda: len,
    "bfloat16": lambda: Net().bfloat16(),
    "float8": lambda: Net().to(torch.float8_e4m3fn),
    "complex": lambda: Net().to(torch.complex64),
    "meta": lambda: Net().to("meta"),
    "nan": lambda: with_weight(float("nan")),
    "infinite": lambda: with_weight(float("inf")),
    "returns none": lambda: Net(lambda value: None),
    "returns text": lambda: Net(lambda value: "text"),
    "returns nested": lambda: Net(nested),
    "returns sparse": lambda: Net(lambda value: value.to_sparse()),
    "returns complex": lambda: Net(lambda value: torch.complex(value, value)),
    "returns bfloat16": lambda: Net(lambda value: value.bfloat16()),
    "returns different numbers": lambda: Net(lambda value: [value] * len(value)),
    "returns nothing": lambda: Net(lambda value: ()),
}  # fmt: skip
# These networks can be judged.
USABLE = {
    f"{name} raises {kind}" for name in ("__repr__", "state_dict") for kind in ("ValueError", "SystemExit", "Untold")
}


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.filterwarnings("ignore:Complex modules are a new feature:UserWarning")
def test_a_network_of_any_kind_is_run_or_refused_in_a_line(name: str) -> None:
    data = Dataset({"x": np.ones((4, 3), np.float32)})
    try:
        with contained():
            model = private_copy(NETWORKS[name](), "net.py:build")
            assert forward_inputs(model, "net.py:build").required == ("x",)
            assert digest(model)
            results = outputs(model, data, "net.py:build")
        assert all(isinstance(result, np.ndarray) for result in results)
    except (SourceError, UserCodeExit) as error:
        assert name not in USABLE
        require_line(str(error).replace("a\nb", "a"), *([] if isinstance(error, UserCodeExit) else ["net.py:build"]))


def test_broken_weights_of_a_file_are_those_of_the_source(tmp_path: Any) -> None:
    weights = np.ones((2, 3), np.float32)
    weights[0, 0] = np.nan
    shapes = [onnx.helper.make_tensor_value_info(name, 1, [1, size]) for name, size in (("x", 3), ("y", 2))]
    node = onnx.helper.make_node("Gemm", ["x", "w"], ["y"], transB=1)
    graph = onnx.helper.make_graph([node], "net", shapes[:1], shapes[1:], [onnx.numpy_helper.from_array(weights, "w")])
    made = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    (tmp_path / "net.onnx").write_bytes(made.SerializeToString())
    spec = parse_spec("net.onnx", tmp_path)
    with pytest.raises(SourceError, match=r"net\.onnx: the weights of .* hold NaN"):
        prepare(spec, Choices(tmp_path, timeout=TIMEOUT), Store(tmp_path / "cache"), quietly)


@pytest.mark.parametrize("value", [1e39, -1e300])
def test_data_beyond_float32_are_refused(value: float) -> None:
    with pytest.raises(DataError, match="float32"):
        as_dataset({"x": np.array([[1.0], [value]])}, ("x",), "data.npz")
