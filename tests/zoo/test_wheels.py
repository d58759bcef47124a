"""The smallest networks of benchmarks/zoo.py: each verdict is true. Needs MNNQUANT_ZOO, a folder for the wheels."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

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
def zoo() -> Any:
    """benchmarks/zoo.py, which is in no package."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "benchmarks"))
        import zoo
    return zoo


@pytest.mark.parametrize("name", SMALL)
def test_the_verdict_is_the_truth(zoo: Any, name: str) -> None:
    (network,) = (each for each in zoo.NETWORKS if each.name == name)
    try:
        zoo.fetch(network, Path(FOLDER).resolve())
    except LookupError as error:
        pytest.skip(str(error))
    cell = zoo.judge(network, "w8", Path(FOLDER).resolve())
    assert not cell.is_wrong, (cell.row, cell.messages)
