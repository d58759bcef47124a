"""False alarms and misses of the accuracy check, and whether it names the layer that was spoilt.

    python benchmarks/accuracy_verdicts.py FOLDER [--arch NAME ...] [--jobs N] [--all]

Healthy: architectures x recipes of 8 bits. Spoilt: models that were made wrong on purpose (spoilers.py). What a model
truly loses is computed here, from the outputs: it loses more than the criterion if top-1 drops by more than 0.01
(without labels, if the mean cosine is below 0.99), or if an output is not finite or does not depend on the input.
Trained weights are kept in FOLDER. Prints false alarms, misses and wrong layers, with --all every row. The exit status
is 1 after a false alarm or a miss, or if fewer than 95 % of the spoilt layers are named.
"""

from __future__ import annotations

import argparse
import multiprocessing
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import spoilers
import torch
from architectures import ARCHITECTURES
from spoilers import Spoilt

from pytest_mnnquant.cache.store import Store
from pytest_mnnquant.config.settings import model_settings
from pytest_mnnquant.evidence.attempt import Attempt
from pytest_mnnquant.evidence.check_runner import run_check
from pytest_mnnquant.evidence.source import FixtureValues, SourceUnderTest
from pytest_mnnquant.evidence.variant import VariantUnderTest, variant_under_test
from pytest_mnnquant.findings.accuracy_metrics import AccuracyMetrics
from pytest_mnnquant.findings.catalogue import RULES
from pytest_mnnquant.findings.check_metrics import metrics_of
from pytest_mnnquant.findings.finding import FAILED, Result
from pytest_mnnquant.findings.rule import Severity
from pytest_mnnquant.mnnfile.model import Model
from pytest_mnnquant.sources.spec import Spec

HEALTHY: Final = ("int8", "int8-average", "int8+w8", "w8", "w8-sym", "w8b32", "mnnquant-kl")
SPOILT: Final = ("cnn", "lenet", "mobile_net", "transformer", "mlp", "conv1d", "two_inputs", "grouped", "attention")
TWO_OUTPUTS: Final = ("cnn", "mlp")
DROP, COSINE, RIGHT_SHARE = 0.01, 0.99, 0.95
_HERE: Final = Path(__file__).resolve().parent
Values = npt.NDArray[Any]


@dataclass(frozen=True)
class Truth:
    """What a model loses. `drop` of top-1, None where no label fits; the smallest `cosine` of an output."""

    drop: float | None
    cosine: float
    broken: str

    @property
    def loses(self) -> bool:
        """Whether that is more than the criterion."""
        if self.broken:
            return True
        return self.cosine < COSINE if self.drop is None else self.drop > DROP + 1e-9

    def __str__(self) -> str:
        drop = "" if self.drop is None else f"top-1 {-self.drop:+.4f}, "
        return self.broken or f"{drop}cosine {self.cosine:.4f}"


def truth_of(exact: dict[str, Values], ours: dict[str, Values], labels: Values | None) -> Truth:
    """What outputs lose against the float model's; `labels` are classes of the only output."""
    broken = {name: _broken(array, ours[name]) for name, array in exact.items()}
    if any(broken.values()):
        return Truth(None, 0.0, next(text for text in broken.values() if text))
    cosine = min(_cosine(array, ours[name]) for name, array in exact.items())
    if labels is None or len(exact) > 1:
        return Truth(None, cosine, "")
    ((name, array),) = exact.items()
    before, after = ((one.argmax(1) == labels).mean() for one in (array, ours[name]))
    return Truth(float(before - after), cosine, "")


def _broken(exact: Values, ours: Values) -> str:
    if not np.isfinite(ours).all():
        return "not finite"
    return "constant" if np.ptp(ours, axis=0).max() == 0 < np.ptp(exact, axis=0).max() else ""


def _cosine(exact: Values, ours: Values) -> float:
    first, second = (array.reshape(len(array), -1).astype(np.float64) for array in (exact, ours))
    norms = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    return float(((first * second).sum(1) / np.maximum(norms, 1e-30)).mean())


@dataclass(frozen=True)
class Row:
    """One model, what it loses, what the check says. `place` is right, neighbour, wrong or empty."""

    model: str
    what: str
    truth: Truth
    failed: bool
    codes: tuple[str, ...]
    is_spoilt: bool
    named: str = ""
    layers: tuple[str, ...] = ()
    place: str = ""

    @property
    def is_bad(self) -> bool:
        """Whether the verdict or the layer is wrong."""
        return self.failed != self.truth.loses or self.place in ("wrong", "none")

    def __str__(self) -> str:
        verdict = f"{'failed' if self.failed else 'passed'} {' '.join(self.codes)}".strip()
        cells = (self.model, self.what, self.truth, verdict, self.named, ", ".join(self.layers), self.place)
        return "| " + " | ".join(str(cell) for cell in cells) + " |"


_HEAD: Final = "| model | what | true loss | verdict | layer named | spoilt | place |\n" + "|---" * 7 + "|"


def neighbours(model: Model, name: str) -> set[str]:
    """The layers whose output reaches this one, or which its output reaches, with no layer between."""
    producers = {tensor: op for op in model.ops for tensor in op.outputs}
    layers = {op.name for op in model.convolutions}

    def before(tensors: Iterable[int]) -> Iterator[str]:
        for tensor in tensors:
            op = producers.get(tensor)
            if op is not None and op.name in layers:
                yield op.name
            elif op is not None and op.kind != "Shape":  # Sizes carry no values.
                yield from before(op.inputs)

    edges = {(first, op.name) for op in model.convolutions for first in before(op.inputs)}
    return {second for first, second in edges if first == name} | {first for first, second in edges if second == name}


def gate_of(name: str, network: Any, store: Store) -> SourceUnderTest:
    """The gate on a network."""
    architecture = ARCHITECTURES[name.split(",")[0]]
    settings = model_settings(name, name, _HERE, {"timeout": spoilers.TIMEOUT})
    data = {"calibration": architecture.calibration(), "evaluation": architecture.evaluation()}
    return SourceUnderTest(settings, Spec(name, name), store, lambda _: None, FixtureValues(network, **data))


def gate_on(source: SourceUnderTest, spoilt: Spoilt) -> SourceUnderTest:
    """The gate on a model that was made from the network of `source`."""
    given = {"quantized": str(spoilt.model), "params": str(spoilt.params) if spoilt.params else None}
    changed = {**given, "timeout": spoilers.TIMEOUT}
    gate = SourceUnderTest(
        model_settings(source.spec.text, source.spec.text, _HERE, changed), source.spec, source.store, source.say
    )
    # The float model and its run are the same for all.
    vars(gate).update({"_prepared": Attempt(source.prepared), "float_run": source.float_run})
    return gate


def judged(case: VariantUnderTest) -> tuple[Truth, Result, tuple[str, ...]]:
    """What a model loses, what the check says, and by which codes it fails."""
    result = run_check(case, "accuracy")
    data = case.source.prepared.evaluation
    assert data is not None
    truth = truth_of(case.source.float_run.outputs, case.runs.exact_run[0].outputs, data.labels)
    codes = {item.code for item in result.findings if RULES[item.code].severity is Severity.ERROR}
    return truth, result, tuple(sorted(codes))


def suspect(result: Result) -> str:
    """The layer that the check names; empty when it names none."""
    metrics = metrics_of(AccuracyMetrics, [result])
    return (metrics.suspect or "") if metrics else ""


def healthy_rows(name: str, gate: SourceUnderTest) -> Iterator[Row]:
    """One architecture in 8 bits."""
    for recipe in HEALTHY:
        case = variant_under_test(gate, recipe, "eval" if recipe.startswith("int8") else None)
        if case.is_unusable:
            (finding,) = run_check(case, "conversion").findings
            yield Row(name, recipe, Truth(None, 0.0, f"no model: {finding.message}"), True, (finding.code,), False)
            continue
        truth, result, codes = judged(case)
        yield Row(name, recipe, truth, result.outcome == FAILED, codes, False, suspect(result))


def spoilt_row(source: SourceUnderTest, spoilt: Spoilt) -> Row:
    """One spoilt model, judged as its user would."""
    gate = gate_on(source, spoilt)
    truth, result, codes = judged(variant_under_test(gate, spoilt.recipe, None))
    failed, named = result.outcome == FAILED, suspect(result)
    place, model = "", gate.prepared.model
    if failed and truth.loses and spoilt.layers:
        near = {other for layer in spoilt.layers for other in neighbours(model, layer)}
        place = "right" if named in spoilt.layers else "neighbour" if named in near else "wrong" if named else "none"
    return Row(
        source.spec.text, f"{spoilt.recipe}: {spoilt.what}", truth, failed, codes, True, named, spoilt.layers, place
    )


def spoilt_rows(gate: SourceUnderTest, network: Any, folder: Path, scratch: Path) -> Iterator[Row]:
    """One architecture, one thing wrong in each model."""
    source, name = gate.prepared, gate.spec.text
    assert source.data is not None
    exporter = spoilers.Exporter(source.data, source.batched, scratch)

    def rows(models: Iterable[Spoilt], of: SourceUnderTest = gate) -> Iterator[Row]:
        return (spoilt_row(of, spoilt) for spoilt in models)

    yield from rows(spoilers.of_fewer_bits(exporter, network))
    if name in SPOILT:
        int8 = variant_under_test(gate, "int8", "eval")
        yield from rows(spoilers.by_params(int8, scratch))
        yield from rows(spoilers.by_stored_scales(variant_under_test(gate, "w8-sym", None), scratch))
        yield from rows(spoilers.by_weights(int8, network, exporter))
        yield from rows(spoilers.of_another_epoch(ARCHITECTURES[name], folder, exporter))
    if name in TWO_OUTPUTS:
        both = gate_of(f"{name}, two outputs", spoilers.Both(network, swapped=False).eval(), gate.store)
        yield from rows(spoilers.with_outputs_swapped(network, exporter), both)


def rows_of(name: str, folder: Path) -> list[Row]:
    """All rows of one architecture."""
    torch.set_num_threads(1)
    network = ARCHITECTURES[name].trained(folder)
    with tempfile.TemporaryDirectory() as kept, tempfile.TemporaryDirectory() as made:
        gate = gate_of(name, network, Store(Path(kept)))
        return [*healthy_rows(name, gate), *spoilt_rows(gate, network, folder, Path(made))]


def summary(rows: list[Row]) -> tuple[list[str], bool]:
    """The figures, and whether they are good."""
    fine = [row for row in rows if not row.is_spoilt and not row.truth.loses]
    ill = [row for row in rows if not row.is_spoilt and row.truth.loses]
    spoilt = [row for row in rows if row.is_spoilt]
    losing = [row for row in spoilt if row.truth.loses]
    alarms, missed = [row for row in fine if row.failed], [row for row in losing if not row.failed]
    places = Counter(row.place for row in losing if row.layers and row.failed)
    located, whole = places["right"] + places["neighbour"], sum(places.values())
    over = sum(row.failed and not row.truth.loses for row in spoilt)
    lines = [
        f"healthy pairs {len(fine)}, false alarms {len(alarms)}; not healthy: {len(ill)}",
        *(f"  left out: {row.model} {row.what}: {row.truth}; {'failed' if row.failed else 'passed'}" for row in ill),
        f"spoilt {len(spoilt)}, of which {len(losing)} lose more than the criterion, missed {len(missed)}; "
        f"{over} of the others fail",
        f"located rightly {located} of {whole} ({located / max(1, whole):.1%}): "
        + ", ".join(f"{count} {place}" for place, count in places.most_common()),
    ]
    return lines, not alarms and not missed and not over and located >= RIGHT_SHARE * whole


def main() -> None:
    """Judge all models, print the rows that are wrong, and the summary."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where trained weights are kept")
    parser.add_argument("--arch", action="append", choices=list(ARCHITECTURES), help="only these")
    parser.add_argument("--jobs", type=int, default=2, help="architectures at a time")
    parser.add_argument("--all", action="store_true", help="print every row")
    options = parser.parse_args()
    start, rows, folder = time.perf_counter(), [], options.folder.resolve()
    # Those with most models first.
    names = sorted(options.arch or ARCHITECTURES, key=lambda name: name not in SPOILT)
    print(_HEAD)
    with ProcessPoolExecutor(options.jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
        for future in as_completed([pool.submit(rows_of, name, folder) for name in names]):
            found = future.result()
            rows += found
            print("".join(f"{row}\n" for row in found if options.all or row.is_bad), end="", flush=True)
    lines, good = summary(rows)
    print("\n" + "\n".join([*lines, f"{time.perf_counter() - start:.0f} s"]))
    raise SystemExit(0 if good else 1)


if __name__ == "__main__":
    main()
