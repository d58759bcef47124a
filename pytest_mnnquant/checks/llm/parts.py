"""Coverage of the other graphs of an export: vision and audio parts, with the bits that were requested for them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from pytest_mnnquant.checks.llm.evidence import ExportEvidence
from pytest_mnnquant.findings.finding import Finding
from pytest_mnnquant.llm.graph import Graph

_VISION: Final = "visual"
#: The share of a part's weight bytes that may be stored otherwise, as in the suite for ordinary models.
_TOLERATED: Final = 0.01


def judge_parts(evidence: ExportEvidence) -> Iterator[Finding]:
    """Parts whose weights do not have the requested bits. Without `--visual_quant_bit` the exporter's choice counts."""
    options = evidence.folder.options
    for part in evidence.folder.parts:
        if part.file.startswith(_VISION) and options is not None and options.visual_bits is not None:
            yield from _judge(part, options.visual_bits)


def _judge(part: Graph, bits: int) -> Iterator[Finding]:
    wrong = sorted((matrix for matrix in part.matrices if matrix.bits != bits), key=lambda matrix: -matrix.count)
    total = sum(matrix.bytes for matrix in part.matrices)
    lost = sum(matrix.bytes for matrix in wrong)
    if not wrong or lost <= _TOLERATED * total:
        return
    worst = wrong[0]
    expected = "float16" if bits == 16 else f"w{bits}"
    more = f"; {len(wrong) - 1} other layers are affected too" if len(wrong) > 1 else ""
    message = (
        f"stored as {worst.label}, {expected} was requested ({lost / total:.0%} of the bytes of {part.file}){more}"
    )
    code = "MNQ402" if worst.is_quantized else "MNQ401"
    yield Finding(code, message, f"{part.file}:{worst.name}", fix=f"export again with --visual_quant_bit {bits}")
