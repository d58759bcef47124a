"""MNN's aarch64 wheel on this machine, under qemu-user: what its ARM kernels compute. Its timing says nothing.

    python benchmarks/arm.py [FOLDER]

Sets the emulator of the target `aarch64` up in FOLDER (default: where `pytest-mnnquant target add aarch64` has it) and
says what MNN finds on each processor. What is there already is kept.
"""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy.typing as npt

from pytest_mnnquant.mnnfile.model import read_model
from pytest_mnnquant.runtime.inference import run
from pytest_mnnquant.runtime.options import RunOptions
from pytest_mnnquant.targets.emulator import CPUS, NAME, Emulator, cache_folder
from pytest_mnnquant.targets.emulator_setup import set_up as set_emulator_up
from pytest_mnnquant.targets.self_test import run_self_test

__all__ = ["CPUS", "FOLDER", "python_on", "run_on_arm", "set_up"]
FOLDER: Final = cache_folder() / NAME
TIMEOUT: Final = 900.0
Arrays = Mapping[str, npt.NDArray[Any]]


def set_up(folder: Path) -> Path:
    """Make FOLDER hold all that is needed; returns it, absolute. Raises `NoTarget`."""
    folder = folder.resolve()
    set_emulator_up(Emulator(folder=folder), print, TIMEOUT)
    return folder


def python_on(folder: Path, cpu: str) -> Path:
    """The ARM Python as a program of this machine, on a processor of `CPUS`. Raises `NoTarget`."""
    program = folder / f"python-{cpu}"
    program.write_text(
        f'#!/bin/sh\nexec {shlex.join(Emulator(folder=folder).python_command(cpu))} "$@"\n', encoding="utf-8"
    )
    program.chmod(0o755)
    return program


def run_on_arm(folder: Path, model_path: Path, inputs: Arrays, cpu: str) -> dict[str, npt.NDArray[Any]]:
    """A model's outputs by name on all samples, as MNN computes them on this processor.

    `inputs` are named as the model names them; their first axis counts samples. Raises `NoTarget` or `NativeFailure`.
    """
    target = Emulator(folder=folder).target(cpu)
    return dict(run(read_model(model_path), inputs, RunOptions(TIMEOUT, send=target.send)).outputs)


def main() -> None:
    """Set up, and show what MNN finds on each processor."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", default=FOLDER)
    folder = set_up(parser.parse_args().folder)
    for cpu in CPUS:
        print("\n".join(run_self_test(Emulator(folder=folder).target(cpu), TIMEOUT)))


if __name__ == "__main__":
    main()
