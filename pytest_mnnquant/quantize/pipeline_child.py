"""The program of the child process that runs a custom pipeline on a given model and data, or a custom exporter.

    python pipeline_child.py JOB.json

The model is rebuilt from the user's source and gets the weights that the parent wrote, or is loaded whole. The results
and errors of the pipeline, and the observations of it, go to `result.json`.
"""

from __future__ import annotations

import json
import os
import sys
import sysconfig
import traceback
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import torch

    from pytest_mnnquant.sources.spec import Spec

#: The files that a pipeline may make, as keys of the mapping that it returns.
KINDS: Final = ("quantized", "onnx", "params")
# Modules that install packages and report to a server on import; MNN and mnncompress import them.
_LOGGERS: Final = ("mnncompress.common.log", "MNN.tools.utils.log")


class _NoLogger:
    """Takes every report and sends none."""

    def __getattr__(self, name: str) -> Any:
        return lambda *_args, **_kwargs: True


def silence() -> None:
    """Replace the modules that report to a server by empty ones, before they are imported."""
    for name in _LOGGERS:
        module = ModuleType(name, "Emptied by pytest-mnnquant: nothing is installed, nothing is sent.")
        module.__dict__["mnn_logger"] = _NoLogger()
        sys.modules[name] = module


def run(job: dict[str, Any]) -> dict[str, Any]:
    """Run the pipeline; the result has `raised` if the pipeline, or the model's source, raised an error."""
    from pytest_mnnquant.measurements.dataset import Dataset
    from pytest_mnnquant.quantize.pipeline_monitor import Calibration, PipelineMonitor
    from pytest_mnnquant.sources.pytorch import as_tensors, suppress_output
    from pytest_mnnquant.sources.spec import SourceError, describe
    from pytest_mnnquant.sources.torch_call import bound
    from pytest_mnnquant.sources.user_code import contained
    from pytest_mnnquant.sources.user_modules import load_module

    try:
        pipeline = _spec(job["pipeline"])
        module = load_module(pipeline)
        function = _callable(module, pipeline)
        model = _model(job)
    except SourceError as error:
        return {"raised": str(error)}
    data = Dataset(_arrays(job), origin=job["origin"], alone=job["alone"], axes=job["axes"])
    with suppress_output():
        model, _ = bound(model, tuple(data.inputs), as_tensors(data.batch(1), model), job["name"])
    model.train(job["mode"] == "train").requires_grad_(True)
    os.chdir(job["outdir"])
    monitor = PipelineMonitor(model)
    calibration = Calibration(data, model, job["batched"], monitor)
    try:
        with contained(), monitor:
            returned = function(model, calibration, job["mode"], job["outdir"])
        return {"returned": _paths(returned, pipeline.text), "watched": vars(monitor.observations())}
    except SourceError as error:
        return {"raised": str(error)}
    except Exception as error:
        traceback.print_exc()
        return {"raised": f"{pipeline.text}: raised {describe(_in_user_code(error, module.__file__))}"}


def export(job: dict[str, Any]) -> dict[str, Any]:
    """Run an exporter of a language model; the result has `raised` if it raised an error."""
    from pytest_mnnquant.sources.spec import SourceError, describe
    from pytest_mnnquant.sources.user_code import contained
    from pytest_mnnquant.sources.user_modules import load_module

    pipeline = _spec(job["pipeline"])
    try:
        module = load_module(pipeline)
        function = _callable(module, pipeline)
        with contained():
            returned = function(job["checkpoint"], job["outdir"])
        if returned is not None and not isinstance(returned, str | os.PathLike):
            raise SourceError(f"{pipeline.text}: returned {type(returned).__name__}; return the folder of the export")
    except SourceError as error:
        return {"raised": str(error)}
    except Exception as error:
        traceback.print_exc()
        return {"raised": f"{pipeline.text}: raised {describe(_in_user_code(error, module.__file__))}"}
    return {"returned": None if returned is None else [os.fspath(returned)]}


def _spec(fields: dict[str, Any]) -> Spec:
    from pytest_mnnquant.sources.spec import Spec

    return Spec(**{**fields, "path": Path(fields["path"]) if fields["path"] else None})


def _callable(module: ModuleType, spec: Spec) -> Any:
    from pytest_mnnquant.sources.spec import SourceError

    function = getattr(module, spec.attribute, None)
    if not callable(function):
        known = ", ".join(name for name in vars(module) if callable(getattr(module, name)) and name[0] != "_")
        raise SourceError(f"{spec.text}: no callable {spec.attribute!r}; the module has: {known or 'none'}")
    return function


def _model(job: dict[str, Any]) -> torch.nn.Module:
    """The model to calibrate, with exactly the weights of the parent's model."""
    import torch

    from pytest_mnnquant.sources.spec import SourceError, call, describe
    from pytest_mnnquant.sources.torch_module import plain_module, unwrapped
    from pytest_mnnquant.sources.user_modules import load_module

    if job["source"] is None:
        try:
            model: torch.nn.Module = torch.load(job["weights"], weights_only=False)
        except Exception as error:
            raise SourceError(
                f"{job['name']}: the model can't be sent to the pipeline's process: {describe(error)}; "
                "name a function that builds it: --mnn-model=file.py:callable"
            ) from error
        # The parent's copy has gradients switched off; a pipeline may train.
        return model.requires_grad_(True)
    spec = _spec(job["source"])
    built = call(spec.text, load_module(spec), spec.attribute)
    # The parent removed wrappers and stored computed weights, too.
    model = plain_module(unwrapped(built, spec.text)).requires_grad_(True)
    try:
        model.load_state_dict(torch.load(job["weights"], weights_only=True))
    except Exception as error:
        first = str(error).strip().splitlines()
        raise SourceError(
            f"{spec.text}: {spec.attribute}() built a different model in the pipeline's process: "
            f"{' '.join(line.strip() for line in first[:2])}"
        ) from error
    return model


def _arrays(job: dict[str, Any]) -> dict[str, Any]:
    import numpy as np

    return {name: np.load(file, mmap_mode="r") for name, file in job["inputs"].items()}


def _paths(value: Any, text: str) -> Any:
    """A pipeline's return value as JSON. Raises `SourceError` unless it is a path, or a list or mapping of paths."""
    from pytest_mnnquant.sources.spec import SourceError

    if value is None:
        return None
    if isinstance(value, str | os.PathLike):
        return [os.fspath(value)]
    if isinstance(value, list | tuple) and all(isinstance(item, str | os.PathLike) for item in value):
        return [os.fspath(item) for item in value]
    if isinstance(value, dict):
        named = {key: item for key, item in value.items() if item is not None}
        if set(named) <= set(KINDS) and all(isinstance(item, str | os.PathLike) for item in named.values()):
            return {key: os.fspath(item) for key, item in named.items()}
        raise SourceError(f"{text}: returned {value!r}, expected a mapping of {', '.join(KINDS)} to paths")
    raise SourceError(
        f"{text}: returned {type(value).__name__}; return the path of the file it made, a list of paths, a mapping of "
        f"{', '.join(KINDS)} to paths, or None for the files in outdir"
    )


def _in_user_code(error: BaseException, user_file: str | None) -> BaseException:
    """The same error with a traceback that ends in the user's code (such as `user_file`), not in a library."""
    standard, package = sysconfig.get_paths()["stdlib"], Path(__file__).parents[1]

    def is_library(file: Path) -> bool:
        installed = {"site-packages", "dist-packages"} & set(file.parts)
        return bool(installed) or file.is_relative_to(standard) or file.is_relative_to(package)

    last, trace = None, error.__traceback__
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        if file == user_file or not (file.startswith("<") or is_library(Path(file))):
            last = trace
        trace = trace.tb_next
    if last is not None:
        last.tb_next = None
    return error


def main() -> None:
    """Run the job of the command line. The result file is written atomically."""
    job_file = Path(sys.argv[1])
    job = json.loads(job_file.read_text(encoding="utf-8"))
    sys.path[:] = job["path"]
    silence()
    from pytest_mnnquant.cache.atomic_write import replacement
    from pytest_mnnquant.runtime.programs.process import die_with_parent, given_parent

    die_with_parent(given_parent())
    os.chdir(job["cwd"])
    result = export(job) if job["task"] == "export" else run(job)
    sys.stdout.flush()
    sys.stderr.flush()
    with replacement(job_file.with_name("result.json")) as unfinished:
        unfinished.write_text(json.dumps(result), encoding="utf-8")
    os._exit(0)  # Leftovers of a pipeline (threads, native destructors) must not change the result.


if __name__ == "__main__":
    main()
