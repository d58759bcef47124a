"""The export of a language model under test: its evidence, its checks, its place in the report."""

from __future__ import annotations

from collections.abc import Collection
from functools import cached_property
from pathlib import Path
from typing import Final

from pytest_mnnquant.cache.manifest import file_digest
from pytest_mnnquant.checks.llm.collect import collect_evidence
from pytest_mnnquant.checks.llm.evidence import ExportEvidence
from pytest_mnnquant.checks.llm.registry import EXPORT_CHECKS, check_alone
from pytest_mnnquant.checks.llm.size import check_size
from pytest_mnnquant.config.settings import ModelSettings
from pytest_mnnquant.evidence.attempt import Attempt
from pytest_mnnquant.evidence.language_checks import LANGUAGE_CHECKS, run_language_check
from pytest_mnnquant.evidence.language_encodings import compare_encodings, with_encodings
from pytest_mnnquant.evidence.language_runs import LanguageRuns, temporary_folder
from pytest_mnnquant.evidence.steps import StepFailed, step
from pytest_mnnquant.findings import defaults
from pytest_mnnquant.findings.catalogue import CHECK_NAMES, check_named
from pytest_mnnquant.findings.file_metrics import CoverageMetrics
from pytest_mnnquant.findings.finding import FAILED, Finding, Result, without_ignored
from pytest_mnnquant.findings.root_cause import with_root_causes
from pytest_mnnquant.llm.checkpoint import Checkpoint, read_checkpoint
from pytest_mnnquant.llm.matrix import StoredMatrix
from pytest_mnnquant.llm.reference import Reference, read_reference
from pytest_mnnquant.llm.requests import RequestedForm
from pytest_mnnquant.measurements.language_model import PairedSpeeds
from pytest_mnnquant.mnnfile.model import BadModel
from pytest_mnnquant.mnnfile.storage import Storage
from pytest_mnnquant.quantize.export_pipeline import run_export_pipeline
from pytest_mnnquant.recipes.names import recipe_named
from pytest_mnnquant.recipes.recipe import PipelineRecipe
from pytest_mnnquant.report.variant_report import LayerReport, ModelFile, VariantReport
from pytest_mnnquant.runtime.jobs import NativeFailure
from pytest_mnnquant.sources.spec import SourceError
from pytest_mnnquant.sources.user_code import UserCodeExit
from pytest_mnnquant.targets.target import Target

#: The name of an export in ids and reports, in the place of a recipe.
LABEL: Final = "export"
#: The checks of an export, of its files and of its runs, in order of dependence.
ALL_EXPORT_CHECKS: Final = tuple(name for name in CHECK_NAMES if name in EXPORT_CHECKS or name in LANGUAGE_CHECKS)


class BadSource(Exception):
    """The checkpoint can't be read."""


class ExportUnderTest:
    """One export and its checkpoint, or the reference in its place, read when a check first needs them."""

    def __init__(self, settings: ModelSettings, checkpoint: Path) -> None:
        self.settings = settings
        self.checkpoint = checkpoint
        self._results: dict[str, Result] = {}

    @property
    def target(self) -> str:
        """The name of the target that runs it; empty for this host."""
        return ""

    @property
    def label(self) -> str:
        """Its name in ids."""
        return LABEL

    @property
    def checks(self) -> tuple[str, ...]:
        """The names of its checks, in order of dependence."""
        return ALL_EXPORT_CHECKS

    @property
    def full_name(self) -> str:
        """The names of its model and of itself, as messages have them."""
        return f"{self.settings.name} {self.label}"

    @cached_property
    def _attempt(self) -> Attempt[ExportEvidence]:
        errors = (BadModel, OSError, BadSource, StepFailed, SourceError, NativeFailure, UserCodeExit)
        return Attempt.of(self._collect, *errors)

    def _collect(self) -> ExportEvidence:
        with step("read the source", BadSource):
            source = self._source()
        if self.settings.quantized is not None:
            path = self.settings.base / self.settings.quantized
        else:
            with step("export the model"):
                path = self._exported()
        with step("read the export", BadSource):
            return collect_evidence(path, source, requested_form(self.settings))

    def _exported(self) -> Path:
        """The folder that the pipeline of the recipe makes. Raises `SourceError`, `NativeFailure`."""
        recipe = recipe_named(self.settings.recipes[0])
        if not isinstance(recipe, PipelineRecipe):
            raise SourceError(f"{recipe.name}: give the export of a language model: --mnn-quantized FOLDER")
        settings, folder = self.settings, Path(temporary_folder(self))
        return run_export_pipeline(recipe.pipeline, settings.base, self.checkpoint, folder, settings.timeout)

    def _source(self) -> Checkpoint:
        if self.checkpoint.is_file():
            return self._reference.source
        try:
            return read_checkpoint(self.checkpoint)
        except (BadModel, OSError) as error:
            raise BadSource(str(error)) from None

    @cached_property
    def _reference(self) -> Reference:
        try:
            return read_reference(self.checkpoint, Path(temporary_folder(self)))
        except (BadModel, OSError) as error:
            raise BadSource(str(error)) from None

    @cached_property
    def runs(self) -> LanguageRuns:
        """The runs of the export. Raises `BadModel`, `OSError`, `BadSource`."""
        reference = self._reference if self.checkpoint.is_file() else None
        return LanguageRuns(self.settings, self._attempt.value, reference)

    @property
    def readable_evidence(self) -> ExportEvidence | None:
        """The export and its source, if both could be read when a check needed them."""
        return self._attempt.value if self._results and self._attempt.error is None else None

    @property
    def timed_speeds(self) -> PairedSpeeds | None:
        """The speed beside the reference export, if it was measured."""
        return self.runs.timed_speeds if self.readable_evidence is not None else None

    def run_check(self, name: str, selected: Collection[str] = ()) -> Result:
        """The result of a check. Its findings follow from those of the `selected` checks, which run with it."""
        result = self._result_alone(name)
        if result.outcome != FAILED:
            return result
        # Static checks run even before their turn, so that causes and consequences are known at once.
        names = [
            other
            for other in ALL_EXPORT_CHECKS
            if other == name or (other in selected and (other in EXPORT_CHECKS or other in self._results))
        ]
        return with_root_causes(name, {other: self._result_alone(other) for other in names})

    def _result_alone(self, name: str) -> Result:
        if name not in self._results:
            self._results[name] = self._judge(name)
        return self._results[name]

    def _judge(self, name: str) -> Result:
        try:
            evidence = self._attempt.value
            with step(f"judge {name}"):
                return without_ignored(self._judged(name, evidence), self.settings.ignore)
        except BadSource as error:
            fix = "give the folder of a complete checkpoint"
            return Result.from_findings(name, [Finding("MNQ101", str(error), fix=fix)])
        except StepFailed as error:
            return Result.from_findings(name, [error.finding])
        except (SourceError, UserCodeExit) as error:
            return Result.from_findings(name, [Finding("MNQ101", str(error))])
        except NativeFailure as error:
            return Result.from_findings(name, [Finding("MNQ201", error.what, fix=error.fix)])
        except (BadModel, OSError) as error:
            return Result.from_findings(name, [Finding("MNQ202", str(error), fix="export the model again")])

    def _judged(self, name: str, evidence: ExportEvidence) -> Result:
        if name in LANGUAGE_CHECKS:
            return run_language_check(name, self.runs)
        if name == "weights" and not evidence.source.has_values:
            return Result.skipped(name, "a reference holds no weights: give the checkpoint to compare them", True)
        if name == "size":
            return check_size(evidence, self.settings.limits.min_size_ratio)
        result = check_alone(name, evidence)
        return with_encodings(result, lambda: compare_encodings(self.runs)) if name == "conversion" else result

    @property
    def report(self) -> VariantReport:
        """The export in the report, without its checks."""
        if self._attempt.error is not None:
            return VariantReport(LABEL, None, self.target, is_export=True)
        folder = self._attempt.value.folder
        graph = folder.path / folder.graph.file
        metrics = self._result_alone("coverage").metrics
        matrices = sorted(folder.graph.matrices, key=lambda matrix: -matrix.count)
        return VariantReport(
            LABEL,
            None,
            self.target,
            quantized=ModelFile(str(graph), folder.shipped_size, file_digest(graph), ""),
            coverage=metrics.coverage if isinstance(metrics, CoverageMetrics) else None,
            layers=tuple(_layer_report(matrix, self._attempt.value) for matrix in matrices),
            is_export=True,
        )

    @property
    def files(self) -> tuple[tuple[str, Path], ...]:
        """All files of the export by their names, in order; empty if it can't be read."""
        if self._attempt.error is not None:
            return ()
        folder = self._attempt.value.folder
        return tuple((file.name, folder.path / file.name) for file in folder.files)

    @property
    def base(self) -> ModelFile | None:
        """The checkpoint in the report: its folder, and the bytes of its tensors."""
        if self._attempt.error is not None:
            return None
        size = sum(entry.length for entry in self._attempt.value.source.tensors.values())
        return ModelFile(str(self.checkpoint), size, None, "")


class ExportOnTarget(ExportUnderTest):
    """An export that a target runs, with the files and the texts of `on_host`."""

    def __init__(self, on_host: ExportUnderTest, target: Target) -> None:
        super().__init__(on_host.settings, on_host.checkpoint)
        self._on_host = on_host
        self._target = target

    @property
    def target(self) -> str:
        """The name of the target."""
        return self._target.name

    @property
    def label(self) -> str:
        """Its name in ids."""
        return f"{LABEL}@{self._target.name}"

    @property
    def checks(self) -> tuple[str, ...]:
        """What is judged on a target."""
        is_device = self._target.is_device
        return tuple(name for name in LANGUAGE_CHECKS if check_named(name).is_run_on(is_device=is_device))

    @cached_property
    def _attempt(self) -> Attempt[ExportEvidence]:
        return self._on_host._attempt

    @cached_property
    def runs(self) -> LanguageRuns:
        """The runs of the export on the target."""
        host = self._on_host.runs
        return LanguageRuns(self.settings, host.evidence, host.reference, self._target.send, host.run.ids)

    def _result_alone(self, name: str) -> Result:
        return self._on_host._result_alone(name) if name in EXPORT_CHECKS else super()._result_alone(name)


def _layer_report(matrix: StoredMatrix, evidence: ExportEvidence) -> LayerReport:
    requests = evidence.requests
    request = requests.layers.get(matrix.name) if requests is not None else None
    return LayerReport(
        name=matrix.name,
        op="Convolution",
        weights=matrix.count,
        storage=matrix.label,
        bits=matrix.bits,
        bytes=matrix.bytes,
        float_bytes=4 * matrix.count,
        scale_in=None,
        scale_out=None,
        quantized=request is None or request.bits == matrix.bits,
        skipped=request is not None and request.bits == 16,
        module=None,
    )


def requested_form(settings: ModelSettings) -> RequestedForm | None:
    """What `--mnn-recipe` requests; None if it was not given: the exporter's options decide."""
    if settings.recipes == defaults.RECIPES:
        return None
    recipe = recipe_named(settings.recipes[0])
    if isinstance(recipe, PipelineRecipe):
        recipe = recipe.like
    return RequestedForm(
        bits=16 if recipe.storage is Storage.FLOAT16 else recipe.bits,
        block=recipe.block,
        symmetric=True if recipe.symmetric else None,
        scale_bits=16 if recipe.half_scales else None,
        hqq=recipe.hqq,
    )
