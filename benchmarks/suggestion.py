"""The search for a way that keeps the accuracy: a net that int8 ruins is brought back, one that can't be is told so.

python benchmarks/suggestion.py FOLDER

The net is the fixture `mobile_net` (hard-swish, squeeze-excite) with channels on very different scales: channels of the
residual stream or of a squeeze-excite are multiplied by a factor, and the weights that read them divided by it. The
function is the same, as trained networks have it after folding their BatchNorms; int8's one scale a tensor is not
enough for it. Prints what the gate says and proposes, and how long the search took.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import torch
from common import FIXTURES
from torch import nn

from pytest_mnnquant.case import Case, case_of
from pytest_mnnquant.gate import Gate
from pytest_mnnquant.judging import check
from pytest_mnnquant.quantize.store import Store
from pytest_mnnquant.report.terminal import failure_text
from pytest_mnnquant.settings import model_settings
from pytest_mnnquant.sources.spec import Spec

sys.path.insert(0, str(FIXTURES))

import mobile_net


def uneven_gate(factor: float, block: int = 3, channels: int = 4) -> nn.Module:
    """mobile_net, in which some hidden channels of a squeeze-excite are `factor` times larger than they were."""
    network = mobile_net.build()
    gate = network.get_submodule(f"blocks.{block}.gate.gate")
    first, second = gate.get_submodule("1"), gate.get_submodule("3")
    assert isinstance(first, nn.Conv2d)
    assert isinstance(second, nn.Conv2d)
    assert first.bias is not None
    with torch.no_grad():
        first.weight[:channels] *= factor
        first.bias[:channels] *= factor
        second.weight[:, :channels] /= factor
    return network


def uneven_stream(factor: float, channels: int = 2) -> nn.Module:
    """mobile_net, in which some channels of the second residual stream are `factor` times larger than they were."""
    network = mobile_net.build()
    with torch.no_grad():
        for name in ("blocks.1.project", "blocks.2.project"):
            norm: Any = network.get_submodule(f"{name}.1")
            norm.weight[:channels] *= factor
            norm.bias[:channels] *= factor
        for name in ("blocks.2.expand.0.0", "blocks.3.expand.0.0"):
            convolution: Any = network.get_submodule(name)
            convolution.weight[:, :channels] /= factor
    return network


def case(network: nn.Module, recipe: str, store: Store, **options: Any) -> Case:
    """A variant under test, with the search turned on."""
    settings = model_settings("mobile_net", "mobile_net", FIXTURES, {"suggest": True, **options})
    data = {"calibration": mobile_net.calibration(), "evaluation": mobile_net.evaluation()}
    gate = Gate(settings, Spec("mobile_net", "mobile_net"), store, lambda _: None, given=network, **data)
    return case_of(gate, recipe, "eval" if recipe.startswith("int8") else None)


def main(folder: Path) -> None:
    """Print a failing net that is saved, and one that is not."""
    for title, network, recipe in (
        ("uneven squeeze-excite", uneven_gate(float(sys.argv[2]) if len(sys.argv) > 2 else 300.0), "int8"),
        ("uneven residual stream", uneven_stream(float(sys.argv[2]) if len(sys.argv) > 2 else 100.0), "int8"),
        ("2-bit weights", mobile_net.build(), "w2"),
    ):
        found = case(network, recipe, Store(folder / "store", reuse=False))
        start = time.perf_counter()
        result = check(found, "accuracy")
        seconds = time.perf_counter() - start
        print(f"\n{title}, {recipe}: {len(result.metrics.get('tried', []))} ways tried, {seconds:.0f} s in all\n")
        print(failure_text(found, result))


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "build/suggestion"))
