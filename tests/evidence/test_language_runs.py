"""Exports that run: on this host, on a target, and what can't be judged."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pytest_mnnquant.config.settings import ModelSettings, model_settings
from pytest_mnnquant.evidence.export import ExportOnTarget, ExportUnderTest
from pytest_mnnquant.findings.accuracy_metrics import AccuracyMetrics
from pytest_mnnquant.findings.finding import FAILED, INCONCLUSIVE, PASSED
from pytest_mnnquant.findings.run_metrics import ExecutionMetrics
from pytest_mnnquant.targets.target import PythonCommand, Target
from tests.llm.conftest import DATA, EXPORTS, change_json

_TEXT = "A text in plain English, which the tokenizer of the fixtures splits into many tokens. " * 40


def settings(export: Path, folder: Path, **options: Any) -> ModelSettings:
    text = folder / "text.txt"
    text.write_text(_TEXT, encoding="utf-8")
    values = {"quantized": str(export), "evaluation": str(text), "timeout": 60.0, "max_kl": 0.5, **options}
    return model_settings(str(DATA / "qwen2"), "qwen2", folder, values)


def test_a_target_runs_the_same_ids(tmp_path: Path) -> None:
    home = ExportUnderTest(settings(EXPORTS / "qwen2-w4", tmp_path), DATA / "qwen2")
    target = ExportOnTarget(home, Target("here", PythonCommand(lambda _: [sys.executable])))
    assert target.checks == ("execution", "accuracy")
    assert target.label == "export@here"
    results = [case.run_check(name) for case in (home, target) for name in target.checks]
    assert [result.outcome for result in results] == [PASSED] * 4
    first, second = results[0].metrics, results[2].metrics
    assert isinstance(first, ExecutionMetrics)
    assert isinstance(second, ExecutionMetrics)
    assert second.kl == pytest.approx(first.kl)
    accuracy = results[1].metrics
    assert isinstance(accuracy, AccuracyMetrics)
    assert accuracy.language is not None
    assert accuracy.language.text is not None


def test_a_device_times_the_export_beside_a_reference_export(tmp_path: Path) -> None:
    options = {"latency_reference": str(EXPORTS / "qwen2-fp16"), "max_latency_ratio": 0.001, "latency_time": 1.0}
    home = ExportUnderTest(settings(EXPORTS / "qwen2-w4", tmp_path, **options), DATA / "qwen2")
    target = ExportOnTarget(home, Target("here", PythonCommand(lambda _: [sys.executable]), is_device=True))
    result = target.run_check("latency")
    assert (result.outcome, [finding.code for finding in result.findings]) == (FAILED, ["MNQ901"])


def test_a_crash_on_a_target_is_its_finding(tmp_path: Path) -> None:
    export = Path(shutil.copytree(EXPORTS / "qwen2-w4", tmp_path / "out"))
    home = ExportUnderTest(settings(export, tmp_path), DATA / "qwen2")
    _ = home.runs.run
    (export / "llm.mnn.weight").unlink()
    target = ExportOnTarget(home, Target("here", PythonCommand(lambda _: [sys.executable])))
    result = target.run_check("execution")
    assert (result.outcome, [finding.code for finding in result.findings]) == (FAILED, ["MNQ620"])


def test_a_merged_adapter_is_not_the_source(tmp_path: Path) -> None:
    export = Path(shutil.copytree(EXPORTS / "qwen2-w4", tmp_path / "out"))
    change_json(export / "export_args.json", lora_path="lora")
    case = ExportUnderTest(settings(export, tmp_path, max_kl=None), DATA / "qwen2")
    result = case.run_check("accuracy")
    assert (result.outcome, [finding.code for finding in result.findings]) == (INCONCLUSIVE, ["MNQ314"])


def test_another_architecture_is_inconclusive(tmp_path: Path) -> None:
    source = Path(shutil.copytree(DATA / "qwen2", tmp_path / "hf"))
    change_json(source / "config.json", model_type="gemma2")
    case = ExportUnderTest(settings(EXPORTS / "qwen2-w4", tmp_path), source)
    result = case.run_check("execution")
    assert (result.outcome, [finding.code for finding in result.findings]) == (INCONCLUSIVE, ["MNQ642"])


@pytest.mark.parametrize("is_finite", [True, False])
def test_a_vision_part_runs_as_an_ordinary_model(is_finite: bool, tmp_path: Path) -> None:
    export = Path(shutil.copytree(EXPORTS / "qwen2-w4", tmp_path / "out"))
    write_part(export / "visual.mnn", 2.0 if is_finite else float("nan"))
    change_json(export / "llm_config.json", is_visual=True)
    result = ExportUnderTest(settings(export, tmp_path), DATA / "qwen2").run_check("execution")
    expected = [] if is_finite else [("MNQ640", "visual.mnn")]
    assert [(finding.code, finding.layer) for finding in result.findings] == expected


def convert(folder: Path, *arguments: str) -> None:
    """Call MNN's converter in a child process."""
    program = "import sys, _tools; _tools.mnnconvert(['', *sys.argv[1:]])"
    subprocess.run([sys.executable, "-c", program, *arguments], cwd=folder, check=True, capture_output=True)


def test_an_attention_without_its_cache_differs_token_by_token(tmp_path: Path) -> None:
    export = Path(shutil.copytree(EXPORTS / "qwen2-w4", tmp_path / "out"))
    convert(export, "-f", "MNN", "--modelFile", "llm.mnn", "--JsonFile", "../graph.json")
    graph = json.loads((tmp_path / "graph.json").read_text(encoding="utf-8"))
    attention = next(operator for operator in graph["oplists"] if operator["type"] == "Attention")
    attention["main"]["kv_cache"] = False
    (tmp_path / "graph.json").write_text(json.dumps(graph), encoding="utf-8")
    convert(export, "-f", "JSON", "--modelFile", "../graph.json", "--MNNModel", "llm.mnn")
    result = ExportUnderTest(settings(export, tmp_path), DATA / "qwen2").run_check("execution")
    assert [finding.code for finding in result.findings] == ["MNQ641"]


def test_a_template_that_the_runtime_renders_otherwise_is_an_error(tmp_path: Path) -> None:
    pytest.importorskip("jinja2")
    template = "{% for message in messages %}{{ message['content'] | replace('i', 'j') }}{% endfor %}"
    export = Path(shutil.copytree(EXPORTS / "qwen2-w4", tmp_path / "out"))
    source = Path(shutil.copytree(DATA / "qwen2", tmp_path / "hf"))
    section = json.loads((export / "llm_config.json").read_text(encoding="utf-8"))["jinja"]
    change_json(export / "llm_config.json", jinja={**section, "chat_template": template})
    change_json(source / "tokenizer_config.json", chat_template=template)
    result = ExportUnderTest(settings(export, tmp_path), source).run_check("conversion")
    assert [finding.code for finding in result.findings] == ["MNQ127"]


def write_part(path: Path, factor: float) -> None:
    """A model of one operator, x * factor."""
    import MNN

    x = MNN.expr.placeholder([1, 4], MNN.expr.NCHW)
    y = x * MNN.expr.const([factor] * 4, [1, 4])
    x.name, y.name = "x", "y"
    MNN.expr.save([y], str(path))
