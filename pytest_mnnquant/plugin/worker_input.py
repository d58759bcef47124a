"""The input of xdist's workers from their controller, carried by `config.workerinput`."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Final

import pytest

_KEY: Final = "mnnquant"


@dataclass(frozen=True)
class WorkerInput:
    """`versions` are the controller's, by package.

    A worker on the controller's host shares its cache folder, and ends with the process `controller`. A worker on
    another host gets `host`, the controller's name for that host, and `files`, the hashes of the run's input files by
    name.
    """

    versions: dict[str, str]
    cache_dir: str | None = None
    controller: int = 0
    host: str = ""
    files: dict[str, str] | None = None

    def send_to(self, node: Any) -> None:
        """Give this to a worker before it starts."""
        node.workerinput[_KEY] = dataclasses.asdict(self)


def input_of(config: pytest.Config) -> WorkerInput | None:
    """The input of this worker; None in any other process, and in runs without models."""
    plain = getattr(config, "workerinput", {}).get(_KEY)
    return None if plain is None else WorkerInput(**plain)
