"""An input that never changes, but is read in int8, is a state that was never fed, if an output has its shape."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pytest_mnnquant.checks.calibration.constant_inputs import judge_constant_inputs
from pytest_mnnquant.findings.finding import Finding
from pytest_mnnquant.findings.rule import Severity
from pytest_mnnquant.measurements.dataset import Dataset
from tests.golden_text import check_golden

FRAMES = np.random.default_rng(0).normal(0, 1, (20, 40))
STATES = np.zeros((20, 48))
OUTPUTS = {"y": (2,), "h_out": (1, 48)}


def judged(outputs: Any = None, quantized: Any = None, **inputs: Any) -> list[Finding]:
    data = Dataset({"frame": FRAMES, **inputs})
    layers = dict.fromkeys(inputs, "/g/Gemm") if quantized is None else quantized
    return judge_constant_inputs(data, Dataset(data.inputs), layers, OUTPUTS if outputs is None else outputs)


def test_an_input_with_the_shape_of_an_output_is_a_state() -> None:
    (finding,) = judged(h=STATES)
    assert (finding.code, finding.severity, finding.layer) == ("MNQ522", Severity.ERROR, "/g/Gemm")
    assert finding.cause is not None
    assert finding.cause.id == "state-never-fed"
    assert "--mnn-state=h=h_out" in finding.fix
    check_golden("calibration/a-state-that-was-never-fed", finding.message)


def test_states_are_paired_with_outputs_in_order() -> None:
    findings = judged({"y": (2,), "hn": (48,), "cn": (48,)}, h=STATES, c=STATES)
    assert ["--mnn-state=h=hn" in findings[0].fix, "--mnn-state=c=cn" in findings[1].fix] == [True, True]


def test_an_input_without_such_an_output_is_a_warning() -> None:
    (finding,) = judged({"y": (2,)}, mask=np.zeros((20, 7)))
    assert (finding.code, finding.severity) == ("MNQ522", Severity.WARNING)


def test_another_constant_than_0_is_a_setting_even_with_such_an_output() -> None:
    """As the noise level of a denoiser, a picture of one value."""
    (finding,) = judged({"picture": (8, 8)}, level=np.full((20, 8, 8), 0.1))
    assert (finding.code, finding.severity) == ("MNQ522", Severity.WARNING)


@pytest.mark.parametrize(
    ("inputs", "quantized"),
    [
        ({"h": STATES}, {}),
        ({"h": STATES + np.arange(20)[:, None]}, None),
        ({"h": np.concatenate([STATES[:19], STATES[:1] + 1])}, None),
    ],
    ids=["not in int8", "varies", "varies once"],
)
def test_others_are_left_alone(inputs: Any, quantized: Any) -> None:
    assert judged(quantized=quantized, **inputs) == []


def test_a_state_that_varies_in_one_set_is_left_alone() -> None:
    calibration, evaluation = (
        Dataset({"frame": FRAMES, "h": STATES}),
        Dataset({"frame": FRAMES, "h": STATES + FRAMES[:, :1]}),
    )
    assert judge_constant_inputs(calibration, evaluation, {"h": "/g/Gemm"}, OUTPUTS) == []


def test_samples_that_are_all_the_same_are_another_finding() -> None:
    data = Dataset({"h": STATES})
    assert judge_constant_inputs(data, data, {"h": "/g/Gemm"}, OUTPUTS) == []


def test_an_input_that_the_evaluation_data_lack_is_judged_by_the_calibration_data() -> None:
    calibration = Dataset({"frame": FRAMES, "h": STATES})
    findings = judge_constant_inputs(calibration, Dataset({"frame": FRAMES}), {"h": "/g/Gemm"}, OUTPUTS)
    assert [finding.code for finding in findings] == ["MNQ522"]


def test_an_input_is_no_state_if_a_switch_is_off() -> None:
    """SAM's `mask_input` of zeros has the shape of an output, and `has_mask_input` is 0."""
    (finding,) = judged(mask=STATES, has_mask=np.zeros((20, 1)), quantized={"mask": "/g/Gemm"})
    assert finding.severity is Severity.WARNING
    (finding,) = judged(mask=STATES, has_mask=np.ones((20, 1)), quantized={"mask": "/g/Gemm"})
    assert finding.severity is Severity.ERROR
