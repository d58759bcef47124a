"""Converts a PyTorch model to a float `.mnn` model, and proves that both compute the same."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from pytest_mnnquant.cache.store import Store
from pytest_mnnquant.measurements.conversion import BatchDifference
from pytest_mnnquant.measurements.dataset import Dataset
from pytest_mnnquant.measurements.run import Run
from pytest_mnnquant.measurements.sample_axes import SampleAxes
from pytest_mnnquant.metrics.agreement import Agreement
from pytest_mnnquant.mnnfile.model import Model, read_model
from pytest_mnnquant.quantize import batch_difference
from pytest_mnnquant.quantize.conversion_proof import (
    Array,
    compare_outputs,
    is_proven,
    name_outputs,
    proof_samples,
    run_onnx_ahead,
    steps_from_pytorch,
)
from pytest_mnnquant.quantize.convert_twice import convert_twice
from pytest_mnnquant.quantize.file_states import first_states
from pytest_mnnquant.quantize.prepared import EXPORTED, FLOAT, Choices, Prepared, data_from, raw_data
from pytest_mnnquant.runtime.inference import run
from pytest_mnnquant.runtime.jobs import NativeFailure
from pytest_mnnquant.runtime.options import RunOptions
from pytest_mnnquant.sources.array_names import array_names
from pytest_mnnquant.sources.pytorch import ExportOptions
from pytest_mnnquant.sources.spec import DataError, SourceError, Spec, call, describe
from pytest_mnnquant.sources.state_names import require_names
from pytest_mnnquant.sources.user_modules import load_module

_OUTSIDE_FIX: Final = "compute in torch: what forward() computes with numpy or .item() becomes constants in the export"
_EXPORT_FIX: Final = "make forward() return the same when it is exported, or try --mnn-exporter=dynamo"


def prepare_pytorch(spec: Spec, choices: Choices, store: Store, say: Callable[[str], None], given: Any) -> Prepared:
    """The float model of a PyTorch model, by way of ONNX, proven on real samples. Raises as `prepare` does."""
    from pytest_mnnquant.sources import model_digest, pytorch
    from pytest_mnnquant.sources.copy_check import require_same_outputs
    from pytest_mnnquant.sources.forward_operators import require_repeatable
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
    raw = [raw_data(value, module, function) for function, value in given_data]
    named = [*array_names([value for value, _ in raw], choices.root), *choices.states]
    names = forward_inputs(network, spec.text).names(tuple(dict.fromkeys(named)))
    require_names(choices.states, names, (), spec.text)
    calibration, evaluation = (data_from(value, origin, names, choices) for value, origin in raw)
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
    require_same_outputs(built, network, form.apply(data).batch(1), spec.text)
    calibration, evaluation = (part and form.apply_like(part, data, network) for part in (calibration, evaluation))
    if choices.states:
        parts = (calibration, evaluation)
        calibration, evaluation = (
            part and with_states(network, part, choices.states, spec.text, outputs) for part in parts
        )
    tested = evaluation or calibration or data
    samples, axes = tested.first(proof_samples(tested)), form.axes
    with pytorch.suppress_output():
        require_repeatable(network, pytorch.as_tensors(samples.batch(1), network), spec.text)
    digest = model_digest.digest(network)
    export = _Export(network, samples, axes, digest, spec.text, outputs, choices, store)
    expected = pytorch.outputs(network, samples, spec.text, axes.outputs, outputs)
    if calibration is not None and evaluation is not None:  # Calibration must not fail later.
        pytorch.outputs(network, calibration.first(2), spec.text, axes.outputs, outputs)
    say("exporting and converting to float")
    try:
        proven = _prove(export, expected)
    except (SourceError, NativeFailure):
        export.require_real()
        raise
    onnx, ran = proven.model.path.with_name(EXPORTED), proven.run
    options = RunOptions(choices.timeout, batched=ran.batched, axes=axes)
    steps, missing = steps_from_pytorch(onnx, samples.inputs, proven.expected, proven.whole, proven.proof, options)
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
    onnx, inputs = exported.path.with_name(EXPORTED), samples.inputs
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
    from pytest_mnnquant.sources.network_checks import require_no_bfloat16
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
        if not isinstance(result, Exception):
            require_no_bfloat16(kept, name)
        if isinstance(result, Exception):
            raise _misfit(network, data, name, error) from error
    return result


def _misfit(network: Any, data: Dataset, name: str, error: Exception) -> DataError:
    """The error of data on which the network raised `error`."""
    from pytest_mnnquant.sources import pytorch
    from pytest_mnnquant.sources.torch_call import forward_inputs

    inputs, names = forward_inputs(network, name), tuple(data.inputs)
    if not inputs.may_take_container(names):
        return pytorch.fails_on(name, data, data.batch(1), error, network)
    wanted = inputs.required[0]
    return DataError(
        f"{data.origin}: no array for the model's input {wanted!r}; it has: {', '.join(names)}. forward() takes them "
        f"neither as a dictionary nor as a list: {describe(error)}",
        f"name the array {wanted!r}, or give other data (--mnn-calibration, --mnn-evaluation)",
    )


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

        return read_model(self.store.folder("float", inputs, build, fresh=fresh) / FLOAT)

    def require_real(self) -> None:
        """Raise `SourceError` if the network computes with complex numbers, which no exporter and MNN support."""
        from pytest_mnnquant.sources import pytorch
        from pytest_mnnquant.sources.forward_operators import require_real

        with pytorch.suppress_output():
            require_real(self.network, pytorch.as_tensors(self.samples.batch(1), self.network), self.name)


@dataclass(frozen=True)
class _Proven:
    """A float model, its run on some samples, the expected outputs, and how both agree.

    `whole` is a run with the outputs that the file lists. `together` is another export and its run, which takes several
    samples at once and computes others.
    """

    model: Model
    run: Run
    whole: Run
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
            if not model.inputs:
                raise SourceError(f"{export.name}: the export does not depend on the inputs", _OUTSIDE_FIX)
            options = RunOptions(export.choices.timeout, batched=dynamic, axes=export.axes)
            run_onnx_ahead(model.path.with_name(EXPORTED), export.samples.inputs, options)
            ran = run(model, export.samples.inputs, options)
            named = name_outputs(model, expected, export.outputs)
            # Of outputs of another size or order for each value, the run has the tensors before them.
            is_whole = named.keys() <= ran.outputs.keys()
            whole = ran if is_whole else run(model, export.samples.inputs, options, tuple(named))
            proof = compare_outputs(named, whole.outputs)
        except (NativeFailure, ValueError) as error:
            failure = error
            continue
        if is_proven(proof) or (fresh and not dynamic):
            return _Proven(model, ran, whole, named, proof, together)
        together = (model, ran) if dynamic else together
    assert failure is not None
    raise failure if isinstance(failure, NativeFailure) else SourceError(f"{export.name}: {failure}", _EXPORT_FIX)


def export_float(network: Any, data: Dataset, folder: Path, options: ExportOptions, timeout: float) -> Model:
    """Write `float.onnx` and `float.mnn` of a PyTorch model into `folder`. Raises `SourceError` or `NativeFailure`."""
    from pytest_mnnquant.sources import pytorch

    pytorch.export(network, data, folder / EXPORTED, options)
    return convert_twice(folder / EXPORTED, folder / FLOAT, timeout=timeout)
