"""Accepted figures to test with, and a strategy for any."""

from __future__ import annotations

import dataclasses
from typing import Any

from hypothesis import strategies as st

from pytest_mnnquant.baseline.entry import Entry, Tolerances, rounded
from pytest_mnnquant.baseline.file import Accepted, Baseline
from pytest_mnnquant.findings.figures import Figures

HOST = {"machine": "x86_64", "processor": "one", "threads": "1"}


def figures(model: str = "net", variant: str = "w8", **changes: Any) -> Figures:
    """What a small network has."""
    usual: dict[str, Any] = {
        "source": f"{model}.py:build",
        "size": 6000,
        "float_size": 12000,
        "coverage": 1.0,
        "accuracy": 0.9,
        "metric": "top1",
        "ratio": 1.0,
        "ratio_low": 0.99,
        "ratio_high": 1.01,
        "memory": 70_000,
        "layers": {"conv": "w8", "head": "w8"},
        "sha256": "aa",
        "float_sha256": "ff",
    }
    return Figures(model, variant, **{**usual, **changes})


def entry(model: str = "net", variant: str = "w8", tolerances: Tolerances | None = None, **changes: Any) -> Entry:
    """An entry with these figures; accuracy may drop by 0.005."""
    limits = tolerances or Tolerances(accuracy=0.005)
    return Entry(figures(model, variant, **changes), limits, {"MNN": "3.6.1"}, HOST)


def baseline(*entries: Entry) -> Baseline:
    """A baseline of these entries."""
    models: dict[str, dict[str, Entry]] = {}
    for one in entries:
        models.setdefault(one.figures.model, {})[one.figures.variant] = one
    heads = {name: next(iter(variants.values())).figures for name, variants in models.items()}
    return Baseline(
        {name: Accepted(heads[name].source, heads[name].float_sha256, found) for name, found in models.items()}
    )


_names = st.text(st.characters(codec="utf-8"), min_size=1, max_size=8)
_texts = st.text(st.characters(codec="utf-8"), max_size=8)
_bytes = st.none() | st.integers(0, 1 << 60)
_numbers = st.none() | st.floats(0, 1e9)
_limits = st.none() | st.floats(0, 100)


@st.composite
def baselines(draw: st.DrawFn) -> Baseline:
    """Any baseline that can be accepted."""
    models = {}
    for model in draw(st.sets(_names, max_size=3)):
        source, sha256 = draw(_texts), draw(_texts)
        variants = {}
        for variant in draw(st.sets(_names, min_size=1, max_size=3)):
            accuracy = draw(st.none() | st.floats(-1e9, 1e9))
            numbers: dict[str, Any] = {
                **{name: draw(_bytes) for name in ("size", "float_size", "memory", "float_memory")},
                **{name: draw(_numbers) for name in ("coverage", "ratio", "ratio_low", "ratio_high")},
            }
            found = Figures(
                model,
                variant,
                source=source,
                float_sha256=sha256,
                accuracy=accuracy,
                metric="" if accuracy is None else draw(_names),
                lower_is_better=accuracy is not None and draw(st.booleans()),
                layers=draw(st.dictionaries(_names, _texts, max_size=3)),
                sha256=draw(_texts),
                **numbers,
            )
            limits = Tolerances(**{item.name: draw(_limits) for item in dataclasses.fields(Tolerances)})
            known = st.dictionaries(_names, _texts, max_size=2)
            variants[variant] = Entry(rounded(found), limits, draw(known), draw(known))
        models[model] = Accepted(source, sha256, variants)
    return Baseline(models)
