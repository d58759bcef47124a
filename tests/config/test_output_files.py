"""A report overwrites no input, and no file that is not a report."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pytest_mnnquant.config.given import Given
from pytest_mnnquant.config.loader import configuration_of, settings_of
from pytest_mnnquant.config.settings import Settings
from pytest_mnnquant.report.build import build_report
from pytest_mnnquant.report.formats import write_report


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A project whose files have the suffixes of reports."""
    (tmp_path / "net.onnx").touch()
    for name in ("data.npz", "b.json", "notes.md", "page.html", "other.json"):
        (tmp_path / name).write_text('{"mine": 1}')
    return tmp_path


def settings(folder: Path, *reports: str, **values: str) -> Settings:
    """The settings of a run that writes these reports."""
    every = {"model": ("net.onnx",), "report": reports, **values}
    given = Given(every, frozenset(every), folder, folder)
    return settings_of(given, configuration_of(given))


@pytest.mark.parametrize("name", ["b.json", "./b.json", "link.json", "notes.md", "page.html", "other.json"])
def test_an_input_or_a_file_of_another_kind_is_refused(folder: Path, name: str) -> None:
    (folder / "link.json").symlink_to("b.json")
    with pytest.raises(ValueError, match=r"--mnn-report: .*(is the baseline|is not a report)"):
        settings(folder, name, baseline="b.json")
    assert (folder / "b.json").read_text() == '{"mine": 1}'


def test_a_baseline_that_does_not_exist_yet_is_an_input(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(ValueError, match="is the baseline"):
        settings(folder, "c.json", baseline="c.json", update_baseline="yes")


def test_two_reports_need_two_files(folder: Path) -> None:
    with pytest.raises(ValueError, match="twice"):
        settings(folder, "r.json", "./r.json")


@pytest.mark.parametrize("name", ["pipe.json", "null.json"])
def test_what_is_not_a_file_is_refused(folder: Path, name: str) -> None:
    os.mkfifo(folder / "pipe.json")
    (folder / "null.json").symlink_to("/dev/null")
    with pytest.raises(ValueError, match="not a regular file"):
        settings(folder, name)


@pytest.mark.parametrize("name", ["r.json", "r.md"])
def test_a_report_of_an_earlier_run_is_replaced(folder: Path, name: str) -> None:
    write_report(build_report([], {"MNN": "3.6.1"}), folder / name)
    assert settings(folder, name).reports == (folder / name,)
    (folder / name).write_bytes(b"")
    assert settings(folder, name).reports == (folder / name,)
