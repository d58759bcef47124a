"""Finished files are judged on a machine that has no torch."""

from __future__ import annotations

import os

import pytest

from tests.faults.conftest import JUDGED
from tests.faults.factory import HIDDEN, Factory
from tests.plugin.outcomes import Outcome, outcome


@pytest.fixture
def no_torch(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine on which `import torch` fails."""
    hidden = pytester.mkdir("hidden")
    (hidden / "torch.py").write_text("raise ImportError('there is no torch here')")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(hidden), os.environ.get("PYTHONPATH", "")]))


def judged(pytester: pytest.Pytester, factory: Factory, *args: object) -> Outcome:
    files = ["--mnn-model", str(factory.onnx()), "--mnn-evaluation", str(factory.evaluation())]
    usual = ["-rA", "-k", "not latency", "--mnn-cache-dir", str(factory.store.root)]
    return outcome(pytester.runpytest_subprocess(*files, *usual, *map(str, args)))


@pytest.mark.usefixtures("no_torch")
def test_finished_files_are_judged(pytester: pytest.Pytester, factory: Factory) -> None:
    healthy = judged(pytester, factory, "--mnn-quantized", factory.int8(), "--mnn-params", factory.params())
    assert healthy.status == 0, healthy.text
    assert healthy.passed == JUDGED
    float_model = factory.convert(factory.float(), "--compressionParams", factory.params())
    verdict = judged(pytester, factory, "--mnn-quantized", float_model, "--mnn-params", factory.params())
    assert verdict.status == 1
    assert "int8::coverage" in verdict.failed
    assert f"MNQ401 layer-is-float {HIDDEN}" in verdict.text


@pytest.mark.usefixtures("no_torch")
def test_an_onnx_source_is_calibrated_and_quantized(pytester: pytest.Pytester, factory: Factory) -> None:
    healthy = judged(pytester, factory, "--mnn-calibration", factory.evaluation())
    assert healthy.status == 0, healthy.text
    assert healthy.passed == JUDGED


@pytest.mark.usefixtures("no_torch")
def test_a_pytorch_source_says_that_torch_is_missing(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(net="def build():\n    raise SystemExit('never called')")
    verdict = outcome(pytester.runpytest_subprocess("-rA", "--mnn-model=net.py:build", "-k", "conversion"))
    assert verdict.status == 1
    assert "pip install 'pytest-mnnquant[torch]'" in verdict.text
