"""A full disk is named as the reason of a failure; other failures are not changed."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_mnnquant.runtime.disk import full_disk_named
from pytest_mnnquant.runtime.jobs import FailureKind, NativeFailure


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A folder on a disk of 200 kB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", disk], capture_output=True).returncode:
        pytest.skip("mounting a small disk needs root")
    (disk / "job").mkdir()
    yield disk / "job"
    subprocess.run(["umount", disk], check=True)


@pytest.mark.slow
def test_a_full_disk_is_named(small: Path) -> None:
    with pytest.raises(NativeFailure) as caught, full_disk_named("converting net.onnx", small):
        (small / "large").write_bytes(bytes(300_000))
    assert caught.value.kind is FailureKind.NO_SPACE
    assert caught.value.what == f"converting net.onnx: the disk of {small.parent} is full"
    with pytest.raises(NativeFailure) as caught, full_disk_named("converting net.onnx", small):
        raise NativeFailure(FailureKind.BAD_OUTPUT, "MNN wrote half a file", "Converted Success!")
    assert (caught.value.kind, caught.value.log) == (FailureKind.NO_SPACE, "")


@pytest.mark.parametrize("error", [NativeFailure(FailureKind.CRASHED, "x"), OSError(24, "Too many open files")])
def test_other_failures_pass_unchanged(tmp_path: Path, error: Exception) -> None:
    with pytest.raises(type(error)) as caught, full_disk_named("converting net.onnx", tmp_path):
        raise error
    assert caught.value is error
