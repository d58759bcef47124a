"""What the fixture models do on targets, as tables of Markdown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from pytest_mnnquant.checks.target.check import ROUNDING
from pytest_mnnquant.findings.catalogue import RULES

DIFFERS: Final = "MNQ740"
_SUMS: Final = 0.01


@dataclass(frozen=True)
class Cell:
    """A variant in a place: `findings` are (code, severity, message, cause); not `made` is what has no model."""

    model: str
    recipe: str
    mode: str | None
    place: str
    low: bool = False
    made: bool = True
    findings: tuple[tuple[str, str, str, str], ...] = ()
    difference: dict[str, Any] | None = None
    note: str = ""
    seconds: float = 0.0

    @property
    def label(self) -> str:
        """The variant."""
        return f"{self.recipe}[{self.mode}]" if self.mode else self.recipe

    @property
    def errors(self) -> list[str]:
        """The rules that fail it."""
        return sorted({code for code, severity, *_ in self.findings if severity in ("error", "consequence")})

    @property
    def steps(self) -> float | None:
        """How far its outputs are from this machine's."""
        return self.difference["steps"] if self.difference else None

    @property
    def differs(self) -> bool:
        """Whether an operator computes otherwise there."""
        return any(code == DIFFERS for code, *_ in self.findings)

    @property
    def line(self) -> str:
        """All of it, in a line."""
        steps = "" if self.steps is None else f"{self.steps:.3g} steps"
        findings = "; ".join(f"{code}: {message} ({cause})" for code, _, message, cause in self.findings)
        where = f"{self.model} {self.label}{' low' if self.low else ''} {self.place}"
        return f"{where} {steps} {self.seconds:.1f} s {' '.join((self.note + ' ' + findings).split())}"


def arm_table(cells: Sequence[Cell]) -> str:
    """Models and recipes on each processor: steps from the host, and who makes them; how many findings there are."""
    found = [cell for cell in cells if cell.place != "host"]
    places = list(dict.fromkeys(cell.place for cell in found))
    lines = []
    for model in dict.fromkeys(cell.model for cell in found):
        rows: dict[tuple[str, ...], list[str]] = {}
        for label in dict.fromkeys(cell.label for cell in found if cell.model == model):
            row = {cell.place: cell for cell in found if (cell.model, cell.label) == (model, label)}
            key = (*(_shown(row[place]) for place in places), _maker(list(row.values())))
            rows.setdefault(key, []).append(label)
        lines += [[model, ", ".join(_joined(labels)), *key] for key, labels in rows.items()]
    looked = [cell.difference for cell in found if cell.difference and "compared" in cell.difference]
    head = ["model", "recipes", *(place.partition(":")[2] for place in places), "made by"]
    compared, missed = sum(one["compared"] for one in looked), sum(len(one["uncompared"]) for one in looked)
    summary = (
        f"{len(found)} runs. In {len(looked)} of them outputs are more than a step from the host's; there every\n"
        f"operator was given the same values in both places: {compared:,} comparisons, {missed} not possible.\n"
        f"`{DIFFERS}` was raised in {sum(cell.differs for cell in found)} runs, other rules than on the host in "
        f"{len(_new(cells))}.\n"
    )
    return _table(head, lines) + "\n" + summary


def older_table(cells: Sequence[Cell]) -> str:
    """Recipes on each runtime, over all models: what fails, and where an operator computes otherwise."""
    places = list(dict.fromkeys(cell.place for cell in cells))
    rows: dict[tuple[str, ...], list[str]] = {}
    for low, label in dict.fromkeys((cell.low, cell.label) for cell in cells):
        row = [cell for cell in cells if (cell.low, cell.label) == (low, label) and cell.made]
        if row:
            outcomes = (_outcome([one for one in row if one.place == where]) for where in places)
            rows.setdefault(("low" if low else "normal", *outcomes), []).append(label)
    codes = sorted({code for cell in cells for code in cell.errors} | {DIFFERS})
    legend = "\n".join(f"- `{code}` {RULES[code].name}: {RULES[code].meaning}" for code in codes)
    lines = [[", ".join(_joined(labels)), *key] for key, labels in rows.items()]
    return f"{_table(['recipes', 'memory mode', *places], lines)}\n{legend}\n"


def _shown(cell: Cell) -> str:
    if cell.errors and cell.steps is None:
        return ", ".join(cell.errors)
    return "0" if not cell.steps or cell.steps < _SUMS else f"{cell.steps:.3g}"


def _maker(row: Sequence[Cell]) -> str:
    """The operators that make the difference, on the processor that differs most."""
    worst = max(row, key=lambda cell: cell.steps or 0.0)
    if not worst.made:
        return "no model"
    if (worst.steps or 0.0) < _SUMS:
        return ""
    if (worst.steps or 0.0) <= ROUNDING:
        return "rounding"
    assert worst.difference is not None
    operators = worst.difference.get("operators") or []
    further = [one for one in operators if one["steps"] > ROUNDING]
    chosen = (further or operators)[:2]
    named = ", ".join(f"`{_short(one['name'])}` ({one['moves'] or 0:.0f})" for one in chosen)
    if further:
        return f"{named}: more than a step off"
    rounding = sum(one["unlike"] > 0 for one in operators)
    how = f"rounding in {rounding} of {worst.difference['compared']} operators" if rounding else "sums in another order"
    return f"{how}; most by {named}"


def _short(name: str) -> str:
    """An operator's name without what the exporter repeats."""
    return "/".join(dict.fromkeys(part.rpartition(".")[2] if "." in part else part for part in name.split("/") if part))


def _outcome(cells: Sequence[Cell]) -> str:
    """What became of all models in a place: `ok`, the rules that fail them, and how many are only warned of."""
    counted = Counter(code for cell in cells for code in cell.errors)
    parts = [f"{code} ({count} of {len(cells)})" for code, count in sorted(counted.items())]
    warned = sum(cell.differs and not cell.errors for cell in cells)
    parts += [f"warned ({warned})"] if warned else []
    return ", ".join(parts) or "ok"


def _new(cells: Iterable[Cell]) -> list[Cell]:
    """Cells of targets that fail by other rules than the variant does on the host."""
    host = {(cell.model, cell.label): cell.errors for cell in cells if cell.place == "host"}
    return [cell for cell in cells if cell.place != "host" and cell.errors != host[cell.model, cell.label]]


def _joined(labels: Sequence[str]) -> list[str]:
    """Labels, those of both modes as one."""
    both = {label.removesuffix("-train") for label in labels} & {label.removesuffix("-eval") for label in labels}
    found = [label.partition("[")[0] if label.partition("[")[0] in both else label for label in labels]
    return list(dict.fromkeys(found))


def _table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    rows = [head, ["---"] * len(head), *lines]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)
