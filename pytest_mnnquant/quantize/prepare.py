"""A source becomes a float `.mnn` model that is proven to compute what the source computes."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from pytest_mnnquant.metrics.agreement import Agreement, agreement, is_same
from pytest_mnnquant.mnnfile.model import Model, ModelInput, read_model
from pytest_mnnquant.quantize.store import Store, file_digest
from pytest_mnnquant.runtime.child import NativeFailure
from pytest_mnnquant.runtime.convert import convert
from pytest_mnnquant.runtime.execute import Run, run
from pytest_mnnquant.sources.data import Dataset, as_dataset, load_data
from pytest_mnnquant.sources.images import Preprocess
from pytest_mnnquant.sources.spec import SourceError, Spec, call, load_module

if TYPE_CHECKING:
    import torch

_PROOF_SAMPLES: Final = 64


@dataclass(frozen=True)
class Choices:
    """What the user chose that decides how a model is prepared. Paths in specifications start at `root`.

    Data are a specification (text), or arrays or batches themselves; `preprocess` goes with folders of images.
    """

    root: Path
    calibration: Any = None
    evaluation: Any = None
    exporter: str = "torchscript"
    timeout: float = 300.0
    preprocess: Preprocess | None = None


@dataclass(frozen=True)
class Prepared:
    """A source and its float model.

    `proof` compares each output with the source's on real samples; None with `unproven` saying why it could not be
    made. `batched` tells whether several samples can be fed at once. `network` is our private copy of a PyTorch model.
    """

    spec: Spec
    model: Model
    digest: str
    calibration: Dataset | None
    evaluation: Dataset | None
    batched: bool
    proof: dict[str, Agreement] | None
    unproven: str = ""
    network: torch.nn.Module | None = field(default=None, repr=False)
    sample_run: Run | None = field(default=None, repr=False)

    @property
    def data(self) -> Dataset | None:
        """Any real samples: evaluation data, else calibration data."""
        return self.evaluation or self.calibration


def prepare(spec: Spec, choices: Choices, store: Store, say: Callable[[str], None], given: Any = None) -> Prepared:
    """Load the source, convert it to float, prove the conversion.

    `given` is a PyTorch model that a fixture returned; otherwise the specification is loaded. Raises `SourceError`,
    `NativeFailure` or `BadModel` when there is no float model to speak of.
    """
    if spec.is_python or given is not None:
        return _prepare_python(spec, choices, store, say, given)
    return _prepare_file(spec, choices, store, say)


def _data(
    given: Any, module: ModuleType | None, function: str, names: tuple[str, ...], choices: Choices
) -> Dataset | None:
    if isinstance(given, str):
        return load_data(given, choices.root, names, choices.preprocess, choices.timeout)
    if given is not None:
        return as_dataset(given, names, f"the {function} data")
    if module is not None and hasattr(module, function):
        origin = f"{Path(module.__file__ or module.__name__).name}:{function}()"
        return as_dataset(call(origin, module, function), names, origin)
    return None


# PyTorch ------------------------------------------------------------------------------------------------------------


def _prepare_python(spec: Spec, choices: Choices, store: Store, say: Callable[[str], None], given: Any) -> Prepared:
    from pytest_mnnquant.sources import pytorch

    say("loading the PyTorch model")
    pytorch.import_torch(spec.text)
    module = load_module(spec) if spec.is_python else None
    built = given if given is not None else call(spec.text, module, spec.attribute)  # type: ignore[arg-type]
    network = pytorch.private_copy(built, spec.text)
    names = pytorch.input_names(network, spec.text)
    calibration = _data(choices.calibration, module, "calibration", names, choices)
    evaluation = _data(choices.evaluation, module, "evaluation", names, choices)
    data = evaluation or calibration
    if data is None:
        raise SourceError(
            f"{spec.text}: no data to run the model on: give --mnn-calibration (and --mnn-evaluation), or define "
            "calibration() and evaluation() beside the model"
        )
    some = Dataset(data.head(_PROOF_SAMPLES), origin=data.origin)
    expected = pytorch.outputs(network, some, spec.text)
    if calibration is not None and calibration is not data:  # It must not fail later, in the middle of calibrating.
        pytorch.outputs(network, Dataset(calibration.head(2), origin=calibration.origin), spec.text)
    digest = pytorch.digest(network)
    failure: Exception | None = None
    for dynamic in (True, False):
        for fresh in (False, True):
            try:
                say("exporting and converting to float")
                model = _export_and_convert(network, some, digest, choices, store, dynamic, fresh, spec.text)
                ran = run(model, some.inputs, timeout=choices.timeout, batched=dynamic)
                exported = _ordered(model)
                if len(exported) != len(expected):
                    raise ValueError(f"the model returns {len(expected)} tensors, its ONNX export {len(exported)}")
                proof = _compare(dict(zip(exported, expected, strict=True)), ran)
            except (NativeFailure, ValueError) as error:
                failure = error
                continue
            if is_proven(proof) or not dynamic:
                return Prepared(spec, model, digest, calibration, evaluation, dynamic, proof, "", network, ran)
            failure = None
    if failure is not None:
        raise failure if isinstance(failure, NativeFailure) else SourceError(f"{spec.text}: {failure}")
    return Prepared(spec, model, digest, calibration, evaluation, False, proof, "", network, ran)


def _export_and_convert(
    network: Any, data: Dataset, digest: str, choices: Choices, store: Store, dynamic: bool, fresh: bool, name: str
) -> Model:
    shapes = {key: array.shape[1:] for key, array in data.inputs.items()}
    inputs = {"state": digest, "exporter": choices.exporter, "dynamic": dynamic, "shapes": shapes}
    return read_model(
        store.folder(
            "float",
            inputs,
            lambda folder: export_float(network, data, folder, choices.exporter, dynamic, name, choices.timeout),
            fresh=fresh,
        )
        / "float.mnn"
    )


def export_float(
    network: Any, data: Dataset, folder: Path, exporter: str, dynamic: bool, name: str, timeout: float
) -> None:
    """Write `float.onnx` and `float.mnn` of a PyTorch model into `folder`."""
    from pytest_mnnquant.sources import pytorch

    pytorch.export(network, data, folder / "float.onnx", exporter=exporter, dynamic=dynamic, name=name)
    convert(folder / "float.onnx", folder / "float.mnn", timeout=timeout)


def _ordered(model: Model) -> list[str]:
    """The outputs in the order of export: `output`, `output1`, `output2`, ..."""
    return sorted(model.output_names, key=lambda name: int(name.removeprefix("output") or 0))


# Files --------------------------------------------------------------------------------------------------------------


def _prepare_file(spec: Spec, choices: Choices, store: Store, say: Callable[[str], None]) -> Prepared:
    assert spec.path is not None
    # torch's exporter puts the weights of a large model into a file beside it.
    files = [spec.path, spec.path.with_name(spec.path.name + ".data")]
    digest = "".join(file_digest(file) for file in files if file.is_file())
    if spec.path.suffix == ".mnn":
        model = read_model(spec.path)
    else:
        say("converting to float")
        source = spec.path
        folder = store.folder(
            "float", {"onnx": digest}, lambda made: _convert_onnx(source, made / "float.mnn", choices.timeout)
        )
        model = read_model(folder / "float.mnn")
    names = tuple(item.name for item in model.inputs)
    calibration = _data(choices.calibration, None, "calibration", names, choices)
    evaluation = _data(choices.evaluation, None, "evaluation", names, choices)
    data = evaluation or calibration
    if data is not None:
        _fit(data, model.inputs)
    batched, ran = (True, None) if data is None else _try_batch(model, data, choices.timeout)
    proof, unproven = _proof_of_file(spec.path, data, ran)
    return Prepared(spec, model, digest, calibration, evaluation, batched, proof, unproven, None, ran)


def _convert_onnx(source: Path, output: Path, timeout: float) -> None:
    convert(source, output, timeout=timeout)


def _fit(data: Dataset, inputs: tuple[ModelInput, ...]) -> None:
    """Refuse data whose samples can't be the model's input, before MNN computes nonsense from them."""
    for spec in inputs:
        shape = data.inputs[spec.name].shape
        fixed = [(axis, size) for axis, size in enumerate(spec.shape[1:], 1) if size > 0]
        if len(shape) != len(spec.shape) or any(shape[axis] != size for axis, size in fixed):
            wanted = ", ".join(["samples", *(str(size) if size > 0 else "any" for size in spec.shape[1:])])
            raise SourceError(f"{data.origin}: array {spec.name!r} has shape {list(shape)}, the model takes [{wanted}]")


def _try_batch(model: Model, data: Dataset, timeout: float) -> tuple[bool, Run]:
    """Whether the model gives the same for samples fed together as one by one (a fixed batch of 1 may not)."""
    some = data.head(_PROOF_SAMPLES)
    alone = run(model, some, timeout=timeout, batched=False)
    try:
        together = run(model, some, timeout=timeout)
        same = is_proven(_compare(alone.outputs, together))
    except (NativeFailure, ValueError):
        return False, alone
    return (True, together) if same else (False, alone)


def _proof_of_file(path: Path, data: Dataset | None, ran: Run | None) -> tuple[dict[str, Agreement] | None, str]:
    if path.suffix == ".mnn":
        return {}, ""
    if data is None or ran is None:
        return None, "no data were given (--mnn-evaluation) to compare the float model with the ONNX model on"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import onnxruntime
    except ImportError:
        return None, "onnxruntime is not installed to run the ONNX model (pip install 'pytest-mnnquant[onnx]')"
    try:
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        names = [output.name for output in session.get_outputs()]
        fixed = session.get_inputs()[0].shape[0]
        batch = 1 if fixed == 1 else len(next(iter(ran.outputs.values())))
        expected = _run_onnx(session, names, data.head(_PROOF_SAMPLES), batch)
    except Exception as error:
        return None, f"onnxruntime can't run the ONNX model on {data.origin}: {str(error).splitlines()[0]}"
    return _compare(expected, ran), ""


def _run_onnx(
    session: Any, names: list[str], inputs: dict[str, npt.NDArray[Any]], batch: int
) -> dict[str, npt.NDArray[Any]]:
    kinds = {
        "tensor(float)": np.float32,
        "tensor(int64)": np.int64,
        "tensor(int32)": np.int32,
        "tensor(uint8)": np.uint8,
    }
    wanted = {item.name: kinds.get(item.type, np.float32) for item in session.get_inputs()}
    count = len(next(iter(inputs.values())))
    parts = []
    for start in range(0, count, batch):
        feed = {name: inputs[name][start : start + batch].astype(kind) for name, kind in wanted.items()}
        parts.append(session.run(names, feed))
    return {name: np.concatenate(column) for name, column in zip(names, zip(*parts, strict=True), strict=True)}


# Both ---------------------------------------------------------------------------------------------------------------


def _compare(expected: dict[str, npt.NDArray[Any]], ran: Run) -> dict[str, Agreement]:
    missing = sorted(set(expected) - set(ran.outputs))
    if missing:
        raise ValueError(f"the float model has no output {missing[0]!r}; it has: {', '.join(sorted(ran.outputs))}")
    return {name: agreement(_flat(array), _flat(ran.outputs[name])) for name, array in expected.items()}


def _flat(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return array if array.ndim == 2 else array.reshape(len(array), -1)


def is_proven(proof: dict[str, Agreement]) -> bool:
    """Whether every output agrees to float rounding."""
    return all(is_same(item) for item in proof.values())
