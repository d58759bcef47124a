"""What the check of accuracy measured of a language model."""

from __future__ import annotations

from dataclasses import dataclass, field

from pytest_mnnquant.findings.dataclass_json import OPTIONAL


@dataclass(frozen=True)
class BlamedLayer:
    """A layer, or a matrix of it, and the KL divergence if only its weights are those of the export."""

    name: str
    kl: float


@dataclass(frozen=True)
class LanguageMetrics:
    """The export's predictions against its source's on `tokens` tokens; KL divergences are means per token, in nats.

    `kl_low` and `kl_high` are a 95 % interval over texts. `weights_kl` is that of the decoded weights alone, without
    the runtime; `limit` the allowed one. `same_tokens` is the number of first, greedily generated tokens that are the
    same.
    """

    tokens: int
    kl: float
    kl_low: float
    kl_high: float
    kl_median: float
    kl_p99: float
    limit: float | None
    weights_kl: float | None
    top1_agreement: float
    top1_low: float
    top1_high: float
    log_perplexity_change: float
    log_perplexity_change_low: float
    log_perplexity_change_high: float
    perplexity: float
    source_perplexity: float
    text: str | None = field(default=None, metadata=OPTIONAL)
    source_text: str | None = field(default=None, metadata=OPTIONAL)
    same_tokens: int | None = field(default=None, metadata=OPTIONAL)
    blamed: tuple[BlamedLayer, ...] = field(default=(), metadata=OPTIONAL)
