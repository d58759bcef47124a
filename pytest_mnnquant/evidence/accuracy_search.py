"""Searches for another way to quantize that keeps the accuracy; what it proposes has been made, run and judged."""

from __future__ import annotations

import dataclasses
import glob
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from pytest_mnnquant.cache.store import file_digest
from pytest_mnnquant.checks.accuracy.layers import Losses, ranked
from pytest_mnnquant.checks.accuracy.proposals import Proposal, Search
from pytest_mnnquant.evidence.variant import VariantUnderTest
from pytest_mnnquant.findings.accuracy_metrics import AccuracyMetrics
from pytest_mnnquant.findings.check_metrics import metrics_of
from pytest_mnnquant.findings.finding import PASSED, Result
from pytest_mnnquant.mnnfile.entries import without
from pytest_mnnquant.mnnfile.model import read_model
from pytest_mnnquant.mnnfile.params import BadParams, read_params, write_params
from pytest_mnnquant.quantize.job import MODEL_NAME, PARAMS_NAME
from pytest_mnnquant.quantize.variant import Variant
from pytest_mnnquant.recipes.names import OBSERVERS, recipe_named
from pytest_mnnquant.recipes.recipe import Int8Recipe, PipelineRecipe, Recipe
from pytest_mnnquant.runtime.convert import convert
from pytest_mnnquant.runtime.jobs import NativeFailure

# So many of the worst layers are left float, one number after another.
_COUNTS: Final = (1, 2, 3, 5, 8, 12, 20)
# More than this share of the weights in float is no quantization worth proposing.
_MOST_FLOAT: Final = 0.5
_FEW: Final = 8
Judge = Callable[[VariantUnderTest], Result]


@dataclass
class _Trials:
    """Makes and judges variants until the time is over, and keeps what came of each."""

    case: VariantUnderTest
    judge: Judge
    until: float
    made: list[Proposal] = field(default_factory=list)
    cases: dict[str, VariantUnderTest] = field(default_factory=dict)

    @property
    def is_over(self) -> bool:
        return time.monotonic() >= self.until

    @property
    def found(self) -> bool:
        return any(one.passes and not one.trade_off for one in self.made)

    def recipe(self, recipe: Recipe, trade_off: str = "") -> Proposal | None:
        """Quantize by another recipe."""
        trial = VariantUnderTest(self.case.source, recipe, self.case.mode if recipe.in_torch else None, self.case.skip)
        found = self._judged(trial, (f"--mnn-recipe={recipe.name}",), trade_off)
        if found is not None:
            self.cases[recipe.name] = trial
        return found

    def without(self, recipe: Recipe, names: tuple[str, ...], anew: bool = False) -> Proposal | None:
        """Leave layers float. From the params file that is there already, where one is; `anew` calibrates again."""
        parent = self.case if recipe == self.case.recipe else self.cases[recipe.name]
        skip = (*self.case.skip, *map(glob.escape, names))
        made = None if anew or recipe.fill is not None else _reduced(parent, names)
        if made is None and parent.variant.given:
            return None  # Nothing can be made of a finished file.
        chosen = () if recipe == self.case.recipe else (f"--mnn-recipe={recipe.name}",)
        if made is not None and (not isinstance(recipe, Int8Recipe) or parent.variant.given):
            # Other tools do not know our options: what was tried is the params file.
            chosen = (
                f"pytest-mnnquant convert ... --compressionParamsFile {made.params} "
                "(the params file without these), then",
            )
        options = (*chosen, *(f"--mnn-skip-layer='{glob.escape(name)}'" for name in names))
        return self._judged(VariantUnderTest(self.case.source, recipe, parent.mode, skip, made=made), options)

    def on_half(self) -> Proposal | None:
        """The same way on half of the calibration data."""
        data = self.case.source.prepared.calibration
        if data is None or data.samples < 2 or not self.case.recipe.activations or self.case.variant.given:
            return None
        case, half = self.case, data.first(data.samples // 2)
        return self._judged(VariantUnderTest(case.source, case.recipe, case.mode, case.skip, half), (), keep=False)

    def _judged(
        self, trial: VariantUnderTest, options: tuple[str, ...], trade_off: str = "", keep: bool = True
    ) -> Proposal | None:
        self.case.say(f"trying {len(self.made) + 1}: {' '.join(options) or 'half of the calibration data'}")
        result = self.judge(trial)
        if trial.is_unusable:
            return None
        total = sum(row.layer.weight_count for row in trial.files.rows)
        left = sum(
            row.layer.weight_count for row in trial.files.rows if row.stored and row.stored.weights[0].bits == 32
        )
        share, ratio = left / total if total else 0.0, trial.variant.base.size / trial.model.size
        passes = result.outcome == PASSED and share <= _MOST_FLOAT
        found = Proposal(options, passes, *_figure(metrics_of(AccuracyMetrics, [result])), ratio, share, trade_off)
        if keep:
            self.made.append(found)
        return found


def search(case: VariantUnderTest, judge: Judge, losses: Losses | None, seconds: float) -> Search:
    """Try other ways to quantize the source of a variant whose accuracy fails, for at most `seconds`."""
    start = time.monotonic()
    trials = _Trials(case, judge, start + seconds)
    own = case.recipe
    others = [] if case.variant.given or isinstance(own, PipelineRecipe) else list(_siblings(own))
    if losses is not None and own.name != "fp16":
        worst = [layer.name for layer in ranked(losses)]
        _leave_float(trials, own, worst)
        quality = {other: found.quality for other in others if not trials.is_over and (found := trials.recipe(other))}
        if quality and not trials.found:
            _leave_float(trials, max(quality, key=lambda recipe: quality[recipe]), worst)
    if not trials.found and not case.variant.given:
        for recipe, trade_off in _last_resorts(own):
            if not trials.is_over and not any(one.passes for one in trials.made):
                trials.recipe(recipe, trade_off)
    note = _more_data(trials) if not trials.found and not trials.is_over else ""
    return Search(tuple(trials.made), time.monotonic() - start, not trials.is_over, note)


def _siblings(recipe: Recipe) -> Iterator[Recipe]:
    """Recipes of the same bits: other observers; of weights, more scales and HQQ."""
    if isinstance(recipe, Int8Recipe):
        fill = f"+w{recipe.fill}" if recipe.fill else ""
        yield from (recipe_named(f"int8-{name}{fill}") for name in OBSERVERS if name != recipe.observer.name)
    elif recipe.activations:
        yield recipe_named("int8")
    elif recipe.name != "fp16":
        names = (f"w{recipe.bits}-sym", f"w{recipe.bits}-hqq", f"w{recipe.bits}b32", f"w{recipe.bits}b32-hqq")
        yield from (recipe_named(name) for name in names if name != recipe.name)


def _last_resorts(recipe: Recipe) -> Iterator[tuple[Recipe, str]]:
    """What gives up more than layers: int8 arithmetic, or bits."""
    if recipe.activations:
        yield recipe_named("w8"), "int8 arithmetic"
    elif recipe.name != "fp16":
        yield from ((recipe_named(f"w{bits}"), f"{recipe.bits}-bit weights") for bits in range(recipe.bits + 1, 9))


def _leave_float(trials: _Trials, recipe: Recipe, worst: list[str]) -> None:
    """Leave more and more of the worst layers float until it passes; then take back what is not needed."""
    for count in _COUNTS:
        chosen = tuple(worst[:count])
        if trials.is_over or len(chosen) < count:
            return
        tried = trials.without(recipe, chosen)
        if tried is None or tried.float_share > _MOST_FLOAT:
            return
        if tried.passes:
            _confirm(trials, recipe, _taken_back(trials, recipe, chosen))
            return


def _taken_back(trials: _Trials, recipe: Recipe, chosen: tuple[str, ...]) -> tuple[str, ...]:
    """As few of the layers as it still passes with; the largest are taken back first."""
    sizes = {row.layer.name: row.layer.weight_count for row in trials.case.files.rows}
    for name in sorted(chosen[:_FEW], key=lambda name: -sizes.get(name, 0)):
        fewer = tuple(other for other in chosen if other != name)
        if trials.is_over or not fewer:
            break
        tried = trials.without(recipe, fewer)
        if tried is not None and tried.passes:
            chosen = fewer
    return chosen


def _confirm(trials: _Trials, recipe: Recipe, chosen: tuple[str, ...]) -> None:
    """Make the proposal as its options will make it: from the start, not from a params file that is there already."""
    is_pipeline = isinstance(trials.case.recipe, PipelineRecipe)
    if trials.case.variant.given or is_pipeline or not isinstance(recipe, Int8Recipe):
        return
    confirmed = trials.without(recipe, chosen, anew=True)
    if confirmed is not None:
        trials.made = [one for one in trials.made if one.options != confirmed.options] + [confirmed]


def _reduced(parent: VariantUnderTest, names: tuple[str, ...]) -> Variant | None:
    """The variant with layers left float, by its own params file without them; None where there is none to use."""
    variant, gate = parent.variant, parent.source
    if variant.params is None or not parent.recipe.activations:
        return None
    try:
        params = read_params(variant.params)
        reduced = without(params, variant.base, names)
    except (BadParams, OSError):
        return None

    def build(folder: Path) -> None:
        write_params(reduced, folder / PARAMS_NAME)
        flags = ("--compressionParamsFile", str(folder / PARAMS_NAME))
        convert(variant.base.path, folder / MODEL_NAME, flags, timeout=gate.settings.timeout)

    inputs = {"base": file_digest(variant.base.path), "params": file_digest(variant.params), "without": names}
    try:
        folder = gate.store.folder("reduced", inputs, build)
    except NativeFailure:
        return None
    return dataclasses.replace(variant, model=read_model(folder / MODEL_NAME), params=folder / PARAMS_NAME)


def _more_data(trials: _Trials) -> str:
    """What half of the calibration data give: whether more of them would help."""
    half = trials.on_half()
    return f"on half of the calibration data it has {half.figure}, which tells whether more would help" if half else ""


def _figure(metrics: AccuracyMetrics | None) -> tuple[str, float]:
    """The accuracy in words, and as a number that is higher for better."""
    if metrics is None or not metrics.outputs:
        return "a broken output", -math.inf
    if (task := metrics.task) is not None:
        return f"{task.label} {task.quantized:.4f}", -task.drop
    if metrics.cosine is not None:
        return f"cosine {metrics.cosine:.4f}", metrics.cosine
    noise = min(output.sqnr_db for output in metrics.outputs.values())
    return f"SQNR {noise:.1f} dB", noise
