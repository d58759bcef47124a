"""Statistics of operators' tensors while a model runs: values, ranges, histograms, losses from quantizing."""

from __future__ import annotations

from typing import Any

from .batches import batches
from .module_api import run_batches, values_of
from .observed_model import operator_name
from .session import Session


def watch(job: dict[str, Any], see: Any, skip: Any = frozenset()) -> None:
    """Call `see(batch, operator, side, values)` with the first input (side 0) and output (side 1) of operators.

    `job["ops"]` lists them as [name, name of the input tensor, name of the output tensor]; values are floats as NCHW.
    `skip` holds pairs (operator, side) that are not needed.
    """
    if job.get("engine") == "module":
        watch_module(job, see, skip)
        return
    session, numbers = Session(job, job["model"]), {op[0]: number for number, op in enumerate(job["ops"])}
    for place, batch in enumerate(batches(job)):
        session.feed(batch)

        def look(tensors: Any, info: Any, side: int, place: int = place) -> bool:
            number = numbers.get(operator_name(info))
            if number is not None and tensors and (number, side) not in skip:
                see(place, number, side, session.read(tensors[0]))
            return True

        session.run_with_callbacks(
            lambda tensors, info: look(tensors, info, 0), lambda tensors, info: look(tensors, info, 1)
        )


def watch_module(job: dict[str, Any], see: Any, skip: Any) -> None:
    """The same through MNN's Module API, which runs While and If bodies: the tensors are requested as outputs."""
    places: dict[str, list[tuple[int, int]]] = {}
    for number, (_, *tensors) in enumerate(job["ops"]):
        for side, tensor in enumerate(tensors):
            if (number, side) not in skip:
                places.setdefault(tensor, []).append((number, side))
    for place, results in enumerate(run_batches(job, list(places))):
        for which, ends in enumerate(places.values()):
            values = values_of(results[which])
            for number, side in ends:
                see(place, number, side, values)


def observe(job: dict[str, Any]) -> dict[str, Any]:
    """Tensors of the named operators: their values on the first batch (`probe`), or their range per batch.

    The ranges of `job["joined"]` batches in a row are one.
    """
    import numpy as np

    if job.get("probe"):
        watch(job, lambda _, number, side, values: np.save(f"tensor{number}_{side}.npy", values.reshape(-1)))
        return {}
    ranges: list[Any] = []

    def see(place: int, number: int, side: int, values: Any) -> None:
        place //= job.get("joined", 1)
        while len(ranges) <= place:
            ranges.append(np.tile((np.inf, -np.inf), (len(job["ops"]), 2, 1)))
        if values.size:
            low, high = ranges[place][number, side]
            ranges[place][number, side] = np.minimum(low, values.min()), np.maximum(high, values.max())

    watch(job, see)
    found = np.stack(ranges)
    found[found[..., 0] > found[..., 1]] = np.nan
    np.save("ranges.npy", found)
    return {}


def histograms(job: dict[str, Any]) -> dict[str, Any]:
    """Histograms of tensors with `job["bins"]` bins between the bounds in the file `job["bounds"]`."""
    import numpy as np

    bounds = np.load(job["bounds"])  # [operators, sides, low or high]
    counts = np.zeros((*bounds.shape[:2], job["bins"]))

    def see(_place: int, number: int, side: int, values: Any) -> None:
        low, high = bounds[number, side]
        if high > low:
            counts[number, side] += np.histogram(values, job["bins"], (low, high))[0]

    watch(job, see)
    np.save("histograms.npy", counts)
    return {}


def losses(job: dict[str, Any]) -> dict[str, Any]:
    """The loss from quantizing tensors. The file `job["grids"]` holds [scale, lowest, highest] of each tensor.

    Sums per tensor: number of values, their energy, number of values clipped by more than half a step, energy lost by
    clipping, energy lost by rounding, the smallest and the largest value. A tensor with scale 0 is skipped.
    """
    import numpy as np

    grids = np.load(job["grids"])  # [operators, sides, 3]
    totals = np.zeros((*grids.shape[:2], 7))
    totals[..., 5:] = np.inf, -np.inf

    def see(_place: int, number: int, side: int, values: Any) -> None:
        if not values.size:
            return
        scale, lowest, highest = grids[number, side]
        flat = values.reshape(-1)
        clipped = flat - np.clip(flat, np.float32(lowest), np.float32(highest))
        steps = (flat - clipped) / np.float32(scale)
        steps -= np.rint(steps)
        energies = [float(np.dot(part, part)) for part in (flat, clipped, steps)]
        outside = np.count_nonzero(np.abs(clipped) > scale / 2)
        total = totals[number, side]
        total[:5] += flat.size, energies[0], outside, energies[1], energies[2] * scale**2
        total[5:] = min(total[5], flat.min()), max(total[6], flat.max())

    watch(job, see, {(int(number), int(side)) for number, side in np.argwhere(grids[..., 0] == 0)})
    np.save("losses.npy", totals)
    return {}
