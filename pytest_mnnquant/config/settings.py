"""The user's request as frozen values: one `Settings` with one `ModelSettings` per model, each with its `Limits`."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pytest_mnnquant.checks.accuracy.limits import Named
from pytest_mnnquant.config.options import BY_NAME
from pytest_mnnquant.findings import defaults
from pytest_mnnquant.measurements.timing import LOW, NORMAL, TimingSettings
from pytest_mnnquant.metrics.task import metric_named
from pytest_mnnquant.targets.target import HOST, Target

if TYPE_CHECKING:
    from pytest_mnnquant.sources.folders import Preparation

_MEMORY_MODES: Final = {"normal": NORMAL, "low": LOW}
# Fields of `ModelSettings` that hold the value of the option of the same name.
_SAME_NAME: Final = (
    *("quantized", "params", "calibration", "evaluation", "mode", "ignore", "exporter", "timeout", "suggest"),
    *("suggest_time", "preprocess", "latency_reference"),
)


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of a variant; each one has the meaning of the option of the same name."""

    min_size_ratio: float | None = None
    min_coverage: float = defaults.COVERAGE
    metric: str | None = None
    max_accuracy_drop: float | None = None
    min_accuracy_ratio: float | None = None
    min_float_accuracy: float | None = None
    min_cosine: Named = None
    min_agreement: Named = None
    min_sqnr: Named = None
    max_kl: float | None = None
    max_latency_ratio: Named = None

    def __hash__(self) -> int:
        """Equal limits have equal hashes. Limits by name are mappings, which Python can't hash."""
        values = (getattr(self, item.name) for item in dataclasses.fields(self))
        return hash(tuple(frozenset(value.items()) if isinstance(value, Mapping) else value for value in values))

    def with_changes(self, changes: Mapping[str, Any], where: str) -> Limits:
        """These limits with some replaced. Raises `ValueError` that names an unknown key or a bad value."""
        names = [item.name for item in dataclasses.fields(self)]
        unknown = [key for key in changes if key not in names]
        if unknown:
            raise ValueError(f"{where}: unknown tolerance {unknown[0]!r}; known: {', '.join(names)}")
        values = {key: BY_NAME[key].parse(value, f"{where}: {key}") for key, value in changes.items()}
        changed = dataclasses.replace(self, **values)
        changed.validate(where)
        return changed

    def validate(self, where: str) -> None:
        """Refuse a drop outside of -1 to 1 for a share. Raises `ValueError`, which starts with `where`."""
        metric = None if self.metric is None else metric_named(self.metric)
        is_share = self.metric is None or (metric is not None and metric.is_share)
        drop = self.max_accuracy_drop
        if is_share and drop is not None and math.isfinite(drop) and abs(drop) > 1:
            name = self.metric or "top1"
            raise ValueError(f"{where}: a drop of {drop:g} is out of range; allowed for {name}: -1 to 1")


@dataclass(frozen=True)
class ModelSettings:
    """One model to test and how. Its relative paths start at `base`, the ids of its checks start with `node`."""

    source: str
    name: str
    base: Path
    node: str = ""
    quantized: str | None = None
    params: str | None = None
    calibration: str | None = None
    evaluation: str | None = None
    recipes: tuple[str, ...] = defaults.RECIPES
    mode: str = defaults.MODE
    limits: Limits = field(default_factory=Limits)
    skip_layers: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    exporter: str = defaults.EXPORTER
    timeout: float = defaults.TIMEOUT
    suggest: bool = False
    suggest_time: float = defaults.SUGGEST_TIME
    timing: TimingSettings = field(default_factory=TimingSettings)
    preprocess: Preparation | None = None
    states: Mapping[str, str] = field(default_factory=dict)
    targets: tuple[str, ...] = defaults.TARGETS
    latency_reference: str | None = None

    @property
    def is_on_host(self) -> bool:
        """Whether models run on this host too."""
        return HOST in self.targets

    @property
    def modes(self) -> tuple[str, ...]:
        """The requested modes, in the order they are tested."""
        return ("train", "eval") if self.mode == "both" else (self.mode,)


@dataclass(frozen=True)
class Settings:
    """Everything that the user requests. `defaults` holds for models that come from the user's tests.

    `durations` is the number of steps whose cost is shown, 0 for all, None for none. `baseline` is the file of accepted
    figures that is in use. `configuration` is the file that --mnn-config names; `is_whole_configuration`: the models
    are all of its models. `chooses_variants`: the command line says which recipes or modes run, or which finished file
    replaces them. `targets` are those of the models, by name, without this host.
    """

    models: tuple[ModelSettings, ...]
    defaults: ModelSettings
    strict: bool = False
    reports: tuple[Path, ...] = ()
    durations: int | None = None
    cache_dir: Path | None = None
    reuse: bool = True
    baseline: Path | None = None
    updates_baseline: bool = False
    configuration: str | None = None
    is_whole_configuration: bool = False
    chooses_variants: bool = False
    targets: Mapping[str, Target] = field(default_factory=dict)


def model_settings(source: str, name: str, base: Path, values: Mapping[str, Any], node: str = "") -> ModelSettings:
    """Settings of one model from parsed values of options, by option name; missing and None values get defaults."""
    given = {option: value for option, value in values.items() if value is not None}
    return ModelSettings(
        source=source,
        name=name,
        base=base,
        node=node,
        recipes=tuple(dict.fromkeys(given.get("recipe", defaults.RECIPES))),
        targets=tuple(dict.fromkeys(given.get("target", defaults.TARGETS))),
        limits=Limits(**{item.name: given[item.name] for item in dataclasses.fields(Limits) if item.name in given}),
        timing=_timing(given),
        **{key: given[key] for key in _SAME_NAME if key in given},
        skip_layers=given.get("skip_layer", ()),
        states=given.get("state", {}),
    )


def _timing(given: Mapping[str, Any]) -> TimingSettings:
    return TimingSettings(
        threads=int(given.get("threads", defaults.THREADS)),
        precision=given.get("precision", defaults.PRECISION),
        memory_mode=_MEMORY_MODES[given.get("memory_mode", defaults.MEMORY_MODE)],
        batch=int(given.get("batch", defaults.BATCH)),
        budget=given.get("latency_time", defaults.LATENCY_TIME),
    )
