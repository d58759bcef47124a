"""What a planted fault is, and the list of all of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.faults.factory import Factory

#: The layer where all are struck alike.
ANY: Final = "*"


@dataclass(frozen=True)
class Planted:
    """What somebody's pipeline left behind, and how the gate is asked about it.

    `source` is a path, or `FILE.py:callable`. Without `quantized` the gate makes the model itself. `data` is the
    evaluation set; without it nothing is judged on outputs. `status` is the exit status of the tool that made it.
    `options` are further options of ours. `float_model` is the float `.mnn` that other judges compare with (None: the
    gate's own).
    """

    source: Path | str
    quantized: Path | None = None
    params: Path | None = None
    data: Path | None = None
    calibration: Path | str | None = None
    options: tuple[str, ...] = ()
    status: int = 0
    float_model: Path | None = None

    def arguments(self) -> list[str]:
        """The command line of a run of pytest that judges it."""
        given = {
            "model": self.source,
            "quantized": self.quantized,
            "params": self.params,
            "evaluation": self.data,
            "calibration": self.calibration,
        }
        return [f"--mnn-{name}={value}" for name, value in given.items() if value is not None] + list(self.options)


@dataclass(frozen=True)
class Pair:
    """A fault and its nearest healthy twin."""

    fault: Planted
    twin: Planted


Builder = Callable[[Factory], Pair]


@dataclass(frozen=True)
class Fault:
    """One row of the catalogue: `code` and `layer` are what the only root-cause finding must say.

    `layer` is empty where the fault is the whole model's. `warnings` are rules that a person would agree with for the
    twin (few samples, ...). `needs` says what is missing here to plant it (an old MNN), or nothing. `beside` are the
    (code, layer) of a second fault that has nothing to do with the first one.
    """

    section: str
    slug: str
    code: str
    layer: str
    build: Builder
    warnings: tuple[str, ...] = ()
    needs: Callable[[], str] = str
    beside: tuple[tuple[str, str], ...] = ()

    def lacks(self) -> str:
        """What is missing here to plant it; empty where nothing is."""
        return self.needs()

    def expected(self, told: list[tuple[str, str]]) -> list[tuple[str, str]]:
        """The root causes that are to be told, sorted; `told` names the layer where any is right."""
        own = next((layer for code, layer in told if code == self.code), "") if self.layer == ANY else self.layer
        return sorted([(self.code, own), *self.beside])

    def __str__(self) -> str:
        return f"{self.section}-{self.slug}"


#: Sections of which faults, and of which twins too, are judged in each run of the tests; all are by the scoreboard.
JUDGED_ALWAYS: Final = {"planted": "ACDIV", "twins": "CD"}
#: All planted faults, in the order of their modules.
FAULTS: Final[list[Fault]] = []


def fault(
    section: str,
    slug: str,
    code: str,
    layer: str = "",
    *,
    warnings: tuple[str, ...] = (),
    needs: Callable[[], str] = str,
    beside: tuple[tuple[str, str], ...] = (),
) -> Callable[[Builder], Builder]:
    """Add the decorated builder to the list."""

    def add(build: Builder) -> Builder:
        FAULTS.append(Fault(section, slug, code, layer, build, warnings, needs, beside))
        return build

    return add
