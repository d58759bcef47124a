"""A model file that counts samples on another axis than the first takes batches, and gives samples first."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from pytest_mnnquant.measurements.dataset import Dataset
from pytest_mnnquant.measurements.sample_axes import SampleAxes
from pytest_mnnquant.quantize.convert_twice import convert_twice
from pytest_mnnquant.quantize.file_batches import TriedBatch, try_batch
from pytest_mnnquant.sources.pytorch import ExportOptions, export
from tests.conftest import TIMEOUT


class TimeFirst(nn.Module):
    """A convolution over time whose output is (time, samples, classes)."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Conv1d(4, 3, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.layer(x).permute(2, 0, 1)
        return result


@pytest.fixture(scope="module", params=[True, False], ids=["dynamic", "fixed"])
def tried(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[TriedBatch, Dataset]:
    folder: Path = tmp_path_factory.mktemp("net")
    data = Dataset({"x": np.random.default_rng(0).standard_normal((40, 4, 7)).astype(np.float32)})
    options = ExportOptions("net", dynamic=request.param, axes=SampleAxes(outputs={"output": 1}))
    export(TimeFirst().eval(), data, folder / "net.onnx", options)
    return try_batch(convert_twice(folder / "net.onnx", folder / "net.mnn", timeout=TIMEOUT), data, TIMEOUT), data


def test_outputs_count_samples_first(tried: tuple[TriedBatch, Dataset]) -> None:
    batch, data = tried
    with torch.no_grad():
        expected = TimeFirst().eval()(torch.from_numpy(data.inputs["x"])).numpy().swapaxes(0, 1)
    assert batch.run.outputs["output"].shape[0] == 40
    np.testing.assert_allclose(batch.run.outputs["output"].reshape(expected.shape), expected, atol=1e-5)
    if batch.options.batched:
        assert batch.options.axes.outputs == {"output": 1}
