"""Sets the emulator up in a folder: arm64 packages from this system's archive, and wheels. Needs no root.

Nothing is installed on the machine. The SHA-256 of every file is compared with the archive's signed list or with the
package index, and the list of all files is kept next to the unpacked files.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final
from urllib.parse import unquote

from pytest_mnnquant.runtime.programs.transfer import sha256
from pytest_mnnquant.targets.emulator import QEMU, Emulator
from pytest_mnnquant.targets.target import NoTarget

#: Installs qemu on Debian, on Ubuntu, and in a step of GitHub Actions.
INSTALL_QEMU: Final = "sudo apt-get install -y qemu-user-static"
#: The packages of the ARM system; their dependencies are added.
PACKAGES: Final = ("python3", "libstdc++6", "libgomp1")
_LIST: Final = "files.json"
# 'http://.../libc6_2.36-9_arm64.deb' libc6_2.36-9_arm64.deb 2324660 SHA256:...
_URI: Final = re.compile(r"^'\S+' (?P<file>(?P<package>[a-z0-9.+\-]+)_\S+\.deb) \d+ SHA256:(?P<hash>\w+)", re.MULTILINE)
_PORTS: Final = "http://ports.ubuntu.com/ubuntu-ports"
_KEYS: Final = "/usr/share/keyrings/ubuntu-archive-keyring.gpg"
Print = Callable[[str], None]


def set_up(emulator: Emulator, print_line: Print, timeout: float) -> None:
    """Unpack everything that is missing in the emulator's folder. Raises `NoTarget`."""
    folder = emulator.folder
    for tool in ("apt-get", "dpkg", "dpkg-deb") if emulator.qemu is None or emulator.python is None else ():
        if not shutil.which(tool):
            raise NoTarget(
                f"{tool} is missing: the emulator is built from Debian or Ubuntu packages; on other systems, give the "
                'command of an ARM Python ([tool.mnnquant.targets.NAME] command = "...")'
            )
    folder.mkdir(parents=True, exist_ok=True)
    if emulator.qemu is None:
        print_line(f"unpacking qemu-user-static (to install it on the system instead: {INSTALL_QEMU})")
        with _complete_folder(folder / "qemu", lambda: emulator.qemu is not None) as place:
            _unpack_packages(place, _architecture(), ("qemu-user-static",), timeout, alone=True)
            if not (place / "usr" / "bin" / QEMU).is_file():
                raise NoTarget(f"{QEMU} is missing from the package qemu-user-static; install it: {INSTALL_QEMU}")
            for other in place.glob("usr/bin/*"):  # The package has thirty more emulators, 10 MB each.
                if other.name != QEMU:
                    other.unlink()
    if emulator.python is None:
        print_line("unpacking an ARM Python from this system's package archive")
        with _complete_folder(emulator.root, lambda: emulator.python is not None) as place:
            _unpack_packages(place, "arm64", PACKAGES, timeout)
    if emulator.python is None:
        raise NoTarget(
            f"{emulator.root} has no python3 after unpacking; remove the folder and try again: rm -r {emulator.root}"
        )
    if emulator.missing:
        print_line(f"unpacking MNN {emulator.mnn} and numpy for aarch64")
        with _complete_folder(emulator.site, lambda: not emulator.missing) as place:
            _unpack_wheels(place, emulator.mnn, emulator.python.name.removeprefix("python"), timeout)


def files_of(emulator: Emulator) -> Iterator[tuple[str, str]]:
    """The packages and wheels of the emulator, with their SHA-256."""
    for place in (emulator.folder / "qemu", emulator.root, emulator.site):
        if (place / _LIST).is_file():
            yield from json.loads((place / _LIST).read_text(encoding="utf-8")).items()


@contextlib.contextmanager
def _complete_folder(place: Path, is_whole: Callable[[], bool]) -> Iterator[Path]:
    """Yield an empty folder that is moved to `place` once it is complete; of two processes the first one wins."""
    with tempfile.TemporaryDirectory(prefix="new-", dir=place.parent) as name:
        new = Path(name) / place.name
        new.mkdir()
        yield new
        if is_whole():
            return
        if place.exists():
            shutil.rmtree(place)
        with contextlib.suppress(OSError):  # Another process was faster, with the same content.
            new.replace(place)


def _unpack_packages(
    root: Path, architecture: str, packages: Sequence[str], timeout: float, *, alone: bool = False
) -> None:
    """Unpack packages, with their dependencies unless `alone`. The package lists are those of the architecture."""
    with tempfile.TemporaryDirectory(prefix="apt-") as name:
        place = Path(name)
        apt = _apt(place, architecture)
        output = _output_of([*apt, "update"], place, timeout)
        fresh = [*apt, "install", "--yes", "--no-install-recommends", "--reinstall", "--print-uris", *packages]
        packages_by_name = {match["package"]: match for match in _URI.finditer(_output_of(fresh, place, timeout))}
        if alone:
            packages_by_name = {
                package: packages_by_name[package] for package in packages if package in packages_by_name
            }
        if not packages_by_name:
            raise NoTarget(
                f"this system's archive has no {', '.join(packages)} for {architecture}: {_last_line(output)}"
            )
        output = _output_of([*apt, "download", *packages_by_name], place / "debs", timeout)
        expected = {match["file"]: match["hash"] for match in packages_by_name.values()}
        _verify_downloads(place / "debs", expected, output)
        for deb in sorted(expected):
            _output_of(["dpkg-deb", "-x", str(place / "debs" / deb), str(root)], place, timeout)
    (root / _LIST).write_text(json.dumps(expected, indent=1), encoding="utf-8")


def _apt(place: Path, architecture: str) -> list[str]:
    """apt-get for an architecture; it writes only inside of a folder."""
    for part in ("lists/partial", "cache/archives/partial", "debs", "none"):
        (place / part).mkdir(parents=True)
    (place / "status").touch()
    options = {
        "APT::Architecture": architecture,
        "APT::Architectures": architecture,
        "APT::Sandbox::User": "root",
        "Acquire::ForceHash": "SHA256",
        "Debug::NoLocking": "1",
        "Dir::State::lists": str(place / "lists"),
        "Dir::State::status": str(place / "status"),
        "Dir::Cache": str(place / "cache"),
    }
    system = _os_release()
    if system.get("ID") == "ubuntu" and architecture == "arm64":  # Ubuntu's main archive has no arm64.
        suites = (f"{system.get('VERSION_CODENAME')}{part}" for part in ("", "-updates", "-security"))
        lines = [f"deb [signed-by={_KEYS}] {_PORTS} {suite} main universe\n" for suite in suites]
        (place / "sources.list").write_text("".join(lines), encoding="utf-8")
        options |= {"Dir::Etc::sourcelist": str(place / "sources.list"), "Dir::Etc::sourceparts": str(place / "none")}
    return ["apt-get", "-qq", *(word for key, value in options.items() for word in ("-o", f"{key}={value}"))]


def _unpack_wheels(site: Path, mnn: str, python: str, timeout: float) -> None:
    """Unpack the wheels of MNN and numpy. pip compares them with the hashes of its index."""
    platform = ["--only-binary=:all:", "--platform", "manylinux2014_aarch64", "--python-version", python, "--no-deps"]
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    with tempfile.TemporaryDirectory(prefix="wheels-") as name:
        place = Path(name)
        report, names = place / "report.json", [f"MNN=={mnn}", "numpy"]
        dry = ["install", "--dry-run", "--ignore-installed", "--target", str(place), "--report", str(report)]
        output = _output_of([*pip, *dry, *platform, *names], place, timeout)
        if not report.is_file():
            raise NoTarget(
                f"pip found no wheels of MNN {mnn} and numpy for aarch64 and Python {python}: {_last_line(output)}"
            )
        resolved = json.loads(report.read_text(encoding="utf-8"))["install"]
        sources = [item["download_info"] for item in resolved]
        expected = {
            unquote(source["url"].rpartition("/")[2]): source["archive_info"]["hashes"]["sha256"] for source in sources
        }
        pinned = [f"{item['metadata']['name']}=={item['metadata']['version']}" for item in resolved]
        output = _output_of([*pip, "download", *platform, "--dest", str(place / "wheels"), *pinned], place, timeout)
        _verify_downloads(place / "wheels", expected, output)
        for wheel in expected:
            with zipfile.ZipFile(place / "wheels" / wheel) as archive:
                archive.extractall(site)
    (site / _LIST).write_text(json.dumps(expected, indent=1), encoding="utf-8")


def _verify_downloads(folder: Path, expected: Mapping[str, str], output: str) -> None:
    """Raise `NoTarget` for a file that was not downloaded completely."""
    for name, digest in expected.items():
        if not (folder / name).is_file():
            raise NoTarget(f"{name} could not be downloaded: {_last_line(output)}")
        if sha256(folder / name) != digest:
            raise NoTarget(f"{name}: the SHA-256 of the downloaded file differs from the one in the signed list")


def _architecture() -> str:
    ended = subprocess.run(["dpkg", "--print-architecture"], capture_output=True, text=True, check=False)
    return ended.stdout.strip()


def _os_release() -> dict[str, str]:
    path = Path("/etc/os-release")
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    return {key: value.strip('"') for key, _, value in (line.partition("=") for line in text.splitlines())}


def _output_of(command: Sequence[str], folder: Path, timeout: float) -> str:
    """The output of a program. Its exit status is ignored: the caller checks its files."""
    env = {**os.environ, "LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"}
    try:
        ended = subprocess.run(
            command, cwd=folder, env=env, stdin=subprocess.DEVNULL, capture_output=True, timeout=timeout, check=False
        )
    except subprocess.TimeoutExpired:
        return f"{Path(command[0]).name}: not finished after {timeout:g} s\n"
    return (ended.stdout + ended.stderr).decode("utf-8", "replace")


def _last_line(output: str) -> str:
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    return lines[-1] if lines else "no output"
