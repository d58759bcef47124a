"""The params file: what is written is read back, and values that MNN can't mean are refused."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_mnnquant.mnnfile import wire
from pytest_mnnquant.mnnfile.params import (
    ActivationParams,
    BadParams,
    DoubledParams,
    LayerParams,
    Params,
    WeightParams,
    read_params,
    write_params,
)

NAMES = st.text(st.characters(codec="utf-8"), min_size=1, max_size=12)
SCALES = st.floats(2.0**-26, 2.0**26, width=32)
INT8 = st.integers(-128, 127)
ACTIVATIONS = st.builds(
    ActivationParams, name=NAMES, scale=SCALES, zero_point=INT8, bits=st.integers(2, 8), clamp_min=INT8, clamp_max=INT8
)
WEIGHTS = st.builds(
    WeightParams,
    name=NAMES,
    scales=st.lists(SCALES, max_size=5).map(tuple),
    bits=st.integers(2, 8),
    clamp_min=INT8,
    clamp_max=INT8,
)
LAYERS = st.builds(LayerParams, weight=WEIGHTS, input=ACTIVATIONS, output=ACTIVATIONS) | st.builds(
    LayerParams, weight=WEIGHTS
)
PARAMS = st.builds(
    Params,
    layers=st.lists(LAYERS, max_size=4, unique_by=lambda layer: layer.name).map(tuple),
    uuid=st.text(st.characters(codec="utf-8"), max_size=40),
    version=NAMES,
)


def layer(name: str = "out", **changes: Any) -> LayerParams:
    """A healthy layer."""
    weight = WeightParams("w", (0.5, 0.25), clamp_min=-127)
    plain = LayerParams(weight, ActivationParams("in", 0.125, -127), ActivationParams(name, 0.75, 5))
    return dataclasses.replace(plain, **changes)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("params")


@given(params=PARAMS)
def test_what_is_written_is_read_back(folder: Path, params: Params) -> None:
    write_params(params, folder / "p.bin")
    assert read_params(folder / "p.bin") == params


def as_json(params: Params, snake: bool) -> dict[str, Any]:
    """The form protobuf gives it, with camel or snake case keys."""

    def tensor(value: Any) -> dict[str, Any]:
        scales = [float(scale) for scale in getattr(value, "scales", None) or [value.scale]]
        found = {"name": value.name, "bits": value.bits, "scales": scales}
        found |= {key: getattr(value, key) for key in ("zero_point", "clamp_min", "clamp_max") if hasattr(value, key)}
        return found if snake else {_camel(key): item for key, item in found.items()}

    layers = [
        {
            "input": [tensor(item.input)],
            "weight": [tensor(item.weight)],
            "output": [tensor(item.output)],
            **({("op_name" if snake else "opName"): item.op_name} if item.op_name else {}),
        }
        for item in params.layers
    ]
    quant, uuid = ("quant_params", "mnn_uuid") if snake else ("quantParams", "mnnUuid")
    return {
        "version": params.version,
        "algo": [{"type": "PRUNE", "pruneParams": {}}, {"type": "QUANTIZE", quant: {"layer": layers}}],
        uuid: params.uuid,
    }


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.title() for word in rest)


@pytest.mark.parametrize("snake", [False, True])
def test_json_says_the_same_as_binary(tmp_path: Path, snake: bool) -> None:
    params = Params((layer("a", op_name="op"), layer("b")), "uuid-1", "1.2.3")
    (tmp_path / "p.json").write_text(json.dumps(as_json(params, snake)))
    assert read_params(tmp_path / "p.json") == params


def test_a_layer_is_called_by_its_output_tensor() -> None:
    weight = WeightParams("w")
    assert layer("out", op_name="op").name == "out"
    assert LayerParams(weight, op_name="op").name == "op"
    assert LayerParams(weight).name == "w"


def test_renaming_changes_output_names_only() -> None:
    params = Params((layer("a"), layer("b"), LayerParams(WeightParams("a"))))
    renamed = params.renamed({"a": "x", "in": "y", "w": "z"})
    assert [item.name for item in renamed.layers] == ["x", "b", "a"]
    assert renamed.layers[0] == layer("x")
    assert renamed.layers[1:] == params.layers[1:]


def test_a_guide_is_what_lists_layers_without_activations() -> None:
    assert Params((LayerParams(WeightParams("w", bits=0)),)).is_guide
    assert not Params((LayerParams(WeightParams("w")), layer())).is_guide
    assert not Params(()).is_guide


BAD_LAYERS = {
    "scale 0": (layer(output=ActivationParams("out", 0.0)), "scale 0"),
    "negative scale": (layer(output=ActivationParams("out", -1.0)), "scale -1"),
    "NaN scale": (layer(input=ActivationParams("in", float("nan"))), "scale nan"),
    "infinite scale": (layer(input=ActivationParams("in", float("inf"))), "scale inf"),
    "zero point": (layer(output=ActivationParams("out", 1.0, 128)), "zero point 128"),
    "9 bits": (layer(output=ActivationParams("out", 1.0, bits=9)), "bits 9"),
    "1 bit": (layer(weight=WeightParams("w", (1.0,), bits=1)), "bits 1"),
    "0 bits of a quantized layer": (layer(weight=WeightParams("w", (1.0,), bits=0)), "bits 0"),
    "clamp": (layer(output=ActivationParams("out", 1.0, clamp_max=128)), "clamp max 128"),
    "an output without an input": (layer(input=None), "not both"),
    "negative zero point": (layer(output=ActivationParams("out", 1.0, -129)), "zero point -129"),
    "weight scale 0": (layer(weight=WeightParams("w", (1.0, 0.0))), "'w' has scale 0"),
    "weight scale NaN": (layer(weight=WeightParams("w", (float("nan"),))), "'w' has scale nan"),
}


@pytest.mark.parametrize("name", BAD_LAYERS)
def test_values_that_mnn_can_not_mean_are_refused(tmp_path: Path, name: str) -> None:
    bad, problem = BAD_LAYERS[name]
    write_params(Params((layer("other"), bad)), tmp_path / "p.bin")
    with pytest.raises(BadParams, match=rf"p\.bin.*{problem}"):
        read_params(tmp_path / "p.bin")


BAD_JSON = {
    "a mistyped key": ('"scale": [1.0]', r"output\[0\]\.scale: unknown key, which MNN ignores; did you mean 'scales'"),
    "text for a number": ('"scales": ["much"]', r"output\[0\]\.scales\[0\]: 'much' is not a number"),
    "a number for a list": ('"scales": 1.0', r"output\[0\]\.scales is not a list of numbers"),
    "half a zero point": ('"scales": [1.0], "zeroPoint": 0.5', "zeroPoint: 0.5 is not a whole number"),
    "true for a number": ('"scales": [1.0], "bits": true', "bits: True is not a number"),
    "infinity": ('"scales": ["Infinity"]', "scale inf"),
}


@pytest.mark.parametrize("name", BAD_JSON)
def test_json_says_which_key_is_wrong(tmp_path: Path, name: str) -> None:
    output, problem = BAD_JSON[name]
    (tmp_path / "p.json").write_text(
        '{"version": "1", "algo": [{"type": "QUANTIZE", "quantParams": {"layer": [{"weight": [{"name": "w"}], '
        '"input": [{"name": "in", "scales": [1.0]}], "output": [{"name": "out", ' + output + "}]}]}}]}"
    )
    with pytest.raises(BadParams, match=rf"p\.json: .*{problem}"):
        read_params(tmp_path / "p.json")


def test_text_that_is_no_json_is_refused_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "p.json").write_text('{"version": "1",\n "algo": [}')
    with pytest.raises(BadParams, match="line 2, column 11"):
        read_params(tmp_path / "p.json")


def test_an_output_listed_twice_is_refused(tmp_path: Path) -> None:
    write_params(Params((layer("a"), layer("b"), layer("a"))), tmp_path / "p.bin")
    with pytest.raises(DoubledParams, match=r"p\.bin: .*'a' is listed twice"):
        read_params(tmp_path / "p.bin")


def entry(*tensors: bytes) -> bytes:
    """A file of one layer with these fields."""
    quantize = wire.put_int(1, 0) + wire.put_bytes(2, wire.put_bytes(4, b"".join(tensors)))
    return wire.put_bytes(1, b"0.0.0") + wire.put_bytes(2, quantize)


NAME, WEIGHT = wire.put_bytes(1, b"t"), wire.put_bytes(2, wire.put_bytes(1, b"w"))
BAD_BINARY = {
    "no version": (wire.put_bytes(3, b"uuid"), "`version` is missing"),
    "a field no params file has": (wire.put_bytes(1, b"0") + wire.put_int(16, 1), "byte 3: unknown field 16"),
    "a layer without weights": (entry(wire.put_bytes(3, NAME + wire.put_float(3, 1.0))), "no weight entry"),
    "a tensor without a name": (entry(WEIGHT, wire.put_bytes(3, wire.put_float(3, 1.0))), "no name"),
    "an activation of two scales": (entry(WEIGHT, wire.put_bytes(3, NAME + 2 * wire.put_float(3, 1.0))), "2 scales"),
    "an activation of no scale": (entry(WEIGHT, wire.put_bytes(1, NAME)), "0 scales"),
    "a number for a message": (wire.put_bytes(1, b"0") + wire.put_int(2, 5), "a number where text or a message"),
    "a name that is no text": (entry(wire.put_bytes(2, wire.put_bytes(1, b"\xff\xfe"))), "not UTF-8"),
    "nothing": (b"", "is empty"),
}


@pytest.mark.parametrize("name", BAD_BINARY)
def test_binary_files_that_are_no_params_are_refused(tmp_path: Path, name: str) -> None:
    data, problem = BAD_BINARY[name]
    (tmp_path / "p.bin").write_bytes(data)
    with pytest.raises(BadParams, match=rf"p\.bin.*{problem}"):
        read_params(tmp_path / "p.bin")


def test_packed_scales_are_read_as_single_ones(tmp_path: Path) -> None:
    packed = wire.put_bytes(3, np.array([0.5, 0.25], "<f4").tobytes())
    (tmp_path / "p.bin").write_bytes(entry(wire.put_bytes(2, wire.put_bytes(1, b"w") + packed)))
    assert read_params(tmp_path / "p.bin").layers[0].weight.scales == (0.5, 0.25)


def test_other_algorithms_than_quantization_are_passed_over(tmp_path: Path) -> None:
    write_params(Params((layer(),)), tmp_path / "p.bin")
    pruning = wire.put_bytes(2, wire.put_int(1, 1) + wire.put_bytes(3, b"\xff"))
    (tmp_path / "p.bin").write_bytes((tmp_path / "p.bin").read_bytes() + pruning)
    assert [item.name for item in read_params(tmp_path / "p.bin").layers] == ["out"]


def test_a_missing_file_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_params(tmp_path / "none.bin")
