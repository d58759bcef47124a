"""Times two exports of a language model in turn: how long each reads a prompt, and how long it takes for each token.

Both are loaded in one process, so that both meet the same load of the machine.
"""

from __future__ import annotations

import time
from typing import Any

from .batches import report_progress
from .language_model import load
from .timer import is_enough


def compare(job: dict[str, Any]) -> dict[str, Any]:
    """Seconds per prompt, and per token of `steps` tokens after it, of both models of `configs`, in pairs.

    Rounds A B, B A, ... follow each other until both ratios are precise enough, or `budget` seconds are over. The
    first round warms up.
    """
    models = [load({**job, "config": config}, all_logits=False) for config in job["configs"]]
    prompts: list[list[float]] = [[], []]
    tokens: list[list[float]] = [[], []]
    _round(models, job, (0, 1))
    end, number = time.monotonic() + job["budget"], 0
    while True:
        report_progress(number, job["pairs"] if number < job["pairs"] else job["most"], "pairs")
        read, generated = _round(models, job, (0, 1) if number % 2 == 0 else (1, 0))
        for which in (0, 1):
            prompts[which].append(read[which])
            tokens[which] += generated[which]
        number += 1
        if time.monotonic() > end or (is_enough(job, prompts, job["pairs"]) and is_enough(job, tokens, job["pairs"])):
            return {"prompt": prompts, "token": tokens}


def _round(models: list[Any], job: dict[str, Any], order: tuple[int, int]) -> tuple[dict[int, float], dict[int, Any]]:
    """The times of one prompt and of the tokens after it, by the number of the model."""
    for model in models:
        model.reset()
    read = {which: _seconds(models[which], job["prompt"]) for which in order}
    generated: dict[int, list[float]] = {0: [], 1: []}
    for step in range(job["steps"]):
        token = job["prompt"][step % len(job["prompt"])]
        for which in order:
            generated[which].append(_seconds(models[which], [token]))
    return read, generated


def _seconds(model: Any, ids: list[int]) -> float:
    """Seconds until the logits after these ids can be read."""
    import numpy as np

    start = time.perf_counter()
    logits = model.forward(ids)
    np.array(logits.read())
    return time.perf_counter() - start
