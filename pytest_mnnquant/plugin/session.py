"""What one pytest run holds: settings, sources under test, records for the reports. Kept on `config.stash`."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import pytest

from pytest_mnnquant.baseline.file import BadBaseline, Baseline, read_baseline
from pytest_mnnquant.cache.atomic_write import is_read_only
from pytest_mnnquant.cache.store import Store, of_one_run
from pytest_mnnquant.config.loader import configured_names, model_spec, read_settings
from pytest_mnnquant.config.options import of_ours
from pytest_mnnquant.config.settings import ModelSettings, Settings
from pytest_mnnquant.evidence.source import SourceUnderTest
from pytest_mnnquant.findings.check_names import BASELINE, CHECKS, ENTRIES, ON_DEVICE, ON_TARGET
from pytest_mnnquant.plugin.progress_line import Progress
from pytest_mnnquant.recipes.recipe import recipe_named
from pytest_mnnquant.report.formats import require_format
from pytest_mnnquant.runtime.progress import listen
from pytest_mnnquant.sources.spec import SourceError, Spec, parse_spec
from pytest_mnnquant.targets.ssh import SCHEME
from pytest_mnnquant.targets.target import HOST, Target

#: What runs elsewhere, by name.
Targets = Mapping[str, Target]


class PluginSession:
    """The sources under test in this process."""

    KEY: ClassVar = pytest.StashKey["PluginSession"]()
    #: Where xdist's workers find the cache of a run that keeps none: it must outlive them, for models to be kept.
    CACHE: ClassVar = "mnnquant_cache"

    def __init__(self, config: pytest.Config, settings: Settings, wanted_ids: tuple[str, ...]) -> None:
        self.config = config
        self.settings = settings
        self.wanted_ids = wanted_ids
        for target in settings.targets.values():
            config.add_cleanup(target.close)
        self.progress = Progress(config)
        config.pluginmanager.register(self.progress, "mnnquant-progress")
        self.selected: frozenset[str] = frozenset()
        for path in settings.reports:
            require_format(path)
        self.cache_dir = root = self._cache_dir()
        if not settings.reuse:
            using = ExitStack()
            root = using.enter_context(of_one_run(root / "anew"))
            config.add_cleanup(using.close)
        self.store = Store(root)
        self.gates = [self.gate(model, model_spec(model)) for model in settings.models]
        self._brought: list[tuple[Any, ModelSettings, SourceUnderTest]] = []

    @property
    def checks(self) -> tuple[str, ...]:
        """The checks of a variant; with a baseline in use, the comparison with it is the last."""
        return CHECKS if self.settings.baseline is None else (*CHECKS, BASELINE)

    @property
    def entries_id(self) -> str:
        """The id of the item that judges the baseline file itself; empty where none is in use."""
        path = self.settings.baseline
        return "" if path is None else f"{path.name}::{ENTRIES}"

    @cached_property
    def baseline(self) -> Baseline | BadBaseline:
        """What is accepted, as it was when first asked for; or why that can't be read."""
        path = self.settings.baseline
        if path is None or (self.settings.updates_baseline and not os.path.lexists(path)):
            return Baseline()
        try:
            return read_baseline(path)
        except BadBaseline as error:
            return error

    def gate(self, model: ModelSettings, spec: Spec, **brought: Any) -> SourceUnderTest:
        """A source under test."""
        return SourceUnderTest(model, spec, self.store, self._teller(model.name), **brought)

    def source_for(self, model: ModelSettings, given: Any, calibration: Any, evaluation: Any) -> SourceUnderTest:
        """The source that a fixture brought; the same objects give the same gate, so that nothing is made twice."""
        key = (given, calibration, evaluation)
        for known, settings, gate in self._brought:
            if settings == model and all(a is b for a, b in zip(known, key, strict=True)):
                return gate
        if isinstance(given, str | Path):
            spec = model_spec(model)
            gate = self.gate(model, spec, calibration=calibration, evaluation=evaluation)
        else:
            spec = Spec(model.name, model.name)
            gate = self.gate(model, spec, given=given, calibration=calibration, evaluation=evaluation)
        self._brought.append((key, model, gate))
        return gate

    def _cache_dir(self) -> Path:
        if self.settings.cache_dir is not None:
            if self.settings.cache_dir.exists() and not self.settings.cache_dir.is_dir():
                raise ValueError(f"--mnn-cache-dir: {self.settings.cache_dir} is not a folder")
            try:
                self.settings.cache_dir.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise ValueError(f"--mnn-cache-dir: {self.settings.cache_dir}: {error.strerror}") from None
            return self.settings.cache_dir
        cache = getattr(self.config, "cache", None)
        if cache is None:  # -p no:cacheprovider
            if self.CACHE in (given := getattr(self.config, "workerinput", {})):
                return Path(given[self.CACHE])
            temporary = tempfile.TemporaryDirectory(prefix="mnnquant-")
            self.config.add_cleanup(temporary.cleanup)
            return Path(temporary.name)
        return Path(cache.mkdir("mnnquant"))

    def _teller(self, name: str) -> Callable[[str], None]:
        def say(what: str) -> None:
            if self.progress.is_shown:
                listen(self.progress.advance)
                self.progress.say(name, what)

        return say


def start(config: pytest.Config) -> None:
    """Read the settings and put the sources on the stash; turn what can't be used into a usage error.

    Ids of ours among the command line's arguments are taken out of it, since pytest would look for files of that name.
    With no other argument the suite runs alone.
    """
    ids = getattr(config.option, "mnn_ids", None)
    if ids is None:  # On an xdist worker the controller has done this already.
        names = configured_names(config)
        config.args[:] = [_balanced(arg) for arg in config.args]
        ids = [arg for arg in config.args if _is_id(arg, config, names)]
        config.option.mnn_ids = ids
        config.option.mnn_command = of_ours([*map(str, config.invocation_params.args)])
    models = config.option.mnn_model or []
    given = config.args_source is pytest.Config.ArgsSource.ARGS
    if given:
        config.args[:] = [arg for arg in config.args if arg not in ids]
    elif models or config.option.mnn_config:  # Asked for on the command line, not by an ini file: the suite runs alone.
        config.args[:] = []
    bases = dict.fromkeys(arg.partition("::")[0] for arg in ids if not _is_entries(arg))
    new = [base for base in bases if base not in _sources(models)]
    config.option.mnn_model = [*models, *new] or None
    config.option.mnn_recipe = config.option.mnn_recipe or _recipes(ids) or None
    config.option.mnn_target = config.option.mnn_target or _targets(ids) or None
    try:
        bench = PluginSession(config, read_settings(config), tuple(ids))
    except (ValueError, SourceError) as error:
        raise pytest.UsageError(str(error)) from None
    if bench.settings.updates_baseline and bench.settings.baseline is not None:  # A long run must not end in vain.
        if isinstance(bench.baseline, BadBaseline):
            raise pytest.UsageError(f"--mnn-update-baseline: {bench.baseline}; {bench.baseline.fix}")
        if is_read_only(bench.settings.baseline):
            raise pytest.UsageError(f"--mnn-update-baseline: {bench.settings.baseline} is read-only")
    known = [check_id for gate in bench.gates for check_id in all_ids(gate, bench.settings.targets, bench.checks)] + [
        bench.entries_id
    ]
    for wanted in ids:
        if not any(is_part(check_id, wanted) for check_id in known):
            raise pytest.UsageError(f"no check is called {wanted}; --co lists them")
    config.stash[PluginSession.KEY] = bench


def _balanced(arg: str) -> str:
    """An id without the bracket too many that pytest 9.2 prints at its end where there is one in the middle."""
    return arg[:-1] if "::" in arg and arg.endswith("]") and arg.count("]") > arg.count("[") else arg


def _recipes(ids: list[str]) -> list[str]:
    """The recipes that ids speak of, for ids that are pasted back without the options that made them."""
    found = (place_of(arg)[0].partition("[")[0] for arg in ids)
    return list(dict.fromkeys(name for name in found if _is_recipe(name)))


def _targets(ids: list[str]) -> list[str]:
    """The targets that ids speak of; none where that is this machine alone."""
    found = list(dict.fromkeys(place_of(arg)[1] or HOST for arg in ids))
    return [] if found == [HOST] else found


def place_of(check_id: str) -> tuple[str, str]:
    """The variant of an id, such as `int8[eval]`, and the target behind its @; empty where there is none."""
    variant = check_id.partition("::")[2].partition("::")[0]
    label, at, target = variant.partition(f"@{SCHEME}")  # Behind it there may be an @ more: ssh://USER@MACHINE.
    if at:
        return label, SCHEME + target
    label, at, target = variant.rpartition("@")
    if not at or label.endswith("]"):
        return (label, target) if at else (variant, "")
    return (variant, "") if _is_recipe(variant.partition("[")[0]) else (label, target)  # file.py:callable@w8


def _is_recipe(name: str) -> bool:
    try:
        recipe_named(name)
    except ValueError:
        return False
    return True


def variants(gate: SourceUnderTest) -> Iterator[tuple[str, str | None]]:
    """The recipes and modes that a source is tested with."""
    python = gate.spec.is_python and gate.settings.quantized is None
    for name in gate.settings.recipes:
        for mode in recipe_named(name).modes(python, gate.settings.modes):
            yield name, mode


def all_ids(gate: SourceUnderTest, targets: Targets, checks: tuple[str, ...] = CHECKS) -> Iterator[str]:
    """The ids of all checks of a source."""
    return (check_id for check_id, _ in with_variants(gate, targets, checks))


def with_variants(
    gate: SourceUnderTest, targets: Targets, checks: tuple[str, ...] = CHECKS
) -> Iterator[tuple[str, str]]:
    """The same, each with what the ids of its variant start with, wherever that runs."""
    for name, mode in variants(gate):
        variant = f"{gate.settings.node}::{recipe_named(name).label(mode)}"
        for target, check in places(gate, targets, checks):
            yield f"{variant}{'@' * bool(target)}{target}::{check}", variant


def places(gate: SourceUnderTest, targets: Targets, checks: tuple[str, ...] = CHECKS) -> Iterator[tuple[str, str]]:
    """The checks of each variant of a source, each with the target that it judges; empty for this machine."""
    on_host = gate.settings.is_on_host
    yield from (("", check) for check in checks if on_host or check not in ON_DEVICE)
    for name in gate.settings.targets:
        if name != HOST:
            yield from ((name, check) for check in (ON_DEVICE if targets[name].is_device else ON_TARGET))


def is_part(check_id: str, wanted: str) -> bool:
    """Whether an id is the wanted one or stands below it."""
    return check_id == wanted or check_id.startswith((wanted + "::", wanted + "[", wanted + "@"))


def session_of(config: pytest.Config) -> PluginSession:
    """The bench of this run; one without models where only fixtures are used."""
    if PluginSession.KEY not in config.stash:
        config.stash[PluginSession.KEY] = PluginSession(config, read_settings(config), ())
    return config.stash[PluginSession.KEY]


def _sources(models: list[str]) -> set[str]:
    return {part for text in models for part in (text, text.partition("=")[0])}


def _is_entries(arg: str) -> bool:
    """Whether this is the id of a baseline file's own item."""
    base, _, name = arg.partition("::")
    return name == ENTRIES and not base.endswith(".py")


def _is_id(arg: str, config: pytest.Config, names: tuple[str, ...]) -> bool:
    base, colons, _ = arg.partition("::")
    if not colons:
        return False
    if _is_entries(arg) or base in names or base in _sources(config.option.mnn_model or []):
        return True
    try:
        parse_spec(base, config.invocation_params.dir)
    except SourceError:
        return False
    return True
