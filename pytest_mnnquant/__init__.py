"""A pytest plugin that catches MNN models which were silently left unquantized, or were ruined by quantization.

The assertions are re-exported here and imported on first use, so that loading the plugin stays cheap.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pytest_mnnquant.plugin.assertions import (
        assert_accuracy,
        assert_bundle_complete,
        assert_calibration_sufficient,
        assert_converted,
        assert_int8_executed,
        assert_latency,
        assert_params_applied,
        assert_quantized,
        assert_size_reduction,
        assert_weights_preserved,
    )

__all__ = [
    "assert_accuracy",
    "assert_bundle_complete",
    "assert_calibration_sufficient",
    "assert_converted",
    "assert_int8_executed",
    "assert_latency",
    "assert_params_applied",
    "assert_quantized",
    "assert_size_reduction",
    "assert_weights_preserved",
]


def __getattr__(name: str) -> Any:
    if name.startswith("assert_"):
        from pytest_mnnquant.plugin import assertions

        return getattr(assertions, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
