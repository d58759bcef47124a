"""The protocol: what is sent arrives, what comes back is what was made there, and each failure says whose it is.

A command of one's own stands for all targets; it reaches this machine's Python, at times by a detour that spoils it.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest

from pytest_mnnquant.mnnfile.model import Model
from pytest_mnnquant.quantize.prepared import Prepared
from pytest_mnnquant.quantize.variant import Variant
from pytest_mnnquant.runtime.inference import Arrays, run
from pytest_mnnquant.runtime.jobs import FailureKind
from pytest_mnnquant.runtime.options import RunOptions
from pytest_mnnquant.targets.parse import command_target
from pytest_mnnquant.targets.self_test import run_self_test
from pytest_mnnquant.targets.target import NoTarget, Target, TargetFailure
from tests.conftest import TIMEOUT
from tests.workshop import Workshop

PYTHON = shlex.quote(sys.executable)
Detour = Callable[[str], Target]


@pytest.fixture
def images(digits: Prepared) -> Arrays:
    assert digits.evaluation is not None
    return digits.evaluation.head(40)


@pytest.fixture
def detour(tmp_path: Path) -> Detour:
    """A target whose Python is reached by a shell script; `$@` is the runner and its job, `$1` the job's folder."""

    def write(script: str) -> Target:
        path = tmp_path / "elsewhere.sh"
        path.write_text(script.replace("PYTHON", PYTHON))
        return command_target("detour", {"command": f"sh {shlex.quote(str(path))} {{folder}}"})

    return write


def test_a_command_of_ones_own_runs_a_model_as_this_machine_does(digits_int8: Variant, images: Arrays) -> None:
    target = command_target("mine", {"command": PYTHON})
    there = run(digits_int8.model, images, RunOptions(TIMEOUT, send=target.send))
    here = run(digits_int8.model, images, RunOptions(TIMEOUT))
    np.testing.assert_array_equal(there.outputs["output"], here.outputs["output"])
    assert there.trace == here.trace
    assert there.machine is not None
    assert (there.machine.mnn, there.machine.traces_int8) == (version("mnn"), True)


def test_weights_beside_the_model_are_sent_too(workshop: Workshop, digits: Prepared, images: Arrays) -> None:
    model = workshop.quantized(digits.model, "--saveExternalData=1")
    assert model.external_path is not None
    ran = run(model, images, RunOptions(TIMEOUT, send=command_target("mine", {"command": PYTHON}).send))
    expected = run(digits.model, images, RunOptions(TIMEOUT)).outputs["output"]
    np.testing.assert_allclose(ran.outputs["output"], expected, rtol=1e-4, atol=1e-5)


def failure(target: Target, model: Model, images: Arrays, timeout: float = TIMEOUT) -> TargetFailure:
    with pytest.raises(TargetFailure) as error:
        run(model, images, RunOptions(timeout, send=target.send))
    assert error.value.target == "detour"
    assert str(error.value).startswith("detour: ")
    return error.value


@pytest.mark.parametrize(
    ("script", "kind", "name"),
    [
        ('shift; printf x >> "$(dirname "$1")/model.mnn"; exec PYTHON "$@"', FailureKind.REFUSED, "model.mnn"),
        ('shift; printf "#" >> "$1/session.py"; exec PYTHON "$@"', FailureKind.REFUSED, "programs/session.py"),
        ('rm "$1/input0.npy"; shift; exec PYTHON "$@"', FailureKind.REFUSED, "input0.npy"),
        ('f=$1; shift; PYTHON "$@"; printf x >> "$f/output0.npy"', FailureKind.BAD_ANSWER, "output0.npy"),
        ('f=$1; shift; PYTHON "$@"; rm "$f/output0.npy"', FailureKind.BAD_ANSWER, "output0.npy"),
        ("echo out of paper; exit 3", FailureKind.EXITED, "3"),
        ('kill -11 $$', FailureKind.CRASHED, "SIGSEGV"),
        ("echo '{}' > \"$1/result.json\"", FailureKind.BAD_ANSWER, ""),
        ("echo '[1]' > \"$1/result.json\"", FailureKind.BAD_ANSWER, ""),
        ("echo boom > \"$1/result.json\"", FailureKind.BAD_ANSWER, ""),
        ("echo '{\"error\": \"boom\"}' > \"$1/result.json\"", FailureKind.BAD_ANSWER, ""),
        ("echo '{\"error\": {\"kind\": \"boom\"}}' > \"$1/result.json\"", FailureKind.BAD_ANSWER, ""),
        ("echo '{\"files\": {}, \"machine\": {}}' > \"$1/result.json\"", FailureKind.BAD_ANSWER, ""),
        ('shift; exec PYTHON -S -I "$@"', FailureKind.MISSING_PACKAGE, ""),
    ],
)  # fmt: skip
def test_what_goes_wrong_on_the_way_is_reported(
    detour: Detour, digits_int8: Variant, images: Arrays, script: str, kind: FailureKind, name: str
) -> None:
    error = failure(detour(script), digits_int8.model, images)
    assert error.kind is kind
    assert name in error.what


@pytest.mark.parametrize("missing", ["numpy", "MNN"])
def test_a_package_that_is_missing_there(
    detour: Detour, digits_int8: Variant, images: Arrays, tmp_path: Path, missing: str
) -> None:
    (tmp_path / "without.py").write_text(
        "import runpy, sys\n\n\nclass Without:\n    def find_spec(self, name, *_):\n"
        f"        if name == {missing!r}:\n            raise ModuleNotFoundError(name, name=name)\n\n\n"
        "sys.meta_path.insert(0, Without())\nsys.argv.pop(0)\nrunpy.run_path(sys.argv[0], run_name='__main__')\n"
    )
    found = failure(detour(f'shift; exec PYTHON {tmp_path}/without.py "$@"'), digits_int8.model, images)
    assert (found.kind, missing in found.what) == (FailureKind.MISSING_PACKAGE, True)
    wanted = missing if missing == "numpy" else f"MNN=={version('mnn')}"
    assert f"pip install {wanted};" in found.fix


def test_another_version_of_mnn_is_refused_before_anything_runs(digits_int8: Variant, images: Arrays) -> None:
    other = command_target("detour", {"command": PYTHON, "mnn": "3.2.0"})
    found = failure(other, digits_int8.model, images)
    assert found.kind is FailureKind.WRONG_VERSION
    assert f"MNN {version('mnn')} " in found.what
    assert "install MNN 3.2.0" in found.fix
    assert 'mnn = "VERSION" in [tool.mnnquant.targets.detour]' in found.fix


def test_a_hanging_target_is_given_up(detour: Detour, digits_int8: Variant, images: Arrays) -> None:
    found = failure(detour("sleep 600"), digits_int8.model, images, timeout=0.5)
    assert found.kind is FailureKind.TIMED_OUT


def test_what_it_printed_is_shown(detour: Detour, digits_int8: Variant, images: Arrays) -> None:
    printed = failure(detour("echo paper-is-out; exit 1"), digits_int8.model, images)
    assert "paper-is-out" in str(printed)


def test_a_program_that_is_not_there(digits_int8: Variant, images: Arrays) -> None:
    far = command_target("far", {"command": "no-such-program {folder}"})
    with pytest.raises(TargetFailure, match="no-such-program") as error:
        run(digits_int8.model, images, RunOptions(TIMEOUT, send=far.send))
    assert error.value.kind is FailureKind.NOT_STARTED


@pytest.mark.parametrize(("text", "told"), [("", "is empty"), ("sh 'x", "No closing quotation")])
def test_a_command_that_is_none(text: str, told: str) -> None:
    with pytest.raises(NoTarget, match=told):
        command_target("far", {"command": text})


def test_a_check_runs_a_model_and_looks_at_its_answer(detour: Detour) -> None:
    lines = list(run_self_test(command_target("mine", {"command": PYTHON}), TIMEOUT))
    assert lines[0].startswith("mine: ")
    assert "  execution: yes" in lines
    with pytest.raises(TargetFailure) as error:
        list(run_self_test(detour("exit 1"), TIMEOUT))
    assert error.value.kind is FailureKind.EXITED
