"""MNN's tools as a script calls them: whatever is at the output afterwards is what there is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pytest_mnnquant.quantize.float_model import prepare
from pytest_mnnquant.quantize.mnnquant_samples import as_text
from pytest_mnnquant.quantize.prepared import Choices, Prepared
from pytest_mnnquant.sources.spec import Spec
from tests.conftest import FIXTURES, ROOT, TIMEOUT, quietly
from tests.faults.factory import Factory
from tests.pictures import png

Arrays = Mapping[str, npt.NDArray[Any]]
#: The environment variable that names the folder of older MNN wheels, and where they are without it.
WHEELS: Final = "MNNQUANT_TEST_WHEELS"
# Destructors may crash after the work is done, which is another matter.
_PROGRAM: Final = """
import os, sys, _tools
getattr(_tools, sys.argv[1])(sys.argv[1:])
sys.stdout.flush()
os._exit(0)
"""
# How MNN's own console script calls the tool.
_CONSOLE: Final = "import sys, _tools; _tools.mnnquant(*sys.argv[1:])"


def wheels() -> Path:
    """The folder with one folder of an older MNN for each version."""
    return Path(os.environ.get(WHEELS) or ROOT / "build" / "wheels").resolve()


def run_tool(name: str, *arguments: str | Path, version: str = "", perturb: int | None = None) -> int:
    """Run `mnnconvert` or `mnnquant`, of an older version if asked; returns what a shell has as the exit status.

    `perturb` fills memory that nobody writes with a byte (glibc does so), which makes garbage the same each time.
    """
    return _run([_PROGRAM, name, *map(str, arguments)], version, perturb)


def run_console_script(*arguments: str | Path) -> int:
    """Run `mnnquant` as its console script does, in every version so far."""
    return _run([_CONSOLE, *map(str, arguments)], "", None)


def _run(command: Sequence[str], version: str, perturb: int | None) -> int:
    env = dict(os.environ)
    if version:
        env["PYTHONPATH"] = str(wheels() / version)
    if perturb is not None:
        env["MALLOC_PERTURB_"] = str(perturb)
    with tempfile.TemporaryDirectory(prefix="tool-") as folder:
        done = subprocess.run(
            [sys.executable, "-c", *command],
            cwd=folder,
            env=env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=TIMEOUT,
        )
    return done.returncode if done.returncode >= 0 else 128 - done.returncode


def write_samples(folder: Path, arrays: Arrays, batch: int = 4) -> Path:
    """Arrays with samples first, in mnnquant's `sequence` form."""
    count = len(next(iter(arrays.values())))
    for number, start in enumerate(range(0, count, batch)):
        sample = folder / f"{number:03d}"
        sample.mkdir(parents=True)
        parts = {name: array[start : start + batch] for name, array in arrays.items()}
        shapes = [{"name": name, "shape": list(part.shape)} for name, part in parts.items()]
        (sample / "input.json").write_text(json.dumps({"inputs": shapes}))
        for name, part in parts.items():
            (sample / f"{name}.txt").write_bytes(as_text(part))
    return folder


def write_images(folder: Path, images: npt.NDArray[Any]) -> Path:
    """Images of shape [n, channels, height, width] in 0..1 as PNG files."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, image in enumerate(images):
        (folder / f"{number:03d}.png").write_bytes(png(np.rint(image.transpose(1, 2, 0) * 255)))
    return folder


def known(factory: Factory, *key: Any) -> Any:
    """What was made under a key; None where nothing was."""
    return factory._known.get(("tools", *key))


def keep(factory: Factory, made: Any, *key: Any) -> Any:
    """Keep what was made, for the test of the twin and for others that ask for the same."""
    return factory._known.setdefault(("tools", *key), made)


def source(factory: Factory, name: str, network: Any, data: Arrays) -> Prepared:
    """A small net of one's own with inputs of one's own, prepared."""
    if (found := known(factory, "source", name)) is None:
        choices = Choices(FIXTURES, dict(data), dict(data), timeout=TIMEOUT)
        found = keep(
            factory, prepare(Spec(name, name), choices, factory.store, quietly, network().eval()), "source", name
        )
    return found  # type: ignore[no-any-return]


def held_out(factory: Factory, name: str, arrays: Arrays) -> Path:
    """Evaluation data of such a net, in a file."""
    if (found := known(factory, "data", name)) is None:
        path = factory.fresh(f"{name.replace(' ', '_')}.npz")
        np.savez(path, allow_pickle=False, **dict(arrays))
        found = keep(factory, path, "data", name)
    return found  # type: ignore[no-any-return]
