"""The state of one pytest run: settings, sources under test, their cache. A hook builds it once, on `config.stash`."""

from __future__ import annotations

import dataclasses
import os
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import pytest

from pytest_mnnquant.baseline.file import BadBaseline, Baseline, read_baseline
from pytest_mnnquant.cache.atomic_write import is_read_only
from pytest_mnnquant.config.given import Given, read_given, suite_arguments
from pytest_mnnquant.config.loader import configuration_of, model_spec, read_settings, settings_of
from pytest_mnnquant.config.settings import ModelSettings, Settings
from pytest_mnnquant.config.toml_file import ConfigurationFile
from pytest_mnnquant.evidence.source import FixtureValues, SourceUnderTest
from pytest_mnnquant.evidence.steps import StepFailed
from pytest_mnnquant.findings.catalogue import BASELINE, CHECK_NAMES, ENTRIES
from pytest_mnnquant.plugin import node_ids
from pytest_mnnquant.plugin.cache_folder import cache_folder, open_store
from pytest_mnnquant.plugin.progress_line import Progress
from pytest_mnnquant.report.width import shown
from pytest_mnnquant.runtime.job_results import JobResults, set_job_results
from pytest_mnnquant.runtime.progress import set_listener
from pytest_mnnquant.runtime.step_clock import StepClock, rename_step, set_step_clock
from pytest_mnnquant.sources.spec import SourceError, Spec


class PluginSession:
    """The sources under test in this process.

    `requested_ids` are the items that the command line names; empty: all. `baseline` is the baseline at the start of
    the run, or the error of reading it. `arguments` are the options that decide what is tested and how.
    """

    KEY: ClassVar = pytest.StashKey["PluginSession"]()

    def __init__(self, config: pytest.Config, settings: Settings, requested_ids: tuple[str, ...] = ()) -> None:
        self.settings = settings
        self.requested_ids = requested_ids
        self.arguments = suite_arguments([*map(str, config.invocation_params.args)])
        self.baseline = _baseline(settings)
        self.progress = Progress(config)
        config.add_cleanup(lambda: set_listener(None))
        self.cache_dir = cache_folder(config, settings)
        self.store = open_store(config, self.cache_dir, settings.reuse)
        set_job_results(JobResults(self.store))
        config.add_cleanup(lambda: set_job_results(None))
        self.step_clock = StepClock()
        set_step_clock(self.step_clock)
        config.add_cleanup(lambda: set_step_clock(None))
        self.sources = tuple(self._source(model, model_spec(model)) for model in settings.models)
        self._of_fixtures: list[tuple[FixtureValues, ModelSettings, SourceUnderTest]] = []

    @property
    def checks(self) -> tuple[str, ...]:
        """The checks of a variant; with a baseline, the comparison with it is the last."""
        return CHECK_NAMES if self.settings.baseline is None else (*CHECK_NAMES, BASELINE)

    @property
    def entries_id(self) -> str:
        """The id of the item of the baseline file itself; empty without a baseline."""
        path = self.settings.baseline
        return "" if path is None else f"{path.name}::{ENTRIES}"

    def source_for(self, model: ModelSettings, values: FixtureValues) -> SourceUnderTest:
        """The source of the fixtures' values; equal objects give the same source, so that nothing is built twice."""
        for known, settings, source in self._of_fixtures:
            if settings == model and _are_same(known, values):
                return source
        if isinstance(values.model, str | Path):
            source = self._source(model, model_spec(model), dataclasses.replace(values, model=None))
        else:
            source = self._source(model, Spec(model.name, model.name), values)
        self._of_fixtures.append((values, model, source))
        return source

    def _source(self, model: ModelSettings, spec: Spec, values: FixtureValues | None = None) -> SourceUnderTest:
        return SourceUnderTest(model, spec, self.store, self._step_listener(model.name), values)

    def _step_listener(self, name: str) -> Callable[[str], None]:
        def show(step: str) -> None:
            rename_step(step)
            if self.progress.is_shown:
                set_listener(self.progress.advance)
                self.progress.start_step(name, step)

        return show


def _are_same(first: FixtureValues, second: FixtureValues) -> bool:
    """Whether fixtures returned the same objects. Arrays and networks can't be compared by value."""
    pairs = ((getattr(first, item.name), getattr(second, item.name)) for item in dataclasses.fields(FixtureValues))
    return all(left is right for left, right in pairs)


def session_of(config: pytest.Config) -> PluginSession:
    """The session of this run, which a hook has built."""
    return config.stash[PluginSession.KEY]


def start_suite(config: pytest.Config) -> bool:
    """Build the session of a run if it has models to test; returns whether it has. Raises `pytest.UsageError`.

    Ids of the suite are removed from the command line's arguments, since pytest would look for files of that name.
    Without other arguments, only the suite runs.
    """
    try:
        given = read_given(config)
        file = configuration_of(given)
        ids = _take_ids(config, given, file)
        session = PluginSession(config, settings_of(_completed(given, ids), file), ids)
    except (ValueError, SourceError) as error:
        raise pytest.UsageError(shown(str(error))) from None
    except OSError as error:
        raise pytest.UsageError(shown(f"{error.filename or 'pytest-mnnquant'}: {error.strerror}")) from None
    except Exception as error:
        raise pytest.UsageError(shown(StepFailed("read the options", error).line)) from error
    _require_writable_baseline(session)
    _require_known(session)
    _register(config, session)
    return bool(ids or session.settings.models)


def start_for_fixtures(config: pytest.Config) -> PluginSession:
    """The session of this run; if no model is requested, the first test that uses the fixtures builds it.

    Raises `ValueError` or `SourceError` for options that can't be used.
    """
    if PluginSession.KEY not in config.stash:
        _register(config, PluginSession(config, read_settings(config)))
    return session_of(config)


def _register(config: pytest.Config, session: PluginSession) -> None:
    for target in session.settings.targets.values():
        config.add_cleanup(target.close)
    config.pluginmanager.register(session.progress, "mnnquant-progress")
    config.stash[PluginSession.KEY] = session


def _take_ids(config: pytest.Config, given: Given, file: ConfigurationFile) -> tuple[str, ...]:
    """Remove the ids of the suite from pytest's arguments and return them."""
    typed_models = given.values["model"] if "model" in given.typed else ()
    known = {*file.models, *node_ids.model_names(typed_models)}
    args = config.args
    ids = tuple(arg for arg in args if node_ids.is_suite_id(arg, known, given.folder))
    _require_current_form(ids)
    if config.args_source is pytest.Config.ArgsSource.ARGS:
        config.args = [arg for arg in args if arg not in ids]
    elif {"model", "config"} & given.typed:  # If the ini file names models, pytest collects the user's tests too.
        config.args = []
    return ids


def _require_current_form(ids: tuple[str, ...]) -> None:
    for check_id in ids:
        if (current := node_ids.renamed(check_id)) != check_id:
            raise ValueError(f"{check_id}: ids have no brackets; run: {shlex.join(['pytest', current])}")


def _completed(given: Given, ids: tuple[str, ...]) -> Given:
    """The options, with the models, recipes and targets that the ids name added if the command line has none."""
    typed_models = given.values["model"] if "model" in given.typed else ()
    new_models = [name for name in node_ids.models_of(ids) if name not in node_ids.model_names(typed_models)]
    implied: dict[str, tuple[str, ...]] = {"model": (*typed_models, *new_models) if new_models else ()}
    if "recipe" not in given.typed:
        implied["recipe"] = node_ids.recipes_of(ids)
    if "target" not in given.typed:
        implied["target"] = node_ids.targets_of(ids)
    return given.with_typed({name: names for name, names in implied.items() if names})


def _require_writable_baseline(session: PluginSession) -> None:
    """Refuse a baseline that the update can't write, before a long run."""
    path = session.settings.baseline
    if path is None or not session.settings.updates_baseline:
        return
    if isinstance(session.baseline, BadBaseline):
        raise pytest.UsageError(f"--mnn-update-baseline: {session.baseline}; {session.baseline.fix}")
    if is_read_only(path):
        raise pytest.UsageError(f"--mnn-update-baseline: {path} is read-only")


def _require_known(session: PluginSession) -> None:
    targets = session.settings.targets
    known = [session.entries_id]
    for source in session.sources:
        known += [check_id for check_id, _ in node_ids.check_ids(source, targets, session.checks)]
    for requested in session.requested_ids:
        if not any(node_ids.is_part(check_id, requested) for check_id in known):
            raise pytest.UsageError(f"unknown check {requested}; list all with --co")


def _baseline(settings: Settings) -> Baseline | BadBaseline:
    path = settings.baseline
    if path is None or (settings.updates_baseline and not os.path.lexists(path)):
        return Baseline()
    try:
        return read_baseline(path)
    except BadBaseline as error:
        return error
