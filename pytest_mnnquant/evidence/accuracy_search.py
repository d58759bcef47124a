"""Searches for an alternative that keeps the accuracy. Each proposal is made, run and judged."""

from __future__ import annotations

import dataclasses
import glob
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from pytest_mnnquant.checks.accuracy.layers import Losses, ranked
from pytest_mnnquant.checks.accuracy.proposals import Proposal, SearchResult
from pytest_mnnquant.evidence.reduced_variant import reduced_variant
from pytest_mnnquant.evidence.variant import VariantUnderTest
from pytest_mnnquant.findings.accuracy_metrics import AccuracyMetrics
from pytest_mnnquant.findings.check_metrics import metrics_of
from pytest_mnnquant.findings.finding import PASSED, Result
from pytest_mnnquant.findings.fix_command import shell_command, skip_option, working_path
from pytest_mnnquant.quantize.variant import Variant
from pytest_mnnquant.recipes.names import OBSERVERS, recipe_named, with_suffixes
from pytest_mnnquant.recipes.recipe import BestRecipe, Int8Recipe, PipelineRecipe, Recipe

# How many of the worst layers are left float, in this order.
_COUNTS: Final = (1, 2, 3, 5, 8, 12, 20)
# A model with more than this share of its weights in float is not worth proposing.
_MOST_FLOAT: Final = 0.5
_FEW: Final = 8
Judge = Callable[[VariantUnderTest], Result]


@dataclass
class Search:
    """Makes and judges other variants of the source of `variant` until `deadline` (`time.monotonic()`, seconds)."""

    variant: VariantUnderTest
    judge: Judge
    deadline: float
    proposals: list[Proposal] = field(default_factory=list)
    variants: dict[str, VariantUnderTest] = field(default_factory=dict)

    @property
    def is_over(self) -> bool:
        """Whether the time is over."""
        return time.monotonic() >= self.deadline

    @property
    def has_passed(self) -> bool:
        """Whether a proposal passes without a trade-off other than float layers."""
        return any(proposal.passes and not proposal.trade_off for proposal in self.proposals)

    def try_recipe(self, recipe: Recipe, trade_off: str = "") -> Proposal | None:
        """Quantize by another recipe; None if the variant can't be made."""
        mode = self.variant.mode if recipe.in_torch else None
        trial = VariantUnderTest(self.variant.source, recipe, mode, self.variant.skip)
        proposal = self._judge(trial, (f"--mnn-recipe={recipe.name}",), trade_off)
        if proposal is not None:
            self.variants[recipe.name] = trial
        return proposal

    def try_without(self, recipe: Recipe, names: tuple[str, ...], recalibrate: bool = False) -> Proposal | None:
        """Leave layers float: from the params file if there is one, or with a new calibration (`recalibrate`)."""
        parent = self.variant if recipe == self.variant.recipe else self.variants[recipe.name]
        # The biases that a layer's neighbours got hold for its int8 form only.
        is_bound = recalibrate or recipe.fill is not None or (isinstance(recipe, Int8Recipe) and recipe.corrected)
        made = None if is_bound else reduced_variant(parent, names)
        if made is None and parent.variant.given:
            return None  # A finished file can't be quantized again.
        skip = (*self.variant.skip, *map(glob.escape, names))
        trial = VariantUnderTest(self.variant.source, recipe, parent.mode, skip, made=made)
        return self._judge(trial, (*self._options_for(parent, made, names), *map(skip_option, names)))

    def _options_for(self, parent: VariantUnderTest, made: Variant | None, names: tuple[str, ...]) -> tuple[str, ...]:
        """The options besides the layers: a recipe; or, if the gate can't make the model, the command that does."""
        if made is None or made.params is None or (isinstance(parent.recipe, Int8Recipe) and not parent.variant.given):
            return () if parent is self.variant else (f"--mnn-recipe={parent.recipe.name}",)
        command = parent.files.convert_command
        command = dataclasses.replace(command, skip=(*command.skip, *map(glob.escape, names)))
        quantized = () if parent.variant.given else (f"--mnn-quantized={working_path(command.output)}",)
        options = (*quantized, f"--mnn-params={working_path(made.params)}")
        return (command.with_params(made.params), *map(shell_command, options))

    def try_half(self) -> Proposal | None:
        """Quantize with the same recipe and half of the calibration data; None if these are too few. Not a proposal."""
        variant, data = self.variant, self.variant.source.prepared.calibration
        if data is None or data.samples < 2 or not variant.recipe.activations or variant.variant.given:
            return None
        half = data.first(data.samples // 2)
        trial = VariantUnderTest(variant.source, variant.recipe, variant.mode, variant.skip, half)
        return self._judge(trial, (), keep=False)

    def _judge(
        self, trial: VariantUnderTest, options: tuple[str, ...], trade_off: str = "", keep: bool = True
    ) -> Proposal | None:
        given = " ".join(option for option in options if option.startswith("-"))  # Without the command.
        self.variant.say(f"trying {len(self.proposals) + 1}: {given or 'half of the calibration data'}")
        result = self.judge(trial)
        if trial.is_unusable:
            return None
        rows = trial.files.rows
        weights = sum(row.layer.weight_count for row in rows)
        in_float = sum(row.layer.weight_count for row in rows if row.stored and row.stored.weights[0].bits == 32)
        share, ratio = in_float / weights if weights else 0.0, trial.variant.base.size / trial.model.size
        passes = result.outcome == PASSED and share <= _MOST_FLOAT
        quality = quality_of(metrics_of(AccuracyMetrics, [result]))
        proposal = Proposal(options, passes, *quality, ratio, share, trade_off)
        if keep:
            self.proposals.append(proposal)
        return proposal


def search_accuracy(
    variant: VariantUnderTest,
    judge: Judge,
    losses: Losses | None,
    seconds: float,
    first: Sequence[str] = (),
    *,
    recipes_first: bool = False,
) -> SearchResult:
    """Try alternatives for a variant whose accuracy fails, for at most `seconds`. `first` are left float first.

    `recipes_first`: no layer is at fault, so similar recipes are tried before layers are left float.
    """
    start = time.monotonic()
    search = Search(variant, judge, start + seconds)
    recipe, is_finished = variant.recipe, variant.variant.given
    if recipes_first and not is_finished and not isinstance(recipe, PipelineRecipe):
        _best_recipe(search)
    is_searched = isinstance(recipe, BestRecipe) or recipe.name == "fp16"
    if losses is not None and not is_searched and not search.has_passed:
        worst = list(dict.fromkeys((*first, *(layer.name for layer in ranked(losses)))))
        _leave_float(search, recipe, worst)
        best = None if is_finished or isinstance(recipe, PipelineRecipe) else _best_recipe(search)
        if best is not None and not search.has_passed:
            _leave_float(search, best, worst)
    if not search.has_passed and not is_finished:
        _try_last_resorts(search)
    note = _more_data(search) if not search.has_passed and not search.is_over else ""
    return SearchResult(tuple(search.proposals), time.monotonic() - start, not search.is_over, note)


def _best_recipe(search: Search) -> Recipe | None:
    """The best of the similar recipes that could be tried."""
    qualities: dict[Recipe, float] = {}
    for recipe in _similar_recipes(search.variant.recipe):
        if not search.is_over and (proposal := search.try_recipe(recipe)):
            qualities[recipe] = proposal.quality
    return max(qualities, key=lambda recipe: qualities[recipe], default=None)


def _try_last_resorts(search: Search) -> None:
    for recipe, trade_off in _last_resorts(search.variant.recipe):
        if not search.is_over and not any(proposal.passes for proposal in search.proposals):
            search.try_recipe(recipe, trade_off)


def _similar_recipes(recipe: Recipe) -> Iterator[Recipe]:
    """Recipes with the same bits: other observers; for weights, more scales and HQQ."""
    if isinstance(recipe, BestRecipe):
        return  # It has tried them.
    if isinstance(recipe, Int8Recipe):
        if not recipe.corrected:
            yield with_suffixes(recipe, corrected=True)
        if not recipe.equalized:
            yield with_suffixes(recipe, equalized=True, corrected=True)
        if not recipe.scaled:
            yield with_suffixes(recipe, scaled=True, corrected=True)
        yield from (with_suffixes(recipe, observer=name) for name in OBSERVERS if name != recipe.observer.name)
    elif recipe.activations:
        yield recipe_named("int8")
    elif recipe.name != "fp16":
        names = (f"w{recipe.bits}-sym", f"w{recipe.bits}-hqq", f"w{recipe.bits}b32", f"w{recipe.bits}b32-hqq")
        yield from (recipe_named(name) for name in names if name != recipe.name)


def _last_resorts(recipe: Recipe) -> Iterator[tuple[Recipe, str]]:
    """Recipes with a trade-off beyond float layers, and what they give up: int8 arithmetic, or low bits."""
    if recipe.activations:
        yield recipe_named("w8"), "int8 arithmetic"
    elif recipe.name != "fp16":
        yield from ((recipe_named(f"w{bits}"), f"{recipe.bits}-bit weights") for bits in range(recipe.bits + 1, 9))


def _leave_float(search: Search, recipe: Recipe, worst: list[str]) -> None:
    """Leave more and more of the worst layers float until the accuracy passes; then quantize unneeded ones again."""
    for count in _COUNTS:
        names = tuple(worst[:count])
        if search.is_over or len(names) < count:
            return
        proposal = search.try_without(recipe, names)
        if proposal is None or proposal.float_share > _MOST_FLOAT:
            return
        if proposal.passes:
            _confirm(search, recipe, _fewest_layers(search, recipe, names))
            return


def _fewest_layers(search: Search, recipe: Recipe, names: tuple[str, ...]) -> tuple[str, ...]:
    """A smaller set of float layers with which the accuracy still passes; the largest are quantized again first."""
    sizes = {row.layer.name: row.layer.weight_count for row in search.variant.files.rows}
    for name in sorted(names[:_FEW], key=lambda name: -sizes.get(name, 0)):
        fewer = tuple(other for other in names if other != name)
        if search.is_over or not fewer:
            break
        proposal = search.try_without(recipe, fewer)
        if proposal is not None and proposal.passes:
            names = fewer
    return names


def _confirm(search: Search, recipe: Recipe, names: tuple[str, ...]) -> None:
    """Make the proposal as its options do: with a new calibration, not from the current params file."""
    is_pipeline = isinstance(search.variant.recipe, PipelineRecipe)
    if search.variant.variant.given or is_pipeline or not isinstance(recipe, Int8Recipe):
        return
    confirmed = search.try_without(recipe, names, recalibrate=True)
    if confirmed is not None:
        others = [proposal for proposal in search.proposals if proposal.options != confirmed.options]
        search.proposals = [*others, confirmed]


def _more_data(search: Search) -> str:
    """The accuracy with half of the calibration data, which shows whether more data would help."""
    half = search.try_half()
    return f"with half of the calibration data: {half.figure} (a drop means that more data may help)" if half else ""


def quality_of(metrics: AccuracyMetrics | None) -> tuple[str, float]:
    """The accuracy as text, and as a number (higher is better)."""
    if metrics is None or not metrics.outputs:
        return "a broken output", -math.inf
    if (task := metrics.task) is not None:
        return f"{task.label} {task.quantized:.4f}", -task.drop
    if metrics.cosine is not None:
        return f"cosine {metrics.cosine:.4f}", metrics.cosine
    noise = min(output.sqnr_db for output in metrics.outputs.values())
    return f"SQNR {noise:.1f} dB", noise
