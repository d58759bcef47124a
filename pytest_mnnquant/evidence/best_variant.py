"""Finds the variant of recipe `int8-best`: the first int8 recipe that meets the accuracy limits, else the best.

The order is that of cost: plain int8; corrected biases; equalized channels; rounded weights; added multiplications;
other observers; then the recipe with the best outputs so far, with layers left float. The limits are those of the gate,
on the evaluation data. Without evaluation data, the recipe with the smallest error on the calibration data is taken,
and all layers run in int8.
"""

from __future__ import annotations

import dataclasses
import glob
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from pytest_mnnquant.checks.accuracy.layers import ranked
from pytest_mnnquant.evidence.accuracy_check import judge_trial
from pytest_mnnquant.evidence.accuracy_search import quality_of
from pytest_mnnquant.evidence.best_decision import Choice, Decision, decide_once
from pytest_mnnquant.evidence.check_inputs import CheckInputs
from pytest_mnnquant.evidence.steps import UNUSABLE
from pytest_mnnquant.evidence.variant import VariantUnderTest
from pytest_mnnquant.findings.accuracy_metrics import AccuracyMetrics
from pytest_mnnquant.findings.check_metrics import metrics_of
from pytest_mnnquant.findings.finding import PASSED
from pytest_mnnquant.quantize.conversion_proof import PROOF_SAMPLES, output_error
from pytest_mnnquant.quantize.variant import Variant
from pytest_mnnquant.recipes.names import recipe_named
from pytest_mnnquant.recipes.recipe import Recipe
from pytest_mnnquant.runtime.inference import Arrays

_IN_INT8: Final = (
    *("int8", "int8+corrected", "int8+equalized+corrected", "int8+equalized+corrected+rounded"),
    *("int8+scaled+corrected", "int8+scaled+corrected+rounded", "int8-histogram+equalized+corrected"),
    *("int8-kl+equalized+corrected", "int8-percentile+equalized+corrected", "int8-average+equalized+corrected"),
)
#: How many of the worst layers stay float, in this order, and the largest share of the weights that they may hold.
_FLOAT_LAYERS: Final = (1, 2, 3, 5, 8)
_MOST_FLOAT: Final = 0.25


@dataclass
class _Trials:
    """The recipes that were tried for one variant, until `deadline` (`time.monotonic()`, seconds).

    `is_finished` becomes False when the time ends before a recipe that would be tried.
    """

    variant: VariantUnderTest
    deadline: float
    choices: list[Choice] = field(default_factory=list)
    is_finished: bool = True

    def run(self) -> Choice | None:
        """Try one recipe after the other; the first that passes, else the best; None if none can be made."""
        for name in _IN_INT8:
            if (chosen := self._passing(recipe_named(name), ())) is not None:
                return chosen
        best = max(self.choices, key=lambda choice: choice.quality, default=None)
        for names in () if best is None or self._data is not None else self._worst_layers(best):
            if (chosen := self._passing(recipe_named(names[0]), names[1])) is not None:
                return chosen
        return max(self.choices, key=lambda choice: choice.quality, default=None)

    def _passing(self, recipe: Recipe, skip: tuple[str, ...]) -> Choice | None:
        """Try a recipe; None if it does not pass, can't be made, or the time is over."""
        if self._is_over():
            return None
        self.variant.say(f"trying {recipe.name}" + (f" with {len(skip)} layers in float" if skip else ""))
        trial = self.trial(recipe, skip)
        if trial.is_unusable:
            return None
        data = self._data
        choice = self._judged(trial) if data is None else self._measured(trial, data)
        self.choices.append(choice)
        return choice if choice.passes else None

    def _is_over(self) -> bool:
        """Whether the time ended. At least one recipe is tried."""
        is_over = bool(self.choices) and time.monotonic() >= self.deadline
        self.is_finished &= not is_over
        return is_over

    def trial(self, recipe: Recipe, skip: tuple[str, ...]) -> VariantUnderTest:
        """The variant of a recipe with these and the user's layers in float."""
        return self.variant.with_recipe(recipe, (*self.variant.skip, *skip))

    @property
    def _data(self) -> Arrays | None:
        """The data to measure the error on; None if evaluation data exist, on which the accuracy is judged."""
        prepared = self.variant.source.prepared
        if prepared.evaluation is not None or prepared.calibration is None:
            return None
        return prepared.calibration.spread(PROOF_SAMPLES).inputs

    def _judged(self, trial: VariantUnderTest) -> Choice:
        limits = self.variant.source.settings.limits
        result = judge_trial(CheckInputs(trial, limits, False, _no_result), self.variant.source.settings.ignore)
        text, quality = quality_of(metrics_of(AccuracyMetrics, [result]))
        return Choice(trial.recipe.name, self._left_float(trial), result.outcome == PASSED, quality, text)

    def _measured(self, trial: VariantUnderTest, data: Arrays) -> Choice:
        source = self.variant.source
        try:
            error = output_error(
                source.prepared.model, trial.model, data, source.prepared.options(source.settings.timeout)
            )
        except UNUSABLE:
            error = math.inf
        return Choice(trial.recipe.name, self._left_float(trial), False, -error, f"relative error {error:.3g}")

    def _left_float(self, trial: VariantUnderTest) -> tuple[str, ...]:
        return trial.skip[len(self.variant.skip) :]

    def _worst_layers(self, best: Choice) -> Iterator[tuple[str, tuple[str, ...]]]:
        """The recipe with the best outputs, and more and more of the layers that cost most."""
        if self._is_over():
            return
        try:
            trial = self.trial(recipe_named(best.recipe), ())
            losses, rows = trial.runs.losses(None), trial.files.rows
        except UNUSABLE:
            return
        worst = [] if losses is None else [layer.name for layer in ranked(losses)]
        counts = {row.layer.name: row.layer.weight_count for row in rows}
        most = _MOST_FLOAT * sum(counts.values())
        for count in _FLOAT_LAYERS:
            if count <= len(worst) and sum(counts.get(name, 0) for name in worst[:count]) <= most:
                yield best.recipe, tuple(glob.escape(name) for name in worst[:count])


def find_best(variant: VariantUnderTest) -> Variant:
    """The best int8 variant, with what was tried in its provenance. A finished search is stored. Raises `Unusable`."""
    trials = _Trials(variant, time.monotonic() + variant.source.settings.suggest_time)

    def search() -> Decision:
        chosen = trials.run() or Choice("int8", (), False, -math.inf, "")
        return Decision(chosen, tuple(trials.choices), trials.is_finished)

    decision = decide_once(variant, search)
    chosen = decision.chosen
    made = trials.trial(recipe_named(chosen.recipe), chosen.skip).variant
    provenance = {
        "recipe": chosen.recipe,
        "left_float": list(chosen.skip),
        "passes": chosen.passes,
        "tried": [
            {"recipe": item.recipe, "skip": list(item.skip), "passes": item.passes, "text": item.text}
            for item in decision.tried
        ],
    }
    return dataclasses.replace(
        made, recipe=variant.recipe, left_float=chosen.skip, provenance={**made.provenance, "best": provenance}
    )


def _no_result(name: str) -> Any:
    raise LookupError(f"the result of {name} is not known in a trial")
