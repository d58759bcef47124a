"""Measures that convert blocks of samples give what whole arrays give, in a fraction of the memory."""

from __future__ import annotations

import dataclasses
import tracemalloc
from typing import Any

import numpy as np
import pytest

from pytest_mnnquant.checks.accuracy.output_measures import measure_outputs
from pytest_mnnquant.checks.accuracy.part_variation import PartEvidence
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


IMAGES = RANDOM.random((24, 3, 16, 16), np.float32)
HEAT = np.exp(-np.square(np.indices((24, 24)) - np.array([9, 14])[:, None, None]).sum(0) / 8).astype(np.float32)
SCORES = 9 * np.eye(4, dtype=np.float32)[RANDOM.integers(0, 4, (24, 16, 16))].transpose(0, 3, 1, 2)
#: Outputs of the kinds that are recognised by their values: [samples, ...] of the float model.
KINDS = {
    "class scores": SCORES,
    "logarithms of shares": SCORES - np.log(np.exp(SCORES).sum(1, keepdims=True)),
    "probabilities": (RANDOM.random((24, 3, 16, 16)) > 0.6).astype(np.float32) * 0.98 + 0.01,
    "logits": np.where(RANDOM.random((24, 1, 16, 16)) > 0.6, 8, -8).astype(np.float32) + IMAGES[:, :1],
    "heat maps": np.stack([np.roll(HEAT, (n % 5, n % 3), (0, 1)) for n in range(24)])[:, None].repeat(3, 1),
    "a picture": 0.9 * IMAGES + 0.1 * IMAGES[:, :, ::-1],
    "groups of channels": IMAGES.mean((2, 3)) * np.array([0.01, 1, 300], np.float32),
    "identifiers": RANDOM.integers(0, 9, (24, 16, 16)) * (RANDOM.random((24, 16, 16)) > 0.7),
}
RECOGNISED: dict[str, set[str]] = {
    "class scores": {"decisions", "identifiers"},
    "logarithms of shares": {"decisions", "identifiers"},
    "probabilities": {"decisions", "identifiers", "channel"},
    "logits": {"decisions", "identifiers"},
    "heat maps": {"peaks"},
    "a picture": {"detail", "maps"},
    "groups of channels": {"parts"},
    "identifiers": {"identifiers"},
}


@pytest.mark.parametrize("step", [1, 2, 7, 100])
@pytest.mark.parametrize("elements", [1, 40, 10**9])
def test_steps_go_on_in_the_next_block(monkeypatch: pytest.MonkeyPatch, step: int, elements: int) -> None:
    monkeypatch.setattr(blocks, "_ELEMENTS", elements)
    for array in (IMAGES, np.moveaxis(IMAGES, 1, -1), IMAGES[:, 0]):
        np.testing.assert_array_equal(blocks.values_at(array, step), array.reshape(-1)[::step])
        np.testing.assert_array_equal(blocks.rows_at(array, step), array.reshape(-1, array.shape[-1])[::step])


@pytest.mark.parametrize("kind", KINDS)
def test_blocks_change_no_measure_of_any_kind_of_output(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """And intermediate results that lie in files are those in memory."""
    reference = KINDS[kind]
    noise = 0.03 * np.ptp(reference) * np.random.default_rng(1).standard_normal(reference.shape)
    output = reference + noise.astype(np.float32) if reference.dtype.kind == "f" else np.roll(reference, 1, 2)
    evidence = PartEvidence(moved={"y": ("t",)}, probabilities=frozenset({"y"} if kind == "probabilities" else ()))

    def measures() -> dict[str, Any]:
        return dataclasses.asdict(measure_outputs({"y": reference}, {"y": output}, {"x": IMAGES}, evidence)["y"])

    whole = measures()
    recognised = {name for name, value in whole.items() if value not in (None, ())} - {"agreement", "variation"}
    assert recognised == RECOGNISED[kind]
    monkeypatch.setattr(blocks, "_ELEMENTS", 500)
    monkeypatch.setattr(blocks, "_LARGE", 100)
    require_close(measures(), whole)


def require_close(found: Any, expected: Any) -> None:
    """Compare nested measures."""
    if isinstance(expected, dict):
        for key, value in expected.items():
            require_close(found[key], value)
    elif isinstance(expected, tuple | list):
        for one, other in zip(found, expected, strict=True):
            require_close(one, other)
    elif isinstance(expected, np.ndarray | float):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7)
    else:
        assert found == expected
