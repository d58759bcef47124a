"""The memory of the gate on data larger than usual: many pictures, or maps of many megabytes.

    python benchmarks/large_data.py FOLDER [--maps N] [--pictures N] [--write]

An ONNX model of three convolutions makes maps of 21 x 512 x 512 numbers (22 MB for each picture); another classifies
pictures of 3 x 64 x 64 numbers. Of each step, the peak memory of the pytest process and of its child processes. --write
puts the table into docs/large-data.md.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
from onnx import helper, numpy_helper

PAGE: Final = Path(__file__).resolve().parent.parent / "docs" / "large-data.md"
_HEAD: Final = "| data | check | step | seconds | pytest | child |\n|---|---|---|---|---|---|\n"
_CLASSES: Final = 21


@dataclass(frozen=True)
class Net:
    """A network and its data: pictures of `size` x `size`."""

    name: str
    size: int
    is_map: bool

    def write(self, folder: Path, count: int) -> None:
        """Write `net.onnx`, `calibration.npz` and `evaluation.npy`; the pictures are smooth, with an edge."""
        folder.mkdir(parents=True, exist_ok=True)
        onnx.save(self.model(), str(folder / "net.onnx"))
        np.savez(folder / "calibration.npz", x=np.stack([self.picture(-1 - number) for number in range(32)]))
        shape = (count, 3, self.size, self.size)
        data = np.lib.format.open_memmap(folder / "evaluation.npy", "w+", np.dtype(np.float32), shape)
        for number in range(count):
            data[number] = self.picture(number)

    def picture(self, number: int) -> np.ndarray[Any, np.dtype[np.float32]]:
        """One picture [3, size, size]."""
        random = np.random.default_rng(abs(number) * 2 + (number < 0))
        rows, columns = np.indices((self.size, self.size)) / self.size
        waves = [np.sin(6 * random.standard_normal() * rows + 6 * random.standard_normal() * columns) for _ in "rgb"]
        return np.asarray(np.stack(waves) + (rows > random.random()), np.float32)

    def model(self) -> onnx.ModelProto:
        """Three convolutions; at their end the maps, or the mean of each."""
        random = np.random.default_rng(7)
        nodes, weights, name = [], [], "x"
        for number, (inputs, outputs) in enumerate(((3, 16), (16, 16), (16, _CLASSES))):
            values = random.standard_normal((outputs, inputs, 3, 3)).astype(np.float32) * (2 / (9 * inputs)) ** 0.5
            weights.append(numpy_helper.from_array(values, f"w{number}"))
            nodes.append(
                helper.make_node("Conv", [name, f"w{number}"], [f"c{number}"], pads=[1] * 4, name=f"c{number}")
            )
            name = f"c{number}"
            if number < 2:
                nodes.append(helper.make_node("Relu", [name], [f"r{number}"], name=f"r{number}"))
                name = f"r{number}"
        shape: list[str | int] = ["n", _CLASSES, self.size, self.size]
        if not self.is_map:
            nodes.append(helper.make_node("GlobalAveragePool", [name], ["pooled"], name="pool"))
            nodes.append(helper.make_node("Flatten", ["pooled"], ["flat"], name="flatten"))
            name, shape = "flat", ["n", _CLASSES]
        graph = helper.make_graph(
            nodes,
            "net",
            [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["n", 3, self.size, self.size])],
            [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)],
            weights,
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def measured(net: Net, folder: Path, count: int) -> str:
    """Run the gate; the rows of its steps that hold the most memory or take the most time."""
    net.write(folder, count)
    words = ["-q", "-p", "no:cacheprovider", f"--mnn-cache-dir={folder / 'cache'}", "--mnn-report=report.json"]
    data = ["--mnn-calibration=calibration.npz", "--mnn-evaluation=evaluation.npy", "--mnn-recipe=int8"]
    command = [sys.executable, "-m", "pytest", *words, "--mnn-model=net.onnx", *data]
    environment = {key: value for key, value in os.environ.items() if key != "CI"}
    start = time.perf_counter()
    done = subprocess.run(command, cwd=folder, env=environment, check=False, capture_output=True, text=True)
    seconds = time.perf_counter() - start
    print(done.stdout[-1500:], file=sys.stderr)
    report: dict[str, Any] = json.loads((folder / "report.json").read_bytes())
    (variant,) = report["models"][0]["variants"]
    what, table = f"{count} x {net.name}", ""
    for check in variant["checks"]:
        for step in check["steps"]:
            memory = " | ".join(
                "" if step[key] is None else f"{step[key]:,.0f} MB" for key in ("pytest_mb", "child_mb")
            )
            table += f"| {what} | {check['check']} | {step['step']} | {step['seconds']:.1f} | {memory} |\n"
    outcomes = ", ".join(f"{check['check']} {check['outcome']}" for check in variant["checks"])
    return table + f"| {what} | all | {outcomes} | {seconds:.1f} | | |\n"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--maps", type=int, default=500)
    parser.add_argument("--pictures", type=int, default=10_000)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args(arguments)
    table = _HEAD
    for net, count in ((Net("maps", 512, True), options.maps), (Net("pictures", 64, False), options.pictures)):
        if count:
            table += measured(net, options.folder.resolve() / net.name, count)
    print(table)
    if options.write:
        intro = (
            "# Large data\n\nMemory of each step, by `benchmarks/large_data.py`: maps of 21 x 512 x 512 numbers for "
            "each picture, and many small pictures. `pytest` is the peak of the pytest process since its start.\n\n"
        )
        PAGE.write_text(intro + table, encoding="utf-8")


if __name__ == "__main__":
    main()
