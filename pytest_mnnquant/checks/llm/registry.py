"""The static checks of an export, by the names that the checks of other models have."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from pytest_mnnquant.checks.llm.bundle import check_bundle
from pytest_mnnquant.checks.llm.conversion import check_conversion
from pytest_mnnquant.checks.llm.coverage import check_coverage
from pytest_mnnquant.checks.llm.evidence import ExportEvidence
from pytest_mnnquant.checks.llm.params import check_params
from pytest_mnnquant.checks.llm.size import check_size
from pytest_mnnquant.checks.llm.weights import check_weights
from pytest_mnnquant.findings.catalogue import CHECK_NAMES
from pytest_mnnquant.findings.finding import Result
from pytest_mnnquant.findings.root_cause import with_root_causes

_FUNCTIONS: Final[Mapping[str, Callable[[ExportEvidence], Result]]] = {
    "conversion": check_conversion,
    "params": check_params,
    "coverage": check_coverage,
    "weights": check_weights,
    "size": check_size,
    "bundle": check_bundle,
}
#: The names of the checks of an export, in order of dependence.
EXPORT_CHECKS: Final = tuple(name for name in CHECK_NAMES if name in _FUNCTIONS)


def check_alone(name: str, evidence: ExportEvidence) -> Result:
    """The result of one check. Raises `KeyError` for a check that exports do not have."""
    return _FUNCTIONS[name](evidence)


def check_export(evidence: ExportEvidence) -> dict[str, Result]:
    """All static checks of an export, with consequences joined to their root causes."""
    results = {name: check_alone(name, evidence) for name in EXPORT_CHECKS}
    return {name: with_root_causes(name, results) for name in results}
