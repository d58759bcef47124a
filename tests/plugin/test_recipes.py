"""Every family of recipes from the command line, and pipelines of one's own."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.golden_text import check_golden
from tests.plugin.conftest import Run

MODEL = "--mnn-model=net.py:build"
# A team's build step: exports, calibrates nothing, and asks MNN's converter for 8-bit weights.
PIPELINE = """
import torch
import _tools


def weights(model, calibration, mode, outdir):
    (x,) = next(iter(calibration))
    axes = {"x": {0: "batch"}, "output": {0: "batch"}}
    names = {"input_names": ["x"], "output_names": ["output"], "dynamic_axes": axes}
    torch.onnx.export(model, (x,), "net.onnx", dynamo=False, **names)
    given = ["-f", "ONNX", "--modelFile", "net.onnx", "--MNNModel", "net.mnn", "--bizCode", "MNN"]
    _tools.mnnconvert(["mnnconvert", *given, "--weightQuantBits", "8"])
    return "net.mnn"


def ruined(model, calibration, mode, outdir):
    with torch.no_grad():
        for (x,) in calibration:
            model(x)
        model.conv.weight.mul_(2)
    return weights(model, calibration, mode, outdir)
"""


@pytest.fixture
def pipeline(pytester: pytest.Pytester) -> Path:
    """The pipeline's file."""
    return pytester.makepyfile(build_step=PIPELINE)


def test_every_family_of_recipes_passes_for_a_healthy_model(run: Run) -> None:
    names = ("int8-percentile99.9", "int8-histogram+w8", "w3", "w4b32-hqq", "w8-sym-scale16", "mnnquant-kl")
    found = run(
        MODEL, "--mnn-mode=eval", *(f"--mnn-recipe={name}" for name in names), "-k", "not latency and not accuracy"
    )
    assert found.status == pytest.ExitCode.OK, found.text
    labels = {
        "int8-percentile99.9-eval",
        "int8-histogram+w8-eval",
        "w3",
        "w4b32-hqq",
        "w8-sym-scale16",
        "mnnquant-kl",
    }
    assert {name.partition("::")[0] for name in found.passed} == labels


def test_a_layer_to_skip_may_be_named_by_its_module_under_any_recipe(run: Run) -> None:
    found = run(MODEL, "--mnn-mode=eval", "--mnn-recipe=w8", "--mnn-recipe=mnnquant-kl", "--mnn-skip-layer=head",
                "--mnn-min-coverage=1", "-k", "coverage")  # fmt: skip
    assert found.passed == {"w8::coverage", "mnnquant-kl::coverage"}, found.text
    assert "MNQ404" not in found.text


def test_a_pipeline_of_ones_own_is_judged_by_what_it_is_meant_to_make(run: Run, pipeline: Path) -> None:
    found = run(MODEL, "--mnn-recipe=ours=build_step.py:weights@w8", "-k", "not latency")
    assert found.status == pytest.ExitCode.OK, found.text
    assert {"ours::conversion", "ours::coverage", "ours::weights"} <= found.passed
    wrong = run(MODEL, "--mnn-mode=eval", "--mnn-recipe=build_step.py:weights", "-k", "coverage")
    assert wrong.failed == {"build_step.py:weights-eval::coverage"}
    assert "it is weight-only" in wrong.text


def test_a_pipeline_that_changes_the_model_is_told_so(run: Run, pipeline: Path) -> None:
    found = run(MODEL, "--mnn-mode=eval", "--mnn-recipe=build_step.py:ruined", "-k", "calibration or weights")
    assert found.failed == {"build_step.py:ruined-eval::calibration", "build_step.py:ruined-eval::weights"}
    assert re.search(r"MNQ504 calibration-changed-model", found.text)
    assert "MNQ410" in found.text


def test_ids_of_a_pipelines_checks_can_be_pasted_back(run: Run, pipeline: Path) -> None:
    found = run("net.py:build::build_step.py:weights-eval::conversion", "--mnn-mode=eval")
    assert found.passed == {"build_step.py:weights-eval::conversion"}
    found = run("net.py:build::int8-kl+w8-eval::coverage")
    assert found.passed == {"int8-kl+w8-eval::coverage"}


def test_pipelines_that_can_not_be_used_are_refused(refused: Callable[..., str], pipeline: Path) -> None:
    check_golden("plugin-options/a-pipeline-that-is-gone", refused(MODEL, "--mnn-recipe=gone.py:weights"))
    twice = refused(MODEL, "--mnn-recipe=a=build_step.py:weights", "--mnn-recipe=a=build_step.py:ruined")
    check_golden("plugin-options/two-recipes-of-one-name", twice)
    check_golden("plugin-options/a-recipe-already", refused(MODEL, "--mnn-recipe=w8=build_step.py:weights"))


def test_the_report_says_how_each_variant_was_made(run: Run) -> None:
    run(MODEL, "--mnn-recipe=int8", "--mnn-recipe=w8", "-k", "coverage or size", "--mnn-report=r.json")
    (model,) = json.loads(Path("r.json").read_text())["models"]
    train, evaluated, weights = (variant["provenance"] for variant in model["variants"])
    assert train["maker"] == "calibrated by pytest-mnnquant"
    assert (train["mode"], evaluated["mode"], weights["mode"]) == ("train", "eval", None)
    assert weights["arguments"] == ["mnnconvert", "-f", "MNN", "--weightQuantBits", "8"]
    assert weights["calibration"] is None
    for made in (train, evaluated):
        assert made["calibration"]["samples"] == 24
        for what in ("source", "float", "calibration", "params"):
            assert re.fullmatch(r"[0-9a-f]{64}", made[what]["sha256"])
    assert train["params"]["sha256"] != evaluated["params"]["sha256"]
    assert train["versions"]["MNN"]
    (modes,) = model["modes"]
    assert modes["recipe"] == "int8"
    assert modes["verdict"].startswith(("ship eval", "they do"))


def test_a_test_of_ones_own_may_name_any_recipe(run: Run, pytester: pytest.Pytester, pipeline: Path) -> None:
    pytester.makepyfile(
        test_own="""
        import pytest
        from pytest_mnnquant import assert_quantized

        @pytest.mark.mnn(model="net.py:build", recipes=["ours=build_step.py:weights@w8", "int8-kl+w8"], modes=["eval"])
        def test_it(mnn_quantized):
            assert_quantized(mnn_quantized)
        """
    )
    found = run("test_own.py")
    assert found.ended("passed") == {"test_own.py::test_it[ours]", "test_own.py::test_it[int8-kl+w8-eval]"}, found.text


def test_a_pipelines_model_may_have_other_names_for_its_inputs_and_outputs(run: Run, pytester: pytest.Pytester) -> None:
    unnamed = re.sub(r'"input_names": .*"dynamic_axes": axes', "", PIPELINE)
    pytester.makepyfile(build_step=unnamed)
    assert "input_names" not in unnamed
    found = run(MODEL, "--mnn-recipe=ours=build_step.py:weights@w8", "-k", "ours and not conversion")
    assert {"ours::execution", "ours::latency"} <= found.passed, found.text
    assert not found.failed
