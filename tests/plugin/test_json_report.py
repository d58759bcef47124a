"""The report for programs, against the schema that others rely on."""

from __future__ import annotations

import hashlib
import json
import platform
from pathlib import Path
from typing import Any

import pytest

from pytest_mnnquant.findings.catalogue import CHECK_NAMES
from tests.golden_text import check_golden
from tests.plugin.conftest import CONV, HEAD, Files, Run

MODEL = "--mnn-model=net.py:build"
FINDING = {"code", "rule", "severity", "layer", "message", "cause", "remedy", "follows", "consequences"}


def written(folder: Path, name: str = "r.json") -> dict[str, Any]:
    """The report; numbers that JSON does not have are not in it."""

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    report: dict[str, Any] = json.loads((folder / name).read_text(), parse_constant=refuse)
    return report


def test_the_report_fits_the_schema(run: Run, pytester: pytest.Pytester) -> None:
    found = run(MODEL, "--mnn-mode=eval", "--mnn-recipe=int8", "--mnn-recipe=fp16", "--mnn-min-size-ratio=2",
                "--mnn-report=r.json")  # fmt: skip
    assert found.failed == {"fp16::size"}
    report = written(pytester.path)
    says_who_wrote_it_where(report)
    names_files_with_size_and_hash(report)
    lists_every_layer_of_every_variant(report)
    lists_every_check_with_outcome_and_metrics(report)


def says_who_wrote_it_where(report: dict[str, Any]) -> None:
    assert set(report) == {"schema", "tool", "host", "strict", "baseline", "models"}
    assert report["schema"] == 1
    assert {"pytest-mnnquant", "MNN", "torch"} <= set(report["tool"])
    assert report["host"]["machine"] == platform.machine()
    assert report["host"]["python"] == platform.python_version()


def names_files_with_size_and_hash(report: dict[str, Any]) -> None:
    (model,) = report["models"]
    assert (model["name"], model["source"]) == ("net", "net.py:build")
    int8, fp16 = model["variants"]
    for file in (model["float"], int8["quantized"], fp16["quantized"]):
        content = Path(file["path"]).read_bytes()
        assert file["bytes"] == len(content)
        assert file["sha256"] == hashlib.sha256(content).hexdigest()
        assert len(file["uuid"]) == 36
    assert int8["params"]["sha256"] == hashlib.sha256(Path(int8["params"]["path"]).read_bytes()).hexdigest()
    assert fp16["params"] is None


def lists_every_layer_of_every_variant(report: dict[str, Any]) -> None:
    variants = report["models"][0]["variants"]
    assert [(variant["recipe"], variant["mode"]) for variant in variants] == [("int8", "eval"), ("fp16", None)]
    for variant, storage, bits in zip(variants, ("int8", "float16"), (8, 16), strict=True):
        head, conv = variant["layers"]
        assert (head["name"], conv["name"]) == (HEAD, CONV)
        assert (head["op"], head["weights"], conv["weights"]) == ("Convolution", 16 * 36 * 4, 16 * 9)
        for layer in (head, conv):
            assert (layer["storage"], layer["bits"], layer["quantized"]) == (storage, bits, True)
            assert 0 < layer["bytes"] < layer["float_bytes"] == 4 * layer["weights"]


def lists_every_check_with_outcome_and_metrics(report: dict[str, Any]) -> None:
    for variant in report["models"][0]["variants"]:
        assert [check["check"] for check in variant["checks"]] == list(CHECK_NAMES)
        for check in variant["checks"]:
            assert {"check", "outcome", "metrics", "findings"} <= set(check)
            assert check["outcome"] in ("passed", "failed", "skipped", "inconclusive")
            assert all(set(finding) == FINDING for finding in check["findings"])
    by_name = {check["check"]: check for check in report["models"][0]["variants"][1]["checks"]}
    assert by_name["params"]["outcome"] == "skipped"
    assert by_name["size"]["outcome"] == "failed"
    (finding,) = by_name["size"]["findings"]
    assert (finding["code"], finding["rule"], finding["severity"]) == ("MNQ802", "size-ratio", "error")
    assert by_name["size"]["metrics"]["size_ratio"] < 2
    assert by_name["latency"]["metrics"]["latency_ratio"] > 0


def test_what_was_not_quantized_is_named_with_cause_and_remedy(
    run: Run, files: Files, pytester: pytest.Pytester
) -> None:
    run("--mnn-model", files.float, "--mnn-quantized", files.float, "--mnn-report=r.json", "-k", "coverage or weights")
    (variant,) = written(pytester.path)["models"][0]["variants"]
    coverage, weights = variant["checks"]
    assert variant["coverage"] == coverage["metrics"]["coverage"] == 0
    (finding,) = coverage["findings"]
    (other,) = finding["consequences"]
    assert [(f["code"], f["layer"]) for f in (finding, other)] == [("MNQ401", HEAD), ("MNQ401", CONV)]
    assert other["check"] == "coverage"
    assert finding["cause"]
    assert finding["remedy"]
    assert weights["metrics"]["worst_sqnr_db"] is None  # infinite: JSON has no such number


def test_a_model_that_can_not_be_used_is_reported_without_files(run: Run, pytester: pytest.Pytester) -> None:
    (pytester.path / "bad.onnx").write_bytes(b"no model")
    found = run("--mnn-model=bad.onnx", "--mnn-report=r.json")
    assert found.failed == {"int8::conversion"}
    (model,) = written(pytester.path)["models"]
    assert model["float"] is None
    (variant,) = model["variants"]
    assert (variant["quantized"], variant["params"], variant["layers"]) == (None, None, [])
    assert variant["checks"][0]["findings"][0]["code"] == "MNQ201"


def test_a_report_of_nothing_is_still_a_report(run: Run, pytester: pytest.Pytester) -> None:
    run(MODEL, "-k", "nothing", "--mnn-report=r.json")
    assert written(pytester.path)["models"] == []


def test_a_report_that_can_not_be_written_is_one_line(run: Run, pytester: pytest.Pytester) -> None:
    pytester.mkdir("folder.json")
    found = run(MODEL, "--mnn-recipe=w8", "-k", "size", "--mnn-report=folder.json")
    assert found.status == pytest.ExitCode.USAGE_ERROR
    check_golden("plugin-reports/a-folder-in-its-place", found.starting("ERROR: "), file=pytester.path / "folder.json")
    assert found.passed == {"w8::size"}


def test_tests_of_ones_own_are_in_the_report_too(run: Run, pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        test_own="""
        import pytest
        from pytest_mnnquant import assert_quantized

        @pytest.mark.mnn(model="net.py:build", recipes=["w8"])
        def test_own(mnn_quantized):
            assert_quantized(mnn_quantized)
        """
    )
    found = run("--mnn-report=r.json")
    assert found.status == 0, found.text
    (variant,) = written(pytester.path)["models"][0]["variants"]
    assert [check["check"] for check in variant["checks"]] == ["coverage"]


def test_a_check_that_fails_in_one_test_is_not_ok_because_of_another(run: Run, pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        test_own="""
        from pytest_mnnquant import assert_size_reduction

        def test_hard(mnn_quantized):
            assert_size_reduction(mnn_quantized, at_least=10)

        def test_easy(mnn_quantized):
            assert_size_reduction(mnn_quantized, at_least=1.5)
        """
    )
    found = run("--mnn-model=net.py:build", "--mnn-recipe=w8", "-k", "own", "test_own.py")
    assert found.status == 1
    assert "net: FAILED: MNQ802" in found.text


def test_strict_does_not_ask_for_what_a_recipe_has_no_use_for(run: Run) -> None:
    found = run("--mnn-model=net.py:build", "--mnn-recipe=w8", "--mnn-strict", "-k", "params or calibration or size")
    assert (found.status, found.skipped) == (0, {"w8::params", "w8::calibration"}), found.text
    assert "net: ok" in found.text


def test_a_run_that_judges_nothing_leaves_the_report_alone(run: Run, pytester: pytest.Pytester) -> None:
    (pytester.path / "r.md").write_text("## MNN quantization: kept")
    usual = ("--mnn-model=net.py:build", "--mnn-recipe=w8", "--mnn-report=r.md")
    assert run(*usual, "--co").status == 0
    assert run(*usual, "no_such_test.py").status == pytest.ExitCode.USAGE_ERROR
    assert (pytester.path / "r.md").read_text() == "## MNN quantization: kept"
