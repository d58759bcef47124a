"""xdist's workers, here and on other hosts: what they are told, what must be the same there, and why one can't work."""

from __future__ import annotations

import re
from typing import Any, Final

import pytest

from pytest_mnnquant.cache.store import file_digest, versions
from pytest_mnnquant.config import options
from pytest_mnnquant.plugin.records import ELSEWHERE
from pytest_mnnquant.plugin.session import PluginSession, session_of
from pytest_mnnquant.recipes.recipe import recipe_named

_VERSIONS: Final = "mnnquant_versions"
_FILES: Final = "mnnquant_files"


def tell(node: Any) -> None:
    """Tell a worker what its controller works with; on this machine, where its cache is."""
    told, spec = node.workerinput, node.gateway.spec
    told[_VERSIONS] = _public(versions())
    if spec.popen:
        told[PluginSession.CACHE] = str(session_of(node.config).cache_dir)
    else:
        told[_FILES] = _digests(node.config)
        told[ELSEWHERE] = _host(spec)


def hold_versions(config: pytest.Config) -> None:
    """On a worker: refuse other versions than the controller's, since a report tells of one of each."""
    told: dict[str, str] = getattr(config, "workerinput", {}).get(_VERSIONS, {})
    found = _public(versions()) if told else {}  # Elsewhere nobody needs them.
    for name, wanted in told.items():
        if found[name] != wanted:
            there, here = (f"{name} {version}" if version else f"no {name}" for version in (found[name], wanted))
            raise pytest.UsageError(f"there is {there} there, and {here} here")


def hold_files(config: pytest.Config) -> None:
    """On a worker of another host: refuse models and data that are not the controller's."""
    wanted: dict[str, str] | None = getattr(config, "workerinput", {}).get(_FILES)
    if wanted is None:
        return
    found = _digests(config)
    for name in {**wanted, **found}:
        if found.get(name) != wanted.get(name):
            raise pytest.UsageError(f"{name} is not the file there that it is here")


def refuse(node: Any, error: object) -> None:
    """End the run in one line where a worker could not even begin; xdist would start it anew, without end."""
    if error and not hasattr(node, "workerinfo"):
        spec = node.gateway.spec
        place = "" if spec.popen else f" on {_host(spec)} in {spec.chdir}"
        needs = "workers need the files and packages of the run that starts them"
        raise pytest.UsageError(f"worker {node.gateway.id}{place}: {_why(str(error))}; {needs}")


def unstarted(config: pytest.Config, error: Exception) -> pytest.UsageError | None:
    """What to tell where an error kept workers from being started, or started anew; None of other errors."""
    session = config.pluginmanager.getplugin("dsession")
    if session is None or session.nodemanager is None:
        return None
    if path := re.fullmatch(r"arg (.*) not relative to an rsync root", str(error)):
        return pytest.UsageError(
            f"{path[1]}: paths can't be told to workers on other hosts; write options in one word (--mnn-config=FILE); "
            "have tests of your own collected by pytest's testpaths, with mnn_model in the ini file"
        )
    kind, why = type(error).__name__, "what ssh said is above"
    if kind == "HostNotFound":
        return pytest.UsageError(f"no worker can be started on {str(error).rpartition(' ')[2]}; {why}")
    spec = _being_started(error) if isinstance(error, OSError | EOFError) or kind == "RemoteError" else None
    if spec is None:
        return None
    why = _why(str(error)) if kind == "RemoteError" else why
    return pytest.UsageError(f"no worker can be started on {_host(spec)}; {why}")


def _being_started(error: BaseException) -> Any:
    """The worker that xdist was about to start, by the frame in which it did; None where it did something else."""
    place = error.__traceback__
    while place is not None:
        if place.tb_frame.f_code.co_name == "setup_node":
            return place.tb_frame.f_locals.get("spec")
        place = place.tb_next
    return None


def _why(traceback: str) -> str:
    """The message at the end of a traceback, on one line."""
    last = traceback.strip().rpartition("\n  File ")[2]
    told = re.search(r"^[\w.]+: .*", last, re.MULTILINE | re.DOTALL)
    return " ".join((told[0] if told else last).removeprefix("pytest.UsageError: ").split())


def _host(spec: Any) -> str:
    """The host of a worker, without the options that ssh is given."""
    return str(spec.ssh or spec.vagrant_ssh or spec.socket).rpartition(" ")[2]


def _public(found: dict[str, str]) -> dict[str, str]:
    """Versions without what stands behind a +: builds for one processor or another."""
    return {name: version.partition("+")[0] for name, version in found.items()}


def _digests(config: pytest.Config) -> dict[str, str]:
    """The hashes of the files that a run starts from, by name: not of folders, nor of what Python files import."""
    bench, own = session_of(config), options.command_line(config).get("config")
    usual = (config.inipath, config.rootpath / "pyproject.toml", bench.settings.baseline)
    files = {path.name: path for path in usual if path is not None}
    if own:
        files[own] = config.invocation_params.dir / own
    for gate in bench.gates:
        model = gate.settings
        pipelines = (recipe_named(name).pipeline for name in model.recipes)
        for text in (model.source, model.quantized, model.params, model.calibration, model.evaluation, *pipelines):
            name = re.sub(r"(\.py):\w+$", r"\1", text or "")
            files[name] = model.base / name
        if gate.spec.path is not None:  # A source may have a name in front.
            files[str(model.source)] = gate.spec.path
    return {name: file_digest(path) for name, path in files.items() if path.is_file()}
