"""`--mnn-target`: what runs elsewhere is judged there, ids say where, and a target that does not work is no pass."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import pytest

from pytest_mnnquant.runtime import arm_equivalent
from pytest_mnnquant.targets.emulator import Emulator, cache_folder
from tests.conftest import FIXTURES
from tests.plugin.conftest import Run

MODEL, W8 = "--mnn-model=net.py:build", "--mnn-recipe=w8"
DIGITS = (f"--mnn-model={FIXTURES}/digits_cnn.py:build", "--mnn-mode=eval", "-m", "mnn_execution or mnn_accuracy")
HOST, MINE, ARM = "--mnn-target=host", "--mnn-target=mine", "--mnn-target=aarch64:cortex-a76"
#: Of the user who runs this: pytester has a home of its own.
CACHE = cache_folder().parent
ON_TARGET = {"w8@mine::execution", "w8@mine::accuracy"}


@pytest.fixture(autouse=True)
def mine(pytester: pytest.Pytester) -> None:
    """This machine, reached by a command, and others that do not work."""
    commands = {"mine": shlex.quote(sys.executable), "broken": "sh -c 'echo out of paper; exit 3'", "gone": "no-such"}
    tables = (f'[tool.mnnquant.targets.{name}]\ncommand = "{command}"\n' for name, command in commands.items())
    pytester.makepyprojecttoml("\n".join(tables))


@pytest.fixture
def arm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(CACHE))
    if Emulator().missing:
        pytest.skip(f"the emulator is not set up: {Emulator().add_command}")


def report(pytester: pytest.Pytester) -> Any:
    return json.loads((pytester.path / "r.json").read_text(encoding="utf-8"))["models"][0]


def test_a_target_adds_its_items_and_the_places_stand_side_by_side(run: Run, pytester: pytest.Pytester) -> None:
    found = run(MODEL, W8, HOST, MINE, "-k", "execution or accuracy or size", "--mnn-report=r.json")
    assert found.passed == {"w8::size", "w8::execution", "w8::accuracy", *ON_TARGET}
    model = report(pytester)
    assert [(one["recipe"], one.get("target")) for one in model["variants"]] == [("w8", None), ("w8", "mine")]
    assert [row["place"] for row in model["places"]] == ["float", "host", "mine"]
    assert model["places"][2] == {**model["places"][1], "place": "mine", "steps": 0.0}
    assert "side by side" in found.text
    (own,) = [one for one in model["variants"][1]["checks"] if one["check"] == "accuracy"]
    assert own["metrics"]["place"] == {
        **own["metrics"]["place"],
        "name": "mine",
        "emulated": False,
        "mnn": version("mnn"),
    }


def test_without_the_host_files_are_judged_here_and_what_runs_there(run: Run) -> None:
    found = run(MODEL, W8, MINE, "--co", "-q")
    listed = {line.partition("::")[2] for line in found.lines if "::" in line}
    here = {
        f"w8::{check}" for check in ("conversion", "params", "coverage", "weights", "size", "bundle", "calibration")
    }
    assert listed == here | ON_TARGET


def test_ids_pasted_back_run_there(run: Run) -> None:
    found = run("net.py:build::w8@mine::accuracy")
    assert (found.status, set(found.items)) == (0, {"net.py:build::w8@mine::accuracy"})
    many = run("net.py:build::int8-eval@mine::execution", "net.py:build::int8-eval::size")
    assert many.passed == {"int8-eval@mine::execution", "int8-eval::size"}
    assert run(MODEL, W8, HOST, MINE, "net.py:build::w8", "-k", "execution").passed == {
        "w8::execution",
        "w8@mine::execution",
    }


@pytest.mark.parametrize(("target", "told"), [("broken", "out of paper"), ("gone", "no-such can't be run")])
def test_a_target_that_does_not_work_fails_one_check_and_blocks_the_other(run: Run, target: str, told: str) -> None:
    found = run(MODEL, W8, HOST, f"--mnn-target={target}", "-k", "execution or accuracy", "-rs")
    assert (found.status, found.failed, found.skipped) == (
        1, {f"w8@{target}::execution"}, {f"w8@{target}::accuracy"}
    )  # fmt: skip
    assert found.passed == {"w8::execution", "w8::accuracy"}
    assert f"see w8@{target}::execution" in found.text
    alone = run(MODEL, W8, f"--mnn-target={target}", "-k", "accuracy")
    assert alone.failed == {f"w8@{target}::accuracy"}  # What is asked alone tells it itself.
    found.tells("MNQ620", where=f"{target}: ", fix=f"pytest-mnnquant target check {target}")
    assert told in found.text


def test_what_runs_and_gives_nothing_there_is_told_once_too(run: Run, pytester: pytest.Pytester) -> None:
    """No fault of the target's, as far as it goes: its runner did its work."""
    (pytester.path / "empty.py").write_text(
        "import json, subprocess, sys; from pathlib import Path\n"
        "status = subprocess.run([sys.executable, *sys.argv[1:]]).returncode\n"
        "place = Path(sys.argv[-1]).with_name('result.json'); result = json.loads(place.read_text())\n"
        "place.write_text(json.dumps({**result, 'outputs': []})); sys.exit(status)\n"
    )
    command = shlex.join([sys.executable, str(pytester.path / "empty.py")])
    pytester.makepyprojecttoml(f"[tool.mnnquant.targets.mine]\ncommand = {json.dumps(command)}\n")
    found = run(MODEL, W8, HOST, MINE, "-k", "mine", "-rs")
    assert (found.failed, found.skipped) == ({"w8@mine::execution"}, {"w8@mine::accuracy"})
    found.tells("MNQ201", where="running model.mnn: MNN returned no output")


def test_what_has_no_model_is_blocked_there_too(run: Run, pytester: pytest.Pytester) -> None:
    (pytester.path / "bad.mnn").write_bytes(b"junk" * 100)
    found = run(MODEL, W8, "--mnn-quantized=bad.mnn", MINE, "-k", "conversion or accuracy", "-rs")
    assert (found.failed, found.skipped) == ({"w8::conversion"}, {"w8@mine::accuracy"})
    assert "see w8::conversion" in found.text


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--mnn-target=phone"], "--mnn-target: unknown target 'phone'"),
        (["--mnn-target=aarch64-0.0.1"], "pytest-mnnquant target add aarch64 --mnn 0.0.1"),
        ([MINE, "--mnn-max-latency-ratio=1"], "--mnn-max-latency-ratio: "),
    ],
)
def test_what_can_not_be_asked_is_refused(refused: Callable[..., str], options: list[str], told: str) -> None:
    assert told in refused(MODEL, W8, *options)


def test_a_model_may_have_targets_of_its_own(run: Run, pytester: pytest.Pytester) -> None:
    path = pytester.path / "pyproject.toml"
    own = '\n[tool.mnnquant.models.net]\nsource = "net.py:build"\nrecipe = ["w8"]\ntarget = ["host", "mine"]\n'
    path.write_text(path.read_text(encoding="utf-8") + own, encoding="utf-8")
    found = run("--mnn-model=net", "-k", "execution")
    assert found.passed == {"w8::execution", "w8@mine::execution"}


@pytest.mark.usefixtures("arm")
def test_a_max_pool_as_this_host_runs_it_as_judged_and_on_arm(run: Run, pytester: pytest.Pytester) -> None:
    found = run(*DIGITS, HOST, ARM, "--mnn-report=r.json")
    assert found.passed == {f"int8-eval{at}::{check}" for at in ("", "@aarch64:cortex-a76")
                            for check in ("execution", "accuracy")}  # fmt: skip
    rows = {row["place"]: row for row in report(pytester)["places"]}
    reference, as_run, *judged = rows
    assert (reference, judged) == ("float", ["host", "aarch64:cortex-a76"])
    assert rows[as_run]["cosine"] < 0.995 < 0.999 < rows["host"]["cosine"]
    assert rows["aarch64:cortex-a76"]["cosine"] == pytest.approx(rows["host"]["cosine"], abs=1e-4)
    assert rows["aarch64:cortex-a76"]["steps"] <= 1.05
    assert "MNQ740" not in found.codes()


@pytest.mark.usefixtures("arm")
def test_an_operator_that_this_host_computes_otherwise_is_named(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if it were not known that x86 pools wrongly: the host is judged as it runs."""
    monkeypatch.setattr(arm_equivalent, "pools_right", lambda: True)
    found = run(*DIGITS, HOST, ARM, "-k", "accuracy")
    found.tells("MNQ740", where="MaxPool_output_0 (Pooling) on aarch64:cortex-a76")
    assert "MaxPool" in found.layers("MNQ740").pop()
    operators = found.checks[-1]["metrics"]["difference"]["operators"]
    assert {one["op"] for one in operators if one["steps"] > 1.05} == {"Pooling"}


def test_a_model_that_crashes_there_is_told_from_a_target_that_does(run: Run, pytester: pytest.Pytester) -> None:
    """As a runtime does that does not know how weights are stored: smaller models than the float one crash it."""
    script = pytester.path / "old.sh"
    script.write_text(
        f'size=$(stat -c %s "$1/model.mnn"); [ "$size" -gt 8000 ] || kill -FPE $$\nshift\n'
        f'exec {shlex.quote(sys.executable)} "$@"\n'
    )
    path = pytester.path / "pyproject.toml"
    table = f'\n[tool.mnnquant.targets.old]\ncommand = "sh {script} {{folder}}"\n'
    path.write_text(path.read_text(encoding="utf-8") + table, encoding="utf-8")
    found = run(MODEL, W8, HOST, "--mnn-target=old", "-k", "execution")
    assert (found.passed, found.failed) == ({"w8::execution"}, {"w8@old::execution"})
    found.tells("MNQ620", where="old: ", why="(w8)")


def test_outputs_are_judged_in_the_memory_mode_that_is_asked(run: Run, pytester: pytest.Pytester) -> None:
    cosines = []
    for mode in ("normal", "low"):
        found = run(MODEL, W8, HOST, MINE, "-k", "accuracy", f"--mnn-memory-mode={mode}", "--mnn-report=r.json")
        assert found.status == 0, found.text
        rows = {row["place"]: row for row in report(pytester)["places"]}
        assert rows["mine"]["steps"] == 0.0
        cosines.append(rows["host"]["cosine"])
    assert cosines[1] < cosines[0]  # The inputs of layers are quantized as they come.
