"""Damages real models and params files in every way a disk, a network or an editor can, and reads them.

python benchmarks/fuzz.py FOLDER [--models 50000] [--params 50000] [--seed 0]

Each case must give a model (whose weights are then decoded and whose bytes are accounted for) or params, or one
`BadModel` or `BadParams`, within 1 s of processor time and 200 MB. Anything else is kept in FOLDER/failures, and the
exit status is 1. FOLDER is a corpus (see corpus.py), made if it is missing.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import signal
import struct
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, Final

import numpy as np

from pytest_mnnquant.mnnfile.ledger import account
from pytest_mnnquant.mnnfile.model import BadModel, Model, read_model
from pytest_mnnquant.mnnfile.params import BadParams, Params, read_params

SECONDS: Final = 1.0
MEGABYTES: Final = 200
CHUNK: Final = 250
MODELS: Final = (
    *("cnn/w4b16", "conv1d/float", "conv1d/w8-ext", "conv1d/fp16", "conv1d/params", "conv1d/w4b16"),
    *("depthwise/w8", "norms/float", "norms/w8-ext", "lstm/w8", "lstm/origin", "gru/origin-fp16", "multi/fp16"),
    *("sparse/sparse", "sparse/sparse-ext", "sparse/sparse-w8", "sparse/sparse-w4b16", "sparse/sparse-w8-sym"),
    *("transformer/w8", "tflite/int8-ext", "grouped/native-w4", "cnn/w8-half-scales"),
)
PARAMS: Final = ("cnn/params", "conv1d/params", "transformer/params")
Edit = Callable[[random.Random, bytearray], None]


class TooSlow(BaseException):
    """Raised by the clock; not an `Exception`, so that nothing under test catches it."""


def _place(random: random.Random, data: bytearray, size: int) -> int:
    """An aligned place; half of the time near the start, where the tables' tables are."""
    end = max(1, len(data) - size)
    return random.randrange(min(end, 512) if random.random() < 0.3 else end) // size * size


def _flip(random: random.Random, data: bytearray) -> None:
    for _ in range(random.choice((1, 1, 2, 8))):
        data[random.randrange(len(data))] ^= 1 << random.randrange(8)


def _truncate(random: random.Random, data: bytearray) -> None:
    del data[random.randrange(len(data)) :]


def _splice(random: random.Random, data: bytearray) -> None:
    size = random.choice((1, 2, 4, 4, 4, 8, 64))
    source, target = _place(random, data, size), _place(random, data, size)
    data[target : target + size] = data[source : source + size]


def _drop(random: random.Random, data: bytearray) -> None:
    at = random.randrange(len(data))
    del data[at : at + random.choice((1, 2, 4, 16, 100))]


def _huge(random: random.Random, data: bytearray) -> None:
    kind, size, values = random.choice(
        (
            ("<I", 4, (0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0xFFFFFFF0, 0x40000000, 0x10000000, 0x7FC00000)),
            ("<H", 2, (0, 1, 2, 3, 4, 0x7FFF, 0xFFFF)),
            ("<q", 8, (-1, -(2**63), 2**63 - 1, 2**32, 2**40)),
        )
    )
    if len(data) >= size:
        struct.pack_into(kind, data, _place(random, data, size), random.choice(values))


def _redirect(random: random.Random, data: bytearray) -> None:
    """Point an offset at another table or vector, at itself, or backwards (a cycle)."""
    words = np.frombuffer(bytes(data[: len(data) // 4 * 4]), "<u4").astype(np.int64)
    places = np.arange(len(words)) * 4
    offsets = places[(words > 3) & (words < 1 << 20) & (places + words < len(data))]
    if len(offsets) < 2:
        return
    at, other = (int(offsets[random.randrange(len(offsets))]) for _ in range(2))
    target = random.choice((other, at, 0, other + int(words[other // 4]), random.randrange(len(data))))
    struct.pack_into("<I", data, at, (target - at) % (1 << 32))


_EDITS: Final[tuple[Edit, ...]] = (_flip, _truncate, _splice, _drop, _huge, _huge, _redirect, _redirect)
_TEXTS: Final = (b"{", b"}", b"[", b"]", b'"', b"null", b"1e999", b"NaN", b"-", b"9" * 40, b'"scales"', b"\xff", b",")


def _text(random: random.Random, data: bytearray) -> None:
    at = random.randrange(len(data))
    data[at : at + random.choice((0, 1, 4))] = random.choice(_TEXTS)


def damaged(random: random.Random, healthy: bytes, edits: tuple[Edit, ...] = _EDITS) -> bytes:
    """A copy with one to four kinds of damage."""
    data = bytearray(healthy)
    for _ in range(random.choice((1, 1, 2, 4))):
        if data:
            random.choice(edits)(random, data)
    return bytes(data)


def read_all(path: Path) -> str:
    """Read a model and ask it everything; returns which step refused it, or `model`."""
    try:
        model = read_model(path)
    except BadModel:
        return "refused"
    refused = sum(not _decodes(model, number) for number in range(len(model.ops)))
    _ = (model.layers, model.convolutions, [weights.label for op in model.ops for weights in op.weights])
    try:
        ledger = account(model)
    except BadModel:
        return "model, no ledger"
    if ledger.total != model.size or min(ledger.classes.values()) < 0:
        raise AssertionError(f"the ledger has {ledger.total} of {model.size} bytes: {ledger.classes}")
    return "model, weights refused" if refused else "model"


def _decodes(model: Model, number: int) -> bool:
    op = model.ops[number]
    outside = model.bytes_at(0, model.size - model.main_size, external=True)
    try:
        for weights in op.weights:
            weights.decoded(outside)
            weights.steps(outside)
    except BadModel:
        return False
    return True


def read_some(path: Path) -> str:
    """Read a params file."""
    try:
        params = read_params(path)
    except BadParams:
        return "refused"
    _ = (params.is_guide, params.renamed({}), [layer.name for layer in params.layers])
    return "params"


def as_json(params: Params) -> bytes:
    """The form that mnncompress writes beside the binary one."""

    def tensor(item: Any, **more: Any) -> list[dict[str, Any]]:
        return [{"name": item.name, "bits": item.bits, "clampMin": -127, "clampMax": 127, **more}] if item else []

    layers = [
        {
            "input": tensor(layer.input, scales=[layer.input.scale], zeroPoint=3) if layer.input else [],
            "weight": tensor(layer.weight, scales=list(layer.weight.scales)),
            "output": tensor(layer.output, scales=[layer.output.scale], zeroPoint=3) if layer.output else [],
        }
        for layer in params.layers
    ]
    algorithm = {"type": "QUANTIZE", "quantParams": {"roundMode": "HALF_AWAY", "layer": layers}}
    return json.dumps({"version": "0.0.0", "algo": [algorithm], "mnnUuid": params.uuid}).encode()


def run_chunk(task: tuple[str, Path, list[tuple[Path, bytes, bytes]], int, int]) -> tuple[Counter[str], float]:
    """Run the cases `start` to `stop` of one kind; returns what came out, and the longest time."""
    kind, folder, healthy, start, stop = task
    _limit()
    found: Counter[str] = Counter()
    longest = 0.0
    for number in range(start, stop):
        chance = random.Random(f"{kind}{number}")
        source, content, beside = healthy[number % len(healthy)]
        path = folder / f"{kind}-{start}{source.suffix}"
        edits = (*_EDITS, *(_text,) * 8) if source.suffix == ".json" else _EDITS
        path.unlink(missing_ok=True)  # The last one may still be mapped.
        path.write_bytes(damaged(chance, content, edits))
        if beside:
            part = damaged(chance, beside) if chance.random() < 0.2 else beside
            path.with_name(path.name + ".weight").write_bytes(part)
        began = time.process_time()
        try:
            signal.setitimer(signal.ITIMER_PROF, SECONDS)
            result = (read_all if kind == "model" else read_some)(path)
            signal.setitimer(signal.ITIMER_PROF, 0)
        except (Exception, TooSlow):
            signal.setitimer(signal.ITIMER_PROF, 0)
            result = "FAILED"
            kept = folder / "failures" / f"{kind}-{number}-{source.name}"
            kept.parent.mkdir(exist_ok=True)
            kept.write_bytes(path.read_bytes())
            kept.with_suffix(".txt").write_text(f"from {source}\n{traceback.format_exc()}")
        longest = max(longest, time.process_time() - began)
        found[result] += 1
        path.with_name(path.name + ".weight").unlink(missing_ok=True)
    path.unlink(missing_ok=True)
    return found, longest


def _limit() -> None:
    """Bound the address space to 200 MB more than now, and the time by a signal."""

    def stop(_number: int, _frame: object) -> None:
        raise TooSlow(f"no end after {SECONDS} s")

    signal.signal(signal.SIGPROF, stop)
    if resource.getrlimit(resource.RLIMIT_AS)[0] == resource.RLIM_INFINITY:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
        limit = pages * resource.getpagesize() + MEGABYTES * 1_000_000
        resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))


def _healthy(kind: str, folder: Path) -> list[tuple[Path, bytes, bytes]]:
    """(file, its bytes, the bytes of its `.mnn.weight`) of the files to damage."""
    if kind == "model":
        files = [folder / f"{name}.mnn" for name in MODELS]
    else:
        files = [folder / f"{name}.params.bin" for name in PARAMS]
        for path in files[:2]:
            text = path.with_suffix(".json")
            text.write_bytes(as_json(read_params(path)))
            files.append(text)
    besides = [path.with_name(path.name + ".weight") for path in files]
    found = [
        (path, path.read_bytes(), beside.read_bytes() if beside.exists() else b"")
        for path, beside in zip(files, besides, strict=True)
    ]
    for path, _, _ in found:
        assert read_all(path) == "model" if kind == "model" else read_some(path) == "params", path
    return found


def main() -> int:
    """Run all cases on two processes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--models", type=int, default=50_000)
    parser.add_argument("--params", type=int, default=50_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if not all((options.folder / f"{name}.mnn").exists() for name in (*MODELS, *PARAMS)):
        from corpus import build

        build(options.folder)
    failed = 0
    for kind, cases in (("model", options.models), ("params", options.params)):
        healthy, began = _healthy(kind, options.folder), time.monotonic()
        first = options.seed * 10_000_000
        tasks = [
            (kind, options.folder, healthy, start, min(start + CHUNK, first + cases))
            for start in range(first, first + cases, CHUNK)
        ]
        total: Counter[str] = Counter()
        longest = 0.0
        with ProcessPoolExecutor(2) as pool:
            for found, slowest in pool.map(run_chunk, tasks):
                total += found
                longest = max(longest, slowest)
        outcomes = ", ".join(f"{name} {count:,}" for name, count in total.most_common())
        print(f"{cases:,} {kind} cases in {time.monotonic() - began:.0f} s, slowest {longest:.3f} s: {outcomes}")
        failed += total["FAILED"]
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
