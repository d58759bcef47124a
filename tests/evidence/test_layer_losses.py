"""Which layer adds the error, from runs of real models."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from pytest_mnnquant.cache.store import Store
from pytest_mnnquant.config.settings import model_settings
from pytest_mnnquant.evidence.source import FixtureValues, SourceUnderTest
from pytest_mnnquant.evidence.variant import VariantUnderTest, variant_under_test
from pytest_mnnquant.mnnfile.model import Model
from pytest_mnnquant.recipes.mnn_support import can_observe
from pytest_mnnquant.runtime.inference import run
from pytest_mnnquant.runtime.options import RunOptions
from pytest_mnnquant.sources.spec import parse_spec
from tests.conftest import TIMEOUT, quietly


@pytest.fixture(scope="module")
def fixed_size(store: Store, tmp_path_factory: pytest.TempPathFactory) -> VariantUnderTest:
    """A ConvTranspose with a fixed output size, whose weights 4 bits can't hold, before a harmless Conv."""
    random, folder = np.random.default_rng(0), tmp_path_factory.mktemp("fixed_size")
    up, last = (random.standard_normal(shape).astype(np.float32) for shape in ((4, 6, 3, 3), (5, 6, 1, 1)))
    up[0, :, 0, 0] = 100.0  # One weight of each channel takes the whole range of its codes.
    shapes = [
        helper.make_tensor_value_info(name, 1, ["n", *shape]) for name, shape in (("x", (4, 8, 8)), ("y", (5, 16, 16)))
    ]
    nodes = [
        helper.make_node("ConvTranspose", ["x", "up"], ["a"], strides=[2, 2], output_shape=[16, 16]),
        helper.make_node("Conv", ["a", "last"], ["y"]),
    ]
    weights = [numpy_helper.from_array(up, "up"), numpy_helper.from_array(last, "last")]
    graph = helper.make_graph(nodes, "net", shapes[:1], shapes[1:], weights)
    path = folder / "net.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    inputs = random.standard_normal((8, 4, 8, 8)).astype(np.float32)
    inputs[:, 0] *= 1e-3  # The large weights carry little, so that rounding the others shows.
    spec = parse_spec(path.name, folder)
    settings = model_settings(spec.text, "net", folder, {"timeout": TIMEOUT})
    source = SourceUnderTest(settings, spec, store, quietly, FixtureValues(evaluation={"x": inputs}))
    return variant_under_test(source, "w4", None)


def test_a_layer_with_a_second_input_can_be_observed(fixed_size: VariantUnderTest) -> None:
    transposed, conv = (layer for layer, _ in fixed_size.files.match.pairs)
    assert (transposed.kind, len(transposed.inputs), len(conv.inputs)) == ("Deconvolution", 2, 1)
    assert can_observe(transposed)
    assert can_observe(conv)


def test_it_is_blamed_for_the_error_that_it_adds(fixed_size: VariantUnderTest) -> None:
    losses = fixed_size.runs.losses(None)
    assert losses is not None
    transposed, conv = losses.layers
    assert transposed.errors.measured
    assert transposed.errors.inherited == 0
    assert transposed.errors.own > 0.1 > 10 * conv.errors.own
    # No layer comes before it, so its own error is what a run of both models differs by.
    assert transposed.errors.own == pytest.approx(transposed.errors.reached, rel=1e-3)
    assert transposed.alone is not None
    assert transposed.alone > 0.1


def test_the_loss_alone_is_what_the_variant_differs_by(fixed_size: VariantUnderTest) -> None:
    """The last layer adds next to nothing, so the first one alone costs what all of them cost."""
    losses, source = fixed_size.runs.losses(None), fixed_size.source.prepared
    assert losses is not None
    assert source.data is not None

    def output(model: Model) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
        assert source.data is not None
        return run(model, source.data.inputs, RunOptions(TIMEOUT)).outputs["y"].astype(np.float64)

    exact, quantized = output(source.model), output(fixed_size.model)
    noise = np.square(quantized - exact).sum() / np.square(exact - exact.mean(0)).sum()
    assert losses.layers[0].alone == pytest.approx(noise, rel=0.1)
