"""How much of a text is computed: as much as numpy computes in some seconds, and no logits that fill the disk."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

import numpy as np

from pytest_mnnquant.llm.forward import Ids

#: Products of tokens and weights, and of tokens and vocabulary, that are computed.
_WORK: Final = 4e10
_LOGITS: Final = 4e7
_FEWEST, _MOST = 256, 2048


@dataclass(frozen=True, slots=True)
class Sample:
    """`texts` pieces of `length` tokens; of the first one, the last `steps` are also fed one by one."""

    texts: int
    length: int
    steps: int


def sample_of(parameters: int, vocabulary: int) -> Sample:
    """The sample for a model of this size."""
    affordable = min(_WORK / max(1, parameters), _LOGITS / max(1, vocabulary))
    tokens = int(min(_MOST, max(_FEWEST, affordable)))
    length = 128 if tokens >= 1024 else 64
    return Sample(tokens // length, length, length // 2)


def random_ids(sample: Sample, vocabulary: int, without: Collection[int] = ()) -> Ids:
    """Ids to compare two computations of the same weights with, if no text is given; always the same.

    Of `without` none is used, such as the tokens that stand for images.
    """
    ids = np.random.default_rng(24).integers(0, max(1, vocabulary), (sample.texts, sample.length))
    allowed = np.setdiff1d(np.arange(max(1, vocabulary)), [*without])
    return np.where(np.isin(ids, [*without]), allowed[ids % len(allowed)], ids) if len(allowed) else ids
