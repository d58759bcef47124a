"""Runs a PyTorch model through sequences, with its outputs fed back."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from pytest_mnnquant.measurements.dataset import Dataset
from pytest_mnnquant.measurements.sequences import starts_of
from pytest_mnnquant.sources.pytorch import as_tensors, suppress_output
from pytest_mnnquant.sources.spec import DataError, describe
from pytest_mnnquant.sources.torch_call import flat_outputs

if TYPE_CHECKING:
    import torch


def with_states(
    model: torch.nn.Module, data: Dataset, states: Mapping[str, str], name: str, outputs: Sequence[str]
) -> Dataset:
    """The steps of all sequences, each with the states that the step before leaves.

    `states` names the output that is fed back to each input, `outputs` are the model's outputs in order.
    Raises `DataError` if the model fails, or an output can't be fed back.
    """
    import torch

    starts, last = set(starts_of(data.lengths).tolist()), dict[str, torch.Tensor]()
    rows = {state: np.array(data.inputs[state]) for state in states}
    with suppress_output(), torch.no_grad(), torch.random.fork_rng(devices=[]):
        for step, batch in enumerate(dataclasses.replace(data, alone=True).batches(1)):
            fed = dict(zip(batch, as_tensors(batch, model), strict=True))
            if step not in starts:
                for state in states:
                    fed[state] = last[state]
                    rows[state][step] = last[state].numpy().reshape(rows[state][step].shape)
            try:
                results = flat_outputs(model(*fed.values()))
            except Exception as error:
                raise DataError(
                    f"{name}: the model fails in step {step} of {data.origin}: {describe(error)}",
                    "give sequences that forward() accepts step by step",
                ) from error
            last = _states_of(dict(zip(outputs, results, strict=True)), fed, states, name)
    return dataclasses.replace(data, inputs={**data.inputs, **rows})


def _states_of(
    outputs: dict[str, torch.Tensor], inputs: dict[str, torch.Tensor], states: Mapping[str, str], name: str
) -> dict[str, torch.Tensor]:
    for state, output in states.items():
        if output not in outputs:
            known = ", ".join(outputs)
            raise DataError(f"{name}: --mnn-state {state}={output}: unknown output {output!r}", f"known: {known}")
        if outputs[output].shape != inputs[state].shape:
            shapes = f"{list(outputs[output].shape)}, input {state!r} takes {list(inputs[state].shape)}"
            raise DataError(f"{name}: --mnn-state {state}={output}: output {output!r} has shape {shapes}")
    return {state: outputs[output] for state, output in states.items()}
