"""KL divergence, agreement and loss, by their definitions."""

from __future__ import annotations

import numpy as np
import pytest

from pytest_mnnquant.metrics import divergence as module
from pytest_mnnquant.metrics.divergence import divergence

_RANDOM = np.random.default_rng(3)
_IDS = _RANDOM.integers(0, 50, (2, 9))
_FIRST, _SECOND = _RANDOM.normal(size=(2, 2, 9, 50))


def test_values_are_those_of_the_definition() -> None:
    result = divergence(_IDS, _FIRST, _SECOND)
    first, second = (np.exp(values) / np.exp(values).sum(-1, keepdims=True) for values in (_FIRST, _SECOND))
    np.testing.assert_allclose(result.kl, (first * np.log(first / second)).sum(-1))
    np.testing.assert_array_equal(result.agrees, _FIRST.argmax(-1) == _SECOND.argmax(-1))
    expected = [[-np.log(second[text, place, _IDS[text, place + 1]]) for place in range(8)] for text in range(2)]
    np.testing.assert_allclose(result.loss, expected)
    assert result.reference_loss.shape == (2, 8)


def test_shifted_logits_are_the_same_predictions() -> None:
    result = divergence(_IDS, _FIRST, _FIRST + 5)
    np.testing.assert_allclose(result.kl, 0, atol=1e-12)
    assert result.agrees.all()


def test_a_padded_vocabulary_is_cut() -> None:
    padded = np.concatenate([_SECOND, np.full((2, 9, 6), 30.0)], axis=-1)
    np.testing.assert_allclose(divergence(_IDS, _FIRST, padded).kl, divergence(_IDS, _FIRST, _SECOND).kl)


def test_chunks_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = divergence(_IDS, _FIRST, _SECOND)
    monkeypatch.setattr(module, "_CHUNK", 120)
    np.testing.assert_array_equal(divergence(_IDS, _FIRST, _SECOND).kl, whole.kl)


def test_broken_logits_are_not_finite() -> None:
    broken = _SECOND.copy()
    broken[1, 3, 4] = np.nan
    assert not divergence(_IDS, _FIRST, broken).is_finite


def test_other_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="shapes"):
        divergence(_IDS, _FIRST[:1], _SECOND)


def test_tokens_that_both_exclude_add_nothing() -> None:
    first, second = _FIRST.copy(), _SECOND.copy()
    first[..., 40:] = second[..., 40:] = -np.inf
    expected = divergence(_IDS % 40, _FIRST[..., :40], _SECOND[..., :40])
    np.testing.assert_allclose(divergence(_IDS % 40, first, second).kl, expected.kl)
    second[..., 3] = -np.inf
    assert not divergence(_IDS % 40, first, second).is_finite
