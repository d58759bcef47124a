"""What each operator received and computed."""

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
    """What an operator received and computed; `ignored_inputs`: it did not take the values that it was given."""

    inputs: Values
    outputs: Values
    int8: bool
    ignored_inputs: bool = False


Operators = Mapping[OperatorKey, OperatorRun]
