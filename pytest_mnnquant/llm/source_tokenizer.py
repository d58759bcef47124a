"""The tokenizer and the chat template of a checkpoint, in the terms in which an exported tokenizer is described."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from pytest_mnnquant.llm.json_object import JsonObject, read_json
from pytest_mnnquant.llm.source_config import read_ids
from pytest_mnnquant.llm.tokenizer import AddedToken, Step

_BEHAVIOURS: Final = {"Isolated": 0, "MergedWithPrevious": 2}
_TABLES: Final = frozenset({"NFKC", "Precompiled", "NFKD", "NFC"})


@dataclass(frozen=True)
class SourceTokenizer:
    """What `tokenizer.json`, `tokenizer_config.json`, `chat_template.jinja` and `generation_config.json` say.

    `templates` are the chat templates that the checkpoint has, in the order in which transformers looks for them.
    `first_text` and `last_text` are the tokens that stand before and after a text, empty if no file names them.
    """

    tokens: Mapping[str, int] = field(repr=False)
    merges: tuple[tuple[int, int], ...] = field(repr=False)
    added: tuple[AddedToken, ...]
    steps: Mapping[str, Step]
    single: tuple[int, ...]
    templates: tuple[str, ...] = field(repr=False)
    stop_ids: tuple[int, ...]
    first_text: str = ""
    last_text: str = ""

    @property
    def size(self) -> int:
        """The largest id plus one, added tokens included."""
        return max([*self.tokens.values(), *(token.id for token in self.added)], default=-1) + 1


def read_source_tokenizer(path: Path) -> SourceTokenizer:
    """Read the tokenizer of a checkpoint. Raises `BadExport`, `OSError` (no tokenizer.json)."""
    values = read_json(path / "tokenizer.json", "tokenizer.json")
    model = values.member("model")
    tokens, merges, settings = _model(model, values)
    added = tuple(
        AddedToken(
            item.integer("id"), item.text("content"), item.flag("special"), item.flag("lstrip"), item.flag("rstrip")
        )
        for item in values.objects("added_tokens")
    )
    steps = {
        "normalizer": _normalizer(values.member("normalizer")),
        "pre_tokenizer": _pre_tokenizer(values.member("pre_tokenizer")),
        "model": settings,
        "decoder": _decoder(values.member("decoder")),
    }
    configuration = _optional(path, "tokenizer_config.json")
    stops = [token.id for token in added if token.text and token.text == _content(configuration, "eos_token")] + [
        number for file in ("config.json", "generation_config.json") for number in _eos(path, file)
    ]
    return SourceTokenizer(
        tokens=tokens,
        merges=merges,
        added=added,
        steps=steps,
        single=_single(values),
        templates=_templates(path, configuration),
        stop_ids=tuple(sorted(set(stops))),
        first_text=_special_text(path, configuration, "bos_token"),
        last_text=_special_text(path, configuration, "eos_token"),
    )


def _optional(path: Path, file: str) -> JsonObject:
    return read_json(path / file, file) if (path / file).is_file() else JsonObject(file, {})


def _eos(path: Path, file: str) -> tuple[int, ...]:
    return read_ids(_optional(path, file), "eos_token_id")


def _content(values: JsonObject, key: str) -> str:
    """A token that is given as text or as an object with `content`."""
    is_object = isinstance(values.values.get(key), dict)
    return values.member(key).text("content") if is_object else values.text(key)


def _special_text(path: Path, configuration: JsonObject, key: str) -> str:
    return _content(configuration, key) or _content(_optional(path, "special_tokens_map.json"), key)


def _templates(path: Path, configuration: JsonObject) -> tuple[str, ...]:
    file = path / "chat_template.jinja"
    templates = [file.read_text(encoding="utf-8", errors="replace")] if file.is_file() else []
    if isinstance(configuration.values.get("chat_template"), str):
        templates.append(configuration.text("chat_template"))
    elif configuration.has("chat_template"):
        templates += [item.text("template") for item in configuration.objects("chat_template")]
    return tuple(templates)


def _model(model: JsonObject, values: JsonObject) -> tuple[dict[str, int], tuple[tuple[int, int], ...], Step]:
    """Tokens, merges in order of rank, and the settings of the model, as `export_mtok` writes them."""
    fallback = int(model.flag("byte_fallback"))
    if isinstance(model.values.get("vocab"), list):
        tokens = {str(item[0]): number for number, item in enumerate(model.array("vocab")) if isinstance(item, list)}
        return tokens, (), ("Unigram", model.integer("unk_id", 0), fallback)
    vocabulary = model.member("vocab")
    tokens = {text: vocabulary.integer(text) for text in vocabulary.values}
    if model.text("type") == "WordPiece":
        prefix, longest = model.text("continuing_subword_prefix", "##"), model.integer("max_input_chars_per_word", 100)
        return tokens, (), ("WordPiece", model.text("unk_token", "[UNK]"), prefix, longest)
    merges = []
    for item in model.array("merges"):
        pair = item.split(" ", 1) if isinstance(item, str) else item
        if isinstance(pair, list) and len(pair) == 2:
            merges.append((tokens.get(str(pair[0]), 0xFFFFFFFF), tokens.get(str(pair[1]), 0xFFFFFFFF)))
    return tokens, tuple(merges), ("BPE", fallback, _byte_level(values))


def _byte_level(values: JsonObject) -> int:
    """Whether bytes become letters although the pre-tokenizer does not say so."""
    outer = values.member("pre_tokenizer")
    if outer.text("type") != "Sequence" or any(
        step.text("type") == "ByteLevel" for step in outer.objects("pretokenizers")
    ):
        return 0
    decoder = values.member("decoder")
    kinds = [decoder.text("type"), *(step.text("type") for step in decoder.objects("decoders"))]
    return int("ByteLevel" in kinds)


def _pattern(step: JsonObject) -> str:
    if isinstance(step.values.get("pattern"), str):
        return step.text("pattern")
    pattern = step.member("pattern")
    return pattern.text("Regex", pattern.text("String"))


def _normalizer(step: JsonObject) -> Step:
    kind = step.text("type")
    if kind in _TABLES:
        return ("Table",)
    if kind == "Prepend":
        return kind, step.text("prepend")
    if kind == "Replace":
        return kind, step.member("pattern").text("String"), step.text("content")
    if kind == "Sequence":
        return kind, *(_normalizer(inner) for inner in step.objects("normalizers"))
    if kind == "BertNormalizer":
        lower = step.flag("lowercase", True)
        accents = step.flag("strip_accents", lower) if "strip_accents" in step.values else False
        flags = (step.flag("clean_text", True), step.flag("handle_chinese_chars", True), accents, lower)
        return "Bert", *map(int, flags)
    if kind in ("Lowercase", "StripAccents"):
        return "Bert", 0, 0, int(kind == "StripAccents"), int(kind == "Lowercase")
    if kind == "Strip":
        return kind, int(step.flag("strip_left", True)), int(step.flag("strip_right", True))
    return ()


def _pre_tokenizer(step: JsonObject) -> Step:
    kind = step.text("type")
    if kind in ("ByteLevel", "Digits"):
        return kind, int(step.flag("use_regex", True) if kind == "ByteLevel" else step.flag("individual_digits"))
    if kind == "Metaspace":
        return kind, step.text("replacement", "\u2581"), int(step.flag("add_prefix_space", True))
    if kind == "Split":
        return kind, _pattern(step), int(step.flag("invert")), _BEHAVIOURS.get(step.text("behavior", "Isolated"), 1)
    if kind == "BertPreTokenizer":
        return ("Bert",)
    if kind == "Sequence":
        return kind, *(_pre_tokenizer(inner) for inner in step.objects("pretokenizers"))
    return ("Split", "\\s+", 0, 1) if kind == "WhitespaceSplit" else ()


def _decoder(step: JsonObject) -> Step:
    kind = step.text("type")
    if kind == "Metaspace":
        return kind, step.text("replacement", "\u2581"), int(step.flag("add_prefix_space", True))
    if kind == "WordPiece":
        return kind, step.text("prefix", "##"), int(step.flag("cleanup", True))
    if kind == "Replace":
        return kind, step.member("pattern").text("String"), step.text("content")
    if kind == "Strip":
        return kind, step.text("content"), step.integer("start", 0), step.integer("stop", 0)
    if kind == "Sequence":
        return kind, *(_decoder(inner) for inner in step.objects("decoders"))
    return (kind,) if kind in ("ByteFallback", "Fuse") else ("ByteLevel",)


def _single(values: JsonObject) -> tuple[int, ...]:
    """The tokens around one text, -1 for the text itself; empty if no program is known."""
    processor = values.member("post_processor")
    programs = [processor, *processor.objects("processors")]
    template = next((program for program in programs if program.text("type") == "TemplateProcessing"), None)
    if template is None:
        return ()  # Classes of transformers may add a token before the text by themselves.
    special, result = template.member("special_tokens"), []
    for item in template.objects("single"):
        if item.has("Sequence"):
            result.append(-1)
        elif item.has("SpecialToken"):
            result.extend(special.member(item.member("SpecialToken").text("id")).integers("ids"))
    return tuple(result)
