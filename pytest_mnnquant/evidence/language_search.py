"""Where the accuracy of an export was lost, and which other form of its weights would keep it, by numpy alone."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Final

import numpy as np

from pytest_mnnquant.evidence.language_runs import LanguageRuns
from pytest_mnnquant.findings.accuracy_metrics import TriedMetrics
from pytest_mnnquant.findings.language_metrics import BlamedLayer
from pytest_mnnquant.llm.architecture import UnknownArchitecture
from pytest_mnnquant.llm.blame import blame
from pytest_mnnquant.llm.forward import HEAD, Network
from pytest_mnnquant.llm.json_object import BadExport
from pytest_mnnquant.llm.options import ExportOptions, LayerRequest
from pytest_mnnquant.llm.requantized import RequantizedTensors
from pytest_mnnquant.llm.tensors import EMBEDDING
from pytest_mnnquant.metrics.divergence import divergence

_SECONDS: Final = 20.0
_KEPT: Final = 8
#: Bits of a weight and its share of a scale, for the size of a form.
_FLOAT_BITS: Final = 32


def blamed_layers(runs: LanguageRuns) -> tuple[BlamedLayer, ...]:
    """The layers that cost most, largest first; empty if they can't be computed."""
    if not runs.evidence.source.has_values:
        return ()
    try:
        found = blame(runs.source_network, runs.stored_network.tensors, runs.run.ids[:1], _SECONDS)
    except (UnknownArchitecture, BadExport):
        return ()
    return tuple(BlamedLayer(item.name, item.kl) for item in found[:_KEPT])


def tried_forms(runs: LanguageRuns, limit: float) -> tuple[TriedMetrics, ...]:
    """Other options of the exporter, tried on the source's weights until one keeps the limit."""
    options = runs.folder.options
    if options is None or not runs.evidence.source.has_values:
        return ()
    tried: list[TriedMetrics] = []
    for words, changed in _proposals(options):
        try:
            kl = _kl_of(runs, changed)
        except (UnknownArchitecture, BadExport):
            return tuple(tried)
        figure = f"KL divergence {kl:.3g} of the rounded weights"
        size = _FLOAT_BITS / _bits_per_weight(changed)
        tried.append(TriedMetrics(words, kl <= limit, figure, -kl, size, 0.0))
        if tried[-1].passes:
            break
    return tuple(tried)


def _proposals(options: ExportOptions) -> Iterator[tuple[tuple[str, ...], ExportOptions]]:
    """Options that lose less, from the smallest change to the largest."""
    if options.symmetric:
        yield ("without --sym",), dataclasses.replace(options, symmetric=False)
    if options.lm_quant_bit < 8:
        yield ("--lm_quant_bit 8",), dataclasses.replace(options, lm_quant_bit=8)
    if options.quant_block == 0 or options.quant_block > 32:
        yield ("--quant_block 32",), dataclasses.replace(options, quant_block=32, lm_quant_block=32)
    for bits in (4, 8):
        if options.quant_bit < bits:
            words = (f"--quant_bit {bits}", *(() if bits == 8 else ("--lm_quant_bit 8",)))
            yield words, dataclasses.replace(options, quant_bit=bits, lm_quant_bit=8)


def _kl_of(runs: LanguageRuns, options: ExportOptions) -> float:
    """KL divergence of the source's weights, rounded as the options say, on the first texts."""
    ids = runs.run.ids[:4]
    layers = LayerRequest(options.quant_bit, options.quant_block, options.symmetric)
    requests = {HEAD: LayerRequest(options.lm_quant_bit, options.lm_quant_block, options.symmetric)}
    if options.embedding_bits < 16:
        requests[EMBEDDING] = LayerRequest(options.embedding_bits, options.quant_block, options.symmetric)
    source = runs.source_network
    tensors = RequantizedTensors(source.tensors, requests, layers, is_tied=runs.folder.is_tied)
    out = np.empty((*ids.shape, source.tensors.rows(HEAD)), np.float32)
    Network(source.architecture, tensors).logits(ids, out)
    return float(divergence(ids, runs.source[: len(ids)], out).kl.mean())


def _bits_per_weight(options: ExportOptions) -> float:
    values = 1 if options.symmetric else 2
    return options.quant_bit + values * options.scale_bits / (options.quant_block or 1024)
