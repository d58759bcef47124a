"""What the user asked for, as frozen values: one `Settings`, in it one `ModelSettings` a model, in it `Limits`."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pytest_mnnquant.checks.accuracy.limits import Named
from pytest_mnnquant.config.options import BY_NAME
from pytest_mnnquant.measurements.timing import LOW, NORMAL, TimingSettings
from pytest_mnnquant.metrics.task import metric_named
from pytest_mnnquant.targets.target import HOST, Target

if TYPE_CHECKING:
    from pytest_mnnquant.sources.images import Preprocess

_MEMORY_MODES: Final = {"normal": NORMAL, "low": LOW}


@dataclass(frozen=True, slots=True)
class Limits:
    """What a variant is judged by; the meaning of each is that of the option of the same name."""

    min_size_ratio: float | None = None
    min_coverage: float = 0.99
    metric: str | None = None
    max_accuracy_drop: float | None = None
    min_accuracy_ratio: float | None = None
    min_float_accuracy: float | None = None
    min_cosine: Named = None
    min_agreement: Named = None
    min_sqnr: Named = None
    max_latency_ratio: Named = None

    def __hash__(self) -> int:
        """Equal limits have equal hashes; limits by name are mappings, which have no hash of their own."""
        values = (getattr(self, item.name) for item in dataclasses.fields(self))
        return hash(tuple(frozenset(value.items()) if isinstance(value, Mapping) else value for value in values))

    def with_changes(self, changes: Mapping[str, Any], where: str) -> Limits:
        """These limits with some replaced; raises `ValueError` naming an unknown key or bad value."""
        names = [item.name for item in dataclasses.fields(self)]
        unknown = [key for key in changes if key not in names]
        if unknown:
            raise ValueError(f"{where}: unknown tolerance {unknown[0]!r}; known: {', '.join(names)}")
        values = {key: BY_NAME[key].parse(value, f"{where}: {key}") for key, value in changes.items()}
        changed = dataclasses.replace(self, **values)
        changed.validate(where)
        return changed

    def validate(self, where: str) -> None:
        """Refuse a drop that no share can have. Raises `ValueError` that starts with `where`."""
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
    recipes: tuple[str, ...] = ("int8",)
    mode: str = "both"
    limits: Limits = field(default_factory=Limits)
    skip_layers: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    exporter: str = "torchscript"
    timeout: float = 300.0
    suggest: bool = False
    suggest_time: float = 120.0
    timing: TimingSettings = field(default_factory=TimingSettings)
    preprocess: Preprocess | None = None
    targets: tuple[str, ...] = (HOST,)

    @property
    def is_on_host(self) -> bool:
        """Whether what runs is judged on this machine too."""
        return HOST in self.targets

    @property
    def modes(self) -> tuple[str, ...]:
        """The modes asked for, in the order they are tested."""
        return ("train", "eval") if self.mode == "both" else (self.mode,)


@dataclass(frozen=True)
class Settings:
    """All that the user asked for. `defaults` holds for models that tests bring themselves.

    `baseline` is the file of accepted figures that is in use. `is_whole_configuration`: the models are those of the
    configuration, all of them. `targets` are those of the models, by name, without this machine.
    """

    models: tuple[ModelSettings, ...]
    defaults: ModelSettings
    strict: bool = False
    reports: tuple[Path, ...] = ()
    cache_dir: Path | None = None
    reuse: bool = True
    baseline: Path | None = None
    updates_baseline: bool = False
    is_whole_configuration: bool = False
    targets: Mapping[str, Target] = field(default_factory=dict)


def model_settings(source: str, name: str, base: Path, values: Mapping[str, Any], node: str = "") -> ModelSettings:
    """Settings of one model from parsed option values; what is not given has its default."""

    def value(option: str) -> Any:
        found = values.get(option)
        return BY_NAME[option].default if found is None else found

    limits = Limits(**{item.name: value(item.name) for item in dataclasses.fields(Limits)})
    return ModelSettings(
        source=source,
        name=name,
        base=base,
        node=node,
        recipes=tuple(dict.fromkeys(value("recipe"))),
        skip_layers=value("skip_layer"),
        targets=tuple(dict.fromkeys(value("target"))),
        limits=limits,
        timing=TimingSettings(
            threads=int(value("threads")),
            precision=value("precision"),
            memory_mode=_MEMORY_MODES[value("memory_mode")],
            batch=int(value("batch")),
            budget=value("latency_time"),
        ),
        preprocess=values.get("preprocess"),
        **{
            key: value(key)
            for key in (
                *("quantized", "params", "calibration", "evaluation", "mode", "ignore", "exporter", "timeout"),
                *("suggest", "suggest_time"),
            )
        },
    )
