"""The smallest networks of benchmarks/zoo.py: each verdict is true. Needs MNNQUANT_ZOO, a folder for the wheels."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType

import pytest

from tests.conftest import ROOT

FOLDER = os.environ.get("MNNQUANT_ZOO", "")
SMALL = (
    *("dnsmos-p808", "ocr-cls", "aecmos", "plcmos", "silero-vad", "silero-vad-half"),
    *("silero-vad-openvino", "morphemes", "captcha-digits", "romanizer"),
)
pytestmark = [
    pytest.mark.zoo,
    pytest.mark.skipif(not FOLDER, reason="set MNNQUANT_ZOO to a folder for wheels from PyPI"),
]


@pytest.fixture(scope="module")
def zoo() -> ModuleType:
    """benchmarks/zoo.py, which is in no package."""
    spec = importlib.util.spec_from_file_location("zoo", ROOT / "benchmarks" / "zoo.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["zoo"] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", SMALL)
def test_the_verdict_is_the_truth(zoo: ModuleType, name: str) -> None:
    (network,) = (each for each in zoo.NETWORKS if each.name == name)
    try:
        zoo.fetch(network, Path(FOLDER).resolve())
    except LookupError as error:
        pytest.skip(str(error))
    cell = zoo.judge(network, "w8", Path(FOLDER).resolve())
    assert not cell.is_wrong, (cell.row, cell.messages)
