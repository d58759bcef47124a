r"""Exports of language models: healthy ones must pass, faults and mutations must fail with one root cause.

    python benchmarks/llm_exports.py FOLDER --text eval.txt --python VENV/bin/python \
        --model tied=HF ... --exporter 0.0.5=DIR --exporter 3.6.1=DIR [--page docs/llm-measurements.md]

Models are `tied` (Qwen2), `untied` (Qwen3) and `llama`; `gptq` is a GPTQ checkpoint of `tied` with groups of 64. VENV
has torch, transformers and onnx. Exports that exist in FOLDER are not made again. The exit status is 1 if a healthy
export fails or a fault passes.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from llm_blind import FAULTS, HARMLESS
from llm_changes import CHANGES
from llm_faults import MUTATIONS, PLANTED, Change

from pytest_mnnquant.config.settings import model_settings
from pytest_mnnquant.evidence.export import ALL_EXPORT_CHECKS, ExportUnderTest
from pytest_mnnquant.findings.accuracy_metrics import AccuracyMetrics
from pytest_mnnquant.findings.finding import Finding, Result
from pytest_mnnquant.findings.rule import Severity
from pytest_mnnquant.findings.run_metrics import ExecutionMetrics
from pytest_mnnquant.runtime.exporter import run_exporter

NEW, OLD = "3.6.1", "0.0.5"
#: Name -> exporter, model, options.
HEALTHY: Final[dict[str, tuple[str, str, str]]] = {
    "tied-w4-361": (NEW, "tied", "--quant_bit 4"),
    "tied-w4-005": (OLD, "tied", "--quant_bit 4"),
    "tied-w8-361": (NEW, "tied", "--quant_bit 8"),
    "tied-w8-005": (OLD, "tied", "--quant_bit 8"),
    "tied-fp16-361": (NEW, "tied", "--quant_bit 16"),
    "tied-w3-lm8-361": (NEW, "tied", "--quant_bit 3 --lm_quant_bit 8"),
    "tied-w2-lm8-361": (NEW, "tied", "--quant_bit 2 --lm_quant_bit 8"),
    "tied-b0-361": (NEW, "tied", "--quant_block 0"),
    "tied-b32-361": (NEW, "tied", "--quant_block 32"),
    "tied-b128-005": (OLD, "tied", "--quant_block 128"),
    "tied-sym-361": (NEW, "tied", "--sym"),
    "tied-hqq-361": (NEW, "tied", "--hqq"),
    "tied-scale32-361": (NEW, "tied", "--scale_bit 32"),
    "tied-lm8-361": (NEW, "tied", "--lm_quant_bit 8"),
    "tied-lm16-361": (NEW, "tied", "--lm_quant_bit 16"),
    "tied-separate-361": (NEW, "tied", "--seperate_embed"),
    "tied-gptq-005": (OLD, "tied", "--gptq_path {gptq}"),
    "tied-gptq-361": (NEW, "tied", "--gptq_path {gptq} --scale_bit 32"),
    "tied-config-361": (NEW, "tied", "--quant_config {folder}/right.json"),
    "untied-w4-361": (NEW, "untied", "--quant_bit 4"),
    "untied-w4-005": (OLD, "untied", "--quant_bit 4"),
    "untied-w3-361": (NEW, "untied", "--quant_bit 3"),
    "untied-w2-005": (OLD, "untied", "--quant_bit 2"),
    "untied-e8-361": (NEW, "untied", "--embed_bit 8"),
    "untied-e4-361": (NEW, "untied", "--embed_bit 4"),
    "untied-hqq8-361": (NEW, "untied", "--quant_bit 8 --hqq"),
    "llama-w4-361": (NEW, "llama", "--quant_bit 4"),
    "llama-w4b32-005": (OLD, "llama", "--quant_block 32"),
}
#: Faults that exporters make.
EXPORTED: Final[dict[str, tuple[str, str, str]]] = {
    "block larger than the layers (3.6.1)": (NEW, "tied", "--quant_block 256"),
    "block larger than the layers (0.0.5)": (OLD, "tied", "--quant_block 256"),
    "tied, 2 bits": (NEW, "tied", "--quant_bit 2"),
    "tied, 3 bits": (NEW, "tied", "--quant_bit 3"),
    "GPTQ over 16-bit scales": (NEW, "tied", "--gptq_path {gptq}"),
    "GPTQ of 4 bits for 8 bits": (NEW, "tied", "--gptq_path {gptq} --quant_bit 8 --scale_bit 32"),
    "GPTQ path mistyped": (OLD, "tied", "--gptq_path {gptq}x"),
    "embed_bit 8 on a tied model": (NEW, "tied", "--embed_bit 8"),
    "skip_weight": (NEW, "tied", "--skip_weight"),
    "quant_config with other names": (NEW, "tied", "--quant_config {folder}/wrong.json"),
}
#: Seconds that an exporter may take.
_LONG: Final = 600.0


@dataclass(frozen=True)
class Places:
    """Where things are: models and exporters by name."""

    folder: Path
    text: Path
    models: Mapping[str, Path]
    exporters: Mapping[str, Path]


@dataclass(frozen=True)
class Verdict:
    """What the checks say of one export."""

    name: str
    roots: tuple[Finding, ...]
    failed: tuple[str, ...]
    inconclusive: tuple[str, ...]
    execution: ExecutionMetrics | None
    accuracy: AccuracyMetrics | None
    seconds: float

    @property
    def row(self) -> str:
        """A row of the table."""
        language = self.accuracy.language if self.accuracy else None
        measured = (None, None) if self.execution is None else (self.execution.kl, self.execution.kl_of_steps)
        execution, steps = ("-" if kl is None else f"{kl:.2g}" for kl in measured)
        accuracy = "- | -" if language is None else f"{language.kl:.3g} | {language.top1_agreement:.1%}"
        found = "; ".join(dict.fromkeys(f"{root.code} {root.layer}".strip() for root in self.roots[:3])) or "passed"
        return f"| {self.name} | {found} | {execution} | {steps} | {accuracy} | {self.seconds:.1f} |"


HEAD: Final = (
    "| export | verdict | KL(decoded, MNN) | token by token | KL(source, MNN) | top-1 | s |\n"
    "|---|---|---|---|---|---|---|"
)


def make_exports(wanted: Mapping[str, tuple[str, str, str]], places: Places, python: Path) -> None:
    """Make what is missing."""
    os.environ |= {"HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    before = Path.cwd()
    for name, (version, model, options) in wanted.items():
        target = places.folder / "exports" / name
        if (target / "llm.mnn").is_file():
            continue
        words = options.format(gptq=places.models["gptq"], folder=places.folder).split()
        arguments = ["--path", str(places.models[model]), "--export", "mnn", "--dst_path", str(target), *words]
        os.chdir(places.folder)  # Exporters write a log into the working folder.
        run_exporter(str(python), places.exporters[version] / "llmexport.py", arguments, _LONG)
        os.chdir(before)
    for dump in (places.folder / "exports").glob("*/llm.mnn.json"):
        dump.unlink()


def judge(name: str, export: Path, source: Path, text: Path) -> Verdict:
    """Run all checks, as pytest does."""
    start = time.monotonic()
    values = {"quantized": str(export.resolve()), "evaluation": str(text.resolve()), "timeout": 120.0}
    case = ExportUnderTest(model_settings(str(source), name, Path.cwd(), values), source)
    for check in ALL_EXPORT_CHECKS:
        case.run_check(check)
    results = {check: case.run_check(check, ALL_EXPORT_CHECKS) for check in ALL_EXPORT_CHECKS}
    execution, accuracy = results["execution"].metrics, results["accuracy"].metrics
    return Verdict(
        name=name,
        roots=tuple(_roots(results)),
        failed=tuple(check for check, result in results.items() if result.outcome == "failed"),
        inconclusive=tuple(check for check, result in results.items() if result.outcome == "inconclusive"),
        execution=execution if isinstance(execution, ExecutionMetrics) else None,
        accuracy=accuracy if isinstance(accuracy, AccuracyMetrics) else None,
        seconds=time.monotonic() - start,
    )


def _roots(results: Mapping[str, Result]) -> Iterator[Finding]:
    return (finding for result in results.values() for finding in result.findings if finding.severity is Severity.ERROR)


def _judge_copies(faults: Mapping[str, tuple[str, Change]], places: Places) -> Iterator[Verdict]:
    work = places.folder / "copies"
    for name, (base, change) in faults.items():
        copy = work / "export"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(places.folder / "exports" / base, copy)
        change(copy)
        yield judge(name, copy, places.models[base.partition("-")[0]], places.text)


def _table(title: str, verdicts: Iterator[Verdict], are_healthy: bool) -> tuple[str, int, int]:
    lines, right, count = [f"## {title}\n", HEAD], 0, 0
    for verdict in verdicts:
        count += 1
        right += bool(verdict.roots) != are_healthy
        lines.append(verdict.row)
        print(verdict.row, "" if bool(verdict.roots) != are_healthy else "<== WRONG", flush=True)
    return "\n".join(lines) + "\n", right, count


def main() -> int:
    """Make, judge, and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--text", type=Path, required=True)
    parser.add_argument("--python", type=Path, default=Path(sys.executable))
    parser.add_argument("--model", action="append", default=[])
    parser.add_argument("--exporter", action="append", default=[])
    parser.add_argument("--page", type=Path)
    parser.add_argument(
        "--only", choices=("healthy", "exported", "planted", "mutations", "blind", "changes", "harmless")
    )
    given = parser.parse_args()
    models, exporters = (
        {name: Path(path).resolve() for name, _, path in (item.partition("=") for item in items)}
        for items in (given.model, given.exporter)
    )
    places = Places(given.folder.resolve(), given.text, models, exporters)
    places.folder.mkdir(parents=True, exist_ok=True)
    layer = {"bits": 8, "block_size": 32}
    (places.folder / "right.json").write_text(json.dumps({"/layers.1/mlp/up_proj/Linear": layer}))
    (places.folder / "wrong.json").write_text(json.dumps({"layers.1.mlp.up_proj": layer}))
    make_exports({**HEALTHY, **EXPORTED}, places, given.python)
    exports = places.folder / "exports"
    healthy = (judge(name, exports / name, models[HEALTHY[name][1]], places.text) for name in HEALTHY)
    exported = (judge(name, exports / name, models[EXPORTED[name][1]], places.text) for name in EXPORTED)
    kinds = {
        "healthy": ("Healthy exports", healthy),
        "exported": ("Faults that exporters make", exported),
        "planted": ("Faults of files and options", _judge_copies(PLANTED, places)),
        "mutations": ("Mutations", _judge_copies(MUTATIONS, places)),
        "blind": ("Blind mutations", _judge_copies(FAULTS, places)),
        "changes": ("More changes", _judge_copies(CHANGES, places)),
        "harmless": ("Changes without effect", _judge_copies(HARMLESS, places)),
    }
    chosen = [given.only] if given.only else list(kinds)
    tables = [_table(*kinds[kind], are_healthy=kind in ("healthy", "harmless")) for kind in chosen]
    for title, (_, right, count) in zip(chosen, tables, strict=True):
        print(f"{title}: {right} of {count} right")
    if given.page is not None:
        given.page.write_text("# Exports of language models\n\n" + "\n".join(text for text, _, _ in tables))
    return int(any(right != count for _, right, count in tables))


if __name__ == "__main__":
    sys.exit(main())
