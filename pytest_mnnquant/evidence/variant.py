"""One variant under test: how it is made or read, and all evidence about it."""

from __future__ import annotations

import dataclasses
from functools import cached_property
from typing import Final

from pytest_mnnquant.cache.manifest import file_digest
from pytest_mnnquant.checks.coverage.check import LayerRow, coverage
from pytest_mnnquant.evidence.attempt import Attempt
from pytest_mnnquant.evidence.caches import ResultCache, VariantKey
from pytest_mnnquant.evidence.finished_variant import finished_variant
from pytest_mnnquant.evidence.source import SourceUnderTest, attempt, model_file
from pytest_mnnquant.evidence.steps import UNUSABLE
from pytest_mnnquant.evidence.variant_costs import VariantCosts
from pytest_mnnquant.evidence.variant_files import VariantFiles
from pytest_mnnquant.evidence.variant_runs import VariantRuns
from pytest_mnnquant.measurements.dataset import Dataset
from pytest_mnnquant.mnnfile.model import Model
from pytest_mnnquant.quantize.job import Job
from pytest_mnnquant.quantize.variant import Variant, make_variant
from pytest_mnnquant.recipes.names import recipe_named
from pytest_mnnquant.recipes.recipe import BestRecipe, Recipe
from pytest_mnnquant.report.variant_report import LayerReport, ParamsFile, VariantReport

# The checks that compare a variant's outputs with the float model's.
_WITH_RUNS: Final = ("execution", "accuracy")


class VariantUnderTest:
    """One variant and the evidence about it: its files, its runs and its costs, each gathered when first needed.

    `skip` (globs of layers that stay float) and `calibration` (data) replace the settings if given; `made` is the
    variant itself, if it is made already.
    """

    def __init__(
        self,
        source: SourceUnderTest,
        recipe: Recipe,
        mode: str | None,
        skip: tuple[str, ...] | None = None,
        calibration: Dataset | None = None,
        made: Variant | None = None,
    ) -> None:
        self.source = source
        self.recipe = recipe
        self.mode = mode
        self.skip = source.settings.skip_layers if skip is None else skip
        self.label = recipe.label(mode)
        #: The name of the target it runs on; empty on this host.
        self.target = ""
        self.results = ResultCache()
        #: The checks of this variant that run in this session, as far as known.
        self.selected: set[str] = set()
        self._given_calibration = calibration
        self._made = made

    @cached_property
    def _variant(self) -> Attempt[Variant]:
        return attempt("make the variant", self._make)

    def _make(self) -> Variant:
        source = self.source
        if self._made is not None:
            return self._made
        prepared = source.prepared
        if source.settings.quantized is not None:
            return finished_variant(source.settings, self.recipe, prepared)
        if isinstance(self.recipe, BestRecipe):
            from pytest_mnnquant.evidence.best_variant import find_best  # It judges variants, with this module.

            return find_best(self)
        if self._given_calibration is not None:
            prepared = dataclasses.replace(prepared, calibration=self._given_calibration)
        if not self.selected.isdisjoint(_WITH_RUNS):
            source.run_ahead()
        job = Job(prepared, self.recipe, self.mode, self.skip, source.choices)
        return make_variant(job, source.store, self.say)

    def with_recipe(self, recipe: Recipe, skip: tuple[str, ...]) -> VariantUnderTest:
        """The variant by another recipe, with the same data, that leaves the layers of `skip` float."""
        return VariantUnderTest(self.source, recipe, self.mode, skip, self._given_calibration)

    @property
    def full_name(self) -> str:
        """The names of its model and of the variant, as in messages."""
        return f"{self.source.settings.name} {self.label}"

    def say(self, step: str) -> None:
        """Report that a step of this variant begins."""
        self.source.say(f"{self.label}: {step}")

    @property
    def variant(self) -> Variant:
        """The quantized model. Raises `Unusable`."""
        return self._variant.value

    @property
    def is_unusable(self) -> bool:
        """Whether the variant can't be judged; the conversion check reports why."""
        return self._variant.error is not None

    @property
    def model(self) -> Model:
        """The quantized model's file. Raises `Unusable`."""
        return self.variant.model

    @cached_property
    def files(self) -> VariantFiles:
        """The contents of the variant's files. Raises `Unusable`."""
        return VariantFiles(self.source, self.variant, (*self.skip, *self.variant.left_float))

    @cached_property
    def runs(self) -> VariantRuns:
        """The variant's runs. Raises `Unusable`."""
        return VariantRuns(self.source, self.files, self.say, selected=self.selected)

    @cached_property
    def costs(self) -> VariantCosts:
        """The variant's times and memory. Raises `Unusable`."""
        return VariantCosts(self.source, self.model, self.say)

    @cached_property
    def report(self) -> VariantReport:
        """The variant in the report, without its checks."""
        unusable = VariantReport(self.recipe.name, self.mode)
        if self.is_unusable:
            return unusable
        variant, params = self.variant, self.variant.params
        described = dataclasses.replace(
            unusable,
            quantized=model_file(variant.model),
            params=ParamsFile(str(params), file_digest(params)) if params and params.is_file() else None,
            drift=variant.drift,
            provenance=variant.provenance,
        )
        try:
            rows = self.files.rows
        except UNUSABLE:  # The checks of the files report it.
            return described
        layers = tuple(layer_report(row, variant.modules.get(row.layer.name)) for row in rows)
        return dataclasses.replace(described, coverage=coverage(rows), layers=layers)


def layer_report(row: LayerRow, module: str | None) -> LayerReport:
    """A layer in the report; `module` is its module in PyTorch, None if unknown."""
    layer, stored = row.layer, row.stored
    weights = stored.weights[0] if stored else None
    return LayerReport(
        name=layer.name,
        op=layer.kind,
        weights=layer.weight_count,
        storage=weights.label if weights else None,
        bits=weights.bits if weights else None,
        bytes=stored.weight_bytes if stored else 0,
        float_bytes=layer.weight_bytes,
        scale_in=(weights.scale_in or None) if weights else None,
        scale_out=(weights.scale_out or None) if weights else None,
        quantized=row.quantized,
        skipped=not row.wanted,
        module=module,
    )


def variant_under_test(source: SourceUnderTest, recipe: str, mode: str | None) -> VariantUnderTest:
    """The variant of a source, always the same object."""
    key = VariantKey(recipe, mode)
    return source.variants.on_host(key, lambda: VariantUnderTest(source, recipe_named(recipe), mode))
