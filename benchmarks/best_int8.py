"""The accuracy of each way to int8 on networks whose accuracy plain int8 may lose.

python benchmarks/best_int8.py FOLDER [--write] [NETWORK...]

`FOLDER` keeps variants and the weights of networks that are trained here. Networks: the fixtures, the fixture
`mobile_net` with an uneven residual stream (see `suggestion.py`), and the architectures that `architectures.py` trains,
by name. Each cell is what the gate's accuracy check measures on the evaluation data (on a copy whose MaxPools are
exact, as on ARM), and the seconds to make the variant, calibration included. `--write` writes docs/best-int8.md.
"""

from __future__ import annotations

import argparse
import importlib
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch
from architectures import ARCHITECTURES
from common import FIXTURES, MODELS, gate
from suggestion import with_uneven_stream

from pytest_mnnquant.cache.store import Store
from pytest_mnnquant.config.settings import model_settings
from pytest_mnnquant.evidence.accuracy_search import quality_of
from pytest_mnnquant.evidence.check_runner import run_check
from pytest_mnnquant.evidence.source import FixtureValues, SourceUnderTest
from pytest_mnnquant.evidence.variant import variant_under_test
from pytest_mnnquant.findings.accuracy_metrics import AccuracyMetrics
from pytest_mnnquant.findings.check_metrics import metrics_of
from pytest_mnnquant.recipes.names import recipe_named
from pytest_mnnquant.sources.spec import Spec

RECIPES: Final = (
    *("mnncompress", "mnnquant-kl", "mnnquant-admm", "mnnquant-ema", "int8", "int8-kl", "int8-histogram"),
    *("int8+corrected", "int8+equalized", "int8+equalized+corrected", "int8-best"),
)
UNEVEN: Final = "mobile_net, uneven"
PAGE: Final = Path(__file__).resolve().parent.parent / "docs" / "best-int8.md"
_ROW: Final = "| {} |"
_HEAD: Final = """# The best int8 that MNN can run

Accuracy of each way to int8, as the gate's accuracy check measures it: the task's metric with labels, else the cosine
to the float model's outputs. **Bold**: the check passes. In brackets: seconds to make the variant, calibration
included, and the size of the file relative to plain `int8`. `int8-best` also names the recipe that it chose. PyTorch
models are calibrated in eval mode.

Made by `benchmarks/best_int8.py`.
"""


@dataclass(frozen=True)
class Cell:
    """One variant: its accuracy as text, whether the check passes, seconds, bytes, and the recipe that was chosen."""

    text: str
    passes: bool = False
    seconds: float = 0.0
    size: int = 0
    chosen: str = ""

    def words(self, plain: int) -> str:
        """The cell in the table; `plain` are the bytes of plain int8."""
        if not self.size:
            return self.text
        text = f"**{self.text}**" if self.passes else self.text
        ratio = f", {self.size / plain:.2f}" if plain else ""
        return f"{text} ({self.seconds:.0f} s{ratio})" + (f" {self.chosen}" if self.chosen else "")


def source_of(name: str, folder: Path) -> SourceUnderTest:
    """A network with its data."""
    store = Store(folder / "store")
    if name in MODELS:
        return gate(name, store)
    if name == UNEVEN:
        fixture = gate("mobile_net", store).spec
        sys.path.insert(0, str(FIXTURES))
        module = importlib.import_module("mobile_net")
        network = with_uneven_stream(module.build())
        data = {"calibration": module.calibration(), "evaluation": module.evaluation()}
        settings = model_settings(fixture.text, "uneven", FIXTURES, {})
        return SourceUnderTest(
            settings, Spec("uneven", "uneven"), store, lambda _: None, FixtureValues(network, **data)
        )
    architecture = ARCHITECTURES[name]
    values = FixtureValues(
        model=architecture.trained(folder),
        calibration=architecture.calibration(),
        evaluation=architecture.evaluation(),
    )
    settings = model_settings("net", name, FIXTURES, {})
    return SourceUnderTest(settings, Spec(name, name), store, lambda _: None, values)


def measure(source: SourceUnderTest, recipe: str) -> Cell:
    """Make a variant and judge its accuracy."""
    start = time.perf_counter()
    variant = variant_under_test(source, recipe, "eval" if recipe_named(recipe).in_torch else None)
    if variant.is_unusable:
        return Cell("not made")
    seconds = time.perf_counter() - start
    result = run_check(variant, "accuracy")
    text, _ = quality_of(metrics_of(AccuracyMetrics, [result]))
    chosen = variant.variant.provenance.get("best", {}).get("recipe", "")
    return Cell(text, result.outcome == "passed", seconds, variant.model.size, f"`{chosen}`" if chosen else "")


def main(folder: Path, names: list[str], recipes: list[str], write: bool) -> None:
    """Print the table, one network after the other; `write` it into the documentation too."""
    lines = ["| network | " + " | ".join(f"`{recipe}`" for recipe in recipes) + " |", "|---" * (len(recipes) + 1) + "|"]
    print("\n".join(lines))
    for name in names:
        source = source_of(name, folder)
        cells = {recipe: measure(source, recipe) for recipe in recipes}
        plain = cells.get("int8")
        words = (cell.words(plain.size if plain else 0) for cell in cells.values())
        lines.append(_ROW.format(" | ".join((name, *words))))
        print(lines[-1], flush=True)
    if write:
        PAGE.write_text(_HEAD + "\n" + "\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("networks", nargs="*", default=[*MODELS, UNEVEN])
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--recipes", default=",".join(RECIPES))
    given = parser.parse_args()
    torch.set_num_threads(1)
    main(given.folder, given.networks, given.recipes.split(","), given.write)
