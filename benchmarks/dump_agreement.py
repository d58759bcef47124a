"""The reader against MNN itself: its JSON dump field by field, and what its layers compute, on the whole corpus.

python benchmarks/dump_agreement.py FOLDER [--old 3.0.0=PYTHON ...]

Exits with 1 on any difference. If FOLDER has no corpus, it is made.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from corpus import Wheel, build, old_wheel
from dump_fields import differences, dump_fields, load_dump, read_fields
from layer_check import check_layers

from pytest_mnnquant.mnnfile.flatbuffer import BadModel
from pytest_mnnquant.mnnfile.ledger import account
from pytest_mnnquant.mnnfile.model import Model, Op, read_model
from pytest_mnnquant.mnnfile.storage import Weights


@dataclass(frozen=True)
class Row:
    """What was compared in one file, and every difference."""

    name: str
    fields: int
    decoded: int
    ran: int
    ledger: str
    wrong: tuple[str, ...]


def compare(name: str, path: Path, wheels: Mapping[str, Wheel]) -> Row:
    """Compare one file. Its dump is by this environment's converter; its layers run in the wheel that made it."""
    model, now = read_model(path), Wheel()
    dump = path.with_suffix(".dump.json")
    if not dump.exists():
        now.dump(path, dump)
    mine, theirs = read_fields(model), dump_fields(load_dump(dump))
    wrong = differences(mine, theirs)
    decoded = [_decoding(model, op, weights) for op in model.ops for weights in op.weights]
    wrong += [text for text in decoded if text]
    ledger, adds_up = _ledger(model)
    if not adds_up:
        wrong.append(f"ledger: {ledger}")
    ran = 0
    try:
        checked = check_layers(model, wheels.get(name.partition("@")[2], now))
        ran = checked.layers
        wrong += checked.wrong
    except RuntimeError as error:
        wrong.append(str(error))
    return Row(name, len(mine), decoded.count(""), ran, ledger, tuple(wrong))


def _decoding(model: Model, op: Op, weights: Weights) -> str:
    """What is wrong with decoding one stored tensor; empty when nothing is."""
    try:
        values = weights.decoded(model.bytes_at(0, model.size - model.main_size, external=True))
    except BadModel as error:
        return f"{op.name}: {error}"
    whole = values.size == weights.count and weights.intact
    return "" if whole else f"{op.name}: {values.size} of {weights.count} weights decoded"


def _ledger(model: Model) -> tuple[str, bool]:
    """Its classes as text, and whether they add up, with a graph of a size that operators and names can have."""
    classes = account(model).classes
    graph = classes.get("graph", 0)
    names = sum(map(len, model.tensor_names)) + sum(len(op.name) for op in model.ops)
    plausible = names < graph < 2 * names + 400 * len(model.ops) + 1000
    files = model.path.stat().st_size + (model.external_path.stat().st_size if model.external_path else 0)
    whole = sum(classes.values()) == files and min(classes.values()) >= 0 and not classes.get("unused")
    return f"graph {graph:,} of {files:,}", plausible and whole


def main() -> int:
    """Compare all files and print a row for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--old", type=old_wheel, action="append", default=[])
    options = parser.parse_args()
    files = build(options.folder, options.old)
    wheels = {wheel.version: wheel for wheel in options.old}
    print(f"{'file':<34}{'fields':>8}{'differ':>8}{'decoded':>9}{'run':>5}  ledger")
    with ThreadPoolExecutor(2) as pool:
        rows = []
        for row in pool.map(lambda item: compare(item[0], item[1], wheels), files):
            rows.append(row)
            print(f"{row.name:<34}{row.fields:>8}{len(row.wrong):>8}{row.decoded:>9}{row.ran:>5}  {row.ledger}")
            for text in row.wrong[:8]:
                print(f"    {text}")
            sys.stdout.flush()
    bad = sum(bool(row.wrong) for row in rows)
    print(
        f"{len(rows)} files, {sum(row.fields for row in rows):,} fields, {sum(row.decoded for row in rows)} tensors "
        f"decoded, {sum(row.ran for row in rows)} layers run, {bad} files with differences"
    )
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
