"""The two forms of a params file, binary protobuf and JSON, read into one tree whose nodes have their position.

Message layout: MNN 3.6.1, `tools/converter/source/compression/MNN_compression.proto`. JSON keys may be in camel case or
in snake case, as in protobuf.
"""

from __future__ import annotations

import difflib
import json
import struct
from dataclasses import dataclass
from typing import Any, Final

from pytest_mnnquant.mnnfile import wire
from pytest_mnnquant.mnnfile.wire import BadParams

_HIGHEST_FIELD: Final = 15


@dataclass(frozen=True, slots=True)
class Key:
    """A field of a message. `kind`: text, int, bool, enum, floats, any, or the name of a message.

    `number` is its number in the binary form. `many`: a list of messages.
    """

    kind: str
    number: int
    many: bool = False


_TENSOR: Final = {"name": Key("text", 1), "bits": Key("int", 2), "scales": Key("floats", 3)}
MESSAGES: Final[dict[str, dict[str, Key]]] = {
    "Pipeline": {
        "version": Key("text", 1),
        "algo": Key("Algorithm", 2, many=True),
        "mnn_uuid": Key("text", 3),
        "for_guide": Key("bool", 4),
    },
    "Algorithm": {"type": Key("enum", 1), "quant_params": Key("Quantize", 2), "prune_params": Key("any", 3)},
    "Quantize": {"round_mode": Key("enum", 1), "layer": Key("Layer", 4, many=True)},
    "Layer": {
        "input": Key("Activation", 1, many=True),
        "weight": Key("Weight", 2, many=True),
        "output": Key("Activation", 3, many=True),
        "method": Key("enum", 4),
        "wino_params": Key("any", 5),
        "op_name": Key("text", 6),
        "subgraph_name": Key("text", 7),
        "conv": Key("any", 8),
    },
    "Activation": {
        **_TENSOR,
        "zero_point": Key("int", 4),
        "clamp_min": Key("int", 5),
        "clamp_max": Key("int", 6),
    },
    "Weight": {
        **_TENSOR,
        "clamp_min": Key("int", 4),
        "clamp_max": Key("int", 5),
        "asymmetric": Key("bool", 6),
        "block_size": Key("int", 7),
    },
}


@dataclass(frozen=True, slots=True)
class Node:
    """A message: its fields by name, and its position in the file for error messages."""

    where: str
    values: dict[str, Any]

    def first(self, key: str) -> Node | None:
        """The first message of a list, None for an empty one."""
        messages: list[Node] = self.values.get(key, [])
        return messages[0] if messages else None


# Binary -------------------------------------------------------------------------------------------------------------


def from_binary(data: bytes) -> Node:
    """The tree of a binary params file. Raises `BadParams` with the byte position of the error."""
    return _binary("Pipeline", data, 0)


def _binary(message: str, data: bytes, position: int) -> Node:
    numbers = {key.number: (name, key) for name, key in MESSAGES[message].items()}
    values: dict[str, Any] = {}
    for field in wire.fields(data, position):
        if field.number not in numbers:
            if field.number > _HIGHEST_FIELD:
                raise BadParams(f"byte {field.position}: unknown field {field.number}; this is not a params file")
            continue  # A newer MNN may know it.
        name, key = numbers[field.number]
        value = _binary_value(key, field)
        if key.many or key.kind == "floats":
            values.setdefault(name, []).extend(value if key.kind == "floats" else [value])
        else:
            values[name] = value
    return Node(f"byte {position}", values)


def _binary_value(key: Key, field: wire.Field) -> Any:
    raw = field.value
    if key.kind in ("int", "enum", "bool"):
        if not isinstance(raw, int):
            raise BadParams(f"byte {field.position}: field {field.number} is not a number")
        return wire.signed(raw)
    if not isinstance(raw, bytes):
        raise BadParams(f"byte {field.position}: field {field.number} is a number where text or a message is expected")
    if key.kind == "floats":
        if len(raw) % 4:
            raise BadParams(f"byte {field.position}: {len(raw)} bytes are not a multiple of 4 (floats)")
        return struct.unpack(f"<{len(raw) // 4}f", raw)
    if key.kind == "text":
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError:
            raise BadParams(f"byte {field.position}: field {field.number} is not UTF-8 text") from None
    return raw if key.kind == "any" else _binary(key.kind, raw, field.position)


# JSON ---------------------------------------------------------------------------------------------------------------


def from_json(data: bytes) -> Node:
    """The tree of a JSON params file. Raises `BadParams` with the path of the key at fault.

    MNN ignores unknown keys; here they are errors, since a mistyped key would silently have no effect.
    """
    try:
        root = json.loads(data)
    except json.JSONDecodeError as error:
        raise BadParams(f"not JSON: line {error.lineno}, column {error.colno}: {error.msg}") from None
    except (ValueError, RecursionError) as error:
        raise BadParams(f"not JSON: {error}") from None
    return _json("Pipeline", root, "")


def _json(message: str, value: Any, where: str) -> Node:
    if not isinstance(value, dict):
        raise BadParams(f"{where or 'the top level'} is not an object")
    keys = MESSAGES[message]
    values = {}
    for name, item in value.items():
        snake = "".join("_" + letter.lower() if letter.isupper() else letter for letter in name)
        place = f"{where}.{name}" if where else name
        if snake not in keys:
            near = difflib.get_close_matches(snake, keys, 1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise BadParams(f"{place}: unknown key, which MNN ignores{hint}")
        values[snake] = _json_value(keys[snake], item, place)
    return Node(where or "the top level", values)


def _json_value(key: Key, value: Any, where: str) -> Any:
    if key.many:
        if not isinstance(value, list):
            raise BadParams(f"{where} is not a list of objects")
        return [_json(key.kind, item, f"{where}[{number}]") for number, item in enumerate(value)]
    if key.kind in MESSAGES:
        return _json(key.kind, value, where)
    if key.kind == "floats":
        if not isinstance(value, list):
            raise BadParams(f"{where} is not a list of numbers")
        return [_number(item, f"{where}[{number}]") for number, item in enumerate(value)]
    if key.kind == "int":
        number = _number(value, where)
        if not number.is_integer():
            raise BadParams(f"{where}: {value!r} is not a whole number")
        return int(number)
    wanted: tuple[type, ...] = {"text": (str,), "bool": (bool,), "enum": (str, int)}.get(key.kind, (object,))
    if not isinstance(value, wanted):
        raise BadParams(f"{where}: {value!r} is not {key.kind}")
    return value


def _number(value: Any, where: str) -> float:
    """A number, also as a string: protobuf writes NaN, infinity and large numbers as strings."""
    try:
        if isinstance(value, bool) or value is None:
            raise ValueError
        return float(value)
    except (TypeError, ValueError, OverflowError):
        raise BadParams(f"{where}: {value!r} is not a number") from None
