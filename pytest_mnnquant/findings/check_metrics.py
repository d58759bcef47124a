"""What checks measured: one frozen dataclass per check, in the form and order of the JSON report."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any, Final, Protocol, TypeVar

from pytest_mnnquant.findings import dataclass_json

#: Metadata of fields that the properties of JUnit files, and pytest-benchmark's results, show beside the report.
IN_JUNIT: Final = {"junit": True}
IN_BENCHMARK: Final = {"benchmark": True}


@dataclass(frozen=True)
class Metrics:
    """What one check measured of one variant."""

    def as_json(self) -> dict[str, Any]:
        """The form in the report, and in records that travel from xdist workers."""
        json: dict[str, Any] = dataclass_json.as_json(self)
        return json

    @classmethod
    def from_json(cls: type[M], value: Mapping[str, Any]) -> M:
        """The metrics whose JSON form this is. Raises `TypeError` if a key is missing."""
        metrics: M = dataclass_json.from_json(cls, value)
        return metrics

    def marked(self, mark: Mapping[str, bool]) -> dict[str, Any]:
        """The fields marked as `IN_JUNIT` or `IN_BENCHMARK` that were measured, in the form of the report."""
        (flag,) = mark
        names = [field.name for field in fields(self) if field.metadata.get(flag)]
        return {name: value for name, value in self.as_json().items() if name in names}


M = TypeVar("M", bound=Metrics)


class _Measured(Protocol):
    @property
    def metrics(self) -> Metrics | None: ...


def metrics_of(kind: type[M], results: Iterable[_Measured]) -> M | None:
    """The metrics of this kind among the results of a variant; None if no result has them."""
    return next((result.metrics for result in results if isinstance(result.metrics, kind)), None)
