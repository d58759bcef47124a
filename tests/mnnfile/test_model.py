"""A `.mnn` file read: operators, tensors, inputs, weights; nothing of it lost, nothing of it guessed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from pytest_mnnquant.mnnfile.model import BadModel, Model, Op, read_model
from pytest_mnnquant.mnnfile.storage import Storage, Weights
from pytest_mnnquant.quantize.prepared import Prepared
from pytest_mnnquant.quantize.variant import Variant
from tests.smallnets import TwoWays, Words
from tests.workshop import Workshop


@pytest.fixture(scope="module")
def words(workshop: Workshop) -> Model:
    torch.manual_seed(0)
    tokens = np.arange(24, dtype=np.int64).reshape(4, 6)
    return workshop.floats(Words().eval(), {"tokens": tokens})


def test_layers_of_a_convolutional_net_are_read_with_shapes_and_weights(digits: Prepared) -> None:
    model = digits.model
    assert [(op.kind, op.shape, op.group) for op in model.layers] == [
        ("Convolution", (24, 1, 3, 3), 1),
        ("Convolution", (48, 24, 3, 3), 1),
        ("Convolution", (64, 48 * 4 * 4, 1, 1), 1),
        ("Convolution", (10, 64, 1, 1), 1),
    ]
    assert model.layers == model.convolutions
    assert digits.network is not None
    linear = digits.network.get_submodule("classifier.4").weight
    assert isinstance(linear, torch.Tensor)
    np.testing.assert_array_equal(model.decoded(model.layers[-1]), linear.numpy())
    assert model.layers[-1].weight_bytes == 4 * model.layers[-1].weight_count == 4 * 640


def test_batch_norm_is_folded_into_the_weights_that_are_read(digits: Prepared) -> None:
    assert digits.network is not None
    convolution, norm = (digits.network.get_submodule(f"features.{number}") for number in (4, 5))
    state, statistics = convolution.state_dict(), norm.state_dict()
    factor = statistics["weight"] / (statistics["running_var"] + norm.eps).sqrt()
    folded = (state["weight"] * factor[:, None, None, None]).reshape(48, -1)
    np.testing.assert_allclose(digits.model.decoded(digits.model.layers[1]), folded.numpy(), rtol=1e-5, atol=1e-6)


def test_depthwise_convolutions_have_groups(workshop: Workshop) -> None:
    source = workshop.prepared("mobile_net")
    model, network = source.model, source.network
    depthwise = [op for op in model.layers if op.kind == "ConvolutionDepthwise"]
    assert [(op.shape, op.group, op.weight_count) for op in depthwise[:2]] == [
        ((48, 48, 3, 3), 48, 432),
        ((64, 64, 3, 3), 64, 576),
    ]
    assert network is not None
    assert len(model.layers) == sum(isinstance(module, nn.Conv2d | nn.Linear) for module in network.modules())


def test_inputs_and_outputs_have_names_shapes_and_types(workshop: Workshop, words: Model) -> None:
    torch.manual_seed(0)
    data = {"image": np.ones((4, 2, 8, 8), np.float32), "extra": np.ones((4, 5), np.float32)}
    model = workshop.floats(TwoWays().eval(), data)
    assert [(item.name, item.shape[1:], item.data_type) for item in model.inputs] == [
        ("image", (2, 8, 8), "float"),
        ("extra", (5,), "float"),
    ]
    assert sorted(model.output_names) == ["output", "output1"]
    assert [(item.name, item.data_type) for item in words.inputs] == [("tokens", "int32")]


def test_tensors_between_operators_have_the_names_of_the_file(digits: Prepared) -> None:
    model = digits.model
    made = {name for op in model.ops for name in op.output_names}
    for op in model.ops:
        assert len(op.input_names) == len(op.inputs)
        assert set(op.input_names) <= made
        assert [model.tensor_names[index] for index in op.outputs] == list(op.output_names)


def test_the_embedding_table_is_a_layer_and_small_constants_are_not(words: Model) -> None:
    (table,) = [op for op in words.layers if op.kind == "Const"]
    assert (table.shape, table.weight_count) == ((50, 12), 600)
    torch.manual_seed(0)
    np.testing.assert_array_equal(words.decoded(table).reshape(50, 12), Words().table.weight.detach().numpy())
    others = [op for op in words.ops if op.kind == "Const" and op is not table]
    assert others
    assert not any(op.is_layer for op in others)


def test_layers_inside_a_while_body_are_read(words: Model) -> None:
    assert words.has_subgraphs
    inside = [op for op in words.layers if op.subgraph]
    assert [(op.kind, op.shape) for op in inside] == [("Convolution", (64, 16, 1, 1))]
    assert inside[0] not in words.convolutions
    assert {op.shape for op in words.convolutions} == {(64, 12, 1, 1), (3, 16, 1, 1)}
    assert words.decoded(inside[0]).shape == (64, 16)


def test_normalization_is_weights_but_no_layer(words: Model) -> None:
    (norm,) = [op for op in words.ops if op.kind == "LayerNorm"]
    assert norm.weight_count == 24
    assert not norm.is_layer


def test_constants_become_half_with_fp16_and_decode_to_the_same(workshop: Workshop, words: Model) -> None:
    half = workshop.quantized(words, "--fp16")
    for before, after in zip(words.layers, half.layers, strict=True):
        assert after.weights[0].storage is Storage.FLOAT16
        np.testing.assert_allclose(half.decoded(after), words.decoded(before), rtol=1e-3, atol=1e-6)
    assert half.layers[0].weight_bytes * 2 == words.layers[0].weight_bytes


def test_weight_only_bits_leave_tables_float(workshop: Workshop, words: Model) -> None:
    stored = workshop.quantized(words, "--weightQuantBits", "8")
    assert {op.kind: op.weights[0].label for op in stored.layers} == {"Const": "float32", "Convolution": "w8"}


def test_full_int8_tensors_have_the_quantization_that_params_gave(digits_int8: Variant) -> None:
    model = digits_int8.model
    first = model.layers[0]
    quant = model.tensor_quants[first.inputs[0]]
    assert quant.scale == pytest.approx(1 / 254)  # images are in 0..1
    assert (quant.zero, quant.low, quant.high, quant.data_type) == (-127, -127, 127, "int8")
    assert first.weights[0].scale_in == pytest.approx(quant.scale)


def test_versions_and_uuid_are_the_converters(digits: Prepared, digits_int8: Variant) -> None:
    assert digits.model.version.count(".") == 2
    assert len(digits.model.uuid) == 36
    assert digits_int8.model.uuid == digits.model.uuid


def op(kind: str, shape: tuple[int, ...] = (), weights: int = 6) -> Op:
    stored = (Weights(Storage.FLOAT32, 32, weights, 4 * weights),) if weights else ()
    return Op("x", kind, (), (), (), (), shape=shape, weights=stored)


@pytest.mark.parametrize(
    ("candidate", "expected"),
    [
        (op("Convolution", (2, 3, 1, 1)), True),
        (op("Convolution", (2, 3, 1, 1), weights=0), False),
        (op("MatMul"), True),
        (op("LSTM"), True),
        (op("Const", (2, 3)), True),
        (op("Const", (1, 6, 1)), False),
        (op("Const", (6,)), False),
        (op("BatchNorm", (2, 3)), False),
        (op("PReLU", (2, 3)), False),
    ],
    ids=str,
)
def test_layers_are_what_holds_filters_matrices_or_tables(candidate: Op, expected: bool) -> None:
    assert candidate.is_layer is expected


def test_an_operator_with_several_tensors_is_not_decoded_as_one(digits: Prepared) -> None:
    several = Op("rnn", "LSTM", (), (), (), (), weights=(Weights(Storage.FLOAT32, 32, 1, 4),) * 2)
    with pytest.raises(BadModel, match="2 weight tensors"):
        digits.model.decoded(several)


@pytest.mark.parametrize("content", [b"", b"x", b"\0" * 31, b"\0" * 64, b"PK\3\4" * 50, b"\xff" * 64], ids=len)
def test_other_files_are_no_models(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "net.mnn"
    path.write_bytes(content)
    with pytest.raises(BadModel, match=r"net\.mnn"):
        read_model(path)


def test_a_missing_file_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_model(tmp_path / "none.mnn")


def test_an_onnx_file_is_no_mnn_model(digits: Prepared) -> None:
    with pytest.raises(BadModel):
        read_model(digits.model.path.with_suffix(".onnx"))
