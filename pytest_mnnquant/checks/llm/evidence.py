"""What the checks of an export judge: the folder, its source, and what belongs together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from pytest_mnnquant.llm.binding import Binding, bind
from pytest_mnnquant.llm.checkpoint import Checkpoint
from pytest_mnnquant.llm.embedding import NAME
from pytest_mnnquant.llm.folder import ExportFolder
from pytest_mnnquant.llm.options import LayerRequest
from pytest_mnnquant.llm.requests import RequestedForm, Requests, requests_of
from pytest_mnnquant.llm.source_tokenizer import SourceTokenizer


@dataclass(frozen=True)
class ExportEvidence:
    """An export and what it is judged by.

    `gptq` is the checkpoint of `--gptq_path`, `by_layer` the content of `--quant_config`: None if the option is not
    used or the file can't be read (`gptq_problem`, `by_layer_problem` say why). `form` is what the user requests beside
    the exporter's options.
    """

    folder: ExportFolder
    source: Checkpoint
    tokenizer: SourceTokenizer | None = None
    tokenizer_problem: str = ""
    gptq: Checkpoint | None = None
    gptq_problem: str = ""
    by_layer: Mapping[str, LayerRequest] | None = None
    by_layer_problem: str = ""
    form: RequestedForm | None = None
    _parts: dict[str, Binding] = field(default_factory=dict, repr=False, compare=False)

    @property
    def binding(self) -> Binding:
        """What of the export belongs to what of the source."""
        if "source" not in self._parts:
            self._parts["source"] = bind(self.folder, self.source)
        return self._parts["source"]

    @property
    def gptq_stems(self) -> dict[str, str]:
        """The layers of the GPTQ checkpoint that hold codes, by the names of the export's matrices."""
        if self.gptq is None:
            return {}
        bound = bind(self.folder, self.gptq).matrices
        stems = {item.stored.name: item.source.stem for item in bound}
        return {name: stem for name, stem in stems.items() if f"{stem}.qweight" in self.gptq.tensors}

    def holds_gptq(self, name: str) -> bool:
        """Whether a matrix holds GPTQ codes, which need not be the nearest ones, as far as that is known."""
        options = self.folder.options
        if self.gptq is not None or options is None or not options.gptq_path:
            return name in self.gptq_stems
        return name != NAME and "lm_head" not in name

    @property
    def requests(self) -> Requests | None:
        """How each matrix was requested to be stored."""
        by_layer = None if self.by_layer_problem else self.by_layer or {}
        return requests_of(self.folder, by_layer, self.form)
