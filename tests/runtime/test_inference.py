"""Running a model: outputs in order, what ran, what flowed through its tensors; and failures that are told."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from pytest_mnnquant.measurements.dataset import Dataset
from pytest_mnnquant.mnnfile.model import Model
from pytest_mnnquant.quantize.prepared import Prepared
from pytest_mnnquant.quantize.variant import Variant
from pytest_mnnquant.runtime import inference
from pytest_mnnquant.runtime.inference import Grid, batch_size, code_losses, run, tensor_ranges, tensor_values
from pytest_mnnquant.runtime.jobs import FailureKind, NativeFailure
from pytest_mnnquant.runtime.options import RunOptions
from pytest_mnnquant.sources.pytorch import outputs
from tests.conftest import TIMEOUT
from tests.smallnets import Words
from tests.workshop import Workshop

Images = dict[str, npt.NDArray[Any]]


@pytest.fixture
def images(digits: Prepared) -> Images:
    """70 images: two full batches and a rest."""
    assert digits.evaluation is not None
    return digits.evaluation.head(70)


def expected(source: Prepared, inputs: Images) -> npt.NDArray[Any]:
    return outputs(source.network, Dataset(inputs), "digits")[0]  # type: ignore[arg-type]


@pytest.mark.parametrize("batched", [True, False])
def test_outputs_are_the_source_models_in_the_order_of_the_samples(
    digits: Prepared, images: Images, batched: bool
) -> None:
    ran = run(digits.model, images, RunOptions(TIMEOUT, batched=batched))
    assert list(ran.outputs) == ["output"]
    np.testing.assert_allclose(ran.outputs["output"], expected(digits, images), rtol=1e-3, atol=1e-4)
    assert ran.batched == batched


def test_int8_outputs_come_as_real_numbers(digits: Prepared, digits_int8: Variant, images: Images) -> None:
    """Read in another way, MNN gives the int8 bytes, or memory that was freed."""
    ran = run(digits_int8.model, images, RunOptions(TIMEOUT))
    reference = expected(digits, images)
    assert (ran.outputs["output"].argmax(1) == reference.argmax(1)).mean() > 0.9
    assert np.abs(ran.outputs["output"] - reference).max() < 0.2 * np.ptp(reference)


def test_the_trace_tells_int8_operators_from_float_ones(
    digits: Prepared, digits_int8: Variant, digits_w4: Variant, images: Images
) -> None:
    traces = [
        run(model, images, RunOptions(TIMEOUT)).trace for model in (digits.model, digits_int8.model, digits_w4.model)
    ]
    ran = [{op.name: (op.kind, op.int8) for op in trace or ()} for trace in traces]
    for layer in digits.model.layers:
        assert [found[layer.name] for found in ran] == [
            ("Convolution", False),
            ("Convolution", True),
            ("Convolution", False),
        ]
    assert any(kind == "FloatToInt8" for kind, _ in ran[1].values())


def test_low_memory_computes_with_the_stored_codes(digits_w4: Variant, images: Images) -> None:
    """MNN takes the option as a number only; a string would change nothing."""
    normal = run(digits_w4.model, images, RunOptions(TIMEOUT))
    low = run(digits_w4.model, images, RunOptions(TIMEOUT, memory_mode=2))
    assert not np.array_equal(normal.outputs["output"], low.outputs["output"])
    np.testing.assert_allclose(normal.outputs["output"], low.outputs["output"], atol=1.0)
    assert normal.memory_mb is not None
    assert low.memory_mb is not None
    assert low.memory_mb < normal.memory_mb


@pytest.fixture(scope="module")
def words(workshop: Workshop) -> tuple[Words, Model, Images]:
    torch.manual_seed(0)
    tokens: Images = {"tokens": np.arange(24, dtype=np.int64).reshape(4, 6)}
    network = Words().eval()
    return network, workshop.floats(network, tokens), tokens


@pytest.mark.parametrize("batched", [True, False])
def test_a_model_with_a_while_body_runs_without_a_trace(words: tuple[Words, Model, Images], batched: bool) -> None:
    network, model, tokens = words
    ran = run(model, tokens, RunOptions(TIMEOUT, batched=batched))
    np.testing.assert_allclose(ran.outputs["output"], outputs(network, Dataset(tokens), "w")[0], rtol=1e-4, atol=1e-5)
    assert ran.trace is None


def test_a_missing_input_is_named(digits: Prepared) -> None:
    with pytest.raises(NativeFailure, match=r"input 'x'; arrays: y") as error:
        run(digits.model, {"y": np.ones((1, 3, 16, 16), np.float32)}, RunOptions(TIMEOUT))
    assert error.value.kind is FailureKind.BAD_INPUT


def test_no_samples_are_no_result(digits: Prepared) -> None:
    with pytest.raises(NativeFailure):
        run(digits.model, {"x": np.ones((0, 1, 16, 16), np.float32)}, RunOptions(TIMEOUT))


def test_a_model_whose_file_is_gone_or_broken_is_a_failure(digits: Prepared, images: Images, tmp_path: Any) -> None:
    gone = dataclasses.replace(digits.model, path=tmp_path / "gone.mnn")
    with pytest.raises(NativeFailure, match=r"running gone\.mnn"):
        run(gone, images, RunOptions(TIMEOUT))
    data = digits.model.path.read_bytes()
    gone.path.write_bytes(data[: len(data) // 2])
    with pytest.raises(NativeFailure, match=r"running gone\.mnn"):
        run(gone, images, RunOptions(TIMEOUT))


def test_values_of_tensors_are_what_flows_in_and_out_of_a_layer(digits: Prepared, images: Images) -> None:
    first, second = digits.model.layers[:2]
    gone = dataclasses.replace(first, name="no such layer")
    values = tensor_values(digits.model, [first, second, gone], images, RunOptions(TIMEOUT))
    assert values["no such layer"] == (None, None)
    seen: list[torch.Tensor] = []
    assert digits.network is not None
    hooks = [
        digits.network.get_submodule(f"features.{number}").register_forward_hook(
            lambda _module, _inputs, out: seen.append(out.clone())
        )
        for number in (2, 3, 6)
    ]
    with torch.no_grad():
        digits.network(torch.from_numpy(images["x"][:32]))
    for hook in hooks:
        hook.remove()
    pairs = ((values[first.name][1], seen[0]), (values[second.name][0], seen[1]), (values[second.name][1], seen[2]))
    for found, wanted in pairs:
        assert found is not None
        np.testing.assert_allclose(found, wanted.numpy().reshape(-1), rtol=1e-3, atol=1e-4)
    given = values[first.name][0]
    assert given is not None
    np.testing.assert_array_equal(given, images["x"][:32].reshape(-1))


def test_ranges_of_tensors_are_those_of_each_batch(digits: Prepared, images: Images) -> None:
    first = digits.model.layers[0]
    gone = dataclasses.replace(first, name="no such layer")
    ranges = tensor_ranges(digits.model, [first, gone], images, RunOptions(TIMEOUT))
    assert ranges.shape == (3, 2, 2, 2)
    for number, start in enumerate((0, 32, 64)):
        part = images["x"][start : start + 32]
        assert ranges[number, 0, 0].tolist() == [part.min(), part.max()]
    assert (ranges[:, 0, 1, 0] == 0).all()  # after the fused ReLU
    assert np.isnan(ranges[:, 1]).all()


def test_what_codes_lose_of_a_tensor_is_counted(digits: Prepared) -> None:
    assert digits.evaluation is not None
    layer, images = digits.model.convolutions[0], digits.evaluation.head(70)["x"]
    grid = Grid(scale=0.1, low=0.0, high=0.6)
    ((first, second),) = code_losses(digits.model, [layer], [(grid, None)], {"x": images}, RunOptions(TIMEOUT))
    assert second is None
    assert first is not None
    values = images.astype(np.float64)
    clipped = values - values.clip(0, 0.6)
    rounded = values.clip(0, 0.6) - np.rint(values.clip(0, 0.6) * 10) / 10
    assert (first.count, first.low, first.high) == (images.size, 0.0, 1.0)
    assert first.energy == pytest.approx((values**2).mean(), rel=1e-4)
    assert first.outside == pytest.approx((values > 0.65).mean(), abs=1e-3)
    assert first.clipped == pytest.approx((clipped**2).sum() / (values**2).sum(), rel=1e-4)
    assert first.rounded == pytest.approx((rounded**2).sum() / (values**2).sum(), rel=1e-2)


def test_int8_outputs_of_the_module_are_right_after_a_resize(workshop: Workshop, images: Images) -> None:
    """MNN 3.6.1 returns wrong values of them if the last batch is smaller than the others."""
    model = workshop.variant("digits_cnn", "int8", "eval").model
    names = tuple(model.tensor_names[op.outputs[0]] for op in model.convolutions)
    together, alone = (run(model, images, RunOptions(TIMEOUT, batched=batched), names) for batched in (True, False))
    for name in names:
        np.testing.assert_allclose(together.outputs[name], alone.outputs[name], atol=1e-4)


def test_large_samples_run_in_smaller_batches_with_the_ranges_of_whole_ones(
    digits: Prepared, images: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = RunOptions(TIMEOUT)
    layers = digits.model.layers
    whole = tensor_ranges(digits.model, layers, images, options)
    assert (batch_size(options, images), len(whole)) == (32, 3)
    (array,) = images.values()
    monkeypatch.setattr(inference, "_LARGEST_BATCH", 5 * array[0].nbytes)
    assert batch_size(options, images) == 4
    np.testing.assert_allclose(tensor_ranges(digits.model, layers, images, options), whole, rtol=1e-5, atol=1e-6)
    assert batch_size(dataclasses.replace(options, batched=False), images) == 1
