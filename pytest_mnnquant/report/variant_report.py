"""One variant in a report: its files, its layers, its checks and their findings."""

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
from pytest_mnnquant.measurements.step_cost import StepCost


@dataclass(frozen=True, slots=True)
class ModelFile:
    """A `.mnn` file. `sha256` is None if the file no longer exists; `uuid` is the one that MNN wrote into it."""

    path: str
    bytes: int
    sha256: str | None
    uuid: str


@dataclass(frozen=True, slots=True)
class ParamsFile:
    """The params file that a variant was built with."""

    path: str
    sha256: str


@dataclass(frozen=True, slots=True)
class LayerReport:
    """One layer of the float model, and its storage in the variant.

    `storage` and `bits` are None if the layer is missing in the variant. `bytes` and `float_bytes` are those of its
    weights. `scale_in` and `scale_out` are None if the layer has no scales of activations. `quantized`: the layer is
    stored in the requested precision. `skipped`: the layer was requested to stay float. `module` is the module of the
    PyTorch model, None if unknown.
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
        """The layer's name in the user's model, if it is known."""
        return self.module or self.name


@dataclass(frozen=True, slots=True)
class ReportedFinding:
    """A finding of a check. `variant` is the label of its variant, empty for the check of the baseline file.

    `cause` and `fix` are empty if unknown. `follows` identifies the error that caused this one. `consequences` are the
    findings of all checks of the variant that follow from this one, and the same finding in other layers.
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
        """The affected layer; empty for the whole model."""
        return self.id.layer

    @property
    def rule(self) -> Rule:
        """The rule that was broken."""
        return RULES[self.code]

    @property
    def title(self) -> str:
        """The rule and the layer."""
        return self.id.title


@dataclass(frozen=True, slots=True)
class CheckReport:
    """The outcome of one check. `reason` explains a skipped or inconclusive one.

    `metrics` is None if the check measured nothing. `ignored` counts the findings that `--mnn-ignore` hid, by code.
    `not_applicable`: the check was skipped because it does not apply to the recipe. `steps` are what the check cost; a
    step that several checks need costs the first one only.
    """

    check: str
    outcome: str
    findings: tuple[ReportedFinding, ...] = ()
    metrics: Metrics | None = None
    reason: str = ""
    ignored: Mapping[str, int] = field(default_factory=dict)
    not_applicable: bool = False
    steps: tuple[StepCost, ...] = ()

    @property
    def note(self) -> str:
        """A note of the check besides its findings; may be empty."""
        return getattr(self.metrics, "note", None) or ""

    @property
    def is_unresolved(self) -> bool:
        """Whether the check applies but gave no verdict; with `--mnn-strict` it fails."""
        return self.outcome in (SKIPPED, INCONCLUSIVE) and not self.not_applicable

    @property
    def is_consequence(self) -> bool:
        """Whether the check failed only because of consequences of other checks' errors."""
        severities = {finding.severity for finding in self.findings}
        is_explained = Severity.CONSEQUENCE in severities and Severity.ERROR not in severities
        return self.outcome == FAILED and is_explained


@dataclass(frozen=True, slots=True)
class VariantReport:
    """One variant, on this host or on a target (`target` is then its name).

    `worker` is the other host that built and checked the variant, empty for the host of the run. `quantized` is None if
    the variant could not be built; then `coverage` (0 to 1), `drift` (of BatchNorm statistics, in standard deviations)
    and `provenance` (how the variant was built, as JSON) are None too. The layers, largest first, are those of the
    variant on the host. `is_export`: it is the export of a language model.
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
    is_export: bool = False

    @property
    def label(self) -> str:
        """The variant's name in ids and tables."""
        return variant_label(self.recipe, self.mode, self.target)

    def check(self, name: str) -> CheckReport | None:
        """The check of this name; None if it did not run."""
        return next((check for check in self.checks if check.check == name), None)

    def metrics(self, kind: type[M]) -> M | None:
        """The metrics of this kind; None if not measured."""
        return metrics_of(kind, self.checks)

    def findings(self, *severities: Severity) -> Iterator[ReportedFinding]:
        """The findings of the variant's checks with one of these severities."""
        yield from (finding for check in self.checks for finding in check.findings if finding.severity in severities)
