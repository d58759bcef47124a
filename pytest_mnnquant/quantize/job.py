"""The input of a quantizer, and the output that it leaves in its folder."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from pytest_mnnquant.measurements.dataset import Dataset
from pytest_mnnquant.quantize.prepared import Choices, Prepared
from pytest_mnnquant.recipes.mnn_support import int8_layers
from pytest_mnnquant.recipes.recipe import PipelineRecipe, Recipe
from pytest_mnnquant.runtime.options import RunOptions

MODEL_NAME: Final = "model.mnn"
FLOAT_NAME: Final = "float.mnn"
PARAMS_NAME: Final = "compress_params_index.bin"
_OUTPUT_NAME: Final = "facts.json"


@dataclass(frozen=True)
class Job:
    """The model to quantize, and how. `skip` are globs of layers that stay float."""

    source: Prepared
    recipe: Recipe
    mode: str | None
    skip: tuple[str, ...]
    choices: Choices

    @property
    def data(self) -> Dataset | None:
        """The calibration data; None if there are none, or the recipe needs none."""
        is_calibrated = self.recipe.activations or isinstance(self.recipe, PipelineRecipe)
        return self.source.calibration if is_calibrated else None

    @property
    def options(self) -> RunOptions:
        """How the source's model is run."""
        return self.source.options(self.choices.timeout)


@dataclass(frozen=True)
class Transformation:
    """What a recipe's suffix (`equalized`, `corrected`) changed in the float model before it was quantized.

    `layers` are those whose weights or biases changed; none if nothing was to gain. `is_refused`: the change was not
    used, since the result was not the same (of a float model) or not better (of an int8 model).
    """

    suffix: str
    layers: tuple[str, ...] = ()
    is_refused: bool = False


@dataclass(frozen=True)
class QuantizerOutput:
    """The model that a quantizer wrote.

    `model` and `params` are paths inside the folder; `params` is None without a params file. `drift`: see `Calibrated`.
    `modules` gives the PyTorch module of each layer, if known. `arguments` are those of the tool: a command line, or
    the configuration of MNN's offline tool. `transformations` are those of `Transformation`, as JSON.
    """

    model: str = MODEL_NAME
    params: str | None = None
    drift: float = 0.0
    modules: dict[str, str] = field(default_factory=dict)
    arguments: list[str] | dict[str, Any] | None = None
    transformations: list[dict[str, Any]] = field(default_factory=list)


def save_output(output: QuantizerOutput, folder: Path) -> None:
    """Write what a quantizer returned into its folder."""
    (folder / _OUTPUT_NAME).write_text(json.dumps(dataclasses.asdict(output)), encoding="utf-8")


def load_output(folder: Path) -> QuantizerOutput:
    """Read what a quantizer returned from its folder."""
    return QuantizerOutput(**json.loads((folder / _OUTPUT_NAME).read_text(encoding="utf-8")))


def modules_to_skip(job: Job) -> dict[str, str]:
    """The PyTorch module of each layer, if a pattern of layers to skip may name one; else nothing."""
    if not job.skip or job.source.network is None or job.source.data is None:
        return {}
    from pytest_mnnquant.quantize.tensor_binding import bind_tensors

    source, layers = job.source, int8_layers(job.source.model)
    network: Any = source.network
    return bind_tensors(network, source.model, layers, job.source.data, job.options).modules
