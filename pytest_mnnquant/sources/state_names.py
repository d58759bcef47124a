"""The names of states: inputs of the model, each with the output that is fed back to it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pytest_mnnquant.mnnfile.model import BadModel, read_model
from pytest_mnnquant.sources.onnx_file import graph_names
from pytest_mnnquant.sources.spec import DataError, Spec


def require_known_names(states: Mapping[str, str], spec: Spec) -> None:
    """Raise `DataError` for names that an `.onnx` or `.mnn` file does not have; other sources show them later."""
    if states and spec.path is not None and spec.path.is_file():
        inputs, outputs = _names(spec.path)
        if inputs:
            require_names(states, inputs, outputs, spec.text)


def _names(path: Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The names of inputs and outputs; empty for files of other kinds, and damaged ones, which a check reports."""
    if path.suffix == ".onnx":
        return graph_names(path)
    try:
        model = read_model(path) if path.suffix == ".mnn" else None
    except (BadModel, OSError):
        model = None
    return (tuple(item.name for item in model.inputs), model.output_names) if model else ((), ())


def require_names(states: Mapping[str, str], inputs: tuple[str, ...], outputs: tuple[str, ...], name: str) -> None:
    """Raise `DataError` for a state that is not an input, or is fed from an unknown output (of none are known: any)."""
    for state, output in states.items():
        if state not in inputs:
            problem = f"unknown input {state!r}"
        elif outputs and output not in outputs:
            problem = f"unknown output {output!r}"
        else:
            continue
        known = f"inputs: {', '.join(inputs)}" + (f"; outputs: {', '.join(outputs)}" if outputs else "")
        raise DataError(f"{name}: --mnn-state {state}={output}: {problem}; {known}")
    if set(inputs) <= states.keys():
        raise DataError(f"{name}: --mnn-state names all inputs: a sequence needs an input that is not fed back")
