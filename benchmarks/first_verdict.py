"""A new user's first verdict: an empty folder, a custom network, a wheel, and three commands.

    python benchmarks/first_verdict.py [FOLDER]

Times each command. pip uses its configured registry, so its share of the time depends on the connection. The model is
not one of the fixtures: it recognizes spoken words by their spectrogram. Its file has `build()`, `calibration()` and
`evaluation()`, as the documentation says.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MINUTES = 5
#: The commands after the wheel's name is put in; as the user types them, but for where the package comes from.
COMMANDS = (
    "python3 -m venv .venv && .venv/bin/pip install torch==2.13.0",
    ".venv/bin/pip install 'pytest-mnnquant[torch] @ file://{wheel}'",
    ".venv/bin/pytest --mnn-model=words.py:build",
)
#: Tones of a pitch for each word, in noise: what it learns in a few seconds is worth judging.
NETWORK = """
import numpy as np
import torch
from torch import nn

WORDS = 8


def block(inputs, outputs, stride):
    return nn.Sequential(
        nn.Conv2d(inputs, inputs, 3, stride, 1, groups=inputs, bias=False), nn.BatchNorm2d(inputs), nn.ReLU6(),
        nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU6(),
    )


class WordNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 16, (8, 4), (2, 2), bias=False), nn.BatchNorm2d(16), nn.ReLU6())
        self.blocks = nn.Sequential(block(16, 32, 1), block(32, 48, 2), block(48, 64, 1))
        self.head = nn.Linear(64, WORDS)

    def forward(self, spectrogram):
        return self.head(self.blocks(self.stem(spectrogram)).mean((2, 3)))


def spectrograms(seed, count):
    random = np.random.default_rng(seed)
    words = random.integers(0, WORDS, count)
    time = np.linspace(0, 1, 49)[None, :, None]
    rise = (words[:, None, None] % 2 * 2 - 1) * 4 * time
    pitch = 4 + 8 * (words[:, None, None] // 2) + rise + random.normal(0, 0.7, (count, 1, 1))
    tone = np.exp(-((np.arange(40)[None, None] - pitch) ** 2) / 4)
    return (tone + random.normal(0, 0.2, tone.shape))[:, None].astype(np.float32), words


def build():
    torch.manual_seed(0)
    net = WordNet()
    x, words = map(torch.from_numpy, spectrograms(0, 512))
    optimizer = torch.optim.Adam(net.parameters(), 1e-2)
    for _ in range(6):
        for chosen in torch.randperm(len(x)).split(32):
            loss = nn.functional.cross_entropy(net(x[chosen]), words[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return net.eval()


def calibration():
    return {"spectrogram": spectrograms(1, 200)[0]}


def evaluation():
    x, words = spectrograms(2, 600)
    return {"spectrogram": x, "labels": words}
"""


def wheel(folder: Path) -> Path:
    """The wheel of this checkout."""
    pip = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(folder), str(ROOT)]
    subprocess.run(pip, check=True)
    (built,) = folder.glob("*.whl")
    return built


def main(folder: Path) -> int:
    """Type the commands; the exit status is 1 when one fails or all take more than the time."""
    packages, home = folder / "packages", folder / "project"
    home.mkdir(parents=True)
    built = wheel(packages)
    (home / "words.py").write_text(NETWORK, encoding="utf-8")
    own = {key: value for key, value in os.environ.items() if not key.startswith(("PYTEST", "PYTHON", "CI"))}
    total = 0.0
    for command in COMMANDS:
        start = time.perf_counter()
        done = subprocess.run(
            ["bash", "-c", command.format(wheel=built)], cwd=home, env=own, capture_output=True, text=True
        )
        took = time.perf_counter() - start
        total += took
        print(f"{took:6.1f} s  $ {command}")
        if done.returncode:
            print(done.stdout, done.stderr)
            return 1
    print(f"{total:6.1f} s  to the first verdict:\n")
    print(done.stdout.partition("= MNN quantization =")[2].partition("\n\n")[0].partition("\n")[2])
    return int(total > 60 * MINUTES)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        sys.exit(main(Path(sys.argv[1])))
    with tempfile.TemporaryDirectory() as temporary:
        sys.exit(main(Path(temporary)))
