"""The layers inside operators that converters after 3.6.1 fuse: FusedLinear (q, k, v or gate, up) and RoPE with norms.

FusedLinear (schema/default/MNN.fbs): 0 convs, 1 act_silu_mul, 2 has_ln, 3 ln. It carries the name of its first member.
Its outputs carry the names of the members, unless it multiplies gate and up itself. RoPEParam: 4 q_norm, 5 k_norm.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from pytest_mnnquant.mnnfile.flatbuffer import Table

_LAYER: Final = re.compile(r"/layers\.(\d+)/(self_attn|mlp)\b")
_NORMS: Final = {"self_attn": "input_layernorm", "mlp": "post_attention_layernorm"}


@dataclass(frozen=True, slots=True)
class Member:
    """A layer inside a fused operator: the kind of operator that it would be alone, its name and its parameters."""

    kind: str
    parameter_kind: str
    name: str
    parameters: Table


def fused_members(parameter_kind: str, name: str, outputs: tuple[str, ...], table: Table) -> Iterator[Member]:
    """The layers inside an operator, by the names they have in a graph that is not fused; none for other operators."""
    match = _LAYER.match(name)
    if parameter_kind == "RoPEParam":
        for slot, part in ((4, "q_norm"), (5, "k_norm")):
            norm = table.table(slot)
            if norm is not None:
                layer = f"/blocks.{match[1]}/self_attn" if match else name
                yield Member("LayerNorm", "LayerNorm", f"{layer}/{part}/FusedRoPE", norm)
    if parameter_kind != "FusedLinearParam":
        return
    is_product = bool(table.scalar(1, "u8"))
    for number, convolution in enumerate(table.tables(0)):
        if is_product:
            member = re.sub("(gate|up)_proj", ("gate_proj", "up_proj")[min(number, 1)], name)
        else:
            member = outputs[number] if number < len(outputs) else f"{name}/{number}"
        yield Member("Convolution", "Convolution2D", member, convolution)
    norm = table.table(3) if table.scalar(2, "u8") else None
    if norm is not None:
        layer = f"/blocks.{match[1]}/{_NORMS[match[2]]}" if match else name
        yield Member("LayerNorm", "LayerNorm", f"{layer}/FusedLinear", norm)
