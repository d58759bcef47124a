"""The error that each layer of a variant adds, and the loss of the model if only that layer is quantized."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pytest_mnnquant.cache.temporary import temporary_prefix
from pytest_mnnquant.measurements.layer_errors import LayerErrors, OperatorErrors
from pytest_mnnquant.mnnfile.commands import RASTER, commands
from pytest_mnnquant.mnnfile.model import Model, Op, TensorQuant
from pytest_mnnquant.mnnfile.quants import write_with_quants
from pytest_mnnquant.mnnfile.scale_propagation import outcomes
from pytest_mnnquant.runtime.inference import Arrays, InputFolder, input_names
from pytest_mnnquant.runtime.options import RunOptions

# Bytes of the inputs and outputs of operators: held at once, and read in total.
_HELD: Final = 256e6
_WORK: Final = 2e9
_FEWEST: Final = 4
_EPSILON: Final = 1e-30


@dataclass(frozen=True)
class LayerRun:
    """Errors by layer (with the float model's names), and of operators without weights.

    `exact` are the float model's outputs, `alone` those with only one layer or operator quantized, on the samples with
    the numbers in `samples`.
    """

    layers: dict[str, LayerErrors]
    operators: dict[str, OperatorErrors]
    exact: dict[str, npt.NDArray[Any]]
    alone: dict[str, dict[str, npt.NDArray[Any]]]
    samples: tuple[int, ...]


def layer_errors(
    base: Model,
    variant: Model,
    layers: Sequence[tuple[Op, Op]],
    inputs: Arrays,
    options: RunOptions,
    alone: int,
) -> LayerRun:
    """Run `base` and `variant` on the samples, layer by layer; `layers` pairs the layers of both.

    For a large model, or if the time limit of `options` is short, fewer samples are used. The `alone` worst layers are
    also quantized alone. Raises `NativeFailure`, also for models with While or If bodies, whose tensors can't be read.
    """
    with (
        tempfile.TemporaryDirectory(prefix=temporary_prefix()) as name,
        # With the batch size of the check: MNN's kernels treat NaN differently for other batch sizes.
        InputFolder(base, inputs, options) as folder,
    ):
        weights = Path(name) / "weights.mnn"
        write_with_quants(variant, {}, weights)
        models = {"float": str(base.path.resolve()), "variant": str(variant.path.resolve()), "weights": str(weights)}
        arguments = {
            **models,
            "held": _HELD,
            "work": _WORK,
            "seconds": options.timeout,
            "fewest": _FEWEST,
            "names": {"float": input_names(base, base), "variant": input_names(base, variant)},
            "outputs": list(base.output_names),
            # Generated operators are numbered separately in each model, so equal names do not mean equal operators.
            "operators": sorted({op.name for op in base.ops} & {op.name for op in variant.ops}),
            "coded": {op.name: _grid(variant.tensor_quants[op.outputs[0]]) for op in _coded(variant)},
            "layers": [_described(layer, stored, variant.tensor_quants) for layer, stored in layers],
            "alone": alone,
        }
        values = folder.run("layers", f"comparing {variant.path.name} with the float model", arguments).values
        sums = folder.array("sums")
        outputs = {
            number: {output: folder.array(f"alone{number}_{place}") for place, output in enumerate(base.output_names)}
            for number in (-1, *values["alone"])
        }
    names = [*(layer.name for layer, _ in layers), *values["operators"]]
    return LayerRun(
        {layer.name: _errors(row) for (layer, _), row in zip(layers, sums, strict=True)},
        {name: _passed(*figures) for name, figures in values["others"].items()},
        outputs.pop(-1),
        {names[number]: arrays for number, arrays in outputs.items()},
        tuple(values["samples"]),
    )


def _coded(model: Model) -> list[Op]:
    """The operators that compute in float, and whose output becomes codes for an operator that is not a layer."""
    steps, quants = commands(model), model.tensor_quants
    if not quants:
        return []
    int8 = outcomes(steps, quants)[0].int8
    others = [steps[place] for place in int8 if steps[place].kind == RASTER or not steps[place].op.is_convolution]
    by_layers = {tensor for op in model.convolutions for tensor in op.inputs[:1]}
    tensors = {tensor for step in others for tensor in step.inputs if tensor not in by_layers}
    floats = (step for place, step in enumerate(steps) if place not in int8 and step.kind != RASTER)
    computed = (step for step in floats if step.output in tensors and not step.op.is_convolution)
    return [step.op for step in computed if _grid(quants.get(step.output))]


def _grid(quant: TensorQuant | None) -> list[float] | None:
    return [quant.scale, quant.zero, quant.low, quant.high] if quant and quant.scale > 0 else None


def _described(layer: Op, stored: Op, quants: Mapping[int, TensorQuant]) -> dict[str, Any]:
    is_int8 = stored.weights[0].full_int8
    tensors = (stored.inputs[0], stored.outputs[0])
    grid_in, grid_out = (_grid(quants.get(tensor)) if is_int8 else None for tensor in tensors)
    return {"float": layer.name, "stored": stored.name, "grid_in": grid_in, "grid_out": grid_out}


def _errors(sums: npt.NDArray[np.float64]) -> LayerErrors:
    signal, weights, entered, own, reached, inherited, input_signal, *clipped = sums.tolist()
    outside_in, outside_out, count_in, count_out = clipped

    def share(noise: float, whole: float) -> float:
        return noise / max(whole, _EPSILON) if noise else 0.0

    return LayerErrors(
        weights=share(weights, signal),
        input=share(entered, signal),
        own=share(own, signal),
        reached=share(reached, signal),
        inherited=share(inherited, input_signal),
        clipped_in=share(outside_in, count_in),
        clipped_out=share(outside_out, count_out),
        measured=count_out > 0,
    )


def _passed(signal: float, noise: float, entered: float, own_signal: float, own_noise: float) -> OperatorErrors:
    left, own = (
        part / max(whole, _EPSILON) if part else 0.0 for part, whole in ((noise, signal), (own_noise, own_signal))
    )
    return OperatorErrors(entered, left, own)
