"""What each operator received and computed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Values = tuple[npt.NDArray[np.float32], ...]


class Which(NamedTuple):
    """An operator as MNN runs it, casts included: its name in the file, its kind, how many such ran before."""

    name: str
    kind: str
    number: int


@dataclass(frozen=True, slots=True)
class Ran:
    """What reached an operator, and what it made of it; `unset` tells that it did not take what it was given."""

    reached: Values
    made: Values
    int8: bool
    unset: bool = False


Operators = Mapping[Which, Ran]
