"""The gate and all of its child processes reach no other machine, and leave nothing in the home folder."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.plugin.conftest import NET, Files, of_nobody

pytestmark = pytest.mark.slow
CALLS = "connect,sendto,sendmsg,sendmmsg"


def can_trace() -> bool:
    """Whether strace is installed and permitted."""
    if shutil.which("strace") is None:
        return False
    return subprocess.run(["strace", "-o", os.devnull, "true"], check=False, capture_output=True).returncode == 0


def traced(folder: Path, *arguments: str) -> list[str]:
    """The network calls of a run of pytest in `folder`, which has a home folder of its own."""
    log, home = folder / "calls.txt", folder / "home"
    home.mkdir()
    command = ["strace", "-f", "-qq", "-e", f"trace={CALLS}", "-e", "signal=none", "-o", str(log)]
    usual = ["-p", "no:cacheprovider", "--benchmark-disable", f"--mnn-cache-dir={folder / 'cache'}"]
    ended = subprocess.run(
        [*command, sys.executable, "-m", "pytest", "-q", *usual, *arguments],
        cwd=folder,
        env={**of_nobody(), "HOME": str(home), "XDG_CACHE_HOME": str(home / ".cache")},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return [line for line in log.read_text().splitlines() if "AF_INET" in line or "AF_NETLINK" in line]


@pytest.mark.skipif(not can_trace(), reason="strace is not installed or not permitted")
@pytest.mark.parametrize("source", ["torch", "onnx"])
def test_no_process_reaches_a_network_or_writes_to_the_home_folder(tmp_path: Path, files: Files, source: str) -> None:
    (tmp_path / "net.py").write_text(NET)
    shutil.copy(files.onnx, tmp_path / "net.onnx")
    given = {
        "torch": ("--mnn-model=net.py:build", "--mnn-recipe=mnncompress-repaired", "--mnn-mode=eval"),
        "onnx": ("--mnn-model=net.onnx", "--mnn-recipe=mnnquant-kl", "--mnn-calibration=net.py:calibration"),
    }[source]
    if source == "torch":
        pytest.importorskip("mnncompress")
    checks = "conversion or params or coverage or execution"
    assert traced(tmp_path, *given, "--mnn-recipe=w8", "-k", checks) == []
    assert [path for path in (tmp_path / "home").rglob("*") if path.is_file()] == []
