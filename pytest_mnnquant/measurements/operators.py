"""The inputs and outputs of each operator in a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Values = tuple[npt.NDArray[np.float32], ...]


class OperatorKey(NamedTuple):
    """An operator as MNN runs it, casts included: its name in the file, its kind, and how many of both ran before."""

    name: str
    kind: str
    number: int


@dataclass(frozen=True, slots=True)
class OperatorRun:
    """The inputs and outputs of an operator; `ignored_inputs`: it did not use the values that it was given."""

    inputs: Values
    outputs: Values
    int8: bool
    ignored_inputs: bool = False


Operators = Mapping[OperatorKey, OperatorRun]
