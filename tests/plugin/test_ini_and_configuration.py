"""Options in the ini file, and models in [tool.mnnquant]."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.golden_text import check_golden
from tests.plugin.conftest import NET, Run

Refused = Callable[..., str]
CONFIG = """
[tool.mnnquant]
recipes = ["w8"]
min_coverage = 0.9

[tool.mnnquant.models.small]
source = "zoo/net.py:build"
min_size_ratio = 1.5

[tool.mnnquant.models.other]
source = "zoo/net.py:build"
recipes = ["w4", "fp16"]
skip_layers = ["nothing"]
"""


@pytest.fixture
def zoo(pytester: pytest.Pytester) -> None:
    """The model in a folder of the project."""
    (pytester.mkdir("zoo") / "net.py").write_text(NET)


def test_the_ini_file_asks_for_models_and_recipes(run: Run, pytester: pytest.Pytester) -> None:
    pytester.makeini("[pytest]\nmnn_model = net.py:build\nmnn_recipe = w8 fp16\nmnn_min_size_ratio = 50")
    found = run("-k", "size or params")
    assert (found.status, found.failed) == (1, {"w8::size", "fp16::size"})
    found.tells("MNQ802", where="50x")


def test_the_command_line_replaces_what_the_ini_file_says(run: Run, pytester: pytest.Pytester) -> None:
    pytester.makeini("[pytest]\nmnn_model = net.py:build\nmnn_recipe = w8 fp16\nmnn_min_size_ratio = 50")
    found = run("--mnn-recipe=w4", "--mnn-min-size-ratio=1.5", "-k", "size")
    assert (found.status, found.passed) == (0, {"w4::size"}), found.text


def test_flags_can_be_set_in_the_ini_file(run: Run, pytester: pytest.Pytester) -> None:
    usual = ["--mnn-model=net.py:build", "--mnn-recipe=w8", "-k", "latency", "--benchmark-disable"]
    for value, status in (("true", 1), ("false", 0)):
        pytester.makeini(f"[pytest]\nmnn_strict = {value}")
        assert run(*usual).status == status


def test_ignored_codes_and_skipped_layers_can_be_set_in_the_ini_file(run: Run, pytester: pytest.Pytester) -> None:
    pytester.makeini("[pytest]\nmnn_ignore = MNQ802\nmnn_skip_layer = head\nmnn_mode = eval\nmnn_min_size_ratio = 50")
    found = run("--mnn-model=net.py:build", "-k", "size or coverage")
    assert found.status == 0, found.text
    assert found.passed == {"int8-eval::size", "int8-eval::coverage"}
    assert found.metrics("coverage")["skipped_layers"] == 1


@pytest.mark.parametrize("value", ["nine", "1.5", "nan"])
def test_a_bad_value_in_the_ini_file_is_refused(refused: Refused, pytester: pytest.Pytester, value: str) -> None:
    pytester.makeini(f"[pytest]\nmnn_min_coverage = {value}")
    assert "--mnn-min-coverage" in refused("--mnn-model=net.py:build")


@pytest.mark.usefixtures("zoo")
def test_all_models_of_a_configuration_are_tested(run: Run, pytester: pytest.Pytester) -> None:
    (pytester.path / "mnn.toml").write_text(CONFIG)
    found = run("--mnn-config=mnn.toml", "-k", "coverage or size")
    assert found.status == 0, found.text
    assert set(found.items) == {
        f"{name}::{check}"
        for name in ("small::w8", "other::w4", "other::fp16")
        for check in ("coverage", "size")
    }  # fmt: skip


@pytest.mark.usefixtures("zoo")
def test_a_model_of_the_project_can_be_named(run: Run, pytester: pytest.Pytester) -> None:
    pytester.makepyprojecttoml(CONFIG)
    found = run("--mnn-model=other", "-k", "coverage")
    assert found.status == 0, found.text
    assert set(found.items) == {"other::w4::coverage", "other::fp16::coverage"}
    assert run("--mnn-model=small", "--mnn-recipe=fp16", "-k", "coverage").passed == {"fp16::coverage"}


@pytest.mark.usefixtures("zoo")
def test_paths_of_a_configuration_start_at_its_folder(
    run: Run, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    (pytester.path / "mnn.toml").write_text(CONFIG)
    monkeypatch.chdir(pytester.mkdir("elsewhere"))
    assert run("--mnn-config=../mnn.toml", "--mnn-model=small", "-k", "coverage").passed == {"w8::coverage"}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[tool.mnnquant]\nrecipies = ['w8']", "[tool.mnnquant]: unknown key 'recipies'"),
        ("[tool.mnnquant]\nreport = 'x.json'", "[tool.mnnquant]: unknown key 'report'"),
        ("[tool.mnnquant]\nmin_coverage = 2", "[tool.mnnquant]: min_coverage: 2"),
        ("[tool.mnnquant]\nmin_coverage = true", "[tool.mnnquant]: min_coverage"),
        ("[tool.mnnquant]\nrecipes = ['int7']", "[tool.mnnquant]: recipes: unknown recipe 'int7'"),
        ("[tool.mnnquant]\nrecipes = 8", "[tool.mnnquant]: recipes"),
        ("[tool.mnnquant]\nmode = 'fast'", "[tool.mnnquant]: mode: "),
        ("[tool.mnnquant]\nexporter = 3", "[tool.mnnquant]: exporter: 3"),
        ("[tool]\nmnnquant = 1", "[tool.mnnquant] is not a table"),
        ("[tool.mnnquant]\nmodels = ['net.py:build']", "[tool.mnnquant.models]"),
        ("[tool.mnnquant.models.net]", "[tool.mnnquant.models.net]: the key 'source' is missing"),
        ("[tool.mnnquant.models.net]\nsource='no.py:build'", "no.py: no such file"),
        ("[tool.mnnquant.models.net]\nsource='net.py:build'\nsuorce='x'", "models.net]: unknown key 'suorce'"),
        ("[tool.mnnquant.models.net]\nsource='net.py:build'\nevaluation='no.npz'", "no.npz: no such file"),
        ("[tool.mnnquant.models.net]\nsource='net.py:build'\npreprocess={mean=[1]}", "models.net]: preprocess"),
        ("[tool.mnnquant]", "has no [tool.mnnquant.models.NAME] table"),
        ("[tool.mnnquant", "mnn.toml: "),
    ],
)
def test_an_error_in_the_configuration_names_the_key(
    refused: Refused, pytester: pytest.Pytester, text: str, says: str
) -> None:
    (pytester.path / "mnn.toml").write_text(text)
    assert says in refused("--mnn-config=mnn.toml")


def test_a_configuration_that_is_not_there_is_refused(refused: Refused) -> None:
    check_golden("plugin-options/no-configuration", refused("--mnn-config=none.toml"))


def test_an_error_in_the_configuration_of_the_project_does_not_end_in_our_code(
    run: Run, pytester: pytest.Pytester
) -> None:
    pytester.makepyprojecttoml("[tool.mnnquant]\nrecipies = ['w8']")
    pytester.makepyfile(test_own="def test_own(mnn_quantized):\n    pass\n\ndef test_plain():\n    pass")
    found = run()
    assert found.status != 0
    assert "unknown key 'recipies'" in found.text
    assert run("-k", "plain").status in (0, 2, 4)
