"""The reader side by side with what there is otherwise: MNN's JSON dump, and a plain numpy read of the same bytes.

    python benchmarks/reader.py

Makes a float model of about 100 MB and its 8-bit form of about 26 MB, and measures in one run: `inspect` inside the
process, the converter's JSON dump, the whole `weights` check, and reading and comparing the same bytes with numpy.
"""

from __future__ import annotations

import itertools
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from pytest_mnnquant.checks.weights.check import check_weights
from pytest_mnnquant.cli.inspect import inspection
from pytest_mnnquant.measurements.dataset import Dataset
from pytest_mnnquant.mnnfile.matching import match_layers
from pytest_mnnquant.mnnfile.model import read_model
from pytest_mnnquant.quantize.prepare_pytorch import export_float
from pytest_mnnquant.runtime.convert import convert
from pytest_mnnquant.runtime.jobs import Job, run_job
from pytest_mnnquant.sources.pytorch import ExportOptions

ROUNDS = 5


def large_network() -> torch.nn.Module:
    """About 26 million weights, in convolutions and Linear layers."""
    torch.manual_seed(0)
    nn = torch.nn
    widths = (3, 64, 256, 512, 1024)
    convolutions = [layer for a, b in itertools.pairwise(widths) for layer in (nn.Conv2d(a, b, 3, 2, 1), nn.ReLU())]
    tail = [nn.Conv2d(1024, 1024, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    head = [nn.Linear(1024, 4096), nn.ReLU(), nn.Linear(4096, 1500), nn.Linear(1500, 10)]
    return nn.Sequential(*convolutions, *tail, *head).eval()


def median_ms(action: Callable[[], object], rounds: int = ROUNDS) -> float:
    """Median wall time in milliseconds; the first run, which touches the pages, is not counted."""
    action()
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        action()
        times.append(time.perf_counter() - start)
    return 1000 * float(np.median(times))


def dump_ms(path: Path, folder: Path) -> float:
    """Wall time of the converter's JSON dump, in a process of its own as it must be."""
    start = time.perf_counter()
    arguments = ["-f", "MNN", "--modelFile", str(path), "--JsonFile", str(folder / "dump.json")]
    run_job(Job("convert", "dump", 600, {"arguments": arguments}), folder)
    return 1000 * (time.perf_counter() - start)


def read_compare(float_path: Path, quantized_path: Path) -> None:
    """Numpy alone: both files' bytes, as float32 and as int8 made float32, multiplied, subtracted, squared, summed."""
    floats = np.memmap(float_path, np.uint8, "r")
    codes = np.memmap(quantized_path, np.int8, "r")
    count = min(floats.size // 4, codes.size)
    ours = floats[: 4 * count].view(np.float32)
    theirs = codes[:count].astype(np.float32) * np.float32(0.01)
    with np.errstate(all="ignore"):
        float(np.square(ours).sum() + np.square(ours - theirs).sum())


def peak_beyond_mapping_mb(path: Path) -> float:
    """Peak anonymous memory that reading and inspecting a model adds to a process, in MB."""
    program = (
        "from pathlib import Path; import sys\n"
        "from pytest_mnnquant.mnnfile.model import read_model\n"
        "from pytest_mnnquant.cli.inspect import inspection\n"
        "def anonymous(): return int([l for l in open('/proc/self/status') if l.startswith('RssAnon')][0].split()[1])\n"
        "before = anonymous(); inspection(read_model(Path(sys.argv[1]))); print((anonymous() - before) / 1024)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(path)], check=True, capture_output=True, text=True)
    return float(done.stdout)


def main() -> None:
    """Make the models, measure, print."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data = Dataset({"input": np.zeros((2, 3, 64, 64), np.float32)})
        export_float(large_network(), data, folder, ExportOptions("large"), 600)
        float_path, w8_path = folder / "float.mnn", folder / "w8.mnn"
        convert(float_path, w8_path, ("--weightQuantBits", "8"), timeout=600)
        for label, path in (("float", float_path), ("w8", w8_path)):
            megabytes = path.stat().st_size / 1e6
            mine = median_ms(lambda path=path: inspection(read_model(path)))  # type: ignore[misc]
            dumped = dump_ms(path, folder)
            ratio = f"{dumped / mine:,.0f} times"
            print(f"inspect {label:<6}{megabytes:6.1f} MB: {mine:7.1f} ms; JSON dump {dumped:10,.0f} ms; {ratio}")
            print(f"        memory beyond the mapped file: {peak_beyond_mapping_mb(path):.1f} MB")
        base, model = read_model(float_path), read_model(w8_path)
        check = median_ms(lambda: check_weights(base, model, match_layers(base, model), None))
        plain = median_ms(lambda: read_compare(float_path, w8_path))
        print(f"weights check: {check:.0f} ms; numpy read and compare: {plain:.0f} ms; {check / plain:.2f} times")
        print(f"peak memory of this process: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB")


if __name__ == "__main__":
    main()
