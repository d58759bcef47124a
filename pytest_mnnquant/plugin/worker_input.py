"""What the controller of an xdist run hands to its workers, as `config.workerinput` carries it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Final

import pytest

_KEY: Final = "mnnquant"


@dataclass(frozen=True)
class WorkerInput:
    """`versions` are the controller's, by package.

    A worker on this host shares the cache folder. One on another host knows by `host` how the controller calls its
    host, and by `files` the hashes of the files that the run starts from, by name.
    """

    versions: dict[str, str]
    cache_dir: str | None = None
    host: str = ""
    files: dict[str, str] | None = None

    def send_to(self, node: Any) -> None:
        """Have xdist carry this to a worker that is not started yet."""
        node.workerinput[_KEY] = dataclasses.asdict(self)


def input_of(config: pytest.Config) -> WorkerInput | None:
    """What the controller handed to this worker; None in any other process, and in runs without models."""
    plain = getattr(config, "workerinput", {}).get(_KEY)
    return None if plain is None else WorkerInput(**plain)
