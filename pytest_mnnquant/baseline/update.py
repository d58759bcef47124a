"""Updates a baseline: which entries are added, changed, kept and removed, and the lines that report it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from pytest_mnnquant.baseline.compare import stored_otherwise
from pytest_mnnquant.baseline.entry import Entry, usual_tolerances, value_text
from pytest_mnnquant.baseline.file import Accepted, Baseline
from pytest_mnnquant.findings.figures import Figures
from pytest_mnnquant.findings.metric import LATENCY, MEMORY, METRICS, Varies

Place = tuple[str, str]
_NAMED: Final = 2


@dataclass(frozen=True)
class Changes:
    """The changes of an update, by model and variant, each with its text. `kept` are the unchanged entries.

    `refused` were not accepted because a check failed; their entries in the file stay.
    """

    added: Mapping[Place, str] = dataclasses.field(default_factory=dict)
    changed: Mapping[Place, str] = dataclasses.field(default_factory=dict)
    removed: Mapping[Place, str] = dataclasses.field(default_factory=dict)
    refused: Mapping[Place, str] = dataclasses.field(default_factory=dict)
    kept: tuple[Place, ...] = ()

    @property
    def lines(self) -> Iterator[str]:
        """The lines of the report: one per changed variant, and the counts."""
        titles = {"added": self.added, "changed": self.changed, "removed": self.removed, "not accepted": self.refused}
        for title, places in titles.items():
            for (model, variant), text in places.items():
                yield f"baseline: {model} {variant}: " + (text if title == "changed" else f"{title}: {text}")
        counts = {"added": self.added, "changed": self.changed, "kept": self.kept, "removed": self.removed}
        refused = f", {len(self.refused)} not accepted" if self.refused else ""
        yield "baseline: " + ", ".join(f"{len(entries)} {name}" for name, entries in counts.items()) + refused


def updated(
    baseline: Baseline, ran: Iterable[Entry], gone: Mapping[Place, str] | None = None
) -> tuple[Baseline, Changes]:
    """The baseline with the entries of variants that ran, and without those that are `gone` (with the reason).

    All other entries and all tolerances of the file are kept. A variant with a failed check is refused.
    """
    models = {name: dict(accepted.variants) for name, accepted in baseline.models.items()}
    heads = {name: (accepted.source, accepted.float_sha256) for name, accepted in baseline.models.items()}
    added, changed, refused, removed = {}, {}, {}, {}
    for fresh in ran:
        figures = fresh.figures
        place = (figures.model, figures.variant)
        before = baseline.entry(*place)
        if figures.failed:
            refused[place] = f"{', '.join(figures.failed)} failed"
            continue
        now = fresh if before is None else _merged(before, fresh)
        heads[figures.model] = (figures.source, figures.float_sha256)
        models.setdefault(figures.model, {})[figures.variant] = now
        if before is None:
            added[place] = ", ".join(_value_texts(figures))
        elif _content(before) != _content(now):
            changed[place] = ", ".join(differences(before.figures, now.figures)) or "another file, the same metrics"
    for (model, variant), why in (gone or {}).items():
        if variant in models.get(model, {}):
            del models[model][variant]
            removed[model, variant] = why
    made = Baseline({name: _accepted(*heads[name], variants) for name, variants in models.items() if variants})
    touched = {*added, *changed}
    kept = tuple((model, variant) for model, variant, _ in made.entries if (model, variant) not in touched)
    return made, Changes(added, changed, removed, refused, kept)


def differences(before: Figures, now: Figures) -> Iterator[str]:
    """What changed between two runs of a variant, each in a few words."""
    for metric in METRICS:
        was, is_ = metric.value(before), metric.value(now)
        if was != is_:
            yield f"{metric.key} {value_text(was)} -> {value_text(is_)}"
    if before.metric != now.metric:
        yield f"metric {before.metric or 'none'} -> {now.metric or 'none'}"
    layers = [f"{layer} {was} -> {is_}" for layer, was, is_ in stored_otherwise(now, before)]
    if layers:
        more = f" and {len(layers) - _NAMED} more" if len(layers) > _NAMED else ""
        yield f"stored differently: {', '.join(layers[:_NAMED])}{more}"


def _value_texts(figures: Figures) -> Iterator[str]:
    for metric in METRICS:
        if (value := metric.value(figures)) is not None:
            yield f"{metric.key} {value_text(value)}"


def _merged(before: Entry, fresh: Entry) -> Entry:
    """The new entry, with the tolerances of the old one, and with the old metrics that could not be measured again."""
    was, now = before.figures, fresh.figures
    is_here = all(fresh.host.get(fact, value) == value for fact, value in before.host.items())
    for metric in METRICS:
        if metric.value(was) is None:
            continue
        is_noise = metric is LATENCY and is_here and _is_noise(before, now)
        is_kept = metric.value(now) is None and (is_here or metric.varies is not Varies.MACHINE)
        if is_kept or is_noise:
            now = metric.copied(was, now)
    host = fresh.host
    if not is_here and now.ratio is None and was.ratio is not None:
        # Latency was not timed on this machine: the metrics of the other machine stay, and its facts too. Memory does
        # not depend on the processor, but on these facts.
        facts = ("machine", "threads", "memory_mode")
        is_alike = now.memory is not None and all(fresh.host.get(key) == before.host.get(key) for key in facts)
        for metric in (LATENCY,) if is_alike else (LATENCY, MEMORY):
            now = metric.copied(was, now)
        host = before.host
    tolerances = before.tolerances
    if was.metric != now.metric:
        usual = usual_tolerances(now)
        tolerances = dataclasses.replace(tolerances, accuracy=usual.accuracy, accuracy_relative=usual.accuracy_relative)
    merged = Entry(now, tolerances, fresh.versions, host)
    # Versions and host are those with which the metrics were accepted: unchanged metrics keep them.
    return merged if _content(merged) != _content(before) else before


def _is_noise(before: Entry, now: Figures) -> bool:
    """Whether a new ratio of the same file differs by noise only: two runs never give the same ratio."""
    was, allowed = before.figures, before.tolerances.ratio
    if was.ratio is None or now.ratio is None or allowed is None or was.sha256 != now.sha256:
        return False
    return abs(now.ratio / was.ratio - 1) <= allowed if was.ratio else False


def _content(entry: Entry) -> Entry:
    """The entry without the facts that all variants of the model share, and without versions and host."""
    figures = dataclasses.replace(entry.figures, source="", float_sha256="", failed=(), path="")
    return dataclasses.replace(entry, figures=figures, versions={}, host={})


def _accepted(source: str, float_sha256: str, variants: Mapping[str, Entry]) -> Accepted:
    """The accepted model with these entries; all of them get the same source and float model."""
    entries = {
        label: dataclasses.replace(
            entry,
            figures=dataclasses.replace(entry.figures, source=source, float_sha256=float_sha256, failed=(), path=""),
        )
        for label, entry in variants.items()
    }
    return Accepted(source, float_sha256, entries)
