"""How far the predictions of a language model are from those of another, token by token.

KL(P || Q) = sum of P * log(P / Q) over the vocabulary, in nats; P are the probabilities of the reference.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[np.float64]
#: Values of logits that are looked at together.
_CHUNK: Final = 1 << 22


@dataclass(frozen=True)
class Divergence:
    """Per token, shape [texts, tokens]: KL divergence, and whether both find the same token most likely.

    `reference_loss` and `loss` are -log of the probability of the next token, shape [texts, tokens - 1].
    """

    kl: Values
    agrees: npt.NDArray[np.bool_]
    reference_loss: Values
    loss: Values

    @property
    def is_finite(self) -> bool:
        """Whether all predictions are numbers."""
        return bool(np.isfinite(self.kl).all())


def divergence(
    ids: npt.NDArray[np.int64], reference: npt.NDArray[np.floating], logits: npt.NDArray[np.floating]
) -> Divergence:
    """Compare logits [texts, tokens, vocabulary] with those of the reference. Raises `ValueError` for other shapes.

    If one vocabulary is padded, the tokens that both have are compared.
    """
    if reference.shape[:2] != ids.shape or logits.shape[:2] != ids.shape:
        raise ValueError(f"logits of the shapes {reference.shape} and {logits.shape} are not those of {ids.shape}")
    common = min(reference.shape[-1], logits.shape[-1])
    kl, agrees = np.empty(ids.shape), np.empty(ids.shape, bool)
    losses = np.empty((2, *ids.shape))
    following = np.roll(ids, -1, axis=1)
    step = max(1, _CHUNK // common)
    for text in range(ids.shape[0]):
        for start in range(0, ids.shape[1], step):
            place = (text, slice(start, start + step))
            first, second = (_log_probabilities(values[place][..., :common]) for values in (reference, logits))
            with np.errstate(all="ignore"):
                probability = np.exp(first)  # 0 for a logit of -infinity, which adds 0.
                kl[place] = np.where(probability > 0, probability * (first - second), 0).sum(-1)
            agrees[place] = first.argmax(-1) == second.argmax(-1)
            chosen = np.minimum(following[place], common - 1)[:, None]
            for number, values in enumerate((first, second)):
                losses[(number, *place)] = -np.take_along_axis(values, chosen, -1)[:, 0]
    return Divergence(kl, agrees, losses[0, :, :-1], losses[1, :, :-1])


def _log_probabilities(logits: npt.NDArray[np.floating]) -> Values:
    values = np.asarray(logits, np.float64)
    with np.errstate(all="ignore"):
        values = values - values.max(-1, keepdims=True)
        result: Values = values - np.log(np.exp(values).sum(-1, keepdims=True))
    return result
