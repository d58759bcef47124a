"""A source that is prepared for quantization: its float model, its data, and the proof that both compute the same."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final

from pytest_mnnquant.findings.defaults import EXPORTER, TIMEOUT
from pytest_mnnquant.measurements.conversion import BatchDifference, Step
from pytest_mnnquant.measurements.dataset import Dataset
from pytest_mnnquant.measurements.run import Run
from pytest_mnnquant.measurements.sample_axes import SampleAxes
from pytest_mnnquant.measurements.sequences import Sequences
from pytest_mnnquant.metrics.agreement import Agreement
from pytest_mnnquant.mnnfile.model import Model
from pytest_mnnquant.runtime.options import RunOptions
from pytest_mnnquant.sources.data import as_dataset, load_data
from pytest_mnnquant.sources.folders import Preparation
from pytest_mnnquant.sources.spec import Spec, call, seeded_generators

if TYPE_CHECKING:
    import torch

#: The ONNX export of a PyTorch model, and the float model, in a folder of the cache.
EXPORTED: Final = "float.onnx"
FLOAT: Final = "float.mnn"


@dataclass(frozen=True)
class Choices:
    """The user's settings for the preparation of a model. Paths in specifications start at `root`.

    Data are a specification (text or path), arrays, or batches; `preprocess` applies to folders of images and sounds.
    `states` gives, by the name of an input, the output that is fed back to it: samples are then sequences.
    `is_given`: a finished file is judged against the source.
    """

    root: Path
    calibration: Any = None
    evaluation: Any = None
    exporter: str = EXPORTER
    timeout: float = TIMEOUT
    preprocess: Preparation | None = None
    states: Mapping[str, str] = field(default_factory=dict)
    is_given: bool = False


@dataclass(frozen=True)
class Prepared:
    """A source and its float model.

    `proof` compares each output with the source's on real samples; None if that was impossible, with the reason in
    `unproven`. `chain` are the steps from the source to the float model with their metrics; `unchained` is the reason
    if the step through ONNX is missing. `batched`: several samples can be fed at once; `axes` count them. `network` is
    a private copy of a PyTorch model, None for recorded graphs (TorchScript, torch.export); `outputs` are the names of
    its outputs, in order. With `states`, the samples of both data sets are steps, each with the states before it.
    `batches` is an output that several samples at once change. `signatures` are those of the file that MNN leaves out.
    """

    spec: Spec
    model: Model
    digest: str
    calibration: Dataset | None
    evaluation: Dataset | None
    batched: bool
    proof: dict[str, Agreement] | None
    unproven: str = ""
    chain: tuple[Step, ...] = ()
    unchained: str = ""
    network: torch.nn.Module | None = field(default=None, repr=False)
    sample_run: Run | None = field(default=None, repr=False)
    axes: SampleAxes = field(default_factory=SampleAxes)
    outputs: tuple[str, ...] = ()
    states: Mapping[str, str] = field(default_factory=dict)
    batches: BatchDifference | None = None
    signatures: tuple[str, ...] = ()

    @property
    def sequences(self) -> Sequences | None:
        """The sequences of `data`, through which a model with states runs."""
        return Sequences(self.states, self.data.lengths, self.model.output_names) if self.states and self.data else None

    def options(self, timeout: float) -> RunOptions:
        """How the model is run."""
        return RunOptions(timeout, batched=self.batched, axes=self.axes)

    @property
    def data(self) -> Dataset | None:
        """Any real samples: evaluation data, else calibration data."""
        return self.evaluation or self.calibration


def raw_data(given: Any, module: ModuleType | None, function: str) -> tuple[Any, str]:
    """The data as given, or as the function of the model's module returns them, and their origin; None without any."""
    if given is None and module is not None and hasattr(module, function):
        origin = f"{Path(module.__file__ or module.__name__).name}:{function}()"
        with seeded_generators(origin):
            return call(origin, module, function), origin
    return given, f"the {function} data"


def data_from(given: Any, origin: str, names: tuple[str, ...], choices: Choices) -> Dataset | None:
    """The data of a specification or of arrays; None without any. Raises `DataError`."""
    if isinstance(given, str | Path):
        given = str(given)
        return load_data(given, choices.root, names, choices.preprocess, choices.timeout, choices.states)
    return None if given is None else as_dataset(given, names, origin, choices.states)
