"""MNN's aarch64 wheel on this machine, under qemu-user: what its ARM kernels compute. Its timing says nothing.

    python benchmarks/arm.py [FOLDER]

Puts into FOLDER (default: build/arm) an ARM Python from this system's own Debian archive, qemu where the system has
none, and the wheels of MNN (the version installed here) and numpy, then says what MNN finds on each processor. Nothing
is installed on the machine, and no root is needed. What is there already is kept.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pytest_mnnquant.mnnfile.model import read_model
from pytest_mnnquant.runtime import runner
from pytest_mnnquant.runtime.execute import BATCH

HERE: Final = Path(__file__).resolve().parent
FOLDER: Final = HERE.parent / "build" / "arm"
#: Three families of MNN's kernels: plain NEON; with dot products; with int8 matrix products and SVE2.
CPUS: Final = ("cortex-a53", "cortex-a76", "max")
TIMEOUT: Final = 900
_PYTHON: Final = "3.11"
_QEMU: Final = "qemu-aarch64-static"
_PACKAGES: Final = (
    *(f"python{_PYTHON}-minimal", f"libpython{_PYTHON}-minimal", f"libpython{_PYTHON}-stdlib"),
    *("libc6", "libstdc++6", "libgcc-s1", "zlib1g", "libexpat1", "libffi8", "libgomp1", "libssl3", "libbz2-1.0"),
    *("liblzma5", "libuuid1", "libcrypt1"),
)
_READY: Final = "ready.json"
Arrays = Mapping[str, npt.NDArray[Any]]


class NoArm(Exception):
    """There is no ARM to run on; one line says why."""


def set_up(folder: Path) -> Path:
    """Make FOLDER hold all that is needed; returns it, absolute. Raises `NoArm`."""
    folder = folder.resolve()
    mnn = version("mnn")
    wanted = {"mnn": mnn, "packages": list(_PACKAGES), "cpus": list(CPUS)}
    ready = folder / _READY
    if ready.is_file() and json.loads(ready.read_text(encoding="utf-8")) == wanted:
        return folder
    for tool in ("apt-get", "dpkg"):
        if not shutil.which(tool):
            raise NoArm(f"{tool} is missing: the ARM system is made of Debian packages")
    for name in ("root", "site", "wheels"):
        shutil.rmtree(folder / name, ignore_errors=True)
        (folder / name).mkdir(parents=True)
    qemu = _qemu(folder)
    _debian(folder, "arm64", _PACKAGES, folder / "root")
    _wheels(folder, mnn)
    for cpu in CPUS:
        _program(folder, cpu, qemu)
    ready.write_text(json.dumps(wanted), encoding="utf-8")
    return folder


def python_on(folder: Path, cpu: str) -> Path:
    """The ARM Python as a program of this machine, on a processor of `CPUS`."""
    program = folder.resolve() / f"python-{cpu}"
    if not program.is_file():
        raise NoArm(f"{folder} holds no ARM system for {cpu}: run benchmarks/arm.py first")
    return program


def run_on_arm(folder: Path, model_path: Path, inputs: Arrays, cpu: str) -> dict[str, npt.NDArray[Any]]:
    """A model's outputs by name on all samples, as MNN computes them on this processor. Raises `NoArm`.

    `inputs` are named as the model names them; their first axis counts samples.
    """
    model = read_model(model_path)
    with tempfile.TemporaryDirectory(prefix="mnnquant-arm-") as name:
        place = Path(name)
        files = {}
        for number, spec in enumerate(model.inputs):
            files[spec.name] = str(place / f"input{number}.npy")
            array = inputs[spec.name]
            np.save(files[spec.name], array if spec.data_type == "float" else array.astype(np.int32))
        job = {
            "protocol": runner.PROTOCOL,
            "task": "run",
            "model": str(model_path.resolve()),
            "inputs": files,
            "batch": BATCH,
            "engine": "module" if model.has_subgraphs else "session",
            "outputs": list(model.output_names),
        }
        (place / "job.json").write_text(json.dumps(job), encoding="utf-8")
        said = _call([str(python_on(folder, cpu)), str(Path(runner.__file__)), str(place / "job.json")], place)
        result_file = place / "result.json"
        result = (
            json.loads(result_file.read_text(encoding="utf-8")) if result_file.is_file() else {"error": said[-300:]}
        )
        if "error" in result:
            raise NoArm(f"{model_path.name} on {cpu}: {result['error']}")
        return {output: np.load(place / f"output{number}.npy") for number, output in enumerate(result["outputs"])}


def _qemu(folder: Path) -> Path:
    found = shutil.which(_QEMU)
    if found:
        return Path(found)
    own = folder / "qemu" / "usr" / "bin" / _QEMU
    if not own.is_file():
        host = subprocess.run(["dpkg", "--print-architecture"], capture_output=True, text=True, check=True)
        _debian(folder, host.stdout.strip(), ("qemu-user-static",), folder / "qemu")
    return own


def _debian(folder: Path, architecture: str, packages: Sequence[str], root: Path) -> None:
    """Unpack packages of this system's archive below `root`, with package lists of our own for the architecture."""
    with tempfile.TemporaryDirectory(prefix="apt-", dir=folder) as name:
        place = Path(name)
        for part in ("lists/partial", "cache/archives/partial", "debs"):
            (place / part).mkdir(parents=True)
        (place / "status").touch()
        places = {
            "APT::Architecture": architecture,
            "APT::Architectures": architecture,
            "APT::Sandbox::User": "root",
            "Dir::State::lists": place / "lists",
            "Dir::State::status": place / "status",
            "Dir::Cache": place / "cache",
        }
        apt = ["apt-get", "-qq", *(word for key, value in places.items() for word in ("-o", f"{key}={value}"))]
        said = _call([*apt, "update"], place)
        said += _call([*apt, "download", *packages], place / "debs")
        archives = sorted((place / "debs").glob("*.deb"))
        if len(archives) != len(packages):
            raise NoArm(f"apt-get gave {len(archives)} of {len(packages)} packages for {architecture}: {_last(said)}")
        for archive in archives:
            _call(["dpkg", "-x", str(archive), str(root)], place)


def _wheels(folder: Path, mnn: str) -> None:
    asked = ("--only-binary=:all:", "--platform", "manylinux2014_aarch64", "--python-version", _PYTHON, "--no-deps")
    pip = [sys.executable, "-m", "pip", "download", "--quiet", *asked, "--dest", str(folder / "wheels")]
    said = _call([*pip, f"MNN=={mnn}", "numpy"], folder)
    wheels = sorted((folder / "wheels").glob("*.whl"))
    if len(wheels) != 2:
        raise NoArm(f"pip found no wheels of MNN {mnn} and numpy for aarch64: {_last(said)}")
    for wheel in wheels:
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(folder / "site")


def _program(folder: Path, cpu: str, qemu: Path) -> None:
    root, site, program = folder / "root", folder / "site", folder / f"python-{cpu}"
    words = [str(qemu), "-cpu", cpu, "-L", str(root), "-E", f"PYTHONPATH={site}"]
    command = shlex.join([*words, str(root / "usr" / "bin" / f"python{_PYTHON}")])
    program.write_text(f'#!/bin/sh\nexec {command} "$@"\n', encoding="utf-8")
    program.chmod(0o755)


def _call(command: Sequence[str], folder: Path) -> str:
    """What a program printed, whatever its exit status: what it made is looked at instead."""
    env = {**os.environ, "LC_ALL": "C"}
    try:
        done = subprocess.run(
            command, cwd=folder, env=env, stdin=subprocess.DEVNULL, capture_output=True, timeout=TIMEOUT
        )
    except subprocess.TimeoutExpired:
        return f"{Path(command[0]).name}: no end after {TIMEOUT} s\n"
    return (done.stdout + done.stderr).decode("utf-8", "replace")


def _last(said: str) -> str:
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return lines[-1] if lines else "it printed nothing"


def main() -> None:
    """Set up, and show what MNN finds on each processor."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", default=FOLDER)
    folder = parser.parse_args().folder
    try:
        folder = set_up(folder)
        for cpu in CPUS:
            said = _call([str(python_on(folder, cpu)), "-c", "import MNN; print('MNN', MNN.version())"], folder)
            print(f"{cpu}: {'; '.join(said.split(chr(10))).strip('; ')}")
    except NoArm as error:
        raise SystemExit(f"arm.py: {error}") from None


if __name__ == "__main__":
    main()
