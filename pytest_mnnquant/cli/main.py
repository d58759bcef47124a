"""`pytest-mnnquant inspect | diff | explain | history | target | convert | calibrate | reference | llmexport`.

Exit status. `inspect`: 0, or 1 if a file is broken or not as `--expect` requires; the worst one of several models.
`diff`: 0 for equal models, else 1. `history`: 0, or 1 if the storage has no runs. `target`: 0, or 1 if the target does
not work. `convert` and `calibrate`: 0 for a new, verified model, else 1, also for wrong arguments. All others: 2 for
files and arguments that can't be used.
"""

from __future__ import annotations

import argparse
import functools
import io
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from pytest_mnnquant.cli import explain, history, inspect_models, reference, target
from pytest_mnnquant.cli.calibrate import calibrate
from pytest_mnnquant.cli.convert import convert
from pytest_mnnquant.cli.inspect import difference, difference_text
from pytest_mnnquant.cli.llm_differences import export_difference, export_difference_text
from pytest_mnnquant.cli.llmexport import USAGE, llmexport
from pytest_mnnquant.cli.mnnconvert_flags import Refused
from pytest_mnnquant.findings.defaults import TIMEOUT
from pytest_mnnquant.llm.folder import read_folder
from pytest_mnnquant.llm.json_object import BadExport
from pytest_mnnquant.mnnfile.model import BadModel, read_model
from pytest_mnnquant.report.json_report import json_value
from pytest_mnnquant.report.width import shown
from pytest_mnnquant.runtime.jobs import NativeFailure
from pytest_mnnquant.sources.spec import describe

_ISSUES: Final = "report it: https://github.com/pytest-mnnquant/pytest-mnnquant/issues"
_CONVERT = f"""usage: pytest-mnnquant convert [--mnn-OPTION ...] ARGUMENTS OF MNNCONVERT

Run MNN's converter with its own arguments. The exit status is 0 only for a new model that matches these arguments.
  --mnn-skip-layer GLOB   a layer to keep float on purpose (repeatable)
  --mnn-timeout S         time limit for one native step, in seconds (default: {TIMEOUT:g})
"""
_CALIBRATE = f"""usage: pytest-mnnquant calibrate [--mnn-OPTION ...] SOURCE.mnn OUTPUT.mnn CONFIG.json

Run MNN's offline quantization tool with its own configuration. The exit status is 0 only for a verified int8 model.
  --mnn-skip-layer GLOB   a layer to keep float, in addition to those of skip_quant_op_names (repeatable)
  --mnn-timeout S         time limit for one native step, in seconds (default: {TIMEOUT:g})
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    for stream in (sys.stdout, sys.stderr):  # Names of files may not be in the terminal's encoding.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        return _run(arguments)
    except (BadModel, BadExport, OSError) as error:
        print(f"pytest-mnnquant: {shown(str(error))}", file=sys.stderr)
    except RecursionError:
        print("pytest-mnnquant: the file is nested too deeply", file=sys.stderr)
    except Exception as error:
        print(f"pytest-mnnquant: MNQ004: the command raised {shown(describe(error))}; {_ISSUES}", file=sys.stderr)
    return 1 if arguments[:1] in (["convert"], ["calibrate"]) else 2


def _run(arguments: list[str]) -> int:
    if arguments[:1] == ["convert"]:
        return _run_tool(convert, arguments[1:], _CONVERT)
    if arguments[:1] == ["calibrate"]:
        return _run_tool(calibrate, arguments[1:], _CALIBRATE)
    if arguments[:1] == ["llmexport"]:
        return _export(arguments[1:])
    parser = argparse.ArgumentParser(
        prog="pytest-mnnquant", description="Inspect, convert and quantize MNN models; explain rules."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    inspecting = commands.add_parser("inspect", help="show layers, storage, bits and bytes of models")
    inspect_models.add_options(inspecting)
    diff = commands.add_parser("diff", help="show the differences between two models")
    diff.add_argument("first", type=Path)
    diff.add_argument("second", type=Path)
    explaining = commands.add_parser("explain", help="show what a rule or a check means; without either: list all")
    explain.add_options(explaining)
    past = commands.add_parser("history", help="show metrics over all runs, and the commits that changed them")
    history.add_options(past)
    place = commands.add_parser("target", help="set up the ARM emulator, or check a target")
    target.add_options(place)
    storing = commands.add_parser(
        "reference", help="store what a language model predicts, for runs without its weights"
    )
    reference.add_options(storing)
    commands.add_parser("convert", help="run MNN's converter with its own arguments, and verify the model")
    commands.add_parser("llmexport", help="run an exporter of language models, and judge the export")
    commands.add_parser("calibrate", help="run mnnquant (SOURCE.mnn OUTPUT.mnn CONFIG.json), and verify the model")
    for command in (inspecting, diff, explaining, past):
        command.add_argument("--json", action="store_true", help="print JSON")
    given = parser.parse_args(arguments)
    try:
        return _COMMANDS[given.command](given)
    except BrokenPipeError:  # Such as `| head`: the rest of the output is not needed.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _export(arguments: list[str]) -> int:
    """Run an exporter of language models; errors go to stderr, and the exit status is then 1."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print(USAGE, end="")
        return int(not arguments)
    try:
        return llmexport(arguments)
    except Refused as refused:
        for reason in refused.reasons:
            print(f"pytest-mnnquant: {reason}", file=sys.stderr)
    except (NativeFailure, BadModel, OSError) as error:
        print(f"pytest-mnnquant: {error}", file=sys.stderr)
    return 1


def _run_tool(tool: Callable[..., int], arguments: list[str], usage: str) -> int:
    """Run one of MNN's tools; errors go to stderr, and the exit status is then always 1."""
    print_error = functools.partial(print, file=sys.stderr)
    wants_help = arguments[:1] in (["-h"], ["--help"])
    if wants_help or not arguments:
        print(usage, end="")
        if tool is calibrate or not arguments:
            return int(not arguments)
    try:
        rest, skip, timeout = _split_options(arguments)
        return tool(rest, skip, timeout, print, print_error)
    except Refused as refused:
        for reason in refused.reasons:
            print_error(f"pytest-mnnquant: {reason}")
    except NativeFailure as error:
        print_error(f"pytest-mnnquant: {error}")
    return 1


def _split_options(arguments: list[str]) -> tuple[list[str], tuple[str, ...], float]:
    """The arguments for the tool, and the values of this package's options: layers to skip, and the time limit."""
    rest, skip, timeout = [], [], TIMEOUT
    words = iter(arguments)
    for word in words:
        name, equals, value = word.partition("=")
        if name not in ("--mnn-skip-layer", "--mnn-timeout"):
            rest.append(word)
            continue
        value = value if equals else next(words, "")
        if name == "--mnn-skip-layer" and value:
            skip.append(value)
            continue
        try:
            timeout = float(value)
        except ValueError:
            timeout = 0.0
        if not timeout > 0 or name == "--mnn-skip-layer":
            raise Refused(f"{name} {value}: requires " + ("a glob" if "layer" in name else "a number of seconds"))
    return rest, tuple(skip), timeout


def _print_result(given: argparse.Namespace, value: Any, text: str) -> None:
    print(json.dumps(json_value(value), indent=1) if given.json else text)


def _inspect(given: argparse.Namespace) -> int:
    return inspect_models.run(given, print, functools.partial(print, file=sys.stderr))


def _diff(given: argparse.Namespace) -> int:
    if given.first.is_dir() and given.second.is_dir():
        export_changes = export_difference(read_folder(given.first), read_folder(given.second))
        _print_result(given, export_changes, export_difference_text(export_changes))
        return int(not export_changes["same"])
    changes = difference(read_model(given.first), read_model(given.second))
    _print_result(given, changes, difference_text(changes))
    return int(not changes["same"])


def _history(given: argparse.Namespace) -> int:
    return history.run(given, print, functools.partial(print, file=sys.stderr))


def _target(given: argparse.Namespace) -> int:
    return target.run(given, print, functools.partial(print, file=sys.stderr))


def _explain(given: argparse.Namespace) -> int:
    return explain.run(given, print, functools.partial(print, file=sys.stderr))


_COMMANDS: Final = {
    "inspect": _inspect,
    "diff": _diff,
    "explain": _explain,
    "history": _history,
    "target": _target,
    "reference": reference.run,
}


if __name__ == "__main__":
    raise SystemExit(main())
