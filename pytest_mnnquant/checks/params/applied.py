"""Compares an entry of the params file with what the model holds of its layer."""

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


def not_applied(entry: LayerParams, op: Op, model: Model, params: Params, fix: str = "") -> Finding | None:
    """The finding on a layer of the model that does not hold what its entry says; None if it does.

    `fix` says how to convert again with the params file.
    """
    weights = op.weights[0]
    if not weights.full_int8 or entry.output is None or entry.input is None:
        return Finding(
            "MNQ305",
            f"is stored as {weights.label}; the params file has scales for it",
            op.name,
            _never_read(model, params),
            fix,
        )
    if (other := next(_other_activations(entry.input, entry.output, op), None)) is not None:
        return _other_value(op, other, fix)
    if not weights.intact:
        return _unread(op, "its weight buffer is corrupt", "see the coverage check, which reports the buffer")
    try:
        other = _other_step(entry, model, op)
    except BadModel as error:
        return _unread(op, str(error), "see the bundle check, which reports missing files")
    return None if other is None else _other_value(op, other, fix)


def _other_activations(entering: ActivationParams, leaving: ActivationParams, op: Op) -> Iterator[_Value]:
    """What differs in the model, of the tensors that a layer reads and writes: scales, zero points, clamps."""
    weights, tensors = op.weights[0], (("input", entering), ("output", leaving))
    for (title, tensor), scale in zip(tensors, (weights.scale_in, weights.scale_out), strict=True):
        if not abs(tensor.scale - scale) <= _SCALE_TOLERANCE * abs(tensor.scale):  # NaN differs too.
            yield _Value(f"{title} scale", tensor.scale, scale)
    if (zeros := zero_points(op)) is not None:
        for (title, tensor), zero in zip(tensors, zeros, strict=True):
            if tensor.zero_point != zero:
                yield _Value(f"{title} zero point", tensor.zero_point, zero)
    if (codes := clamps(op)) is not None:
        requested = (("lowest", leaving.clamp_min), ("highest", leaving.clamp_max))
        for (title, limit), code in zip(requested, codes, strict=True):
            if abs(limit - code) > 1:  # Some of MNN's tools write -127 for -128.
                yield _Value(f"{title} code of the output", limit, code)


def _other_step(entry: LayerParams, model: Model, op: Op) -> _Value | None:
    """The weight scale that differs most; None if none does. Raises `BadModel` if the model's can't be read."""
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
        f"the converter never read this file: {sign} (--compressionParamsFile was mistyped or left out; MNN ignores "
        "unknown flags)",
    )


def _unread(op: Op, why: str, fix: str) -> Finding:
    return Finding(
        "MNQ305", f"its weight scales can't be compared with those of the params file: {why}", op.name, fix=fix
    )


def _other_value(op: Op, value: _Value, fix: str) -> Finding:
    return Finding(
        "MNQ305",
        f"{value.title} {value.in_model:.6g} in the model, {value.in_params:.6g} in the params file",
        op.name,
        Cause("other-params-file", "the model was made with another params file"),
        f"give the params file that the model was made with (--mnn-params), or {fix}",
    )
