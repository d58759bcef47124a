"""The program of the child process: runs one job with MNN and writes its result to files.

    python runner.py JOB.json

Needs nothing but MNN, numpy and Python 3.8, and imports nothing from this package, so it can be copied anywhere. The
protocol is a folder: a job names its `task`, one of `TASKS` below, and its files, by paths that start at the job's
folder; the result goes to `result.json` and `*.npy` beside the job. Where the job lists what was `sent`, by SHA-256,
that must have arrived, and the result lists the `files` that are left, and says what `place` that was. Whatever MNN
prints goes to stdout and is not trusted.
"""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path
from typing import Any

PROTOCOL = 1
# The ways to fail that the result reports, as values of `FailureKind` in runtime/jobs.py.
RAISED, REFUSED, MISSING_PACKAGE, WRONG_VERSION = "raised", "refused", "missing package", "wrong version"


class Refused(Exception):
    """A job that was sent is not tried; `kind` is the way it fails."""

    def __init__(self, message: str, kind: str = REFUSED) -> None:
        super().__init__(message)
        self.kind = kind


def convert(job: dict[str, Any]) -> dict[str, Any]:
    """Run MNN's converter. Its return value is always True, so none is reported."""
    import _tools

    _tools.mnnconvert(["mnnconvert", *job["arguments"]])
    return {}


def quantize(job: dict[str, Any]) -> dict[str, Any]:
    """Run MNN's offline quantization tool; it returns 0 on every error path."""
    import _tools

    _tools.mnnquant(["mnnquant", *job["arguments"]])
    return {}


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
        """Copy one batch in, resizing the session where the shape is new."""
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
            layout = self.mnn.Tensor_DimensionType_Caffe
            if tensor.getDimensionType() == self.mnn.Tensor_DimensionType_Tensorflow:
                layout = self.mnn.Tensor_DimensionType_Tensorflow
            tensor.copyFrom(self.mnn.Tensor(array.shape, kinds[array.dtype.kind], array, layout))

    def host(self, tensor: Any, integer: bool = False) -> Any:
        """A tensor's values, dequantized, in NCHW order. The one right way: other getters return int8 bytes."""
        import numpy as np

        shape = tensor.getShape()
        kind = self.mnn.Halide_Type_Int if integer else self.mnn.Halide_Type_Float
        empty = np.zeros(shape, np.int32 if integer else np.float32)
        copy = self.mnn.Tensor(shape, kind, empty, self.mnn.Tensor_DimensionType_Caffe)
        tensor.copyToHostTensor(copy)
        return np.array(copy.getNumpyData()).reshape(shape).copy()

    def put(self, tensor: Any, array: Any) -> bool:
        """Overwrite a tensor's values, given as `host` gives them; returns whether it holds them now."""
        import numpy as np

        def held() -> bool:
            return bool(np.allclose(self.host(tensor), array, rtol=1e-5, atol=0, equal_nan=True))

        old = self.host(tensor)
        if old.shape != array.shape or np.array_equal(old, array, equal_nan=True):
            return bool(old.shape == array.shape)
        codes = codes_of(tensor, old)
        layout, values = self.mnn.Tensor_DimensionType_Caffe, np.ascontiguousarray(array)
        tensor.copyFrom(self.mnn.Tensor(array.shape, self.mnn.Halide_Type_Float, values, layout))
        if codes is None or held():
            return held()
        memory, order, scale, zero = codes  # MNN copies codes out, as the values they stand for, but not in.
        ends = np.iinfo(memory.dtype)
        memory[order] = np.clip(np.rint(array / scale + zero), ends.min, ends.max)
        return held()

    def run(self) -> None:
        """Run once; MNN reports failure by a status that Python would ignore."""
        status = self.net.runSession(self.session)
        if status not in (0, None):
            raise RuntimeError(f"MNN's runSession failed with status {status}")

    def outputs(self, integers: set[str]) -> dict[str, Any]:
        """All outputs of the last run; those named in `integers` are integers, which a tensor itself does not tell."""
        tensors = self.net.getSessionOutputAll(self.session)
        return {name: self.host(tensor, name in integers) for name, tensor in tensors.items()}


def example(job: dict[str, Any]) -> dict[str, Any]:
    """A model of one operator, `example.mnn`: y is twice x, four numbers."""
    import MNN

    x = MNN.expr.placeholder([1, 4], MNN.expr.NCHW)
    y = x + x
    x.name, y.name = "x", "y"
    MNN.expr.save([y], "example.mnn")
    return {}


def advance(done: int, of: int, unit: str) -> None:
    """Say how far the job is, to whoever waits for it."""
    if of > 1:
        Path("progress").write_text(f"{done} {of} {unit}", encoding="ascii")


def batches(job: dict[str, Any]) -> Any:
    """Yield the inputs in batches of `job["batch"]` samples, each {input name: array}."""
    import numpy as np

    arrays = {name: np.load(file, mmap_mode="r") for name, file in job["inputs"].items()}
    samples, size = next(iter(arrays.values())).shape[0], job["batch"]
    for start in range(0, samples, size):
        advance(start // size, -(-samples // size), "batches")
        yield {name: np.ascontiguousarray(array[start : start + size]) for name, array in arrays.items()}


def integer_outputs(path: str) -> set[str]:
    """The names of a model's integer tensors, from MNN's shape inference; a session's tensors hide their type."""
    import MNN

    try:
        known = MNN.expr.load_as_dict(path)
        return {name for name, value in known.items() if value.dtype in (MNN.expr.int, MNN.expr.int64)}
    except Exception:  # What can't be inferred is taken for float, as nearly all outputs are.
        return set()


def run(job: dict[str, Any]) -> dict[str, Any]:
    """Outputs of a model on all samples, and the type MNN gives each operator as it runs (the op trace)."""
    import numpy as np

    if job.get("engine") == "module":
        return run_module(job)
    session, parts, trace = Session(job, job["model"]), {}, []  # type: Session, dict[str, list[Any]], list[Any]

    integers = integer_outputs(job["model"])

    def before(_tensors: Any, _info: Any) -> bool:
        return True

    def after(_tensors: Any, info: Any) -> bool:
        trace.append([info.getName(), info.getType()])
        return True

    for number, batch in enumerate(batches(job)):
        session.feed(batch)
        if number == 0:
            session.net.runSessionWithCallBackInfo(session.session, before, after)
        else:
            session.run()
        for name, array in session.outputs(integers).items():
            parts.setdefault(name, []).append(array)
    for number, arrays in enumerate(parts.values()):
        np.save(f"output{number}.npy", np.concatenate([np.atleast_1d(array) for array in arrays]))
    memory = session.net.getSessionInfo(session.session, 0)
    return {"outputs": list(parts), "trace": trace, "memory_mb": memory}


def run_module(job: dict[str, Any]) -> dict[str, Any]:
    """The same through MNN's Module API, for models with While or If bodies. It has no op trace."""
    import MNN
    import numpy as np

    config = {"backend": 0, "numThread": job.get("threads", 1), "memory": int(job.get("memory", 0))}
    manager = MNN.nn.create_runtime_manager((config,))
    net = MNN.nn.load_module_from_file(job["model"], list(job["inputs"]), job["outputs"], runtime_manager=manager)
    parts: list[list[Any]] = [[] for _ in job["outputs"]]
    for batch in batches(job):
        held = [constant(array) for array in batch.values()]
        results = net.forward(held)
        for number, part in enumerate(parts):
            part.append(plain(results[number]))
    for number, arrays in enumerate(parts):
        np.save(f"output{number}.npy", np.concatenate(arrays))
    return {"outputs": job["outputs"], "trace": None, "memory_mb": None}


def watch(job: dict[str, Any], see: Any, skip: Any = frozenset()) -> None:
    """Call `see(batch, operator, side, values)` with the first input (side 0) and output (side 1) of operators.

    `job["ops"]` lists them as [name, name of the input tensor, name of the output tensor]; values are floats as NCHW.
    `skip` holds (operator, side) that nobody wants to see.
    """
    if job.get("engine") == "module":
        watch_module(job, see, skip)
        return
    session, wanted = Session(job, job["model"]), {op[0]: number for number, op in enumerate(job["ops"])}
    for place, batch in enumerate(batches(job)):
        session.feed(batch)

        def look(tensors: Any, info: Any, side: int, place: int = place) -> bool:
            number = wanted.get(info.getName())
            if number is not None and tensors and (number, side) not in skip:
                see(place, number, side, session.host(tensors[0]))
            return True

        session.net.runSessionWithCallBackInfo(
            session.session, lambda tensors, info: look(tensors, info, 0), lambda tensors, info: look(tensors, info, 1)
        )


def watch_module(job: dict[str, Any], see: Any, skip: Any) -> None:
    """The same through MNN's Module API, which runs While and If bodies: the tensors are asked for as outputs."""
    import MNN

    places: dict[str, list[tuple[int, int]]] = {}
    for number, (_, *tensors) in enumerate(job["ops"]):
        for side, tensor in enumerate(tensors):
            if (number, side) not in skip:
                places.setdefault(tensor, []).append((number, side))
    net = MNN.nn.load_module_from_file(job["model"], list(job["inputs"]), list(places))
    for place, batch in enumerate(batches(job)):
        held = [constant(array) for array in batch.values()]
        results = net.forward(held)
        for which, ends in enumerate(places.values()):
            values = plain(results[which])
            for number, side in ends:
                see(place, number, side, values)


def codes_of(tensor: Any, values: Any) -> Any:
    """An int8 tensor's memory, where in it the code of each of its values lies, their scale and zero point.

    None where the memory does not hold such codes: signed, or on x86 with 128 more, as NCHW or with some channels
    beside each other.
    """
    import ctypes

    import numpy as np

    address = ctypes.pythonapi.PyCapsule_GetPointer
    address.restype, address.argtypes = ctypes.c_void_p, (ctypes.py_object, ctypes.c_char_p)
    start, span = address(tensor.getHost(), None), float(np.ptp(values)) if values.size else 0.0
    if start is None or not span > 0:
        return None
    for pack in (1, 4, 8, 16):
        order = packed(values.shape, pack)
        for kind in (ctypes.c_int8, ctypes.c_uint8):
            memory = np.ctypeslib.as_array((kind * (int(order.max()) + 1)).from_address(start))
            codes = memory[order].astype(np.float64)
            scale = span / max(np.ptp(codes), 1.0)
            zero = codes.min() - values.min() / scale
            if np.allclose(codes, values / scale + zero, rtol=0, atol=0.01):
                return memory, order, scale, zero
    return None


def packed(shape: Any, pack: int) -> Any:
    """Where each value of a tensor lies in its memory, when MNN puts `pack` channels beside each other."""
    import numpy as np

    if pack == 1 or len(shape) < 2:
        return np.arange(int(np.prod(shape))).reshape(shape)
    samples, channels = shape[:2]
    area = int(np.prod(shape[2:]))
    blocks = -(-channels // pack)
    order = np.arange(blocks * samples * area * pack).reshape(blocks, samples, area, pack)
    return order.transpose(1, 0, 3, 2).reshape(samples, blocks * pack, area)[:, :channels].reshape(shape)


def step(session: Session, enter: Any, leave: Any) -> None:
    """Run a session with a look at each operator: `enter(operator, inputs)`, then `leave(operator, outputs, int8)`.

    An operator is told by its name in the file, its kind and how many such ran before. MNN numbers what it makes of one
    operator, and how much that is differs from one processor to another.
    """
    ran: dict[tuple[str, str], int] = {}

    def told(info: Any) -> tuple[str, str]:
        return re.sub(r"_raster_\d+$", "", info.getName()), info.getType().partition("[")[0].strip()

    def before(tensors: Any, info: Any) -> bool:
        which = told(info)
        ran[which] = ran.get(which, -1) + 1
        enter((*which, ran[which]), tensors)
        return True

    def after(tensors: Any, info: Any) -> bool:
        which = told(info)
        leave((*which, ran[which]), tensors, "DT_INT8" in info.getType())
        return True

    session.net.runSessionWithCallBackInfo(session.session, before, after)


def operators(job: dict[str, Any]) -> dict[str, Any]:
    """What each operator makes of what reaches it, on the first batch: `reached.npz` and `made.npz`.

    With a file `job["given"]`, which holds what reached `job["operators"]` in another place, each is given that
    instead, so that none carries on what another did; those that did not take it are `unset`. Arrays are named by the
    operator's place in the list and their own in it. Where all of them take more than `job["held"]` bytes, the first of
    the samples in `job["order"]` are taken.
    """
    import numpy as np

    session, batch = Session(job, job["model"]), next(iter(batches(job)))
    given = np.load(job["given"]) if "given" in job else None
    places = {tuple(operator): place for place, operator in enumerate(job.get("operators", []))}
    reached: dict[str, Any] = {}
    made: dict[str, Any] = {}
    ran: list[Any] = []
    unset: list[int] = []

    def enter(operator: Any, tensors: Any) -> None:
        for number, tensor in enumerate(tensors):
            name = f"{places.get(operator)}.{number}"
            if given is None:
                reached[f"{len(ran)}.{number}"] = session.host(tensor)
            elif name not in given or not session.put(tensor, given[name]):
                unset.append(len(ran))

    def leave(operator: Any, tensors: Any, int8: bool) -> None:
        made.update({f"{len(ran)}.{number}": session.host(tensor) for number, tensor in enumerate(tensors)})
        ran.append([*operator, int8])

    samples = list(range(len(next(iter(batch.values())))))
    if "order" in job:
        session.feed({name: array[:1] for name, array in batch.items()})
        step(session, enter, leave)
        one = sum(array.nbytes for array in (*reached.values(), *made.values()))
        samples = sorted(job["order"][: max(1, int(job["held"] / max(one, 1)))])
        for kept in (reached, made, ran, unset):
            kept.clear()
    session.feed({name: np.ascontiguousarray(array[samples]) for name, array in batch.items()})
    step(session, enter, leave)
    np.savez("reached.npz", **reached)
    np.savez("made.npz", **made)
    return {"operators": ran, "unset": sorted(set(unset)), "samples": samples}


def carry(job: dict[str, Any]) -> dict[str, Any]:
    """What a network's outputs become when one operator alone makes what it made elsewhere: `outputs.npz`.

    Each of `job["operators"]` in turn, on the first batch; the file `job["given"]` holds what it makes. Arrays are
    named by its place in the list and the output's.
    """
    import numpy as np

    session, batch, integers = Session(job, job["model"]), next(iter(batches(job))), integer_outputs(job["model"])
    found: dict[str, Any] = {}
    names: list[str] = []
    with np.load(job["given"]) as file:
        given = dict(file)
    for place, wanted in enumerate(job["operators"]):

        def leave(operator: Any, tensors: Any, _: bool, place: int = place, wanted: Any = tuple(wanted)) -> None:
            for number, tensor in enumerate(tensors if operator == wanted else ()):
                session.put(tensor, given[f"{place}.{number}"])

        advance(place, len(job["operators"]), "operators")
        session.feed(batch)
        step(session, lambda *_: None, leave)
        outputs = session.outputs(integers)
        found.update({f"{place}.{number}": array for number, array in enumerate(outputs.values())})
        names = list(outputs)
    np.savez("outputs.npz", **found)
    return {"outputs": names}


def plain(variable: Any) -> Any:
    """The values of a variable of MNN's Module API, as NCHW."""
    import MNN
    import numpy as np

    # What read() gives is a view that dies with its variable, so that has a name.
    held = MNN.expr.convert(variable, MNN.expr.NCHW) if variable.data_format == MNN.expr.NC4HW4 else variable
    return np.array(held.read()).copy()


def constant(array: Any) -> Any:
    """An array as an input of MNN's Module API."""
    import MNN

    kinds = {"f": MNN.expr.float, "i": MNN.expr.int, "u": MNN.expr.uint8}
    return MNN.expr.const(array, list(array.shape), MNN.expr.NCHW, kinds[array.dtype.kind])


def observe(job: dict[str, Any]) -> dict[str, Any]:
    """Tensors of the named operators: their values on the first batch (`probe`), or their range in each batch."""
    import numpy as np

    if job.get("probe"):
        watch(job, lambda _, number, side, values: np.save(f"tensor{number}_{side}.npy", values.reshape(-1)))
        return {}
    ranges: list[Any] = []

    def see(place: int, number: int, side: int, values: Any) -> None:
        while len(ranges) <= place:
            ranges.append(np.full((len(job["ops"]), 2, 2), np.nan))
        if values.size:
            ranges[place][number, side] = values.min(), values.max()

    watch(job, see)
    np.save("ranges.npy", np.stack(ranges))
    return {}


def histograms(job: dict[str, Any]) -> dict[str, Any]:
    """How the values of tensors spread over `job["bins"]` bins between the bounds in the file `job["bounds"]`."""
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
    """What codes would lose of the tensors' values. The file `job["grids"]` holds [scale, lowest, highest] of each.

    Counted: values, their energy, how many are clipped by more than half a step, the energy of what is clipped and of
    what rounding takes away, the smallest and the largest value. A scale of 0 leaves a tensor out.
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
        kept = totals[number, side]
        kept[:5] += flat.size, energies[0], outside, energies[1], energies[2] * scale**2
        kept[5:] = min(kept[5], flat.min()), max(kept[6], flat.max())

    watch(job, see, {(int(number), int(side)) for number, side in np.argwhere(grids[..., 0] == 0)})
    np.save("losses.npy", totals)
    return {}


def images(job: dict[str, Any]) -> dict[str, Any]:
    """Image files as `images.npy`, float32 [n, c, h, w]: crop, resize, format and scaling as mnnquant itself has them.

    The same calls as `Helper::preprocessInput` in MNN's tools/quantization, so that the pixels are equal in every bit.
    """
    import MNN
    import numpy as np

    width, height = job["size"]
    kinds = {kind: getattr(MNN, f"CV_ImageFormat_{kind}") for kind in ("RGB", "BGR", "RGBA", "GRAY")}
    process = MNN.CVImageProcess(
        {
            "filterType": MNN.CV_Filter_BILINEAL,
            "sourceFormat": kinds["RGBA"],
            "destFormat": kinds[job["format"]],
            "mean": tuple([*job["mean"], 0.0, 0.0, 0.0][:4]),
            "normal": tuple([*job["normal"], 1.0, 1.0, 1.0][:4]),
        }
    )
    shape = (len(job["files"]), len(job["mean"]), height, width)
    out = np.lib.format.open_memmap("images.npy", mode="w+", dtype=np.float32, shape=shape)
    for number, file in enumerate(job["files"]):
        advance(number, len(job["files"]), "images")
        Path("reading.txt").write_text(str(number), encoding="utf-8")  # a damaged image crashes below
        if job["format"] == "RGBA" and has_alpha(Path(file).read_bytes()):
            return {"unreadable": number, "why": "MNN's Python package can't read an alpha channel; save it as RGB"}
        if not MNN.cv.haveImageReader(file):
            return {"unreadable": number, "why": "MNN can't decode this image"}
        decoded = MNN.cv.imread(file)
        pixels = np.array(decoded.read()).copy()
        rows, columns = pixels.shape[:2]
        source = np.full((rows, columns, 4), 255, np.uint8)
        source[..., :3] = pixels[..., ::-1]
        # A product of 32-bit floats, as there.
        across, down = (int(n * np.float32(job["crop"][side])) for side, n in enumerate((columns, rows)))
        if not across or not down:
            return {"unreadable": number, "why": f"center_crop leaves nothing of its {columns}x{rows} pixels"}
        left, top = (columns - across) // 2, (rows - down) // 2
        right, bottom = left + across - 1, top + down - 1
        matrix = MNN.CVMatrix()
        matrix.setPolyToPoly(corners(0, 0, width - 1, height - 1), corners(left, top, right, bottom))
        process.setMatrix(matrix)
        empty = np.zeros((1, *shape[1:]), np.float32)
        tensor = MNN.Tensor(empty.shape, MNN.Halide_Type_Float, empty, MNN.Tensor_DimensionType_Caffe)
        # By address: given an array, MNN refuses an image that is smaller than the tensor.
        if process.convert(source.ctypes.data, columns, rows, 0, tensor) != 0:
            return {"unreadable": number, "why": "MNN can't resize this image"}
        out[number] = np.array(tensor.getNumpyData()).reshape(shape[1:])
    out.flush()
    Path("reading.txt").unlink()
    return {}


def corners(left: int, top: int, right: int, bottom: int) -> list[float]:
    """A rectangle's corners in mnnquant's order."""
    return [float(value) for value in (left, top, left, bottom, right, top, right, bottom)]


def has_alpha(data: bytes) -> bool:
    """Whether an image file may hold transparency (of PNG: by its colour type or a list of transparent colours)."""
    if data.startswith(b"\x89PNG"):
        return data[25:26] in (b"\x04", b"\x06") or b"tRNS" in data
    return data.startswith(b"BM") and data[28:29] == b"\x20"


def sha256(path: Path) -> str:
    """The hash of a file."""
    import hashlib

    found = hashlib.sha256()
    with path.open("rb") as file:
        while part := file.read(1 << 20):
            found.update(part)
    return found.hexdigest()


def check_arrived(files: dict[str, str]) -> None:
    """Refuse to work on anything but what was sent."""
    for name, expected in files.items():
        if not Path(name).is_file():
            raise Refused(f"{name} did not arrive")
        if sha256(Path(name)) != expected:
            raise Refused(f"{name} arrived damaged: its SHA-256 is not that of what was sent")


def leaving(sent: dict[str, str]) -> dict[str, Any]:
    """What the result of a job from elsewhere says besides: the files that are left, and where they were made."""
    left = [path for pattern in ("*.npy", "*.npz") for path in Path().glob(pattern) if path.name not in sent]
    return {"files": {path.name: sha256(path) for path in left}, "place": place()}


def place() -> dict[str, str]:
    """What machine this is, and which versions are here."""
    import numpy as np

    return {
        "node": os.uname().nodename,
        "machine": os.uname().machine,
        "cpu": cpu_info(),
        "python": ".".join(map(str, sys.version_info[:3])),
        "numpy": np.__version__,
        "mnn": mnn_version(),
    }


def mnn_version() -> str:
    """The version of MNN; its own word, else (old ones don't tell) that of its package. Empty where neither tells."""
    import MNN

    if hasattr(MNN, "version"):
        return str(MNN.version())
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("MNN")
    except PackageNotFoundError:
        return ""


def check_mnn(expected: str) -> None:
    """Refuse to work with another MNN than is expected, where that is known."""
    found = mnn_version()
    if found not in ("", expected):
        raise Refused(f"MNN {found} is there, expected was {expected}", WRONG_VERSION)


def cpu_info() -> str:
    """What Linux tells of the first processor; empty elsewhere."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    return text.partition("\n\n")[0]


def die_with_parent() -> None:
    """Ask Linux to kill this process when its parent dies, however that happens (a CI job that is cut off)."""
    try:
        import ctypes

        ctypes.CDLL(None).prctl(1, 9)  # PR_SET_PDEATHSIG, SIGKILL
    except (OSError, AttributeError):
        pass  # Not Linux: the parent's own clean-up has to do.


TASKS = {
    "example": example,
    "convert": convert,
    "quantize": quantize,
    "images": images,
    "run": run,
    "operators": operators,
    "carry": carry,
    "observe": observe,
    "histograms": histograms,
    "losses": losses,
}


def work(job_file: Path) -> None:
    """Run a job and end the process. The result file appears whole or not at all."""
    die_with_parent()
    job = json.loads(job_file.read_text(encoding="utf-8"))
    if job["protocol"] != PROTOCOL:
        raise SystemExit(f"this runner speaks protocol {PROTOCOL}, the job {job['protocol']}")
    os.chdir(job_file.parent)
    sent = job.get("sent")
    try:
        if sent is not None:
            check_mnn(job["mnn"])
            check_arrived(sent)
        result = TASKS[job["task"]](job)
        if sent is not None:
            result.update(leaving(sent))
    except Exception as error:
        result = {"error": described(error)}
    sys.stdout.flush()
    unfinished = Path("result.json.part")
    unfinished.write_text(json.dumps(result), encoding="utf-8")
    unfinished.replace("result.json")
    os._exit(0)  # MNN's destructors may crash after the work is done; the result is already on disk.


def described(error: Exception) -> dict[str, str]:
    """A failure in the result: its kind, a line for people, and the package that is missing."""
    if isinstance(error, Refused):
        return {"kind": error.kind, "message": str(error)}
    message = f"{type(error).__name__}: {error}"
    if isinstance(error, ModuleNotFoundError):
        return {"kind": MISSING_PACKAGE, "message": message, "package": (error.name or "").partition(".")[0]}
    return {"kind": RAISED, "message": message}


def serve() -> None:
    """Run the jobs that stdin names, a file a line, each in a fork; say on stdout how each ended.

    What a job prints goes to `log.txt` beside it, after what was printed when MNN was loaded.
    """
    import ctypes
    import hashlib
    import tempfile

    answers, (printed, name) = os.fdopen(os.dup(1), "w"), tempfile.mkstemp()
    Path(name).unlink()
    for stream in (1, 2):
        os.dup2(printed, stream)
    die_with_parent()
    import MNN
    import numpy

    _ = (ctypes, hashlib, MNN, numpy)  # Loaded for the forks.
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            try:
                job_file = Path(line.rstrip("\n"))
                log = os.open(job_file.with_name("log.txt"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
                os.write(log, os.pread(printed, 1 << 16, 0))
                for stream in (1, 2):
                    os.dup2(log, stream)
                work(job_file)
            except BaseException as error:
                print(f"{type(error).__name__}: {error}", flush=True)
            finally:
                os._exit(1)
        _, status = os.waitpid(child, 0)
        answers.write(f"{-os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)}\n")
        answers.flush()


def main() -> None:
    """Run the job named on the command line, or with `--serve` those named on stdin."""
    sys.path.pop(0)  # The folder of this script must not shadow the standard library.
    if sys.argv[1] == "--serve":
        serve()
    else:
        work(Path(sys.argv[1]))


if __name__ == "__main__":
    main()
