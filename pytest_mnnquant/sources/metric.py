"""The task metric that a specification names: a built-in one, or `file.py:callable`.

A callable gets the outputs by name, {name: array [samples, ...]}, and the labels (or None), and returns one number, or
one per sample. Higher is better, unless the callable has a true attribute `lower_is_better`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from pytest_mnnquant.metrics.task import MetricError, TaskMetric, metric_named
from pytest_mnnquant.sources.code_digest import code_digest
from pytest_mnnquant.sources.spec import SourceError, absence, describe
from pytest_mnnquant.sources.user_code import contained
from pytest_mnnquant.sources.user_modules import import_file

_FORMS: Final = "top1, top5, miou, mae, rmse, psnr, ssim, words, characters or file.py:callable"


def load_metric(text: str, root: Path) -> TaskMetric:
    """The metric of this name; files start at `root`. Raises `SourceError` in one line."""
    try:
        known = metric_named(text)
    except MetricError as error:
        raise SourceError(f"--mnn-metric: {error}") from None
    if known is not None:
        return known
    module, attribute = _imported(text, root)
    function = getattr(module, attribute, None)
    if not callable(function):
        raise SourceError(f"--mnn-metric: {text.rpartition(':')[0]} has no callable {attribute!r}")
    lower = bool(getattr(function, "lower_is_better", False))
    return TaskMetric(text, attribute, is_share=False, lower_is_better=lower, call=_described(function))


def metric_digest(text: str, root: Path) -> str:
    """A hash of the code of a custom metric, and of what it imports in the project; empty for a built-in one.

    Raises `SourceError`.
    """
    return "" if load_metric(text, root).call is None else code_digest([_imported(text, root)[0].__name__])


def _imported(text: str, root: Path) -> tuple[ModuleType, str]:
    """The module of a custom metric, and the name of its callable. Raises `SourceError`."""
    place, colon, attribute = text.rpartition(":")
    if not colon or not place.endswith(".py") or not attribute.isidentifier():
        raise SourceError(f"--mnn-metric: unknown metric {text!r}; known: {_FORMS}")
    if not (root / place).is_file():
        raise SourceError(f"--mnn-metric: {place}: {absence(root / place)}")
    try:
        return import_file(root / place), attribute
    except SourceError as error:
        raise SourceError(f"--mnn-metric: {error}", error.fix) from None
    except Exception as error:
        raise SourceError(f"--mnn-metric: {text}: importing it raised {describe(error)}") from error


def _described(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function; what it raises is a `MetricError` with the line that raised it."""

    def call(*arguments: Any) -> Any:
        try:
            with contained():
                return function(*arguments)
        except Exception as error:
            raise MetricError(f"raised {describe(error)}") from error

    return call
