"""Whether the gate judges what a device computes.

    python benchmarks/accuracy_truth.py FOLDER [--net NAME ...] [--arm FOLDER]

Small nets with MaxPool, after ReLU and after tensors of both signs (truth_nets.py), quantized by the gate's own `int8`
recipe, and again with other zero points around the pools. For each, top-1 and cosine to the float model: as this host
runs it, as the gate judges it, by the integer reference, and by MNN's aarch64 wheel on three processors (arm.py). Every
int8 tensor of the judged run is compared with the reference, computed from the codes that its operator was given there;
so is every int8 tensor of the ARM runs. `--matrix NET` does so for networks of the
matrix, on this host. Trained weights are kept in FOLDER. The exit status is 1 if a code differs.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from architectures import Architecture
from arm import CPUS, FOLDER, python_on, run_on_arm, set_up
from integer_reference import (
    OFFSET,
    Codes,
    NoReference,
    are_codes,
    codes_of,
    effective_quants,
    quantized,
    reference,
    values_of,
)
from invented_nets import INVENTED
from matrix_nets import NETS as MATRIX_NETS
from trace_int8 import seen_of
from truth_nets import NETS

from pytest_mnnquant.cache.store import Store
from pytest_mnnquant.config.settings import ModelSettings
from pytest_mnnquant.evidence.source import FixtureValues, SourceUnderTest
from pytest_mnnquant.evidence.variant import VariantUnderTest, variant_under_test
from pytest_mnnquant.measurements.run import TracedOp
from pytest_mnnquant.metrics.agreement import agreement
from pytest_mnnquant.mnnfile.model import Model, Op, TensorQuant, read_model
from pytest_mnnquant.mnnfile.params import ActivationParams, LayerParams, Params, read_params, write_params
from pytest_mnnquant.mnnfile.pooling import is_max_pool, write_exact_copy
from pytest_mnnquant.quantize.job import PARAMS_NAME
from pytest_mnnquant.runtime.convert import convert
from pytest_mnnquant.sources.spec import Spec
from pytest_mnnquant.targets.target import NoTarget

TIMEOUT: Final = 300.0
MATRIX: Final = {name: net for name, net in {**MATRIX_NETS, **INVENTED}.items() if name not in ("LSTM", "GRU", "CRNN")}
#: Zero points around the pools; None: as the recipe makes them.
FORMS: Final = (None, -56, 0)
_OURS: Final = "int8"
_LOWEST, _HIGHEST = -127, 127
Values = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class Compared:
    """An int8 tensor: the operator that made it, how many codes it has, how many the reference has otherwise.

    `unlike` and `values`, the real values by the reference, are None if the operator has no reference.
    """

    op: str
    kind: str
    count: int
    unlike: int | None = None
    values: Values | None = None


def compared(
    model: Model,
    trace: Sequence[TracedOp],
    inputs: dict[str, Values],
    *,
    copy: Model | None = None,
    pools: Sequence[str] = (),
    python: str = sys.executable,
    offset: int = OFFSET,
) -> list[Compared]:
    """Every int8 tensor that MNN made of these inputs, against the integer reference of the operator that made it.

    `copy` is run in place of the model, and `trace` is its: `pools` ran in float there, and their values are codes all
    the same. The reference is always that of the model. `python` and `offset` are those of the machine that runs it.
    """
    ran = [op for op in trace if op.int8 or op.name in pools]
    run = copy or model
    seen = seen_of(run.path, [op.name for op in ran], inputs, python)
    quants, stored, ops = effective_quants(model), effective_quants(run), {op.name: op for op in model.ops}
    found = []
    for traced in ran:
        given, made = seen[traced.name]
        op = ops[traced.name] if traced.name in ops else ops[traced.name.rpartition("_raster_")[0]]
        try:
            unlike, values = _differing(model, op, traced, given, made, quants, stored, offset)
            found.append(Compared(traced.name, traced.kind, made.size, unlike, values))
        except (NoReference, ValueError):  # Or codes of several scales, which no reference joins.
            found.append(Compared(traced.name, traced.kind, made.size))
    return found


def _differing(
    model: Model,
    op: Op,
    traced: TracedOp,
    given: list[Values],
    made: Values,
    quants: dict[int, TensorQuant],
    stored: dict[int, TensorQuant],
    offset: int,
) -> tuple[int, Values]:
    """`quants` are what the tensors mean, `stored` how they are quantized where they were seen."""
    around = [tensor for tensor in (*op.inputs, *op.outputs) if tensor in quants]
    if traced.kind == "FloatToInt8":
        codes, tensor = _codes(made, around, stored)
        expected = quantized(given[0], quants[tensor], offset)
    elif traced.kind == "Raster":  # The same codes in another order, perhaps of several tensors.
        codes, tensor = _codes(made, around, stored)
        grid = stored[tensor]
        expected = np.sort(np.concatenate([codes_of(array, grid).reshape(-1) for array in given]))
        if expected.size != codes.size:
            raise NoReference(traced.name)
        codes = np.sort(codes, axis=None)
    else:
        if any(tensor not in stored for tensor in op.inputs[: len(given)]):
            raise NoReference(f"{op.name} ({op.kind})")
        sides = [codes_of(array, stored[tensor]) for array, tensor in zip(given, op.inputs, strict=False)]
        codes, tensor = _codes(made, op.outputs[:1] if traced.int8 else op.inputs[:1], stored)
        expected = reference(model, op, sides, made.shape, quants, offset)
    return int((codes != expected).sum()), values_of(expected, quants[tensor])


def _codes(values: Values, tensors: Sequence[int], quants: dict[int, TensorQuant]) -> tuple[Codes, int]:
    """The values as codes of the first of these tensors whose quantization they fit."""
    for tensor in tensors:
        if tensor in quants and are_codes(values, quants[tensor]):
            return codes_of(values, quants[tensor]), tensor
    raise NoReference("no quantization fits these values")


def pooled_at(params: Params, base: Model, zero: int) -> Params:
    """The params with one grid of this zero point for the tensors before and after each MaxPool, as wide as both."""
    entries = [tensor for layer in params.layers for tensor in (layer.input, layer.output) if tensor is not None]
    changed: dict[str, ActivationParams] = {}
    for op in base.ops:
        if is_max_pool(op):
            names = {base.tensor_names[tensor] for tensor in (op.inputs[0], op.outputs[0])}
            own = [tensor for tensor in entries if tensor.name in names]
            if not own:  # A pool between float operators.
                continue
            low = min(tensor.scale * (_LOWEST - tensor.zero_point) for tensor in own)
            high = max(tensor.scale * (_HIGHEST - tensor.zero_point) for tensor in own)
            scale = max(high / (_HIGHEST - zero), -low / (zero - _LOWEST) if zero > _LOWEST else 0.0)
            for tensor in own:
                changed[tensor.name] = dataclasses.replace(tensor, scale=scale, zero_point=zero)

    def with_changes(layer: LayerParams) -> LayerParams:
        sides = {side: getattr(layer, side) for side in ("input", "output")}
        return dataclasses.replace(layer, **{side: changed.get(own.name, own) for side, own in sides.items() if own})

    return dataclasses.replace(params, layers=tuple(with_changes(layer) for layer in params.layers))


def gate_of(
    name: str, net: Any, architecture: Architecture, store: Store, quantized_path: Path | None = None
) -> SourceUnderTest:
    """The gate on a trained network, or on a model that was made of it."""
    base = Path(__file__).resolve().parent
    settings = ModelSettings(name, name, base, timeout=TIMEOUT)
    if quantized_path is not None:
        params = str(quantized_path.with_name(PARAMS_NAME))
        settings = dataclasses.replace(settings, quantized=str(quantized_path), params=params)
    data = {"calibration": architecture.calibration(), "evaluation": architecture.evaluation()}
    return SourceUnderTest(settings, Spec(name, name), store, lambda _: None, FixtureValues(net, **data))


def cases(name: str, architecture: Architecture, folder: Path, scratch: Path) -> Iterator[tuple[str, VariantUnderTest]]:
    """The int8 variants of a network, by the zero point around its pools."""
    net, store = architecture.trained(folder), Store(scratch / "store")
    ours = variant_under_test(gate_of(name, net, architecture, store), _OURS, "eval")
    for zero in FORMS:
        if zero is None:
            yield "recipe", ours
            continue
        variant = ours.variant
        assert variant.params is not None
        place = scratch / f"{name.replace(' ', '-')}{zero}"
        place.mkdir()
        write_params(pooled_at(read_params(variant.params), variant.base, zero), place / PARAMS_NAME)
        flags = ("--compressionParamsFile", str(place / PARAMS_NAME))
        convert(variant.base.path, place / "model.mnn", flags, timeout=TIMEOUT)
        yield str(zero), variant_under_test(gate_of(name, net, architecture, store, place / "model.mnn"), _OURS, None)


_HEAD: Final = (
    *("net", "pools", "float", "this host", "as judged", "reference", "int8 tensors = reference", *CPUS),
    *("outputs unlike the judged", "ARM tensors = reference"),
)


def row(
    name: str, form: str, case: VariantUnderTest, architecture: Architecture, arm: Path
) -> tuple[list[str], list[str]]:
    """What each of them says of a variant, and remarks: tensors that differ, operators without a reference."""
    inputs = dict(case.source.inputs)
    ((output, truth),) = case.source.float_run.outputs.items()
    truth = truth.reshape(len(truth), -1)

    def figures(found: Values) -> str:
        flat = found.reshape(truth.shape)
        return f"{architecture.top1(flat):.4f} {agreement(truth, flat).cosine:.5f}"

    judged, copied = case.runs.exact_run
    with tempfile.TemporaryDirectory(prefix="truth-") as scratch:
        path = Path(scratch) / "copy.mnn"
        copy = read_model(path) if write_exact_copy(case.model, copied, path) else None
        ours = compared(case.model, judged.trace or (), inputs, copy=copy, pools=copied)
    logits = [one.values for one in ours if one.values is not None and one.kind != "Raster" and one.count == truth.size]
    quants = effective_quants(case.model)
    zeros = {int(quants[op.inputs[0]].zero) for op in case.model.ops if op.name in copied}
    where = f"{form}: " + (", ".join(str(zero) for zero in sorted(zeros)) or "float")
    cells = [name, where, f"{architecture.top1(truth):.4f}", figures(case.runs.run.outputs[output])]
    cells += [figures(judged.outputs[output]), figures(logits[-1]) if logits else "none", equal(ours)]
    remarks = [f"as judged: {text}" for text in remarks_on(ours)]
    devices = {cpu: run_on_arm(arm, case.model.path, inputs, cpu)[output] for cpu in CPUS}
    shares = []
    for number, (cpu, device) in enumerate(devices.items()):
        cells.append(figures(device))
        if number and np.array_equal(
            device, devices[CPUS[0]]
        ):  # Its tensors are looked at where its outputs are others.
            continue
        theirs = compared(case.model, case.runs.run.trace or (), inputs, python=str(python_on(arm, cpu)), offset=0)
        shares.append(f"{cpu}: {equal(theirs)}")
        remarks += [f"{cpu}: {text}" for text in remarks_on(theirs)]
    unlike = [f"{int((device != judged.outputs[output]).sum())}" for device in devices.values()]
    return [*cells, f"{'/'.join(unlike)} of {truth.size}", "; ".join(shares)], remarks


def equal(tensors: Sequence[Compared]) -> str:
    """How many tensors equal the reference."""
    known = [one for one in tensors if one.unlike is not None]
    return f"{sum(one.unlike == 0 for one in known)} of {len(known)}, {sum(one.count for one in known)} codes"


def remarks_on(tensors: Sequence[Compared]) -> list[str]:
    """Which tensors differ from the reference, and which operators have none."""
    differing = [f"{one.op} ({one.kind}): {one.unlike} of {one.count} codes differ" for one in tensors if one.unlike]
    return differing + [f"{one.op} ({one.kind}): no reference" for one in tensors if one.unlike is None]


def matrix_remarks(name: str) -> tuple[str, list[str]]:
    """A network of the matrix as this host judges it: how many int8 tensors equal the reference, and remarks."""
    net = MATRIX[name]
    with tempfile.TemporaryDirectory(prefix="truth-") as scratch:
        settings, store = ModelSettings(name, name, Path(scratch), timeout=TIMEOUT), Store(Path(scratch) / "store")
        values = FixtureValues(net.network(), calibration=net.data(64, 1), evaluation=net.data(8, 77))
        gate = SourceUnderTest(settings, Spec(name, name), store, lambda _: None, values)
        case = variant_under_test(gate, _OURS, "eval")
        judged, copied = case.runs.exact_run
        path = Path(scratch) / "copy.mnn"
        copy = read_model(path) if copied and write_exact_copy(case.model, copied, path) else None
        tensors = compared(case.model, judged.trace or (), dict(gate.inputs), copy=copy, pools=copied)
    return equal(tensors), remarks_on(tensors)


def check_matrix(names: Sequence[str]) -> None:
    """Print a line for each network of the matrix, and end with 1 if a code differs."""
    differs = False
    for name in names:
        summary, remarks = matrix_remarks(name)
        differs |= any(text.endswith("differ") for text in remarks)
        print(f"{name}: {summary}" + "".join(f"\n  {text}" for text in remarks), flush=True)
    raise SystemExit(1 if differs else 0)


def main() -> None:
    """Print the table, a row at a time, and the remarks below it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where trained weights are kept")
    parser.add_argument("--net", action="append", choices=list(NETS), help="only these")
    parser.add_argument("--arm", type=Path, default=FOLDER, help="where the ARM system is (see arm.py)")
    parser.add_argument(
        "--matrix", action="append", choices=list(MATRIX), help="these networks of matrix_nets instead, on this host"
    )
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.matrix:
        check_matrix(options.matrix)
    try:
        arm = set_up(options.arm)
    except NoTarget as error:
        raise SystemExit(f"accuracy_truth.py: {error}") from None
    print("| " + " | ".join(_HEAD) + " |\n" + "|---" * len(_HEAD) + "|", flush=True)
    remarks: list[str] = []
    for name in options.net or NETS:
        with tempfile.TemporaryDirectory(prefix="truth-") as scratch:
            for form, case in cases(name, NETS[name], options.folder.resolve(), Path(scratch)):
                cells, said = row(name, form, case, NETS[name], arm)
                print("| " + " | ".join(cells) + " |", flush=True)
                remarks += [f"{name}, {form}, {text}" for text in said]
    print("\n" + "\n".join(remarks or ["Every int8 tensor has a reference and equals it in every code."]))
    raise SystemExit(1 if any(text.endswith("differ") for text in remarks) else 0)


if __name__ == "__main__":
    main()
