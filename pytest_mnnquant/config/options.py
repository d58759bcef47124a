"""Every option, declared once: command line, ini key and TOML key.

Loaded by every pytest run on a machine that has the plugin, so it imports and builds as little as it can.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any, Final

from pytest_mnnquant.config.option import Option
from pytest_mnnquant.findings.defaults import (
    BATCH,
    COARSE_COSINE,
    COSINE,
    COVERAGE,
    DROP,
    EXPORTER,
    LATENCY_TIME,
    MEMORY_MODE,
    MODE,
    PRECISION,
    RECIPES,
    SUGGEST_TIME,
    TARGETS,
    THREADS,
    TIMEOUT,
)

if TYPE_CHECKING:
    import pytest

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
           f"(repeatable; default: {', '.join(RECIPES)})", "RECIPE", many=True, default=RECIPES),
    Option("mode", f"state of the PyTorch model while it is calibrated: both, train or eval (default: {MODE})", "MODE",
           default=MODE, choices=("both", "train", "eval")),
    Option("min_size_ratio", "required float bytes / quantized bytes "
           "(default: none, judged against the size expected from the layers)", "R", float, low=0.0),
    Option("min_coverage", f"required share of weight bytes stored as asked (default: {COVERAGE:g})", "C", float,
           default=COVERAGE, low=0.0, high=1.0),
    Option("metric", "task metric of outputs and labels: top1, top5, miou, mae, rmse, words, characters, each with "
           "@OUTPUT where several outputs fit, or file.py:callable (default: top1)", "METRIC"),
    Option("max_accuracy_drop", "allowed drop of the task metric against the float model, absolute (of an error: rise; "
           f"default: {DROP:g} of a share such as top1)", "D", float),
    Option("min_accuracy_ratio", "required task metric / float model's, such as 0.99 (of an error: float / quantized; "
           "default: none)", "R", float, low=0.0),
    Option("min_float_accuracy", "what the float model itself must reach (of an error: at most; default: none)", "A",
           float),
    Option("min_cosine", "required mean cosine similarity of outputs that no label judges, for all or as OUTPUT=C "
           f"(repeatable; default: {COSINE:g}, for 4 bit {COARSE_COSINE:g})", "C", float, named=True, low=-1.0,
           high=1.0),
    Option("min_agreement", "required share of samples with the float model's class, for all outputs or as OUTPUT=A "
           "(repeatable; default: none)", "A", float, named=True, low=0.0, high=1.0),
    Option("min_sqnr", "required SQNR of outputs in dB, for all or as OUTPUT=DB (repeatable; default: none)", "DB",
           float, named=True),
    Option("max_latency_ratio", "allowed quantized / float latency, on all hosts or as HOST=R, HOST being its name, "
           "x86_64, aarch64, vnni, dotprod or i8mm (repeatable; default: none, recorded but not judged)", "R", float,
           named=True, low=0.0),
    Option("threads", f"threads of MNN for latency and memory (default: {THREADS})", "N", float,
           default=float(THREADS), low=1.0, high=256.0),
    Option("precision", f"MNN's precision for latency: normal, high or low (default: {PRECISION})", "NAME",
           default=PRECISION, choices=("normal", "high", "low")),
    Option("memory_mode", "MNN's memory mode for outputs, latency and memory: normal, or low, which uses stored "
           f"weights (default: {MEMORY_MODE})", "NAME", default=MEMORY_MODE, choices=("normal", "low")),
    Option("batch", f"samples in one timed inference (default: {BATCH})", "N", float, default=float(BATCH), low=1.0,
           high=65536.0),
    Option("latency_time", f"limit in seconds for timing one variant (default: {LATENCY_TIME:g})", "S", float,
           default=LATENCY_TIME, low=0.1),
    Option("skip_layer", "glob of layers meant to stay float (repeatable)", "PATTERN", many=True, default=()),
    Option("ignore", "rule code not to report, such as MNQ710, or the beginning of some, such as MNQ71 (repeatable)",
           "CODE", many=True, default=()),
    Option("report", "write a report, .json, .md or .html by its ending; .html needs the extra `report` (repeatable)",
           "FILE", many=True, default=(), per_model=False),
    Option("baseline", "compare with the accepted figures in this file (default: mnnquant-baseline.json in rootdir, if "
           "there)", "FILE", per_model=False),
    Option("update_baseline", "accept the figures of this run: write them to the baseline; refused where CI is set",
           kind=bool, default=False, per_model=False, ini=False),
    Option("cache_dir", "where artifacts are kept by content (default: pytest's cache folder)", "DIR", per_model=False),
    Option("no_cache", "make everything anew", kind=bool, default=False, per_model=False),
    Option("exporter", f"PyTorch's ONNX exporter: torchscript or dynamo (default: {EXPORTER})", "NAME",
           default=EXPORTER, choices=("torchscript", "dynamo")),
    Option("target", "where what runs is judged: host, aarch64 (emulated; aarch64:cortex-a53, ...), ssh://USER@MACHINE "
           f"or a name of the configuration (repeatable; default: {', '.join(TARGETS)})", "NAME", many=True,
           default=TARGETS),
    Option("strict", "skipped and inconclusive checks fail where there is something to judge; confidence bounds decide",
           kind=bool, default=False, per_model=False),
    Option("suggest", "where accuracy fails, search for layers to leave float, other bits or another observer, and try "
           "each proposal", kind=bool, default=False),
    Option("suggest_time", f"limit in seconds for the search for one variant (default: {SUGGEST_TIME:g})", "S", float,
           default=SUGGEST_TIME, low=1.0),
    Option("timeout", f"limit in seconds for one native step (default: {TIMEOUT:g})", "S", float, default=TIMEOUT,
           low=1.0),
)  # fmt: skip
BY_NAME: Final = {option.name: option for option in OPTIONS}
BY_FLAG: Final = {option.flag: option for option in OPTIONS}
#: Keys of TOML tables that stand for an option of another name.
PLURALS: Final = {"recipes": "recipe", "skip_layers": "skip_layer"}


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
            option.parse_item(text, option.flag)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error).removeprefix(f"{option.flag}: ")) from None
        return text

    parse.__name__ = option.metavar or option.name
    return parse
