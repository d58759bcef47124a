"""The configuration of MNN's offline quantization tool; refused if the tool would do something else.

The meaning of each key comes from tools/quantization/calibration.cpp (MNN 3.6.1). The tool ignores unknown keys and
values, and reads a value of a wrong type as garbage.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pytest_mnnquant.cli.mnnconvert_flags import Refused, nearest
from pytest_mnnquant.mnnfile.model import Model, ModelInput
from pytest_mnnquant.sources.pixel_statistics import wrong_statistics

CHANNELS: Final = {"RGB": 3, "BGR": 3, "GRAY": 1, "RGBA": 4, "BGRA": 4}
FEATURES: Final = ("KL", "ADMM", "EMA")
_WEIGHTS: Final = ("MAX_ABS", "ADMM")
_TYPES: Final = ("image", "sequence")
_CROPS: Final = ("center_crop_h", "center_crop_w")
_PIXELS: Final = ("mean", "normal")


@dataclass(frozen=True)
class Config:
    """A configuration without contradictions. `count` samples of those at `path` are used (0: all)."""

    content: Mapping[str, Any]
    path: Path
    count: int
    feature: str
    weight: str
    skip: tuple[str, ...]

    @property
    def is_sequence(self) -> bool:
        """Whether samples are folders of numbers rather than images."""
        return bool(self.content.get("input_type") == "sequence")

    @property
    def pixels(self) -> tuple[list[float], list[float]]:
        """(mean, normal) of each channel: a pixel becomes (pixel - mean) * normal."""
        channels = CHANNELS[self.content["format"]]
        return self.content["mean"][:channels], self.content["normal"][:channels]


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _are(kind: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list) and all(kind(item) for item in value)


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


# Key -> (the required value as text, the test of a value).
_KEYS: Final[dict[str, tuple[str, Callable[[Any], bool]]]] = {
    "format": (
        f"one of {', '.join(CHANNELS)}; the tool reads any other value as BGR",
        lambda value: isinstance(value, str) and value in CHANNELS,
    ),
    "mean": ("a list of numbers", _are(_is_number)),
    "normal": ("a list of numbers, none of them 0", _are(lambda value: _is_number(value) and value != 0)),
    "center_crop_h": ("a number above 0 and up to 1", lambda value: _is_number(value) and 0 < value <= 1),
    "center_crop_w": ("a number above 0 and up to 1", lambda value: _is_number(value) and 0 < value <= 1),
    "width": ("an integer above 0", lambda value: _is_integer(value) and value > 0),
    "height": ("an integer above 0", lambda value: _is_integer(value) and value > 0),
    "batch_size": ("an integer above 0", lambda value: _is_integer(value) and value > 0),
    "quant_bits": (
        "8: with fewer bits the tool clips the activations to the range of the weights' codes, which ruins the model; "
        "for fewer bits use pytest-mnnquant convert ... --weightQuantBits",
        lambda value: _is_integer(value) and value == 8,
    ),
    "path": ("the path of a folder", _is_text),
    "used_image_num": ("an integer of 0 (all) or more", lambda value: _is_integer(value) and value >= 0),
    "used_sample_num": ("an integer of 0 (all) or more", lambda value: _is_integer(value) and value >= 0),
    "feature_quantize_method": (f"one of {', '.join(FEATURES)}", lambda value: value in FEATURES),
    "weight_quantize_method": (f"one of {', '.join(_WEIGHTS)}", lambda value: value in _WEIGHTS),
    "feature_clamp_value": (
        "an integer from 1 to 127 (the tool cuts decimals, and 0 gives infinite scales)",
        lambda value: _is_number(value) and value == int(value) and 1 <= value <= 127,
    ),
    "weight_clamp_value": (
        "an integer from 1 to 127 (the tool cuts decimals, and 0 gives infinite scales)",
        lambda value: _is_number(value) and value == int(value) and 1 <= value <= 127,
    ),
    "winogradOpt": ("true or false", lambda value: isinstance(value, bool)),
    "skip_quant_op_names": ("a list of operator names", _are(_is_text)),
    "debug": ("true or false", lambda value: isinstance(value, bool)),
    "input_type": (
        f"one of {', '.join(_TYPES)}; the tool reads any other value as image",
        lambda value: value in _TYPES,
    ),
    "inputs": (
        'a list of {"name": ..., "shape": [...]}',
        _are(lambda value: isinstance(value, dict) and _is_text(value.get("name"))),
    ),
    "model": ("a string", _is_text),  # In MNN's documentation; the tool does not read it.
}


def read_config(path: Path, model: Model) -> Config:
    """The configuration at `path`, for this model. Raises `Refused` with all errors."""
    content = _parsed(path)
    reasons = [
        f"{key}: unknown key, which the tool ignores{nearest(key, [*_KEYS])}" for key in content if key not in _KEYS
    ]
    bad = {key for key, value in content.items() if key in _KEYS and not _KEYS[key][1](value)}
    reasons += [f"{key} {json.dumps(content[key])}: must be {_KEYS[key][0]}" for key in content if key in bad]
    good = {key: value for key, value in content.items() if key in _KEYS and key not in bad}
    feature, weight = good.get("feature_quantize_method", "KL"), good.get("weight_quantize_method", "MAX_ABS")
    reasons += _method_reasons(good, feature, weight, model)
    reasons += _skip_reasons(good.get("skip_quant_op_names", []), model)
    if "path" not in content:
        reasons.append("path is missing: give the folder of the calibration data")
    if "input_type" not in bad:
        is_sequence = good.get("input_type") == "sequence"
        reasons += _sequence_reasons(good) if is_sequence else _image_reasons(content, good, model, feature)
    names = [item["name"] for item in good.get("inputs", [])]
    inputs = [item.name for item in model.inputs]
    reasons += [
        f"inputs: the model has no input {name!r}{nearest(name, inputs)}" for name in names if name not in inputs
    ]
    counts = {good[key] for key in ("used_image_num", "used_sample_num") if key in good}
    if len(counts) > 1:
        reasons.append("used_image_num and used_sample_num differ; the tool uses the second")
    if reasons:
        raise Refused(*(f"{path}: {reason}" for reason in reasons))
    return Config(
        content, Path(good["path"]), max(counts, default=0), feature, weight, tuple(good.get("skip_quant_op_names", ()))
    )


def _parsed(path: Path) -> dict[str, Any]:
    def without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        content = dict(pairs)
        if len(content) < len(pairs):
            raise ValueError("a key occurs twice")
        return content

    try:
        content = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=without_duplicates)
    except OSError:
        raise Refused(f"{path}: no such file") from None
    except ValueError as error:
        raise Refused(f"{path} is not JSON: {error}") from None
    if not isinstance(content, dict):
        raise Refused(f"{path}: must be a JSON object")
    return content


def _method_reasons(good: dict[str, Any], feature: str, weight: str, model: Model) -> list[str]:
    reasons = []
    if feature == "EMA":
        if weight != "MAX_ABS":
            reasons.append(f"weight_quantize_method {weight}: has no effect with EMA, which trains the weights")
        if good.get("skip_quant_op_names"):
            reasons.append("skip_quant_op_names: has no effect with EMA, which quantizes every layer; use KL")
        clamps = ("feature_clamp_value", "weight_clamp_value")
        reasons += [f"{key}: has no effect with EMA" for key in clamps if good.get(key, 127) != 127]
    elif good.get("winogradOpt"):
        reasons.append(f"winogradOpt: has no effect with {feature}, only with EMA")
    if feature != "EMA" and any(op.kind == "BatchNorm" for op in model.ops):
        reasons.append(
            f"feature_quantize_method {feature}: the model has BatchNorm operators, for which the tool always uses "
            "EMA; convert the model without --forTraining, or write EMA"
        )
    return reasons


def _skip_reasons(names: list[str], model: Model) -> list[str]:
    ops = {op.name for op in model.ops}
    reasons = []
    for name in names:
        if name in ops:
            continue
        producer = next((op.name for op in model.ops if name in op.output_names), "")
        hint = f"; operator {producer!r} writes that tensor" if producer else nearest(name, sorted(ops))
        reasons.append(f"skip_quant_op_names: the model has no operator {name!r}, so the tool skips nothing{hint}")
    return reasons


def _sequence_reasons(good: dict[str, Any]) -> list[str]:
    return [
        f"{key}: has no effect with input_type sequence, whose numbers are fed unmodified; write normalized numbers"
        for key in ("mean", "normal")
        if key in good
    ]


def _image_reasons(content: dict[str, Any], good: dict[str, Any], model: Model, feature: str) -> list[str]:
    if len(model.inputs) != 1:
        names = ", ".join(item.name for item in model.inputs)
        return [f"input_type image: the model has {len(model.inputs)} inputs ({names}); the tool crashes; use sequence"]
    reasons = [
        f"{key} is missing: {why}"
        for key, why in (
            ("format", "the tool would use BGR"),
            ("mean", "the tool would feed 0..255; write [0, 0, 0] if that is right"),
            ("normal", "the tool would feed 0..255; write [1, 1, 1] if that is right"),
            ("width", "the model's input"),
            ("height", "the model's input"),
        )
        if key not in content
    ]
    if feature == "ADMM":
        reasons.append(
            "feature_quantize_method ADMM: the tool crashes on images; use input_type sequence, or KL or EMA"
        )
    channels = CHANNELS.get(good.get("format", ""), 0)
    reasons += [
        f"{key}: {len(good[key])} numbers, required {channels} for {good['format']}"
        for key in ("mean", "normal")
        if channels and key in good and not channels <= len(good[key]) <= 4
    ]
    if {"mean", "normal"} <= good.keys() and (problem := wrong_statistics(*(good[key][:channels] for key in _PIXELS))):
        reasons.append(f"mean and normal: {problem}")
    return reasons + _shape_reasons(model.inputs[0], good, channels)


def _shape_reasons(item: ModelInput, good: dict[str, Any], channels: int) -> list[str]:
    if len(item.shape) != 4 or item.data_type != "float":
        return [f"input_type image: the model's input {item.name} is {item.data_type} {list(item.shape)}; use sequence"]
    axes = ("height", "width", "channels") if item.layout == "NHWC" else ("channels", "height", "width")
    expected = dict(zip(axes, item.shape[1:], strict=True))
    reasons = [
        f"{key} {good[key]}: the model's input {item.name} has {expected[key]}; the tool would calibrate another size"
        for key in ("width", "height")
        if key in good and expected[key] > 0 and good[key] != expected[key]
    ]
    if channels and expected["channels"] > 0 and expected["channels"] != channels:
        reasons.append(
            f"format {good['format']}: {channels} channels, the model's input {item.name} has {expected['channels']}"
        )
    return reasons
