"""The baseline: accepted metrics by model and variant, in one JSON file of the user's repository.

People edit and merge the file, so it is read strictly: an error is one line that names the file and the key.
"""

from __future__ import annotations

import dataclasses
import json
import re
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from pytest_mnnquant.baseline.entry import Entry, Tolerances, usual_tolerances
from pytest_mnnquant.findings.figures import REAL, WHOLE, Figures
from pytest_mnnquant.findings.fix_command import shell_command
from pytest_mnnquant.findings.json_fields import BadField, known, mapping, numbers, required, text, texts

SCHEMA: Final = 1
#: The beginning of a file that git-lfs has not fetched yet.
POINTER: Final = "version https://git-lfs.github.com/spec/"
_CONFLICT: Final = re.compile(r"^(<{7} |={7}$|>{7} |\|{7} )", re.MULTILINE)
# The mode in the name of a variant, as earlier versions wrote it.
_BRACKETS: Final = re.compile(r"\[(train|eval)\](?=$|@)")
_TOLERANCES: Final = tuple(item.name for item in dataclasses.fields(Tolerances))


class BadBaseline(ValueError):
    """The file can't be used. The message is one line: the file and what is wrong with it; `fix` is what to do."""

    def __init__(self, message: str, fix: str) -> None:
        super().__init__(message)
        self.fix = fix


@dataclass(frozen=True)
class Accepted:
    """An accepted model: its source, with a path relative to the file's folder, and the entries of its variants."""

    source: str = ""
    float_sha256: str = ""
    variants: Mapping[str, Entry] = field(default_factory=dict)


@dataclass(frozen=True)
class Baseline:
    """All accepted models, by name."""

    models: Mapping[str, Accepted] = field(default_factory=dict)

    def entry(self, model: str, variant: str) -> Entry | None:
        """The entry of a variant; None if it is missing."""
        variants = self.models.get(model)
        return variants.variants.get(variant) if variants else None

    @property
    def entries(self) -> Iterator[tuple[str, str, Entry]]:
        """Model, variant and entry, in the order of the file."""
        for model in sorted(self.models):
            for variant in sorted(self.models[model].variants):
                yield model, variant, self.models[model].variants[variant]


def read_baseline(path: Path) -> Baseline:
    """Read a file. Raises `BadBaseline`, also for a missing file."""
    again = "restore it from version control, or accept again: delete it and run with --mnn-update-baseline"
    content = _content(path, again)
    if content.startswith(POINTER):
        raise BadBaseline(f"{path}: is a git-lfs pointer, not the file itself", "git lfs pull")
    if mark := _CONFLICT.search(content):
        line = content.count("\n", 0, mark.start()) + 1
        raise BadBaseline(
            f"{path}: line {line}: merge conflict",
            "take either side of each conflict, then accept the current metrics: --mnn-update-baseline",
        )
    try:
        return parsed(json.loads(content, parse_constant=_no_number, object_pairs_hook=_once))
    except BadField as error:
        raise BadBaseline(f"{path}: {error}", error.fix or again) from None
    except json.JSONDecodeError as error:
        raise BadBaseline(f"{path}: line {error.lineno} is not JSON: {error.msg}", again) from None
    except ValueError:  # json's only other error: an integer exceeds Python's limit of digits.
        raise BadBaseline(f"{path}: is not a baseline: a number has too many digits", again) from None
    except RecursionError:
        raise BadBaseline(f"{path}: is not a baseline: it is nested too deeply", again) from None


def _content(path: Path, again: str) -> str:
    try:
        if not stat.S_ISREG(path.stat().st_mode) and not path.is_dir():
            raise BadBaseline(f"{path}: is not a regular file", "name a file with --mnn-baseline")
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise BadBaseline(f"{path}: no such file", "accept the current metrics: --mnn-update-baseline") from None
    except OSError as error:
        fix = f"make it readable:\n{shell_command('chmod', 'u+r', path)}"
        raise BadBaseline(f"{path}: can't be read: {error.strerror}", fix) from None
    except UnicodeDecodeError:
        raise BadBaseline(f"{path}: is not UTF-8 text", again) from None


def parsed(content: Any) -> Baseline:
    """The baseline of a parsed file. Raises `BadField` that names the key at fault."""
    top = mapping(content, "the file")
    schema = required(top, "schema", "the file")
    if isinstance(schema, bool) or not isinstance(schema, int):
        raise BadField(f"schema: {schema!r} is not a whole number")
    if schema > SCHEMA:
        what = f"schema {schema} was written by a newer pytest-mnnquant; this version reads schema {SCHEMA}"
        raise BadField(what, "update pytest-mnnquant: pip install --upgrade pytest-mnnquant")
    if schema < SCHEMA:
        what = f"schema {schema} was written by an older pytest-mnnquant; this version reads schema {SCHEMA}"
        raise BadField(what, "accept again: delete it and run with --mnn-update-baseline")
    known(top, ("schema", "models"), "the file")
    models = mapping(required(top, "models", "the file"), "models")
    return Baseline({name: _model(value, name) for name, value in models.items()})


def as_text(baseline: Baseline) -> str:
    """The file's content: sorted, one value per line, identical for identical metrics."""
    models = {name: _model_json(accepted) for name, accepted in baseline.models.items()}
    content = {"schema": SCHEMA, "models": models}
    return json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"


def _model_json(accepted: Accepted) -> dict[str, Any]:
    variants = {label: _entry_json(entry) for label, entry in accepted.variants.items()}
    return {"source": accepted.source, "float_sha256": accepted.float_sha256, "variants": variants}


def _entry_json(entry: Entry) -> dict[str, Any]:
    metrics = entry.figures
    figures = {name: getattr(metrics, name) for name in (*WHOLE, *REAL) if getattr(metrics, name) is not None}
    if metrics.metric:
        figures |= {"metric": metrics.metric, "lower_is_better": metrics.lower_is_better}
    return {
        "figures": figures,
        "tolerances": _tolerances_json(entry.tolerances),
        "layers": dict(metrics.layers),
        "sha256": metrics.sha256,
        "versions": dict(entry.versions),
        "host": dict(entry.host),
    }


def _tolerances_json(tolerances: Tolerances) -> dict[str, Any]:
    """All tolerances; of the two for accuracy, the one that applies."""
    values = dataclasses.asdict(tolerances)
    if tolerances.accuracy_relative is None:
        del values["accuracy_relative"]
    elif tolerances.accuracy is None:
        del values["accuracy"]
    return values


def _model(value: Any, name: str) -> Accepted:
    where = f"models.{name}"
    model = mapping(value, where)
    known(model, ("source", "float_sha256", "variants"), where)
    source, float_sha256 = text(model, "source", where), text(model, "float_sha256", where)
    variants = mapping(required(model, "variants", where), f"{where}.variants")
    for label in variants:
        if (current := _BRACKETS.sub(r"-\1", label)) != label:
            raise BadField(f"{where}.variants.{label}: variants have no brackets", f'rename the key to "{current}"')
    entries = {label: _entry(entry, name, label, source, float_sha256) for label, entry in variants.items()}
    return Accepted(source, float_sha256, entries)


def _entry(value: Any, model: str, label: str, source: str, float_sha256: str) -> Entry:
    where = f"models.{model}.variants.{label}"
    entry = mapping(value, where)
    known(entry, ("figures", "tolerances", "layers", "sha256", "versions", "host"), where)
    place = f"{where}.figures"
    figures = mapping(required(entry, "figures", where), place)
    known(figures, (*WHOLE, *REAL, "metric", "lower_is_better"), place)
    lower = figures.get("lower_is_better", False)
    if not isinstance(lower, bool):
        raise BadField(f"{place}.lower_is_better: {lower!r} is not true or false")
    if figures.get("accuracy") is not None and not figures.get("metric"):
        raise BadField(f"{place}.metric: is missing; required with accuracy")
    measured = Figures(
        model=model,
        variant=label,
        source=source,
        float_sha256=float_sha256,
        metric=text(figures, "metric", place),
        lower_is_better=lower,
        layers=texts(required(entry, "layers", where), f"{where}.layers"),
        sha256=text(entry, "sha256", where),
        **numbers(figures, WHOLE, place, whole=True, low=0),
        **numbers(figures, ("accuracy",), place, whole=False),
        **numbers(figures, [name for name in REAL if name != "accuracy"], place, whole=False, low=0),
    )
    place = f"{where}.tolerances"
    allowed = mapping(entry.get("tolerances", {}), place)
    known(allowed, _TOLERANCES, place)
    usual = usual_tolerances(measured)
    if not allowed.keys().isdisjoint(("accuracy", "accuracy_relative")):
        usual = dataclasses.replace(usual, accuracy=None, accuracy_relative=None)
    tolerances = dataclasses.replace(usual, **numbers(allowed, [*allowed], place, whole=False, low=0))
    versions, host = (texts(entry.get(key, {}), f"{where}.{key}") for key in ("versions", "host"))
    return Entry(measured, tolerances, versions, host)


def _no_number(constant: str) -> Any:
    raise BadField(f"{constant} is not a number")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise BadField(f"the key {twice!r} occurs twice (after a merge?)")
    return members
