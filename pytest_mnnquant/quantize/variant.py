"""Makes variants: one quantized model from a prepared source, a recipe and a mode."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from pytest_mnnquant.mnnfile.model import Model, Op, read_model
from pytest_mnnquant.quantize.calibration import (
    Range,
    int8_layers,
    make_params,
    runtime_ranges,
    save_params,
    settled,
)
from pytest_mnnquant.quantize.carry import carried, watched_ops
from pytest_mnnquant.quantize.prepare import Choices, Prepared, export_float
from pytest_mnnquant.quantize.recipes import Recipe
from pytest_mnnquant.quantize.store import Store
from pytest_mnnquant.runtime.convert import convert
from pytest_mnnquant.sources.data import Dataset
from pytest_mnnquant.sources.spec import SourceError

PARAMS_NAME = "compress_params_index.bin"


@dataclass(frozen=True)
class Variant:
    """One quantized model and where it came from.

    `base` is the float model it was quantized from: the source's, or the one that was exported for it (calibration in
    train mode moves statistics; BatchNorms that MNN does not fold are written as multiply and add).
    `given` is True for a file that the user's own pipeline made. `drift`: see `Calibrated`. `modules` gives the
    user's own module for each layer, where it is known.
    """

    recipe: Recipe
    mode: str | None
    model: Model
    base: Model
    params: Path | None = None
    given: bool = False
    drift: float = 0.0
    modules: dict[str, str] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """`int8[train]`, `w8`, ..."""
        return self.recipe.label(self.mode)


def is_skipped(op: Op, patterns: tuple[str, ...], module: str = "") -> bool:
    """Whether the user meant this layer to stay float: a glob matches its name, its output tensor or its module."""
    names = (op.name, *op.output_names, *((module,) if module else ()))
    return any(fnmatchcase(name, pattern) for pattern in patterns for name in names)


def make_variant(
    source: Prepared,
    recipe: Recipe,
    mode: str | None,
    skip: tuple[str, ...],
    choices: Choices,
    store: Store,
    say: Callable[[str], None],
) -> Variant:
    """Quantize. Raises `SourceError` (no calibration data) or `NativeFailure`."""
    if not recipe.activations:
        if any(is_skipped(op, skip) for op in source.model.layers if op.is_convolution):
            raise SourceError(
                f"{recipe.name} can't leave layers float yet: --mnn-skip-layer goes with int8 and with given files"
            )
        say(f"converting to {recipe.name}")
        inputs: dict[str, Any] = {
            "float": source.digest,
            "exporter": choices.exporter,
            "recipe": recipe.name,
            "float_uuid": source.model.uuid,
        }
        folder = store.folder(
            "variant",
            inputs,
            lambda made: _convert(source.model.path, made, recipe.flags, choices.timeout),
        )
        return Variant(recipe, None, read_model(folder / "model.mnn"), source.model)
    data = source.calibration
    if data is None:
        raise SourceError(
            f"{source.spec.text}: {recipe.name} needs calibration data: give --mnn-calibration"
            + (", or define calibration() beside the model" if source.spec.is_python else "")
        )
    inputs = {
        "float": source.digest,
        "float_uuid": source.model.uuid,
        "exporter": choices.exporter,
        "recipe": recipe.name,
        "mode": mode,
        "skip": skip,
        "data": data.digest(),
    }
    if source.model.has_subgraphs:
        raise SourceError(
            f"{recipe.name} can't be calibrated: the model has While or If bodies (LSTM, GRU, loops), for which MNN "
            "gives no trace of tensors; use --mnn-recipe=w8"
        )
    say(f"calibrating on {data.samples} samples" + (f" in {mode} mode" if mode else ""))
    build = _build_torch if source.network is not None else _build_runtime
    folder = store.folder("variant", inputs, lambda made: build(source, data, mode or "", skip, choices, made))
    facts: dict[str, Any] = json.loads((folder / "facts.json").read_text(encoding="utf-8"))
    model = read_model(folder / "model.mnn")
    base = read_model(folder / "float.mnn") if (folder / "float.mnn").exists() else source.model
    params = folder / PARAMS_NAME
    return Variant(recipe, mode, model, base, params, drift=facts["drift"], modules=facts["modules"])


def _convert(source: Path, folder: Path, flags: tuple[str, ...], timeout: float) -> None:
    convert(source, folder / "model.mnn", flags, timeout=timeout)


def _build_torch(
    source: Prepared, data: Dataset, mode: str, skip: tuple[str, ...], choices: Choices, folder: Path
) -> None:
    from pytest_mnnquant.quantize.binding import bind, calibrate
    from pytest_mnnquant.quantize.norms import loose_norms, with_plain_norms

    network: Any = source.network
    limit: Any = {"timeout": choices.timeout, "batched": source.batched}
    model, loose = source.model, loose_norms(network, source.model, data, **limit)

    def export(exported: Any) -> Model:
        plain = with_plain_norms(exported, loose)
        export_float(plain, data, folder, choices.exporter, source.batched, source.spec.text, choices.timeout)
        return read_model(folder / "float.mnn")

    if loose:
        model = export(network)
    layers = int8_layers(model)
    links = carried(model, layers)
    ops = watched_ops(layers, links)
    binding = bind(network, model, ops, data, **limit)
    found = calibrate(network, model, ops, binding, data, mode, **limit)
    if found.drift > 0:
        # What a pipeline that calibrates in train mode ships: the model with the statistics that calibration left.
        drifted = export(found.network)
        if drifted.tensor_names != model.tensor_names:
            raise SourceError(f"{source.spec.text}: the model exports to another graph after calibration in train mode")
        model = drifted
    kept = tuple(op for op in int8_layers(model) if not is_skipped(op, skip, binding.modules.get(op.name, "")))
    ranges = settled(found.ranges, links)
    _finish(model, kept, ranges, folder, choices.timeout, drift=found.drift, modules=binding.modules)


def _build_runtime(
    source: Prepared, data: Dataset, _mode: str, skip: tuple[str, ...], choices: Choices, folder: Path
) -> None:
    layers = tuple(op for op in int8_layers(source.model) if not is_skipped(op, skip))
    links = carried(source.model, layers)
    ops = watched_ops(layers, links)
    ranges = runtime_ranges(source.model, ops, data, timeout=choices.timeout, batched=source.batched)
    _finish(source.model, layers, settled(ranges, links), folder, choices.timeout, drift=0.0, modules={})


def _finish(
    model: Model, layers: tuple[Op, ...], ranges: dict[int, Range], folder: Path, timeout: float, **facts: Any
) -> None:
    # A layer without ranges never ran: it stays float, and the coverage check says so.
    layers = tuple(op for op in layers if op.inputs[0] in ranges and op.outputs[0] in ranges)
    if not layers:
        raise SourceError("int8: there is no layer that MNN can run in int8; use another recipe (--mnn-recipe=w8)")
    params = save_params(make_params(model, layers, ranges), folder / PARAMS_NAME)
    # From the float .mnn, not from ONNX: a Linear of 65,536 weights or more loses its weights on the way from ONNX.
    convert(model.path, folder / "model.mnn", ("--compressionParamsFile", str(params)), timeout=timeout)
    (folder / "facts.json").write_text(json.dumps(facts), encoding="utf-8")
