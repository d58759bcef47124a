"""How to make a variant again: the fix that most findings on files have."""

from __future__ import annotations

from typing import Final

from pytest_mnnquant.findings.fix_command import ConvertCommand, shell_command
from pytest_mnnquant.recipes.recipe import Quantizer, Recipe

#: What most commands of fixes do.
CONVERT_AGAIN: Final = "convert again"
#: What to do if the calibration data are unknown: only their owner can name them.
_CALIBRATE: Final = (
    "calibrate this model again and convert with the new params file; or let pytest-mnnquant quantize it: give "
    "--mnn-calibration and leave out --mnn-quantized"
)
_MNNQUANT: Final = (
    "run mnnquant again, with the width, height and format of the model's input in its configuration; or let "
    "pytest-mnnquant run it: give --mnn-calibration and leave out --mnn-quantized"
)


#: What to do if no params file is known, though there may be one.
_GIVE_PARAMS: Final = (
    "give the params file of the calibration to the converter (--compressionParamsFile) and to pytest (--mnn-params); "
    "or let pytest-mnnquant quantize it: give --mnn-calibration and leave out --mnn-quantized"
)


def convert_again(
    command: ConvertCommand | None, recipe: Recipe | None, say: str = CONVERT_AGAIN, before: str = ""
) -> str:
    """The fix that makes the variant again by its recipe, with the complete command if the files are known.

    `say` says what the command does, and what else has to be done. `before` is a command that runs before it.
    """
    if command is None or recipe is None:
        return say
    if command.test_options and (command.params or not recipe.activations):
        say = f"{say}; test the result with {shell_command(*command.test_options)}; to convert, run"
    if not recipe.activations:
        return f"{say}:\n{before}{command.with_flags(*recipe.flags)}"
    if command.params is None:
        is_decided = command.calibration or recipe.quantizer is Quantizer.MNNQUANT
        known = calibrate_again(command, recipe) if is_decided else _GIVE_PARAMS
        return known if say == CONVERT_AGAIN else f"{say}; {known}"
    return f"{say}:\n{before}{command.with_params(command.params, *fill_flags(recipe))}"


def calibrate_again(command: ConvertCommand | None, recipe: Recipe | None) -> str:
    """The fix if no params file is known that could be used: a new calibration."""
    if command is not None and command.calibration:
        return f"calibrate this model (the command calibrates, converts and judges the result):\n{command.calibration}"
    if recipe is not None and recipe.quantizer is Quantizer.MNNQUANT:
        return _MNNQUANT
    return _CALIBRATE


def fill_flags(recipe: Recipe) -> tuple[str, ...]:
    """The converter's flags beside the params file: bits of layers that MNN can't run in int8."""
    return () if recipe.fill is None else ("--weightQuantBits", str(recipe.fill))
