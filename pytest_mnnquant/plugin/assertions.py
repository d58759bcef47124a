"""The assertions for your own tests. Each returns the metrics of its check, or fails with the check's findings.

A check without a function in this module gets its assertion from the catalogue, with its limits as keywords.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pytest_mnnquant.findings.catalogue import CHECKS
from pytest_mnnquant.plugin.quantized_model import Quantized


def assert_converted(quantized: Quantized) -> dict[str, Any]:
    """The float model computes the source's outputs, and the quantized file is a model of the same network."""
    __tracebackhide__ = True
    return quantized.require("conversion")


def assert_size_reduction(quantized: Quantized, *, at_least: float | None = None) -> dict[str, Any]:
    """Float bytes / quantized bytes is `at_least` this. Without it: the size is as expected from layers and recipe."""
    __tracebackhide__ = True
    return quantized.require("size", min_size_ratio=at_least)


def assert_quantized(quantized: Quantized, *, min_coverage: float | None = None) -> dict[str, Any]:
    """At least this share (0 to 1) of the weight bytes is stored in the precision that the recipe requests."""
    __tracebackhide__ = True
    return quantized.require("coverage", min_coverage=min_coverage)


def assert_params_applied(quantized: Quantized) -> dict[str, Any]:
    """The params file exists, parses, names the model's tensors, and its scales are the ones in the model."""
    __tracebackhide__ = True
    return quantized.require("params")


def assert_weights_preserved(quantized: Quantized) -> dict[str, Any]:
    """The stored weights, decoded, equal the source's weights up to rounding."""
    __tracebackhide__ = True
    return quantized.require("weights")


def assert_calibration_sufficient(quantized: Quantized) -> dict[str, Any]:
    """Calibration used enough data similar to the evaluation data, and its scales fit these."""
    __tracebackhide__ = True
    return quantized.require("calibration")


def assert_int8_executed(quantized: Quantized) -> dict[str, Any]:
    """Layers stored in int8 ran in int8, by the runtime's trace; the model that runs is not the float model."""
    __tracebackhide__ = True
    return quantized.require("execution")


def assert_accuracy(
    quantized: Quantized,
    *,
    metric: str | None = None,
    max_drop: float | None = None,
    min_ratio: float | None = None,
    min_float: float | None = None,
    min_cosine: float | dict[str, float] | None = None,
    min_agreement: float | dict[str, float] | None = None,
    min_sqnr: float | dict[str, float] | None = None,
) -> dict[str, Any]:
    """The outputs are accurate enough. Each limit is that of its option (`max_drop`: --mnn-max-accuracy-drop).

    Top-1, or the `metric`, drops by at most `max_drop` (absolute) and stays at least `min_ratio` of the float model's
    value. Outputs without labels have a cosine of at least `min_cosine` to the float model's. The last three take one
    number for all outputs, or one per output by name.
    """
    __tracebackhide__ = True
    return quantized.require(
        "accuracy",
        metric=metric,
        max_accuracy_drop=max_drop,
        min_accuracy_ratio=min_ratio,
        min_float_accuracy=min_float,
        min_cosine=min_cosine,
        min_agreement=min_agreement,
        min_sqnr=min_sqnr,
    )


def assert_latency(quantized: Quantized, *, max_ratio: float | None = None) -> dict[str, Any]:
    """Latency is at most `max_ratio` times the float model's, as the median of paired runs."""
    __tracebackhide__ = True
    return quantized.require("latency", max_latency_ratio=max_ratio)


def assert_bundle_complete(quantized: Quantized) -> dict[str, Any]:
    """Every file that must be deployed with the model exists."""
    __tracebackhide__ = True
    return quantized.require("bundle")


def __getattr__(name: str) -> Callable[..., dict[str, Any]]:
    check = next((check.name for check in CHECKS if check.assertion_name == name), None)
    if check is None:
        raise AttributeError(f"module 'pytest_mnnquant' has no attribute {name!r}")

    def assertion(quantized: Quantized, **limits: Any) -> dict[str, Any]:
        __tracebackhide__ = True
        return quantized.require(check, **limits)

    assertion.__name__ = name
    return assertion
