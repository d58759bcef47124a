"""The runs of one export, and what its decoded weights and its source predict; each is made when first needed."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from pathlib import Path
from typing import Final

import numpy as np

from pytest_mnnquant.cache.manifest import file_digest
from pytest_mnnquant.cache.temporary import temporary_prefix
from pytest_mnnquant.checks.llm.evidence import ExportEvidence
from pytest_mnnquant.checks.llm.execution import EXACT
from pytest_mnnquant.checks.llm.running import CostEvidence, ExecutionEvidence
from pytest_mnnquant.config.settings import ModelSettings
from pytest_mnnquant.evidence.steps import NothingToJudge, step_property
from pytest_mnnquant.llm.architecture import Architecture, UnknownArchitecture, architecture_of
from pytest_mnnquant.llm.decoded_checkpoint import write_decoded
from pytest_mnnquant.llm.folder import ExportFolder
from pytest_mnnquant.llm.forward import Ids, Network, Tensors
from pytest_mnnquant.llm.generation import generate
from pytest_mnnquant.llm.probes import MESSAGES, probes
from pytest_mnnquant.llm.reference import Reference
from pytest_mnnquant.llm.sampling import Sample, random_ids, sample_of
from pytest_mnnquant.llm.tensors import SourceTensors, StoredTensors
from pytest_mnnquant.measurements.language_model import Generation, Logits, PairedSpeeds, TextRun
from pytest_mnnquant.metrics.divergence import Divergence, divergence
from pytest_mnnquant.runtime.jobs import FailureKind, NativeFailure, run_job
from pytest_mnnquant.runtime.language_model import (
    HIGH,
    LOW,
    NORMAL,
    LanguageOptions,
    Prompt,
    Text,
    generate_text,
    run_text,
)
from pytest_mnnquant.runtime.options import Send
from pytest_mnnquant.runtime.source_model import compute_logits

#: Tokens of the prompt, tokens that follow, and the seconds that the source may take for them.
PROMPT: Final = 32
GENERATED: Final = 24
GENERATION_SECONDS: Final = 5.0
_RUNS: Final = 3
#: Up to this number of weights, an export also runs in memory mode normal, which expands them to floats.
_SMALL: Final = 30_000_000
#: Up to this number, the source generates some tokens in the time that it has.
_QUICK: Final = 100_000_000
_NO_TEXT: Final = "no text to evaluate the predictions on: --mnn-evaluation FILE.txt"


class LanguageRuns:
    """The runs of one export on this host, or on the target that `send` reaches, with the `ids` of this host's run."""

    def __init__(
        self,
        settings: ModelSettings,
        evidence: ExportEvidence,
        reference: Reference | None = None,
        send: Send = run_job,
        ids: Ids | None = None,
    ) -> None:
        self.settings = settings
        self.evidence = evidence
        self.reference = reference
        self._send = send
        self._ids = ids
        self._temporary = temporary_folder(self)
        self.timed_speeds: PairedSpeeds | None = None

    @property
    def is_on_target(self) -> bool:
        """Whether a target runs the export; it may be emulated, so that it only runs what is necessary."""
        return self._ids is not None

    @property
    def folder(self) -> ExportFolder:
        """The export."""
        return self.evidence.folder

    @property
    def text(self) -> Path | None:
        """The file of the evaluation text; None if none is given."""
        name = self.settings.evaluation
        return None if name is None else self.settings.base / name

    @property
    def has_other_text(self) -> bool:
        """Whether the text is not the one that the reference was made with."""
        if self.reference is None or self.text is None:
            return False
        return file_digest(self.text) != self.reference.text_digest

    @property
    def sample(self) -> Sample:
        """How much of the text is computed."""
        if self.reference is not None:
            texts, length = self.reference.predictions.ids.shape
            return Sample(texts, length, length // 2)
        head = self.folder.graph.head
        return sample_of(self._parameters, head.rows if head else 1)

    @property
    def _parameters(self) -> int:
        return sum(matrix.count for matrix in self.folder.graph.matrices)

    @property
    def architecture(self) -> Architecture:
        """The architecture of the source. Raises `UnknownArchitecture`."""
        return architecture_of(self.evidence.source.config)

    @property
    def source_network(self) -> Network:
        """The source with its weights. Raises `UnknownArchitecture`."""
        return Network(self.architecture, SourceTensors(self.evidence.source))

    @property
    def stored_network(self) -> Network:
        """The decoded weights of the export. Raises `UnknownArchitecture`."""
        return Network(self.architecture, StoredTensors(self.folder))

    @step_property("run the export")
    def run(self) -> TextRun:
        """The export in the memory mode of its configuration. Raises `NativeFailure`."""
        return self._run_in(self.memory, self._given_ids)

    @property
    def memory(self) -> str:
        """The memory mode of the configuration; the runtime takes any other word for normal."""
        return LOW if self.folder.config.memory == LOW else NORMAL

    @property
    def _given_ids(self) -> Ids | None:
        if self._ids is not None:
            return self._ids
        if self.reference is not None:
            return self.reference.predictions.ids
        head = self.folder.graph.head
        if self.text is not None:
            return None
        return random_ids(self.sample, head.rows if head else 1, self.folder.config.placeholders)

    def _run_in(self, memory: str, ids: Ids | None, precision: str = "") -> TextRun:
        sample, path = self.sample, self.text
        text = Text(
            path=path or Path(),
            windows=sample.texts,
            length=sample.length,
            steps=sample.steps,
            ids=ids,
            probes=self.probes,
            messages=MESSAGES,
        )
        folder = self.new_folder()
        return run_text(self.folder.path, text, folder, self.options(memory, precision))

    def new_folder(self) -> Path:
        """A new folder for a job, which is removed with the runs."""
        return Path(tempfile.mkdtemp(dir=self._temporary))

    def options(self, memory: str, precision: str = "") -> LanguageOptions:
        """How the export is run in a memory mode."""
        return LanguageOptions(self.settings.timeout, memory, precision, self.settings.timing.threads, self._send)

    @property
    def probes(self) -> tuple[str, ...]:
        """The texts whose encodings are compared."""
        if self.reference is not None:
            return self.reference.predictions.probes
        if self.text is None:
            return probes()
        with self.text.open(encoding="utf-8", errors="replace") as file:
            return probes(file.read(1 << 14))

    @step_property("compute the decoded weights")
    def decoded(self) -> Logits:
        """What the decoded weights predict, shape [texts, tokens, vocabulary]. Raises `BadExport`."""
        try:
            return self._computed(self.stored_network, "decoded")
        except UnknownArchitecture as error:
            folder = self.new_folder()
            return self._by_transformers(error, folder, is_decoded=True)

    @step_property("compute the source")
    def source(self) -> Logits:
        """What the source predicts on the same ids. Raises `BadExport`."""
        if self.reference is not None:
            return self.reference.predictions.logits.astype(np.float32)
        try:
            return self._computed(self.source_network, "source")
        except UnknownArchitecture as error:
            return self._by_transformers(error, self.evidence.source.path)

    def _by_transformers(self, reason: UnknownArchitecture, checkpoint: Path, *, is_decoded: bool = False) -> Logits:
        """Logits by transformers, for what numpy does not compute; the decoded weights are written first.

        Raises `UnknownArchitecture` if transformers is missing or can't load the checkpoint.
        """
        _ = self.run
        if is_decoded:
            write_decoded(self.folder, self.evidence.source, self.evidence.binding, checkpoint)
        folder = self.new_folder()
        try:
            settings = self.settings
            return compute_logits(checkpoint, self.run.ids, folder, settings.timeout, settings.timing.threads)
        except NativeFailure as error:
            fix = "install 'pytest-mnnquant[llm]' to compute it with transformers"
            is_missing = error.kind is FailureKind.MISSING_PACKAGE
            raise UnknownArchitecture(f"{reason}; {fix if is_missing else error.what}") from None

    def _computed(self, network: Network, name: str) -> Logits:
        shape = (*self.run.ids.shape, network.tensors.rows("lm_head"))
        out = np.lib.format.open_memmap(f"{self._temporary}/{name}.npy", "w+", np.float32, shape)
        network.logits(self.run.ids, out)
        return out

    @step_property("compare MNN.llm with the decoded weights")
    def execution(self) -> ExecutionEvidence:
        """The runtime against the stored weights. Raises `NativeFailure`, `BadExport`, `UnknownArchitecture`."""
        run = self.run
        whole = self.against_decoded(run)
        last = slice(-len(run.steps), None)
        steps = divergence(run.ids[:1, last], self.decoded[:1, last], run.steps[None])
        normal = None
        if (self._parameters <= _SMALL and not self.is_on_target) or not float(whole.kl.mean()) <= EXACT:
            normal = self.against_decoded(self._run_in(NORMAL, run.ids, HIGH))
        return ExecutionEvidence(whole, steps, self.memory, normal)

    def against_decoded(self, run: TextRun) -> Divergence:
        """The divergence of a run from the decoded weights."""
        return divergence(run.ids, self.decoded, run.logits)

    @step_property("compare the export with its source")
    def predictions(self) -> Divergence:
        """The export against its source. Raises `NothingToJudge` without a text."""
        if self.text is None and self.reference is None:
            raise NothingToJudge(_NO_TEXT)
        return divergence(self.run.ids, self.source, self.run.logits)

    @property
    def weights(self) -> Divergence:
        """The decoded weights against the source. Raises `BadExport`, `UnknownArchitecture`."""
        return divergence(self.run.ids, self.source, self.decoded)

    @step_property("generate text")
    def generation(self) -> Generation:
        """Greedy generation in the memory mode of the configuration."""
        return self._generate(self.memory)

    @step_property("measure speed and memory")
    def costs(self) -> CostEvidence:
        """Speed and memory in both memory modes."""
        other = self._generate(NORMAL if self.memory == LOW else LOW)
        low, normal = (self.generation, other) if self.memory == LOW else (other, self.generation)
        return CostEvidence(low, normal, self.memory == LOW, self.settings.timing.threads)

    def _generate(self, memory: str) -> Generation:
        prompt = Prompt(self.prompt.tolist(), GENERATED, _RUNS, self._source_tokens)
        return generate_text(self.folder.path, prompt, self.new_folder(), self.options(memory))

    @property
    def prompt(self) -> Ids:
        """The ids that are continued, shape [tokens]."""
        length = self.reference.predictions.prompt if self.reference is not None else PROMPT
        return self.run.ids[0, :length]

    @step_property("generate text with the source")
    def _source_tokens(self) -> tuple[int, ...] | None:
        """What the source generates; None if it is not known."""
        if self.reference is not None:
            return self.reference.predictions.generated
        if self.text is None or self._parameters > _QUICK:
            return None
        ends = self.evidence.source.config.eos_ids
        try:
            network = self.source_network
        except UnknownArchitecture:
            return None
        return generate(network, self.prompt, GENERATED, ends, GENERATION_SECONDS)

    def tensors(self) -> tuple[Tensors, Tensors]:
        """The tensors of the source, and those of the export."""
        return self.source_network.tensors, self.stored_network.tensors


def temporary_folder(owner: object) -> str:
    """A new folder that is removed with its owner."""
    folder = tempfile.mkdtemp(prefix=temporary_prefix())
    weakref.finalize(owner, shutil.rmtree, folder, ignore_errors=True)
    return folder
