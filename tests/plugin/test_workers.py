"""xdist's workers make each variant once between them, and their report is that of a run without workers.

With MNNQUANT_CORPUS set, on the four fixture models in three recipes and both modes; else on two tiny ones.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import FIXTURES
from tests.plugin.conftest import NET, Run

# Each worker tells what it makes.
TELLS = """
from pathlib import Path
from pytest_mnnquant.cache import store

make = store.Store._make

def told(self, final, build, replace):
    with Path(__file__).with_name("made.txt").open("a") as file:
        file.write(f"{final.parent.name}/{final.name}\\n")
    make(self, final, build, replace)

store.Store._make = told
"""
LARGE = bool(os.environ.get("MNNQUANT_CORPUS"))
MODELS = ("digits_cnn", "garment_classifier", "mobile_net", "tiny_transformer")
RECIPES = ("int8", "int8-kl", "int8-percentile") if LARGE else ("int8", "int8-kl")
#: What no two runs measure alike.
MEASURED = ("latency", "memory")


def compared(path: Path) -> dict[str, Any]:
    """A report without what no two runs measure alike."""
    report: dict[str, Any] = json.loads(path.read_text())
    for model in report["models"]:
        for variant in model["variants"]:
            variant["checks"] = [
                {**check, "steps": []} for check in variant["checks"] if check["check"] not in MEASURED
            ]
    return report


def test_each_variant_is_made_once_and_the_report_is_the_same(run: Run, pytester: pytest.Pytester) -> None:
    (pytester.path / "conftest.py").write_text(TELLS)
    (pytester.path / "other.py").write_text(NET.replace("manual_seed(0)", "manual_seed(5)"))
    sources = [FIXTURES / f"{name}.py" for name in MODELS] if LARGE else ["net.py", "other.py"]
    usual = [*(f"--mnn-model={source}:build" for source in sources), *(f"--mnn-recipe={name}" for name in RECIPES)]
    usual += ["--mnn-cache-dir=kept"]
    spread = run(*usual, "-n4", "--mnn-report=spread.json", alone=True)
    told = pytester.path / "made.txt"
    made = Counter(told.read_text().split())
    assert set(made.values()) == {1}
    assert sum(name.startswith("variant/") for name in made) == len(sources) * len(RECIPES) * 2
    told.unlink()
    alone = run(*usual, "--mnn-report=alone.json", "--mnn-latency-time=1", alone=True)
    assert not told.exists()  # It took what the workers had made, which no two runs would make with the same uuid.
    assert spread.status == alone.status == 0, spread.text
    assert compared(pytester.path / "spread.json") == compared(pytester.path / "alone.json")
