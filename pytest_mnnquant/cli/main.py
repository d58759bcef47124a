"""`pytest-mnnquant inspect | diff | explain | history | target | convert | calibrate`, from a shell.

Exit status: `inspect` 0, or 1 when the file is broken or not what `--expect` says; `diff` 0 when equal and 1 when not;
`history` 0, or 1 when the storage holds no run; `target` 0, or 1 when it does not work; `convert` and `calibrate` 0 for
a new model that was verified, 1 for everything else, wrong arguments included; else 2 for files and arguments that
can't be used.
"""

from __future__ import annotations

import argparse
import functools
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from pytest_mnnquant.cli import history, target
from pytest_mnnquant.cli.calibrate import calibrate
from pytest_mnnquant.cli.convert import convert
from pytest_mnnquant.cli.inspect import difference, difference_text, inspection, inspection_text
from pytest_mnnquant.cli.llm_tables import (
    export_content,
    export_difference,
    export_difference_text,
    export_text,
    is_broken,
)
from pytest_mnnquant.cli.mnnconvert_flags import Refused
from pytest_mnnquant.findings.catalogue import RULES
from pytest_mnnquant.findings.defaults import COVERAGE, TIMEOUT
from pytest_mnnquant.llm.folder import read_folder
from pytest_mnnquant.mnnfile.model import BadModel, Model, read_model
from pytest_mnnquant.recipes.names import recipe_named
from pytest_mnnquant.recipes.recipe import Recipe
from pytest_mnnquant.report.json_report import json_value
from pytest_mnnquant.report.pages import rule_page
from pytest_mnnquant.runtime.jobs import NativeFailure

_CONVERT = f"""usage: pytest-mnnquant convert [options of ours] ARGUMENTS OF MNNCONVERT

Run MNN's converter with its own arguments, and exit 0 only for a new model that is what they ask for.
  --mnn-skip-layer GLOB   repeatable: a layer meant to stay float
  --mnn-timeout S         limit for one native step ({TIMEOUT:g})
"""
_CALIBRATE = f"""usage: pytest-mnnquant calibrate [options of ours] SOURCE.mnn OUTPUT.mnn CONFIG.json

Run MNN's offline quantization tool with its own configuration, and exit 0 only for a new int8 model.
  --mnn-skip-layer GLOB   repeatable: a layer meant to stay float, beside those of skip_quant_op_names
  --mnn-timeout S         limit for one native step ({TIMEOUT:g})
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    if arguments[:1] == ["convert"]:
        return _run_tool(convert, arguments[1:], _CONVERT)
    if arguments[:1] == ["calibrate"]:
        return _run_tool(calibrate, arguments[1:], _CALIBRATE)
    parser = argparse.ArgumentParser(prog="pytest-mnnquant", description="Look at MNN models and rules.")
    commands = parser.add_subparsers(dest="command", required=True)
    inspect = commands.add_parser("inspect", help="layers, storage, bits and bytes of a model")
    inspect.add_argument("model", type=Path)
    inspect.add_argument(
        "--expect",
        type=recipe_named,
        metavar="RECIPE",
        help=f"exit 1 unless {100 * COVERAGE:g} %% of the weights are stored so",
    )
    diff = commands.add_parser("diff", help="what changed between two models")
    diff.add_argument("first", type=Path)
    diff.add_argument("second", type=Path)
    explain = commands.add_parser("explain", help="what a rule code means")
    explain.add_argument("code")
    past = commands.add_parser("history", help="figures over all runs, and the commits that moved them")
    history.add_options(past)
    place = commands.add_parser("target", help="places to judge models on: set the ARM emulator up, see what works")
    target.add_options(place)
    commands.add_parser("convert", help="mnnconvert, verified: takes its arguments")
    commands.add_parser("calibrate", help="mnnquant, verified: SOURCE.mnn OUTPUT.mnn CONFIG.json")
    for command in (inspect, diff, explain, past):
        command.add_argument("--json", action="store_true", help="write JSON")
    given = parser.parse_args(arguments)
    try:
        return _COMMANDS[given.command](given)
    except (BadModel, OSError) as error:
        print(f"pytest-mnnquant: {error}", file=sys.stderr)
        return 2


def _run_tool(tool: Callable[..., int], arguments: list[str], usage: str) -> int:
    """Run one of MNN's tools; what is wrong goes to stderr, and is always status 1."""
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
    except (NativeFailure, BadModel, OSError) as error:
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
            raise Refused(f"{name} {value}: it needs " + ("a glob" if "layer" in name else "a number of seconds"))
    return rest, tuple(skip), timeout


def _print_result(given: argparse.Namespace, value: Any, text: str) -> None:
    print(json.dumps(json_value(value), indent=1) if given.json else text)


def _inspect(given: argparse.Namespace) -> int:
    if given.model.is_dir():
        folder = read_folder(given.model)
        _print_result(given, export_content(folder), export_text(folder))
        return int(is_broken(folder))
    model = read_model(given.model)
    content = inspection(model)
    _print_result(given, content, inspection_text(content))
    broken = bool(content["external_missing"]) or not all(layer["intact"] for layer in content["layers"])
    return int(broken or (given.expect is not None and _share(model, given.expect) < COVERAGE))


def _share(model: Model, recipe: Recipe) -> float:
    total = sum(op.weight_count for op in model.layers)
    stored = sum(op.weight_count for op in model.layers if all(recipe.stores(weights) for weights in op.weights))
    return stored / total if total else 0.0


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
    requested = given.code.upper()
    rule = RULES.get(requested) or next((rule for rule in RULES.values() if rule.name == given.code.lower()), None)
    if rule is None:
        known = [code for code in RULES if code.startswith(requested)] or list(RULES)
        print(f"pytest-mnnquant: there is no rule {given.code!r}; known: {', '.join(known)}", file=sys.stderr)
        return 2
    page = rule_page(rule.code)
    text = page or f"# {rule.code} {rule.name}\n\n{rule.severity.value}, since {rule.since}\n\n{rule.meaning}"
    facts = {"code": rule.code, "name": rule.name, "severity": rule.severity.value, "meaning": rule.meaning}
    _print_result(given, {**facts, "since": rule.since, "page": page or None}, text.rstrip())
    return 0


_COMMANDS: Final = {"inspect": _inspect, "diff": _diff, "explain": _explain, "history": _history, "target": _target}

if __name__ == "__main__":
    raise SystemExit(main())
