"""Caches of objects that a run makes once: the variants of a source, and the results of a variant's checks."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_mnnquant.config.settings import Limits
from pytest_mnnquant.findings.finding import Result

if TYPE_CHECKING:  # They hold their source, which holds these caches.
    from pytest_mnnquant.evidence.target_variant import TargetVariant
    from pytest_mnnquant.evidence.variant import VariantUnderTest


@dataclass(frozen=True, slots=True)
class VariantKey:
    """The key of a variant of a source."""

    recipe: str
    mode: str | None


@dataclass(frozen=True, slots=True)
class TargetKey:
    """The key of a variant of a source, and the name of the target that it runs on."""

    variant: VariantKey
    target: str


class VariantCache:
    """The variants of one source, on this host and on targets."""

    def __init__(self) -> None:
        self._on_host: dict[VariantKey, VariantUnderTest] = {}
        self._on_targets: dict[TargetKey, TargetVariant] = {}

    def __iter__(self) -> Iterator[VariantUnderTest]:
        """All variants, on this host and on targets."""
        yield from self._on_host.values()
        yield from self._on_targets.values()

    def on_host(self, key: VariantKey, make: Callable[[], VariantUnderTest]) -> VariantUnderTest:
        """The variant, always the same object; `make` is called the first time."""
        if key not in self._on_host:
            self._on_host[key] = make()
        return self._on_host[key]

    def on_target(self, key: TargetKey, make: Callable[[], TargetVariant]) -> TargetVariant:
        """The variant on a target, always the same object; `make` is called the first time."""
        if key not in self._on_targets:
            self._on_targets[key] = make()
        return self._on_targets[key]


@dataclass(frozen=True, slots=True)
class CheckKey:
    """The key of a check of a variant: its name, limits and strictness."""

    check: str
    limits: Limits
    strict: bool


class ResultCache:
    """The results of the checks of one variant, before findings of several checks are related."""

    def __init__(self) -> None:
        self._results: dict[CheckKey, Result] = {}

    def __iter__(self) -> Iterator[Result]:
        """All results, in the order in which the checks ran."""
        return iter(self._results.values())

    def get_or_run(self, key: CheckKey, run: Callable[[], Result]) -> Result:
        """The result of a check; `run` is called the first time."""
        if key not in self._results:
            self._results[key] = run()
        return self._results[key]

    def of_checks(self, checks: Collection[str], limits: Limits, strict: bool) -> dict[str, Result]:
        """The results of those of the checks that have run with these limits, by name."""
        keys = (CheckKey(check, limits, strict) for check in checks)
        return {key.check: self._results[key] for key in keys if key in self._results}
