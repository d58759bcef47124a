"""The stored decision of recipe `int8-best`: what it depends on, and for how long it holds."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from pytest_mnnquant.evidence.variant import VariantUnderTest
from pytest_mnnquant.runtime.host import host_facts
from pytest_mnnquant.sources.metric import metric_digest

_KIND: Final = "best"
_DECISION: Final = "decision.json"


@dataclasses.dataclass(frozen=True)
class Choice:
    """A recipe that was tried: `quality` is higher if better, `text` is the accuracy; `skip` are layers left float."""

    recipe: str
    skip: tuple[str, ...]
    passes: bool
    quality: float
    text: str


@dataclasses.dataclass(frozen=True)
class Decision:
    """The recipe that was chosen and all that were tried. `is_finished`: the search did not run out of time."""

    chosen: Choice
    tried: tuple[Choice, ...]
    is_finished: bool


class _Unfinished(Exception):
    """The search ran out of time: with more time, the decision may be a different one."""


def decide_once(variant: VariantUnderTest, search: Callable[[], Decision]) -> Decision:
    """The decision for a variant; `search` is called if none is stored.

    A search that ran out of time, and a search with a custom metric, which may read files, hold for this run only.
    """
    settings, store = variant.source.settings, variant.source.store
    code = metric_digest(settings.limits.metric, settings.base) if settings.limits.metric else ""
    key = {**search_key(variant), "metric": code}

    def build(folder: Path) -> None:
        (folder / _DECISION).write_text(json.dumps(dataclasses.asdict(search())), encoding="utf-8")

    def of_this_run() -> Decision:
        return _read(store.folder(_KIND, {**key, "suggest_time": settings.suggest_time}, build, private=True))

    def build_if_finished(folder: Path) -> None:
        decision = of_this_run()
        if not decision.is_finished:
            raise _Unfinished
        (folder / _DECISION).write_text(json.dumps(dataclasses.asdict(decision)), encoding="utf-8")

    if code:
        return of_this_run()
    try:
        return _read(store.folder(_KIND, key, build_if_finished))
    except _Unfinished:
        return of_this_run()


def search_key(variant: VariantUnderTest) -> dict[str, Any]:
    """What decides the result of a search, besides its time and the code of a custom metric."""
    settings, prepared, host = variant.source.settings, variant.source.prepared, host_facts()
    data = (prepared.calibration, prepared.evaluation)
    return {
        "float": prepared.digest,
        "float_uuid": prepared.model.uuid,
        "exporter": settings.exporter,
        "mode": variant.mode,
        "skip": variant.skip,
        "limits": repr(settings.limits),
        "ignore": settings.ignore,
        "timeout": settings.timeout,
        "states": dict(prepared.states),
        "data": [item.digest_with_labels() if item else None for item in data],
        "machine": [host.machine, host.processor, *host.features],
    }


def _read(folder: Path) -> Decision:
    stored = json.loads((folder / _DECISION).read_text(encoding="utf-8"))
    chosen, *tried = (Choice(**{**item, "skip": tuple(item["skip"])}) for item in (stored["chosen"], *stored["tried"]))
    return Decision(chosen, tuple(tried), stored["is_finished"])
