"""Names a full disk as the reason of a failure on this host, which is not a fault of MNN or the model."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from pytest_mnnquant.mnnfile.model import BadModel
from pytest_mnnquant.runtime.jobs import FailureKind, NativeFailure

# Fewer free bytes are a full disk: the last write may have failed because it needed more.
_ROOM: Final = 1 << 16


@contextlib.contextmanager
def full_disk_named(what: str, folder: Path) -> Iterator[None]:
    """Raise a `NativeFailure` that names the disk of `folder` if a step inside fails and that disk is full.

    `what` is the step, `folder` its temporary folder, which still has its files. Other failures pass unchanged.
    """
    try:
        yield
    except (NativeFailure, BadModel, OSError) as error:
        if shutil.disk_usage(folder).free >= _ROOM:
            raise
        fix = "free some space there, or set TMPDIR or --mnn-cache-dir to a folder on another disk"
        raise NativeFailure(FailureKind.NO_SPACE, f"{what}: the disk of {folder.parent} is full", fix=fix) from error
