"""How each matrix was requested to be stored: by the options of the exporter, or by a form that overrides them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pytest_mnnquant.llm.folder import ExportFolder
from pytest_mnnquant.llm.matrix import StoredMatrix
from pytest_mnnquant.llm.options import ExportOptions, LayerRequest


@dataclass(frozen=True, slots=True)
class RequestedForm:
    """What the user requests of all layers, beside the exporter's options; None: the options decide."""

    bits: int | None = None
    block: int | None = None
    symmetric: bool | None = None
    scale_bits: int | None = None
    hqq: bool = False


@dataclass(frozen=True)
class Requests:
    """The requests for all matrices of the language model, by name, and for the embedding.

    `scale_bits` is the width of scales and minima of layers; None if it is not known.
    """

    layers: Mapping[str, LayerRequest]
    embedding: LayerRequest | None
    scale_bits: int | None
    hqq: bool


def requests_of(
    folder: ExportFolder, by_layer: Mapping[str, LayerRequest] | None, form: RequestedForm | None = None
) -> Requests | None:
    """The requests; None if neither options nor a form are known.

    `by_layer` is the content of `--quant_config`, None if that can't be read: layers may then have any form.
    """
    options, form = folder.options, form or RequestedForm()
    if options is None and form.bits is None:
        return None
    layers = {
        matrix.name: _overridden(_own_request(matrix, by_layer) or _by_options(matrix, options), form)
        for matrix in folder.graph.matrices
    }
    scale_bits = options.scale_bits if options is not None else None
    return Requests(
        layers,
        _embedding(folder, layers),
        scale_bits if form.scale_bits is None else form.scale_bits,
        form.hqq or (options is not None and options.hqq),
    )


def _own_request(matrix: StoredMatrix, by_layer: Mapping[str, LayerRequest] | None) -> LayerRequest | None:
    if by_layer is None:
        return LayerRequest(matrix.bits, matrix.block, matrix.symmetric)
    return by_layer.get(matrix.name)


def _by_options(matrix: StoredMatrix, options: ExportOptions | None) -> LayerRequest:
    if options is None:
        return LayerRequest(matrix.bits, matrix.block, matrix.symmetric)
    if "lm_head" in matrix.name:
        return LayerRequest(options.lm_quant_bit, options.lm_quant_block, options.symmetric)
    return LayerRequest(options.quant_bit, options.quant_block, options.symmetric)


def _overridden(request: LayerRequest, form: RequestedForm) -> LayerRequest:
    return LayerRequest(
        request.bits if form.bits is None else form.bits,
        request.block if form.block is None else form.block,
        request.symmetric if form.symmetric is None else form.symmetric,
    )


def _embedding(folder: ExportFolder, layers: Mapping[str, LayerRequest]) -> LayerRequest | None:
    """A tied embedding is stored as the head is; another one as its options say, with the block of the layers."""
    options, head = folder.options, folder.graph.head
    if options is None or head is None:
        return None
    if options.embedding_bits < 16:
        return LayerRequest(options.embedding_bits, options.quant_block, options.symmetric)
    if options.tied or folder.is_tied:
        return layers[head.name]
    return LayerRequest(16, 0, False)


def stored_block(block: int, columns: int) -> int:
    """The block that exporters store for a requested one: halved until it divides the columns; 0 is a whole row."""
    size = block or columns
    while size > 1 and columns % size:
        size //= 2
    return size
