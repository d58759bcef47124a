"""Every option, declared once: command line, ini key and TOML key.

Loaded by every pytest run on a machine that has the plugin, so it imports and builds as little as it can.
"""

from __future__ import annotations

import argparse
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import pytest


@dataclass(frozen=True, slots=True)
class Option:
    """One option. `kind` is str, float or bool; `many` collects repeated values; `choices` lists allowed ones.

    What is not `ini` is given on the command line only.
    `named` takes a number for all outputs, or NAME=NUMBER for one (repeatable; in TOML a table, with "*" for others).
    """

    name: str
    help: str
    metavar: str = ""
    kind: type = str
    many: bool = False
    named: bool = False
    default: Any = None
    choices: tuple[str, ...] = ()
    low: float = -math.inf
    high: float = math.inf
    per_model: bool = True
    ini: bool = True

    @property
    def flag(self) -> str:
        """As typed on the command line."""
        return "--mnn-" + self.name.replace("_", "-")

    @property
    def key(self) -> str:
        """The ini key, and pytest's own name for the value."""
        return "mnn_" + self.name

    def parse(self, value: Any, where: str) -> Any:
        """Turn text (or a TOML value) into the option's value. Raises `ValueError` naming `where`."""
        if self.named:
            return self._by_name(value, where)
        if self.many:
            items = [value] if isinstance(value, str) else value
            if not isinstance(items, list | tuple):
                raise ValueError(f"{where}: {value!r} is not a list of texts")
            return tuple(self._one(item, where) for item in items)
        return self._one(value, where)

    @property
    def repeats(self) -> bool:
        """Whether the command line takes it more than once."""
        return self.many or self.named

    def _by_name(self, value: Any, where: str) -> float | dict[str, float]:
        if isinstance(value, Mapping):
            return {name: self._number(number, f"{where}: {name}") for name, number in value.items()}
        if value == [] or value == ():
            raise ValueError(f"{where}: a number is missing")
        found: dict[str, float] = {}
        for item in value if isinstance(value, list | tuple) else [value]:
            name, _, number = item.rpartition("=") if isinstance(item, str) else ("", "", item)
            found[name or "*"] = self._number(number, where)
        return found["*"] if set(found) == {"*"} else found

    def _one(self, value: Any, where: str) -> Any:
        if self.named:
            return self._by_name(value, where)
        if self.kind is bool:
            if isinstance(value, bool):
                return value
            raise ValueError(f"{where}: {value!r} is not true or false")
        if self.kind is float:
            return self._number(value, where)
        if not isinstance(value, str):
            raise ValueError(f"{where}: {value!r} is not text")
        if self.name == "recipe":
            from pytest_mnnquant.recipes.recipe import recipe_named  # only where a recipe is given: it loads numpy

            try:
                recipe_named(value)
            except ValueError as error:
                raise ValueError(f"{where}: {error}") from None
        if self.choices and value not in self.choices:
            raise ValueError(f"{where}: {value!r} is unknown; choose from: {', '.join(self.choices)}")
        return value

    def _number(self, value: Any, where: str) -> float:
        try:
            number = math.nan if isinstance(value, bool) else float(value)
        except (TypeError, ValueError):
            number = math.nan
        if math.isnan(number):
            raise ValueError(f"{where}: {value!r} is not a number") from None
        if not self.low <= number <= self.high:
            bounds = f"{self.low:g} to {self.high:g}" if math.isfinite(self.high) else f"at least {self.low:g}"
            raise ValueError(f"{where}: {value} is out of range; allowed: {bounds}")
        return number


RULE_HELP: Final = "rule code not to report, such as MNQ710, or the beginning of some, such as MNQ71 (repeatable)"

OPTIONS: Final = (
    Option("model", "model to test: [NAME=]file.py:callable, [NAME=]package.module:callable, x.onnx, x.tflite, x.mnn, "
           "or the name of a model in the configuration (repeatable)", "SPEC", many=True, per_model=False),
    Option("config", "TOML file with a [tool.mnnquant] table; all its models are tested "
           "(default: pyproject.toml in rootdir, for the models that --mnn-model names)", "FILE", per_model=False),
    Option("quantized", "judge this quantized .mnn instead of quantizing", "FILE"),
    Option("params", "params file that --mnn-quantized was made with "
           "(default: compress_params_index.bin beside it, if there)", "FILE"),
    Option("calibration", "calibration data: .npz, .npy, a folder of images, or file.py:callable "
           "(default: calibration() beside the model)", "SPEC"),
    Option("evaluation", "evaluation data, likewise; an array named `labels` holds labels "
           "(default: evaluation() beside the model)", "SPEC"),
    Option("recipe", "how to quantize: int8 (int8-kl+w8, ...), w2 to w8 (w4b32-hqq, ...), fp16, mnnquant-kl, -admm or "
           "-ema, mnncompress or mnncompress-repaired, or a pipeline of one's own, [NAME=]file.py:callable[@RECIPE] "
           "(repeatable; default: int8)", "RECIPE", many=True, default=("int8",)),
    Option("mode", "state of the PyTorch model while it is calibrated: both, train or eval (default: both)", "MODE",
           default="both", choices=("both", "train", "eval")),
    Option("min_size_ratio", "required float bytes / quantized bytes "
           "(default: none, judged against the size expected from the layers)", "R", float, low=0.0),
    Option("min_coverage", "required share of weight bytes stored as asked (default: 0.99)", "C", float, default=0.99,
           low=0.0, high=1.0),
    Option("metric", "task metric of outputs and labels: top1, top5, miou, mae, rmse, words, characters, each with "
           "@OUTPUT where several outputs fit, or file.py:callable (default: top1)", "METRIC"),
    Option("max_accuracy_drop", "allowed drop of the task metric against the float model, absolute (of an error: rise; "
           "default: 0.01 of a share such as top1)", "D", float),
    Option("min_accuracy_ratio", "required task metric / float model's, such as 0.99 (of an error: float / quantized; "
           "default: none)", "R", float, low=0.0),
    Option("min_float_accuracy", "what the float model itself must reach (of an error: at most; default: none)", "A",
           float),
    Option("min_cosine", "required mean cosine similarity of outputs that no label judges, for all or as OUTPUT=C "
           "(repeatable; default: 0.99, for 4 bit 0.95)", "C", float, named=True, low=-1.0, high=1.0),
    Option("min_agreement", "required share of samples with the float model's class, for all outputs or as OUTPUT=A "
           "(repeatable; default: none)", "A", float, named=True, low=0.0, high=1.0),
    Option("min_sqnr", "required SQNR of outputs in dB, for all or as OUTPUT=DB (repeatable; default: none)", "DB",
           float, named=True),
    Option("max_latency_ratio", "allowed quantized / float latency, on all hosts or as HOST=R, HOST being its name, "
           "x86_64, aarch64, vnni, dotprod or i8mm (repeatable; default: none, recorded but not judged)", "R", float,
           named=True, low=0.0),
    Option("threads", "threads of MNN for latency and memory (default: 1)", "N", float, default=1.0, low=1.0,
           high=256.0),
    Option("precision", "MNN's precision for latency: normal, high or low (default: normal)", "NAME", default="normal",
           choices=("normal", "high", "low")),
    Option("memory_mode", "MNN's memory mode for outputs, latency and memory: normal, or low, which uses stored "
           "weights (default: normal)", "NAME", default="normal", choices=("normal", "low")),
    Option("batch", "samples in one timed inference (default: 1)", "N", float, default=1.0, low=1.0, high=65536.0),
    Option("latency_time", "limit in seconds for timing one variant (default: 15)", "S", float, default=15.0, low=0.1),
    Option("skip_layer", "glob of layers meant to stay float (repeatable)", "PATTERN", many=True, default=()),
    Option("ignore", RULE_HELP, "CODE", many=True, default=()),
    Option("report", "write a report, .json, .md or .html by its ending; .html needs the extra `report` (repeatable)",
           "FILE", many=True, default=(), per_model=False),
    Option("baseline", "compare with the accepted figures in this file (default: mnnquant-baseline.json in rootdir, if "
           "there)", "FILE", per_model=False),
    Option("update_baseline", "accept the figures of this run: write them to the baseline; refused where CI is set",
           kind=bool, default=False, per_model=False, ini=False),
    Option("cache_dir", "where artifacts are kept by content (default: pytest's cache folder)", "DIR", per_model=False),
    Option("no_cache", "make everything anew", kind=bool, default=False, per_model=False),
    Option("exporter", "PyTorch's ONNX exporter: torchscript or dynamo (default: torchscript)", "NAME",
           default="torchscript", choices=("torchscript", "dynamo")),
    Option("target", "where what runs is judged: host, aarch64 (emulated; aarch64:cortex-a53, ...), ssh://USER@MACHINE "
           "or a name of the configuration (repeatable; default: host)", "NAME", many=True, default=("host",)),
    Option("strict", "skipped and inconclusive checks fail where there is something to judge; confidence bounds decide",
           kind=bool, default=False, per_model=False),
    Option("suggest", "where accuracy fails, search for layers to leave float, other bits or another observer, and try "
           "each proposal", kind=bool, default=False),
    Option("suggest_time", "limit in seconds for the search for one variant (default: 120)", "S", float, default=120.0,
           low=1.0),
    Option("timeout", "limit in seconds for one native step (default: 300)", "S", float, default=300.0, low=1.0),
)  # fmt: skip
BY_NAME: Final = {option.name: option for option in OPTIONS}
_BY_FLAG: Final = {option.flag: option for option in OPTIONS}
_PLURALS: Final = {"recipes": "recipe", "skip_layers": "skip_layer"}


def add_options(parser: pytest.Parser) -> None:
    """Declare all options with pytest, on the command line and in the ini file."""
    group = parser.getgroup("mnnquant", "quantized MNN models")
    for option in OPTIONS:
        if option.kind is bool:
            group.addoption(option.flag, action="store_const", const=True, dest=option.key, help=option.help)
            if option.ini:
                parser.addini(option.key, option.help, type="bool", default=None)
            continue
        group.addoption(
            option.flag,
            action="append" if option.repeats else "store",
            dest=option.key,
            metavar=option.metavar,
            type=_command_line(option),
            help=option.help,
        )
        kind: Any = "args" if option.repeats else "string"
        parser.addini(option.key, option.help, type=kind, default=None)


def _command_line(option: Option) -> Any:
    def parse(text: str) -> Any:
        try:
            option._one(text, option.flag)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error).removeprefix(f"{option.flag}: ")) from None
        return text

    parse.__name__ = option.metavar or option.name
    return parse


def is_asked(config: pytest.Config) -> bool:
    """Whether this run has models to test."""
    ids = getattr(config.option, "mnn_ids", None)
    return bool(ids or _given(config, BY_NAME["model"]) or _given(config, BY_NAME["config"]))


def reports(config: pytest.Config) -> tuple[str, ...]:
    """The reports that were asked for, as they were named."""
    return tuple(_given(config, BY_NAME["report"]) or ())


def may_hold_ids(args: list[str]) -> bool:
    """A cheap look at whether an id of one of our items stands among the arguments."""
    bases = [arg.partition("::")[0] for arg in args if "::" in arg]
    return any(base.endswith((".onnx", ".tflite", ".mnn", ".json")) or not os.path.exists(base) for base in bases)  # noqa: PTH110


def _given(config: pytest.Config, option: Option) -> Any:
    """What the command line says, else the ini file; None where neither does."""
    value = config.getoption(option.key, None)
    if value not in (None, []):
        return value
    value = config.getini(option.key) if option.ini else None
    return None if value in (None, "", []) else value


def command_line(config: pytest.Config) -> dict[str, Any]:
    """The values given on the command line or in the ini file, parsed. Raises `ValueError`."""
    found = {}
    for option in OPTIONS:
        value = _given(config, option)
        if value is not None:
            found[option.name] = option.parse(value, option.flag)
            if option.metavar in ("FILE", "DIR", "SPEC", "RECIPE", "METRIC") and config.getoption(option.key, None) in (
                None,
                [],
            ):
                found[option.name] = _from_ini_folder(config, found[option.name])
    return found


def _from_ini_folder(config: pytest.Config, value: Any) -> Any:
    """A path of the ini file starts at that file's folder, wherever pytest is called from."""
    folder = config.inipath.parent if config.inipath else config.rootpath
    if folder == config.invocation_params.dir:
        return value
    if isinstance(value, tuple):
        return tuple(_from_ini_folder(config, item) for item in value)
    name, equals, target = value.rpartition("=")
    place, colon, attribute = target.partition(".py:")
    if colon:
        place, colon = place + ".py", ":"
    return f"{name}{equals}{folder / place}{colon}{attribute}" if (folder / place).exists() else value


def table_values(table: Mapping[str, Any], where: str, extra: tuple[str, ...]) -> dict[str, Any]:
    """The options in a TOML table, by name. `extra` keys are left to the caller. Raises `ValueError` naming the key."""
    found = {}
    for key, value in table.items():
        if key in extra:
            continue
        name = _PLURALS.get(key, key)
        if name not in BY_NAME or not BY_NAME[name].per_model:
            known = sorted({*extra, *(option.name for option in OPTIONS if option.per_model), *_PLURALS})
            raise ValueError(f"{where}: unknown key {key!r}; known: {', '.join(known)}")
        found[name] = BY_NAME[name].parse(value, f"{where}: {key}")
    return found


def of_ours(args: Sequence[str]) -> list[str]:
    """The options of a command line that say what is tested and how; not those that say what is done with it."""
    found: list[str] = []
    rest = iter(args)
    for arg in rest:
        option = _BY_FLAG.get(arg.partition("=")[0])
        if option is None or option.name in ("update_baseline", "report", "strict", "cache_dir", "no_cache"):
            continue
        found.append(arg)
        if "=" not in arg and option.kind is not bool:
            found.append(next(rest, ""))
    return found
