"""A model in MNN's Module API, which runs While and If bodies. It has no op trace."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from .batches import batches


class Module:
    """A model in memory, with its inputs fed; the timer uses it like a `Session`.

    `job` names its inputs and `outputs`, in order. Its memory is unknown: MNN does not report the memory of a module.
    """

    def __init__(self, job: dict[str, Any], path: str) -> None:
        import MNN

        config = {"backend": 0, "numThread": job.get("threads", 1), "memory": int(job.get("memory", 0))}
        config["precision"] = int(job.get("precision", 0))
        manager = MNN.nn.create_runtime_manager((config,))
        self.inputs: list[Any] = []
        self.names = list(job["input_names"])
        self.layouts = job.get("layouts", {})
        self.net = MNN.nn.load_module_from_file(path, self.names, list(job["outputs"]), runtime_manager=manager)

    def feed(self, arrays: dict[str, Any]) -> None:
        """Take one batch as the inputs."""
        self.inputs = [as_input(arrays[name], self.layouts.get(name, "NCHW")) for name in self.names]

    def run_unchecked(self) -> None:
        """Run once and wait for the outputs; this call is timed."""
        for result in self.net.forward(self.inputs):
            if 0 not in result.shape:
                result.read()

    def run(self) -> None:
        """Run once. Raises `RuntimeError` if MNN gives no output."""
        if not self.net.forward(self.inputs):
            raise RuntimeError("MNN's module returned no output")
        self.run_unchecked()


def run_batches(job: dict[str, Any], outputs: list[str], settings: Any = None, feedback: Any = None) -> Iterator[Any]:
    """Run `job["model"]` batch by batch; yield MNN's variables of the named tensors.

    `settings` are those of MNN's runtime; None: MNN's default. `feedback` changes the inputs of each batch. A batch of
    another size gets a new module: MNN 3.6.1 returns wrong values of an int8 output after a resize.
    """
    net: Any = None
    shapes: list[Any] = []
    for batch in batches(job):
        # The inputs must stay referenced while the outputs are read.
        layouts = job.get("layouts", {})
        fed = batch if feedback is None else feedback.enter(batch)
        inputs = [as_input(array, layouts.get(name, "NCHW")) for name, array in fed.items()]
        if shapes != [array.shape for array in fed.values()]:
            net, shapes = _loaded(job, outputs, settings), [array.shape for array in fed.values()]
        yield net.forward(inputs)


def _loaded(job: dict[str, Any], outputs: list[str], settings: Any) -> Any:
    import MNN

    runtime = {} if settings is None else {"runtime_manager": MNN.nn.create_runtime_manager((settings,))}
    return MNN.nn.load_module_from_file(job["model"], list(job["inputs"]), outputs, **runtime)


def as_input(array: Any, layout: str = "NCHW") -> Any:
    """An array as an input, in the layout that the model declares."""
    import MNN

    kinds = {"f": MNN.expr.float, "i": MNN.expr.int, "u": MNN.expr.uint8}
    order = MNN.expr.NHWC if layout == "NHWC" else MNN.expr.NCHW
    value = MNN.expr.const(array, list(array.shape), order, kinds[array.dtype.kind])
    # Made with --keepInputFormat=0: MNN does not convert it by itself.
    is_packed = layout == "NC4HW4" and array.ndim == 4 and array.dtype.kind == "f"
    return MNN.expr.convert(value, MNN.expr.NC4HW4) if is_packed else value


def values_of(variable: Any) -> Any:
    """The values of a variable, as NCHW."""
    import MNN
    import numpy as np

    # read() returns a view that is valid only as long as the variable, so the variable has a name.
    if 0 in variable.shape:  # MNN refuses to read it.
        return np.empty(variable.shape, np.int32 if variable.dtype == MNN.expr.int else np.float32)
    converted = MNN.expr.convert(variable, MNN.expr.NCHW) if variable.data_format == MNN.expr.NC4HW4 else variable
    return np.array(converted.read()).copy()
