"""The values of the command line and the ini file, read once from pytest's configuration, which stays unchanged.

Loaded by every pytest run on a machine that has the plugin, so it imports and builds as little as it can.
"""

from __future__ import annotations

import dataclasses
import os
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pytest_mnnquant.config.options import BY_FLAG, BY_NAME, DEMANDS, OPTIONS

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

    from pytest_mnnquant.config.option import Option

# Options that decide what happens to the results. All others decide what is tested, and how.
_OF_RESULTS = ("update_baseline", "report", "strict", "cache_dir", "no_cache", "durations")


@dataclass(frozen=True)
class Given:
    """The values of options, parsed, by option name; options that are not set are missing.

    `typed` are the names of those on the command line; all others come from the ini file. Relative paths start at
    `folder`, where pytest was called. `root` is pytest's rootdir, `ini_file` its configuration file, if any.
    """

    values: Mapping[str, Any]
    typed: frozenset[str]
    folder: Path
    root: Path
    ini_file: Path | None = None

    def with_typed(self, values: Mapping[str, Any]) -> Given:
        """These options with `values` added, as if they had been given on the command line."""
        return dataclasses.replace(self, values={**self.values, **values}, typed=self.typed | set(values))


def is_requested(config: pytest.Config) -> bool:
    """Whether an option names a model to test. Cheap: nothing is parsed."""
    return any(_raw(config, BY_NAME[name]) is not None for name in ("model", "config", "update_baseline"))


def may_be_requested(early_config: pytest.Config, args: Iterable[str]) -> bool:
    """Whether options or arguments may name models to test, before pytest has parsed them. Cheap."""
    given = early_config.known_args_namespace
    keys = [option.key for option in OPTIONS]
    is_given = any(getattr(given, key, None) not in (None, [], False) for key in keys)
    return is_given or any(early_config.getini(option.key) for option in OPTIONS if option.ini) or may_hold_ids(args)


def demands(config: pytest.Config) -> tuple[str, ...]:
    """The flags of the command line that request a judgement of some model. Cheap: nothing is parsed.

    Options of `addopts` and PYTEST_ADDOPTS apply to every run, so they are settings. On xdist's workers: all flags.
    """
    given = [option.flag for option in DEMANDS if _typed(config, option) is not None]
    if not given or hasattr(config, "workerinput"):
        return tuple(given)
    typed = _names(map(str, config.invocation_params.args))
    lasting = _names((*config.getini("addopts"), *shlex.split(os.environ.get("PYTEST_ADDOPTS", ""))))
    return tuple(flag for flag in given if flag in typed or flag not in lasting)


def _names(args: Iterable[str]) -> set[str]:
    return {arg.partition("=")[0] for arg in args}


def may_hold_ids(args: Iterable[str]) -> bool:
    """Whether an argument looks like the id of an item of the suite. Cheap: nothing is parsed."""
    bases = [arg.partition("::")[0] for arg in args if "::" in arg]
    suffixes = (".onnx", ".tflite", ".mnn", ".pt", ".pt2", ".json")
    return any(base.endswith(suffixes) or not os.path.isfile(base) for base in bases)  # noqa: PTH113


def read_given(config: pytest.Config) -> Given:
    """Read all options. Raises `ValueError` that names the option at fault."""
    values, typed = {}, set()
    for option in OPTIONS:
        raw = _raw(config, option)
        if raw is None:
            continue
        values[option.name] = option.parse(raw, option.flag)
        if _typed(config, option) is not None:
            typed.add(option.name)
        elif option.is_path:
            values[option.name] = _from_ini_folder(config, values[option.name])
    folder = config.invocation_params.dir
    return Given(values, frozenset(typed), folder, config.rootpath, config.inipath)


def _raw(config: pytest.Config, option: Option) -> Any:
    """The value on the command line, else that of the ini file; None if neither has one."""
    value = _typed(config, option)
    if value is None and option.ini:
        value = config.getini(option.key)
    return None if value is None or value == [] else value


def _typed(config: pytest.Config, option: Option) -> Any:
    value = config.getoption(option.key, None)
    return None if value in (None, []) else value


def _from_ini_folder(config: pytest.Config, value: Any) -> Any:
    """The value of an ini key, with a path that starts at the ini file's folder, wherever pytest is called from."""
    folder = config.inipath.parent if config.inipath else config.rootpath
    if folder == config.invocation_params.dir:
        return value
    if isinstance(value, tuple):
        return tuple(_from_ini_folder(config, item) for item in value)
    from pytest_mnnquant.sources.spec import is_existing, named_target

    name, target = named_target(value, folder)
    before, colon, attribute = target.rpartition(".py:")
    place, rest = (f"{before}.py", f":{attribute}") if colon else (target, "")
    return f"{name}{'=' * bool(name)}{folder / place}{rest}" if is_existing(folder / place) else value


def suite_arguments(args: Sequence[str]) -> tuple[str, ...]:
    """The options of a command line that decide what is tested and how; not those about the results."""
    chosen: list[str] = []
    rest = iter(args)
    for arg in rest:
        option = BY_FLAG.get(arg.partition("=")[0])
        if option is None or option.name in _OF_RESULTS:
            continue
        chosen.append(arg)
        if "=" not in arg and option.kind is not bool:
            chosen.append(next(rest, ""))
    return tuple(chosen)
