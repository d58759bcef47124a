"""All text reports of one real run, as they were last looked at; names of folder, models and layers are Chinese.

`MNNQUANT_GOLDEN=1 pytest tests/plugin/test_golden.py` writes tests/golden again: read the difference before you commit.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from pytest_mnnquant.cache.store import Store
from pytest_mnnquant.mnnfile.params import read_params, write_params
from pytest_mnnquant.quantize.float_model import prepare
from pytest_mnnquant.quantize.job import PARAMS_NAME, Job
from pytest_mnnquant.quantize.prepared import Choices
from pytest_mnnquant.quantize.variant import make_variant
from pytest_mnnquant.recipes.names import RECIPES
from pytest_mnnquant.report.width import width
from pytest_mnnquant.runtime.convert import convert
from pytest_mnnquant.sources.spec import parse_spec
from tests.conftest import TIMEOUT, quietly
from tests.plugin.conftest import CONV, Files, of_nobody
from tests.report.schema import assert_fits_schema

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
IMAGE, LAYER, SCORES = "图像", "主干/卷积层", "分类结果"
MODELS = """
[tool.mnnquant.models."数字识别"]
source = "网络.onnx"
calibration = "校准.npz"
evaluation = "评估.npz"
recipes = ["int8", "w8"]

[tool.mnnquant.models."漏掉一层的模型"]
source = "网络.onnx"
quantized = "量化后.mnn"
evaluation = "评估.npz"
recipes = ["int8"]

[tool.mnnquant.models."no-data"]
source = "网络.onnx"
recipes = ["w8"]
"""


@dataclass(frozen=True)
class Reports:
    """What one run of pytest left; `folder` is where it ran."""

    folder: Path
    terminal: str
    markdown: str
    summary: str
    json: dict[str, Any]
    junit: ET.Element


def in_chinese(source: Path, target: Path) -> None:
    """The same network with names in Chinese."""
    model = onnx.load(source)
    graph = model.graph
    names = {graph.input[0].name: IMAGE, graph.output[0].name: SCORES, CONV: LAYER}
    for node in graph.node:
        node.name = names.get(node.output[0], node.name)
        for ends in (node.input, node.output):
            ends[:] = [names.get(name, name) for name in ends]
    for value in (*graph.input, *graph.output):
        value.name = names[value.name]
    onnx.save(model, target)


def plant(folder: Path, store: Store) -> None:
    """Write a model whose converter lost the Linear layer: the params file names the tensor of an older export."""
    choices = Choices(folder, calibration="校准.npz", evaluation="评估.npz", timeout=TIMEOUT)
    source = prepare(parse_spec("网络.onnx", folder), choices, store, quietly)
    variant = make_variant(Job(source, RECIPES["int8"], None, (), choices), store, quietly)
    assert variant.params is not None
    write_params(
        read_params(variant.params).renamed({f"{SCORES}__matmul_converted": "旧模型的输出"}), folder / PARAMS_NAME
    )
    flags = ("--compressionParamsFile", str(folder / PARAMS_NAME))
    convert(folder / "网络.onnx", folder / "量化后.mnn", flags, timeout=TIMEOUT)


@pytest.fixture(scope="module")
def reports(files: Files, store: Store, tmp_path_factory: pytest.TempPathFactory) -> Reports:
    """One run of three models: one passes, one fails with consequences, one can't be judged."""
    folder = tmp_path_factory.mktemp("golden") / "中文项目"
    folder.mkdir()
    random = np.random.default_rng(2)
    for name, count in (("校准.npz", 24), ("评估.npz", 200)):
        images: dict[str, Any] = {IMAGE: random.random((count, 1, 8, 8), np.float32)}
        np.savez(folder / name, **images)
    (folder / "门禁.toml").write_text(MODELS, encoding="utf-8")
    in_chinese(files.onnx, folder / "网络.onnx")
    plant(folder, store)
    command = ["--mnn-config=门禁.toml", "--mnn-report=报告.json", "--mnn-report=报告.md", "--junit-xml=报告.xml"]
    usual = ["-p", "no:cacheprovider", "--color=no", "-k", "not memory", "--benchmark-disable"]
    own = {"GITHUB_ACTIONS": "true", "GITHUB_WORKSPACE": str(folder), "GITHUB_STEP_SUMMARY": str(folder / "summary.md")}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *command, *usual, f"--mnn-cache-dir={store.root}"],
        cwd=folder,
        env={**of_nobody(), **own, "COLUMNS": "80", "PYTHONIOENCODING": "utf-8"},
        capture_output=True,
        text=True,
        encoding="utf-8",
    )
    assert (done.returncode, done.stderr) == (1, ""), done.stdout + done.stderr
    return Reports(
        folder,
        done.stdout,
        (folder / "报告.md").read_text(encoding="utf-8"),
        (folder / "summary.md").read_text(encoding="utf-8"),
        json.loads((folder / "报告.json").read_text(encoding="utf-8")),
        ET.parse(folder / "报告.xml").getroot(),
    )


# What differs from machine to machine and from run to run.
VOLATILE = (
    (r"\S*/repaired/\w+/", "<cache>/"),
    (r"/\S*/artifacts/", "<store>/"),
    (r"\b[0-9a-f]{64}\b", "<sha256>"),
    (r"\b[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\b", "<uuid>"),
    (r"\b[0-9a-f]{24}\b", "<hash>"),
)
ROUGH = (
    (r"(?<=cosine )\d\.\d{4}", "#.####"),
    (r"\d(?=\d?%(25)? of their width)", "#"),
    (r"(median\s+)\d+(?=%)", r"\1#"),
)


def plain_text(text: str, *more: tuple[str, str]) -> str:
    for pattern, placeholder in (*VOLATILE, *more):
        text = re.sub(pattern, placeholder, text)
    return text


def of_terminal(reports: Reports) -> str:
    """Our part of it: our lines of the header, the failures, the summary, the annotations."""
    head = "\n".join(re.findall(r"^mnnquant: models.*$", reports.terminal, re.MULTILINE))
    rest = re.search(r"^=+ FAILURES =+$.*?(?=^=+ short test summary)", reports.terminal, re.MULTILINE | re.DOTALL)
    assert rest is not None
    text = re.sub(r"^-+ generated xml file.*\n", "", rest[0], flags=re.MULTILINE)
    return plain_text(f"{head}\n{text}", *ROUGH)


def of_markdown(reports: Reports) -> str:
    return plain_text(reports.markdown, (r"pytest-mnnquant \d.*\n$", "<versions and host>\n"), *ROUGH)


def of_json(reports: Reports) -> str:
    found = {**reports.json, "tool": dict.fromkeys(reports.json["tool"], ""), "host": "<host>"}
    text = json.dumps(measured(found), indent=1, ensure_ascii=False)
    cache = re.search(r'"([^"]*)/float/[0-9a-f]{24}/', text)
    assert cache is not None
    text = text.replace(cache[1], "<cache>").replace(str(reports.folder), "<folder>")
    return plain_text(text, *ROUGH) + "\n"


def measured(value: Any, key: str = "") -> Any:
    """A report without the figures that another processor rounds otherwise, and without versions."""
    if isinstance(value, float) and key not in ("size_ratio", "coverage"):
        return "<number>"
    if isinstance(value, dict):
        fixed = {"versions": "<versions>", "steps": "<steps>"}
        return {name: fixed[name] if name in fixed else measured(one, name) for name, one in value.items()}
    return [measured(one, key) for one in value] if isinstance(value, list) else value


def of_junit(reports: Reports) -> str:
    lines = []
    for case in reports.junit.iter("testcase"):
        lines.append(f"{case.get('classname')} {case.get('name')}")
        for one in case.iter("property"):
            value = "#" if "cosine" in str(one.get("name")) else one.get("value")
            lines.append(f"  {one.get('name')} = {value}")
        lines += [f"  {kind}: {one.text}" for kind in ("failure", "skipped", "error") for one in case.iter(kind)]
    return plain_text("\n".join(lines)) + "\n"


@pytest.mark.parametrize(
    ("name", "told"),
    [("terminal.txt", of_terminal), ("report.md", of_markdown), ("report.json", of_json), ("junit.txt", of_junit)],
)
def test_the_report_is_as_it_was(reports: Reports, name: str, told: Callable[[Reports], str]) -> None:
    text = told(reports)
    if os.environ.get("MNNQUANT_GOLDEN"):
        GOLDEN.mkdir(exist_ok=True)
        (GOLDEN / name).write_text(text, encoding="utf-8")
    assert text == (GOLDEN / name).read_text(encoding="utf-8"), "MNNQUANT_GOLDEN=1 accepts it"


def test_the_report_fits_its_schema_and_github_gets_the_same_markdown(reports: Reports) -> None:
    assert_fits_schema(reports.json)
    assert reports.summary == reports.markdown


def test_no_line_of_ours_is_wider_than_the_terminal(reports: Reports) -> None:
    lines = of_terminal(reports).partition(" MNN quantization ")[2].splitlines()[1:]
    ours = [line for line in lines if not line.startswith("::")]
    assert len(ours) > 20
    assert max(map(width, ours)) < 80


def test_names_in_chinese_are_whole_and_in_line_everywhere(reports: Reports) -> None:
    for text in (reports.terminal, reports.markdown, ET.tostring(reports.junit, encoding="unicode")):
        for name in ("数字识别", "漏掉一层的模型", f"{SCORES}__matmul_converted", "旧模型的输出"):
            assert name in text
    told = {layer["name"] for model in reports.json["models"] for layer in model["variants"][0]["layers"]}
    assert told == {LAYER, f"{SCORES}__matmul_converted"}
    assert [Path(model["file"]) for model in reports.json["models"]] == [reports.folder / "网络.onnx"] * 3
    assert "::error file=网络.onnx,title=MNQ304 params-name-mismatch::漏掉一层的模型" in reports.terminal
