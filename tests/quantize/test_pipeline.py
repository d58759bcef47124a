"""Pipelines of one's own, in a child process: what they get, what they make, and how they go wrong."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pytest_mnnquant.measurements.dataset import Dataset
from pytest_mnnquant.quantize import pipeline, pipeline_child
from pytest_mnnquant.quantize.pipeline import PipelineInput, PipelineOutput, run_pipeline
from pytest_mnnquant.quantize.pipeline_child import _paths
from pytest_mnnquant.quantize.pipeline_files import file_stamps, find_files
from pytest_mnnquant.quantize.prepared import Prepared
from pytest_mnnquant.runtime.jobs import Job, JobResult, NativeFailure
from pytest_mnnquant.runtime.options import RunOptions
from pytest_mnnquant.sources.spec import SourceError, Spec, parse_spec
from pytest_mnnquant.sources.torch_module import private_copy
from tests.conftest import TIMEOUT
from tests.smallnets import TwoWays

ROOT = Path(__file__).with_name("pipelines")
LISTENER = """
import sys
def heard(event, arguments, watched=("os.system", "subprocess.Popen", "socket.connect", "socket.getaddrinfo")):
    if event in watched:
        with open({path!r}, "a") as file:
            print(event, arguments, file=file)
sys.addaudithook(heard)
"""


def run(name: str, source: Prepared, outdir: Path, mode: str = "eval", timeout: float = TIMEOUT) -> PipelineOutput:
    assert source.network is not None
    data = Dataset({"x": source.calibration.inputs["x"][:80]}) if source.calibration else Dataset({})
    return run_pipeline(
        f"others.py:{name}", ROOT, PipelineInput(source.spec, source.network, data, mode), outdir, RunOptions(timeout)
    )


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run the child's work in this process, which spares the import of torch; job and result go through JSON."""

    def run_here(job: Job, _folder: Path, _launcher: object) -> JobResult:
        return JobResult(json.loads(json.dumps(pipeline_child.run(json.loads(json.dumps(job.arguments))))))

    monkeypatch.chdir(Path.cwd())  # The pipeline's folder becomes the working directory; it is put back afterwards.
    monkeypatch.setattr(pipeline, "run_job", run_here)


def one_line(error: pytest.ExceptionInfo[SourceError]) -> str:
    text = str(error.value)
    assert "\n" not in text
    return text


# What it gets


@pytest.mark.usefixtures("in_process")
@pytest.mark.parametrize("mode", ["eval", "train"])
def test_it_gets_the_model_with_our_weights_the_data_in_batches_and_a_folder(
    digits: Prepared, tmp_path: Path, mode: str
) -> None:
    assert digits.network is not None
    changed = private_copy(digits.network, "net")  # not what build() gives
    with torch.no_grad():
        for parameter in changed.parameters():
            parameter.mul_(1.5)
    data = Dataset({"x": digits.calibration.inputs["x"][:80].astype(np.float64)}) if digits.calibration else Dataset({})
    made = run_pipeline(
        "others.py:looks_around",
        ROOT,
        PipelineInput(digits.spec, changed, data, mode),
        tmp_path / "out",
        RunOptions(60),
    )
    assert made.quantized == tmp_path / "out" / "net.mnn"
    assert (made.onnx, made.params) == (None, None)
    seen = torch.load(made.quantized, weights_only=False)
    assert [shape[0] for (shape,) in seen["batches"]] == [32, 32, 16]
    assert (seen["length"], seen["names"], seen["mode"], seen["here"]) == (3, ("x",), mode, True)
    assert set(seen["training"]) == {mode == "train"}
    assert all(seen["wanted"])  # as build() made it: a pipeline may train
    assert made.observations.handed_out == 6
    assert (made.observations.forwards, made.observations.gradients) == (3, False)
    assert (made.observations.training, made.observations.drift > 0) == (mode == "train", mode == "train")
    assert made.observations.weight_change == 0
    assert made.observations.moved == {}
    if mode == "eval":
        with torch.no_grad():
            expected = changed(torch.from_numpy(data.inputs["x"]).float()).flatten()
        torch.testing.assert_close(seen["outputs"], expected)
    assert not any(parameter.grad is not None for parameter in changed.parameters())


@pytest.mark.usefixtures("in_process")
def test_a_model_that_a_fixture_returned_is_handed_over_whole(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = private_copy(TwoWays(), "net")
    random = np.random.default_rng(0)
    data = Dataset(
        {
            "image": random.normal(size=(40, 2, 8, 8)).astype(np.float32),
            "extra": random.normal(size=(40, 5)).astype(np.float32),
        }
    )
    (tmp_path / "mine.py").write_text(
        "import torch\n"
        "def run(model, calibration, mode, outdir):\n"
        "    with torch.inference_mode():\n"
        "        results = [model(*inputs)[0] for inputs in calibration]\n"
        "    assert all(parameter.requires_grad for parameter in model.parameters())\n"
        "    torch.save(torch.cat(results), 'net.mnn')\n"
        "    return ['net.mnn']\n"
    )
    made = run_pipeline(
        "mine.py:run", tmp_path, PipelineInput(Spec("net", "net"), network, data, "eval"), tmp_path, RunOptions(TIMEOUT)
    )
    assert made.quantized is not None
    with torch.no_grad():
        expected = network(*(torch.from_numpy(array) for array in data.inputs.values()))[0]
    torch.testing.assert_close(torch.load(made.quantized), expected)
    assert not any(parameter.requires_grad for parameter in network.parameters())


def test_a_model_that_cannot_be_pickled_is_told_with_the_way_out(tmp_path: Path) -> None:
    class Local(torch.nn.Linear):
        pass

    data = Dataset({"x": np.zeros((4, 2), np.float32)})
    with pytest.raises(SourceError, match="can't be sent") as error:
        run_pipeline(
            "others.py:hangs",
            ROOT,
            PipelineInput(Spec("n", "n"), Local(2, 2), data, "eval"),
            tmp_path,
            RunOptions(TIMEOUT),
        )
    assert "--mnn-model=file.py:callable" in one_line(error)


@pytest.mark.usefixtures("in_process")
def test_a_source_that_builds_another_model_each_time_is_told(digits: Prepared, tmp_path: Path) -> None:
    (tmp_path / "moody.py").write_text("import torch\ndef build():\n    return torch.nn.Linear(3, 3)\n")
    spec, data = parse_spec("moody.py:build", tmp_path), Dataset({"x": np.zeros((4, 2), np.float32)})
    with pytest.raises(SourceError, match=r"moody.py:build: build\(\) built ") as error:
        run_pipeline(
            "others.py:hangs",
            ROOT,
            PipelineInput(spec, torch.nn.Linear(2, 2), data, "eval"),
            tmp_path,
            RunOptions(TIMEOUT),
        )
    assert "size mismatch for weight" in one_line(error)


# How it goes wrong


def test_a_crash_is_told_with_its_signal_and_its_log(digits: Prepared, tmp_path: Path) -> None:
    with pytest.raises(
        NativeFailure, match=r"others.py:crashes in eval mode: the pipeline crashed with SIGABRT"
    ) as error:
        run("crashes", digits, tmp_path)
    assert "about to crash" in error.value.log


def test_what_it_raises_comes_back_from_its_process(digits: Prepared, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"^others.py:raises: raised RuntimeError: .* \(digits_cnn.py:\d+\)$"):
        run("raises", digits, tmp_path)


def test_a_hanging_pipeline_ends_with_its_time(digits: Prepared, tmp_path: Path) -> None:
    start = time.monotonic()
    with pytest.raises(NativeFailure, match="not finished after 3 s"):
        run("hangs", digits, tmp_path, timeout=3)
    assert time.monotonic() - start < 30


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("raises", r"^others.py:raises: raised RuntimeError: .* \(digits_cnn.py:\d+\)$"),
        ("leaves_early", r"^others.py:leaves_early: raised SystemExit: 3 \(others.py:\d+\)$"),
        ("returns_nothing", "^others.py:returns_nothing: made no file in outdir"),
        ("returns_what_is_not_there", r": returned .*net.mnn, which does not exist$"),
        ("returns_a_number", "returned int; return the path of the file it made"),
        ("is_not_there", "no callable 'is_not_there'.*crashes, hangs"),
    ],
)
@pytest.mark.usefixtures("in_process")
def test_what_a_pipeline_does_wrong_is_told_in_one_line(digits: Prepared, tmp_path: Path, name: str, told: str) -> None:
    with pytest.raises(SourceError, match=told) as error:
        run(name, digits, tmp_path)
    one_line(error)


def test_a_text_that_names_no_callable_is_refused(digits: Prepared, tmp_path: Path) -> None:
    (tmp_path / "net.onnx").touch()
    assert digits.network is not None
    for text in ("missing.py:run", "net.onnx"):
        with pytest.raises(SourceError, match=f"{text.partition(':')[0]}: (no such file|not a pipeline)"):
            run_pipeline(
                text,
                tmp_path,
                PipelineInput(digits.spec, digits.network, Dataset({}), "eval"),
                tmp_path,
                RunOptions(TIMEOUT),
            )


# What it made


def files(outdir: Path, returned: Any, before: dict[Path, tuple[int, int]] | None = None) -> dict[str, Path | None]:
    return find_files(_paths(returned, "p"), outdir, before or {}, time.time(), "p")


@pytest.fixture
def outdir(tmp_path: Path, digits_int8: Any) -> Path:
    folder = tmp_path / "out"
    folder.mkdir()
    for name in ("net.mnn", "net.onnx"):
        (folder / name).write_bytes(b"model")
    (folder / "params.bin").write_bytes(digits_int8.params.read_bytes())
    (folder / "notes.json").write_text(json.dumps({"note": 1}))
    return folder


def test_files_are_recognised_by_suffix_and_params_by_their_content(outdir: Path) -> None:
    everything = {"quantized": outdir / "net.mnn", "onnx": outdir / "net.onnx", "params": outdir / "params.bin"}
    assert files(outdir, None) == everything
    assert files(outdir, ["net.onnx", outdir / "params.bin"]) == {**everything, "quantized": None}
    assert files(outdir, "net.mnn") == {"quantized": outdir / "net.mnn", "onnx": None, "params": None}
    (outdir / "model.dat").touch()
    mapping = {"quantized": "model.dat", "params": None}
    assert files(outdir, mapping) == {"quantized": outdir / "model.dat", "onnx": None, "params": None}


def test_two_models_need_a_mapping(outdir: Path) -> None:
    (outdir / "float.mnn").touch()
    with pytest.raises(SourceError, match=r"^p: left float.mnn, net.mnn; .*'qua"):
        files(outdir, None)
    with pytest.raises(SourceError, match=r"returned net.mnn, float.mnn"):
        files(outdir, ["net.mnn", "float.mnn"])
    assert files(outdir, {"quantized": "float.mnn"})["quantized"] == outdir / "float.mnn"


@pytest.mark.parametrize(
    ("returned", "told"),
    [
        ("net.onnx", "made net.onnx, "),
        (["params.bin"], "made params.bin, "),
        ("model.txt", "returned model.txt, expected one of .mnn, .onnx"),
        ({"model": "net.mnn"}, "'model'.* quantized, onnx, params"),
        ([1], "returned list; return the path"),
        ({"quantized": "away.mnn"}, "away.mnn, which does not exist"),
    ],
)
def test_what_is_not_enough_is_told(outdir: Path, returned: Any, told: str) -> None:
    with pytest.raises(SourceError, match=told):
        files(outdir, returned)


def test_a_file_of_an_earlier_run_is_none_that_it_made(outdir: Path) -> None:
    before = file_stamps(outdir)
    with pytest.raises(SourceError, match="made no file in outdir"):
        files(outdir, None, before)
    with pytest.raises(SourceError, match=r"net.mnn, which is older than this run"):
        files(outdir, "net.mnn", before)
    (outdir / "net.mnn").write_bytes(b"another model")
    assert files(outdir, None, before)["quantized"] == outdir / "net.mnn"


def test_a_new_file_elsewhere_is_copied_with_its_weights_and_an_old_one_refused(outdir: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere.mnn"
    elsewhere.write_bytes(b"model")
    elsewhere.with_name("elsewhere.mnn.weight").write_bytes(b"weights")
    assert files(outdir, elsewhere)["quantized"] == outdir / "elsewhere.mnn"
    assert (outdir / "elsewhere.mnn.weight").read_bytes() == b"weights"
    os.utime(elsewhere, (0, time.time() - 60))
    with pytest.raises(SourceError, match=r"elsewhere.mnn, which is older than this run"):
        files(outdir, elsewhere)


# Nothing is installed, nothing is sent


def test_packages_that_phone_home_are_kept_from_it(
    digits: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither the network, nor the shell, nor another process; only what the pipeline itself does is heard."""
    pytest.importorskip("mnncompress")
    log = tmp_path / "heard.txt"
    (tmp_path / "sitecustomize.py").write_text(LISTENER.format(path=str(log)))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    run("imports_what_phones_home", digits, tmp_path / "out")
    connection, *rest = log.read_text().splitlines()
    assert connection.startswith("socket.connect")
    assert "127.0.0.1" in connection
    assert rest == ["os.system (b'true  # seen by the test',)"]
