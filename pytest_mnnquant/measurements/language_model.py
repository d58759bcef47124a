"""What the runs of a language model gave: logits, generated text, speed and memory."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pytest_mnnquant.measurements.host import TargetMachine
from pytest_mnnquant.measurements.timing import PairedTimes

Ids = npt.NDArray[np.int64]
Logits = npt.NDArray[np.float32]


@dataclass(frozen=True)
class TextRun:
    """Logits of texts as a runtime computed them.

    `ids` [texts, tokens], `logits` [texts, tokens, vocabulary], which may be a mapped file. `steps` [steps, vocabulary]
    are those of the last tokens of the first text, fed one by one. `encoded` are the ids of the probes, `rendered` the
    messages in the chat template. `machine` is the target; None: this host.
    """

    ids: Ids
    logits: Logits
    steps: Logits
    encoded: tuple[tuple[int, ...], ...] = ()
    rendered: tuple[str, ...] = ()
    machine: TargetMachine | None = None


@dataclass(frozen=True)
class Speed:
    """Tokens per second of reading a prompt and of generation, in one run; 0: not reported."""

    prefill: float
    decode: float


@dataclass(frozen=True)
class PairedSpeeds:
    """Times of an export and a reference export, measured in turn: seconds per prompt, and per token after it."""

    prompt: PairedTimes
    token: PairedTimes


@dataclass(frozen=True)
class GeneratedText:
    """Generated tokens and their text. `is_text`: the bytes of all tokens are UTF-8."""

    tokens: tuple[int, ...]
    text: str
    is_text: bool

    @property
    def is_constant(self) -> bool:
        """Whether a single token is repeated."""
        return len(self.tokens) >= 8 and len(set(self.tokens)) == 1


@dataclass(frozen=True)
class Generation:
    """Greedy generation in one memory mode, and the text of the tokens that the source generates.

    `loaded_bytes` is the growth of resident memory by loading the model, `peak_bytes` the largest growth; None if the
    system does not report it.
    """

    result: GeneratedText
    source: GeneratedText | None
    speeds: tuple[Speed, ...]
    loaded_bytes: int | None
    peak_bytes: int | None

    @property
    def same_tokens(self) -> int:
        """The number of first tokens that both have."""
        pairs = zip(self.result.tokens, self.source.tokens if self.source else (), strict=False)
        return next((place for place, (first, second) in enumerate(pairs) if first != second), self._common)

    @property
    def _common(self) -> int:
        return min(len(self.result.tokens), len(self.source.tokens)) if self.source else 0
