"""xdist's workers, on this host and on others: their input, what must be equal, and why one can't start."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from typing import Any

import pytest

from pytest_mnnquant.cache.manifest import file_digest
from pytest_mnnquant.cache.store import versions
from pytest_mnnquant.plugin.session import session_of
from pytest_mnnquant.plugin.worker_input import WorkerInput, input_of
from pytest_mnnquant.recipes.names import recipe_named
from pytest_mnnquant.recipes.recipe import PipelineRecipe
from pytest_mnnquant.runtime.programs.process import die_with_parent


def brief_worker(node: Any) -> None:
    """Send a worker its controller's versions; on this host also the cache folder, on others the hashes of files."""
    spec, public = node.gateway.spec, _public(versions())
    if spec.popen:
        worker = WorkerInput(public, cache_dir=str(session_of(node.config).cache_dir), controller=os.getpid())
    else:
        worker = WorkerInput(public, host=_host(spec), files=_digests(node.config))
    worker.send_to(node)


def end_with_controller(config: pytest.Config) -> None:
    """On a worker: make Linux end it if its controller is killed; otherwise it goes on with its test for 15 s."""
    controller = input_of(config)
    if controller is not None and controller.controller == os.getppid():  # Not behind a wrapper.
        die_with_parent(controller.controller)


def require_same_versions(config: pytest.Config) -> None:
    """On a worker: refuse versions that differ from the controller's, since a report names one version per package."""
    controller = input_of(config)
    if controller is None:
        return
    installed = _public(versions())
    for name, expected in controller.versions.items():
        if installed[name] != expected:
            worker, starter = (
                f"{name} {version}" if version else f"no {name}" for version in (installed[name], expected)
            )
            raise pytest.UsageError(f"version mismatch: worker has {worker}, controller has {starter}")


def require_same_files(config: pytest.Config) -> None:
    """On a worker of another host: refuse models and data that differ from the controller's."""
    controller = input_of(config)
    if controller is None or controller.files is None:
        return
    digests = _digests(config)
    for name in {**controller.files, **digests}:
        if digests.get(name) != controller.files.get(name):
            raise pytest.UsageError(f"{name} on the worker differs from the controller's copy")


def refuse_broken_worker(node: Any, error: object) -> None:
    """End the run with one line if a worker can't start; xdist would restart it endlessly."""
    if error and not hasattr(node, "workerinfo"):
        spec = node.gateway.spec
        place = "" if spec.popen else f" on {_host(spec)} in {spec.chdir}"
        needs = "a worker needs the same files and packages as its controller"
        raise pytest.UsageError(f"worker {node.gateway.id}{place}: {_last_message(str(error))}; {needs}")


@contextlib.contextmanager
def start_failures_as_usage_errors(config: pytest.Config) -> Iterator[None]:
    """Report in one line why xdist could not start a worker."""
    try:
        yield
    except Exception as error:
        session = config.pluginmanager.getplugin("dsession")
        if session is not None and session.nodemanager is not None and (usage_error := _as_usage_error(error)):
            raise usage_error from None
        raise


def _as_usage_error(error: Exception) -> pytest.UsageError | None:
    """The usage error for a worker that could not be started or restarted; None for other errors."""
    from execnet import HostNotFound, RemoteError

    spec, argument = _worker_being_started(error)
    if argument:
        fix = "to run your own tests too, set testpaths and mnn_model in the ini file"
        words = "write options in one word (--mnn-config=FILE)"
        return pytest.UsageError(f"{argument}: paths can't be sent to workers on other hosts; {words}; {fix}")
    if spec is None or not isinstance(error, HostNotFound | RemoteError | OSError | EOFError):
        return None
    reason = _last_message(str(error)) if isinstance(error, RemoteError) else "see the output of ssh above"
    return pytest.UsageError(f"no worker can be started on {_host(spec)}; {reason}")


def _worker_being_started(error: BaseException) -> tuple[Any, str]:
    """The worker that xdist was starting, and the argument that it could not pass on; None and "" if neither.

    xdist's errors and hooks do not name the worker, so this reads the frames of its `setup_node` and `make_reltoroot`.
    It is the only function that depends on xdist's internals.
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
    """The message at the end of a traceback, on one line."""
    last = traceback.strip().rpartition("\n  File ")[2]
    message = re.search(r"^[\w.]+: .*", last, re.MULTILINE | re.DOTALL)
    return " ".join((message[0] if message else last).removeprefix("pytest.UsageError: ").split())


def _host(spec: Any) -> str:
    """The host of a worker, without ssh's options."""
    return str(spec.ssh or spec.vagrant_ssh or spec.socket).rpartition(" ")[2]


def _public(versions_by_name: dict[str, str]) -> dict[str, str]:
    """Versions without the part after a +, which names a build for some processor."""
    return {name: version.partition("+")[0] for name, version in versions_by_name.items()}


def _digests(config: pytest.Config) -> dict[str, str]:
    """The hashes of a run's input files, by name; without folders and without the imports of Python files."""
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
        if source.spec.path is not None:  # A source may begin with NAME=.
            files[str(model.source)] = source.spec.path
    return {name: file_digest(path) for name, path in files.items() if path.is_file()}
