"""`pytest-mnnquant inspect | diff | explain`: looking at models from a shell.

Exit status: `inspect` 0, or 1 when the file is broken or not what `--expect` says; `diff` 0 when equal and 1 when not;
2 for files and arguments that can't be used.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pytest_mnnquant.checks.rules import RULES
from pytest_mnnquant.mnnfile.model import BadModel, Model, read_model
from pytest_mnnquant.quantize.recipes import RECIPES
from pytest_mnnquant.report.inspection import difference, difference_text, inspection, inspection_text
from pytest_mnnquant.report.json_report import plain

_ENOUGH = 0.99


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status."""
    parser = argparse.ArgumentParser(prog="pytest-mnnquant", description="Look at MNN models and rules.")
    commands = parser.add_subparsers(dest="command", required=True)
    inspect = commands.add_parser("inspect", help="layers, storage, bits and bytes of a model")
    inspect.add_argument("model", type=Path)
    inspect.add_argument("--expect", choices=sorted(RECIPES), help="exit 1 unless 99 %% of the weights are stored so")
    diff = commands.add_parser("diff", help="what changed between two models")
    diff.add_argument("first", type=Path)
    diff.add_argument("second", type=Path)
    explain = commands.add_parser("explain", help="what a rule code means")
    explain.add_argument("code")
    for command in (inspect, diff, explain):
        command.add_argument("--json", action="store_true", help="write JSON")
    given = parser.parse_args(arguments)
    try:
        return {"inspect": _inspect, "diff": _diff, "explain": _explain}[given.command](given)
    except (BadModel, OSError) as error:
        print(f"pytest-mnnquant: {error}", file=sys.stderr)
        return 2


def _show(given: argparse.Namespace, value: Any, text: str) -> None:
    print(json.dumps(plain(value), indent=1) if given.json else text)


def _inspect(given: argparse.Namespace) -> int:
    model = read_model(given.model)
    found = inspection(model)
    _show(given, found, inspection_text(found))
    broken = bool(found["external_missing"]) or not all(layer["intact"] for layer in found["layers"])
    return int(broken or (given.expect is not None and _share(model, given.expect) < _ENOUGH))


def _share(model: Model, recipe: str) -> float:
    asked = RECIPES[recipe]
    total = sum(op.weight_count for op in model.layers)
    stored = sum(op.weight_count for op in model.layers if all(asked.stores(weights) for weights in op.weights))
    return stored / total if total else 0.0


def _diff(given: argparse.Namespace) -> int:
    found = difference(read_model(given.first), read_model(given.second))
    _show(given, found, difference_text(found))
    return int(not found["same"])


def _explain(given: argparse.Namespace) -> int:
    rule = RULES.get(given.code.upper())
    if rule is None:
        print(f"pytest-mnnquant: there is no rule {given.code!r}; known: {', '.join(RULES)}", file=sys.stderr)
        return 2
    text = f"{rule.code} {rule.name} ({rule.severity.value})\n{rule.meaning}"
    _show(given, {"code": rule.code, "name": rule.name, "severity": rule.severity.value, "meaning": rule.meaning}, text)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
