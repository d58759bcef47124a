"""What MNN can compute and store: the limits that recipes respect."""

from __future__ import annotations

from fnmatch import fnmatchcase

from pytest_mnnquant.mnnfile.model import Model, Op

_INT8_KINDS = ("Convolution", "ConvolutionDepthwise")


def can_compute(op: Op) -> bool:
    """Whether MNN can run this layer in int8 (with float weights or not), and its tensors can be watched.

    Layers in the bodies of loops are not counted: MNN gives no trace of them (see `recurrent` for those of LSTMs).
    """
    return op.kind in _INT8_KINDS and len(op.inputs) == 1 and not op.subgraph


def can_observe(op: Op) -> bool:
    """Whether a run of MNN shows the first input and the output of this layer: a convolution outside of loops.

    Other inputs do not matter: a ConvTranspose with a fixed output size takes that size as a second one.
    """
    return bool(op.is_convolution and op.inputs and op.outputs and not op.subgraph)


def int8_layers(model: Model) -> tuple[Op, ...]:
    """The layers that MNN can run in int8: convolutions and Linear layers of the main graph with float weights."""
    return tuple(op for op in model.convolutions if can_compute(op))


def can_block(shape: tuple[int, ...], group: int, block: int) -> bool:
    """Whether MNN can give each `block` weights of a convolution a scale of their own.

    It does so for 1x1 kernels (Linear layers) whose input channels the block divides, in multiples of 16
    (tools/converter/source/common/WeightQuantAndCoding.cpp); elsewhere it takes one scale a channel and says nothing.
    """
    if len(shape) != 4 or shape[2:] != (1, 1) or group != 1:
        return False
    return shape[1] % block == 0 and shape[1] > block and block % 16 == 0


def is_skipped(op: Op, patterns: tuple[str, ...], module: str = "") -> bool:
    """Whether the user meant this layer to stay float: a glob matches its name, its output tensor or its module."""
    names = (op.name, *op.output_names, *((module,) if module else ()))
    return any(fnmatchcase(name, pattern) for pattern in patterns for name in names)
