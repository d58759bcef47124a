"""The folder where a run keeps its artifacts, for the next run and for xdist's workers."""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import pytest

from pytest_mnnquant.cache.store import Store, run_folder
from pytest_mnnquant.cache.temporary import remove_abandoned, temporary_prefix
from pytest_mnnquant.config.settings import Settings
from pytest_mnnquant.plugin.worker_input import input_of

_UNWRITABLE: Final = pytest.StashKey[str]()


def cache_folder(config: pytest.Config, settings: Settings) -> Path:
    """The folder of --mnn-cache-dir, else one in pytest's cache; created if missing. Raises `ValueError`."""
    folder = settings.cache_dir
    if folder is not None:
        if folder.exists() and not folder.is_dir():
            raise ValueError(f"--mnn-cache-dir: {folder} is not a folder")
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ValueError(f"--mnn-cache-dir: {folder}: {error.strerror}") from None
        return folder
    cache = getattr(config, "cache", None)
    if cache is None:  # -p no:cacheprovider
        return _temporary_folder(config)
    try:
        folder = Path(cache.mkdir("mnnquant"))
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:  # The project is read-only, or another user's.
        config.stash[_UNWRITABLE] = (
            f"the cache in {config.rootpath} can't be written ({error.strerror}): this run uses a temporary folder; "
            "to keep artifacts for the next run, give --mnn-cache-dir"
        )
        return _temporary_folder(config)
    return folder


def _temporary_folder(config: pytest.Config) -> Path:
    """The temporary folder of the controller, also on its xdist workers: accepted models must outlive the workers."""
    controller = input_of(config)
    if controller is not None and controller.cache_dir is not None:
        return Path(controller.cache_dir)
    temporary = tempfile.TemporaryDirectory(prefix=temporary_prefix())
    config.add_cleanup(temporary.cleanup)
    return Path(temporary.name)


def open_store(config: pytest.Config, root: Path, reuse: bool) -> Store:
    """The store in this folder; without `reuse` an empty one, for this run only."""
    if input_of(config) is None:  # The controller does it for its workers.
        remove_abandoned(Path(tempfile.gettempdir()))
    if reuse:
        store = Store(root)
        store.repaired += filter(None, [config.stash.get(_UNWRITABLE, "")])
        return store
    using = ExitStack()
    folder = using.enter_context(run_folder(root / "fresh"))
    config.add_cleanup(using.close)
    return Store(folder)
