"""Measures that convert blocks of samples give what whole arrays give, in a fraction of the memory."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from pytest_mnnquant.metrics import blocks
from pytest_mnnquant.metrics.agreement import agreement
from pytest_mnnquant.metrics.details import compare_detail
from pytest_mnnquant.metrics.variation import variation

RANDOM = np.random.default_rng(0)
REFERENCE = (100 + RANDOM.standard_normal((30, 2, 12, 12))).astype(np.float32)
OUTPUT = (REFERENCE + 0.1 * RANDOM.standard_normal(REFERENCE.shape)).astype(np.float32)


def test_all_samples_are_in_a_block() -> None:
    chosen = list(blocks.blocks_of(10, blocks._ELEMENTS // 4))
    assert [(part.start, part.stop) for part in chosen] == [(0, 4), (4, 8), (8, 10)]
    assert len(list(blocks.blocks_of(3, 10 * blocks._ELEMENTS))) == 3


def test_blocks_change_no_measure(monkeypatch: pytest.MonkeyPatch) -> None:
    def measures() -> list[float]:
        item, whole = agreement(REFERENCE, OUTPUT), variation(REFERENCE, OUTPUT)
        detail = compare_detail(REFERENCE, OUTPUT, {"picture": OUTPUT})
        assert item.cosine is not None
        assert detail is not None
        return [
            *(item.sqnr_db, item.centred_sqnr_db, item.cosine, item.max_error, item.mean_error, item.range),
            *(whole.sqnr_db, whole.peak, whole.rms, whole.range, detail.explained, float(detail.sqnr_db.mean())),
        ]

    expected = measures()
    mean = REFERENCE.astype(np.float64).mean(0)
    noise = np.square(REFERENCE.astype(np.float64) - OUTPUT).sum()
    assert expected[1] == pytest.approx(10 * np.log10(np.square(REFERENCE - mean).sum() / noise))
    monkeypatch.setattr(blocks, "_ELEMENTS", 700)
    assert measures() == pytest.approx(expected, rel=1e-9)


def test_a_constant_has_no_variation_however_large_it_is() -> None:
    constant = np.full((20, 5), 1e7 / 3, np.float32)
    assert variation(constant, constant + 1).rms == 0
    assert agreement(constant, constant + 1).centred_sqnr_db == -np.inf


def test_a_large_output_needs_a_fraction_of_its_copies_in_float64() -> None:
    reference = RANDOM.random((32, 400_000), np.float32)
    output = reference + np.float32(0.01)
    tracemalloc.start()
    agreement(reference, output)
    variation(reference, output)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 * reference.nbytes
