"""The embedding of an export as the runtime reads it (transformers/llm/engine/src/diskembedding.cpp).

A row of codes has hidden_size * bits / 8 bytes, a row of scales hidden_size / block entries. Scales are taken for
[minimum, scale] pairs unless their number is that of symmetric weights.
"""

from __future__ import annotations

from typing import Final

from pytest_mnnquant.llm.config import ExportConfig, TiedPlace
from pytest_mnnquant.llm.extents import Extent
from pytest_mnnquant.llm.matrix import Form, StoredMatrix

NAME: Final = "embedding"


def read_embedding(config: ExportConfig, sizes: dict[str, int]) -> StoredMatrix | None:
    """The embedding; None if its file is missing or the width of the model is unknown.

    `sizes` has the length in bytes of each file of the folder.
    """
    tied, hidden = config.tied, config.hidden_size
    file = config.file("llm_weight" if tied is not None and tied.weight_offset else "embedding_file")
    if file not in sizes or hidden <= 0:
        return None
    if tied is not None:
        return _at_place(tied, file, hidden)
    size = sizes[file]
    rows = size // (2 * hidden)
    fault = "" if size == rows * 2 * hidden else f"{size:,} bytes are not whole rows of {hidden} 16-bit numbers"
    return StoredMatrix(NAME, file, Form.BFLOAT16, rows, hidden, 16, Extent(0, size, NAME, "bfloat16"), fault=fault)


def _at_place(tied: TiedPlace, file: str, hidden: int) -> StoredMatrix:
    length = tied.alpha_offset - tied.weight_offset
    rows = max(0, length) * 8 // (tied.bits * hidden)
    codes = Extent(tied.weight_offset, max(0, length), NAME, f"w{tied.bits}" if tied.bits < 16 else "float16")
    if tied.bits == 16:
        return StoredMatrix(
            NAME, file, Form.FLOAT16, rows, hidden, 16, codes, fault=_row_fault(rows, length, tied, hidden)
        )
    block = min(tied.block, hidden) or hidden
    blocks = hidden // (tied.block or hidden)
    values = tied.alpha_size // (tied.scale_bits // 8)
    symmetric = values == rows * blocks
    fault = _row_fault(rows, length, tied, hidden)
    if not fault and (not blocks or hidden % block):
        fault = f"its block of {tied.block} does not divide {hidden}"
    if not fault and values not in (rows * blocks, 2 * rows * blocks):
        fault = (
            f"{values:,} scale values of {tied.scale_bits} bits are not those of {rows:,} rows of {blocks} blocks: "
            f"{rows * blocks:,} (symmetric) or {2 * rows * blocks:,} are expected"
        )
    return StoredMatrix(
        NAME,
        file,
        Form.INTEGER,
        rows,
        hidden,
        tied.bits,
        codes,
        Extent(tied.alpha_offset, tied.alpha_size, NAME, "scales"),
        block=block,
        symmetric=symmetric,
        scale_bits=tied.scale_bits,
        fault=fault,
    )


def _row_fault(rows: int, length: int, tied: TiedPlace, hidden: int) -> str:
    if length > 0 and rows * hidden * tied.bits == 8 * length:
        return ""
    return f"{length:,} bytes of codes are not whole rows of {hidden} codes of {tied.bits} bits"
