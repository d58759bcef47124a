"""What an export was requested to be: the options of the exporter, as it writes them into `export_args.json`.

Exporters of MNN 3.3 and later write that file. `scale_bit` exists from 3.6 on; earlier ones store 32-bit scales.
"""

from __future__ import annotations

from dataclasses import dataclass

from pytest_mnnquant.llm.json_object import JsonObject

_KNOWN_BITS = range(1, 33)


@dataclass(frozen=True)
class ExportOptions:
    """The options that decide what is stored. A block of 0 means one scale per channel."""

    quant_bit: int
    quant_block: int
    lm_quant_bit: int
    lm_quant_block: int
    symmetric: bool
    scale_bits: int
    embedding_bits: int
    separate_embedding: bool
    tied: bool
    hqq: bool
    awq: bool
    smooth: bool
    omni: bool
    skip_weight: bool
    gptq_path: str
    quant_config: str
    lora_path: str
    lora_split: bool
    act_bit: int
    act_symmetric: bool
    calibration_data: str
    visual_bits: int | None
    visual_block: int | None
    model_type: str
    source: str
    perplexity: bool

    @property
    def scales_weights(self) -> bool:
        """Whether the exporter multiplies weights and norms by each other before it quantizes them."""
        return self.awq or self.smooth or self.omni

    @property
    def merges_lora(self) -> bool:
        """Whether the weights are the source's plus those of an adapter."""
        return bool(self.lora_path) and not self.lora_split


def read_options(values: JsonObject) -> ExportOptions:
    """The options in an `export_args.json`. Raises `BadExport` for a value of another type."""
    bits, block = _bits(values, "quant_bit", 4), _block(values, "quant_block", 64)
    return ExportOptions(
        quant_bit=bits,
        quant_block=block,
        lm_quant_bit=_bits(values, "lm_quant_bit", bits),
        lm_quant_block=_block(values, "lm_quant_block", block),
        symmetric=values.flag("sym"),
        scale_bits=values.integer("scale_bit", 32),
        embedding_bits=_bits(values, "embed_bit", 16),
        separate_embedding=values.flag("seperate_embed"),
        tied=values.flag("tie_word_embeddings"),
        hqq=values.flag("hqq"),
        awq=values.flag("awq"),
        smooth=values.flag("smooth"),
        omni=values.flag("omni"),
        skip_weight=values.flag("skip_weight"),
        gptq_path=values.text("gptq_path"),
        quant_config=values.text("quant_config"),
        lora_path=values.text("lora_path"),
        lora_split=values.flag("lora_split"),
        act_bit=values.integer("act_bit", 16),
        act_symmetric=values.flag("act_sym"),
        calibration_data=values.text("calib_data"),
        visual_bits=_bits(values, "visual_quant_bit", 4) if values.has("visual_quant_bit") else None,
        visual_block=_block(values, "visual_quant_block", 0) if values.has("visual_quant_block") else None,
        model_type=values.text("type"),
        source=values.text("path"),
        perplexity=values.flag("ppl"),
    )


def _bits(values: JsonObject, key: str, default: int) -> int:
    bits = values.integer(key, default)
    if bits not in _KNOWN_BITS:
        raise values.fault(key, f"{bits} is not a number of bits")
    return bits


def _block(values: JsonObject, key: str, default: int) -> int:
    block = values.integer(key, default)
    if block < 0:
        raise values.fault(key, f"{block} is not a block size")
    return block


@dataclass(frozen=True)
class LayerRequest:
    """How one matrix is requested to be stored. 16 bits are float16; a block of 0 is one scale per channel."""

    bits: int
    block: int
    symmetric: bool


def read_quant_config(values: JsonObject, options: ExportOptions) -> dict[str, LayerRequest]:
    """The requests of a `--quant_config` file, by the name of the layer. Raises `BadExport`."""
    requests = {}
    for name in values.values:
        entry = values.member(name)
        is_head = "lm_head" in name
        requests[name] = LayerRequest(
            _bits(entry, "bits", options.lm_quant_bit if is_head else options.quant_bit),
            _block(entry, "block_size", options.lm_quant_block if is_head else options.quant_block),
            entry.flag("symmetric", options.symmetric),
        )
    return requests
