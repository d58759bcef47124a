"""Setting up: what was not downloaded as its list says is refused, and half of a thing is nothing."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from pytest_mnnquant.targets import emulator_setup
from pytest_mnnquant.targets.emulator import Emulator
from pytest_mnnquant.targets.target import NoTarget

TELL: list[str] = []


def test_a_file_of_another_hash_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.deb").write_bytes(b"package")
    right = hashlib.sha256(b"package").hexdigest()
    emulator_setup._verify_downloads(tmp_path, {"a.deb": right}, "")
    with pytest.raises(NoTarget, match=r"a\.deb: .*SHA-256"):
        emulator_setup._verify_downloads(tmp_path, {"a.deb": right[::-1]}, "")
    with pytest.raises(NoTarget, match=r"b\.deb could not be downloaded: no route to host"):
        emulator_setup._verify_downloads(tmp_path, {"b.deb": right}, "first\nno route to host\n")


def test_without_debians_tools_another_way_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NoTarget, match=r"apt-get is missing: .*\[tool\.mnnquant\.targets\.NAME\]"):
        emulator_setup.set_up(Emulator(folder=tmp_path / "arm"), TELL.append, 10.0)


def test_what_failed_leaves_nothing_that_looks_whole_and_what_is_whole_stays(tmp_path: Path) -> None:
    site = Emulator("0.0.1", folder=tmp_path).site

    def is_whole() -> bool:
        return (site / "MNN").is_dir()

    def put(text: str) -> None:
        with emulator_setup._complete_folder(site, is_whole) as place:
            (place / "MNN").mkdir()
            (place / "MNN" / "text").write_text(text)
            if text == "broken":
                raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        put("broken")
    assert not site.exists()
    site.mkdir()  # Of somebody who was interrupted.
    put("first")
    put("second")
    assert (site / "MNN" / "text").read_text() == "first"
    assert [path.name for path in tmp_path.iterdir()] == [site.name]
