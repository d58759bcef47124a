"""Temporary folders that name their process, so that the next run removes those of processes that were killed."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
from pathlib import Path
from typing import Final


def _namespace() -> str:
    """The number of the namespace of process ids: containers may share a folder and the name of the host."""
    try:
        return re.sub(r"\D", "", str(Path("/proc/self/ns/pid").readlink()))
    except OSError:  # Not Linux.
        return ""


_HOST: Final = (re.sub(r"\W", "", socket.gethostname())[:40] or "host") + f"_{_namespace()}".rstrip("_")
_NAME: Final = re.compile(rf"(?:mnnquant|unfinished)-{_HOST}-(\d+)-")


def temporary_prefix(kind: str = "mnnquant") -> str:
    """The beginning of the name of a folder of this process; `kind` is `mnnquant` or `unfinished`."""
    return f"{kind}-{_HOST}-{os.getpid()}-"


def remove_abandoned(folder: Path) -> None:
    """Remove what processes of this host, in the same container, left in a folder when they were killed."""
    with contextlib.suppress(OSError):
        for path in folder.iterdir():
            match = _NAME.match(path.name)
            if match and not _is_running(int(match[1])):
                shutil.rmtree(path, ignore_errors=True)


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):  # It is another user's.
        return True
    return True
