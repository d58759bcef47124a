"""Greedy generation with the forward pass, without a cache: for models that are small enough."""

from __future__ import annotations

import time

import numpy as np

from pytest_mnnquant.llm.forward import HEAD, Ids, Network


def generate(network: Network, prompt: Ids, tokens: int, ends: tuple[int, ...], seconds: float) -> tuple[int, ...]:
    """The `tokens` most likely ids after a prompt [tokens], until one of `ends`, or until the time is over.

    Raises `BadExport`.
    """
    deadline = time.monotonic() + seconds
    ids = [int(token) for token in prompt]
    vocabulary = network.tensors.rows(HEAD)
    for _ in range(tokens):
        hidden = network.states(np.array([ids], np.int64))[-1][:, -1:]
        out = np.empty((1, 1, vocabulary), np.float32)
        network.head(hidden, out)
        ids.append(int(out.argmax()))
        if ids[-1] in ends or time.monotonic() > deadline:
            break
    return tuple(ids[len(prompt) :])
