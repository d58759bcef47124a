"""A third list of changes of exports, made after the checks were finished, of kinds that are in neither other list."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
from llm_blind import TABLE, UW4, W4, Bytes, edit, jinja, pairs, runs, stored, text_change
from llm_faults import WEIGHTS, Change, change_json, take

from pytest_mnnquant.llm.extents import Extent
from pytest_mnnquant.llm.folder import read_folder
from pytest_mnnquant.llm.matrix import StoredMatrix
from pytest_mnnquant.llm.tokenizer import read_tokenizer

_OTHER_TEMPLATE: Final = (
    "{% for message in messages %}{{ '[INST] ' + message['content'] + ' [/INST]' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '' }}{% endif %}"
)


def _one_minimum(matrix: StoredMatrix, parts: dict[str, Bytes]) -> None:
    """The zero point of one block of one row is off by one step."""
    row = pairs(matrix, parts)[7, 0]
    row[0] += row[1]


def _zero_row(matrix: StoredMatrix, parts: dict[str, Bytes]) -> None:
    pairs(matrix, parts)[1500] = 0


def _not_a_number(matrix: StoredMatrix, parts: dict[str, Bytes]) -> None:
    pairs(matrix, parts)[3, 0, 1] = np.nan


def _order_of_heads(matrix: StoredMatrix, parts: dict[str, Bytes]) -> None:
    for kind, values in parts.items():
        if len(values):
            rows = parts[kind].reshape(matrix.rows, -1)
            rows[:] = np.roll(rows, matrix.rows // 2, axis=0)


def _interleaved(matrix: StoredMatrix, parts: dict[str, Bytes]) -> None:
    """The rows of each head in the order of other frameworks: pairs beside each other instead of two halves."""
    order = np.arange(matrix.rows).reshape(-1, 2, 16).swapaxes(1, 2).ravel()
    for kind, values in parts.items():
        if len(values):
            rows = parts[kind].reshape(matrix.rows, -1)
            rows[:] = rows[order]


def _every(names: tuple[str, ...], change: Callable[[StoredMatrix, dict[str, Bytes]], None]) -> Change:
    def apply(folder: Path) -> None:
        for name in names:
            runs(name, change)(folder)

    return apply


def _biases_exchanged(folder: Path) -> None:
    _exchange_runs(
        folder, stored(folder, "/layers.0/self_attn/k_proj").bias, stored(folder, "/layers.1/self_attn/k_").bias
    )


def _exchange_runs(folder: Path, first: Extent, second: Extent) -> None:
    data = np.frombuffer((folder / WEIGHTS).read_bytes(), np.uint8).copy()
    old = data.copy()
    data[first.offset : first.end], data[second.offset : second.end] = (
        old[second.offset : second.end],
        old[first.offset : first.end],
    )
    (folder / WEIGHTS).write_bytes(data.tobytes())


def _pages_exchanged(folder: Path) -> None:
    """Two pages of the file have changed their places, as after a download in pieces."""
    _exchange_runs(folder, Extent(40_960, 4096), Extent(204_800, 4096))


def _norms_exchanged(folder: Path) -> None:
    """The norms of queries and keys of a layer."""
    vectors = {vector.name: vector.values.astype("<f4").tobytes() for vector in read_folder(folder).graph.vectors}
    first, second = (
        next(values for name, values in vectors.items() if f"blocks.0/self_attn/{kind}_norm" in name) for kind in "qk"
    )
    for file in (WEIGHTS, "llm.mnn"):
        data = (folder / file).read_bytes()
        if first in data:
            mark = bytes(len(first))
            data = data.replace(first, b"\xa5" * len(mark)).replace(second, first).replace(b"\xa5" * len(mark), second)
            (folder / file).write_bytes(data)


def _rare_tokens(data: Bytes) -> None:
    rows = data.reshape(2048, -1)
    rows[1900:] = np.roll(rows[1900:], 5, axis=0)


def _fewer_digits(data: Bytes) -> None:
    data.view("<u2")[:] &= 0xFFF0


def _other_training(data: Bytes) -> None:
    values = (data.view("<u2").astype(np.uint32) << 16).view(np.float32) * 1.01
    data.view("<u2")[:] = (values.view(np.uint32) >> 16).astype(np.uint16)


def _merges_reordered(folder: Path) -> None:
    """Two merges have exchanged their ranks."""
    path = folder / "tokenizer.mtok"
    data, merges = path.read_bytes(), read_tokenizer(path).merges
    first, second = (struct.pack("<II", *merges[rank]) for rank in (3, 900))
    if data.count(first) != 1 or data.count(second) != 1:
        raise ValueError("the merges are not found")
    mark = b"\xff" * 8
    path.write_bytes(data.replace(first, mark).replace(second, first).replace(mark, second))


def _more_stops(folder: Path) -> None:
    """A frequent token ends texts."""
    data = (folder / "tokenizer.mtok").read_bytes()
    (folder / "tokenizer.mtok").write_bytes(data.replace(b"\n3 1 0\n0 2 1 2\n", b"\n3 2 0\n0 2 1 2 262\n", 1))


def keys(file: str, **values: Any) -> Change:
    """Set keys of a JSON file; None takes a key out."""
    return lambda folder: change_json(folder / file, **values)


def _tied_block(folder: Path) -> None:
    place = json.loads((folder / "llm_config.json").read_text(encoding="utf-8"))["tie_embeddings"]
    change_json(folder / "llm_config.json", tie_embeddings={**place, "quant_block": 2 * place["quant_block"]})


_QK: Final = tuple(f"/layers.{layer}/self_attn/{kind}_proj" for layer in range(3) for kind in "qk")
CHANGES: Final[dict[str, tuple[str, Change]]] = {
    "zero point of one block + 1 step": (W4, runs("/layers.2/mlp/gate_proj", _one_minimum)),
    "a row of the head is zero": (UW4, runs("/lm/lm_head", _zero_row)),
    "a scale is not a number": (W4, runs("/layers.0/mlp/down_proj", _not_a_number)),
    "heads of keys and values exchanged": (
        W4,
        _every(("/layers.1/self_attn/k_", "/layers.1/self_attn/v_"), _order_of_heads),
    ),
    "rows of q and k interleaved": (UW4, _every(_QK, _interleaved)),
    "biases of two layers exchanged": (W4, _biases_exchanged),
    "two pages exchanged": (W4, _pages_exchanged),
    "norms of q and k exchanged": (UW4, _norms_exchanged),
    "rows of rare tokens moved": (UW4, edit(TABLE, _rare_tokens)),
    "4 digits of the embedding cut": (UW4, edit(TABLE, _fewer_digits)),
    "embedding of another training": (UW4, edit(TABLE, _other_training)),
    "blocks of 64 read as blocks of 32": ("tied-b32-361", take(WEIGHTS, "tied-scale32-361")),
    "merges reordered": (W4, _merges_reordered),
    "a frequent token ends texts": (W4, _more_stops),
    "template of another model": (W4, jinja(chat_template=_OTHER_TEMPLATE)),
    "block of tie_embeddings doubled": (W4, _tied_block),
    "every text begins with a token": (W4, text_change("tokenizer.mtok", "\n3 1 0\n0 2 1 2\n", "\n3 1 1\n0 2 1 2 0\n")),
}
