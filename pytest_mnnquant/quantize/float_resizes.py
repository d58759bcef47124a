"""Resizes that interpolate stay float in an int8 model.

MNN 3.6.1 computes an int8 Interp between equal scales only. Its bilinear form is wrong on 64-bit ARM for many widths
(`mnnfile.int8_resize`), which a file does not fix: the next input may have another size. The other widths round down
there, which costs up to 3 dB on a UNet. Its bicubic form clips values outside of the input's range: 26.2 instead of
34.8 dB between two convolutions.

MNN runs an operator in int8 if its inputs are described as int8. So such an Interp gets a separate copy of its input,
described as float. On x86, float resizes take no longer: 7.9 ms instead of 8.5 ms for 64 channels of 128 x 128 to
256 x 256, bicubic 12.5 ms instead of 24.5 ms; the maps need 4 times the memory.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Final

from pytest_mnnquant.mnnfile.commands import possible_commands
from pytest_mnnquant.mnnfile.int8_resize import is_interpolating
from pytest_mnnquant.mnnfile.model import Model, TensorQuant, read_model
from pytest_mnnquant.mnnfile.quants import with_quants
from pytest_mnnquant.mnnfile.scale_propagation import possible_outcomes
from pytest_mnnquant.mnnfile.separate_inputs import with_separate_inputs

Quants = Mapping[int, TensorQuant]
#: The end of the names of the copies.
SUFFIX: Final = "__float"
#: Different from all quantizations of int8 tensors: MNN copies from one of them to this in float.
_FLOAT: Final = TensorQuant(0.0, 0.0, -127.0, 127.0, "float")


def keep_resizes_float(model: Model, described: Quants | None = None) -> Model:
    """The model, whose file is changed if a resize that interpolates would run in int8; else `model` itself.

    `described`: the final quantizations of tensors; those in the file if it is None. With them, a nearest resize stays
    float too if it would copy codes to a layer's input with another scale.
    """
    final = {} if described is None else model.tensor_quants
    names = set(_int8_resizes(model, model.tensor_quants if described is None else described, final))
    if not names:
        return model
    changed = with_separate_inputs(model.path.read_bytes(), {name: f"{name}{SUFFIX}" for name in names})
    copies = range(len(model.tensor_names), len(model.tensor_names) + len(names))
    model.path.write_bytes(with_quants(changed, {**model.tensor_quants, **dict.fromkeys(copies, _FLOAT)}))
    return read_model(model.path)


def _int8_resizes(model: Model, quants: Quants, final: Collection[int]) -> Iterator[str]:
    """The int8 resizes that interpolate, and those that copy codes to a tensor of `final` with another scale."""
    for steps in possible_commands(model):
        for way in possible_outcomes(steps, quants):
            for step in (steps[place] for place in way.int8 if steps[place].kind == "Interp"):
                given, made = (quants[way.sources[tensor]] for tensor in (step.inputs[0], step.output))
                is_misread = step.output in final and (given.scale, given.zero) != (made.scale, made.zero)
                if is_misread or is_interpolating(step.op):
                    yield step.op.name
