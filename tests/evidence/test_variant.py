"""A variant as reports have it."""

from __future__ import annotations

from pytest_mnnquant.checks.coverage.check import LayerRow
from pytest_mnnquant.evidence.variant import layer_report
from tests.synthetic_evidence import as_int8, layer

BIG = layer("big", (64, 64, 3, 3))


def test_a_layer_is_reported_as_it_is_stored() -> None:
    found = layer_report(LayerRow(BIG, as_int8(BIG), wanted=True, quantized=True), "net.big")
    assert (found.name, found.op, found.module, found.title) == ("big", "Convolution", "net.big", "net.big")
    assert (found.weights, found.float_bytes) == (64 * 64 * 9, 4 * 64 * 64 * 9)
    assert (found.storage, found.bits, found.quantized, found.skipped) == ("int8", 8, True, False)
    assert 0 < found.bytes < found.float_bytes


def test_a_layer_that_was_to_stay_float_and_one_that_is_missing() -> None:
    kept, missing = (
        layer_report(LayerRow(BIG, BIG, False, False), None),
        layer_report(LayerRow(BIG, None, True, False), None),
    )
    assert (kept.storage, kept.quantized, kept.skipped, kept.title) == ("float32", False, True, "big")
    assert (missing.storage, missing.bits, missing.bytes, missing.scale_in) == (None, None, 0, None)
