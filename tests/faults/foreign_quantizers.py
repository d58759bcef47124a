"""ONNX models that other tools quantized or narrowed, made by ONNX Runtime's own tools.

python foreign_quantizers.py KIND FLOAT.onnx OUTPUT.onnx [DATA.npz]
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnxruntime import quantization


class Images(quantization.CalibrationDataReader):  # type: ignore[misc]
    """The calibration images, one by one."""

    def __init__(self, path: str) -> None:
        self._images: Iterator[Any] = iter(np.load(path)["x"][:32])

    def get_next(self) -> dict[str, Any] | None:
        """The next input, None at the end."""
        image = next(self._images, None)
        return None if image is None else {"x": image[None]}


def main(kind: str, source: str, output: str, data: str = "") -> None:
    """Write one file."""
    if kind == "half":
        from onnxruntime.transformers.float16 import convert_float_to_float16

        onnx.save(convert_float_to_float16(onnx.load(source), keep_io_types=True), output)
    elif kind == "dynamic":
        quantization.quantize_dynamic(source, output)
    else:
        form = quantization.QuantFormat.QDQ if kind.startswith("qdq") else quantization.QuantFormat.QOperator
        types = {"activation_type": quantization.QuantType.QInt8, "weight_type": quantization.QuantType.QInt8}
        which = {"op_types_to_quantize": ["Conv"]} if kind.endswith("convolutions") else {}
        quantization.quantize_static(source, output, Images(data), quant_format=form, **which, **types)
    assert Path(output).exists()


if __name__ == "__main__":
    main(*sys.argv[1:])
