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
