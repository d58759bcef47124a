"""Whether a model computes the same through both APIs of MNN, Session and Module."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from pytest_mnnquant.checks.weights.scale_order import BY_ADDRESS, BY_ADDRESS_FIX
from pytest_mnnquant.findings.cause import Cause, Explanation
from pytest_mnnquant.findings.finding import Finding

#: Both run the same kernels in the same order, so a difference of more steps does not come from rounding.
MOST_STEPS: Final = 1.05
_UNKNOWN: Final = Explanation(
    Cause("apis-differ", "the two APIs run different arithmetic on the same file"),
    "judge and ship the API that your app uses, and report the model to MNN",
)


@dataclass(frozen=True)
class ApiDifference:
    """How far an output differs between the two APIs, in quantization steps, on `samples` samples.

    `operator` is the first one whose output differs; empty if it is unknown. `is_by_address`: its scale depends
    on addresses.
    """

    output: str
    steps: float
    samples: int
    operator: str = ""
    is_by_address: bool = False

    @property
    def is_rounding(self) -> bool:
        """Whether the difference may come from rounding."""
        return self.steps <= MOST_STEPS


def check_apis(difference: ApiDifference | None, known: Mapping[str, Explanation] | None = None) -> list[Finding]:
    """A finding if an output differs by more than rounding; `difference` is None if only one API can run the model.

    `known` explains operators that MNN is known to compute wrongly.
    """
    if difference is None or difference.is_rounding:
        return []
    message = (
        f"output {difference.output} differs by {difference.steps:.3g} quantization steps between the Module API and "
        f"the Session API, allowed {MOST_STEPS:g} ({difference.samples} samples)"
    )
    known_why = (known or {}).get(difference.operator, _UNKNOWN)
    why = Explanation(BY_ADDRESS, BY_ADDRESS_FIX) if difference.is_by_address else known_why
    return [Finding("MNQ630", message, difference.operator, cause=why.cause, fix=why.fix)]
