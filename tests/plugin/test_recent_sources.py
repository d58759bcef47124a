"""Memory and open files do not grow with the number of models: evidence of earlier models is forgotten."""

from __future__ import annotations

import os
from functools import cached_property
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import onnx
import pytest

from pytest_mnnquant.plugin.recent_sources import LIMIT, note_use
from tests.plugin.conftest import Run


class Source:
    """A source whose evidence is a number."""

    def __init__(self) -> None:
        self.variants: list[Any] = []
        self.made = 0

    @cached_property
    def evidence(self) -> int:
        """Counts how often it is made."""
        self.made += 1
        return self.made


def test_the_evidence_of_the_last_sources_is_kept() -> None:
    session = cast("pytest.Session", SimpleNamespace(stash=pytest.Stash()))
    sources = [Source() for _ in range(LIMIT + 2)]
    for source in sources:
        assert source.evidence == 1
        note_use(session, cast("Any", source))
    assert [source.evidence for source in sources] == [2, 2, *([1] * LIMIT)]


def test_a_source_that_is_used_again_is_kept() -> None:
    session = cast("pytest.Session", SimpleNamespace(stash=pytest.Stash()))
    sources = [Source() for _ in range(LIMIT + 1)]
    for source in (*sources[:LIMIT], sources[0], sources[LIMIT]):
        assert source.evidence
        note_use(session, cast("Any", source))
    assert [sources[0].evidence, sources[1].evidence] == [1, 2]


def test_open_files_do_not_grow_with_the_number_of_models(run: Run, pytester: pytest.Pytester) -> None:
    weights = np.random.default_rng(0).standard_normal((1100, 1100)).astype(np.float32)
    info = [onnx.helper.make_tensor_value_info(name, 1, [1, 1100]) for name in ("x", "y")]
    node = onnx.helper.make_node("MatMul", ["x", "w"], ["y"])
    graph = onnx.helper.make_graph([node], "net", info[:1], info[1:], [onnx.numpy_helper.from_array(weights, "w")])
    made = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    (pytester.path / "m0.onnx").write_bytes(made.SerializeToString())
    for number in range(1, LIMIT + 8):
        os.link(pytester.path / "m0.onnx", pytester.path / f"m{number}.onnx")
    before = len(list(Path("/proc/self/fd").iterdir()))
    models = [f"--mnn-model=m{number}.onnx" for number in range(LIMIT + 8)]
    found = run(*models, "--mnn-recipe=w8", "-k", "coverage")
    assert found.status == 0, found.text
    assert len(list(Path("/proc/self/fd").iterdir())) - before < 2 * (LIMIT + 4)
