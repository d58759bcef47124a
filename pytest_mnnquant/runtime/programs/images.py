"""Image files as the arrays that `mnnquant` would feed: the same calls as `Helper::preprocessInput` in MNN.

So the pixels are bit for bit equal (MNN's tools/quantization).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .batches import report_progress


class Unreadable(Exception):
    """An image can't be used."""


def images(job: dict[str, Any]) -> dict[str, Any]:
    """Write `images.npy`, float32 [n, c, h, w], with mnnquant's crop, resize, format and scaling.

    `reading.txt` holds the number of the image that MNN decodes.
    """
    import numpy as np

    process, count = image_process(job), len(job["files"])
    width, height = job["size"]
    shape = (count, len(job["mean"]), height, width)
    out = np.lib.format.open_memmap("images.npy", mode="w+", dtype=np.float32, shape=shape)
    for number, file in enumerate(job["files"]):
        report_progress(number, count, "images")
        Path("reading.txt").write_text(str(number), encoding="utf-8")  # A damaged image crashes MNN below.
        try:
            out[number] = resized(process, decoded(file, job["format"]), job["crop"], shape[1:])
        except Unreadable as error:
            return {"unreadable": number, "why": str(error)}
    out.flush()
    Path("reading.txt").unlink()
    return {}


def image_process(job: dict[str, Any]) -> Any:
    """MNN's image process, which takes RGBA."""
    import MNN

    kinds = {kind: getattr(MNN, f"CV_ImageFormat_{kind}") for kind in ("RGB", "BGR", "RGBA", "GRAY")}
    return MNN.CVImageProcess(
        {
            "filterType": MNN.CV_Filter_BILINEAL,
            "sourceFormat": kinds["RGBA"],
            "destFormat": kinds[job["format"]],
            "mean": tuple([*job["mean"], 0.0, 0.0, 0.0][:4]),
            "normal": tuple([*job["normal"], 1.0, 1.0, 1.0][:4]),
        }
    )


def decoded(file: str, kind: str) -> Any:
    """The pixels of an image file as RGBA, uint8 [h, w, 4]. Raises `Unreadable`."""
    import MNN
    import numpy as np

    if kind == "RGBA" and has_alpha(Path(file).read_bytes()):
        raise Unreadable("MNN's Python package can't read an alpha channel; save it as RGB")
    if file.lower().endswith(".webp"):
        return by_pillow(file)
    data = Path(file).read_bytes()
    # MNN fills what is missing of a BMP file with any values.
    if not MNN.cv.haveImageReader(file) or (data.startswith(b"BM") and int.from_bytes(data[2:6], "little") > len(data)):
        raise Unreadable("MNN can't decode this image")
    image = MNN.cv.imread(file)  # read() returns a view that is valid only as long as the variable.
    pixels = np.array(image.read()).copy()
    rows, columns = pixels.shape[:2]
    source = np.full((rows, columns, 4), 255, np.uint8)
    source[..., :3] = pixels[..., ::-1]
    return source


def by_pillow(file: str) -> Any:
    """The pixels of an image that MNN can't decode, as RGBA, without its alpha channel. Raises `Unreadable`."""
    import numpy as np
    from PIL import Image

    try:
        with Image.open(file) as image:
            pixels = np.asarray(image.convert("RGBA"))
    except (OSError, ValueError, SyntaxError) as error:
        raise Unreadable("Pillow can't decode this image") from error
    source = pixels.copy()
    source[..., 3] = 255
    return source


def resized(process: Any, source: Any, crop: Any, shape: Any) -> Any:
    """The center of an image, `crop` of its (width, height), as values of `shape` [c, h, w]. Raises `Unreadable`."""
    import MNN
    import numpy as np

    rows, columns = source.shape[:2]
    # A product of 32-bit floats, as in mnnquant.
    across, down = (int(size * np.float32(crop[side])) for side, size in enumerate((columns, rows)))
    if not across or not down:
        raise Unreadable(f"center_crop removes all of its {columns}x{rows} pixels")
    left, top = (columns - across) // 2, (rows - down) // 2
    right, bottom = left + across - 1, top + down - 1
    matrix = MNN.CVMatrix()
    matrix.setPolyToPoly(corners(0, 0, shape[2] - 1, shape[1] - 1), corners(left, top, right, bottom))
    process.setMatrix(matrix)
    empty = np.zeros((1, *shape), np.float32)
    tensor = MNN.Tensor(empty.shape, MNN.Halide_Type_Float, empty, MNN.Tensor_DimensionType_Caffe)
    # By address: for an array, MNN refuses an image that is smaller than the tensor.
    if process.convert(source.ctypes.data, columns, rows, 0, tensor) != 0:
        raise Unreadable("MNN can't resize this image")
    return np.array(tensor.getNumpyData()).reshape(shape)


def corners(left: int, top: int, right: int, bottom: int) -> list[float]:
    """A rectangle's corners in mnnquant's order."""
    return [float(value) for value in (left, top, left, bottom, right, top, right, bottom)]


def has_alpha(data: bytes) -> bool:
    """Whether an image file may contain transparency (PNG: from its colour type or a list of transparent colours)."""
    if data.startswith(b"\x89PNG"):
        return data[25:26] in (b"\x04", b"\x06") or b"tRNS" in data
    return data.startswith(b"BM") and data[28:29] == b"\x20"
