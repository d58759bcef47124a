"""The runtime of a source's format runs it, in a process of its own."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from pytest_mnnquant.cache.store import Store
from pytest_mnnquant.quantize.prepared import Prepared
from pytest_mnnquant.runtime import job_results, source_runtime
from pytest_mnnquant.runtime.command import Command
from pytest_mnnquant.runtime.inference import run
from pytest_mnnquant.runtime.job_results import JobResults, set_job_results
from pytest_mnnquant.runtime.jobs import FailureKind, Job, JobResult, NativeFailure, run_job
from pytest_mnnquant.runtime.options import RunOptions
from pytest_mnnquant.runtime.source_runtime import ONNXRUNTIME
from tests.conftest import TIMEOUT


def doubled(path: Path, batch: int | str, kind: int = TensorProto.FLOAT) -> Path:
    """A model that adds its input to itself."""
    shapes = [helper.make_tensor_value_info(name, kind, [batch, 3]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Add", ["x", "x"], ["y"])], "net", shapes[:1], shapes[1:])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    return path


def test_it_computes_what_the_float_model_does(digits: Prepared) -> None:
    assert digits.data is not None
    some = digits.data.head(70)
    expected = run(digits.model, some, RunOptions(TIMEOUT)).outputs
    for batched in (True, False):
        found = ONNXRUNTIME.run(digits.model.path.with_suffix(".onnx"), some, RunOptions(TIMEOUT, batched=batched))
        assert found.keys() == expected.keys()
        np.testing.assert_allclose(found["output"], expected["output"], atol=1e-4)


@pytest.mark.parametrize("batch", ["n", 1, 2, 3])
def test_a_batch_that_the_model_fixes_is_kept(tmp_path: Path, batch: int | str) -> None:
    x = np.arange(18, dtype=np.float32).reshape(6, 3)
    found = ONNXRUNTIME.run(doubled(tmp_path / "net.onnx", batch), {"x": x}, RunOptions(TIMEOUT))
    np.testing.assert_array_equal(found["y"], 2 * x)


def test_numbers_are_given_in_the_type_that_the_model_takes(tmp_path: Path) -> None:
    path = doubled(tmp_path / "net.onnx", "n", TensorProto.INT64)
    found = ONNXRUNTIME.run(path, {"x": np.full((2, 3), 7, np.int32)}, RunOptions(TIMEOUT))
    np.testing.assert_array_equal(found["y"], np.full((2, 3), 14, np.int64))
    assert found["y"].dtype == np.int64


def test_what_can_not_be_run_is_a_failure_with_the_reason(digits: Prepared, tmp_path: Path) -> None:
    whole = digits.model.path.with_suffix(".onnx").read_bytes()
    (tmp_path / "half.onnx").write_bytes(whole[: len(whole) // 2])
    x = np.zeros((2, 1, 16, 16), np.float32)
    with pytest.raises(NativeFailure, match=r"running half\.onnx: .*InvalidProtobuf"):
        ONNXRUNTIME.run(tmp_path / "half.onnx", {"x": x}, RunOptions(TIMEOUT))
    with pytest.raises(NativeFailure, match=r"running missing\.onnx: .*NoSuchFile"):
        ONNXRUNTIME.run(tmp_path / "missing.onnx", {"x": x}, RunOptions(TIMEOUT))
    with pytest.raises(NativeFailure, match=r"running float\.onnx: .*Got invalid dimensions"):
        ONNXRUNTIME.run(digits.model.path.with_suffix(".onnx"), {"x": x[:, :, :5]}, RunOptions(TIMEOUT))


def test_a_crash_of_onnxruntime_does_not_reach_this_process(
    digits: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "crash.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)\n")
    crash = Command(tmp_path / "crash.py")
    monkeypatch.setattr(source_runtime, "run_job", lambda job, folder: run_job(job, folder, crash))
    with pytest.raises(NativeFailure, match="onnxruntime crashed with SIGSEGV") as error:
        ONNXRUNTIME.run(
            digits.model.path.with_suffix(".onnx"), {"x": np.zeros((1, 1, 16, 16), np.float32)}, RunOptions(TIMEOUT)
        )
    assert error.value.kind is FailureKind.CRASHED


def test_it_is_not_imported_here(digits: Prepared) -> None:
    assert ONNXRUNTIME.is_installed
    known = "onnxruntime" in sys.modules
    ONNXRUNTIME.run(
        digits.model.path.with_suffix(".onnx"), {"x": np.zeros((1, 1, 16, 16), np.float32)}, RunOptions(TIMEOUT)
    )
    assert ("onnxruntime" in sys.modules) == known


def test_a_result_is_stored_by_the_model_and_the_files_beside_it(
    digits: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[str] = []

    def counted(job: Job, folder: Path) -> JobResult:
        ran.append(job.task)
        return run_job(job, folder)

    monkeypatch.setattr(job_results, "run_job", counted)
    monkeypatch.setattr(source_runtime, "run_job", counted)
    set_job_results(JobResults(Store(tmp_path / "store")))
    try:
        weights, path = tmp_path / "weights.bin", digits.model.path.with_suffix(".onnx")
        x = {"x": np.zeros((1, 1, 16, 16), np.float32)}
        for content in ("old", "old", "new"):
            weights.write_text(content)
            ONNXRUNTIME.run(path, x, RunOptions(TIMEOUT), (), [weights])
        assert ran == ["onnx"] * 2
        ONNXRUNTIME.run(path, x, RunOptions(TIMEOUT))  # Nothing is known of the files beside it.
        assert ran == ["onnx"] * 3
    finally:
        set_job_results(None)
