"""`pytest-mnnquant inspect`: describes models and language model exports, and compares models with a recipe."""

from __future__ import annotations

import argparse
import json
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pytest_mnnquant.cli.inspect import inspection, inspection_text
from pytest_mnnquant.cli.llm_tables import compare_with_recipe, export_content, export_text, is_broken
from pytest_mnnquant.cli.source_formats import other_format
from pytest_mnnquant.findings.defaults import COVERAGE
from pytest_mnnquant.llm.folder import ExportFolder, read_folder
from pytest_mnnquant.mnnfile.model import BadModel, Model, read_model
from pytest_mnnquant.recipes.names import recipe_named
from pytest_mnnquant.recipes.recipe import Recipe
from pytest_mnnquant.report.json_report import json_value
from pytest_mnnquant.report.width import shown

Print = Callable[[str], None]


@dataclass(frozen=True)
class _Inspection:
    """One model: its values for JSON, its text, and the exit status that it causes."""

    content: dict[str, Any]
    text: str
    status: int


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument(
        "models", type=Path, nargs="+", metavar="MODEL", help="a .mnn file, or the folder of a language model's export"
    )
    parser.add_argument(
        "--expect",
        type=recipe_named,
        metavar="RECIPE",
        help=f"exit 1 unless at least {100 * COVERAGE:g} %% of the weights are stored as this recipe requests",
    )


def run(given: argparse.Namespace, print_line: Print, print_error: Print) -> int:
    """Describe each model; returns the worst exit status: 0, 1 (broken or not as expected) or 2 (not readable).

    JSON is one object for one model and a list for several; an unreadable model has only `path` and `error`.
    """
    inspections = [_inspect_or_fail(path, given.expect, print_error) for path in given.models]
    if not given.json:
        texts = [result.text for result in inspections if result.text]
        if texts:
            print_line("\n\n".join(texts))
    elif len(inspections) > 1:
        print_line(json.dumps([json_value(result.content) for result in inspections], indent=1))
    elif inspections[0].text:
        print_line(json.dumps(json_value(inspections[0].content), indent=1))
    return max(result.status for result in inspections)


def _inspect_or_fail(path: Path, expected: Recipe | None, print_error: Print) -> _Inspection:
    try:
        return _inspect(path, expected)
    except BadModel as error:
        what = _other_file(path) or str(error)
        print_error(f"pytest-mnnquant: {shown(what)}")
        return _Inspection({"path": str(path), "error": what}, "", 2)
    except OSError as error:
        print_error(f"pytest-mnnquant: {shown(str(error))}")
        return _Inspection({"path": str(path), "error": str(error)}, "", 2)


def _other_file(path: Path) -> str:
    """That a file is a model of another framework, with the command that converts it; empty if it is not."""
    kind = other_format(path, "MNN") if path.is_file() and path.stat().st_size else ""
    if kind not in ("ONNX", "TFLITE"):
        return ""
    name, output = shlex.quote(str(path)), shlex.quote(path.with_suffix(".mnn").name)
    command = f"pytest-mnnquant convert -f {kind} --modelFile {name} --MNNModel {output}"
    return f"{path} is a model of {kind}, and inspect reads models of MNN; convert it: {command}"


def _inspect(path: Path, expected: Recipe | None) -> _Inspection:
    if path.is_dir():
        return _inspect_export(read_folder(path), expected)
    model = read_model(path)
    content = inspection(model)
    text = inspection_text(content)
    fails = bool(content["external_missing"]) or not all(layer["intact"] for layer in content["layers"])
    if expected is not None:
        share = _share(model, expected)
        fails = fails or share < COVERAGE
        content["expected"] = {"recipe": expected.name, "share": share, "required": COVERAGE}
        text += f"\nexpected {expected.name}: {_comparison(model, expected, share)}"
    return _Inspection(content, text, int(fails))


def _inspect_export(folder: ExportFolder, expected: Recipe | None) -> _Inspection:
    content, text, fails = export_content(folder), export_text(folder), is_broken(folder)
    if expected is not None:
        share, line = compare_with_recipe(folder, expected, COVERAGE)
        fails = fails or share < COVERAGE
        content["expected"] = {"recipe": expected.name, "share": share, "required": COVERAGE}
        text += f"\n{line}"
    return _Inspection(content, text, int(fails))


def _share(model: Model, recipe: Recipe) -> float:
    """The share of the weights that are stored as the recipe requests; 0 for a model without weights."""
    total = sum(op.weight_count for op in model.layers)
    stored = sum(op.weight_count for op in model.layers if all(recipe.stores(weights) for weights in op.weights))
    return stored / total if total else 0.0


def _comparison(model: Model, recipe: Recipe, share: float) -> str:
    """The share, the required share, and the largest layer that is stored differently."""
    numbers = f"{share:.1%} of the weights, required {COVERAGE:.1%}"
    if share >= COVERAGE:
        return f"ok, {numbers}"
    others = [op for op in model.layers if not all(recipe.stores(weights) for weights in op.weights)]
    if not others:
        return f"FAILED, {numbers}: the model has no weights"
    largest = max(others, key=lambda op: op.weight_count)
    more = f" (and {len(others) - 1} other layers)" if len(others) > 1 else ""
    return f"FAILED, {numbers}: {shown(largest.name)} is stored as {largest.weights[0].label}{more}"
