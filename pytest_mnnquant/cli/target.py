"""`pytest-mnnquant target add | check`: sets the emulator up, and says what works on a target."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from pathlib import Path
from typing import Final

from pytest_mnnquant.config.toml_file import read_targets
from pytest_mnnquant.runtime.jobs import NativeFailure
from pytest_mnnquant.targets.emulator import NAME, Emulator
from pytest_mnnquant.targets.emulator_setup import files_of, set_up
from pytest_mnnquant.targets.parse import target_named
from pytest_mnnquant.targets.self_test import checked
from pytest_mnnquant.targets.target import HOST, NoTarget

Tell = Callable[[str], None]
#: In seconds: for one download or unpacking, and for the runner on a target.
_SETTING_UP: Final = 600.0
_CHECKING: Final = 120.0


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    actions = parser.add_subparsers(dest="action", required=True)
    add = actions.add_parser("add", help="set the emulator up in the user's cache folder")
    add.add_argument("name", choices=(NAME,))
    add.add_argument("--mnn", type=_version, metavar="VERSION", help="MNN's runtime (default: as on this machine)")
    check = actions.add_parser("check", help="what works on a target")
    check.add_argument("name", help=f"such as {NAME}:cortex-a53, or one of the configuration")
    check.add_argument(
        "--config", type=Path, default=Path("pyproject.toml"), metavar="FILE", help="where [tool.mnnquant.targets] is"
    )


def do(given: argparse.Namespace, say: Tell, tell: Tell) -> int:
    """Add or check; `say` takes what was asked for, `tell` what went wrong. Returns the exit status."""
    try:
        return _add(given, say) if given.action == "add" else _check(given, say)
    except (NoTarget, NativeFailure, OSError) as error:
        tell(f"pytest-mnnquant: {error}")
    return 1


def _add(given: argparse.Namespace, say: Tell) -> int:
    emulator = Emulator(given.mnn)
    set_up(emulator, say, _SETTING_UP)
    files = sum(1 for _ in files_of(emulator))
    say(f"{emulator.folder}: {files} packages and wheels, each verified by its SHA-256; qemu is {emulator.qemu}")
    for line in checked(emulator.target(), _CHECKING):
        say(line)
    say(f"use it: pytest --mnn-target={HOST} --mnn-target={emulator.name} ...")
    return 0


def _check(given: argparse.Namespace, say: Tell) -> int:
    try:
        target = target_named(given.name, read_targets(given.config))
    except ValueError as error:
        raise NoTarget(str(error)) from None
    if target is None:
        say(f"{HOST}: this machine; accuracy, execution, latency, memory: yes")
        return 0
    for line in checked(target, _CHECKING):
        say(line)
    return 0


def _version(text: str) -> str:
    if not re.fullmatch(r"\d+(\.\d+)+", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a version; it reads like 3.6.1")
    return text
