"""A finished file with static shapes is healthy, and a fault in it is still found."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from pytest_mnnquant.cache.store import Store
from pytest_mnnquant.config.settings import ModelSettings
from pytest_mnnquant.evidence.check_runner import run_check
from pytest_mnnquant.evidence.source import SourceUnderTest
from pytest_mnnquant.evidence.variant import variant_under_test
from pytest_mnnquant.findings.finding import PASSED
from pytest_mnnquant.measurements.dataset import Dataset
from pytest_mnnquant.runtime.convert import convert
from pytest_mnnquant.runtime.inference import run
from pytest_mnnquant.runtime.options import RunOptions
from pytest_mnnquant.sources.pytorch import ExportOptions, export
from pytest_mnnquant.sources.spec import parse_spec
from tests.conftest import TIMEOUT, quietly

CHECKS = ("conversion", "coverage", "weights", "execution", "size", "accuracy")


class Segmenter(nn.Module):
    """Resizes and pools, with sizes that become attributes of operators in a static model."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.gate, self.last = nn.Conv2d(3, 16, 3, 2, 1), nn.Conv2d(16, 16, 1), nn.Conv2d(16, 4, 1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        features = torch.relu(self.first(image))
        features = features * torch.sigmoid(self.gate(nn.functional.adaptive_avg_pool2d(features, 1)))
        result: torch.Tensor = self.last(nn.functional.interpolate(features, scale_factor=2.0, mode="bilinear"))
        return result


def test_a_file_with_a_packed_input_is_the_same_in_both_apis(tmp_path: Path) -> None:
    torch.manual_seed(0)
    images = np.random.default_rng(0).random((2, 3, 24, 24), np.float32)
    export(Segmenter().eval(), Dataset({"image": images}), tmp_path / "net.onnx", ExportOptions("net"))
    model = convert(tmp_path / "net.onnx", tmp_path / "net.mnn", ("--keepInputFormat=0",), timeout=TIMEOUT)
    assert [item.layout for item in model.inputs] == ["NC4HW4"]
    session, module = (
        run(model, {"image": images}, RunOptions(TIMEOUT, through_module=through)).outputs for through in (False, True)
    )
    np.testing.assert_allclose(session["output"], module["output"], atol=1e-5)


@pytest.mark.parametrize(("flags", "failing"), [((), set()), (("--fp16",), {"coverage"})], ids=["w8", "fp16"])
def test_a_static_file_is_judged_by_a_static_float_model(
    flags: tuple[str, ...], failing: set[str], tmp_path: Path, store: Store
) -> None:
    torch.manual_seed(0)
    images = np.random.default_rng(0).random((8, 3, 6, 6), np.float32).repeat(4, 2).repeat(4, 3)
    np.savez(tmp_path / "data.npz", image=images)
    export(Segmenter().eval(), Dataset({"image": images}), tmp_path / "net.onnx", ExportOptions("net"))
    sizes = "input_size = 1\ninput_names = image\ninput_dims = 1x3x24x24\n"
    (tmp_path / "sizes.txt").write_text(sizes, encoding="utf-8")
    static = ("--saveStaticModel", "--inputConfigFile", str(tmp_path / "sizes.txt"), "--weightQuantBits", "8")
    convert(tmp_path / "net.onnx", tmp_path / "net.mnn", (*static, *flags), timeout=TIMEOUT)
    settings = ModelSettings("net", "net.onnx", tmp_path, quantized="net.mnn", evaluation="data.npz", timeout=TIMEOUT)
    source = SourceUnderTest(settings, parse_spec("net.onnx", tmp_path), store, quietly)
    case = variant_under_test(source, "w8", None)
    outcomes = {name: run_check(case, name).outcome for name in CHECKS}
    assert source.prepared.model.is_static
    assert not source.prepared.batched
    assert {name for name, outcome in outcomes.items() if outcome != PASSED} >= failing
    assert failing or set(outcomes.values()) == {PASSED}
