"""The speed of an export beside a reference export of the same model, which `--mnn-latency-reference` names."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Final

from pytest_mnnquant.evidence.language_runs import LanguageRuns
from pytest_mnnquant.evidence.steps import step
from pytest_mnnquant.llm.folder import read_folder
from pytest_mnnquant.llm.graph import Graph
from pytest_mnnquant.measurements.language_model import PairedSpeeds
from pytest_mnnquant.runtime.language_speed import compare_speeds

#: Tokens that are fed one by one after each prompt; pairs of prompts at least and at most.
_STEPS: Final = 4
_PAIRS: Final = 30
_MOST_PAIRS: Final = 150


def other_network(runs: LanguageRuns) -> str:
    """Why the reference export is not of this network; empty if it is. Raises `BadModel`, `OSError`."""
    reference = _reference(runs)
    first, second = _shape(read_folder(reference).graph), _shape(runs.folder.graph)
    return "" if first == second else f"{reference.name} has {first}; the export has {second}"


def measure_speeds(runs: LanguageRuns) -> PairedSpeeds:
    """Times of both exports, measured in turn. Raises `NativeFailure`."""
    limit = runs.settings.limits.max_latency_ratio
    settings = dataclasses.replace(
        runs.settings.timing, pairs=_PAIRS, most=_MOST_PAIRS, limit=limit if isinstance(limit, float) else None
    )
    exports, prompt = (_reference(runs), runs.folder.path), runs.prompt.tolist()
    with step("compare the speed with the reference export"):
        options = runs.options(runs.memory)
        runs.timed_speeds = compare_speeds(exports, prompt, _STEPS, settings, runs.new_folder(), options)
        return runs.timed_speeds


def _reference(runs: LanguageRuns) -> Path:
    return runs.settings.base / (runs.settings.latency_reference or "")


def _shape(graph: Graph) -> str:
    head = graph.head
    inputs, tokens = (head.columns, head.rows) if head else (0, 0)
    return f"{graph.layer_count} layers of {inputs:,} and {tokens:,} tokens"
