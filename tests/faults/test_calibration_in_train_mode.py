"""A net with BatchNorm, calibrated on noise: in train mode that changes the net itself, in eval mode it does not."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tests.conftest import FIXTURES
from tests.faults.factory import NET, Factory
from tests.plugin.outcomes import Outcome


def test_noise_in_train_mode_fails_and_eval_mode_is_judged_on_its_own(
    factory: Factory, gate: Callable[..., Outcome]
) -> None:
    noise = factory.fresh("noise.npz")
    np.savez(noise, x=3 * np.random.default_rng(0).standard_normal((320, 1, 16, 16), np.float32))
    model = f"{FIXTURES / NET}.py:build"
    verdict = gate("--mnn-model", model, "--mnn-calibration", noise)
    assert verdict.status == 1
    assert verdict.failed == {"int8-train::accuracy", "int8-train::calibration", "int8-eval::calibration"}
    assert {"int8-eval::accuracy", "int8-train::coverage", "int8-train::weights"} < verdict.passed
    verdict.tells("MNQ530", where="fill 1/18", fix="preprocessing")
    verdict.tells("MNQ701", where="0.01 allowed", why="moved BatchNorm statistics", fix="calibrate in eval mode")


def test_real_images_pass_in_both_modes(factory: Factory, gate: Callable[..., Outcome]) -> None:
    verdict = gate("--mnn-model", f"{FIXTURES / NET}.py:build", "-k", "accuracy or coverage")
    assert verdict.status == 0, verdict.text
    assert verdict.passed == {
        f"int8-{mode}::{check}" for mode in ("train", "eval") for check in ("accuracy", "coverage")
    }
