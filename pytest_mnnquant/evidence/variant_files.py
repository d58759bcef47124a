"""The files of a variant: how each layer is stored, and the params file compared with the model."""

from __future__ import annotations

import dataclasses
import glob
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from pytest_mnnquant.cache.manifest import file_digest
from pytest_mnnquant.checks.coverage.check import LayerRow, layer_rows
from pytest_mnnquant.checks.params.evidence import ParamsEvidence, relate
from pytest_mnnquant.config.settings import ModelSettings
from pytest_mnnquant.evidence.source import SourceUnderTest
from pytest_mnnquant.evidence.steps import step_property
from pytest_mnnquant.findings.fix_command import ConvertCommand, mnn_source, shell_command, working_path
from pytest_mnnquant.mnnfile.commands import layers_known_ahead
from pytest_mnnquant.mnnfile.constants import operand_constants
from pytest_mnnquant.mnnfile.entries import repaired
from pytest_mnnquant.mnnfile.matching import Match, match_layers
from pytest_mnnquant.mnnfile.model import BadModel
from pytest_mnnquant.mnnfile.params import BadParams, DoubledParams, read_params, write_params
from pytest_mnnquant.quantize.job import PARAMS_NAME
from pytest_mnnquant.quantize.variant import Variant
from pytest_mnnquant.recipes.mnn_support import is_skipped
from pytest_mnnquant.recipes.recipe import PipelineRecipe, Recipe


def calibration_command(settings: ModelSettings, recipe: Recipe) -> str:
    """The command that calibrates and makes a variant of this recipe; empty if no option can name the data.

    A pipeline of the user's own is not run again: only its owner knows whether that helps.
    """
    by_option = settings.source and settings.calibration and settings.preprocess is None
    if not by_option or isinstance(recipe, PipelineRecipe) or settings.base != Path.cwd():
        return ""
    options = {"model": settings.source, "calibration": settings.calibration, "recipe": recipe.name}
    options |= {"evaluation": settings.evaluation} if settings.evaluation else {}
    return shell_command("pytest", *(f"--mnn-{name}={value}" for name, value in options.items()))


class VariantFiles:
    """The contents of a variant's files; no model runs. `skip` are globs of layers that stay float."""

    def __init__(self, source: SourceUnderTest, variant: Variant, skip: tuple[str, ...]) -> None:
        self.source = source
        self.variant = variant
        self.skip = skip

    @step_property("match the layers")
    def match(self) -> Match:
        """The pairs of layers of the float model and of the variant."""
        return match_layers(self.variant.base, self.variant.model)

    @step_property("read how the layers are stored")
    def rows(self) -> tuple[LayerRow, ...]:
        """How each layer is stored."""
        modules = self.variant.modules
        return layer_rows(
            self.match,
            self.variant.recipe,
            lambda op: is_skipped(op, self.skip, modules.get(op.name, "")),
            operand_constants(self.variant.base),
            layers_known_ahead(self.variant.base),
        )

    @property
    def idle_patterns(self) -> tuple[str, ...]:
        """The patterns of layers to skip that match no layer."""
        modules = self.variant.modules
        layers = [(row.layer, modules.get(row.layer.name, "")) for row in self.rows]
        return tuple(
            pattern for pattern in self.skip if not any(is_skipped(op, (pattern,), module) for op, module in layers)
        )

    @step_property("read the params file")
    def params(self) -> ParamsEvidence | None:
        """The params file compared with the model; None if none is expected."""
        path, base = self.variant.params, self.variant.base
        if path is None:
            return None
        if not path.exists():
            return ParamsEvidence(path, missing=str(path))
        try:
            params = read_params(path)
        except (BadParams, OSError) as error:
            return ParamsEvidence(path, unreadable=str(error), doubled=isinstance(error, DoubledParams))
        evidence = relate(path, params, base, self.variant.model, self.match)
        if not evidence.can_be_repaired:
            return evidence
        fixed = repaired(params, base)
        inputs = {"params": file_digest(path), "float": file_digest(base.path)}
        folder = self.source.store.folder("repaired", inputs, lambda place: write_params(fixed, place / PARAMS_NAME))
        return dataclasses.replace(evidence, repaired=folder / PARAMS_NAME)

    @property
    def convert_command(self) -> ConvertCommand:
        """What a command that makes this variant again has to name.

        A file of the user's own build is replaced; a variant that was made here goes into the working directory. The
        params file is the repaired one if names had to be repaired.
        """
        variant, settings = self.variant, self.source.settings
        name = f"{settings.name}-{variant.label}.mnn"
        output = variant.model.path if variant.given else Path(name.replace("/", "_"))
        params = self.params.applicable if self.params else None
        options = {
            "quantized": None if variant.given else output,
            "params": None if params == variant.params else params,
        }
        return ConvertCommand(
            mnn_source(variant.base.path),
            output,
            params,
            tuple(dict.fromkeys(self._skip_globs())),
            calibration_command(settings, variant.recipe) if variant.recipe.activations else "",
            tuple(f"--mnn-{option}={working_path(path)}" for option, path in options.items() if path is not None),
        )

    def _skip_globs(self) -> Iterator[str]:
        """Globs that keep the same layers float without the names of their PyTorch modules."""
        for row in self.rows:
            if not row.wanted and not row.is_operand:
                named = [pattern for pattern in self.skip if is_skipped(row.layer, (pattern,))]
                yield from named[:1] or [glob.escape(row.layer.name)]

    @property
    def days_older(self) -> float | None:
        """By how many days the file of a user's build is older than its source; None if that means nothing."""
        source = self.source.spec.path
        if source is None or not self.variant.given:
            return None
        return (source.stat().st_mtime - self.variant.model.path.stat().st_mtime) / 86_400

    @property
    def is_lossless(self) -> bool:
        """Whether quantized weights equal the float model's exactly: for example a float16 source stored as float16."""
        pairs = [(row.layer, row.stored) for row in self.rows if row.quantized and row.stored]
        if self.variant.recipe.activations or not pairs:
            return False
        base, model = self.variant.base, self.variant.model
        try:
            return all(np.array_equal(base.decoded(layer), model.decoded(stored)) for layer, stored in pairs)
        except BadModel:
            return False
