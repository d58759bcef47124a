"""Whether a model computes the same through both of MNN's APIs, the Session and the Module."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from pytest_mnnquant.checks.weights.scale_order import BY_ADDRESS, BY_ADDRESS_FIX
from pytest_mnnquant.findings.cause import Cause, Explanation
from pytest_mnnquant.findings.finding import Finding

#: The two run the same kernels in one order: more than this many steps between them is not rounding.
MOST_STEPS: Final = 1.05
_UNKNOWN: Final = Explanation(
    Cause("apis-differ", "the two APIs run different arithmetic for the same file"),
    "judge and ship the API that your app uses, and report the model to MNN",
)


@dataclass(frozen=True)
class ApiDifference:
    """How far an output is apart between the two APIs, in steps of its scale, on `samples` samples.

    `operator` is the first one that makes something else; empty if none was found. `is_by_address`: its scale depends
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
    """A finding if an output differs by more than rounding; None: the model runs through one API only.

    `known` explains operators that MNN is known to compute wrongly.
    """
    if difference is None or difference.is_rounding:
        return []
    message = (
        f"output {difference.output} through the Module API is {difference.steps:.3g} steps from the Session API's, "
        f"at most {MOST_STEPS:g} allowed ({difference.samples} samples)"
    )
    known_why = (known or {}).get(difference.operator, _UNKNOWN)
    why = Explanation(BY_ADDRESS, BY_ADDRESS_FIX) if difference.is_by_address else known_why
    return [Finding("MNQ630", message, difference.operator, cause=why.cause, fix=why.fix)]
