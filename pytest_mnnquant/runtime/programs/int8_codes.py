"""Locates the codes of an int8 tensor in MNN's memory, and overwrites them."""

from __future__ import annotations

from typing import Any, NamedTuple


class Int8Codes(NamedTuple):
    """The codes of a tensor: its memory, the position of each value's code, scale and zero point."""

    memory: Any
    order: Any
    scale: float
    zero: float

    def write(self, values: Any) -> None:
        """Write the codes of these values."""
        import numpy as np

        limits = np.iinfo(self.memory.dtype)
        self.memory[self.order] = np.clip(np.rint(values / self.scale + self.zero), limits.min, limits.max)


def starts_with_float(tensor: Any, value: float) -> bool:
    """Whether a tensor's memory starts with this value as a float, and not with codes."""
    import ctypes

    import numpy as np

    start = _address(tensor)
    if start is None:
        return False
    first = np.float32(ctypes.c_float.from_address(start).value)
    return bool(np.array_equal(first, np.float32(value), equal_nan=True))


def locate_int8_codes(tensor: Any, values: Any) -> Int8Codes | None:
    """The codes of a tensor with these `values`; None if its memory does not hold matching codes.

    Codes are signed, or offset by 128 on x86; the layout is NCHW or packed channels.
    """
    import ctypes

    import numpy as np

    start, span = _address(tensor), float(np.ptp(values)) if values.size else 0.0
    if start is None or not span > 0:
        return None
    for pack in (1, 4, 8, 16):
        order = packed_order(values.shape, pack)
        for kind in (ctypes.c_int8, ctypes.c_uint8):
            memory = np.ctypeslib.as_array((kind * (int(order.max()) + 1)).from_address(start))
            codes = memory[order].astype(np.float64)
            scale = span / max(np.ptp(codes), 1.0)
            zero = codes.min() - values.min() / scale
            if np.allclose(codes, values / scale + zero, rtol=0, atol=0.01):
                return Int8Codes(memory, order, scale, zero)
    return None


def _address(tensor: Any) -> int | None:
    import ctypes

    address = ctypes.pythonapi.PyCapsule_GetPointer
    address.restype, address.argtypes = ctypes.c_void_p, (ctypes.py_object, ctypes.c_char_p)
    start: int | None = address(tensor.getHost(), None)
    return start


def packed_order(shape: Any, pack: int) -> Any:
    """The position of each value in a tensor's memory, if MNN packs `pack` channels."""
    import numpy as np

    if pack == 1 or len(shape) < 2:
        return np.arange(int(np.prod(shape))).reshape(shape)
    samples, channels = shape[:2]
    area = int(np.prod(shape[2:]))
    blocks = -(-channels // pack)
    order = np.arange(blocks * samples * area * pack).reshape(blocks, samples, area, pack)
    return order.transpose(1, 0, 3, 2).reshape(samples, blocks * pack, area)[:, :channels].reshape(shape)
