"""`pytest --mnn-model=CHECKPOINT --mnn-quantized=EXPORT`: the checks that judge the files of a language model."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Protocol

import pytest

from pytest_mnnquant.checks.llm.registry import EXPORT_CHECKS
from tests.golden_text import check_golden
from tests.llm.conftest import DATA, EXPORTS
from tests.plugin.outcomes import Outcome, outcome
from tests.report.schema import assert_fits_schema

ALL = {f"export::{check}" for check in EXPORT_CHECKS}


class Judge(Protocol):
    """Judges an export of `tests/llm/data` in the test's own folder."""

    def __call__(self, export: str, *args: str, source: str = "hf", quantized: str = "out") -> Outcome: ...


@pytest.fixture
def judge(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Judge:
    for name in ("PYTEST_XDIST_WORKER", "GITHUB_ACTIONS", "GITHUB_STEP_SUMMARY", "GITHUB_WORKSPACE"):
        monkeypatch.delenv(name, raising=False)

    def run(export: str, *args: str, source: str = "hf", quantized: str = "out") -> Outcome:
        model = "qwen2" if export.startswith("bad-") else export.split("-")[0]
        for path, target in ((DATA / model, "hf"), (EXPORTS / export, "out"), (DATA / "qwen2-gptq", "qwen2-gptq")):
            if not (pytester.path / target).exists():
                shutil.copytree(path, pytester.path / target)
        shutil.copyfile(DATA / "layers.json", pytester.path / "layers.json")
        options = [f"--mnn-model={source}"] if source else []
        options += [f"--mnn-quantized={quantized}"] if quantized else []
        return outcome(pytester.runpytest_inprocess("-W", "error", *options, *args))

    return run


def refusal(result: Outcome) -> str:
    """The one line that says why a run is refused."""
    errors = [line for line in result.lines if re.match(r"ERROR: (?!usage)", line)]
    assert (result.status, len(errors)) == (pytest.ExitCode.USAGE_ERROR, 1), result.text
    return errors[0]


@pytest.mark.parametrize("export", ["qwen2-w4", "qwen3-w4-embedding8", "llama-hqq", "qwen2-gptq"])
def test_a_healthy_export_passes_all_checks_of_files(judge: Judge, export: str) -> None:
    result = judge(export, "--mnn-strict")
    assert (result.status, result.passed, result.failed, result.skipped) == (0, ALL, set(), set())


def test_a_fault_is_one_root_cause(judge: Judge) -> None:
    result = judge("bad-block")
    assert result.failed == {"export::params", "export::weights", "export::bundle"}
    found = {
        (finding["code"], finding["severity"])
        for check in result.checks
        for finding in check["findings"]
        if finding["severity"] != "warning"
    }
    assert found == {("MNQ312", "error"), ("MNQ410", "consequence"), ("MNQ813", "consequence")}
    table = [line for line in result.lines if line.startswith("  export")]
    check_golden("llm-gate/table", "\n".join(table))


def test_a_check_that_runs_alone_reports_its_own_error(judge: Judge) -> None:
    result = judge("bad-block", "-k", "bundle")
    assert result.failed == {"export::bundle"}
    (check,) = result.checks
    assert [(finding["code"], finding["severity"]) for finding in check["findings"]] == [("MNQ813", "error")]


def test_ids_can_be_pasted_back(judge: Judge) -> None:
    result = judge("qwen2-w4", "hf::export::weights", source="")
    assert (result.status, result.passed) == (0, {"export::weights"})


@pytest.mark.parametrize(
    ("recipe", "failed"),
    [
        ("w4b32-scale16", set()),
        ("w8b32", {"export::coverage", "export::size"}),
        ("w4b64", {"export::params", "export::size"}),
    ],
)
def test_a_recipe_is_held_against_the_files(judge: Judge, recipe: str, failed: set[str]) -> None:
    assert judge("qwen2-w4", f"--mnn-recipe={recipe}").failed == failed


def test_codes_can_be_ignored_and_a_size_can_be_required(judge: Judge) -> None:
    assert judge("bad-tied-w2", "--mnn-ignore=MNQ815").failed == set()
    assert judge("bad-tied-w2", "--mnn-min-size-ratio=100", "-k", "size").failed == {"export::size"}


def test_the_report_fits_its_schema_and_names_layers(judge: Judge, pytester: pytest.Pytester) -> None:
    judge("qwen2-config", "--mnn-report=r.json", "--mnn-report=r.md", "--mnn-report=r.html", "--junit-xml=r.xml")
    report = json.loads((pytester.path / "r.json").read_text(encoding="utf-8"))
    assert_fits_schema(report)
    (model,) = report["models"]
    (variant,) = model["variants"]
    assert (variant["recipe"], len(variant["layers"]), variant["coverage"]) == ("export", 15, 1.0)
    assert [check["check"] for check in variant["checks"]] == list(EXPORT_CHECKS)
    assert "export" in (pytester.path / "r.md").read_text(encoding="utf-8")


def test_broken_files_are_findings(judge: Judge, pytester: pytest.Pytester) -> None:
    judge("qwen2-w4")
    (pytester.path / "out" / "llm.mnn").write_bytes(b"not a graph")
    result = judge("qwen2-w4", "-k", "bundle")
    assert [finding["code"] for check in result.checks for finding in check["findings"]] == ["MNQ202"]
    shutil.copyfile(EXPORTS / "qwen2-w4" / "llm.mnn", pytester.path / "out" / "llm.mnn")
    (pytester.path / "hf" / "model.safetensors").write_bytes(b"cut")
    result = judge("qwen2-w4", "-k", "weights")
    assert [finding["code"] for check in result.checks for finding in check["findings"]] == ["MNQ101"]


def test_several_workers_judge_alike(judge: Judge) -> None:
    result = judge("bad-tied-embedding8", "-n2")
    assert result.failed == {"export::coverage", "export::bundle"}


@pytest.mark.parametrize(
    ("name", "source", "quantized"),
    [
        ("no-export", "hf", ""),
        ("bare-graph", "hf", "out/llm.mnn"),
        ("bare-graph-as-source", "out/llm.mnn", "out"),
        ("export-as-source", "out", "out"),
        ("other-folder", "empty", "out"),
        ("other-export", "hf", "empty"),
    ],
)
def test_what_is_no_pair_of_folders_is_refused(
    judge: Judge, pytester: pytest.Pytester, name: str, source: str, quantized: str
) -> None:
    Path(pytester.path / "empty").mkdir()
    check_golden(f"llm-gate/{name}", refusal(judge("qwen2-w4", source=source, quantized=quantized)))


def test_int8_is_no_form_of_an_export(judge: Judge) -> None:
    check_golden("llm-gate/int8", refusal(judge("qwen2-w4", "--mnn-recipe=mnnquant-kl")))
