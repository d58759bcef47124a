"""Ids of the suite's items: `MODEL::VARIANT::CHECK`, with `@TARGET` after the variant if it runs on a target."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from pytest_mnnquant.evidence.export import LABEL as EXPORT
from pytest_mnnquant.evidence.source import SourceUnderTest
from pytest_mnnquant.findings.catalogue import CHECK_NAMES, CHECKS, ENTRIES, check_named
from pytest_mnnquant.findings.check import RunsOn
from pytest_mnnquant.recipes.names import recipe_named, without_mode
from pytest_mnnquant.recipes.recipe import MODES
from pytest_mnnquant.sources.spec import SourceError, parse_spec
from pytest_mnnquant.targets.ssh import SCHEME
from pytest_mnnquant.targets.target import HOST, Target

#: The targets of a run, by name, without this host.
Targets = Mapping[str, Target]
# The mode of a variant as earlier versions wrote it, with the bracket that pytest 9.2 added at the end of such ids.
_BRACKETS: Final = re.compile(rf"\[({'|'.join(MODES)})\](?=$|::|@|\])")
_SIGNS: Final = ("::", "@")


def renamed(check_id: str) -> str:
    """An id in the form `MODEL::int8-train::CHECK`; earlier versions wrote `MODEL::int8[train]::CHECK`."""
    model, colons, rest = check_id.partition("::")
    current, count = _BRACKETS.subn(r"-\1", rest)
    return model + colons + current.removesuffix("]") if count else check_id


def is_suite_id(arg: str, models: Collection[str], folder: Path) -> bool:
    """Whether an argument of the command line is an id of the suite, not of another test.

    `models` are the known models, by specification or by name; paths in specifications start at `folder`.
    """
    base, colons, _ = arg.partition("::")
    if not colons:
        return False
    if is_entries_id(arg) or base in models:
        return True
    try:
        parse_spec(base, folder)
    except SourceError:
        return False
    return True


def is_entries_id(arg: str) -> bool:
    """Whether this is the id of the item of a baseline file."""
    base, _, name = arg.partition("::")
    return name == ENTRIES and not base.endswith(".py")


def model_names(models: Iterable[str]) -> set[str]:
    """The beginnings of ids, for models as --mnn-model gives them: the specification, or the NAME before its `=`."""
    return {part for text in models for part in (text, text.partition("=")[0])}


def models_of(ids: Iterable[str]) -> tuple[str, ...]:
    """The models that the ids name."""
    return tuple(dict.fromkeys(arg.partition("::")[0] for arg in ids if not is_entries_id(arg)))


def recipes_of(ids: Iterable[str]) -> tuple[str, ...]:
    """The recipes that the ids name: users paste ids without the options of the run that printed them."""
    names = (without_mode(place_of(arg)[0]) for arg in ids)
    return tuple(dict.fromkeys(name for name in names if _is_recipe(name)))


def targets_of(ids: Iterable[str]) -> tuple[str, ...]:
    """The targets that the ids name; empty if they name this host only."""
    names = tuple(dict.fromkeys(place_of(arg)[1] or HOST for arg in ids))
    return () if names == (HOST,) else names


def place_of(check_id: str) -> tuple[str, str]:
    """The variant of an id, such as `int8-eval`, and the target after its @; empty for this host."""
    variant = check_id.partition("::")[2].partition("::")[0]
    label, at, target = variant.partition(f"@{SCHEME}")  # The target may contain another @: ssh://USER@MACHINE.
    if at:
        return label, SCHEME + target
    label, at, target = variant.rpartition("@")
    if not at or _is_recipe(without_mode(variant)):  # The recipe may contain an @: file.py:callable@w8.
        return variant, ""
    return label, target


def _is_recipe(name: str) -> bool:
    try:
        recipe_named(name)
    except ValueError:
        return False
    return True


def is_part(check_id: str, requested: str) -> bool:
    """Whether an id is the requested one or lies below it."""
    ends = ("", *(f"-{mode}" for mode in MODES))
    beginnings = tuple(requested + end + sign for end in ends for sign in _SIGNS)
    return check_id == requested or check_id.startswith(beginnings)


def variants(source: SourceUnderTest) -> Iterator[tuple[str, str | None]]:
    """The recipes and modes that a source is tested with."""
    is_python = source.spec.is_python and source.settings.quantized is None
    for name in source.settings.recipes:
        for mode in recipe_named(name).modes(is_python, source.settings.modes):
            yield name, mode


def labels(source: SourceUnderTest) -> Iterator[str]:
    """The variants that a source is tested with, as ids and tables name them."""
    if source.spec.is_checkpoint:
        return iter((EXPORT,))
    return (recipe_named(name).label(mode) for name, mode in variants(source))


def places(source: SourceUnderTest, targets: Targets, checks: Sequence[str] = CHECK_NAMES) -> Iterator[tuple[str, str]]:
    """The checks of each variant of a source, each with the target that runs it; empty for this host."""
    on_host = source.settings.is_on_host
    yield from (("", check) for check in checks if on_host or check_named(check).runs_on is RunsOn.HOST)
    for name in source.settings.targets:
        if name != HOST:
            is_device = targets[name].is_device
            yield from ((name, check.name) for check in CHECKS if check.is_run_on(is_device=is_device))


def check_ids(
    source: SourceUnderTest, targets: Targets, checks: Sequence[str] = CHECK_NAMES
) -> Iterator[tuple[str, str]]:
    """The ids of all checks of a source, each with the beginning that all ids of its variant share, on all targets."""
    for label in labels(source):
        variant = f"{source.settings.node}::{label}"
        for target, check in places(source, targets, checks):
            yield f"{variant}{'@' * bool(target)}{target}::{check}", variant
