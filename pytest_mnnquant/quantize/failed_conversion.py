"""Names the operators of a source on which MNN's converter failed."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Final

from pytest_mnnquant.mnnfile.model import BadModel, read_model
from pytest_mnnquant.runtime.jobs import FailureKind, NativeFailure, UnsupportedOperators
from pytest_mnnquant.sources.onnx_file import first_operator, local_functions
from pytest_mnnquant.sources.tflite_file import custom_operators

_REPLACE: Final = "write the network with other operators of the ONNX standard, and export again"
_OPTIMIZED: Final = (
    "give the model as it was before ONNX Runtime's optimizer: optimum and onnxruntime.transformers write operators of "
    "com.microsoft"
)
_STATIC: Final = "give the .mnn that was made without --saveStaticModel, or its .onnx"
_OTHER: Final = "convert the network without this operator, or from PyTorch or ONNX"


def explain_failure(error: NativeFailure, source: Path) -> NativeFailure:
    """The failure of a conversion with the operator to blame; the same failure if none is known."""
    if source.suffix == ".tflite" and error.kind is FailureKind.CRASHED and (custom := custom_operators(source)):
        what = f"{error.what} on the {custom[0].kind}, which is not an operator of TensorFlow Lite"
        return NativeFailure(error.kind, what, fix=_OTHER, operator=custom[0].name)
    if source.suffix == ".mnn" and error.kind is FailureKind.CRASHED and _is_static(source):
        return NativeFailure(
            error.kind, f"{error.what} on a source made with --saveStaticModel", error.log, fix=_STATIC
        )
    if not isinstance(error, UnsupportedOperators):
        return error
    kind, layer = first_operator(source, error.operators) if source.suffix == ".onnx" else ("", "")
    if not kind:
        return NativeFailure(error.kind, error.what, fix=_OTHER)
    others = [name for name in error.operators if name != kind.rpartition(".")[2]]
    what = f"{source.name}: MNN's converter does not support {', '.join([kind, *others])}"
    fix = _OPTIMIZED if kind.startswith("com.microsoft.") else _REPLACE
    if not local_functions(source).isdisjoint(error.operators):
        fix = _inlined(source)
    return NativeFailure(error.kind, what, fix=fix, operator=layer)


def _is_static(source: Path) -> bool:
    try:
        return read_model(source).is_static
    except (BadModel, OSError):
        return False


def _inlined(source: Path) -> str:
    """The command that replaces the local functions of an ONNX file by their operators."""
    name, output = str(source), f"{source.stem}.inlined.onnx"
    code = f"import onnx, onnx.inliner; onnx.save(onnx.inliner.inline_local_functions(onnx.load({name!r})), {output!r})"
    return f"inline its functions, and give {output}:\npython -c {shlex.quote(code)}"
