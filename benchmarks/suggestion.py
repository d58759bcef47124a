"""The search for a fix that keeps the accuracy: it saves a net that int8 ruins, and says so if it finds no fix.

python benchmarks/suggestion.py FOLDER

The first net is the fixture `mobile_net` (hard-swish, squeeze-excite) with channels on very different scales: two
channels of a residual stream are multiplied by 100, and the weights that read them divided by it. The function is the
same, as trained networks have it after folding their BatchNorms. The single scale per tensor of int8 is not enough for
it. The others have weights of 2 bits. Prints what the gate says and proposes, and how long the search took.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from architectures import ARCHITECTURES, Architecture
from common import FIXTURES
from torch import nn

from pytest_mnnquant.cache.store import Store
from pytest_mnnquant.config.settings import model_settings
from pytest_mnnquant.evidence.check_runner import run_check
from pytest_mnnquant.evidence.source import FixtureValues, SourceUnderTest
from pytest_mnnquant.evidence.variant import VariantUnderTest, variant_under_test
from pytest_mnnquant.findings.accuracy_metrics import AccuracyMetrics
from pytest_mnnquant.findings.check_metrics import metrics_of
from pytest_mnnquant.report.failure import failure_text
from pytest_mnnquant.sources.spec import Spec


def with_uneven_stream(network: nn.Module, factor: float = 100.0, channels: int = 2) -> nn.Module:
    """mobile_net, in which some channels of the second residual stream are `factor` times larger than they were."""
    with torch.no_grad():
        for name in ("blocks.1.project", "blocks.2.project"):
            norm: Any = network.get_submodule(f"{name}.1")
            norm.weight[:channels] *= factor
            norm.bias[:channels] *= factor
        for name in ("blocks.2.expand.0.0", "blocks.3.expand.0.0"):
            convolution: Any = network.get_submodule(name)
            convolution.weight[:, :channels] /= factor
    return network


def case(
    network: nn.Module, architecture: Architecture, recipe: str, store: Store, limits: dict[str, Any]
) -> VariantUnderTest:
    """A variant under test, with the search turned on."""
    settings = model_settings("net", "net", FIXTURES, {"suggest": True, **limits})
    data = {"calibration": architecture.calibration(), "evaluation": architecture.evaluation()}
    gate = SourceUnderTest(settings, Spec("net", "net"), store, lambda _: None, FixtureValues(model=network, **data))
    return variant_under_test(gate, recipe, "eval" if recipe.startswith("int8") else None)


def main(folder: Path) -> None:
    """Print two failing nets that are saved, and one for which no fix meets the limit."""
    mobile = ARCHITECTURES["mobile_net"]
    for title, network, recipe, limits in (
        ("mobile_net with an uneven residual stream", with_uneven_stream(mobile.trained(folder)), "int8", {}),
        ("mobile_net", mobile.trained(folder), "w2", {}),
        ("mobile_net, 30 dB of SQNR required", mobile.trained(folder), "w2", {"min_sqnr": 30.0}),
    ):
        with tempfile.TemporaryDirectory() as made:
            found = case(network, mobile, recipe, Store(Path(made)), limits)
            start = time.perf_counter()
            result = run_check(found, "accuracy")
            seconds = time.perf_counter() - start
            metrics = metrics_of(AccuracyMetrics, [result]) or AccuracyMetrics()
            tried = len(metrics.tried or ())
            print(f"\n{title}, {recipe}: {tried} ways tried, {seconds:.0f} s in all\n")
            print(failure_text(found.full_name, result))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "build/networks"))
