"""`pytest --mnn-model=CHECKPOINT --mnn-quantized=EXPORT`: the checks that judge a language model."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Protocol

import pytest

from pytest_mnnquant.evidence.export import ALL_EXPORT_CHECKS
from tests.golden_text import check_golden
from tests.llm.conftest import DATA, EXPORTS
from tests.plugin.outcomes import Outcome, outcome
from tests.report.schema import assert_fits_schema

ALL = {f"export::{check}" for check in ALL_EXPORT_CHECKS}
TEXT = "A text in plain English, which the tokenizer of the fixtures splits into many tokens. " * 40


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
        (pytester.path / "text.txt").write_text(TEXT, encoding="utf-8")
        options = [f"--mnn-model={source}"] if source else []
        options += [f"--mnn-quantized={quantized}"] if quantized else []
        return outcome(pytester.runpytest_inprocess("-W", "error", *options, *args))

    return run


def refusal(result: Outcome) -> str:
    """The one line that says why a run is refused."""
    errors = [line for line in result.lines if re.match(r"ERROR: (?!usage)", line)]
    assert (result.status, len(errors)) == (pytest.ExitCode.USAGE_ERROR, 1), result.text
    return errors[0]


@pytest.mark.parametrize("export", ["qwen2-gptq", "qwen3-w4-embedding8"])
def test_a_healthy_export_passes_all_checks(judge: Judge, export: str) -> None:
    # The fixtures are not trained: only a given limit is judged.
    result = judge(export, "--mnn-strict", "--mnn-evaluation=text.txt", "--mnn-max-kl=0.5")
    assert (result.status, result.passed, result.failed, result.skipped) == (0, ALL, set(), set())


def test_without_a_text_the_predictions_are_not_judged(judge: Judge) -> None:
    result = judge("qwen2-w4")
    assert (result.passed, result.skipped) == (ALL - {"export::accuracy"}, {"export::accuracy"})


def test_a_text_that_the_source_does_not_predict_is_inconclusive(judge: Judge) -> None:
    result = judge("qwen2-w4", "--mnn-evaluation=text.txt", "-k", "accuracy")
    (check,) = result.checks
    assert (check["outcome"], [finding["code"] for finding in check["findings"]]) == ("inconclusive", ["MNQ752"])


def test_predictions_that_are_too_far_name_layers_and_a_fix(judge: Judge) -> None:
    result = judge("qwen2-w4", "--mnn-evaluation=text.txt", "--mnn-max-kl=0.01", "-k", "accuracy")
    (check,) = result.checks
    (finding,) = check["findings"]
    assert (finding["code"], finding["severity"]) == ("MNQ750", "error")
    language = check["metrics"]["language"]
    assert language["blamed"][0]["name"] == check["metrics"]["suspect"]
    assert 0.01 < language["weights_kl"] < 2 * language["kl"]
    assert check["metrics"]["tried"][-1] == {
        **check["metrics"]["tried"][-1],
        "options": ["--quant_bit 8"],
        "passes": True,
    }


def test_a_runtime_that_reads_otherwise_is_named(judge: Judge) -> None:
    result = judge("bad-tied-w2", "-k", "execution")
    (check,) = result.checks
    assert [(finding["code"], finding["severity"]) for finding in check["findings"]] == [("MNQ640", "error")]
    assert check["metrics"]["kl"] > 0.5


def test_a_reference_stands_for_the_checkpoint(judge: Judge, pytester: pytest.Pytester) -> None:
    shutil.copyfile(DATA / "qwen2.npz", pytester.path / "qwen2.npz")
    result = judge("qwen2-w4", "--mnn-max-kl=0.5", source="qwen2.npz")
    assert (result.passed, result.skipped) == (ALL - {"export::weights"}, {"export::weights"})
    result = judge("qwen2-w4", "--mnn-evaluation=text.txt", "-k", "accuracy", source="qwen2.npz")
    assert [finding["code"] for check in result.checks for finding in check["findings"]] == ["MNQ102"]


def test_a_missing_weight_file_is_one_root_cause(judge: Judge, pytester: pytest.Pytester) -> None:
    judge("qwen2-w4", "-k", "bundle")
    (pytester.path / "out" / "llm.mnn.weight").unlink()
    result = judge("qwen2-w4", "--mnn-evaluation=text.txt")
    errors = {
        finding["code"] for check in result.checks for finding in check["findings"] if finding["severity"] == "error"
    }
    assert errors == {"MNQ803"}
    assert {"export::execution", "export::accuracy", "export::latency", "export::memory"} <= result.failed


def test_a_fault_is_one_root_cause(judge: Judge) -> None:
    result = judge("bad-block")
    assert result.failed == {"export::params", "export::weights", "export::bundle", "export::execution"}
    found = {
        (finding["code"], finding["severity"])
        for check in result.checks
        for finding in check["findings"]
        if finding["severity"] != "warning"
    }
    consequences = {(code, "consequence") for code in ("MNQ001", "MNQ410", "MNQ813")}
    assert found == {("MNQ312", "error"), *consequences}
    (row,) = (line for line in result.lines if line.startswith("  export"))
    speed, memory = re.findall(r"([\d,]+) tokens/s +([\d.,]+) MB", row)[0]
    check_golden("llm-gate/table", row, speed=speed, memory=memory)


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
    assert judge("qwen2-w4", f"--mnn-recipe={recipe}", "-k", "params or coverage or size").failed == failed


def test_codes_can_be_ignored_and_a_size_can_be_required(judge: Judge) -> None:
    assert judge("bad-tied-w2", "--mnn-ignore=MNQ815", "-k", "bundle").failed == set()
    assert judge("bad-tied-w2", "--mnn-min-size-ratio=100", "-k", "size").failed == {"export::size"}


def test_the_report_fits_its_schema_and_names_layers(judge: Judge, pytester: pytest.Pytester) -> None:
    judge("qwen2-config", "--mnn-report=r.json", "--mnn-report=r.md", "--mnn-report=r.html", "--junit-xml=r.xml")
    report = json.loads((pytester.path / "r.json").read_text(encoding="utf-8"))
    assert_fits_schema(report)
    (model,) = report["models"]
    (variant,) = model["variants"]
    assert (variant["recipe"], len(variant["layers"]), variant["coverage"]) == ("export", 15, 1.0)
    assert [check["check"] for check in variant["checks"]] == list(ALL_EXPORT_CHECKS)
    assert "export" in (pytester.path / "r.md").read_text(encoding="utf-8")
    page = (pytester.path / "r.html").read_text(encoding="utf-8")
    # Layers of a language model are not run one by one, and no reference export was timed.
    shown = set(re.findall(r'data-chart="(\w+)"', page))
    assert "weights" in shown
    assert not shown & {"losses", "activations", "latency"}


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
    result = judge("bad-tied-embedding8", "-n2", "-k", "coverage or bundle or size")
    assert result.failed == {"export::coverage", "export::bundle"}


@pytest.mark.parametrize(
    ("name", "source", "quantized"),
    [
        ("no-export", "hf", ""),
        ("bare-graph", "hf", "out/llm.mnn"),
        ("configuration", "hf", "out/config.json"),
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


TEXTS = {
    "empty": b"",
    "short": b" x ",
    "binary": b"text\0" * 100,
    "utf-16": ("A text. " * 100).encode("utf-16"),
    "latin-1": ("Größe und Maß. " * 100).encode("latin-1"),
}


@pytest.mark.parametrize("name", [*TEXTS, "folder", "callable", "missing"])
def test_what_is_no_text_is_refused(judge: Judge, pytester: pytest.Pytester, name: str) -> None:
    (pytester.path / "folder").mkdir()
    for other, content in TEXTS.items():
        (pytester.path / other).write_bytes(content)
    text = "data.py:texts" if name == "callable" else name
    check_golden(f"llm-gate/text-{name}", refusal(judge("qwen2-w4", f"--mnn-evaluation={text}")))


def test_int8_is_no_form_of_an_export(judge: Judge) -> None:
    check_golden("llm-gate/int8", refusal(judge("qwen2-w4", "--mnn-recipe=mnnquant-kl")))


EXPORTER = """
import shutil

def pipeline(checkpoint, outdir):
    assert (__import__("pathlib").Path(checkpoint) / "config.json").is_file()
    shutil.copytree(%r, outdir + "/out")

def breaks(checkpoint, outdir):
    raise ValueError("no weights for you")

def makes_nothing(checkpoint, outdir):
    return outdir
"""


def test_a_pipeline_exports_under_test(judge: Judge, pytester: pytest.Pytester) -> None:
    pytester.makepyfile(export=EXPORTER % str(EXPORTS / "qwen2-w4"))
    result = judge("qwen2-w4", "--mnn-recipe=export.py:pipeline@llm-w4b32", "-k", "not execution", quantized="")
    assert (result.status, result.failed) == (0, set())
    assert {"export::coverage", "export::weights", "export::bundle"} <= result.passed


def test_the_form_of_a_pipeline_is_held_against_its_export(judge: Judge, pytester: pytest.Pytester) -> None:
    pytester.makepyfile(export=EXPORTER % str(EXPORTS / "qwen2-w4"))
    result = judge("qwen2-w4", "--mnn-recipe=mine=export.py:pipeline@llm-w8", "-k", "coverage", quantized="")
    (check,) = result.checks
    assert {finding["code"] for finding in check["findings"]} == {"MNQ402"}


@pytest.mark.parametrize("name", ["breaks", "makes_nothing"])
def test_an_exporter_that_fails_is_one_error(judge: Judge, pytester: pytest.Pytester, name: str) -> None:
    pytester.makepyfile(export=EXPORTER % str(EXPORTS / "qwen2-w4"))
    result = judge("qwen2-w4", f"--mnn-recipe=export.py:{name}@llm-w4b32", "-k", "coverage or bundle", quantized="")
    assert result.status == 1
    errors = {finding["code"] for check in result.checks for finding in check["findings"]}
    assert errors == {"MNQ101"}


@pytest.mark.parametrize(
    ("arguments", "quantized"),
    [
        (["--mnn-recipe=export.py:pipeline@llm-w4", "--mnn-recipe=w4"], ""),
        (["--mnn-recipe=export.py:pipeline@w4"], ""),
        (["--mnn-recipe=export.py:pipeline@llm-w4"], "out"),
    ],
)
def test_recipes_that_are_not_one_exporter_are_refused(
    judge: Judge, pytester: pytest.Pytester, arguments: list[str], quantized: str
) -> None:
    pytester.makepyfile(export=EXPORTER % str(EXPORTS / "qwen2-w4"))
    assert "--mnn-" in refusal(judge("qwen2-w4", *arguments, quantized=quantized))


def test_an_export_is_held_against_the_accepted_one(
    judge: Judge, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CI", raising=False)
    accepted = judge("qwen2-w4", "--mnn-baseline=accepted.json", "--mnn-update-baseline")
    assert (accepted.status, "export::baseline" in accepted.passed) == (0, True)
    (entry,) = json.loads((pytester.path / "accepted.json").read_text())["models"]["hf"]["variants"].values()
    assert min(entry["figures"]["size"], entry["figures"]["memory"]) > 0
    same = judge("qwen2-w4", "--mnn-baseline=accepted.json", "-k", "baseline")
    assert (same.status, same.passed) == (0, {"export::baseline"})
    shutil.rmtree(pytester.path / "out")
    other = judge("qwen2-w8-sym", "--mnn-baseline=accepted.json", "-k", "baseline")
    (check,) = other.checks
    assert {finding["code"] for finding in check["findings"]} >= {"MNQ913", "MNQ914"}


@pytest.mark.parametrize(
    ("limit", "text", "code"),
    [
        ("--mnn-max-accuracy-drop=0.01", "--mnn-evaluation=text.txt", "MNQ723"),
        ("--mnn-max-kl=0.5", "-q", "MNQ723"),
        ("--mnn-max-latency-ratio=1", "-q", "MNQ723"),
    ],
)
def test_a_limit_that_is_not_judged_does_not_pass(judge: Judge, limit: str, text: str, code: str) -> None:
    result = judge("qwen2-w4", limit, text, "-k", "latency" if "latency" in limit else "accuracy")
    (check,) = result.checks
    assert check["outcome"] in ("failed", "inconclusive")
    assert code in {finding["code"] for finding in check["findings"]}


@pytest.mark.parametrize(("limit", "failed"), [(50, set()), (0.01, {"export::latency"})])
def test_the_speed_of_another_export_is_a_limit(judge: Judge, limit: float, failed: set[str]) -> None:
    reference = f"--mnn-latency-reference={EXPORTS / 'qwen2-fp16'}"
    result = judge("qwen2-w4", reference, f"--mnn-max-latency-ratio={limit}", "--mnn-latency-time=2", "-k", "latency")
    (check,) = result.checks
    assert result.failed == failed
    assert check["metrics"]["prompt_latency_ratio"] > 0
    (finding,) = check["findings"] or [None]
    assert finding is None or (finding["code"], finding["severity"]) == ("MNQ901", "error")


def test_the_reference_is_an_export_of_the_same_network(judge: Judge, pytester: pytest.Pytester) -> None:
    other = f"--mnn-latency-reference={EXPORTS / 'llama-hqq'}"
    (check,) = judge("qwen2-w4", other, "-k", "latency").checks
    assert [finding["code"] for finding in check["findings"]] == ["MNQ203"]
    for number, reference in enumerate(("missing", "hf", "out/llm.mnn")):
        line = refusal(judge("qwen2-w4", f"--mnn-latency-reference={reference}"))
        check_golden(f"llm-gate/latency-reference-{number}", line)
    shutil.copyfile(EXPORTS / "qwen2-w4" / "llm.mnn", pytester.path / "net.mnn")
    line = refusal(judge("qwen2-w4", "--mnn-latency-reference=out", source="net.mnn", quantized=""))
    check_golden("llm-gate/latency-reference-3", line)
