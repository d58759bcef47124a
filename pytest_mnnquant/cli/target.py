"""`pytest-mnnquant target add | check`: sets the emulator up, and shows which features work on a target."""

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
from pytest_mnnquant.targets.self_test import run_self_test
from pytest_mnnquant.targets.target import HOST, NoTarget

Print = Callable[[str], None]
#: Time limits in seconds: for one download or unpacking, and for one job on a target.
_SETUP_TIMEOUT: Final = 600.0
_CHECK_TIMEOUT: Final = 120.0


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    actions = parser.add_subparsers(dest="action", required=True)
    add = actions.add_parser("add", help="set the emulator up in the user's cache folder")
    add.add_argument("name", choices=(NAME,))
    add.add_argument(
        "--mnn", type=_version, metavar="VERSION", help="version of MNN's runtime (default: that of this machine)"
    )
    check = actions.add_parser("check", help="show which checks a target supports")
    check.add_argument("name", help=f"a target such as {NAME}:cortex-a53, or a name from the configuration")
    check.add_argument(
        "--config",
        type=Path,
        default=Path("pyproject.toml"),
        metavar="FILE",
        help="file with [tool.mnnquant.targets] (default: %(default)s)",
    )


def run(arguments: argparse.Namespace, print_line: Print, print_error: Print) -> int:
    """Add or check a target. Returns the exit status."""
    try:
        return _add_target(arguments, print_line) if arguments.action == "add" else _check_target(arguments, print_line)
    except (NoTarget, NativeFailure, OSError) as error:
        print_error(f"pytest-mnnquant: {error}")
    return 1


def _add_target(arguments: argparse.Namespace, print_line: Print) -> int:
    emulator = Emulator(arguments.mnn)
    set_up(emulator, print_line, _SETUP_TIMEOUT)
    files = sum(1 for _ in files_of(emulator))
    print_line(f"{emulator.folder}: {files} packages and wheels, each verified by its SHA-256; qemu is {emulator.qemu}")
    for line in run_self_test(emulator.target(), _CHECK_TIMEOUT):
        print_line(line)
    print_line(f"use it with: pytest --mnn-target={HOST} --mnn-target={emulator.name} ...")
    return 0


def _check_target(arguments: argparse.Namespace, print_line: Print) -> int:
    try:
        target = target_named(arguments.name, read_targets(arguments.config))
    except ValueError as error:
        raise NoTarget(str(error)) from None
    if target is None:
        print_line(f"{HOST}: this machine; accuracy, execution, latency, memory: yes")
        return 0
    for line in run_self_test(target, _CHECK_TIMEOUT):
        print_line(line)
    return 0


def _version(text: str) -> str:
    if not re.fullmatch(r"\d+(\.\d+)+", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a version; expected e.g. 3.6.1")
    return text
