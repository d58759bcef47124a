"""How well the models before and after each step of a conversion agree."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from pytest_mnnquant.metrics.agreement import SAME, Agreement

PYTORCH: Final = "PyTorch"


ONNX: Final = "ONNX"


TFLITE: Final = "TFLite"


#: A `.mnn` source that was converted again, because another version of MNN made it or its weights were outside.
MNN_SOURCE: Final = ".mnn source"


FLOAT_MNN: Final = "float .mnn"


#: A variant may be quantized from another float model than the source's: see `Variant.base`.
CALIBRATED: Final = "PyTorch, as calibrated"


VARIANTS_FLOAT: Final = "float .mnn of the variant"


@dataclass(frozen=True)
class Step:
    """How well each output of the model `after` agrees with that of `before`, which it was made from."""

    before: str
    after: str
    outputs: dict[str, Agreement]


@dataclass(frozen=True)
class BatchDifference:
    """An output that a float model computes rightly for single samples, and wrongly for several at once.

    `in_source`: its source computes the same for both.
    """

    output: str
    alone: Agreement
    together: Agreement
    in_source: bool = False


def describe_disagreement(item: Agreement, expected: str) -> str:
    """How an output differs, as a phrase: "differs by ..."; `expected` names the right output: "the network's"."""
    if item.equal is not None:
        return f"equals {expected} in {item.equal:.1%} of its integers"
    cosine = "-" if item.cosine is None else format(item.cosine, ".4f")
    return f"differs by {item.relative_error:.2g} of its range, allowed {SAME:g} (cosine {cosine})"
