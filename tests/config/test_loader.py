"""Command line, ini file and [tool.mnnquant] put together; errors name the key at fault."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest

from pytest_mnnquant.config.loader import model_spec, read_settings
from pytest_mnnquant.config.settings import Limits, ModelSettings, Settings
from pytest_mnnquant.sources.images import Preprocess
from pytest_mnnquant.sources.spec import SourceError
from tests.golden_text import check_golden

TABLE = """
    [tool.mnnquant]
    recipes = ["int8", "w8"]
    min_coverage = 0.9
    [tool.mnnquant.models.small]
    source = "zoo/net.py:small"
    calibration = "zoo/c.npz"
    max_accuracy_drop = 0.005
    skip_layers = ["*/head/*"]
    [tool.mnnquant.models.large]
    source = "zoo/net.onnx"
    recipes = ["fp16"]
    mode = "eval"
"""


@pytest.fixture
def folder(pytester: pytest.Pytester) -> Path:
    """A project with two models and their data."""
    (pytester.path / "zoo" / "images").mkdir(parents=True)
    for name in ("net.py", "net.onnx", "c.npz", "int8.mnn"):
        (pytester.path / "zoo" / name).write_bytes(b"")
    return pytester.path


def settings(pytester: pytest.Pytester, *arguments: str, table: str = "") -> Settings:
    if table:
        pytester.makepyprojecttoml(textwrap.dedent(table))
    return read_settings(pytester.parseconfig(*arguments))


def model(pytester: pytest.Pytester, *arguments: str, table: str = "") -> ModelSettings:
    (found,) = settings(pytester, *arguments, table=table).models
    return found


def test_without_anything_there_are_defaults_and_no_models(pytester: pytest.Pytester) -> None:
    found = settings(pytester)
    assert found.models == ()
    assert found.defaults.recipes == ("int8",)
    assert found.defaults.modes == ("train", "eval")
    assert found.defaults.limits == Limits()
    assert (found.strict, found.reports, found.cache_dir, found.reuse) == (False, (), None, True)


def test_a_model_on_the_command_line(pytester: pytest.Pytester, folder: Path) -> None:
    found = model(
        pytester,
        "--mnn-model=zoo/net.py:small",
        "--mnn-recipe=w8",
        "--mnn-recipe=int8",
        "--mnn-recipe=w8",
        "--mnn-mode=eval",
        "--mnn-calibration=zoo/c.npz",
        "--mnn-min-cosine=0.5",
        "--mnn-skip-layer=a",
        "--mnn-skip-layer=b",
        "--mnn-timeout=7",
    )
    assert (found.source, found.name, found.base) == ("zoo/net.py:small", "net.small", folder)
    assert (found.recipes, found.modes, found.calibration) == (("w8", "int8"), ("eval",), "zoo/c.npz")
    assert (found.limits.min_cosine, found.skip_layers, found.timeout) == (0.5, ("a", "b"), 7.0)
    assert model_spec(found).path == folder / "zoo/net.py"


def test_states_are_given_in_both_places(pytester: pytest.Pytester, folder: Path) -> None:
    typed = ("--mnn-model=zoo/net.onnx", "--mnn-state=h=h_out", "--mnn-state=c=c_out")
    assert model(pytester, *typed).states == {"h": "h_out", "c": "c_out"}
    table = TABLE + '    states = {h = "hn"}\n'
    assert model(pytester, "--mnn-model=large", table=table).states == {"h": "hn"}


def test_run_options(pytester: pytest.Pytester, folder: Path) -> None:
    found = settings(
        pytester, "--mnn-strict", "--mnn-report=a.json", "--mnn-report=b/c.json", "--mnn-cache-dir=k", "--mnn-no-cache"
    )
    assert found.strict
    assert found.reports == (folder / "a.json", folder / "b/c.json")
    assert found.cache_dir == folder / "k"
    assert not found.reuse


def test_all_models_of_a_configuration_file(pytester: pytest.Pytester, folder: Path) -> None:
    (folder / "zoo/models.toml").write_text(textwrap.dedent(TABLE).replace("zoo/", ""))
    small, large = settings(pytester, "--mnn-config=zoo/models.toml").models
    assert (small.name, small.recipes, small.limits) == (
        "small",
        ("int8", "w8"),
        Limits(min_coverage=0.9, max_accuracy_drop=0.005),
    )
    assert (small.base, small.skip_layers) == (folder / "zoo", ("*/head/*",))
    assert (large.name, large.recipes, large.modes) == ("large", ("fp16",), ("eval",))
    assert model_spec(large).path == folder / "zoo/net.onnx"


def test_a_configured_model_is_chosen_by_name_and_the_command_line_wins(
    pytester: pytest.Pytester, folder: Path
) -> None:
    found = model(pytester, "--mnn-model=small", "--mnn-min-coverage=0.5", table=TABLE)
    assert (found.name, found.source) == ("small", "zoo/net.py:small")
    assert (found.limits.min_coverage, found.limits.max_accuracy_drop) == (0.5, 0.005)
    assert found.node == "small"


def test_shared_values_hold_for_models_of_the_command_line_and_of_tests(
    pytester: pytest.Pytester, folder: Path
) -> None:
    found = settings(pytester, "--mnn-model=zoo/net.onnx", table=TABLE)
    assert found.models[0].recipes == ("int8", "w8")
    assert found.defaults.limits.min_coverage == 0.9


@pytest.mark.parametrize(
    ("arguments", "entry"),
    [
        (["--mnn-model=none.onnx"], "no-such-model"),
        (["--mnn-model=zoo/net.py"], "a-file-without-a-callable"),
        (["--mnn-model=zoo/net.onnx", "--mnn-model=net=zoo/net.py:build"], "two-models-of-one-name"),
        (["--mnn-model=zoo/net.onnx", "--mnn-calibration=none.npz"], "no-such-calibration"),
        (["--mnn-model=zoo/net.onnx", "--mnn-evaluation=zoo/none.py:feed"], "no-such-evaluation"),
        (["--mnn-model=zoo/net.onnx", "--mnn-params=p.bin"], "params-without-quantized"),
        (
            ["--mnn-model=zoo/net.onnx", "--mnn-model=zoo/net.py:b", "--mnn-quantized=zoo/int8.mnn"],
            "quantized-with-two-models",
        ),
        (
            ["--mnn-model=zoo/net.onnx", "--mnn-quantized=zoo/int8.mnn", "--mnn-recipe=w8", "--mnn-recipe=w4"],
            "quantized-with-two-recipes",
        ),
        (["--mnn-config=none.toml"], "no-such-configuration"),
        (["--mnn-model=zoo/net.onnx", "--mnn-ignore=710"], "not-a-rule-code"),
    ],
    ids=lambda value: value[-1] if isinstance(value, list) else "",
)
def test_what_does_not_go_together_or_is_not_there_is_told_in_one_line(
    pytester: pytest.Pytester, folder: Path, arguments: list[str], entry: str
) -> None:
    with pytest.raises((ValueError, SourceError)) as error:
        settings(pytester, *arguments)
    assert "\n" not in str(error.value)
    check_golden(f"options/{entry}", str(error.value), folder=folder)


BAD_TABLES = {
    "not toml": ("[tool.mnnquant", "m.toml: "),
    "no table": ("[tool]\nmnnquant = 3", r"\[tool.mnnquant\] is not a table"),
    "tool is no table": ("tool = 3", r"\[tool.mnnquant\] is not a table"),
    "unknown key": ("[tool.mnnquant]\nrecipe_names = []", r"\[tool.mnnquant\]: unknown key 'recipe_names'"),
    "bad value": ("[tool.mnnquant]\nmin_coverage = 99", r"\[tool.mnnquant\]: min_coverage: 99 is out of range"),
    "bad list": ("[tool.mnnquant]\nrecipes = 8", r"\[tool.mnnquant\]: recipes: 8 is not a list"),
    "models is no table": ("[tool.mnnquant]\nmodels = 3", r"\[tool.mnnquant.models\]"),
    "a model is no table": ("[tool.mnnquant.models]\nsmall = 3", r"\[tool.mnnquant.models\]"),
}
BAD_MODELS = {
    "no source": ("mode = 'eval'", r"models.small\]: the key 'source' is missing"),
    "source is no text": ("source = 3", r"models.small\]: source: 3 is not a string"),
    "source is not there": ("source = 'none.onnx'", "none.onnx: no such file"),
    "unknown key": ("source = 'zoo/net.onnx'\nrecipie = 'w8'", r"models.small\]: unknown key 'recipie'"),
    "bad value": ("source = 'zoo/net.onnx'\nmode = 'fast'", r"models.small\]: mode: .*'fast'"),
    "preprocess": (
        "source = 'zoo/net.onnx'\npreprocess = {}",
        r"models.small\]: preprocess: the key 'format' is missing",
    ),
    "preprocess of sounds": (
        "source = 'zoo/net.onnx'\npreprocess = {rate = 'cd'}",
        r"models.small\]: preprocess: rate: 'cd' is not a whole number above 0",
    ),
    "unknown key of sounds": (
        "source = 'zoo/net.onnx'\npreprocess = {rate = 8000, mono = true}",
        r"models.small\]: preprocess: unknown key 'mono'",
    ),
    "classes": (
        "source = 'zoo/net.onnx'\npreprocess = {rate = 8000, classes = ['a', 'a']}",
        r"classes: \['a', 'a'\] is not a list of different names",
    ),
    "a folder": (
        "source = 'zoo/net.onnx'\ncalibration = 'zoo/images'",
        "zoo/images: the preprocessing of a folder of images",
    ),
    "a run's option": ("source = 'zoo/net.onnx'\nstrict = true", r"models.small\]: unknown key 'strict'"),
    "data": ("source = 'zoo/net.onnx'\nevaluation = 'none.npz'", "none.npz: no such file"),
}


@pytest.mark.parametrize("kind", BAD_TABLES)
def test_a_bad_table_is_named(pytester: pytest.Pytester, folder: Path, kind: str) -> None:
    text, problem = BAD_TABLES[kind]
    (folder / "m.toml").write_text(text)
    with pytest.raises(ValueError, match=problem):
        settings(pytester, "--mnn-config=m.toml")


@pytest.mark.parametrize("kind", BAD_MODELS)
def test_a_bad_model_table_is_named(pytester: pytest.Pytester, folder: Path, kind: str) -> None:
    text, problem = BAD_MODELS[kind]
    (folder / "m.toml").write_text(f"[tool.mnnquant.models.small]\n{text}")
    with pytest.raises((ValueError, SourceError), match=problem):
        settings(pytester, "--mnn-config=m.toml")


IMAGES = """
    [tool.mnnquant]
    preprocess = {format = "GRAY", size = [8, 6], mean = [127.5], normal = [0.01]}
    [tool.mnnquant.models.small]
    source = "zoo/net.py:small"
    calibration = "zoo"
    [tool.mnnquant.models.large]
    source = "zoo/net.onnx"
    evaluation = "zoo"
    preprocess = {format = "RGB", size = [4, 4], mean = [0, 0, 0], normal = [1, 1, 1], count = 10}
"""


def test_preprocessing_is_declared_for_all_models_or_for_one(pytester: pytest.Pytester, folder: Path) -> None:
    (folder / "m.toml").write_text(textwrap.dedent(IMAGES))
    small, large = settings(pytester, "--mnn-config=m.toml").models
    assert small.preprocess == Preprocess("GRAY", (8, 6), (127.5,), (0.01,))
    assert large.preprocess == Preprocess("RGB", (4, 4), (0.0,) * 3, (1.0,) * 3, count=10)
    found = model(pytester, "--mnn-model=zoo/net.onnx", "--mnn-calibration=zoo", table=IMAGES)
    assert found.preprocess == small.preprocess
    bad = IMAGES.replace('"GRAY"', '"grey"')
    with pytest.raises(ValueError, match=r"\[tool.mnnquant\]: preprocess: format: 'grey' is unknown"):
        model(pytester, "--mnn-model=zoo/net.onnx", table=bad)


def test_a_configuration_without_models_is_refused_when_it_was_asked_for(
    pytester: pytest.Pytester, folder: Path
) -> None:
    (folder / "m.toml").write_text("[tool.other]\n")
    with pytest.raises(ValueError, match=r"has no \[tool.mnnquant.models.NAME\] table"):
        settings(pytester, "--mnn-config=m.toml")


def test_limits_change_by_name_only() -> None:
    changed = Limits().with_changes({"min_coverage": "0.5", "min_cosine": 0.8}, "here")
    assert changed == Limits(min_coverage=0.5, min_cosine=0.8)
    with pytest.raises(ValueError, match="here: unknown tolerance 'coverage'; known: min_size_ratio, min_coverage"):
        Limits().with_changes({"coverage": 0.5}, "here")
    with pytest.raises(ValueError, match="here: min_coverage: 2 is out of range"):
        Limits().with_changes({"min_coverage": 2}, "here")
