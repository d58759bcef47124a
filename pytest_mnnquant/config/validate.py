"""Refuses settings that contradict each other or name missing things; each error is one clear line."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from pytest_mnnquant.checks.accuracy.task_metric import NO_LIMIT
from pytest_mnnquant.config.evaluation_text import require_text
from pytest_mnnquant.config.settings import ModelSettings
from pytest_mnnquant.findings.catalogue import NOT_IGNORABLE, RULES
from pytest_mnnquant.findings.defaults import RECIPES
from pytest_mnnquant.llm.folder import is_export
from pytest_mnnquant.recipes.names import recipe_named
from pytest_mnnquant.recipes.recipe import PipelineRecipe, is_exporter
from pytest_mnnquant.sources.folders import undeclared_form
from pytest_mnnquant.sources.metric import load_metric
from pytest_mnnquant.sources.spec import SourceError, absence, is_graph_of_export, parse_spec
from pytest_mnnquant.sources.state_names import require_known_names


def validate_models(models: Sequence[ModelSettings]) -> None:
    """Refuse models that can't be tested, alone or together. Raises `ValueError` or `SourceError`."""
    duplicate = _first_duplicate([model.name for model in models])
    if duplicate is not None:
        raise ValueError(
            f"--mnn-model: two models have the name {duplicate!r}; give each its own: --mnn-model NAME=SPEC"
        )
    for model in models:
        _validate_model(model)


def _validate_model(model: ModelSettings) -> None:
    for code in model.ignore:
        _validate_ignored(code)
    _validate_quantized(model)
    _validate_recipes(model)
    _validate_export(model)
    _validate_latency_reference(model)
    _validate_metric(model)
    if model.source:
        require_known_names(model.states, parse_spec(model.source, model.base))
    if model.evaluation is not None and model.source and parse_spec(model.source, model.base).is_checkpoint:
        require_text("--mnn-evaluation", model.evaluation, model.base)
        return
    for option, text in (("--mnn-calibration", model.calibration), ("--mnn-evaluation", model.evaluation)):
        if text is not None:
            _validate_data(option, text, model)


def _validate_ignored(code: str) -> None:
    """Refuse what is neither a rule's code nor a prefix of some codes. Raises `ValueError`."""
    if not re.fullmatch(r"MNQ\d+", code) or not any(known.startswith(code) for known in RULES):
        raise ValueError(
            f"--mnn-ignore: {code!r} is neither a rule code nor a prefix of one; expected e.g. MNQ710 or MNQ71"
        )
    if code in NOT_IGNORABLE:
        raise ValueError(f"--mnn-ignore: {code} can't be ignored: it reports a missing model or missing evidence")


def _validate_quantized(model: ModelSettings) -> None:
    if model.quantized is None and model.params is not None:
        raise ValueError("--mnn-params: requires --mnn-quantized")
    if model.quantized is not None and len(model.recipes) > 1:
        raise ValueError("--mnn-quantized: requires exactly one --mnn-recipe, the precision expected of the file")


def _validate_export(model: ModelSettings) -> None:
    """A checkpoint requires an export, and an export a checkpoint. Raises `ValueError`."""
    source = parse_spec(model.source, model.base) if model.source else None
    path = None if model.quantized is None else model.base / model.quantized
    exporters = [recipe for name in model.recipes if is_exporter(recipe := recipe_named(name))]
    if source is not None and source.is_checkpoint:
        if path is None and len(exporters) == len(model.recipes) == 1:
            return
        if path is None:
            raise ValueError(
                f"--mnn-model: {model.source} is a checkpoint; give its export: --mnn-quantized FOLDER, or a single "
                "pipeline that makes it: --mnn-recipe file.py:callable@llm-w4b64"
            )
        if path.exists() and not is_export(path):
            is_inside = is_graph_of_export(path) or is_export(path.parent)
            folder = "give its folder" if is_inside else "a folder with llm_config.json is expected"
            raise ValueError(f"--mnn-quantized: {model.quantized} is not an export of a language model: {folder}")
        _validate_export_recipe(model)
    elif exporters and source is not None:
        raise ValueError(
            f"--mnn-recipe: {exporters[0].name} exports a language model; give the folder of its checkpoint as "
            "--mnn-model"
        )
    elif path is not None and (path.is_dir() or is_graph_of_export(path)):
        raise ValueError(
            f"--mnn-quantized: {model.quantized} is an export of a language model; give the folder of its checkpoint "
            "as --mnn-model"
            if is_export(path) or is_graph_of_export(path)
            else f"--mnn-quantized: {model.quantized} is a folder; a .mnn file is expected"
        )


def _validate_latency_reference(model: ModelSettings) -> None:
    """Only the export of a language model has one, and it is another export. Raises `ValueError`, `SourceError`."""
    name = model.latency_reference
    if name is None:
        return
    if not (model.source and parse_spec(model.source, model.base).is_checkpoint):
        raise ValueError("--mnn-latency-reference: only for the export of a language model; others have a float model")
    _require_file("--mnn-latency-reference", name, model.base)
    if not is_export(model.base / name):
        raise ValueError(f"--mnn-latency-reference: {name}: a folder with llm_config.json is expected")


def _validate_export_recipe(model: ModelSettings) -> None:
    recipe = recipe_named(model.recipes[0])
    if model.recipes != RECIPES and (recipe.activations or isinstance(recipe, PipelineRecipe)):
        raise ValueError(f"--mnn-recipe: {recipe.name} is not a form of weights; for an export give e.g. w4b64")


def _validate_recipes(model: ModelSettings) -> None:
    recipes = [recipe_named(name) for name in model.recipes]
    duplicate = _first_duplicate([recipe.name for recipe in recipes])
    if duplicate is not None:
        raise ValueError(
            f"--mnn-recipe: two recipes have the name {duplicate!r}; "
            "give each its own: --mnn-recipe NAME=file.py:callable"
        )
    for recipe in recipes:
        if isinstance(recipe, PipelineRecipe):
            _require_file("--mnn-recipe", recipe.pipeline, model.base)


def _validate_metric(model: ModelSettings) -> None:
    limits = model.limits
    metric = None if limits.metric is None else load_metric(limits.metric, model.base)
    limits.validate("--mnn-max-accuracy-drop")
    if metric is None or metric.is_share or metric.default_drop is not None:
        return
    if limits.max_accuracy_drop is None and limits.min_accuracy_ratio is None:
        raise ValueError(NO_LIMIT.format(metric=limits.metric))


def _validate_data(option: str, text: str, model: ModelSettings) -> None:
    _require_file(option, text, model.base)
    if (model.base / text).is_dir() and (problem := undeclared_form(model.base / text, model.preprocess, text)):
        raise ValueError(problem)


def _require_file(option: str, text: str, base: Path) -> None:
    place = text.rpartition(":")[0] if ".py:" in text else text
    if not ((base / place).is_file() or (base / place).is_dir()):  # A pipe and a device have no end.
        raise SourceError(f"{option}: {place}: {absence(base / place)}")


def _first_duplicate(names: Iterable[str]) -> str | None:
    return next((name for name, count in Counter(names).items() if count > 1), None)
