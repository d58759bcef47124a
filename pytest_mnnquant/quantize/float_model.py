"""Converts a source to a float `.mnn` model, and proves that both compute the same."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final

from pytest_mnnquant.cache.manifest import file_digest
from pytest_mnnquant.cache.store import Store
from pytest_mnnquant.findings.defaults import EXPORTER, TIMEOUT
from pytest_mnnquant.measurements.conversion import FLOAT_MNN, ONNX, BatchDifference, Step
from pytest_mnnquant.measurements.dataset import Dataset
from pytest_mnnquant.measurements.run import Run
from pytest_mnnquant.measurements.sample_axes import SampleAxes, fits_axis
from pytest_mnnquant.measurements.sequences import Sequences
from pytest_mnnquant.metrics.agreement import Agreement
from pytest_mnnquant.mnnfile.data_sizes import data_sized_outputs
from pytest_mnnquant.mnnfile.model import Model, ModelInput, read_model
from pytest_mnnquant.quantize import batch_difference, file_states
from pytest_mnnquant.quantize.conversion_proof import (
    PROOF_SAMPLES,
    Array,
    compare_outputs,
    is_proven,
    name_outputs,
    proof_from_onnx,
    steps_from_pytorch,
)
from pytest_mnnquant.quantize.convert_twice import convert_twice
from pytest_mnnquant.quantize.file_batches import TriedBatch, try_batch
from pytest_mnnquant.quantize.file_states import first_states, require_names
from pytest_mnnquant.quantize.source_weights import require_finite
from pytest_mnnquant.runtime.inference import run
from pytest_mnnquant.runtime.jobs import NativeFailure
from pytest_mnnquant.runtime.options import RunOptions
from pytest_mnnquant.sources.array_names import array_names
from pytest_mnnquant.sources.data import as_dataset, load_data
from pytest_mnnquant.sources.images import Preprocess
from pytest_mnnquant.sources.onnx_data import external_files, require_float
from pytest_mnnquant.sources.pytorch import ExportOptions
from pytest_mnnquant.sources.sample_forms import fit_to_model
from pytest_mnnquant.sources.spec import DataError, SourceError, Spec, call, load_module

if TYPE_CHECKING:
    import torch

_EXPORTED: Final = "float.onnx"
_FLOAT: Final = "float.mnn"
_EXPORT_FIX: Final = "make forward() return the same when it is exported, or try --mnn-exporter=dynamo"


@dataclass(frozen=True)
class Choices:
    """The user's settings for the preparation of a model. Paths in specifications start at `root`.

    Data are a specification (text), arrays, or batches; `preprocess` applies to folders of images. `states` gives, by
    the name of an input, the output that is fed back to it: samples are then sequences.
    """

    root: Path
    calibration: Any = None
    evaluation: Any = None
    exporter: str = EXPORTER
    timeout: float = TIMEOUT
    preprocess: Preprocess | None = None
    states: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Prepared:
    """A source and its float model.

    `proof` compares each output with the source's on real samples; None if that was impossible, with the reason in
    `unproven`. `chain` are the steps from the source to the float model with their metrics; `unchained` is the reason
    if the step through ONNX is missing. `batched`: several samples can be fed at once; `axes` count them. `network` is
    a private copy of a PyTorch model, None for recorded graphs (TorchScript, torch.export); `outputs` are the names of
    its outputs, in order. With `states`, the samples of both data sets are steps, each with the states before it.
    `batches` is an output that several samples at once change.
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


def prepare(spec: Spec, choices: Choices, store: Store, say: Callable[[str], None], given: Any = None) -> Prepared:
    """Load the source, convert it to float, prove the conversion.

    `given` is a PyTorch model that a fixture returned; otherwise the specification is loaded. Raises `SourceError`,
    `NativeFailure` or `BadModel` if no float model can be made.
    """
    if spec.is_python or spec.is_torch_file or given is not None:
        return _prepare_python(spec, choices, store, say, given)
    return _prepare_file(spec, choices, store, say)


def _raw_data(given: Any, module: ModuleType | None, function: str) -> tuple[Any, str]:
    """The data as given, or as the function of the model's module returns them, and their origin; None without any."""
    if given is None and module is not None and hasattr(module, function):
        origin = f"{Path(module.__file__ or module.__name__).name}:{function}()"
        return call(origin, module, function), origin
    return given, f"the {function} data"


def _data(given: Any, origin: str, names: tuple[str, ...], choices: Choices) -> Dataset | None:
    if isinstance(given, str):
        return load_data(given, choices.root, names, choices.preprocess, choices.timeout, choices.states)
    return None if given is None else as_dataset(given, names, origin, choices.states)


# PyTorch ------------------------------------------------------------------------------------------------------------


def _prepare_python(spec: Spec, choices: Choices, store: Store, say: Callable[[str], None], given: Any) -> Prepared:
    from pytest_mnnquant.sources import model_digest, pytorch
    from pytest_mnnquant.sources.pytorch_batches import batch_form
    from pytest_mnnquant.sources.pytorch_states import with_states
    from pytest_mnnquant.sources.torch_call import forward_inputs
    from pytest_mnnquant.sources.torch_module import import_torch, is_graph, private_copy

    say("loading the PyTorch model")
    import_torch(spec.text)
    module = load_module(spec) if spec.is_python else None
    built = _load_network(spec, module) if given is None else given
    network = private_copy(built, spec.text)
    given_data = (("calibration", choices.calibration), ("evaluation", choices.evaluation))
    raw = [_raw_data(value, module, function) for function, value in given_data]
    known = [*array_names([value for value, _ in raw], choices.root), *choices.states]
    names = forward_inputs(network, spec.text).names(tuple(dict.fromkeys(known)))
    require_names(choices.states, names, (), spec.text)
    calibration, evaluation = (_data(value, origin, names, choices) for value, origin in raw)
    data = evaluation or calibration
    if data is None:
        raise SourceError(
            f"{spec.text}: no data to run the model on: give --mnn-calibration (and --mnn-evaluation), or define "
            "calibration() and evaluation() in the file of the model; they return "
            f"{{{', '.join(f'{name!r}: ARRAY' for name in names)}}} with samples on the first axis, and evaluation() "
            "adds 'labels' if there are any"
        )
    if choices.states:
        calibration, evaluation = first_states(choices.states, names, calibration, evaluation)
        data = evaluation or calibration or data
    network, outputs = _bind(network, built, data, spec.text)
    form = batch_form(network, data, outputs)
    calibration, evaluation = (part and form.apply(part) for part in (calibration, evaluation))
    if choices.states:
        parts = (calibration, evaluation)
        calibration, evaluation = (
            part and with_states(network, part, choices.states, spec.text, outputs) for part in parts
        )
    samples, axes = (evaluation or calibration or data).first(PROOF_SAMPLES), form.axes
    digest = model_digest.digest(network)
    export = _Export(network, samples, axes, digest, spec.text, outputs, choices, store)
    expected = pytorch.outputs(network, samples, spec.text, axes.outputs, outputs)
    if calibration is not None and evaluation is not None:  # Calibration must not fail later.
        pytorch.outputs(network, calibration.first(2), spec.text, axes.outputs, outputs)
    say("exporting and converting to float")
    proven = _prove(export, expected)
    onnx, ran = proven.model.path.with_name(_EXPORTED), proven.run
    options = RunOptions(choices.timeout, batched=ran.batched, axes=axes)
    steps, missing = steps_from_pytorch(onnx, samples.inputs, proven.expected, ran, proven.proof, options)
    return Prepared(
        spec,
        proven.model,
        digest,
        calibration,
        evaluation,
        ran.batched,
        proven.proof,
        chain=steps,
        unchained=missing,
        network=None if is_graph(network) else network,
        sample_run=ran,
        axes=axes,
        outputs=outputs,
        states=choices.states,
        batches=_batches(network, samples, proven, outputs, spec.text, options=RunOptions(choices.timeout, axes=axes)),
    )


def _batches(
    network: Any, samples: Dataset, proven: _Proven, outputs: tuple[str, ...], name: str, *, options: RunOptions
) -> BatchDifference | None:
    """The output that several samples at once change: in the network itself, or in its export for any batch size."""
    if samples.alone:
        return batch_difference.of_network(network, samples, outputs, name)
    if proven.together is None:
        return None
    exported, together = proven.together
    onnx, inputs = exported.path.with_name(_EXPORTED), samples.inputs
    return batch_difference.of_export(onnx, proven.expected, proven.run, together, inputs, options)


def _load_network(spec: Spec, module: ModuleType | None) -> Any:
    """What the specification names: a model that a callable returns, or that a file holds."""
    from pytest_mnnquant.sources.torch_file import load_torch_file

    if module is not None:
        return call(spec.text, module, spec.attribute)
    assert spec.path is not None
    return load_torch_file(spec.path)


def _bind(network: Any, built: Any, data: Dataset, name: str) -> tuple[Any, tuple[str, ...]]:
    """The network with its inputs by position, and the names of its outputs.

    A network whose code needs half-precision weights keeps them.
    """
    from pytest_mnnquant.sources import pytorch
    from pytest_mnnquant.sources.pytorch_batches import batch_forms
    from pytest_mnnquant.sources.torch_call import bound
    from pytest_mnnquant.sources.torch_module import has_other_types, private_copy

    def bind(each: Any) -> tuple[Any, tuple[str, ...]] | Exception:
        errors = []
        for form in batch_forms(data):
            example = form.apply(data).batch(1)
            try:
                with pytorch.suppress_output():
                    return bound(each, tuple(example), pytorch.as_tensors(example, each), name)
            except SourceError:
                raise
            except Exception as error:
                errors.append(error)
        return errors[0]

    result = bind(network)
    if isinstance(result, Exception):
        kept = private_copy(built, name, keep_types=True)
        error, result = result, bind(kept) if has_other_types(kept) else result
        if isinstance(result, Exception):
            raise pytorch.fails_on(name, data, data.batch(1), error) from error
    return result


@dataclass(frozen=True)
class _Export:
    """A PyTorch model to export, with the samples to prove the export on."""

    network: Any
    samples: Dataset
    axes: SampleAxes
    digest: str
    name: str
    outputs: tuple[str, ...]
    choices: Choices
    store: Store

    def make(self, dynamic: bool, fresh: bool) -> Model:
        """The float model; from the store, unless `fresh`. `dynamic`: any batch size."""
        shapes = {key: array.shape[1:] for key, array in self.samples.inputs.items()}
        exporter = self.choices.exporter
        inputs = {
            "state": self.digest,
            "exporter": exporter,
            "dynamic": dynamic,
            "shapes": shapes,
            "outputs": self.outputs,
        }
        if self.axes != SampleAxes():
            inputs["axes"] = self.axes.as_job
        options = ExportOptions(self.name, exporter, dynamic, self.axes, self.outputs)

        def build(folder: Path) -> None:
            export_float(self.network, self.samples, folder, options, self.choices.timeout)

        return read_model(self.store.folder("float", inputs, build, fresh=fresh) / _FLOAT)


@dataclass(frozen=True)
class _Proven:
    """A float model, its run on some samples, the expected outputs, and how both agree.

    `together` is another export and its run, which takes several samples at once and computes others.
    """

    model: Model
    run: Run
    expected: dict[str, Array]
    proof: dict[str, Agreement]
    together: tuple[Model, Run] | None = None


def _prove(export: _Export, expected: Sequence[Array]) -> _Proven:
    """The float model with a dynamic batch, else with a batch of one; from the store, else made again.

    The last of the four is used, whether it is proven or not.
    """
    failure: Exception | None = None
    together: tuple[Model, Run] | None = None
    for dynamic, fresh in ((True, False), (True, True), (False, False), (False, True)):
        if dynamic and export.samples.is_single:
            continue
        try:
            model = export.make(dynamic, fresh)
            options = RunOptions(export.choices.timeout, batched=dynamic, axes=export.axes)
            ran = run(model, export.samples.inputs, options)
            named = name_outputs(model, expected, export.outputs)
            proof = compare_outputs(named, ran.outputs)
        except (NativeFailure, ValueError) as error:
            failure = error
            continue
        if is_proven(proof) or (fresh and not dynamic):
            return _Proven(model, ran, named, proof, together)
        together = (model, ran) if dynamic else together
    assert failure is not None
    raise failure if isinstance(failure, NativeFailure) else SourceError(f"{export.name}: {failure}", _EXPORT_FIX)


def export_float(network: Any, data: Dataset, folder: Path, options: ExportOptions, timeout: float) -> Model:
    """Write `float.onnx` and `float.mnn` of a PyTorch model into `folder`. Raises `SourceError` or `NativeFailure`."""
    from pytest_mnnquant.sources import pytorch

    pytorch.export(network, data, folder / _EXPORTED, options)
    return convert_twice(folder / _EXPORTED, folder / _FLOAT, timeout=timeout)


# Files --------------------------------------------------------------------------------------------------------------


def _prepare_file(spec: Spec, choices: Choices, store: Store, say: Callable[[str], None]) -> Prepared:
    assert spec.path is not None
    digest = "".join(file_digest(file) for file in (spec.path, *_beside(spec.path)))
    if spec.path.suffix == ".mnn":
        model = read_model(spec.path)
        if model.external_missing:
            raise SourceError(
                f"{spec.path}: {model.external_missing:,} bytes of its weights are missing from "
                f"{spec.path.name}.weight in the same folder"
            )
        if model.external_path is not None:  # MNN applies a params file before it reads external weights.
            say("putting the weights into one file")
            outside = spec.path
            folder = store.folder(
                "whole", {"source": digest}, lambda made: _convert_file(outside, made / _FLOAT, choices.timeout)
            )
            model = read_model(folder / _FLOAT)
    else:
        if spec.path.suffix == ".onnx":
            require_float(spec.path)
        say("converting to float")
        source = spec.path
        folder = store.folder(
            "float", {"source": digest}, lambda made: _convert_file(source, made / _FLOAT, choices.timeout)
        )
        model = read_model(folder / _FLOAT)
    require_finite(model, spec.path)
    names = tuple(item.name for item in model.inputs)
    require_names(choices.states, names, model.output_names, spec.text)
    calibration = _data(choices.calibration, "the calibration data", names, choices)
    evaluation = _data(choices.evaluation, "the evaluation data", names, choices)

    def fitted(part: Dataset | None) -> Dataset | None:
        if part is None or not choices.states:
            return part and _fit(part, model.inputs)
        return file_states.with_states(model, part, choices.states, choices.timeout)

    calibration, evaluation = fitted(calibration), fitted(evaluation)
    data = evaluation or calibration
    tried = None if data is None else try_batch(model, data, choices.timeout)
    proof, unproven = _proof_of_file(spec.path, model, data, tried)
    return Prepared(
        spec,
        model,
        digest,
        calibration,
        evaluation,
        tried is None or tried.run.batched,
        proof,
        unproven,
        (Step(ONNX, FLOAT_MNN, proof),) if proof else (),
        sample_run=tried.run if tried else None,
        axes=tried.options.axes if tried else SampleAxes(),
        states=choices.states,
        batches=batch_difference.of_file(spec.path, data.head(PROOF_SAMPLES), tried) if data and tried else None,
    )


def _beside(path: Path) -> tuple[Path, ...]:
    """The files with the weights of a model file. Raises `SourceError` if one of an ONNX file is missing."""
    if path.suffix == ".onnx":
        return external_files(path)
    weights = path.with_name(path.name + ".weight")
    return (weights,) if weights.is_file() else ()


def _convert_file(source: Path, output: Path, timeout: float) -> None:
    convert_twice(source, output, timeout=timeout)


def _fit(data: Dataset, inputs: tuple[ModelInput, ...]) -> Dataset:
    """The data as the model takes them. Raises `DataError` before MNN computes nonsense from others."""
    if (fitting := fit_to_model(data, inputs)) is not None:
        return fitting
    for spec in inputs:
        shape = data.inputs[spec.name].shape
        if fits_axis(spec.shape, shape[1:], 0):
            continue
        expected = ", ".join(["samples", *(str(size) if size > 0 else "any" for size in spec.shape[1:])])
        raise DataError(
            f"{data.origin}: array {spec.name!r} has shape {list(shape)}, the model takes [{expected}]",
            "give samples of this shape, counted on the first axis",
        )
    return data


def _proof_of_file(
    path: Path, model: Model, data: Dataset | None, tried: TriedBatch | None
) -> tuple[dict[str, Agreement] | None, str]:
    if path.suffix == ".mnn":
        return {}, ""
    if path.suffix == ".tflite":
        return None, "running TFLite models is not supported yet"
    if data is None or tried is None:
        return None, "no data were given (--mnn-evaluation) to compare the float model with the ONNX model"
    is_sized = bool(data_sized_outputs(model))
    return proof_from_onnx(path, data.head(PROOF_SAMPLES), data.origin, tried.run, tried.options, is_sized=is_sized)
