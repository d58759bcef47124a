"""Execution of an export: MNN.llm computes what the decoded weights compute.

Measured on exports of 2 to 16 bits: without a fault the KL divergence is at most 0.002 in memory mode low, whose
kernels round activations to 8 bits, and 1e-9 in mode normal with precision high. Of the faults that change values, the
smallest (a norm that subtracts the mean) has 3e-5 in mode normal.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np

from pytest_mnnquant.checks.llm.running import ExecutionEvidence
from pytest_mnnquant.findings.cause import Cause
from pytest_mnnquant.findings.finding import Finding, Result
from pytest_mnnquant.findings.run_metrics import ExecutionMetrics
from pytest_mnnquant.metrics.divergence import Divergence

#: Mode low may lose this without a look at mode normal, which loses nothing and decides what is wrong.
EXACT: Final = 2e-3
#: What mode normal with precision high may lose.
_ROUNDING: Final = 5e-6
#: What single tokens may lose, if whole texts lose less than a tenth of it: they lose 0.6 to 1.4 of each other.
_STEPS: Final = 5e-4
#: What the kernels of mode low may lose.
_ROUNDED: Final = 0.05
_FIX: Final = "run another version of MNN, or export again with the exporter of the version that runs"


def check_execution(evidence: ExecutionEvidence) -> Result:
    """Judge the divergence of the runtime from the stored weights."""
    whole, steps = (float(item.kl.mean()) for item in (evidence.whole, evidence.steps))
    normal = None if evidence.normal is None else float(evidence.normal.kl.mean())
    metrics = ExecutionMetrics(ops=0, int8_ops=0, casts=0, kl=whole, kl_of_steps=steps, kl_in_normal_mode=normal)
    return Result.from_findings("execution", _findings(evidence, whole, steps, normal), metrics)


def _findings(evidence: ExecutionEvidence, whole: float, steps: float, normal: float | None) -> Iterator[Finding]:
    if not evidence.whole.is_finite:
        message = f"MNN.llm computes values that are not finite for {_broken_tokens(evidence):,} tokens"
        yield Finding("MNQ640", message, fix=_FIX)
        return
    if evidence.normal is not None and normal is not None and not normal <= _ROUNDING:
        yield _differs(evidence.normal, normal)
    elif not whole <= _ROUNDED:
        yield Finding(
            "MNQ640",
            f"KL divergence {whole:.3g} of MNN.llm from the decoded weights, at most {_ROUNDED:g} allowed "
            f"(memory mode {evidence.memory})",
            cause=Cause("kernels-lose", f"the kernels of memory mode {evidence.memory} lose it"),
            fix='set "memory": "normal" in config.json',
        )
    elif not steps <= max(_STEPS, 10 * whole):
        yield Finding(
            "MNQ641",
            f"token by token, KL divergence {steps:.3g} of MNN.llm from the decoded weights; "
            f"for whole texts {whole:.3g}",
            cause=Cause("cache-differs", "the cache of keys and values does not hold what whole texts compute"),
            fix=_FIX,
        )


def _differs(run: Divergence, mean: float) -> Finding:
    """The error of a run that differs beyond rounding. A first token has no others to attend to, at no angle."""
    message = (
        f"KL divergence {mean:.3g} of MNN.llm from the decoded weights, at most {_ROUNDING:g} allowed "
        "(memory mode normal, precision high)"
    )
    if float(run.kl[:, 0].mean()) <= _ROUNDING:
        text = (
            "the first token of each text agrees, later ones differ: the graph rotates or masks positions otherwise "
            "than the source"
        )
        fix = "export with an exporter that knows this architecture, and compare its rotations and windows"
        return Finding("MNQ640", message, cause=Cause("positions-differ", text), fix=fix)
    text = "MNN.llm reads other weights than the files hold, or the graph is not that of the source"
    return Finding("MNQ640", message, cause=Cause("weights-read-otherwise", text), fix=_FIX)


def _broken_tokens(evidence: ExecutionEvidence) -> int:
    return int((~np.isfinite(evidence.whole.kl)).sum())
