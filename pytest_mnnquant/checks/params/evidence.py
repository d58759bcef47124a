"""The params file against the models: which entry belongs to which layer."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pytest_mnnquant.checks.convert_again import convert_again
from pytest_mnnquant.findings.fix_command import ConvertCommand
from pytest_mnnquant.mnnfile.entries import bind_by_name, bind_by_weights
from pytest_mnnquant.mnnfile.matching import Match
from pytest_mnnquant.mnnfile.model import Model, Op
from pytest_mnnquant.mnnfile.params import LayerParams, Params
from pytest_mnnquant.recipes.recipe import Recipe


@dataclass(frozen=True)
class Misnamed:
    """An entry of the params file that names no tensor, and the layer whose weights it carries; None if unknown.

    `groups` are the layers that MNN made of a grouped convolution, `layer` the first of them.
    """

    entry: LayerParams
    layer: Op | None
    groups: tuple[Op, ...] = ()


@dataclass(frozen=True)
class ParamsEvidence:
    """The params file against the models: which entry is which layer. Everything is empty if it can't be read.

    `unreadable` and `missing` say why; `doubled`: it holds two calibrations. `bound` pairs entries with the quantized
    model's layers by name, as MNN does. `repaired` is the same params file with the names that MNN looks for; None if
    it could not be written.
    """

    path: Path | None
    params: Params | None = None
    missing: str = ""
    unreadable: str = ""
    doubled: bool = False
    bound: tuple[tuple[LayerParams, Op], ...] = ()
    misnamed: tuple[Misnamed, ...] = ()
    unlisted: tuple[Op, ...] = ()
    repaired: Path | None = None

    def misnamed_of(self, layer: Op) -> Misnamed | None:
        """The misnamed entry that belongs to a layer of the float model."""
        return next((item for item in self.misnamed if any(op is layer for op in (item.layer, *item.groups))), None)

    @property
    def applicable(self) -> Path | None:
        """The file that the converter can apply: the repaired one if there is one; None if it holds no scales."""
        if self.params is None or not self.params.layers or self.params.is_guide:
            return None
        return self.repaired or self.path

    @property
    def can_be_repaired(self) -> bool:
        """Whether the layer of an entry that names no tensor was found by its weights."""
        return any(item.layer is not None for item in self.misnamed)

    def fix_for(self, name: str, command: ConvertCommand | None, recipe: Recipe | None) -> str:
        """How to make the variant again so that an entry that names no tensor is applied."""
        if self.repaired is None:
            layers = {item.entry.name: item.layer for item in self.misnamed if item.layer is not None}
            say = f"rename {name!r} to {layers[name].output_names[0]!r} in the params file, then convert again"
        else:
            say = "convert again with the repaired params file (it is on the machine that ran this test)"
        return convert_again(command, recipe, say)


def relate(path: Path, params: Params, base: Model, model: Model, match: Match) -> ParamsEvidence:
    """Find which entry belongs to which layer: by tensor name, and for names that match nothing by the weights."""
    bound, lost = bind_by_name(params, model)
    taken = {id(op) for _, op in bound}
    free = [layer for layer, stored in match.pairs if layer.is_convolution and id(stored) not in taken]
    misnamed = tuple(
        Misnamed(entry, ops[0] if ops else None, ops if len(ops) > 1 else ())
        for entry, ops in bind_by_weights(lost, base, free)
    )
    known = {id(op) for item in misnamed for op in (item.layer, *item.groups)}
    unlisted = tuple(op for op in free if id(op) not in known)
    return ParamsEvidence(path, params, bound=tuple(bound), misnamed=misnamed, unlisted=unlisted)
