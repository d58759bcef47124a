"""Texts are for people: with "x" in place of each, a run comes to the same verdicts, groups and relations."""

from __future__ import annotations

import json
import shutil
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.numpy_helper
import pytest

from pytest_mnnquant.mnnfile.params import read_params, write_params
from pytest_mnnquant.runtime.convert import convert
from tests.conftest import ROOT, TIMEOUT
from tests.plugin.conftest import Files, Run

MODELS = """
[tool.mnnquant.models.healthy]
source = "net.onnx"
evaluation = "images.npz"
recipes = ["w8"]

[tool.mnnquant.models.misnamed]
source = "net.onnx"
quantized = "misnamed.mnn"
params = "misnamed.bin"
evaluation = "images.npz"
recipes = ["int8"]

[tool.mnnquant.models.other-training]
source = "net.onnx"
quantized = "other.mnn"
evaluation = "images.npz"
recipes = ["w8"]

[tool.mnnquant.models.missing]
source = "net.onnx"
quantized = "missing.mnn"
recipes = ["w8"]

[tool.mnnquant.models.without-data]
source = "net.onnx"
recipes = ["w8"]

[tool.mnnquant.models.no-model]
source = "empty.onnx"
recipes = ["w8"]
"""


CONFIG, BASELINE = "--mnn-config=gate.toml", "--mnn-baseline=accepted.json"
BLANK = ("-p", "tests.blank_texts")


def plant(folder: Path, files: Files) -> None:
    """Write files with faults that have consequences: two lost names, two layers of other weights."""
    shutil.copy(files.onnx, folder / "net.onnx")
    (folder / "empty.onnx").write_bytes(b"")
    np.savez(folder / "images.npz", x=np.random.default_rng(2).random((50, 1, 8, 8), np.float32))
    params = read_params(files.params)
    lost = {entry.name: f"{entry.name} of another export" for entry in params.layers}
    write_params(params.renamed(lost), folder / "misnamed.bin")
    flags = ("--compressionParamsFile", str(folder / "misnamed.bin"))
    convert(folder / "net.onnx", folder / "misnamed.mnn", flags, timeout=TIMEOUT)
    other = onnx.load(files.onnx)
    for weights in other.graph.initializer:
        values = onnx.numpy_helper.to_array(weights)
        weights.CopyFrom(onnx.numpy_helper.from_array(-values, weights.name))
    onnx.save(other, folder / "other.onnx")
    convert(folder / "other.onnx", folder / "other.mnn", ("--weightQuantBits", "8"), timeout=TIMEOUT)
    (folder / "gate.toml").write_text(MODELS)


def accept_half(run: Run, folder: Path) -> None:
    """Write a baseline that accepts files half as large, and a model that is gone."""
    path = folder / "accepted.json"
    outcome = run(CONFIG, "--benchmark-disable", BASELINE, "--mnn-update-baseline", alone=True)
    assert path.is_file(), outcome.text
    content = json.loads(path.read_text(encoding="utf-8"))
    for model in content["models"].values():
        for variant in model["variants"].values():
            variant["figures"]["size"] //= 2
    content["models"]["gone"] = {**content["models"]["healthy"], "source": "gone.onnx"}
    path.write_text(json.dumps(content), encoding="utf-8")


def finding_shape(finding: dict[str, Any], check: str) -> tuple[Any, ...]:
    """All of a finding but its texts, and whether it has them."""
    texts = (bool(finding["message"]), bool(finding["cause"]), bool(finding["remedy"]))
    effects = tuple(finding_shape(effect, effect["check"]) for effect in finding["consequences"])
    return check, finding["code"], finding["severity"], finding["layer"], finding["follows"], texts, effects


def shape(report: dict[str, Any]) -> Iterator[tuple[Any, ...]]:
    """All of a report that is decided: outcomes, findings, relations."""
    for model in report["models"]:
        for variant in model["variants"]:
            for check in variant["checks"]:
                name = check["check"]
                findings = tuple(finding_shape(finding, name) for finding in check["findings"])
                place = (model["name"], variant["recipe"], name)
                yield (*place, check["outcome"], bool(check["reason"]), check["ignored"], findings)


def texts(report: dict[str, Any]) -> Iterator[str]:
    """The texts of all findings."""
    for finding in (finding for *_, findings in _findings(report) for finding in findings):
        yield from filter(None, (finding["message"], finding["cause"], finding["remedy"]))


def _findings(report: dict[str, Any]) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    for model in report["models"]:
        for variant in model["variants"]:
            for check in variant["checks"]:
                yield check["check"], check["findings"]


def items(path: Path) -> list[tuple[str, str, str]]:
    """Each item with its outcome, by name."""
    return sorted(
        (str(case.get("classname")), str(case.get("name")), " ".join(child.tag for child in case))
        for case in ET.parse(path).iter("testcase")
    )


class Decided:
    """What a run decided: its exit status, its items, its report."""

    def __init__(self, run: Run, folder: Path, name: str, *arguments: str) -> None:
        outputs = (f"--mnn-report={name}.json", f"--junit-xml={name}.xml")
        self.status = run(CONFIG, "--benchmark-disable", *arguments, *outputs, alone=True).status
        self.report = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
        self.items = items(folder / f"{name}.xml")

    def assert_is_same(self, blank: Decided) -> None:
        """A run with blank texts decided the same."""
        assert self.status == blank.status == 1
        assert self.items == blank.items
        assert sorted(shape(self.report), key=str) == sorted(shape(blank.report), key=str)
        assert set(texts(blank.report)) == {"x"}


@pytest.fixture
def folder(pytester: pytest.Pytester, files: Files, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the faults are planted."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    plant(pytester.path, files)
    return pytester.path


def test_a_run_with_x_for_every_text_decides_the_same(run: Run, folder: Path) -> None:
    """On xdist's workers too."""
    accept_half(run, folder)
    usual = Decided(run, folder, "usual", BASELINE)
    usual.assert_is_same(Decided(run, folder, "blank", BASELINE, *BLANK, "-n", "2"))
    assert_is_rich(usual.report)


def test_a_check_alone_and_strict_decides_the_same(run: Run, folder: Path) -> None:
    """Each check reports itself what keeps it from judging, since none is blocked by the conversion check."""
    usual, blank = (
        Decided(run, folder, name, "--mnn-strict", "-k", "not conversion", *plugin)
        for name, plugin in (("usual", ()), ("blank", BLANK))
    )
    usual.assert_is_same(blank)


def assert_is_rich(report: dict[str, Any]) -> None:
    """The report has groups, consequences, several mechanisms and all outcomes: or nothing is proven by its shape."""
    assert {outcome for _, _, _, outcome, *_ in shape(report)} == {"passed", "failed", "skipped", "inconclusive"}
    every = [finding for _, findings in _findings(report) for finding in findings]
    assert {finding["code"] for finding in every} >= {"MNQ201", "MNQ202", "MNQ304", "MNQ410", "MNQ913"}
    assert any(finding["follows"] for finding in every)
    same = [
        (root["code"], effect) for root in every for effect in root["consequences"] if effect["code"] == root["code"]
    ]
    assert {code for code, effect in same if effect["layer"]} == {"MNQ304", "MNQ401", "MNQ410"}
    assert {code for code, effect in same if not effect["layer"]} == {"MNQ201", "MNQ202"}
    assert len(set(texts(report))) > 10
