"""Norms that lack the 1 that the others have: Gemma and others store the weight of a norm minus 1.

Exporters add it where they see the formula of the norm. That of MNN 3.6.1 does not see it in the norms of queries and
keys that it fuses with the rotation.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Final

import numpy as np

from pytest_mnnquant.findings.cause import Cause
from pytest_mnnquant.findings.finding import Finding
from pytest_mnnquant.llm.bound import BoundVector
from pytest_mnnquant.llm.checkpoint import Checkpoint

_EQUAL: Final = 1e-3
#: Layers whose norms have another formula than those around them.
_OTHER: Final = "linear_attn"


def judge_offsets(vectors: Iterable[BoundVector], source: Checkpoint) -> Iterator[Finding]:
    """Norms whose stored weight is the source's plus another constant than that of most norms."""
    offsets = {
        item: offset
        for item in vectors
        if item.stored.kind == "LayerNorm" and _OTHER not in item.source
        if (offset := _offset(item, source)) is not None
    }
    if not offsets:
        return
    (usual, count), *_ = Counter(offsets.values()).most_common()
    if 2 * count <= len(offsets):
        return
    for item, offset in offsets.items():
        if offset != usual:
            message = f"it is {item.source} plus {offset}, most norms of the export are the source's plus {usual}"
            text = "this model computes with the weight of a norm plus 1, and the exporter did not add it to this one"
            fix = f"add the {usual} to {item.source} in the exporter, and export again"
            yield Finding("MNQ411", message, item.stored.name, Cause("offset-of-norm", text), fix)


def _offset(item: BoundVector, source: Checkpoint) -> int | None:
    """What was added to the source's weight, 0 or 1; None if it is neither."""
    stored, expected = item.stored.values.ravel(), source.rows(item.source).ravel()
    if not stored.size or stored.shape != expected.shape:
        return None
    size = float(np.abs(expected).max(initial=0.0)) or 1.0
    return next((more for more in (0, 1) if float(np.abs(stored - expected - more).max()) <= _EQUAL * size), None)
