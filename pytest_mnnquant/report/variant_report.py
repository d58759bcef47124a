"""What a report says of one variant: its files, its layers, its checks and their findings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from pytest_mnnquant.findings.catalogue import RULES
from pytest_mnnquant.findings.check_metrics import M, Metrics, metrics_of
from pytest_mnnquant.findings.figures import variant_label
from pytest_mnnquant.findings.finding import FAILED, INCONCLUSIVE, SKIPPED, FindingId
from pytest_mnnquant.findings.rule import Rule, Severity
from pytest_mnnquant.measurements.chart_samples import ChartSamples


@dataclass(frozen=True, slots=True)
class ModelFile:
    """A `.mnn` file. `sha256` is None if the file is gone; `uuid` is the one that MNN wrote into it."""

    path: str
    bytes: int
    sha256: str | None
    uuid: str


@dataclass(frozen=True, slots=True)
class ParamsFile:
    """The params file that a variant was made with."""

    path: str
    sha256: str


@dataclass(frozen=True, slots=True)
class LayerReport:
    """One layer of the float model, and how the variant stores it.

    `storage` and `bits` are None if the variant does not have the layer. `bytes` and `float_bytes` are those of its
    weights. `scale_in` and `scale_out` are None if the layer has no scales of activations. `quantized` is whether it is
    stored in the requested precision, `skipped` whether it was requested to stay float. `module` is the module of the
    PyTorch model, None if that is not known.
    """

    name: str
    op: str
    weights: int
    storage: str | None
    bits: int | None
    bytes: int
    float_bytes: int
    scale_in: float | None
    scale_out: float | None
    quantized: bool
    skipped: bool
    module: str | None

    @property
    def title(self) -> str:
        """The name that the user gave it, if it is known."""
        return self.module or self.name


@dataclass(frozen=True, slots=True)
class ReportedFinding:
    """A finding of a check. `variant` is the label of its variant, empty for the check of the baseline file.

    `cause` and `fix` are empty if they are not known. `follows` identifies the error that this one is a consequence of;
    `consequences` are the findings of all checks of the variant that follow from this one, or are the same in other
    layers.
    """

    id: FindingId
    severity: Severity
    message: str
    cause: str = ""
    fix: str = ""
    variant: str = ""
    follows: FindingId | None = None
    consequences: tuple[ReportedFinding, ...] = ()

    @property
    def code(self) -> str:
        """The code of the rule."""
        return self.id.code

    @property
    def check(self) -> str:
        """The check that reported it."""
        return self.id.check

    @property
    def layer(self) -> str:
        """The layer that it is about; empty if it is about the whole model."""
        return self.id.layer

    @property
    def rule(self) -> Rule:
        """The rule that was broken."""
        return RULES[self.code]

    @property
    def title(self) -> str:
        """The rule, and the layer that broke it."""
        return self.id.title


@dataclass(frozen=True, slots=True)
class CheckReport:
    """The outcome of one check. `reason` explains a skipped or inconclusive one.

    `metrics` is None if it measured nothing. `ignored` counts the findings that `--mnn-ignore` hid, by code.
    `not_applicable`: it was skipped because the recipe has nothing for it to judge.
    """

    check: str
    outcome: str
    findings: tuple[ReportedFinding, ...] = ()
    metrics: Metrics | None = None
    reason: str = ""
    ignored: Mapping[str, int] = field(default_factory=dict)
    not_applicable: bool = False

    @property
    def note(self) -> str:
        """What the check has to say beside its findings; empty if nothing."""
        return getattr(self.metrics, "note", None) or ""

    @property
    def is_unresolved(self) -> bool:
        """Whether something was not judged that could have been: with `--mnn-strict` this fails."""
        return self.outcome in (SKIPPED, INCONCLUSIVE) and not self.not_applicable

    @property
    def is_consequence(self) -> bool:
        """Whether it failed by consequences of other checks' errors only."""
        severities = {finding.severity for finding in self.findings}
        is_explained = Severity.CONSEQUENCE in severities and Severity.ERROR not in severities
        return self.outcome == FAILED and is_explained


@dataclass(frozen=True, slots=True)
class VariantReport:
    """One variant, on this host or on a target (`target` is then its name).

    `worker` names the other host that made and judged it, empty for the host of the run. `quantized` is None if there
    is no model to judge; `coverage` (0 to 1), `drift` (of BatchNorm statistics, in standard deviations) and
    `provenance` (how it was made, as JSON) are then not known either. The layers, largest first, are those of the
    variant on the host.
    """

    recipe: str
    mode: str | None
    target: str = ""
    worker: str = ""
    quantized: ModelFile | None = None
    params: ParamsFile | None = None
    coverage: float | None = None
    drift: float = 0.0
    provenance: Mapping[str, Any] = field(default_factory=dict)
    layers: tuple[LayerReport, ...] = ()
    checks: tuple[CheckReport, ...] = ()
    charts: ChartSamples = field(default_factory=ChartSamples)

    @property
    def label(self) -> str:
        """Its name in ids and tables."""
        return variant_label(self.recipe, self.mode, self.target)

    def check(self, name: str) -> CheckReport | None:
        """The check of this name; None if it did not run."""
        return next((check for check in self.checks if check.check == name), None)

    def metrics(self, kind: type[M]) -> M | None:
        """What the check with metrics of this kind measured; None if it measured nothing."""
        return metrics_of(kind, self.checks)

    def findings(self, *severities: Severity) -> Iterator[ReportedFinding]:
        """The findings of its checks that have one of these severities."""
        yield from (finding for check in self.checks for finding in check.findings if finding.severity in severities)
