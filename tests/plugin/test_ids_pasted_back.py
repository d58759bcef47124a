"""An id that pytest printed runs that check again, wherever it is pasted."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from tests.plugin.conftest import Files, Run
from tests.plugin.test_ini_and_configuration import CONFIG, zoo

__all__ = ["zoo"]

MODEL, W8 = "--mnn-model=net.py:build", "--mnn-recipe=w8"


@pytest.mark.parametrize("model", [[MODEL], []])
def test_the_id_of_a_check_runs_it_alone(run: Run, model: list[str]) -> None:
    found = run(*model, W8, "net.py:build::w8::size")
    assert (found.status, set(found.items)) == (0, {"net.py:build::w8::size"})


@pytest.mark.parametrize("model", [[MODEL], []])
def test_ids_with_a_mode_and_of_a_whole_variant_run(run: Run, model: list[str]) -> None:
    one = run(*model, "net.py:build::int8-eval::coverage")
    assert (one.status, set(one.items)) == (0, {"net.py:build::int8-eval::coverage"})
    many = run(*model, "net.py:build::int8", "-k", "bundle or size")
    assert many.passed == {f"int8-{mode}::{check}" for mode in ("train", "eval") for check in ("bundle", "size")}
    two = run(*model, "net.py:build::int8-eval::size", "net.py:build::int8-train::bundle")
    assert two.passed == {"int8-eval::size", "int8-train::bundle"}


def test_the_id_of_a_file_runs_its_check(run: Run, files: Files) -> None:
    found = run(W8, f"{files.float}::w8::size")
    assert (found.status, found.passed) == (0, {"w8::size"})


def test_the_id_of_a_named_model_runs_with_its_name(run: Run) -> None:
    found = run("--mnn-model=my=net.py:build", "--mnn-model=other=net.py:build", W8, "my::w8::size")
    assert (found.status, set(found.items)) == (0, {"my::w8::size"})


def test_ids_go_with_tests_of_ones_own(run: Run, pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_users="def test_one():\n    pass\n\ndef test_two():\n    pass")
    found = run(MODEL, W8, "net.py:build::w8::size", "test_users.py::test_one")
    assert set(found.items) == {"net.py:build::w8::size", "test_users.py::test_one"}


def test_ids_of_a_subfolder_start_there(run: Run, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    pytester.makeini("[pytest]")
    monkeypatch.chdir(pytester.mkdir("deep"))
    listed = [line for line in run("--mnn-model=../net.py:build", W8, "--co", "-q").lines if "::size" in line]
    assert listed == ["../net.py:build::w8::size"]
    found = run(W8, *listed)
    assert (found.status, found.passed) == (0, {"w8::size"})


@pytest.mark.usefixtures("zoo")
@pytest.mark.parametrize("more", [[], ["--mnn-model=other"]])
def test_the_id_of_a_configured_model_runs_as_configured(run: Run, pytester: pytest.Pytester, more: list[str]) -> None:
    pytester.makepyprojecttoml(CONFIG)
    found = run(*more, "other::w4::coverage")
    assert (found.status, set(found.items)) == (0, {"other::w4::coverage"}), found.text


@pytest.mark.usefixtures("zoo")
def test_the_id_of_a_model_in_a_configuration_file_runs(run: Run, pytester: pytest.Pytester) -> None:
    (pytester.path / "mnn.toml").write_text(CONFIG)
    found = run("--mnn-config=mnn.toml", "small::w8::size")
    assert (found.status, set(found.items)) == (0, {"small::w8::size"}), found.text


@pytest.mark.parametrize(
    "wrong", ["net.py:build::w8::sise", "net.py:build::w4::size", "no.py:build::w8::size", "my::w8::size"]
)
def test_an_id_of_nothing_is_refused(run: Run, wrong: str) -> None:
    found = run(MODEL, W8, wrong)
    assert found.status == pytest.ExitCode.USAGE_ERROR
    assert wrong in found.text


def test_a_failed_check_prints_an_id_that_runs_it_again(run: Run) -> None:
    usual = [MODEL, W8, "--mnn-min-size-ratio=9"]
    found = run(*usual, "-k", "size or bundle")
    (printed,) = [line.split()[1] for line in found.lines if line.startswith("FAILED ")]
    again = run(*usual, printed)
    assert (again.status, again.failed) == (1, {"w8::size"})
    assert len(again.items) == 1


def test_an_id_in_an_earlier_form_is_refused_with_the_current_one(run: Run) -> None:
    for pasted in ("net.py:build::int8[eval]::coverage", "net.py:build::int8[eval]::coverage]"):
        refused = run(pasted)
        assert refused.status == pytest.ExitCode.USAGE_ERROR
        assert "pytest net.py:build::int8-eval::coverage" in refused.text


def test_pytest_prints_ids_and_names_as_they_are(run: Run, pytester: pytest.Pytester) -> None:
    found = run(MODEL, "--mnn-mode=eval", "--mnn-min-size-ratio=9", "-k", "size", "--junitxml=j.xml")
    assert "FAILED net.py:build::int8-eval::size" in found.text
    (case,) = ElementTree.parse(pytester.path / "j.xml").iter("testcase")
    assert (case.get("classname"), case.get("name")) == ("net.py:build.int8-eval", "size")
