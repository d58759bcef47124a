"""The program of a child process: what each layer of a quantized model adds to the error, and what it costs alone.

    python layerwise.py JOB.json

Three models run on the same batches: the float model; the variant; and the variant's weights in float arithmetic (a
copy without quantized tensors). In the last, each layer is handed the float model's own input, exact or rounded to
the layer's codes, so what comes out differs from the float model's output by what this layer itself adds. MNN's int8
convolutions are exact integer arithmetic, so rounding the input and the output to their codes gives what they give.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

_spec = importlib.util.spec_from_file_location("runner", Path(__file__).with_name("runner.py"))
assert _spec is not None
assert _spec.loader is not None
runner: Any = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(runner)

# Places in the sums of a layer.
SIGNAL, WEIGHTS, INPUT, OWN, REACHED, INHERITED, INPUT_SIGNAL, CLIPPED_IN, CLIPPED_OUT, COUNT_IN, COUNT_OUT = range(11)
SUMS = 11


def rounded(values: Any, grid: Any) -> tuple[Any, int]:
    """The values as codes of a tensor give them back, and how many lie outside of the codes' range."""
    import numpy as np

    scale, zero, low, high = (np.float32(number) for number in grid)
    codes = np.rint(values / scale) + zero
    return (np.clip(codes, low, high) - zero) * scale, int(((codes < low - 0.5) | (codes > high + 0.5)).sum())


def energy(values: Any) -> float:
    """The sum of squares; infinite where a value is not finite."""
    import numpy as np

    flat = np.asarray(values, np.float64).reshape(-1)
    return float(flat @ flat) if np.isfinite(flat).all() else float("inf")


class Watched:
    """A model whose operators are looked at, and handed other values, while it runs."""

    def __init__(self, job: dict[str, Any], path: str, names: dict[str, str]) -> None:
        self.session = runner.Session(job, path)
        self._names = names

    def run(self, batch: dict[str, Any], before: Any = None, after: Any = None) -> None:
        """Run one batch; `before` and `after` get an operator's name and its input or output tensors."""
        self.session.feed({self._names[name]: array for name, array in batch.items()})

        def call(see: Any) -> Any:
            return lambda tensors, info: see is None or see(info.getName(), tensors) is not False

        self.session.net.runSessionWithCallBackInfo(self.session.session, call(before), call(after))

    def read(self, tensors: Any) -> list[Any]:
        """The values of tensors."""
        return [self.session.host(tensor) for tensor in tensors]

    def write(self, tensor: Any, values: Any) -> None:
        """Put values into a float tensor."""
        mnn = self.session.mnn
        layout = mnn.Tensor_DimensionType_Caffe
        tensor.copyFrom(mnn.Tensor(values.shape, mnn.Halide_Type_Float, values, layout))


class Layers:
    """The sums of all layers, and of operators that hold no weights."""

    def __init__(self, job: dict[str, Any]) -> None:
        import numpy as np

        names = job["names"]
        self.job = job
        self.float, self.variant = (Watched(job, job[key], names[key]) for key in ("float", "variant"))
        self.weights = Watched(job, job["weights"], names["variant"])
        self.layers = job["layers"]
        self.by_float = {layer["float"]: number for number, layer in enumerate(self.layers)}
        self.by_stored = {layer["stored"]: number for number, layer in enumerate(self.layers)}
        self.operators = frozenset(job["operators"])
        self.sums = np.zeros((len(self.layers), SUMS))
        #: operator -> [signal of its output, noise of it, worst noise to signal of its inputs], summed over batches
        self.others: dict[str, list[float]] = {}
        self.inputs: dict[str, list[Any]] = {}
        self.outputs: dict[str, Any] = {}
        self.integers = runner.integer_outputs(job["float"])

    def exact(self, batch: dict[str, Any]) -> None:
        """Run the float model and keep what goes in and comes out of each operator."""
        self.inputs, self.outputs = {}, {}

        def before(name: str, tensors: Any) -> None:
            self.inputs[name] = self.float.read(tensors)

        def after(name: str, tensors: Any) -> None:
            self.outputs[name] = self.float.read(tensors[:1])[0] if tensors else None

        self.float.run(batch, before, after)

    def as_it_is(self, batch: dict[str, Any]) -> None:
        """Run the variant: what has become of each operator's input and output on the way."""
        entered: dict[str, float] = {}

        def float_name(name: str) -> str:
            return self.layers[self.by_stored[name]]["float"] if name in self.by_stored else name

        def before(name: str, tensors: Any) -> None:
            exact, ours = self.inputs.get(float_name(name), []), self.variant.read(tensors)
            if not ours or [array.shape for array in ours] != [array.shape for array in exact]:
                return  # What enters can't be told, so nobody is to be blamed for what leaves.
            noises = [(energy(mine - theirs), energy(theirs)) for mine, theirs in zip(ours, exact, strict=True)]
            entered[name] = max((noise / signal for noise, signal in noises if signal), default=0.0)
            if name in self.by_stored:
                self.sums[self.by_stored[name], INHERITED] += noises[0][0]

        def after(name: str, tensors: Any) -> None:
            exact = self.outputs.get(float_name(name))
            if exact is None or not tensors:
                return
            values = self.variant.read(tensors[:1])[0]
            if values.shape != exact.shape:
                return
            noise = energy(values - exact)
            if name in self.by_stored:
                self.sums[self.by_stored[name], REACHED] += noise
            elif name in self.operators and name in entered:
                kept = self.others.setdefault(name, [0.0, 0.0, 0.0])
                kept[0] += energy(exact)
                kept[1] += noise
                kept[2] = max(kept[2], entered[name])

        self.variant.run(batch, before, after)

    def by_themselves(self, as_codes: bool, keep: Any = ()) -> dict[int, Any]:
        """Hand each layer the float model's input (as its codes give it back) and look at what comes out.

        Returns what the layers numbered in `keep` give; without any, the errors are added to the sums.
        """
        made: dict[int, Any] = {}
        count = not keep

        def before(name: str, tensors: Any) -> None:
            number = self.by_stored.get(name)
            if number is None:
                return
            layer = self.layers[number]
            values = self.inputs[layer["float"]][0]
            if tuple(tensors[0].getShape()) != values.shape:
                return
            if as_codes and layer["grid_in"]:
                values, outside = rounded(values, layer["grid_in"])
                if count:
                    self.sums[number, [CLIPPED_IN, COUNT_IN]] += outside, values.size
            self.weights.write(tensors[0], values)

        def after(name: str, tensors: Any) -> None:
            number = self.by_stored.get(name)
            if number is None:
                return
            layer, values = self.layers[number], self.weights.read(tensors[:1])[0]
            exact = self.outputs[layer["float"]]
            if values.shape != exact.shape:
                return
            if as_codes:
                noise_of_input = energy(values - exact)
                outside = 0
                if layer["grid_out"]:
                    values, outside = rounded(values, layer["grid_out"])
                if count:
                    self.sums[number, [INPUT, OWN]] += noise_of_input, energy(values - exact)
                    self.sums[number, [CLIPPED_OUT, COUNT_OUT]] += outside, values.size
            elif count:
                self.sums[number, WEIGHTS] += energy(values - exact)
            if number in keep:
                made[number] = values

        self.weights.run(self.batch, before, after)
        return made

    def measure(self, batch: dict[str, Any]) -> None:
        """Add one batch to the sums."""
        self.batch = batch
        self.exact(batch)
        for name, number in self.by_float.items():
            if name in self.inputs:
                self.sums[number, SIGNAL] += energy(self.outputs[name])
                self.sums[number, INPUT_SIGNAL] += energy(self.inputs[name][0])
        self.as_it_is(batch)
        self.by_themselves(as_codes=False)
        self.by_themselves(as_codes=True)

    def worst(self, count: int) -> list[int]:
        """The layers that add most of their output's energy as error."""
        ratios = [sums[OWN] / sums[SIGNAL] if sums[SIGNAL] else 0.0 for sums in self.sums]
        order = sorted(range(len(ratios)), key=lambda number: -ratios[number])
        return [number for number in order if ratios[number] > 0][:count]

    def alone(self, batch: dict[str, Any], chosen: list[int], keep: Any) -> None:
        """Run the float model as it is, and once for each chosen layer with that layer alone quantized.

        `keep` gets the number of the layer (-1: none), an output's name and its values.
        """
        self.batch = batch
        self.exact(batch)
        self._keep_outputs(-1, keep)
        for number, values in self.by_themselves(as_codes=True, keep=frozenset(chosen)).items():
            name = self.layers[number]["float"]

            def after(operator: str, tensors: Any, name: str = name, values: Any = values) -> None:
                if operator == name:
                    self.float.write(tensors[0], values)

            self.float.run(batch, None, after)
            self._keep_outputs(number, keep)

    def _keep_outputs(self, number: int, keep: Any) -> None:
        outputs = self.float.session.outputs(self.integers)
        for name in self.job["outputs"]:
            keep(number, name, outputs[name])


def sample_bytes(found: Layers) -> int:
    """The bytes that are held of one sample: all that its operators take and give."""
    found.exact(next(iter(runner.batches({**found.job, "batch": 1}))))
    values = [*found.outputs.values(), *(array for arrays in found.inputs.values() for array in arrays)]
    return max(1, sum(int(array.nbytes) for array in values if array is not None))


def chosen_batches(job: dict[str, Any], chosen: Any) -> Any:
    """The inputs of the chosen samples in batches of `job["batch"]`, each {input name: array}."""
    import numpy as np

    arrays = {name: np.load(file, mmap_mode="r") for name, file in job["inputs"].items()}
    for start in range(0, len(chosen), job["batch"]):
        runner.advance(start // job["batch"], -(-len(chosen) // job["batch"]), "batches")
        places = chosen[start : start + job["batch"]]
        yield {name: np.ascontiguousarray(array[places]) for name, array in arrays.items()}


def layers(job: dict[str, Any]) -> dict[str, Any]:
    """Sums of all layers to `sums.npy`; outputs with one layer quantized to `aloneN_OUTPUT.npy` (-1: with none)."""
    import numpy as np

    found, parts = Layers(job), {}  # type: Layers, dict[tuple[int, int], list[Any]]
    size, count = sample_bytes(found), next(len(np.load(file, mmap_mode="r")) for file in job["inputs"].values())
    job["batch"] = max(1, min(job["batch"], int(job["held"] / size)))
    # Large models are looked at on fewer samples, or the search would take minutes.
    samples = np.linspace(0, count - 1, max(job["fewest"], min(count, int(job["work"] / size)))).astype(int)
    samples = np.unique(samples)
    for batch in chosen_batches(job, samples):
        found.measure(batch)
    chosen = found.worst(job["alone"])

    def keep(number: int, name: str, values: Any) -> None:
        parts.setdefault((number, job["outputs"].index(name)), []).append(values)

    for batch in chosen_batches(job, samples):
        found.alone(batch, chosen, keep)
    np.save("sums.npy", found.sums)
    for (number, place), values in parts.items():
        np.save(f"alone{number}_{place}.npy", np.concatenate([np.atleast_1d(one) for one in values]))
    alone = sorted({number for number, _ in parts if number >= 0})
    return {"alone": alone, "others": found.others, "samples": samples.tolist()}


if __name__ == "__main__":
    runner.TASKS["layers"] = layers
    runner.main()
