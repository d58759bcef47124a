"""What the tokenizer and the chat template of a source make of texts, by the packages that people use for that.

`tokenizers` reads tokenizer.json; `transformers` chooses the tokenizer by the type of the model, which may be another
one. Both are optional.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pytest_mnnquant.llm.json_object import BadExport, JsonObject, read_json

Encoded = tuple[tuple[int, ...], ...]


def encode(folder: Path, texts: Sequence[str], *, by_transformers: bool = False) -> Encoded | None:
    """The ids of texts; None without the package. Raises `BadExport` if it can't load the tokenizer."""
    try:
        tokenizer = _by_transformers(folder) if by_transformers else _by_tokenizers(folder)
    except ImportError:
        return None
    except Exception as error:
        raise BadExport(str(folder), "tokenizer", f"{type(error).__name__}: {str(error)[:200]}") from None
    return tuple(tuple(int(token) for token in tokenizer(text)) for text in texts)


def render(template: str, tokens: dict[str, str], messages: Sequence[str]) -> tuple[str, ...] | None:
    """Messages of a user in a chat template, with the request for an answer.

    None if the template can't be rendered, or writes the time of day or the date: two computations of it may differ.
    Settings and functions are those of transformers (utils/chat_template_utils.py).
    """
    try:
        from jinja2.sandbox import ImmutableSandboxedEnvironment
    except ImportError:
        return None
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    clock = _Clock()
    environment.globals.update(raise_exception=_raise, strftime_now=clock.strftime_now)
    environment.filters["tojson"] = _to_json
    try:
        compiled = environment.from_string(template)
        rendered = tuple(
            compiled.render(messages=[{"role": "user", "content": text}], add_generation_prompt=True, **tokens)
            for text in messages
        )
    except Exception:
        return None  # Such as a function that only transformers has.
    return None if clock.is_read else rendered


class _Clock:
    """The time for templates. `is_read` says whether a template requested it."""

    def __init__(self) -> None:
        self.is_read = False

    def strftime_now(self, form: str) -> str:
        self.is_read = True
        return datetime.datetime.now().strftime(form)


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """JSON as transformers writes it: unlike jinja2's own filter, without escapes for HTML."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def special_tokens(folder: Path) -> dict[str, str]:
    """The first and the last token of a text, as templates name them."""
    path = folder / "tokenizer_config.json"
    values = read_json(path, path.name) if path.is_file() else JsonObject(path.name, {})
    tokens = {}
    for key in ("bos_token", "eos_token"):
        is_object = isinstance(values.values.get(key), dict)
        tokens[key] = values.member(key).text("content") if is_object else values.text(key)
    return tokens


def _raise(message: str) -> None:
    raise ValueError(message)


def _by_tokenizers(folder: Path) -> Any:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    return lambda text: tokenizer.encode(text, add_special_tokens=False).ids


def _by_transformers(folder: Path) -> Any:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
    return lambda text: tokenizer(text, add_special_tokens=False)["input_ids"]
