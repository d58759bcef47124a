"""The arguments of llmexport that are refused: the exporter ignores them, or makes a model that computes garbage.

Measured with llmexport 0.0.5 and the exporter of MNN 3.6.1.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pytest_mnnquant.llm.checkpoint import Checkpoint
from pytest_mnnquant.llm.json_object import BadExport, read_json
from pytest_mnnquant.llm.requests import stored_block

#: Switches, which have no value.
_SWITCHES: Final = frozenset(
    {
        *("verbose", "onnx_slim", "ppl", "awq", "hqq", "omni", "transformer_fuse", "group_conv_native", "smooth"),
        *("sym", "visual_sym", "seperate_embed", "lora_split", "act_sym", "generate_for_npu", "skip_weight"),
        "omni_sym",
    }
)
#: Options with a value that are read here, or that the export is judged by.
_JUDGED: Final = frozenset(
    {
        *("path", "dst_path", "export", "type", "calib_data", "gptq_path", "quant_config", "tokenizer_path"),
        *("quant_bit", "quant_block", "lm_quant_bit", "lm_quant_block", "embed_bit", "act_bit", "scale_bit"),
        *("visual_quant_bit", "visual_quant_block", "lora_path"),
    }
)
_LAYER: Final = re.compile(r"/layers\.\d+/.+/Linear|/?lm/lm_head/Linear")


@dataclass(frozen=True)
class Arguments:
    """The arguments by name, without dashes; switches have the value "true". `has_scale_bit`: the exporter knows it."""

    values: Mapping[str, str]
    has_scale_bit: bool

    def number(self, name: str, default: int) -> int:
        """A whole number; the default if it is missing or is not a number, which the exporter refuses itself."""
        try:
            return int(self.values.get(name, default))
        except ValueError:
            return default

    @property
    def output(self) -> Path:
        """The folder that the exporter writes."""
        return Path(self.values.get("dst_path", "./model"))


def read_arguments(words: Sequence[str], *, has_scale_bit: bool) -> Arguments:
    """The arguments of a command line, as argparse reads it."""
    values: dict[str, str] = {}
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if not word.startswith("--"):
            continue
        name, equals, value = word[2:].partition("=")
        if not equals:
            value = "true" if name in _SWITCHES or not rest or rest[0].startswith("--") else rest.pop(0)
        values[name] = value
    return Arguments(values, has_scale_bit)


def refusals(given: Arguments, source: Checkpoint) -> list[str]:
    """One line per argument that must not be used with this source."""
    return [line for rule in _RULES for line in rule(given, source)]


def _abbreviated(given: Arguments, source: Checkpoint) -> Iterator[str]:
    """Argparse takes `--quant_bl` for --quant_block."""
    known = _JUDGED | _SWITCHES
    for name in sorted(given.values.keys() - known):
        full = sorted(option for option in known if name and option.startswith(name))
        if full:
            yield f"--{name}: abbreviations are not judged; write {' or '.join('--' + option for option in full)}"


def _form(given: Arguments, source: Checkpoint) -> Iterator[str]:
    if given.values.get("export", "mnn") != "mnn":
        yield f"--export {given.values['export']}: only exports for MNN are judged; give --export mnn"
    if "skip_weight" in given.values:
        yield "--skip_weight: the exporter writes room for weights and no weights; remove it"


def _ignored(given: Arguments, source: Checkpoint) -> Iterator[str]:
    scales = {"awq", "smooth", "omni"} & given.values.keys()
    for name in ("act_bit", "act_sym"):
        if name in given.values and not {"smooth", "omni"} & scales:
            yield f"--{name}: the exporter reads it only with --smooth or --omni; remove it"
    if "calib_data" in given.values and not scales:
        yield "--calib_data: the exporter reads it only with --awq, --smooth or --omni; remove it"
    for name in ("type", "ppl"):
        if name in given.values:
            yield f"--{name}: the exporter does not read it; remove it"
    if given.number("embed_bit", 16) < 16 and _shares_embedding(given, source):
        yield "--embed_bit: ignored, since the embedding is tied to the head; add --seperate_embed, or remove it"


def _blocks(given: Arguments, source: Checkpoint) -> Iterator[str]:
    config = source.config
    widths = [width for width in (config.hidden_size, config.heads * config.head_size, config.inner_size) if width > 0]
    for name in ("quant_block", "lm_quant_block"):
        block = given.number(name, 64)
        inputs = widths if name == "quant_block" else widths[:1]
        smallest = min(inputs, default=0)
        if block > smallest > 0:
            fix = f"give --{name} {stored_block(64, smallest)}"
            yield f"--{name} {block}: larger than a layer of {smallest} inputs, whose scales are then garbage; {fix}"
        elif name in given.values and block > 0 and (wrong := next((width for width in inputs if width % block), 0)):
            best = max(min(stored_block(size, width) for width in inputs) for size in (block, 64))
            yield f"--{name} {block}: does not divide {wrong} inputs; give --{name} {best}"


def _tied(given: Arguments, source: Checkpoint) -> Iterator[str]:
    bits = given.number("lm_quant_bit", given.number("quant_bit", 4))
    if bits in (1, 2, 3) and _shares_embedding(given, source):
        yield (
            f"{bits} bits for the head: MNN up to 3.6.1 reads a tied embedding of {bits} bits as 4 bits; "
            "give --lm_quant_bit 4 (or 8), or --seperate_embed"
        )


def _shares_embedding(given: Arguments, source: Checkpoint) -> bool:
    return source.config.tied and "seperate_embed" not in given.values


def _gptq(given: Arguments, source: Checkpoint) -> Iterator[str]:
    name = given.values.get("gptq_path")
    if name is None:
        return
    if not any(Path(name).glob("*.safetensors")):
        yield f"--gptq_path {name}: no .safetensors file is there, so the exporter rounds the weights itself"
    elif given.has_scale_bit and given.number("scale_bit", 16) != 32:
        yield "--gptq_path: its scales are written over those of 16 bits, which are then garbage; add --scale_bit 32"


def _by_layer(given: Arguments, source: Checkpoint) -> Iterator[str]:
    name = given.values.get("quant_config")
    if name is None:
        return
    try:
        names = list(read_json(Path(name), name).values)
    except (BadExport, OSError) as error:
        yield f"--quant_config: {error}"
        return
    for layer in names:
        if not _LAYER.fullmatch(layer):
            yield f"--quant_config: {json.dumps(layer)} is not the name of a layer, like /layers.0/mlp/down_proj/Linear"


_RULES: Final[tuple[Callable[[Arguments, Checkpoint], Iterator[str]], ...]] = (
    _abbreviated,
    _form,
    _ignored,
    _blocks,
    _tied,
    _gptq,
    _by_layer,
)
