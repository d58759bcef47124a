"""All options, each declared once for the command line, the ini file and the TOML file.

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

# Seconds. The clocks of operating systems overflow after some weeks.
_WEEK: Final = 604_800.0
OPTIONS: Final = (
    Option("model", "model to test: [NAME=]file.py:callable, [NAME=]package.module:callable, x.onnx, x.tflite, x.mnn, "
           "x.pt2, x.pt (TorchScript), or the name of a model in the configuration (repeatable)", "SPEC",
           many=True, per_model=False),
    Option("config", "TOML file with a [tool.mnnquant] table; all its models are tested "
           "(default: pyproject.toml in rootdir, for the models that --mnn-model names)", "FILE", per_model=False),
    Option("quantized", "check this quantized .mnn (or folder of a language model) instead of quantizing", "PATH"),
    Option("params", "params file that --mnn-quantized was made with "
           "(default: compress_params_index.bin in the same folder, if it exists)", "FILE"),
    Option("calibration", "calibration data: .npz, .npy, a folder of arrays, images or sounds, or file.py:callable "
           "(default: calibration() in the model's Python file)", "SPEC"),
    Option("evaluation", "evaluation data, in the same forms; an array named `labels` holds labels "
           "(default: evaluation() in the model's Python file)", "SPEC"),
    Option("state", "the output that is fed back to an input at each step, as INPUT=OUTPUT; a sample is then a "
           "sequence of steps (repeatable)", "INPUT=OUTPUT", pairs=True),
    Option("recipe", "how to quantize: int8 (int8-kl+w8, int8-best, ...), w2 to w8 (w4b32-hqq, ...), fp16, "
           "mnnquant-kl, -admm or -ema, mnncompress or mnncompress-repaired, or your own pipeline, "
           "[NAME=]file.py:callable[@RECIPE]; for a "
           "language model the form of its export (w4b64), or your own exporter, file.py:callable@llm-w4b64 "
           f"(repeatable; default: {', '.join(RECIPES)})", "RECIPE", many=True, default=RECIPES),
    Option("mode", f"mode of the PyTorch model during calibration: both, train or eval (default: {MODE})", "MODE",
           default=MODE, choices=("both", "train", "eval")),
    Option("min_size_ratio", "required float bytes / quantized bytes "
           "(default: none; the size is compared with the one expected from the layers)", "R", float, low=0.0),
    Option("min_coverage", f"required share of weight bytes stored as requested (default: {COVERAGE:g})", "C", float,
           default=COVERAGE, low=0.0, high=1.0),
    Option("metric", "task metric of outputs and labels: top1, top5, miou, mae, rmse, psnr, ssim, words, characters, "
           "each with @OUTPUT if the labels fit several outputs, or file.py:callable (default: top1)", "METRIC"),
    Option("max_accuracy_drop", "allowed drop of the task metric against the float model, absolute (errors: rise; "
           f"default: {DROP:g} for shares such as top1, 0.5 for psnr)", "D", float),
    Option("min_accuracy_ratio", "required task metric / float model's, e.g. 0.99 (errors: float / quantized; "
           "default: none)", "R", float, low=0.0),
    Option("min_float_accuracy", "required task metric of the float model (errors: at most this; default: none)", "A",
           float),
    Option("min_cosine", "required mean cosine similarity of outputs without labels, for all or as OUTPUT=C "
           f"(repeatable; default: {COSINE:g}, for 4 bits {COARSE_COSINE:g})", "C", float, named=True, low=-1.0,
           high=1.0),
    Option("min_agreement", "required share of samples with the float model's class, for all outputs or as OUTPUT=A "
           "(repeatable; default: none)", "A", float, named=True, low=0.0, high=1.0),
    Option("min_sqnr", "required SQNR of outputs in dB, for all or as OUTPUT=DB (repeatable; default: none)", "DB",
           float, named=True),
    Option("max_kl", "allowed KL divergence of a language model from its source, mean per token in nats "
           "(default: by the number of bits)", "KL", float, low=0.0),
    Option("max_latency_ratio", "allowed quantized / float latency, on all hosts or as HOST=R, where HOST is a host "
           "name, x86_64, aarch64, vnni, dotprod or i8mm (repeatable; default: none, recorded without a limit)", "R",
           float, named=True, low=0.0),
    Option("latency_reference", "another export of the same language model, such as one in 16 bits, that "
           "--mnn-max-latency-ratio compares the speed with: both are timed in turn", "FOLDER"),
    Option("threads", f"MNN threads for latency and memory (default: {THREADS})", "N", int,
           default=THREADS, low=1.0, high=256.0),
    Option("precision", f"MNN precision for latency: normal, high or low (default: {PRECISION})", "NAME",
           default=PRECISION, choices=("normal", "high", "low")),
    Option("memory_mode", "MNN memory mode for outputs, latency and memory: normal, or low, which computes with the "
           f"stored low-bit weights (default: {MEMORY_MODE})", "NAME", default=MEMORY_MODE, choices=("normal", "low")),
    Option("batch", f"samples per timed inference (default: {BATCH})", "N", int, default=BATCH, low=1.0,
           high=65536.0),
    Option("latency_time", f"time limit for timing one variant, in seconds (default: {LATENCY_TIME:g})", "S", float,
           default=LATENCY_TIME, low=0.1, high=_WEEK),
    Option("skip_layer", "glob of layers to keep float on purpose (repeatable)", "PATTERN", many=True, default=()),
    Option("ignore", "rule code to ignore, such as MNQ710, or a prefix of several codes, such as MNQ71 (repeatable)",
           "CODE", many=True, default=()),
    Option("report", "write a report: .json, .md or .html, by its suffix; .html needs the extra `report` (repeatable)",
           "FILE", many=True, default=(), per_model=False),
    Option("durations", "show the N slowest steps with their time and memory; 0 shows all of at least 5 ms", "N", int,
           per_model=False, low=0.0),
    Option("baseline", "compare with the accepted metrics in this file (default: mnnquant-baseline.json in rootdir, if "
           "it exists)", "FILE", per_model=False),
    Option("update_baseline", "accept the metrics of this run: write them to the baseline; refused if CI is set",
           kind=bool, default=False, per_model=False, ini=False),
    Option("cache_dir", "folder for artifacts, which later runs reuse (default: pytest's cache folder)", "DIR",
           per_model=False),
    Option("no_cache", "build everything again, without reused artifacts", kind=bool, default=False, per_model=False),
    Option("exporter", f"PyTorch ONNX exporter: torchscript or dynamo (default: {EXPORTER})", "NAME",
           default=EXPORTER, choices=("torchscript", "dynamo")),
    Option("target", "machine that runs the models: host, aarch64 (emulated; aarch64:cortex-a53, ...), "
           f"ssh://USER@MACHINE or a target's name in the configuration (repeatable; default: "
           f"{', '.join(TARGETS)})", "NAME", many=True, default=TARGETS),
    Option("strict", "fail skipped and inconclusive checks that apply to the recipe; confidence bounds decide",
           kind=bool, default=False, per_model=False),
    Option("suggest", "if accuracy fails, search for layers to keep float, other bits or another observer, and verify "
           "each proposal", kind=bool, default=False),
    Option("suggest_time", f"time limit for the search per variant, in seconds (default: {SUGGEST_TIME:g})", "S", float,
           default=SUGGEST_TIME, low=1.0, high=_WEEK),
    Option("timeout", f"time limit for a native step without progress, in seconds (default: {TIMEOUT:g})", "S", float,
           default=TIMEOUT, low=1.0, high=_WEEK),
)  # fmt: skip
BY_NAME: Final = {option.name: option for option in OPTIONS}
BY_FLAG: Final = {option.flag: option for option in OPTIONS}
#: Options that are allowed without a model: how MNN and torch run, what is ignored, what happens to results.
SETTINGS: Final = (
    *("threads", "precision", "memory_mode", "batch", "latency_time", "exporter", "suggest_time", "timeout"),
    *("ignore", "strict", "report", "durations", "cache_dir", "no_cache"),
)
#: Options that request a judgement: given on the command line without a model, they are a usage error.
DEMANDS: Final = tuple(
    option for option in OPTIONS if option.name not in (*SETTINGS, "model", "config", "update_baseline")
)
#: Keys of TOML tables that differ from the name of their option.
PLURALS: Final = {"recipes": "recipe", "skip_layers": "skip_layer", "states": "state"}


def add_options(parser: pytest.Parser) -> None:
    """Declare all options to pytest, on the command line and in the ini file."""
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
