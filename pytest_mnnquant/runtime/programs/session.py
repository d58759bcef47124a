"""A model in MNN's Session API: feeds its inputs, reads and overwrites its tensors."""

from __future__ import annotations

from typing import Any

from .int8_codes import locate_int8_codes, starts_with_float


class Session:
    """A model in memory, with its inputs fed as NCHW (or as the model declares them)."""

    def __init__(self, job: dict[str, Any], path: str) -> None:
        import MNN

        self.mnn = MNN
        self.net = MNN.Interpreter(path)
        config = {"backend": "CPU", "numThread": job.get("threads", 1), "memory": int(job.get("memory", 0))}
        config["precision"] = int(job.get("precision", 0))
        self.session = self.net.createSession(config)

    def feed(self, arrays: dict[str, Any]) -> None:
        """Copy one batch into the inputs; resize the session if the shape is new."""
        inputs = self.net.getSessionInputAll(self.session)
        missing = set(inputs) - set(arrays)
        if missing:
            raise ValueError(f"no data for input {sorted(missing)[0]!r}")
        if any(tuple(tensor.getShape()) != arrays[name].shape for name, tensor in inputs.items()):
            for name, tensor in inputs.items():
                self.net.resizeTensor(tensor, arrays[name].shape)
            self.net.resizeSession(self.session)
        for name, tensor in inputs.items():
            array = arrays[name]
            kinds = {"f": self.mnn.Halide_Type_Float, "i": self.mnn.Halide_Type_Int, "u": self.mnn.Halide_Type_Uint8}
            tensor.copyFrom(self.mnn.Tensor(array.shape, kinds[array.dtype.kind], array, self.layout(tensor)))

    def layout(self, tensor: Any) -> Any:
        """The layout of a host tensor with the same order of axes: a copy between NHWC and NCHW moves the values."""
        if tensor.getDimensionType() == self.mnn.Tensor_DimensionType_Tensorflow:
            return self.mnn.Tensor_DimensionType_Tensorflow
        return self.mnn.Tensor_DimensionType_Caffe

    def read(self, tensor: Any, integer: bool = False) -> Any:
        """A tensor's values, dequantized, in the order of its shape. Other getters of MNN return int8 bytes."""
        import numpy as np

        shape = tensor.getShape()
        kind = self.mnn.Halide_Type_Int if integer else self.mnn.Halide_Type_Float
        empty = np.zeros(shape, np.int32 if integer else np.float32)
        copy = self.mnn.Tensor(shape, kind, empty, self.layout(tensor))
        tensor.copyToHostTensor(copy)
        return np.array(copy.getNumpyData()).reshape(shape).copy()

    def write(self, tensor: Any, values: Any) -> None:
        """Put values, in the order of its shape, into a float tensor."""
        tensor.copyFrom(self.mnn.Tensor(values.shape, self.mnn.Halide_Type_Float, values, self.layout(tensor)))

    def overwrite(self, tensor: Any, array: Any) -> bool:
        """Overwrite the values of any tensor, in the form that `read` returns; returns whether this succeeded."""
        import numpy as np

        # A zero of a copy whose zero point lies one float32 step off is another number (see `mnnfile.pooling`).
        largest = np.abs(array[np.isfinite(array)]).max(initial=0.0)

        def is_written() -> bool:
            return bool(np.allclose(self.read(tensor), array, rtol=1e-5, atol=1e-6 * largest, equal_nan=True))

        before = self.read(tensor)
        if before.shape != array.shape or np.array_equal(before, array, equal_nan=True):
            return bool(before.shape == array.shape)
        codes = locate_int8_codes(tensor, before)
        if before.size and not np.ptp(before) > 0 and not starts_with_float(tensor, before.flat[0]):
            return False  # A constant in codes: one value does not show its scale, and a float would spoil it.
        self.write(tensor, np.ascontiguousarray(array))
        if codes is None or is_written():
            return is_written()
        codes.write(
            array
        )  # MNN dequantizes codes when it copies them out, but does not quantize values when it copies them in.
        return is_written()

    def run_unchecked(self) -> None:
        """Run once and ignore the status; this call is timed."""
        self.net.runSession(self.session)

    def run(self) -> None:
        """Run once. Raises `RuntimeError` for MNN's status, which Python would ignore."""
        status = self.net.runSession(self.session)
        if status not in (0, None):
            raise RuntimeError(f"MNN's runSession failed with status {status}")

    def run_with_callbacks(self, before: Any, after: Any) -> None:
        """Run once; `before` and `after` get (tensors, info) of each operator, and return whether it must run."""
        self.net.runSessionWithCallBackInfo(self.session, before, after)

    def outputs(self, integers: set[str]) -> dict[str, Any]:
        """All outputs of the last run; those named in `integers` are integers, which a session's tensor hides."""
        tensors = self.net.getSessionOutputAll(self.session)
        return {name: self.read(tensor, name in integers) for name, tensor in tensors.items()}

    @property
    def memory_mb(self) -> float:
        """The memory of the session, in MB of 2^20 bytes."""
        return float(self.net.getSessionInfo(self.session, 0))


def integer_outputs(path: str) -> set[str]:
    """The names of a model's integer tensors, from MNN's shape inference; a session's tensors hide their type."""
    import MNN

    try:
        known = MNN.expr.load_as_dict(path)
        return {name for name, value in known.items() if value.dtype in (MNN.expr.int, MNN.expr.int64)}
    except Exception:  # If inference fails, all outputs are taken as float, as nearly all are.
        return set()
