"""Forms of data from the model's file to the verdict: data sets of samples, paths, and folders of sounds."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from tests.plugin.conftest import Run

HEAD = "from pathlib import Path\n\nimport numpy as np\nimport torch\nfrom torch import nn\nfrom net import Net\n\n"
BUILD = "\n\ndef build():\n    torch.manual_seed(0)\n    return Net().eval()\n"
X = "np.random.default_rng({seed}).standard_normal((12, 1, 8, 8)).astype('f')"


@pytest.mark.parametrize(
    "body",
    [
        # Samples of a data set, which has no end by itself; a list of samples; a path.
        f"class Data(torch.utils.data.Dataset):\n    def __len__(self):\n        return 12\n"
        f"    def __getitem__(self, number):\n        return {X.format(seed=2)}[number % 12], number % 3\n\n"
        "def evaluation():\n    return Data()",
        f"def evaluation():\n    return list({X.format(seed=2)})",
        f"def evaluation():\n    np.save('x.npy', {X.format(seed=2)})\n    return Path('x.npy')",
    ],
    ids=["data set", "list of samples", "path"],
)
def test_the_model_is_judged_on_them(run: Run, pytester: pytest.Pytester, body: str) -> None:
    pytester.makepyfile(good=HEAD + body + BUILD)
    result = run("--mnn-model=good.py:build", "--mnn-recipe=w8", "-k", "conversion or accuracy")
    assert result.status == 0, result.text
    accuracy = next(check for check in result.checks if check["check"] == "accuracy")
    assert accuracy["metrics"]["samples"] == 12


def test_channels_last_and_bytes_are_refused_with_the_repair(run: Run, pytester: pytest.Pytester) -> None:
    wide = "np.ones((4, 8, 8, 1), np.float32)"
    for name, data, repair in (
        ("last", wide, "x = x.transpose(0, 3, 1, 2)"),
        ("bytes", "np.ones((4, 1, 8, 8), np.uint8)", "x = x.astype(numpy.float32) / 255"),
    ):
        (pytester.path / f"{name}.py").write_text(HEAD + f"def evaluation():\n    return {{'x': {data}}}" + BUILD)
        result = run(f"--mnn-model={name}.py:build", "--mnn-recipe=w8", "-k", "conversion")
        (finding,) = result.checks[0]["findings"]
        assert finding["code"] == "MNQ102"
        assert repair in finding["remedy"]


def test_a_folder_of_sounds_is_read_at_its_rate(run: Run, pytester: pytest.Pytester) -> None:
    random = np.random.default_rng(0)
    for number in range(6):
        body = (3000 * random.standard_normal(64 + number)).astype("<i2").tobytes()
        form = struct.pack("<IHHIIHH", 16, 1, 1, 8000, 16000, 2, 16)
        head = b"WAVEfmt " + form + b"data" + struct.pack("<I", len(body))
        path = pytester.path / "sounds" / f"{'ab'[number % 2]}" / f"{number}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"RIFF" + struct.pack("<I", len(head) + len(body)) + head + body)
    pytester.makepyfile(
        net1="import torch\n\ndef build():\n    torch.manual_seed(0)\n    return torch.nn.Sequential(\n"
        "        torch.nn.Linear(64, 32), torch.nn.ReLU(), torch.nn.Linear(32, 2)).eval()\n"
    )
    table = "[tool.mnnquant.models.sound]\nsource = 'net1.py:build'\nrecipes = ['w8']\nevaluation = 'sounds'\n"
    (pytester.path / "m.toml").write_text(table + "preprocess = {rate = 8000, length = 64}\n")
    result = run("--mnn-config=m.toml", "-k", "conversion")
    assert result.status == 0, result.text
    (pytester.path / "m.toml").write_text(table)
    assert run("--mnn-config=m.toml", "-k", "conversion").status == 4
