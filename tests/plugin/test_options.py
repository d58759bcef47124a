"""Every option of the command line does what it says."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from pytest_mnnquant.cache.store import Store
from pytest_mnnquant.findings.catalogue import CHECKS
from pytest_mnnquant.quantize.float_model import prepare
from pytest_mnnquant.quantize.prepared import Choices
from pytest_mnnquant.sources.spec import parse_spec
from tests.conftest import quietly
from tests.golden_text import check_golden
from tests.plugin.conftest import CONV, HEAD, NET, Files, Run
from tests.workshop import Workshop

MODEL = "--mnn-model=net.py:build"


def test_a_model_is_tested_by_all_checks_in_both_modes(run: Run) -> None:
    found = run(MODEL, "-k", "not latency")
    assert found.status == 0, found.text
    checks = [check.name for check in CHECKS if not check.is_timed]
    assert found.passed == {f"int8-{mode}::{check}" for mode in ("train", "eval") for check in checks}
    assert "int8-train 2." in found.text
    assert "int8-eval 2." in found.text


def test_models_can_be_named_and_repeated(run: Run) -> None:
    found = run("--mnn-model=first=net.py:build", "--mnn-model=second=net.py:build", "--mnn-recipe=w8", "-k", "size")
    assert found.status == 0, found.text
    assert set(found.items) == {"first::w8::size", "second::w8::size"}
    assert "models: first, second" in found.text


def test_a_module_can_be_given_by_its_name(run: Run, pytester: pytest.Pytester) -> None:
    (pytester.mkpydir("zoo") / "small.py").write_text(NET)
    pytester.syspathinsert()
    found = run("--mnn-model=zoo.small:build", "--mnn-recipe=w8", "-k", "coverage or accuracy")
    assert found.status == 0, found.text
    assert found.passed == {"w8::coverage", "w8::accuracy"}


def test_recipes_can_be_repeated(run: Run) -> None:
    found = run(MODEL, "--mnn-recipe=w8", "--mnn-recipe=w4", "--mnn-recipe=fp16", "-k", "coverage or params")
    assert found.status == 0, found.text
    assert found.passed == {"w8::coverage", "w4::coverage", "fp16::coverage"}
    assert found.skipped == {"w8::params", "w4::params", "fp16::params"}


@pytest.mark.parametrize(("mode", "modes"), [("both", ["train", "eval"]), ("train", ["train"]), ("eval", ["eval"])])
def test_the_mode_chooses_variants(run: Run, mode: str, modes: list[str]) -> None:
    assert run(MODEL, "--mnn-mode", mode, "-k", "params").passed == {f"int8-{name}::params" for name in modes}


def test_finished_files_are_judged_by_relative_paths(run: Run, files: Files, pytester: pytest.Pytester) -> None:
    for name, path in (("q.mnn", files.int8), ("p.bin", files.params), ("f.mnn", files.float)):
        (pytester.path / name).write_bytes(path.read_bytes())
    found = run("--mnn-model=f.mnn", "--mnn-quantized=q.mnn", "--mnn-params=p.bin", "-k", "params or coverage")
    assert found.status == 0, found.text
    assert found.passed == {"int8::params", "int8::coverage"}


def test_calibration_data_come_from_npz_npy_and_python(run: Run, pytester: pytest.Pytester) -> None:
    images = np.random.default_rng(1).random((24, 1, 8, 8), np.float32)
    np.savez(pytester.path / "wide.npz", x=3 * images)
    np.save(pytester.path / "wide.npy", 3 * images)
    pytester.makepyfile(data="import numpy as np\ndef wide():\n    yield np.load('wide.npy')")
    scales = set()
    for given in ("wide.npz", "wide.npy", "data.py:wide"):
        found = run(MODEL, "--mnn-mode=eval", "--mnn-calibration", given, "--mnn-report=r.json", "-k", "params")
        assert found.status == 0, found.text
        report = json.loads((pytester.path / "r.json").read_text())
        scales.add(report["models"][0]["variants"][0]["params"]["sha256"])
    run(MODEL, "--mnn-mode=eval", "--mnn-report=own.json", "-k", "params")
    own = json.loads((pytester.path / "own.json").read_text())["models"][0]["variants"][0]["params"]["sha256"]
    assert len(scales) == 1
    assert own not in scales


def test_evaluation_data_decide_about_accuracy(run: Run, pytester: pytest.Pytester) -> None:
    images = np.random.default_rng(2).random((24, 1, 8, 8), np.float32)
    np.savez(pytester.path / "plain.npz", x=images)
    np.savez(pytester.path / "wrong.npz", x=images, labels=np.full(24, 3))
    plain = run(MODEL, "--mnn-recipe=w8", "--mnn-evaluation=plain.npz", "-k", "accuracy")
    assert plain.status == 0, plain.text
    assert plain.metrics("accuracy")["outputs"]["output"]["cosine"] > 0.999
    assert "top1" not in plain.metrics("accuracy")
    labelled = run(MODEL, "--mnn-recipe=w8", "--mnn-evaluation=wrong.npz", "-k", "accuracy")
    assert "MNQ709" in labelled.codes()  # Which the float model does not answer.


@pytest.mark.parametrize(
    ("check", "passing", "failing", "code"),
    [
        ("size", "--mnn-min-size-ratio=1.5", "--mnn-min-size-ratio=5", "MNQ802"),
        ("accuracy", "--mnn-max-accuracy-drop=0.1", "--mnn-max-accuracy-drop=-0.1", "MNQ701"),
        ("latency", "--mnn-max-latency-ratio=10000", "--mnn-max-latency-ratio=0.0001", "MNQ901"),
    ],
)
def test_limits_decide(run: Run, check: str, passing: str, failing: str, code: str) -> None:
    usual = [MODEL, "--mnn-mode=eval", "-k", check]
    assert run(*usual, passing).status == 0
    found = run(*usual, failing)
    assert (found.status, found.codes()) == (1, {code}), found.text


def test_the_least_cosine_decides_where_there_are_no_labels(run: Run, pytester: pytest.Pytester) -> None:
    np.savez(pytester.path / "plain.npz", x=np.random.default_rng(2).random((24, 1, 8, 8), np.float32))
    usual = [MODEL, "--mnn-recipe=w4", "--mnn-evaluation=plain.npz", "-k", "accuracy"]
    assert run(*usual, "--mnn-min-cosine=0.9").status == 0
    found = run(*usual, "--mnn-min-cosine=1")
    assert found.status == 1
    found.tells("MNQ702", where="required 1")


def test_the_least_coverage_decides(run: Run, files: Files) -> None:
    usual = ["--mnn-model", files.float, "--mnn-recipe=w8", "--mnn-quantized", files.float, "-k", "coverage"]
    found = run(*usual)
    assert found.status == 1
    assert found.layers("MNQ401") == {CONV, HEAD}
    assert run(*usual, "--mnn-min-coverage=0").status == 0


def test_skipped_layers_stay_float(run: Run) -> None:
    by_name = run(MODEL, "--mnn-mode=eval", "--mnn-skip-layer", HEAD, "-k", "coverage or size or params")
    assert by_name.status == 0, by_name.text
    assert by_name.metrics("coverage")["skipped_layers"] == 1
    by_module = run(MODEL, "--mnn-mode=eval", "--mnn-skip-layer=hea?", "--mnn-skip-layer=nothing", "-k", "coverage")
    assert by_module.metrics("coverage")["skipped_layers"] == 1


def test_ignored_codes_are_not_reported(run: Run, files: Files) -> None:
    usual = [
        "--mnn-model",
        files.float,
        "--mnn-recipe=w8",
        "--mnn-quantized",
        files.float,
        "-k",
        "coverage or execution",
    ]
    assert run(*usual).failed == {"w8::coverage", "w8::execution"}
    found = run(*usual, "--mnn-ignore=MNQ603", "--mnn-ignore=MNQ401")
    assert found.status == 0, found.text
    (coverage,) = [check for check in found.checks if check["check"] == "coverage"]
    assert coverage["ignored"] == {"MNQ401": 2}
    assert "ignored MNQ401: 2" in found.text


def test_the_beginning_of_codes_ignores_them_all_but_those_that_judge_nothing(run: Run, files: Files) -> None:
    usual = ["--mnn-model", files.float, "--mnn-recipe=w8", "-k", "coverage or execution or conversion"]
    found = run(*usual, "--mnn-quantized", files.float, "--mnn-ignore=MNQ4", "--mnn-ignore=MNQ60")
    assert found.status == 0, found.text
    assert "ignored MNQ603: 1" in found.text
    missing = run(*usual, "--mnn-quantized=nowhere.mnn", "--mnn-ignore=MNQ2")
    assert missing.status == 1
    assert missing.codes() == {"MNQ202"}


def test_reports_are_written_to_each_file(run: Run, pytester: pytest.Pytester) -> None:
    run(MODEL, "--mnn-recipe=w8", "--mnn-report=a.json", "--mnn-report=deep/er/b.json", "-k", "size")
    first, second = (json.loads((pytester.path / name).read_text()) for name in ("a.json", "deep/er/b.json"))
    assert first == second
    assert first["models"][0]["name"] == "net"


def made(folder: Path) -> dict[str, int]:
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in folder.rglob("*.mnn")}


def test_durations_show_the_slowest_steps_and_the_report_has_all(run: Run, pytester: pytest.Pytester) -> None:
    usual = (MODEL, "--mnn-recipe=w8", "-k", "execution or coverage")
    found = run(*usual, "--mnn-durations=3", "--mnn-report=r.json", "--mnn-no-cache")
    first = next(number for number, line in enumerate(found.lines) if "slowest 3 steps" in line) + 2
    assert [line.split()[1] for line in found.lines[first : first + 3]] == ["s"] * 3
    (variant,) = json.loads((pytester.path / "r.json").read_text())["models"][0]["variants"]
    steps = [step for check in variant["checks"] for step in check["steps"]]
    assert len(steps) > 3
    assert max(step["child_mb"] or 0.0 for step in steps) > 10
    assert "steps of the checks" not in run(*usual).text


def test_the_cache_folder_keeps_artifacts(run: Run, pytester: pytest.Pytester) -> None:
    usual = [MODEL, "--mnn-recipe=w8", "--mnn-cache-dir=kept", "-k", "size"]
    assert run(*usual).status == 0
    first = made(pytester.path / "kept")
    assert sorted(name.rpartition("/")[2] for name in first) == ["float.mnn", "model.mnn"]
    assert run(*usual).status == 0
    assert made(pytester.path / "kept") == first
    assert run(*usual, "--mnn-no-cache").status == 0
    assert len(set(made(pytester.path / "kept").values()) - set(first.values())) == 2


@pytest.fixture(scope="module")
def dynamo(tmp_path_factory: pytest.TempPathFactory, files: Files) -> None:
    """The other exporter has run once, so that all it imports is there."""
    folder = tmp_path_factory.mktemp("dynamo")
    (folder / "net.py").write_text(NET)
    prepare(parse_spec("net.py:build", folder), Choices(folder, exporter="dynamo"), Store(folder), quietly)


@pytest.mark.usefixtures("dynamo")
def test_the_other_exporter_can_be_chosen(run: Run, pytester: pytest.Pytester) -> None:
    usual = [MODEL, "--mnn-mode=eval", "--mnn-report=r.json", "-k", "conversion or params or coverage"]
    found = run(*usual, "--mnn-exporter=dynamo")
    assert found.status == 0, found.text
    layers = json.loads((pytester.path / "r.json").read_text())["models"][0]["variants"][0]["layers"]
    assert CONV not in {layer["name"] for layer in layers}


def test_strict_fails_what_could_not_be_checked(run: Run, files: Files, pytester: pytest.Pytester) -> None:
    usual = ["--mnn-model", files.onnx, "--mnn-quantized", files.int8, "-k", "conversion or accuracy"]
    found = run(*usual)
    assert (found.status, found.skipped) == (0, {"int8::conversion", "int8::accuracy"})
    strict = run(*usual, "--mnn-strict", "--mnn-report=r.html")
    assert "<title>1 failed ·" in (pytester.path / "r.html").read_text(encoding="utf-8")
    assert (strict.status, strict.failed) == (1, {"int8::conversion", "int8::accuracy"})
    check_golden("plugin-accuracy/no-evaluation-data", strict.reason("accuracy"))
    strict.tells("MNQ111", where="--mnn-evaluation")


def test_a_native_step_ends_at_the_time_limit(run: Run, workshop: Workshop, pytester: pytest.Pytester) -> None:
    layers = [torch.nn.Conv2d(128, 128, 3) for _ in range(6)]
    heavy = torch.nn.Sequential(torch.nn.Upsample(scale_factor=128), torch.nn.Conv2d(1, 128, 3), *layers)
    inputs = np.ones((2, 1, 4, 4), np.float32)
    model = workshop.floats(heavy.eval(), {"input": inputs})
    np.savez(pytester.path / "inputs.npz", input=inputs)
    found = run("--mnn-model", model.path, "--mnn-recipe=w8", "--mnn-evaluation=inputs.npz", "--mnn-timeout=1")
    assert found.status == 1
    found.tells("MNQ201", where=" 1 s")
