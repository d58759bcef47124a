"""Runs an export with MNN.llm in child processes: a missing or cut weight file ends the process by a signal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from pytest_mnnquant.measurements.language_model import GeneratedText, Generation, Ids, Speed, TextRun
from pytest_mnnquant.runtime.jobs import FailureKind, Job, NativeFailure, run_job
from pytest_mnnquant.runtime.options import Send

LOW: Final = "low"
NORMAL: Final = "normal"
HIGH: Final = "high"
#: The name of the configuration that MNN.llm opens.
CONFIG: Final = "config.json"
_KILO: Final = 1024


@dataclass(frozen=True)
class Text:
    """What is fed: the first `windows` * `length` tokens of a file, or these ids; `steps` of them one by one too."""

    path: Path
    windows: int
    length: int
    steps: int
    ids: Ids | None = None
    probes: tuple[str, ...] = ()
    messages: tuple[str, ...] = ()


@dataclass(frozen=True)
class LanguageOptions:
    """How an export is run. `timeout` is in seconds, `memory` is "low" or "normal".

    `precision` is "high", "normal" or "low"; empty: that of the export's configuration.
    """

    timeout: float
    memory: str = LOW
    precision: str = ""
    threads: int = 1
    send: Send = run_job


def run_text(export: Path, text: Text, folder: Path, options: LanguageOptions) -> TextRun:
    """Logits of a text, in files of `folder`. Raises `NativeFailure`."""
    arguments = _shared(export, options)
    arguments |= {"windows": text.windows, "length": text.length, "steps": text.steps}
    arguments |= {"probes": list(text.probes), "messages": list(text.messages), "text": str(text.path.resolve())}
    if text.ids is not None:
        np.save(folder / "given.npy", text.ids)
        arguments["ids"] = "given.npy"
    result = options.send(Job("language_logits", f"running {export.name}", options.timeout, arguments), folder)
    try:
        encoded = tuple(tuple(int(token) for token in ids) for ids in result.values["encoded"])
        rendered = tuple(str(message) for message in result.values["rendered"])
        ids, logits, steps = (np.load(folder / name, mmap_mode="r") for name in ("ids.npy", "logits.npy", "steps.npy"))
    except (KeyError, TypeError, ValueError, OSError):
        raise NativeFailure(FailureKind.BAD_ANSWER, f"running {export.name}: unexpected reply") from None
    return TextRun(ids, logits, steps, encoded, rendered, result.machine)


@dataclass(frozen=True)
class Prompt:
    """What is continued by `tokens` tokens, `runs` times; `source_tokens` are only turned into text."""

    ids: Sequence[int]
    tokens: int
    runs: int = 1
    source_tokens: tuple[int, ...] | None = None


def generate_text(export: Path, prompt: Prompt, folder: Path, options: LanguageOptions) -> Generation:
    """Greedy generation after a prompt. Raises `NativeFailure`."""
    arguments = _shared(export, options)
    arguments |= {"prompt": [int(token) for token in prompt.ids], "tokens": prompt.tokens, "runs": prompt.runs}
    arguments["decode"] = [] if prompt.source_tokens is None else [list(prompt.source_tokens)]
    what = f"generating with {export.name}"
    values = options.send(Job("language_text", what, options.timeout, arguments), folder).values
    try:
        tokens = [tuple(int(token) for token in values["tokens"]), prompt.source_tokens or ()]
        pieces = zip(tokens, values["texts"], values["are_text"], strict=False)
        texts = [GeneratedText(ids, str(text), bool(is_text)) for ids, text, is_text in pieces]
        return Generation(
            result=texts[0],
            source=texts[1] if len(texts) > 1 else None,
            speeds=tuple(Speed(float(first), float(second)) for first, second in values["speeds"]),
            loaded_bytes=_growth(values["loaded_kb"], values["start_kb"]),
            peak_bytes=_growth(values["peak_kb"], values["start_kb"]),
        )
    except (KeyError, TypeError, ValueError, IndexError):
        raise NativeFailure(FailureKind.BAD_ANSWER, f"{what}: unexpected reply") from None


def _shared(export: Path, options: LanguageOptions) -> dict[str, Any]:
    config = str(export.resolve() / CONFIG)
    return {
        "config": config,
        "threads": options.threads,
        "memory": options.memory,
        "precision": options.precision,
    }


def _growth(after: int | None, before: int | None) -> int | None:
    return None if after is None or before is None else _KILO * max(0, after - before)
