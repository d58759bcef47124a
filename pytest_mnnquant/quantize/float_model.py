"""Converts a source to a float `.mnn` model, and proves that both compute the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pytest_mnnquant.cache.store import Store
from pytest_mnnquant.quantize.prepare_file import prepare_file
from pytest_mnnquant.quantize.prepare_pytorch import prepare_pytorch
from pytest_mnnquant.quantize.prepared import Choices, Prepared
from pytest_mnnquant.sources.spec import Spec


def prepare(spec: Spec, choices: Choices, store: Store, say: Callable[[str], None], given: Any = None) -> Prepared:
    """Load the source, convert it to float, prove the conversion.

    `given` is a PyTorch model that a fixture returned; otherwise the specification is loaded. Raises `SourceError`,
    `NativeFailure` or `BadModel` if no float model can be made.
    """
    if spec.is_python or spec.is_torch_file or given is not None:
        return prepare_pytorch(spec, choices, store, say, given)
    return prepare_file(spec, choices, store, say)
