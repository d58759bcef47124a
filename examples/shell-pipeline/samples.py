"""Writes samples in the form that MNN's offline tool reads: a folder each, with the numbers of each input as text."""

import json
from pathlib import Path

import numpy as np

OUT = Path("out/samples")

for number, sample in enumerate(np.load("calibration.npz")["x"][:100]):
    folder = OUT / f"{number:03}"
    folder.mkdir(parents=True, exist_ok=True)
    np.savetxt(folder / "x.txt", sample.ravel(), fmt="%.6g")
    shape = {"inputs": [{"name": "x", "shape": [1, *sample.shape]}], "outputs": ["output"]}
    (folder / "input.json").write_text(json.dumps(shape))
