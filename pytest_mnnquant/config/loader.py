"""Puts command line, ini file and the [tool.mnnquant] table together; errors name the key at fault."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pytest_mnnquant.checks.accuracy.task_metric import NO_LIMIT
from pytest_mnnquant.config.options import command_line, table_values
from pytest_mnnquant.config.settings import ModelSettings, Settings, model_settings
from pytest_mnnquant.findings.rules import NOT_IGNORABLE, RULES
from pytest_mnnquant.recipes.recipe import recipe_named
from pytest_mnnquant.sources.images import parse_preprocess, undeclared
from pytest_mnnquant.sources.metric import load_metric
from pytest_mnnquant.sources.spec import SourceError, Spec, parse_spec
from pytest_mnnquant.targets.parse import configured, target_named
from pytest_mnnquant.targets.target import NO_TIME, UNSAID, NoTarget, Target

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

if TYPE_CHECKING:
    import pytest

_BASELINE: Final = "mnnquant-baseline.json"
# By these Jenkins, Azure and TeamCity are known, which don't set CI.
_CI: Final = ("CI", "BUILD_NUMBER", "TF_BUILD", "TEAMCITY_VERSION")
_MODEL_KEYS: Final = ("source", "preprocess")


def read_settings(config: pytest.Config) -> Settings:
    """Read everything the user asked for. Raises `ValueError` or `SourceError` with one clear line."""
    given = command_line(config)
    here = config.invocation_params.dir
    table, table_base = _table(config, given.get("config"))
    shared = _values(table, "[tool.mnnquant]", ("models", "targets", "preprocess"))
    known = _configured(table, table_base)
    models = []
    for text in given.get("model", ()):
        if text in known:
            models.append(_configured_model(text, known[text], table_base, shared, given))
        else:
            spec = parse_spec(text, here)
            node = spec.name if "=" in text else text
            models.append(model_settings(text, spec.name, here, {**shared, **given}, node))
    if given.get("config") is not None and not given.get("model"):
        models = [_configured_model(name, entry, table_base, shared, given) for name, entry in known.items()]
        if not models:
            raise ValueError(f"--mnn-config: {given['config']} has no [tool.mnnquant.models.NAME] table")
    _validate(models, given)
    defaults = model_settings("", "", here, {**shared, **given})
    targets = _targets([*models, defaults], _target_tables(table, table_base))
    updates = bool(given.get("update_baseline", False))
    if updates and not models:
        raise ValueError("--mnn-update-baseline: there is no model to accept; it goes with --mnn-model or --mnn-config")
    return Settings(
        models=tuple(models),
        defaults=defaults,
        targets=targets,
        strict=bool(given.get("strict", False)),
        reports=tuple(here / name for name in given.get("report", ())),
        cache_dir=here / given["cache_dir"] if given.get("cache_dir") else None,
        reuse=not given.get("no_cache", False),
        baseline=_baseline(config, given.get("baseline"), updates),
        updates_baseline=updates,
        is_whole_configuration=given.get("config") is not None and not given.get("model"),
    )


def configured_names(config: pytest.Config) -> tuple[str, ...]:
    """The names of the models in the configuration; none where it can't be read, which `read_settings` tells."""
    try:
        table, base = _table(config, command_line(config).get("config"))
        return tuple(_configured(table, base))
    except ValueError:
        return ()


def configured_targets(path: Path) -> dict[str, dict[str, Any]]:
    """The tables of a configuration file's own targets. Raises `ValueError`."""
    return _target_tables(_mnnquant_table(path), path.parent) if path.is_file() else {}


def model_spec(settings: ModelSettings) -> Spec:
    """The parsed source of a model."""
    return parse_spec(settings.source, settings.base)


def _baseline(config: pytest.Config, name: str | None, updates: bool) -> Path | None:
    """The file of accepted figures, where one is in use. Raises `ValueError`."""
    ci = next((key for key in _CI if os.environ.get(key, "").lower() not in ("", "0", "false")), None)
    if updates and ci:
        raise ValueError(
            f"--mnn-update-baseline: {ci} is set in the environment, and figures that nobody looked at are not "
            "accepted; run it at home and commit the file"
        )
    if name is None:
        usual = config.rootpath / _BASELINE
        return usual if updates or os.path.lexists(usual) else None
    is_ini = config.getoption("mnn_baseline", None) is None
    base = config.inipath.parent if is_ini and config.inipath else config.invocation_params.dir
    if not (updates or os.path.lexists(base / name)):
        raise ValueError(f"--mnn-baseline: {name}: no such file; write it with --mnn-update-baseline")
    if (base / name).is_dir() or not (base / name).suffix:
        raise ValueError(f"--mnn-baseline: {name} is no file's name; it reads like {_BASELINE}")
    return base / name


def _table(config: pytest.Config, file: str | None) -> tuple[dict[str, Any], Path]:
    path = config.invocation_params.dir / file if file else config.rootpath / "pyproject.toml"
    if not path.is_file():
        if file:
            raise ValueError(f"--mnn-config: {file}: no such file")
        return {}, config.rootpath
    return _mnnquant_table(path), path.parent


def _mnnquant_table(path: Path) -> dict[str, Any]:
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: {error}") from None
    tools = content.get("tool", {})
    table = tools.get("mnnquant", {}) if isinstance(tools, dict) else tools
    if not isinstance(table, dict):
        raise ValueError(f"{path}: [tool.mnnquant] is not a table")
    return table


def _target_tables(table: Mapping[str, Any], base: Path) -> dict[str, dict[str, Any]]:
    """The tables [tool.mnnquant.targets.NAME] by name. Raises `ValueError`."""
    targets = table.get("targets", {})
    if not isinstance(targets, dict) or not all(isinstance(entry, dict) for entry in targets.values()):
        raise ValueError(f"{base}: [tool.mnnquant.targets] must hold one table a target")
    for name, entry in targets.items():
        configured(name, entry)
    return targets


def _configured(table: Mapping[str, Any], base: Path) -> dict[str, dict[str, Any]]:
    models = table.get("models", {})
    if not isinstance(models, dict) or not all(isinstance(entry, dict) for entry in models.values()):
        raise ValueError(f"{base}: [tool.mnnquant.models] must hold one table a model")
    return models


def _configured_model(
    name: str, entry: Mapping[str, Any], base: Path, shared: Mapping[str, Any], given: Mapping[str, Any]
) -> ModelSettings:
    where = f"[tool.mnnquant.models.{name}]"
    if not isinstance(entry.get("source"), str):
        raise ValueError(f"{where}: the key 'source' is missing")
    values = {**shared, **_values(entry, where, _MODEL_KEYS), **given}
    parse_spec(entry["source"], base)
    return model_settings(entry["source"], name, base, values, name)


def _values(table: Mapping[str, Any], where: str, extra: tuple[str, ...]) -> dict[str, Any]:
    found = table_values(table, where, extra)
    if "preprocess" in table:
        found["preprocess"] = parse_preprocess(table["preprocess"], f"{where}: preprocess")
    return found


def _targets(models: list[ModelSettings], tables: Mapping[str, Mapping[str, Any]]) -> dict[str, Target]:
    """The targets of these models, but for this machine. Raises `ValueError`."""
    found: dict[str, Target] = {}
    for name in dict.fromkeys(name for model in models for name in model.targets):
        try:
            target = target_named(name, tables)
        except NoTarget as error:
            raise ValueError(f"--mnn-target: {error}") from None
        if target is not None:
            found[name] = target
    for model in models:
        timed = model.is_on_host or any(found[name].is_device for name in model.targets)
        if model.limits.max_latency_ratio is not None and not timed:
            why = {NO_TIME if found[name].emulated else UNSAID for name in model.targets}
            raise ValueError(
                f"--mnn-max-latency-ratio: {' and '.join(model.targets)} can't be timed ({'; '.join(sorted(why))}); "
                "add --mnn-target=host"
            )
    return found


def _validate_ignored(code: str) -> None:
    """A rule's code, or the beginning of some; but not of all."""
    if not re.fullmatch(r"MNQ\d+", code) or not any(known.startswith(code) for known in RULES):
        raise ValueError(
            f"--mnn-ignore: {code!r} is not a rule code, nor the beginning of one; they read like MNQ710 or MNQ71"
        )
    if code in NOT_IGNORABLE:
        raise ValueError(f"--mnn-ignore: {code} can't be ignored: without a model or evidence there is no verdict")


def _validate(models: list[ModelSettings], given: Mapping[str, Any]) -> None:
    names = [model.name for model in models]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        raise ValueError(f"--mnn-model: two models are called {twice!r}; name them: --mnn-model NAME=SPEC")
    if given.get("quantized") and len(models) > 1:
        raise ValueError("--mnn-quantized: goes with a single --mnn-model; for several, use the configuration file")
    for model in models:
        for code in model.ignore:
            _validate_ignored(code)
        if model.quantized is None and model.params is not None:
            raise ValueError("--mnn-params: goes with --mnn-quantized")
        if model.quantized is not None and len(model.recipes) > 1:
            raise ValueError(
                "--mnn-quantized: goes with a single --mnn-recipe, which says what the file is meant to be"
            )
        _validate_recipes(model)
        _validate_metric(model)
        for text in (model.calibration, model.evaluation):
            if text is not None:
                _exists(text, model.base)
                if model.preprocess is None and (model.base / text).is_dir():
                    raise ValueError(undeclared(text))


def _validate_recipes(model: ModelSettings) -> None:
    recipes = [recipe_named(name) for name in model.recipes]
    names = [recipe.name for recipe in recipes]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ValueError(
            f"--mnn-recipe: two recipes are called {twice!r}; name them: --mnn-recipe NAME=file.py:callable"
        )
    for recipe in recipes:
        if recipe.pipeline:
            _exists(recipe.pipeline, model.base)


def _validate_metric(model: ModelSettings) -> None:
    limits = model.limits
    metric = None if limits.metric is None else load_metric(limits.metric, model.base)
    limits.validate("--mnn-max-accuracy-drop")
    if metric is None:
        return
    if not metric.is_share and limits.max_accuracy_drop is None and limits.min_accuracy_ratio is None:
        raise ValueError(NO_LIMIT.format(metric=limits.metric))


def _exists(text: str, base: Path) -> None:
    place = text.rpartition(":")[0] if ".py:" in text else text
    if not (base / place).exists():
        raise SourceError(f"{place}: no such file")
