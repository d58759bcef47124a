"""xdist's workers, on this host and on others: what they are handed, what must be the same, and why one can't work."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from typing import Any

import pytest

from pytest_mnnquant.cache.store import file_digest, versions
from pytest_mnnquant.plugin.session import session_of
from pytest_mnnquant.plugin.worker_input import WorkerInput, input_of
from pytest_mnnquant.recipes.names import recipe_named
from pytest_mnnquant.recipes.recipe import PipelineRecipe


def brief_worker(node: Any) -> None:
    """Hand a worker what its controller works with; on this host, its cache folder too."""
    spec, public = node.gateway.spec, _public(versions())
    if spec.popen:
        worker = WorkerInput(public, cache_dir=str(session_of(node.config).cache_dir))
    else:
        worker = WorkerInput(public, host=_host(spec), files=_digests(node.config))
    worker.send_to(node)


def require_same_versions(config: pytest.Config) -> None:
    """On a worker: refuse other versions than the controller's, since a report names one of each."""
    controller = input_of(config)
    if controller is None:
        return
    installed = _public(versions())
    for name, expected in controller.versions.items():
        if installed[name] != expected:
            there, here = (f"{name} {version}" if version else f"no {name}" for version in (installed[name], expected))
            raise pytest.UsageError(f"there is {there} there, and {here} here")


def require_same_files(config: pytest.Config) -> None:
    """On a worker of another host: refuse models and data that are not the controller's."""
    controller = input_of(config)
    if controller is None or controller.files is None:
        return
    digests = _digests(config)
    for name in {**controller.files, **digests}:
        if digests.get(name) != controller.files.get(name):
            raise pytest.UsageError(f"{name} is not the file there that it is here")


def refuse_broken_worker(node: Any, error: object) -> None:
    """End the run in one line if a worker could not even begin; xdist would start it again, without end."""
    if error and not hasattr(node, "workerinfo"):
        spec = node.gateway.spec
        place = "" if spec.popen else f" on {_host(spec)} in {spec.chdir}"
        needs = "workers need the files and packages of the run that starts them"
        raise pytest.UsageError(f"worker {node.gateway.id}{place}: {_last_message(str(error))}; {needs}")


@contextlib.contextmanager
def start_failures_as_usage_errors(config: pytest.Config) -> Iterator[None]:
    """Say in one line why xdist could not start a worker."""
    try:
        yield
    except Exception as error:
        session = config.pluginmanager.getplugin("dsession")
        if session is not None and session.nodemanager is not None and (usage_error := _as_usage_error(error)):
            raise usage_error from None
        raise


def _as_usage_error(error: Exception) -> pytest.UsageError | None:
    """What to say if an error kept a worker from being started, or started again; None for other errors."""
    from execnet import HostNotFound, RemoteError

    spec, argument = _worker_being_started(error)
    if argument:
        fix = "have tests of your own collected by pytest's testpaths, with mnn_model in the ini file"
        words = "write options in one word (--mnn-config=FILE)"
        return pytest.UsageError(f"{argument}: paths can't be told to workers on other hosts; {words}; {fix}")
    if spec is None or not isinstance(error, HostNotFound | RemoteError | OSError | EOFError):
        return None
    reason = _last_message(str(error)) if isinstance(error, RemoteError) else "what ssh said is above"
    return pytest.UsageError(f"no worker can be started on {_host(spec)}; {reason}")


def _worker_being_started(error: BaseException) -> tuple[Any, str]:
    """The worker that xdist was about to start, and the argument that it could not pass on; None and "" if neither.

    xdist raises the errors of its parts, which do not name the worker, and none of its hooks does. So this reads the
    frames of its `setup_node` and `make_reltoroot`: the only place that knows how xdist works inside.
    """
    spec, argument = None, ""
    traceback = error.__traceback__
    while traceback is not None:
        frame = traceback.tb_frame
        if frame.f_code.co_name == "setup_node":
            spec = frame.f_locals.get("spec")
        if frame.f_code.co_name == "make_reltoroot":
            argument = str(frame.f_locals.get("arg", ""))
        traceback = traceback.tb_next
    return spec, argument


def _last_message(traceback: str) -> str:
    """The message at the end of a traceback that came as text, on one line."""
    last = traceback.strip().rpartition("\n  File ")[2]
    message = re.search(r"^[\w.]+: .*", last, re.MULTILINE | re.DOTALL)
    return " ".join((message[0] if message else last).removeprefix("pytest.UsageError: ").split())


def _host(spec: Any) -> str:
    """The host of a worker, without the options that ssh is given."""
    return str(spec.ssh or spec.vagrant_ssh or spec.socket).rpartition(" ")[2]


def _public(versions_by_name: dict[str, str]) -> dict[str, str]:
    """Versions without what stands behind a +: builds for one processor or another."""
    return {name: version.partition("+")[0] for name, version in versions_by_name.items()}


def _digests(config: pytest.Config) -> dict[str, str]:
    """The hashes of the files that a run starts from, by name: not of folders, nor of what Python files import."""
    session = session_of(config)
    settings = session.settings
    defaults = (config.inipath, config.rootpath / "pyproject.toml", settings.baseline)
    files = {path.name: path for path in defaults if path is not None}
    if settings.configuration:
        files[settings.configuration] = config.invocation_params.dir / settings.configuration
    for source in session.sources:
        model = source.settings
        recipes = map(recipe_named, model.recipes)
        pipelines = (recipe.pipeline for recipe in recipes if isinstance(recipe, PipelineRecipe))
        for text in (model.source, model.quantized, model.params, model.calibration, model.evaluation, *pipelines):
            name = re.sub(r"(\.py):\w+$", r"\1", text or "")
            files[name] = model.base / name
        if source.spec.path is not None:  # A source may have a name in front.
            files[str(model.source)] = source.spec.path
    return {name: file_digest(path) for name, path in files.items() if path.is_file()}
