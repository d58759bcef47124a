r"""What people look at today against pytest-mnnquant: which exports of language models each of them fails.

    python benchmarks/llm_scoreboard.py FOLDER --text eval.txt --model tied=HF --model untied=HF --model llama=HF \
        [--seconds 50]

FOLDER has the exports of `llm_exports.py`. Results are kept in FOLDER/scoreboard.json, so that a run that ends after
`--seconds` is continued by the next one. The last lines are the table.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from llm_blind import FAULTS
from llm_exports import EXPORTED, HEALTHY, judge
from llm_faults import MUTATIONS, PLANTED, Change

from pytest_mnnquant.checks.llm.collect import collect_evidence
from pytest_mnnquant.checks.llm.registry import EXPORT_CHECKS, check_alone
from pytest_mnnquant.findings.rule import Severity
from pytest_mnnquant.llm.architecture import architecture_of
from pytest_mnnquant.llm.checkpoint import read_checkpoint
from pytest_mnnquant.llm.forward import Network
from pytest_mnnquant.llm.generation import generate
from pytest_mnnquant.llm.tensors import SourceTensors
from pytest_mnnquant.metrics.divergence import divergence
from pytest_mnnquant.mnnfile.model import BadModel
from pytest_mnnquant.runtime.jobs import NativeFailure
from pytest_mnnquant.runtime.language_model import LanguageOptions, Prompt, Text, generate_text, run_text

_WINDOWS, _LENGTH, _PROMPT, _WORDS = 4, 128, 32, 8
#: The judges, and what fails an export.
JUDGES: Final = {
    "size": "the size of the folder is more than 3 % off that of the same options",
    "answer": "it does not load, or answers nothing",
    "perplexity": "the perplexity is more than 5 % above the source's",
    "words": "the first 8 tokens are not the source's",
    "mnnquant": "pytest-mnnquant",
}
Faults = Mapping[str, tuple[str, Change]]


def _size(folder: Path) -> int:
    names = (path for path in folder.iterdir() if not path.name.endswith(".mnn.json"))
    return sum(path.stat().st_size for path in names)


class Source:
    """What a source predicts and generates, computed once."""

    def __init__(self, path: Path) -> None:
        self.path = path
        checkpoint = read_checkpoint(path)
        self.network = Network(architecture_of(checkpoint.config), SourceTensors(checkpoint))
        self._logits: dict[bytes, np.ndarray] = {}
        self._tokens: dict[bytes, tuple[int, ...]] = {}

    def logits(self, ids: np.ndarray) -> np.ndarray:
        """Logits of texts."""
        if ids.tobytes() not in self._logits:
            out = np.empty((*ids.shape, self.network.tensors.rows("lm_head")), np.float32)
            self.network.logits(ids, out)
            self._logits[ids.tobytes()] = out
        return self._logits[ids.tobytes()]

    def words(self, prompt: np.ndarray) -> tuple[int, ...]:
        """The first tokens after a prompt."""
        if prompt.tobytes() not in self._tokens:
            self._tokens[prompt.tobytes()] = generate(self.network, prompt, _WORDS, (), 60.0)
        return self._tokens[prompt.tobytes()]


def today(export: Path, usual: int, source: Source, text: Path) -> dict[str, bool]:
    """Which of today's judges fail an export; `usual` is the size of a healthy one with the same options."""
    verdict = {"size": abs(_size(export) / usual - 1) > 0.03, "answer": True, "perplexity": True, "words": True}
    with tempfile.TemporaryDirectory() as name:
        folders = [Path(name) / "text", Path(name) / "words"]
        for folder in folders:
            folder.mkdir()
        options = LanguageOptions(60.0)
        try:
            run = run_text(export, Text(text, _WINDOWS, _LENGTH, 1), folders[0], options)
            prompt = run.ids[0, :_PROMPT]
            generated = generate_text(export, Prompt(prompt.tolist(), _WORDS), folders[1], options)
        except (NativeFailure, OSError):
            return verdict  # It crashes, or does not load.
        with np.errstate(all="ignore"):
            change = divergence(run.ids, source.logits(run.ids), run.logits)
        loss = float(change.loss.mean() - change.reference_loss.mean())
        verdict["answer"] = not generated.result.tokens
        verdict["perplexity"] = not loss <= math.log(1.05)
        verdict["words"] = generated.result.tokens[:_WORDS] != source.words(prompt)
    return verdict


def fails_by_files(export: Path, source: Path) -> bool:
    """Whether the checks that read only files fail, which takes a part of a second; most faults end here."""
    try:
        evidence = collect_evidence(export, read_checkpoint(source))
    except (BadModel, OSError):
        return True  # The gate reports what can't be read.
    return any(
        finding.severity is Severity.ERROR
        for check in EXPORT_CHECKS
        for finding in check_alone(check, evidence).findings
    )


def _cases(folder: Path) -> Iterator[tuple[str, str, str, Callable[[], Path], str]]:
    """Kind, name, model, what makes the export, and the name of a healthy export of the same size."""
    exports, copy = folder / "exports", folder / "copies" / "export"
    for name, (_, model, _) in HEALTHY.items():
        yield "healthy", name, model, partial(Path, exports / name), name
    for name, (version, model, _) in EXPORTED.items():
        base = f"{model}-w4-{version.replace('.', '')}"
        yield "faults", name, model, partial(Path, exports / name), base
    for faults in (PLANTED, MUTATIONS, FAULTS):
        for name, (base, change) in faults.items():

            def make(base: str = base, change: Change = change) -> Path:
                shutil.rmtree(copy, ignore_errors=True)
                shutil.copytree(exports / base, copy)
                change(copy)
                return copy

            yield "faults", name, base.partition("-")[0], make, base


def main() -> int:
    """Judge what is not judged yet, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--text", type=Path, required=True)
    parser.add_argument("--model", action="append", default=[])
    parser.add_argument("--seconds", type=float, default=math.inf)
    given = parser.parse_args()
    start, store = time.monotonic(), given.folder / "scoreboard.json"
    known = json.loads(store.read_text()) if store.is_file() else {}
    sources = {name: Source(Path(path)) for name, _, path in (item.partition("=") for item in given.model)}
    for kind, name, model, make, base in _cases(given.folder.resolve()):
        if f"{kind}/{name}" in known:
            continue
        if time.monotonic() - start > given.seconds:
            break
        export, source = make(), sources[model]
        verdict = today(export, _size(given.folder / "exports" / base), source, given.text)
        is_refused = fails_by_files(export, source.path) or bool(judge(name, export, source.path, given.text).roots)
        known[f"{kind}/{name}"] = {**verdict, "mnnquant": is_refused}
        store.write_text(json.dumps(known, indent=1))
        print(kind, name, known[f"{kind}/{name}"], flush=True)
    counts = {kind: [row for key, row in known.items() if key.startswith(kind)] for kind in ("healthy", "faults")}
    print("| judged by | healthy exports that fail | faults that fail |\n|---|---|---|")
    for judge_name, title in JUDGES.items():
        cells = [f"{sum(row[judge_name] for row in rows)} of {len(rows)}" for rows in counts.values()]
        print(f"| {title} | {' | '.join(cells)} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
