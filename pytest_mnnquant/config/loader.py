"""Merges the command line, the ini file and the [tool.mnnquant] table, once, into frozen settings."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pytest_mnnquant.config.given import Given, read_given
from pytest_mnnquant.config.output_files import require_free_outputs
from pytest_mnnquant.config.settings import ModelSettings, Settings, model_settings
from pytest_mnnquant.config.toml_file import ConfigurationFile, read_configuration
from pytest_mnnquant.config.validate import validate_models
from pytest_mnnquant.report.formats import require_format
from pytest_mnnquant.sources.spec import Spec, absence, named_target, parse_spec
from pytest_mnnquant.targets.parse import target_named
from pytest_mnnquant.targets.target import NO_TIME, UNSAID, NoTarget, Target

if TYPE_CHECKING:
    import pytest

_BASELINE: Final = "mnnquant-baseline.json"
# Jenkins, Azure Pipelines and TeamCity do not set CI.
_CI: Final = ("CI", "BUILD_NUMBER", "TF_BUILD", "TEAMCITY_VERSION")
_VARIANT_OPTIONS: Final = frozenset({"recipe", "mode", "quantized"})


def configuration_of(given: Given) -> ConfigurationFile:
    """The configuration file that --mnn-config names, else pyproject.toml in rootdir, if any. Raises `ValueError`."""
    name = given.values.get("config")
    path = given.root / "pyproject.toml" if name is None else given.folder / name
    if path.is_file():
        return read_configuration(path)
    if name is not None:
        raise ValueError(f"--mnn-config: {name}: {absence(path)}")
    return ConfigurationFile(given.root)


def settings_of(given: Given, file: ConfigurationFile) -> Settings:
    """The settings of a run. Raises `ValueError` or `SourceError` with one clear line."""
    values = given.values
    is_whole_configuration = "config" in values and "model" not in values
    names = tuple(file.models) if is_whole_configuration else values.get("model", ())
    if is_whole_configuration and not names:
        raise ValueError(f"--mnn-config: {values['config']} has no [tool.mnnquant.models.NAME] table")
    models = tuple(_model(name, given, file) for name in names)
    if "quantized" in values and len(models) > 1:
        raise ValueError("--mnn-quantized: requires exactly one --mnn-model; for several, use the configuration file")
    validate_models(models)
    defaults = model_settings("", "", given.folder, {**file.shared, **values})
    updates = bool(values.get("update_baseline", False))
    if updates and not models:
        raise ValueError("--mnn-update-baseline: no model is given; requires --mnn-model or --mnn-config")
    settings = Settings(
        models=models,
        defaults=defaults,
        targets=_targets((*models, defaults), file.targets),
        strict=bool(values.get("strict", False)),
        reports=_reports(given),
        durations=values.get("durations"),
        cache_dir=given.folder / values["cache_dir"] if values.get("cache_dir") else None,
        reuse=not values.get("no_cache", False),
        baseline=_baseline(given, updates),
        updates_baseline=updates,
        configuration=values.get("config"),
        is_whole_configuration=is_whole_configuration,
        chooses_variants=not _VARIANT_OPTIONS.isdisjoint(given.typed),
    )
    own = given.folder / values["config"] if "config" in values else given.root / "pyproject.toml"
    require_free_outputs(settings, [own, *([given.ini_file] if given.ini_file else [])])
    return settings


def read_settings(config: pytest.Config) -> Settings:
    """The settings of a run from its options alone. Raises `ValueError` or `SourceError` with one clear line."""
    given = read_given(config)
    return settings_of(given, configuration_of(given))


def model_spec(settings: ModelSettings) -> Spec:
    """The parsed source of a model. Raises `SourceError`."""
    return parse_spec(settings.source, settings.base)


def _model(text: str, given: Given, file: ConfigurationFile) -> ModelSettings:
    """The settings of a model, given as its name in the configuration or as its specification."""
    if text in file.models:
        model = file.model(text)
        parse_spec(model.source, file.folder)
        return model_settings(model.source, text, file.folder, {**model.values, **given.values}, text)
    spec = parse_spec(text, given.folder)
    node = spec.name if named_target(text, given.folder)[0] else text
    return model_settings(text, spec.name, given.folder, {**file.shared, **given.values}, node)


def _reports(given: Given) -> tuple[Path, ...]:
    """The report files to write. Raises `ValueError` for an unknown suffix."""
    paths = tuple(given.folder / name for name in given.values.get("report", ()))
    for path in paths:
        require_format(path)
    return paths


def _baseline(given: Given, updates: bool) -> Path | None:
    """The baseline file, if one is in use. Raises `ValueError`."""
    ci = next((key for key in _CI if os.environ.get(key, "").lower() not in ("", "0", "false")), None)
    if updates and ci:
        raise ValueError(
            f"--mnn-update-baseline: refused in CI ({ci} is set), because a person must review accepted metrics; "
            "run the command locally and commit the file"
        )
    name: str | None = given.values.get("baseline")
    if name is None:
        path = given.root / _BASELINE
        return path if updates or os.path.lexists(path) else None
    is_ini = "baseline" not in given.typed
    path = (given.ini_file.parent if is_ini and given.ini_file else given.folder) / name
    if not (updates or os.path.lexists(path)):
        raise ValueError(f"--mnn-baseline: {name}: no such file; write it with --mnn-update-baseline")
    if path.is_dir() or not path.suffix:
        raise ValueError(f"--mnn-baseline: {name!r} is not a valid file name; expected e.g. {_BASELINE}")
    return path


def _targets(models: Sequence[ModelSettings], tables: Mapping[str, Mapping[str, Any]]) -> dict[str, Target]:
    """The targets of these models, without this host. Raises `ValueError`."""
    targets: dict[str, Target] = {}
    for name in dict.fromkeys(name for model in models for name in model.targets):
        try:
            target = target_named(name, tables)
        except NoTarget as error:
            raise ValueError(f"--mnn-target: {error}") from None
        if target is not None:
            targets[name] = target
    for model in models:
        if model.limits.max_latency_ratio is not None:
            _require_timing(model, targets)
    return targets


def _require_timing(model: ModelSettings, targets: Mapping[str, Target]) -> None:
    """Refuse a latency limit if no target of the model measures time. Raises `ValueError`."""
    if model.is_on_host or any(targets[name].is_device for name in model.targets):
        return
    reasons = {NO_TIME if targets[name].emulated else UNSAID for name in model.targets}
    raise ValueError(
        f"--mnn-max-latency-ratio: latency is not measured on {' and '.join(model.targets)} "
        f"({'; '.join(sorted(reasons))}); "
        "add --mnn-target=host"
    )
