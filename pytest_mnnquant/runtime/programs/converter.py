"""MNN's own command-line tools."""

from __future__ import annotations

from typing import Any


def convert(job: dict[str, Any]) -> dict[str, Any]:
    """Run MNN's converter. Its return value is always True, so it is not reported."""
    import _tools

    _tools.mnnconvert(["mnnconvert", *job["arguments"]])
    return {}


def quantize(job: dict[str, Any]) -> dict[str, Any]:
    """Run MNN's offline quantization tool, which returns 0 on every error path."""
    import _tools

    _tools.mnnquant(["mnnquant", *job["arguments"]])
    return {}
