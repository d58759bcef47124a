"""A real voice detector over speech, with its state fed back: 8-bit weights keep it, 4-bit weights ruin it.

Needs silero-vad (extra `zoo`), of which only the ONNX file is used, and espeak-ng to render the speech.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pytest_mnnquant.cache.store import Store
from pytest_mnnquant.findings.accuracy_metrics import AccuracyMetrics
from pytest_mnnquant.findings.finding import FAILED, PASSED
from tests.conftest import ROOT
from tests.results import measured


@pytest.fixture(scope="module")
def silero() -> Any:
    """The benchmark of silero-vad, if what it needs is installed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "benchmarks"))
        import silero
    if silero.model_file() is None:
        pytest.skip("silero-vad is not installed (extra `zoo`)")
    if silero.speaker() is None:
        pytest.skip("espeak-ng is not installed to render speech")
    return silero


@pytest.fixture(scope="module")
def data(silero: Any) -> tuple[Any, Any]:
    """Calibration and evaluation data: 2 and 3 sequences of 5 seconds."""
    command = silero.speaker()
    return {"input": silero.sequences(command, 2, 5.0, 1)["input"]}, silero.sequences(command, 3, 5.0, 2)


@pytest.mark.parametrize(("recipe", "outcome"), [("w8", PASSED), ("w4", FAILED)])
def test_the_verdict_is_that_of_the_speech(
    recipe: str, outcome: str, silero: Any, data: tuple[Any, Any], tmp_path: Path
) -> None:
    result = silero.judge(silero.model_file(), recipe, data, Store(tmp_path))
    task = measured(AccuracyMetrics, result).task
    assert task is not None
    assert task.reference > 0.9
    assert (result.outcome, task.quantized > 0.9) == (outcome, outcome == PASSED)
    errors = measured(AccuracyMetrics, result).error_over_steps
    assert [step.step for step in errors["output"]] == [1, 10, 100]
    assert errors.keys() == {"output", "stateN"}
