"""Pipelines of one's own that calibrate carelessly, with the original quantizer: each fails or warns with its rule."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import FIXTURES
from tests.faults.factory import NET, Factory
from tests.plugin.outcomes import Outcome

pytest.importorskip("mnncompress")

PIPELINES = Path(__file__).with_name("careless_pipelines.py")
MODEL = ("--mnn-model", f"{FIXTURES / NET}.py:build", "--mnn-mode=eval", "-k", "calibration")


@pytest.mark.parametrize(
    ("pipeline", "status", "told"),
    [
        ("careful", 0, {}),
        ("without_a_loop", 1, {"MNQ501": "0 batches"}),
        ("with_one_batch", 0, {"MNQ510": "on 32 samples"}),
        ("carelessly", 1, {"MNQ502": "gradients", "MNQ504": "BatchNorm"}),
        ("trained_on", 1, {"MNQ504": "by up to 0.25"}),
        ("evaluated_afterwards", 1, {"MNQ505": "the scale of"}),
        ("with_a_wild_dummy", 1, {"MNQ505": "the scale of"}),
    ],
)
def test_what_a_pipeline_does_is_seen(
    gate: Callable[..., Outcome], factory: Factory, pipeline: str, status: int, told: dict[str, str]
) -> None:
    verdict = gate(*MODEL, f"--mnn-recipe=theirs={PIPELINES}:{pipeline}")
    assert verdict.status == status, verdict.text
    assert verdict.codes() == told.keys()
    for code, where in told.items():
        verdict.tells(code, where=where)


def test_the_original_quantizer_hangs_on_its_first_batch(gate: Callable[..., Outcome], factory: Factory) -> None:
    images = factory.module(NET).digits_data.train(16)[0][:640]
    faint, data = 0.01 * images[:32], factory.fresh("faint.npz")  # on nothing but zeros it divides by zero
    usual = (*MODEL, "--mnn-recipe=mnncompress", "--mnn-calibration", data)
    np.savez(data, x=np.concatenate([faint, images]))
    verdict = gate(*usual)
    assert verdict.status == 1, verdict.text
    assert verdict.codes() == {"MNQ512"}
    verdict.tells("MNQ512", where="times as wide", why="the first of 21 batches a weight of 82%", fix="shuffle")
    np.savez(data, x=np.concatenate([images, faint]))
    assert gate(*usual).codes() == set()
