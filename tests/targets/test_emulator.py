"""The real thing: MNN's aarch64 wheel under qemu-user, and what is told where it is not there."""

from __future__ import annotations

import re
from importlib.metadata import version
from pathlib import Path

import pytest

from pytest_mnnquant.quantize.prepared import Prepared
from pytest_mnnquant.quantize.variant import Variant
from pytest_mnnquant.runtime.inference import run
from pytest_mnnquant.runtime.options import RunOptions
from pytest_mnnquant.targets.emulator import Emulator, emulator_target
from pytest_mnnquant.targets.emulator_setup import files_of
from pytest_mnnquant.targets.parse import is_reserved, target_named
from pytest_mnnquant.targets.self_test import run_self_test
from pytest_mnnquant.targets.target import NoTarget, Target
from tests.conftest import TIMEOUT
from tests.golden_text import check_golden


def test_arm_kernels_run_and_are_what_the_processor_has(
    arm: Target, digits: Prepared, digits_int8: Variant, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert digits.evaluation is not None
    inputs = digits.evaluation.head(64)
    monkeypatch.setenv("PYTHONHOME", "/nowhere")  # This machine's settings of Python are not its.
    there = run(digits_int8.model, inputs, RunOptions(TIMEOUT, send=arm.send))
    monkeypatch.undo()
    here = run(digits_int8.model, inputs, RunOptions(TIMEOUT))
    assert there.machine is not None
    host = there.machine.host
    assert (host.machine, host.used, there.machine.mnn) == ("aarch64", ("dotprod",), version("mnn"))
    assert there.trace is not None
    assert sum(op.int8 for op in there.trace) == sum(op.int8 for op in here.trace or ())
    # The same integers, but for a code here and there that was rounded to the other side.
    assert (there.outputs["output"].argmax(1) == here.outputs["output"].argmax(1)).mean() > 0.95


def test_each_processor_has_kernels_of_its_own(emulator: Emulator) -> None:
    for cpu, kernels in (("cortex-a53", "none"), ("max", "dotprod, i8mm")):
        lines = list(run_self_test(emulator.target(cpu), TIMEOUT))
        text = re.sub(r"[\d.]+ s; numpy [\d.]+", "N s; numpy N", "\n".join(lines[1:]))
        check_golden("targets/a-check-of-an-emulator", text, kernels=kernels)


def test_all_that_was_unpacked_is_listed_with_its_hash(emulator: Emulator) -> None:
    files = dict(files_of(emulator))
    assert any(name.startswith("mnn-") and name.endswith(".whl") for name in files)
    assert any(name.startswith("libc6_") for name in files)
    assert {len(digest) for digest in files.values()} == {64}


def test_a_processor_that_qemu_does_not_know(emulator: Emulator) -> None:
    with pytest.raises(NoTarget, match=r"'pentium'.*cortex-a76"):
        target_named("aarch64:pentium", {})


def test_what_is_not_set_up_names_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for name, command in (("aarch64", "add aarch64"), ("aarch64-3.0.0:max", "add aarch64 --mnn 3.0.0")):
        with pytest.raises(NoTarget, match=f"not set up.*pytest-mnnquant target {command}$"):
            target_named(name, {})


def test_names() -> None:
    assert target_named("host", {}) is None
    own = target_named("board", {"board": {"command": "reach board python3"}})
    assert own is not None
    assert (own.name, own.emulated) == ("board", False)
    assert emulator_target("aarch32") is None
    with pytest.raises(NoTarget, match=r"'phone'.*; configured: board"):
        target_named("phone", {"board": {"command": "x"}})
    assert all(map(is_reserved, ("host", "aarch64", "aarch64-board", "a:b", "a@b", "a b", "")))
    assert not is_reserved("board")
