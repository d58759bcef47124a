"""The error that each layer adds."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class LayerErrors:
    """Errors at the output of one layer, each as noise energy / signal energy of the float model's own output.

    Of what the layer itself does with the float model's exact input: `weights` is what its stored weights alone do;
    `input` takes in the rounding and clipping of its input; `own` that of its output too. `reached` is what its output
    is off by in the variant's own run, `inherited` what its input is. `clipped_in` and `clipped_out` are the shares of
    values that its codes can't hold. `measured` is False where the layer never appeared in the runs.
    """

    weights: float
    input: float
    own: float
    reached: float
    inherited: float
    clipped_in: float
    clipped_out: float
    measured: bool
