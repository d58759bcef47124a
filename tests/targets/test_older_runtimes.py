"""What today's converter makes, on the runtimes of older apps: section G of the failure modes.

They are skipped where those releases are not there: `python -m tests.faults.corpus.wheels FOLDER` installs them for
this machine, `pytest-mnnquant target add aarch64 --mnn VERSION` for ARM.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator

import pytest

from pytest_mnnquant.cache.store import Store
from pytest_mnnquant.config.settings import model_settings
from pytest_mnnquant.evidence.check_runner import run_check
from pytest_mnnquant.evidence.source import SourceUnderTest
from pytest_mnnquant.evidence.target_variant import on_target
from pytest_mnnquant.evidence.variant import VariantUnderTest, variant_under_test
from pytest_mnnquant.findings.finding import FAILED, PASSED, Finding, Result
from pytest_mnnquant.sources.spec import parse_spec
from pytest_mnnquant.targets.emulator import Emulator
from pytest_mnnquant.targets.parse import command_target
from pytest_mnnquant.targets.target import Target, installed_mnn
from tests.conftest import FIXTURES, quietly
from tests.faults.corpus.tools import wheels
from tests.faults.corpus.wheels import VERSIONS, lacking


def older(version: str) -> Target:
    """An older MNN on this machine."""
    if why := lacking(version):
        pytest.skip(why)
    command = f"env PYTHONPATH={shlex.quote(str(wheels() / version))} {shlex.quote(sys.executable)}"
    return command_target(f"x86-{version}", {"command": command, "mnn": version})


@pytest.fixture(scope="module")
def old_arm() -> Iterator[Target]:
    """MNN 3.0.0 on ARM."""
    emulator = Emulator("3.0.0")
    if emulator.missing:
        pytest.skip(f"not set up, there is no {emulator.missing}: {emulator.add_command}")
    target = emulator.target("cortex-a76")
    yield target
    target.close()


def gate(store: Store, memory_mode: str = "normal") -> SourceUnderTest:
    spec = parse_spec("digits_cnn.py:build", FIXTURES)
    settings = model_settings(spec.text, "digits", FIXTURES, {"memory_mode": memory_mode})
    return SourceUnderTest(settings, spec, store, quietly)


def judged(home: VariantUnderTest, target: Target) -> tuple[Result, Result]:
    case = on_target(home, target)
    return run_check(case, "execution"), run_check(case, "accuracy")


def error(result: Result, code: str) -> Finding:
    assert result.outcome == FAILED
    return next(finding for finding in result.findings if finding.code == code)


@pytest.mark.parametrize("version", VERSIONS)
def test_weights_only_run_there_as_here(store: Store, version: str) -> None:
    """Unless the app asks for memory mode low: they are unpacked when the model is loaded."""
    execution, accuracy = judged(variant_under_test(gate(store), "w8", None), older(version))
    assert (execution.outcome, accuracy.outcome, accuracy.findings) == (PASSED, PASSED, ())


def test_blocks_of_weights_in_memory_mode_low(store: Store) -> None:
    home = variant_under_test(gate(store, "low"), "w4b32", None)
    _, accuracy = judged(home, older("3.0.0"))
    found = error(accuracy, "MNQ701")
    assert found.layer == "output__matmul_converted"
    assert {"target-has-other-runtime", "operator-differs-on-target"} <= {*found.cause_id.split("+")}
    assert all(f"MNN {version}" in found.cause_text for version in ("3.0.0", installed_mnn()))
    assert f"ship MNN {installed_mnn()}" in found.fix
    assert "--mnn-recipe=w4b32-sym" in found.fix
    assert run_check(home, "accuracy").outcome == PASSED


def test_asymmetric_weights_in_memory_mode_low_on_arm(store: Store, old_arm: Target) -> None:
    """The remedy is tried: symmetric weights pass."""
    low = gate(store, "low")
    found = error(judged(variant_under_test(low, "w8", None), old_arm)[1], "MNQ701")
    assert found.layer == "/features/features.0/Conv_output_0"
    assert "--mnn-recipe=w8-sym" in found.fix
    assert judged(variant_under_test(low, "w8-sym", None), old_arm)[1].outcome == PASSED


@pytest.mark.parametrize("version", VERSIONS)
def test_scales_that_it_does_not_know_crash_it(store: Store, version: str) -> None:
    found = error(judged(variant_under_test(gate(store), "w8-scale16", None), older(version))[0], "MNQ620")
    assert "SIGFPE" in found.message
    assert {"storage-crashes-runtime", "target-has-other-runtime"} <= {*found.cause_id.split("+")}
    assert "(w8 with 16-bit" in found.cause_text
    assert all(f"MNN {one}" in found.cause_text for one in (version, installed_mnn()))
    assert f"MNN {version}," in found.fix


def test_a_max_pool_there_is_the_one_of_x86(store: Store) -> None:
    """It is judged as that runtime computes it, on that machine; on ARM it is right."""
    execution, accuracy = judged(variant_under_test(gate(store), "int8", "eval"), older("3.2.0"))
    assert "trace of MNN 3.2.0" in execution.reason
    (found,) = [finding for finding in accuracy.findings if finding.code == "MNQ740"]
    assert found.layer.endswith("MaxPool_output_0")
    assert "on x86-3.2.0" in found.message
    assert "max-pool-compares-signed" in found.cause_id.split("+")
