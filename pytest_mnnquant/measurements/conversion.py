"""What each step of a conversion computes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from pytest_mnnquant.metrics.agreement import SAME, Agreement

PYTORCH: Final = "PyTorch"


ONNX: Final = "ONNX"


FLOAT_MNN: Final = "float .mnn"


#: A variant may be quantized from another float model than the source's: see `Variant.base`.
CALIBRATED: Final = "PyTorch, as calibrated"


VARIANTS_FLOAT: Final = "float .mnn of the variant"


@dataclass(frozen=True)
class Step:
    """How well each output that `after` computes agrees with what `before`, which it was made from, computes."""

    before: str
    after: str
    outputs: dict[str, Agreement]


def describe_disagreement(item: Agreement, whose: str) -> str:
    """An output's figures in words, as "is off by ..."; `whose` it should have been."""
    if item.equal is not None:
        return f"has {item.equal:.1%} of {whose} integers"
    cosine = "-" if item.cosine is None else format(item.cosine, ".4f")
    return f"is off by {item.relative_error:.2g} of its range, {SAME:g} allowed (cosine {cosine})"
