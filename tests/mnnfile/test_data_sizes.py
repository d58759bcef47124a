"""Outputs whose size depends on values are known from the file, with the tensors that are judged in their place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from pytest_mnnquant.cache.store import Store
from pytest_mnnquant.config.settings import ModelSettings
from pytest_mnnquant.evidence.check_runner import run_check
from pytest_mnnquant.evidence.source import SourceUnderTest
from pytest_mnnquant.evidence.variant import variant_under_test
from pytest_mnnquant.findings.finding import PASSED
from pytest_mnnquant.mnnfile.data_sizes import data_sized_outputs, judged_outputs
from pytest_mnnquant.runtime.convert import convert
from pytest_mnnquant.sources.spec import parse_spec
from tests.conftest import TIMEOUT, quietly

node = helper.make_node
FLAT = [node("Reshape", ["f", "one"], ["flat"]), node("Greater", ["flat", "t"], ["mask"])]
COUNT = [node("Cast", ["mask"], ["m"], to=TensorProto.INT64), node("ReduceSum", ["m"], ["k"], keepdims=1)]
POOL = [node("Reshape", ["f", "pairs"], ["p"]), node("Softmax", ["p"], ["s"], axis=1)]
NMS = [
    node("Sigmoid", ["f"], ["sure"]),
    node("Reshape", ["f", "four"], ["boxes"]),
    node("Reshape", ["sure", "classes"], ["scores"]),
    node("NonMaxSuppression", ["boxes", "scores", "most", "t", "t"], ["rows"]),
]
#: As detectors for one picture end: the sigmoid comes after its Reshape, and the picture's axis is removed.
ONE_PICTURE = [
    *(node("Reshape", ["f", "four"], ["boxes"]), node("Reshape", ["f", "classes"], ["logits"])),
    *(
        node("Sigmoid", ["logits"], ["scores"]),
        node("NonMaxSuppression", ["boxes", "scores", "most", "t", "t"], ["all"]),
    ),
    *(node("Slice", ["all", "two", "three", "axis1"], ["column"]), node("Reshape", ["column", "one"], ["places"])),
    *(node("Squeeze", ["boxes", "axis0"], ["of_one"]), node("Gather", ["of_one", "places"], ["rows"])),
]
CASES: dict[str, tuple[list[Any], dict[str, int], dict[str, tuple[str, ...]]]] = {
    "nonzero": ([node("NonZero", ["f"], ["rows"])], {"rows": TensorProto.INT64}, {"rows": ("f",)}),
    "compress": ([*FLAT, node("Compress", ["flat", "mask"], ["rows"])], {"rows": TensorProto.FLOAT}, {"rows": ("f",)}),
    "unique": ([*FLAT, node("Unique", ["flat"], ["rows"])], {"rows": TensorProto.FLOAT}, {"rows": ("f",)}),
    "nms": (NMS, {"rows": TensorProto.INT64, "sure": TensorProto.FLOAT}, {"rows": ("f", "sure")}),
    "nms of a picture": (ONE_PICTURE, {"rows": TensorProto.FLOAT}, {"rows": ("f", "logits")}),
    "computed k": (
        [*FLAT, *COUNT, node("TopK", ["flat", "k"], ["rows", "places"])],
        {"rows": TensorProto.FLOAT},
        {"rows": ("f",)},
    ),
    "constant k": (
        [*FLAT, node("TopK", ["flat", "k5"], ["rows", "places"])],
        {"rows": TensorProto.FLOAT, "places": TensorProto.INT64},
        {"rows": ("f",), "places": ("f",)},
    ),
    "the best rows": (
        [
            *(node("Sigmoid", ["f"], ["sure"]), node("Reshape", ["sure", "one"], ["scores"])),
            *(node("Reshape", ["f", "pairs"], ["p"]), node("Reshape", ["p", "twos"], ["boxes"])),
            node("TopK", ["scores", "k5"], ["best", "places"]),
            *(node("Gather", ["boxes", "places"], ["chosen"]), node("Sigmoid", ["chosen"], ["rows"])),
        ],
        {"rows": TensorProto.FLOAT},
        {"rows": ("f", "sure")},
    ),
    "the sum of the best": (
        [*FLAT, node("TopK", ["flat", "k5"], ["best", "places"]), node("ReduceSum", ["best"], ["rows"], keepdims=1)],
        {"rows": TensorProto.FLOAT},
        {},
    ),
    "elements of the best": (
        [
            *(*FLAT, node("TopK", ["flat", "k5"], ["best", "places"])),
            *(node("Neg", ["flat"], ["minus"]), node("GatherElements", ["minus", "places"], ["rows"])),
        ],
        {"rows": TensorProto.FLOAT},
        {"rows": ("f", "minus")},
    ),
    "the row of the largest": (
        [
            *(*FLAT, node("ArgMax", ["flat"], ["place"], axis=0)),
            *(node("Neg", ["flat"], ["minus"]), node("Gather", ["minus", "place"], ["rows"])),
        ],
        {"rows": TensorProto.FLOAT},
        {"rows": ("minus", "place/not_keepdim")},
    ),
    "the row that the input names": (
        [
            *(node("Reshape", ["x", "one"], ["given"]), node("ArgMax", ["given"], ["place"], axis=0)),
            *(node("Reshape", ["f", "pairs"], ["p"]), node("Mod", ["place", "k5"], ["row"])),
            node("Gather", ["p", "row"], ["rows"], axis=1),
        ],
        {"rows": TensorProto.FLOAT},
        {},
    ),
    "counted": ([*FLAT, *COUNT], {"k": TensorProto.INT64}, {}),
    "ordinary": (POOL, {"s": TensorProto.FLOAT}, {}),
}


def made(case: str, folder: Path) -> Path:
    nodes, outputs, _ = CASES[case]
    random = np.random.default_rng(0)
    constants: dict[str, Any] = {
        "w": random.normal(0, 0.3, (8, 3, 3, 3)).astype(np.float32),
        "t": np.array([0.5], np.float32),
        "k5": np.array([5]),
        "most": np.array([9]),
        **{"axis0": np.array([0]), "axis1": np.array([1]), "two": np.array([2]), "three": np.array([3])},
        "one": np.array([-1]),
        "pairs": np.array([1, -1, 2]),
        "twos": np.array([-1, 2]),
        "four": np.array([1, 128, 4]),
        "classes": np.array([1, 4, 128]),
    }
    used = {name for each in nodes for name in each.input} | {"w"}
    first = [node("Conv", ["x", "w"], ["c"], strides=[2, 2], pads=[1] * 4), node("Relu", ["c"], ["f"])]
    graph = helper.make_graph(
        [*first, *nodes],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 16, 16])],
        [helper.make_tensor_value_info(name, kind, None) for name, kind in outputs.items()],
        [numpy_helper.from_array(value, name) for name, value in constants.items() if name in used],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.save(model, folder / "net.onnx")
    return folder / "net.onnx"


@pytest.mark.parametrize("case", CASES)
def test_what_depends_on_values_is_known(case: str, tmp_path: Path) -> None:
    _, outputs, expected = CASES[case]
    model = convert(made(case, tmp_path), tmp_path / "net.mnn", timeout=TIMEOUT)
    sized = data_sized_outputs(model)
    assert set(sized) == set(expected)
    for name, tensors in expected.items():
        # MNN may give the tensor of an activation the name of its layout conversion.
        assert {tensor.partition("__")[0] for tensor in sized[name]} == set(tensors)
    judged = judged_outputs(model)
    assert set(outputs) - set(sized) <= set(judged)
    assert not set(judged) & set(sized)


@pytest.mark.parametrize("case", ["nms", "nms of a picture", "the best rows"])
def test_a_detector_is_judged_by_its_boxes_and_scores(case: str, tmp_path: Path, store: Store) -> None:
    images = np.random.default_rng(1).random((16, 3, 16, 16), np.float32)
    np.savez(tmp_path / "data.npz", x=images)
    made(case, tmp_path)
    settings = ModelSettings("net", "net.onnx", tmp_path, evaluation="data.npz", timeout=TIMEOUT)
    source = SourceUnderTest(settings, parse_spec("net.onnx", tmp_path), store, quietly)
    variant = variant_under_test(source, "w8", None)
    results = {name: run_check(variant, name) for name in ("conversion", "execution", "accuracy")}
    assert {result.outcome for result in results.values()} == {PASSED}
    assert [finding.code for finding in results["accuracy"].findings] == ["MNQ713"]
    assert variant.runs.run.trace
    assert "rows" not in source.float_run.outputs
