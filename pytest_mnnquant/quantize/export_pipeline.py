"""Runs a custom exporter of a language model, `file.py:callable(checkpoint, outdir)`, in a child process.

The callable gets the folder of the checkpoint, or the path of a reference, and an empty folder, both as text. It writes
the export there, or into a folder in it, and returns that folder or None. The working folder is the user's.
"""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path
from typing import Final

from pytest_mnnquant.cache.temporary import temporary_prefix
from pytest_mnnquant.llm.folder import is_export
from pytest_mnnquant.quantize.pipeline import CHILD
from pytest_mnnquant.runtime.jobs import Job, run_job
from pytest_mnnquant.sources.sibling_imports import own_path
from pytest_mnnquant.sources.spec import SourceError, parse_spec

#: Exporters of large models need longer than the gate's limit for a step (seconds).
_SECONDS: Final = 3600.0


def run_export_pipeline(text: str, root: Path, checkpoint: Path, outdir: Path, timeout: float) -> Path:
    """Run the exporter that `text` names; returns the folder of the export, in `outdir` or where the exporter says.

    Raises `SourceError` for an error of the exporter, or if it made no export; `NativeFailure` if its process crashed
    or did not end within `timeout` seconds, or an hour if that is longer.
    """
    spec = parse_spec(text, root)
    if not spec.is_python:
        raise SourceError(f"{text}: not an exporter; give file.py:callable")
    outdir = outdir.resolve()
    with tempfile.TemporaryDirectory(prefix=temporary_prefix()) as name:
        path = str(spec.path.resolve()) if spec.path else None
        arguments = {
            "pipeline": {**dataclasses.asdict(spec), "path": path},
            "checkpoint": str(checkpoint.resolve()),
            "outdir": str(outdir),
            "cwd": str(Path.cwd()),
            "path": [str(Path(place).resolve()) for place in [*own_path(), "."]],
        }
        job = Job("export", f"exporting with {text}", max(timeout, _SECONDS), arguments, who="the exporter")
        result = run_job(job, Path(name), CHILD).values
    if "raised" in result:
        raise SourceError(result["raised"])
    folders: list[Path] = [
        outdir / item for item in result["returned"] or [str(outdir), *map(str, sorted(outdir.iterdir()))]
    ]
    exports = [folder for folder in folders if is_export(folder)]
    if len(exports) != 1:
        number = f"{len(exports)} exports" if exports else "no export"
        raise SourceError(f"{text}: made {number} of a language model; return the folder that has llm_config.json")
    return exports[0]
