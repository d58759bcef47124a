"""A checkpoint in Hugging Face's form: `config.json`, safetensors (one file, or shards and an index), a tokenizer.

GPTQ checkpoints hold a linear layer as `qweight` [inputs / (32 / bits), outputs] (the lowest bits are the first input),
`scales` [groups, outputs], `qzeros` [groups, outputs / (32 / bits)] (zero point minus one) and `g_idx` [inputs].
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from pytest_mnnquant.llm.json_object import BadExport, read_json
from pytest_mnnquant.llm.safetensors import TensorEntry, read_entries, read_integers, read_rows
from pytest_mnnquant.llm.source_config import SourceConfig, read_source_config
from pytest_mnnquant.mnnfile.storage import Floats

_SINGLE: Final = "model.safetensors"
_INDEX: Final = "model.safetensors.index.json"


@dataclass(frozen=True)
class Checkpoint:
    """A model in a folder; `tensors` are known by name and are read when they are needed.

    Without `has_values` only their names, types and shapes are known.
    """

    path: Path
    config: SourceConfig
    tensors: Mapping[str, TensorEntry]
    has_values: bool = True

    def rows(self, name: str, start: int = 0, stop: int | None = None) -> Floats:
        """Rows of a tensor in float32. Raises `BadExport` if it is missing or not of floats."""
        entry = self._entry(name)
        return read_rows(self.path / entry.file, entry, start, entry.shape[0] if stop is None else stop)

    def integers(self, name: str) -> npt.NDArray[np.int64]:
        """A tensor of integers. Raises `BadExport` if it is missing."""
        entry = self._entry(name)
        values: npt.NDArray[np.int64] = read_integers(self.path / entry.file, entry, 0, entry.shape[0]).astype(np.int64)
        return values

    def _entry(self, name: str) -> TensorEntry:
        if name not in self.tensors:
            raise BadExport(str(self.path), name, "the checkpoint has no such tensor")
        return self.tensors[name]

    @property
    def is_gptq(self) -> bool:
        """Whether linear layers are stored as GPTQ codes."""
        return any(name.endswith(".qweight") for name in self.tensors)


def is_checkpoint(path: Path) -> bool:
    """Whether a folder looks like a checkpoint of Hugging Face."""
    return path.is_dir() and (path / "config.json").is_file() and not (path / "llm_config.json").is_file()


def read_checkpoint(path: Path) -> Checkpoint:
    """Read configuration and index. Raises `BadExport` with the file and the key, or `OSError`."""
    if not (path / "config.json").is_file():
        raise BadExport(str(path), "", "the folder is not a checkpoint: it has no config.json")
    config = read_source_config(read_json(path / "config.json", "config.json"))
    return Checkpoint(path, config, read_tensors(path))


def read_tensors(path: Path) -> dict[str, TensorEntry]:
    """The tensors of all safetensors files of a folder. Raises `BadExport` if a shard or a tensor is missing."""
    if (path / _INDEX).is_file():
        return _sharded(path)
    files = [path / _SINGLE] if (path / _SINGLE).is_file() else sorted(path.glob("*.safetensors"))
    if not files:
        others = sorted(file.name for file in path.glob("*.bin"))
        hint = f"; {others[0]} is a pickle, save it as safetensors" if others else ""
        raise BadExport(str(path), "", f"the folder has no .safetensors file{hint}")
    return {name: entry for file in files for name, entry in read_entries(file).items()}


def _sharded(path: Path) -> dict[str, TensorEntry]:
    index = read_json(path / _INDEX, _INDEX)
    places = index.member("weight_map")
    if not places.values:
        raise index.fault("weight_map", "it names no tensor")
    shards: dict[str, dict[str, TensorEntry]] = {}
    for name in places.values:
        file = places.text(name)
        if "/" in file or not (path / file).is_file():
            raise places.fault(name, f"the shard {file} is missing")
        if file not in shards:
            shards[file] = read_entries(path / file)
        if name not in shards[file]:
            raise places.fault(name, f"the shard {file} does not hold it")
    return {name: shards[places.text(name)][name] for name in places.values}


@dataclass(frozen=True)
class GptqLayer:
    """A linear layer of a GPTQ checkpoint: codes [outputs, inputs], scales and zero points [outputs, groups].

    `groups` is the group of each input; `is_ordered`: inputs of a group follow each other, as exporters assume.
    """

    bits: int
    codes: npt.NDArray[np.uint8]
    scales: Floats
    zeros: Floats
    groups: npt.NDArray[np.int64]
    is_ordered: bool

    def decoded(self) -> Floats:
        """The weights, shape [outputs, inputs]: (code - zero) * scale of the input's group."""
        values: Floats = (self.codes - self.zeros[:, self.groups]) * self.scales[:, self.groups]
        return values


def read_gptq_layer(checkpoint: Checkpoint, stem: str) -> GptqLayer:
    """The layer `stem` (without `.qweight`). Raises `BadExport` if its tensors do not fit each other."""
    words = checkpoint.integers(f"{stem}.qweight").astype(np.uint32)
    scales = checkpoint.rows(f"{stem}.scales").T
    inputs_of_word, outputs = words.shape
    bits = checkpoint.config.gptq_bits or 4
    per = 32 // bits
    inputs = inputs_of_word * per
    if bits not in (2, 4, 8) or scales.shape[0] != outputs or inputs % scales.shape[1]:
        shapes = f"qweight {words.shape} and scales {scales.T.shape} are not those of one layer in {bits} bits"
        raise BadExport(checkpoint.tensors[f"{stem}.qweight"].file, stem, shapes)
    codes = _unpack(words, bits).reshape(inputs, outputs).T
    uniform = np.arange(inputs) // (inputs // scales.shape[1])
    groups = checkpoint.integers(f"{stem}.g_idx") if f"{stem}.g_idx" in checkpoint.tensors else uniform
    if groups.shape != (inputs,) or groups.min() < 0 or groups.max() >= scales.shape[1]:
        raise BadExport(
            checkpoint.tensors[f"{stem}.g_idx"].file, stem, f"g_idx has no group for each of {inputs} inputs"
        )
    zeros = np.full_like(scales, 1 << bits - 1)
    if f"{stem}.qzeros" in checkpoint.tensors:
        packed = checkpoint.integers(f"{stem}.qzeros").astype(np.uint32)
        unpacked = _unpack(packed.T, bits).reshape(-1, packed.shape[0])[:outputs]
        if unpacked.shape != scales.shape:
            raise BadExport(checkpoint.tensors[f"{stem}.qzeros"].file, stem, "qzeros does not fit scales")
        zeros = unpacked.astype(np.float32) + 1
    return GptqLayer(bits, np.ascontiguousarray(codes), scales, zeros, groups, bool((groups == uniform).all()))


def _unpack(words: npt.NDArray[np.uint32], bits: int) -> npt.NDArray[np.uint8]:
    """Codes along a new second axis, the lowest bits first, shape [words, 32 / bits, ...]."""
    shifts = np.arange(0, 32, bits, dtype=np.uint32).reshape(1, -1, *([1] * (words.ndim - 1)))
    codes: npt.NDArray[np.uint8] = (words[:, None] >> shifts & np.uint32((1 << bits) - 1)).astype(np.uint8)
    return codes
