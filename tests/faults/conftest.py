"""Plants faults with MNN's own converter, and has each judged by a run of the plugin on the finished files."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import pytest
import torch

from pytest_mnnquant.cache.store import Store
from pytest_mnnquant.findings.catalogue import CHECK_NAMES
from tests.faults.factory import Factory

pytest.register_assert_rewrite("tests.plugin.outcomes")

from tests.plugin.outcomes import Outcome, outcome  # noqa: E402

with warnings.catch_warnings():  # Imported before any run in this process: a run forgets what it imported.
    warnings.simplefilter("ignore")
    import onnx  # noqa: F401
    import onnxruntime  # noqa: F401

STILL = "conversion or params or coverage or weights or size or bundle"
#: What an int8 model is judged by; a weight-only one has no params.
JUDGED = {f"int8::{check}" for check in CHECK_NAMES if check != "latency"}


class Judge(Protocol):
    """Runs the plugin on a source and a finished model; `still` leaves out the checks that run the model."""

    def __call__(
        self,
        source: Path,
        quantized: Path,
        *more: object,
        params: Path | None = None,
        data: Path | None = None,
        still: bool = False,
    ) -> Outcome: ...


@pytest.fixture(scope="session")
def factory(store: Store, tmp_path_factory: pytest.TempPathFactory) -> Factory:
    """The artifacts of this test run.

    Torch must not be imported twice, and a test with `pytester` forgets what it imported: so what imports more of torch
    (an export, a calibration, an optimizer) must first happen in fixtures of a wider scope, as here.
    """
    torch.set_num_threads(1)  # Waiting threads of torch would fight MNN's processes for the cores.
    folder = tmp_path_factory.mktemp("artifacts")
    with warnings.catch_warnings():  # Neither torch's export machinery nor onnxscript works when imported twice.
        warnings.simplefilter("ignore")
        torch.onnx.export(torch.nn.Conv2d(1, 1, 1).eval(), (torch.zeros(1, 1, 2, 2),), folder / "any.onnx", dynamo=True)
    made = Factory(store, folder)
    made.params()
    return made


@pytest.fixture
def gate(pytester: pytest.Pytester, store: Store) -> Callable[..., Outcome]:
    """Runs the plugin in this process, all warnings being errors, without the timed check."""

    def run(*args: object) -> Outcome:
        usual = ("-W", "error", "-p", "no:cacheprovider", "-k", "not latency", f"--mnn-cache-dir={store.root}")
        return outcome(pytester.runpytest_inprocess(*usual, *map(str, args)))

    return run


@pytest.fixture
def judge(gate: Callable[..., Outcome], factory: Factory) -> Judge:
    """Runs the plugin on finished files, with held-out digits unless told otherwise."""

    def run(
        source: Path,
        quantized: Path,
        *more: object,
        params: Path | None = None,
        data: Path | None = None,
        still: bool = False,
    ) -> Outcome:
        files: list[object] = ["--mnn-model", source, "--mnn-quantized", quantized]
        files += ["--mnn-params", params] if params else []
        files += ["-k", STILL] if still else ["--mnn-evaluation", data or factory.evaluation()]
        return gate(*files, *more)

    return run
