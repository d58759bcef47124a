"""A step that raises is one error, the same for everything that needs it."""

from __future__ import annotations

import pytest

from pytest_mnnquant.evidence.steps import INTERNAL, NothingToJudge, StepFailed, step, step_property
from pytest_mnnquant.mnnfile.model import BadModel


class Evidence:
    """Two steps; one of them can fail."""

    def __init__(self, error: Exception) -> None:
        self.calls = 0
        self.error = error

    @step_property("run the model")
    def outputs(self) -> int:
        """Raises the error."""
        self.calls += 1
        raise self.error

    @step_property("read the file")
    def size(self) -> int:
        """A number."""
        self.calls += 1
        return 7


def failure(evidence: Evidence) -> Exception:
    with pytest.raises(Exception) as raised:
        evidence.outputs  # noqa: B018
    return raised.value


def test_a_value_is_made_once() -> None:
    evidence = Evidence(ValueError("x"))
    assert (evidence.size, evidence.size, evidence.calls) == (7, 7, 1)


@pytest.mark.parametrize("error", [ValueError("two\nlines"), KeyError("x"), AssertionError(), ZeroDivisionError("/")])
def test_an_unexpected_exception_names_its_step_and_is_not_repeated(error: Exception) -> None:
    evidence = Evidence(error)
    first, second = failure(evidence), failure(evidence)
    assert first is second
    assert isinstance(first, StepFailed)
    assert (first.step, first.error, evidence.calls) == ("run the model", error, 1)
    assert (first.finding.code, first.finding.cause_id) == (INTERNAL, "run-the-model")
    assert "\n" not in first.finding.message
    assert "test_steps.py" in first.finding.cause_text


def test_errors_of_the_model_pass_unchanged() -> None:
    error = BadModel("cut")
    assert failure(Evidence(error)) is error
    with pytest.raises(NothingToJudge), step("judge size"):
        raise NothingToJudge("no data")


def test_an_interrupt_passes_unchanged() -> None:
    with pytest.raises(KeyboardInterrupt), step("judge size"):
        raise KeyboardInterrupt
