"""Runs a `.mnn` on arrays and returns outputs, the op trace, or statistics of tensors."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pytest_mnnquant.cache.temporary import temporary_prefix
from pytest_mnnquant.measurements.run import Losses, Run, TracedOp
from pytest_mnnquant.measurements.sample_axes import SampleAxes, fits_axis
from pytest_mnnquant.mnnfile.data_sizes import has_sized_tensors, judged_outputs
from pytest_mnnquant.mnnfile.model import Model, ModelInput, Op
from pytest_mnnquant.runtime.disk import full_disk_named
from pytest_mnnquant.runtime.job_results import run_or_reuse
from pytest_mnnquant.runtime.jobs import FailureKind, Job, JobResult, NativeFailure
from pytest_mnnquant.runtime.mapped_arrays import load_array, write_array
from pytest_mnnquant.runtime.options import RunOptions

Arrays = Mapping[str, npt.NDArray[Any]]
BATCH: Final = 32
# The size of the inputs of a batch, in bytes: 32 pictures of 3 x 224 x 224 numbers. Between its layers, a network needs
# several times that.
_LARGEST_BATCH: Final = 20_000_000
# The fewest batches that two processes share, and the size of the largest model, in bytes, that both hold.
_DIVISIBLE: Final = 4
_LARGEST_DIVISIBLE: Final = 256_000_000
_KINDS: Final[Mapping[str, type[np.generic]]] = {
    "float": np.float32,
    "int32": np.int32,
    "int64": np.int32,
    "uint8": np.uint8,
    "int8": np.int8,
}


@dataclass(frozen=True, slots=True)
class Grid:
    """The values of a tensor's codes: steps of `scale` from `low` to `high`."""

    scale: float
    low: float
    high: float


Sided = tuple[Grid | None, Grid | None]


def run(model: Model, inputs: Arrays, options: RunOptions, outputs: Sequence[str] = ()) -> Run:
    """Run all samples (first axis). Raises `NativeFailure` if MNN crashes, fails or returns nothing.

    `outputs` names the tensors to return, instead of those that the file lists as its outputs. Inputs among them are
    left out: nothing computes them, and MNN's Session API overwrites them in the run.
    """
    what = f"running {model.path.name}"
    names = tuple(outputs) or judged_outputs(model)
    # A session pads outputs whose size depends on values, and returns only what the file lists.
    is_selected = names != model.output_names
    is_selected = is_selected or has_sized_tensors(model)
    arguments: dict[str, Any] = {
        "model": str(model.path.resolve()),
        "engine": "module" if options.through_module or model.has_subgraphs or is_selected else "session",
        "outputs": list(names),
        "traced": is_selected and not model.has_subgraphs,
        "memory": options.memory_mode,
        "threads": options.threads,
    }
    if options.sequences is not None:
        named = dict(zip(inputs, _by_name(model, inputs, options.axes), strict=True))
        arguments["sequences"] = options.sequences.renamed(named, outputs or model.output_names).as_job
        options = dataclasses.replace(options, batched=False)
    with InputFolder(model, inputs, options) as folder:
        result = folder.run("run", what, arguments)
        values = result.values
        numbers = {name: number for number, name in enumerate(values["outputs"]) if name not in folder.input_names}
        arrays = {name: folder.array(f"output{number}") for name, number in numbers.items()}
    if not arrays:
        raise NativeFailure(FailureKind.BAD_OUTPUT, f"{what}: MNN returned no output")
    trace = None if values["trace"] is None else tuple(traced(*entry) for entry in values["trace"])
    return Run(arrays, trace, values["memory_mb"], options.batched, result.machine)


def tensor_values(
    model: Model, ops: Sequence[Op], inputs: Arrays, options: RunOptions
) -> dict[str, tuple[npt.NDArray[np.float32] | None, npt.NDArray[np.float32] | None]]:
    """{operator: (its first input, its first output)} on one batch of inputs, flattened in NCHW order."""
    size = fixed_batch(model, options.axes) or batch_size(options, inputs)
    with InputFolder(model, {name: array[:size] for name, array in inputs.items()}, options) as folder:
        folder.watch("observe", f"tracing {model.path.name}", ops, {"probe": True})
        return {
            op.name: (folder.array_or_none(f"tensor{number}_0"), folder.array_or_none(f"tensor{number}_1"))
            for number, op in enumerate(ops)
        }


def tensor_ranges(model: Model, ops: Sequence[Op], inputs: Arrays, options: RunOptions) -> npt.NDArray[np.float64]:
    """Smallest and largest value in each batch, shape [batches, operators, input or output, min or max].

    A batch has `BATCH` samples, also where large samples run in smaller ones.
    """
    with InputFolder(model, inputs, options) as folder:
        folder.watch("observe", f"calibrating {model.path.name}", ops, {"joined": folder.batches_joined})
        return folder.array("ranges")


def tensor_histograms(
    model: Model,
    ops: Sequence[Op],
    bounds: npt.NDArray[np.float64],
    bins: int,
    inputs: Arrays,
    options: RunOptions,
) -> npt.NDArray[np.float64]:
    """The number of values per bin, shape [operators, input or output, bins]; `bounds` ends in [low or high]."""
    with InputFolder(model, inputs, options) as folder:
        path = folder.path / "bounds.npy"
        np.save(path, bounds)
        folder.watch("histograms", f"calibrating {model.path.name}", ops, {"bounds": str(path), "bins": bins})
        return folder.array("histograms")


def code_losses(
    model: Model, ops: Sequence[Op], grids: Sequence[Sided], inputs: Arrays, options: RunOptions
) -> tuple[tuple[Losses | None, Losses | None], ...]:
    """The loss from quantizing the input and the output of each operator.

    None without a grid, if the tensor never appeared in the run, or if its values are not finite.
    """
    plain = [[dataclasses.astuple(grid) if grid else (0.0, 0.0, 0.0) for grid in sides] for sides in grids]
    with InputFolder(model, inputs, options) as folder:
        path = folder.path / "grids.npy"
        np.save(path, np.array(plain, np.float64).reshape(len(ops), 2, 3))
        folder.watch("losses", f"observing {model.path.name}", ops, {"grids": str(path)})
        totals = folder.array("losses")
    return tuple((_losses(first), _losses(second)) for first, second in totals)


def _losses(figures: npt.NDArray[np.float64]) -> Losses | None:
    count, energy, outside, clipped, rounded, low, high = figures.tolist()
    if not count or not np.isfinite(figures).all():
        return None
    whole = energy or 1.0  # A tensor of zeros loses nothing.
    return Losses(int(count), low, high, energy / count, outside / count, clipped / whole, rounded / whole)


class InputFolder:
    """A temporary folder with the inputs of a model, as files that a child process maps."""

    def __init__(self, model: Model, inputs: Arrays, options: RunOptions) -> None:
        self._model = model
        self._options = options
        named = _by_name(model, inputs, options.axes)
        self._inputs = {spec.name: _as_input(spec, named) for spec in model.inputs}
        self._axes = _axes_by_name(model, inputs, named, options.axes)
        self._temporary = tempfile.TemporaryDirectory(prefix=temporary_prefix())
        self.path = Path(self._temporary.name)

    def __enter__(self) -> InputFolder:
        with full_disk_named("writing the inputs of the model", self.path):
            for number, spec in enumerate(self._model.inputs):
                write_array(self.path / f"input{number}.npy", self._inputs[spec.name], _kind(spec))
        return self

    def __exit__(self, *_: object) -> None:
        self._temporary.cleanup()

    @property
    def input_names(self) -> tuple[str, ...]:
        """The names of the inputs, as the model has them."""
        return tuple(self._inputs)

    @property
    def _fixed(self) -> int:
        return fixed_batch(self._model, self._axes)

    @property
    def _is_divisible(self) -> bool:
        """Whether half of the samples are worth a second process, with the model and a batch of its own."""
        options, samples = self._options, max(map(len, self._inputs.values()), default=0)
        size = batch_size(options, self._inputs)
        is_whole = options.sequences is None and options.threads == 1 and not self._fixed
        return is_whole and samples >= _DIVISIBLE * size and self._model.size <= _LARGEST_DIVISIBLE

    @property
    def batches_joined(self) -> int:
        """How many batches of a run make one of `BATCH` samples; 1 if the model or the options fix their size."""
        size = batch_size(self._options, self._inputs)
        return 1 if self._fixed or not _is_batched(self._options) else BATCH // size

    def run(self, task: str, what: str, arguments: Mapping[str, Any]) -> JobResult:
        """Run a task on these inputs, with the task's `arguments`. Raises `NativeFailure`."""
        inputs = {name: str(self.path / f"input{number}.npy") for number, name in enumerate(self._inputs)}
        layouts = {spec.name: spec.layout for spec in self._model.inputs}
        shared: dict[str, Any] = {"inputs": inputs, "layouts": layouts, "axes": self._axes.as_job}
        shared["batch"] = self._fixed or batch_size(self._options, self._inputs)
        shared["fixed"] = self._fixed > 0
        divisible = task == "run" and arguments["engine"] == "session" and self._is_divisible
        job = Job(task, what, self._options.timeout, {**shared, **arguments}, is_divisible=divisible)
        with full_disk_named(what, self.path):
            return run_or_reuse(job, self.path, self._options.send)

    def watch(self, task: str, what: str, ops: Sequence[Op], arguments: Mapping[str, Any]) -> None:
        """Run a task that reads the tensors of operators."""
        names = self._model.tensor_names
        shared = {
            "model": str(self._model.path.resolve()),
            "engine": "module" if self._needs_module else "session",
            "ops": [[op.name, names[op.inputs[0]], names[op.outputs[0]]] for op in ops],
        }
        self.run(task, what, {**shared, **arguments})

    @property
    def _needs_module(self) -> bool:
        model = self._model
        return self._options.through_module or model.has_subgraphs or has_sized_tensors(model)

    def array(self, name: str) -> npt.NDArray[Any]:
        """An array that the task wrote."""
        return load_array(self.path / f"{name}.npy")

    def array_or_none(self, name: str) -> npt.NDArray[np.float32] | None:
        """An array that the task may have written."""
        return self.array(name) if (self.path / f"{name}.npy").exists() else None


def fixed_batch(model: Model, axes: SampleAxes) -> int:
    """The batch size above 1 that all inputs of a model declare; 0 if they declare none.

    Such a model may hold this size in its operators (Reshape), and fails for others.
    """
    places = [(item.shape, axes.inputs.get(item.name, 0)) for item in model.inputs]
    sizes = {0 if axis is None or len(shape) <= axis else shape[axis] for shape, axis in places}
    size = sizes.pop() if len(sizes) == 1 else 0
    return size if size > 1 else 0


def batch_size(options: RunOptions, inputs: Arrays) -> int:
    """The number of samples per batch: `BATCH`, or of large samples a half, a quarter and so on, at least one."""
    if not _is_batched(options):
        return 1
    size, sample = BATCH, sum(array.nbytes // max(1, len(array)) for array in inputs.values())
    while size > 1 and size * sample > _LARGEST_BATCH:
        size //= 2
    return size


def _is_batched(options: RunOptions) -> bool:
    return options.batched and not options.axes.is_single


def input_names(reference: Model, model: Model) -> dict[str, str]:
    """The names of a model's inputs by those of the reference: the same, or others in the same order."""
    known, names = ([spec.name for spec in item.inputs] for item in (reference, model))
    return dict(zip(known, known if set(known) == set(names) else names, strict=len(known) == len(names)))


def _by_name(model: Model, inputs: Arrays, axes: SampleAxes) -> Arrays:
    """The inputs under the model's names. If a pipeline renamed the inputs, they are assigned by their order."""
    names = [spec.name for spec in model.inputs]
    if set(names) <= inputs.keys() or len(names) != len(inputs):
        return inputs
    fits = all(
        fits_axis(spec.shape, array.shape[1:], axes.inputs.get(name, 0))
        for spec, (name, array) in zip(model.inputs, inputs.items(), strict=True)
    )
    return dict(zip(names, inputs.values(), strict=True)) if fits else inputs


def _axes_by_name(model: Model, inputs: Arrays, named: Arrays, axes: SampleAxes) -> SampleAxes:
    """The axes under the model's names of inputs and outputs, which a pipeline may have renamed."""
    renamed = dict(zip(named, inputs, strict=True))
    of_inputs = {name: axes.inputs[renamed[name]] for name in named if renamed[name] in axes.inputs}
    of_outputs = axes.outputs
    if not set(of_outputs) <= set(model.output_names) and len(of_outputs) == len(model.output_names):
        of_outputs = dict(zip(model.output_names, of_outputs.values(), strict=True))
    return SampleAxes(of_inputs, of_outputs)


def _as_input(spec: ModelInput, inputs: Arrays) -> npt.NDArray[Any]:
    if spec.name not in inputs:
        reason = f"the data have no array for the model's input {spec.name!r}; arrays: {', '.join(sorted(inputs))}"
        raise NativeFailure(FailureKind.BAD_INPUT, reason)
    return inputs[spec.name]


def _kind(spec: ModelInput) -> type[np.generic]:
    return _KINDS.get(spec.data_type, np.float32)


def traced(name: str, kind: str, widths: Sequence[int] | None = None) -> TracedOp:
    """An operator, from the type in MNN's op trace, such as `Convolution[DT_INT8]`, and the widths of a resize."""
    given, made = widths or (0, 0)
    return TracedOp(name, kind.split("[")[0].strip(), "DT_INT8" in kind, (given, made) if widths else None)
