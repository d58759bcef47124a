"""The error that each layer adds."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class LayerErrors:
    """Errors at the output of one layer, each as noise energy / signal energy of the float model's output.

    With the float model's exact input: `weights` is the error of the stored weights alone; `input` adds rounding and
    clipping of the layer's input; `own` adds those of its output. In the variant's run: `reached` is the error of the
    layer's output, `inherited` that of its input. `clipped_in` and `clipped_out` are the shares of values outside the
    range of the codes. `measured` is False if the layer did not appear in the runs.
    """

    weights: float
    input: float
    own: float
    reached: float
    inherited: float
    clipped_in: float
    clipped_out: float
    measured: bool


@dataclass(frozen=True, slots=True)
class OperatorErrors:
    """Errors of an operator without weights, each as noise energy / signal energy.

    `entered` is the worst of its inputs' in the variant's own run, `left` its output's. `own` is its output's with the
    float model's inputs, if it ran in int8; else 0.
    """

    entered: float
    left: float
    own: float = 0.0
