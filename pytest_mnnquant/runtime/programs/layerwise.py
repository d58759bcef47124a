"""The error that each layer of a quantized model adds, and the loss if only that layer is quantized.

Three models run on the same batches: the float model, the variant, and the variant's weights in float arithmetic (a
copy without quantized tensors). In the third model, each layer gets the float model's input, exact or rounded to the
layer's codes, so its output differs from the float model's only by the error of this layer. MNN's int8 convolutions
are exact integer arithmetic, so rounding their input and output to codes gives the same result.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import Any

from .batches import batches, sample_count
from .observed_model import ObservedModel, energy, rounded
from .operator_outputs import run_observed
from .sample_axes import as_samples
from .session import integer_outputs

# Columns of the sums of a layer.
SIGNAL, WEIGHTS, INPUT, OWN, REACHED, INHERITED, INPUT_SIGNAL, CLIPPED_IN, CLIPPED_OUT, COUNT_IN, COUNT_OUT = range(11)
SUMS = 11
# What MNN runs under an operator's name to give it its inputs.
_MOVING = frozenset({"FloatToInt8", "Int8ToFloat", "Raster"})


class Layers:
    """The sums of all layers, and of operators that hold no weights."""

    def __init__(self, job: dict[str, Any]) -> None:
        import numpy as np

        names = job["names"]
        self.job = job
        self.float = ObservedModel(job, job["float"], names["float"])
        self.variant = ObservedModel(job, job["variant"], names["variant"])
        self.weights = ObservedModel(job, job["weights"], names["variant"])
        self.layers = job["layers"]
        self.by_float = {layer["float"]: number for number, layer in enumerate(self.layers)}
        self.by_stored = {layer["stored"]: number for number, layer in enumerate(self.layers)}
        self.operators = frozenset(job["operators"])
        self.sums = np.zeros((len(self.layers), SUMS))
        #: operator -> [signal of its output, noise of its output, worst noise/signal of its inputs], summed over
        #: batches
        self.others: dict[str, list[float]] = {}
        #: float operators whose output becomes codes -> scale, zero point, smallest and largest code
        self.coded: dict[str, Any] = {name: grid for name, grid in job["coded"].items() if name in self.operators}
        #: operator that ran in int8, or whose output becomes codes -> [signal of its output, noise of it with the float
        #: model's inputs]
        self.isolated: dict[str, list[float]] = {}
        self.inputs: dict[str, list[Any]] = {}
        self.outputs: dict[str, Any] = {}
        self.integers = integer_outputs(job["float"])

    def run_float(self, batch: dict[str, Any]) -> None:
        """Run the float model and keep the inputs and outputs of each operator."""
        self.inputs, self.outputs = {}, {}

        def before(name: str, tensors: Any) -> None:
            self.inputs[name] = self.float.read(tensors)

        def after(name: str, tensors: Any) -> None:
            self.outputs[name] = self.float.read(tensors[:1])[0] if tensors else None

        self.float.run(batch, before, after)

    def run_variant(self, batch: dict[str, Any]) -> None:
        """Run the variant and measure the error at each operator's input and output."""
        entered: dict[str, float] = {}

        def before(name: str, tensors: Any) -> None:
            exact, arrays = self.inputs.get(self._float_name(name), []), self.variant.read(tensors)
            if not arrays or [array.shape for array in arrays] != [array.shape for array in exact]:
                return  # The input's error is unknown, so the output's error can't be compared with it.
            noises = [(energy(array - exact[number]), energy(exact[number])) for number, array in enumerate(arrays)]
            entered[name] = max((noise / signal for noise, signal in noises if signal), default=0.0)
            if name in self.by_stored:
                self.sums[self.by_stored[name], INHERITED] += noises[0][0]

        def after(name: str, tensors: Any) -> None:
            exact = self.outputs.get(self._float_name(name))
            if exact is None or not tensors:
                return
            values = self.variant.read(tensors[:1])[0]
            if values.shape != exact.shape:
                return
            noise = energy(values - exact)
            if name in self.by_stored:
                self.sums[self.by_stored[name], REACHED] += noise
            elif name in self.operators and name in entered:
                totals = self.others.setdefault(name, [0.0, 0.0, 0.0])
                totals[0] += energy(exact)
                totals[1] += noise
                totals[2] = max(totals[2], entered[name])

        self.variant.run(batch, before, after)

    def _float_name(self, name: str) -> str:
        return str(self.layers[self.by_stored[name]]["float"]) if name in self.by_stored else name

    def run_isolated(self, batch: dict[str, Any], give: Any, take: Any) -> None:
        """Run the variant's weights in float arithmetic, each layer on the float model's input.

        `give(number, values)` gets that input and returns the layer's input; `take(number, values, exact)` gets the
        layer's output and the float model's output.
        """

        def before(name: str, tensors: Any) -> None:
            number = self.by_stored.get(name)
            if number is None:
                return
            values = self.inputs[self.layers[number]["float"]][0]
            if tuple(tensors[0].getShape()) == values.shape:
                self.weights.session.write(tensors[0], give(number, values))

        def after(name: str, tensors: Any) -> None:
            number = self.by_stored.get(name)
            if number is None:
                return
            values, exact = self.weights.read(tensors[:1])[0], self.outputs[self.layers[number]["float"]]
            if values.shape == exact.shape:
                take(number, values, exact)

        self.weights.run(batch, before, after)

    def add_weight_errors(self, batch: dict[str, Any]) -> None:
        """Add the error from each layer's weights, on exact inputs."""

        def take(number: int, values: Any, exact: Any) -> None:
            self.sums[number, WEIGHTS] += energy(values - exact)

        self.run_isolated(batch, lambda _, values: values, take)

    def add_code_errors(self, batch: dict[str, Any]) -> None:
        """Add the error from each layer's input codes, and from its input and output codes."""

        def give(number: int, values: Any) -> Any:
            grid = self.layers[number]["grid_in"]
            coded, outside = rounded(values, grid)
            if grid:
                self.sums[number, [CLIPPED_IN, COUNT_IN]] += outside, values.size
            return coded

        def take(number: int, values: Any, exact: Any) -> None:
            coded, outside = rounded(values, self.layers[number]["grid_out"])
            self.sums[number, [INPUT, OWN]] += energy(values - exact), energy(coded - exact)
            self.sums[number, [CLIPPED_OUT, COUNT_OUT]] += outside, values.size

        self.run_isolated(batch, give, take)

    def quantized_outputs(self, batch: dict[str, Any], chosen: list[int]) -> dict[int, Any]:
        """The output of each chosen layer for the float model's input, if only that layer is quantized."""
        outputs: dict[int, Any] = {}

        def give(number: int, values: Any) -> Any:
            return rounded(values, self.layers[number]["grid_in"])[0]

        def take(number: int, values: Any, _exact: Any) -> None:
            if number in chosen:
                outputs[number] = rounded(values, self.layers[number]["grid_out"])[0]

        self.run_isolated(batch, give, take)
        return outputs

    def run_operators(self, batch: dict[str, Any], take: Any) -> None:
        """Run the variant with each operator without weights on the float model's own inputs.

        `take(name, values)` gets what those make that run in int8.
        """
        session = self.variant.session

        def enter(operator: Any, tensors: Any) -> None:
            name, kind, _ = operator
            exact = self.inputs.get(name, ())
            if name in self.operators and kind not in _MOVING and len(exact) == len(tensors):
                for tensor, values in zip(tensors, exact):  # noqa: B905  Python 3.8 has no strict; the lengths are equal.
                    session.overwrite(tensor, values)

        def leave(operator: Any, tensors: Any, int8: bool) -> None:
            name, kind, _ = operator
            exact = self.outputs.get(name)
            if not int8 or name not in self.operators or kind in _MOVING or exact is None or not tensors:
                return
            values = session.read(tensors[0])
            if values.shape == exact.shape:
                take(name, values)

        self.variant.feed(batch)
        run_observed(session, enter, leave)

    def coded_outputs(self, names: Iterable[str]) -> Iterator[tuple[str, Any]]:
        """The float model's outputs of those operators whose output becomes codes, rounded to these codes."""
        for name in names:
            exact = self.outputs.get(name)
            if name in self.coded and exact is not None:
                yield name, rounded(exact, self.coded[name])[0]

    def add_operator_errors(self, batch: dict[str, Any]) -> None:
        """Add what each operator that runs in int8 without weights does to its output, on exact inputs."""

        def take(name: str, values: Any) -> None:
            exact, totals = self.outputs[name], self.isolated.setdefault(name, [0.0, 0.0])
            totals[0] += energy(exact)
            totals[1] += energy(values - exact)

        self.run_operators(batch, take)
        for name, values in self.coded_outputs(self.coded):
            take(name, values)

    def worst_operators(self, count: int) -> list[str]:
        """The operators without weights that add most of their output's energy as error."""
        ratios = {name: noise / signal for name, (signal, noise) in self.isolated.items() if signal and noise}
        return sorted(ratios, key=lambda name: -ratios[name])[:count]

    def measure(self, batch: dict[str, Any]) -> None:
        """Add one batch to the sums."""
        self.run_float(batch)
        for name, number in self.by_float.items():
            if name in self.inputs:
                self.sums[number, SIGNAL] += energy(self.outputs[name])
                self.sums[number, INPUT_SIGNAL] += energy(self.inputs[name][0])
        self.run_variant(batch)
        self.add_weight_errors(batch)
        self.add_code_errors(batch)
        self.add_operator_errors(batch)

    def worst(self, count: int) -> list[int]:
        """The layers with the largest added error, as a share of their output's energy."""
        ratios = [sums[OWN] / sums[SIGNAL] if sums[SIGNAL] else 0.0 for sums in self.sums]
        order = sorted(range(len(ratios)), key=lambda number: -ratios[number])
        return [number for number in order if ratios[number] > 0][:count]

    def run_alone(self, batch: dict[str, Any], chosen: list[int], operators: list[str], save: Any) -> None:
        """Run the float model unmodified, and once per chosen layer or operator with only that one quantized.

        `save` gets the number of the layer (-1: none; operators are counted on behind the layers), an output's name and
        its values.
        """
        self.run_float(batch)
        self._save_outputs(-1, save)
        made = {
            self.layers[number]["float"]: values for number, values in self.quantized_outputs(batch, chosen).items()
        }
        numbers = {layer["float"]: number for number, layer in enumerate(self.layers)}
        numbers |= {name: len(self.layers) + place for place, name in enumerate(operators)}

        def take(name: str, values: Any) -> None:
            if name in operators:
                made[name] = values

        if operators:
            self.run_operators(batch, take)
        made.update(self.coded_outputs(operators))
        for name, values in made.items():

            def after(operator: str, tensors: Any, name: str = name, values: Any = values) -> None:
                if operator == name and tuple(tensors[0].getShape()) == values.shape:
                    self.float.session.write(tensors[0], values)

            self.float.run(batch, None, after)
            self._save_outputs(numbers[name], save)

    def _save_outputs(self, number: int, save: Any) -> None:
        outputs = self.float.session.outputs(self.integers)
        for name in self.job["outputs"]:
            save(number, name, outputs[name])

    def sample_bytes(self) -> int:
        """The bytes held per sample: all inputs and outputs of the float model's operators."""
        self.run_float(next(iter(batches({**self.job, "batch": 1}))))
        values = [*self.outputs.values(), *(array for arrays in self.inputs.values() for array in arrays)]
        return max(1, sum(int(array.nbytes) for array in values if array is not None))


def batches_within(job: dict[str, Any], samples: Any, end: float) -> Iterator[dict[str, Any]]:
    """Yield batches until a time of the clock `time.monotonic`, and at least one."""
    for batch in batches(job, samples):
        yield batch
        if time.monotonic() > end:
            return


def layers(job: dict[str, Any]) -> dict[str, Any]:
    """Write the sums of all layers to `sums.npy`, those with one quantized layer to `aloneN_OUTPUT.npy` (-1: none)."""
    import numpy as np

    model = Layers(job)
    parts: dict[tuple[int, int], list[Any]] = {}
    size, count = model.sample_bytes(), sample_count(job)
    job["batch"] = max(1, min(job["batch"], int(job["held"] / size)))
    # Fewer samples for large models; otherwise the search would take minutes.
    samples = np.linspace(0, count - 1, max(job["fewest"], min(count, int(job["work"] / size)))).astype(int)
    # In a random order, so that the first ones stand for all if the time is short.
    samples = np.random.default_rng(0).permutation(np.unique(samples))
    start = time.monotonic()
    for batch in batches_within(job, samples, start + job["seconds"] / 2):
        model.measure(batch)
    chosen, operators = model.worst(job["alone"]), model.worst_operators(job["alone"])

    def save(number: int, name: str, values: Any) -> None:
        parts.setdefault((number, job["outputs"].index(name)), []).append(values)

    done = 0
    for batch in batches_within(job, samples, start + job["seconds"]):
        model.run_alone(batch, chosen, operators, save)
        done = min(done + job["batch"], len(samples))
    np.save("sums.npy", model.sums)
    axes = job.get("axes", {}).get("outputs", {})
    for (number, place), arrays in parts.items():
        array = as_samples(arrays, axes.get(job["outputs"][place]), len(arrays) == done)
        np.save(f"alone{number}_{place}.npy", array)
    alone = sorted({number for number, _ in parts if number >= 0})
    passed = {name: [*model.others.get(name, [0.0, 0.0, 0.0]), *sums] for name, sums in model.isolated.items()}
    others = {name: [*sums, 0.0, 0.0] for name, sums in model.others.items()} | passed
    return {"alone": alone, "others": others, "operators": operators, "samples": samples[:done].tolist()}
