"""What MNN can compute and store; recipes respect these limits."""

from __future__ import annotations

from fnmatch import fnmatchcase

from pytest_mnnquant.mnnfile.model import Model, Op

_INT8_KINDS = ("Convolution", "ConvolutionDepthwise")


def can_compute(op: Op) -> bool:
    """Whether MNN can run this layer in int8 (with float weights or not), and its tensors can be observed.

    Layers in the bodies of loops are not counted: MNN gives no trace of them (see `recurrent` for those of LSTMs).
    """
    return op.kind in _INT8_KINDS and len(op.inputs) == 1 and not op.subgraph


def can_observe(op: Op) -> bool:
    """Whether a run of MNN exposes the first input and the output of this layer: a convolution outside of loops.

    Further inputs are allowed: a ConvTranspose with a fixed output size has that size as its second input.
    """
    return bool(op.is_convolution and op.inputs and op.outputs and not op.subgraph)


def int8_layers(model: Model) -> tuple[Op, ...]:
    """The layers that MNN can run in int8: convolutions and Linear layers of the main graph with float weights."""
    return tuple(op for op in model.convolutions if can_compute(op))


def can_block(shape: tuple[int, ...], group: int, block: int) -> bool:
    """Whether MNN can store one scale per `block` weights of a convolution.

    It does so for 1x1 kernels (Linear layers) if the block is a multiple of 16 and divides the input channels
    (tools/converter/source/common/WeightQuantAndCoding.cpp). For other layers it silently uses one scale per channel.
    """
    if len(shape) != 4 or shape[2:] != (1, 1) or group != 1:
        return False
    return shape[1] % block == 0 and shape[1] > block and block % 16 == 0


def is_skipped(op: Op, patterns: tuple[str, ...], module: str = "") -> bool:
    """Whether the user keeps this layer float: a glob matches its name, its output tensor or its module."""
    names = (op.name, *op.output_names, *((module,) if module else ()))
    return any(fnmatchcase(name, pattern) for pattern in patterns for name in names)
