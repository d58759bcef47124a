"""What an entry of the params file says, against what the model holds of its layer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np

from pytest_mnnquant.findings.cause import Cause
from pytest_mnnquant.findings.finding import Finding
from pytest_mnnquant.mnnfile.consistency import clamps, zero_points
from pytest_mnnquant.mnnfile.model import BadModel, Model, Op
from pytest_mnnquant.mnnfile.params import ActivationParams, LayerParams, Params

_SCALE_TOLERANCE: Final = 1e-4


@dataclass(frozen=True, slots=True)
class _Value:
    """One value of an entry: as the params file has it and as the model holds it."""

    title: str
    in_params: float
    in_model: float


def not_applied(entry: LayerParams, op: Op, model: Model, params: Params) -> Finding | None:
    """The finding on a layer of the model that does not hold what its entry says; None if it does."""
    weights = op.weights[0]
    if not weights.full_int8 or entry.output is None or entry.input is None:
        return Finding(
            "MNQ305",
            f"the params file has scales for it, the model stores it as {weights.label}",
            op.name,
            _never_read(model, params),
            "convert again with exactly: --compressionParamsFile PARAMS",
        )
    if (other := next(_other_activations(entry.input, entry.output, op), None)) is not None:
        return _other_value(op, other)
    if not weights.intact:
        return _unread(op, "its weight buffer is broken", "see the coverage check")
    try:
        other = _other_step(entry, model, op)
    except BadModel as error:
        return _unread(op, str(error), "see the bundle check")
    return None if other is None else _other_value(op, other)


def _other_activations(entering: ActivationParams, leaving: ActivationParams, op: Op) -> Iterator[_Value]:
    """What the model holds otherwise of the tensors that a layer takes and makes: scales, zero points, clamps."""
    weights, tensors = op.weights[0], (("input", entering), ("output", leaving))
    for (title, tensor), scale in zip(tensors, (weights.scale_in, weights.scale_out), strict=True):
        if not abs(tensor.scale - scale) <= _SCALE_TOLERANCE * abs(tensor.scale):  # NaN is another scale too.
            yield _Value(f"{title} scale", tensor.scale, scale)
    if (zeros := zero_points(op)) is not None:
        for (title, tensor), zero in zip(tensors, zeros, strict=True):
            if tensor.zero_point != zero:
                yield _Value(f"{title} zero point", tensor.zero_point, zero)
    if (codes := clamps(op)) is not None:
        requested = (("lowest", leaving.clamp_min), ("highest", leaving.clamp_max))
        for (title, limit), code in zip(requested, codes, strict=True):
            if abs(limit - code) > 1:  # -128 is -127 to some of MNN's tools.
                yield _Value(f"{title} code of the output", limit, code)


def _other_step(entry: LayerParams, model: Model, op: Op) -> _Value | None:
    """The weight scale that is furthest off, if one is. Raises `BadModel` if the model's can't be read."""
    in_params, in_model = np.array(entry.weight.scales), model.steps(op)
    if len(in_params) != len(in_model) or np.allclose(in_params, in_model, rtol=_SCALE_TOLERANCE):
        return None
    worst = int(np.abs(in_model / in_params - 1).argmax())
    return _Value(f"weight scale of channel {worst}", in_params[worst], in_model[worst])


def _never_read(model: Model, params: Params) -> Cause | None:
    if model.uuid != params.uuid:
        sign = "the model does not carry its uuid"
    elif not any(op.weights[0].full_int8 for op in model.convolutions):
        sign = "no layer of the model is int8"
    else:
        return None
    return Cause(
        "params-never-read",
        f"the converter never read this file: {sign} (was --compressionParamsFile mistyped or left out? MNN ignores "
        "flags it does not know)",
    )


def _unread(op: Op, why: str, fix: str) -> Finding:
    return Finding("MNQ305", f"its weight scales can't be compared with the params file's: {why}", op.name, fix=fix)


def _other_value(op: Op, value: _Value) -> Finding:
    return Finding(
        "MNQ305",
        f"{value.title} is {value.in_model:.6g} in the model, {value.in_params:.6g} in the params file",
        op.name,
        Cause("other-params-file", "the model was made with another params file"),
        "convert again with this params file, or give the one the model was made with",
    )
