"""The outputs of a run, written batch by batch: those of all samples may be larger than the memory."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from .batches import sample_count

# The size of the header of every file. It is written last, when the number of samples is known.
HEADER = 256
# Bytes that are copied at once.
COPIED = 1 << 20


class OutputFiles:
    """The files `outputN.npy` of a job, N in the order in which the outputs first came, with samples first."""

    def __init__(self, job: dict[str, Any]) -> None:
        self._axes = job.get("axes", {}).get("outputs", {})
        self._count = sample_count(job)
        self._is_fixed = bool(job.get("fixed"))
        self._columns: dict[str, Column] = {}

    def add(self, outputs: dict[str, Any]) -> None:
        """Write the outputs of one batch, by name."""
        for name, array in outputs.items():
            if name not in self._columns:
                self._columns[name] = Column(f"output{len(self._columns)}.npy", self._axes.get(name))
            self._columns[name].add(array)

    def described(self) -> list[Any]:
        """What another process needs to join the unfinished files with its own: see `join`."""
        return [column.described() for column in self._columns.values()]

    def join(self, folder: Path, described: list[Any]) -> None:
        """Add the outputs of later batches, from the unfinished files of another process in a folder.

        Raises `ValueError` if it has other outputs.
        """
        if len(described) != len(self._columns):
            raise ValueError(f"{len(self._columns)} outputs of the first batches, {len(described)} of the later ones")
        for number, column in enumerate(self._columns.values()):
            column.join(folder, described[number])

    def close(self) -> list[str]:
        """Finish the files; the names of the outputs in their order. The job's last batch may be filled up."""
        for column in self._columns.values():
            column.close(self._count, self._is_fixed)
        return list(self._columns)


class Column:
    """One output in one file. `axis` counts samples in each batch; None: unknown."""

    def __init__(self, path: str, axis: Any) -> None:
        self._path, self._axis = Path(path), axis
        self._kind: Any = None
        self._shapes: list[tuple[int, ...]] = []

    def add(self, part: Any) -> None:
        """Write the output of one batch."""
        import numpy as np

        if self._axis is not None:
            part = np.moveaxis(np.atleast_1d(part), self._axis, 0)
        if self._kind is None:
            self._kind = part.dtype
            self._path.write_bytes(bytes(HEADER))
        self._shapes.append(part.shape)
        with self._path.open("ab") as file:  # Not kept open: a run may have more outputs than a process may open files.
            file.write(part.astype(self._kind, copy=False).tobytes())

    def described(self) -> list[Any]:
        """The name of the file, the type of its values, and the shapes of its batches."""
        return [self._path.name, self._kind.str, self._shapes]

    def join(self, folder: Path, described: list[Any]) -> None:
        """Add the batches of a file of another process. Raises `ValueError` if its values have another type."""
        name, kind, shapes = described
        if kind != self._kind.str:
            raise ValueError(f"one output has values of two types: {sorted((kind, self._kind.str))}")
        given = folder / name
        with given.open("rb") as part, self._path.open("ab") as file:
            part.seek(HEADER)
            shutil.copyfileobj(part, file, COPIED)
        given.unlink()
        self._shapes += [tuple(shape) for shape in shapes]

    def close(self, count: int, is_fixed: bool) -> None:
        """Write the header for `count` samples. Raises `ValueError` if the batches do not make one array."""
        shape = whole_shape(self._shapes, self._axis is None and len(self._shapes) == count)
        if is_fixed:
            shape = (min(shape[0], count), *shape[1:])
        values = 1
        for size in shape:
            values *= size
        with self._path.open("r+b") as file:
            file.truncate(HEADER + values * self._kind.itemsize)
            file.write(header(shape, self._kind))


def whole_shape(shapes: list[tuple[int, ...]], single: bool) -> tuple[int, ...]:
    """The shape of the outputs of all batches together, as `sample_axes.as_samples` joins them."""
    if single and len(set(shapes)) == 1 and shapes[0][:1] not in ((), (1,)):
        return (len(shapes), *shapes[0])
    parts = [shape or (1,) for shape in shapes]
    if len({shape[1:] for shape in parts}) > 1:
        raise ValueError(f"the outputs of the samples have different shapes: {sorted(set(parts))}")
    return (sum(shape[0] for shape in parts), *parts[0][1:])


def header(shape: tuple[int, ...], kind: Any) -> bytes:
    """The header of a `.npy` file, format 1.0, of the size `HEADER`."""
    text = repr({"descr": kind.str, "fortran_order": False, "shape": shape}).encode("latin1")
    size = HEADER - 10
    return b"\x93NUMPY\x01\x00" + size.to_bytes(2, "little") + text.ljust(size - 1) + b"\n"
