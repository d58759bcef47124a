"""The session of a run: built by a hook, once, and never by reading it."""

from __future__ import annotations

import copy

import pytest

from pytest_mnnquant.plugin.session import PluginSession, session_of, start_for_fixtures, start_suite


def parsed(pytester: pytest.Pytester, *args: str) -> pytest.Config:
    """The configuration of a run before any hook has seen it."""
    (pytester.path / "net.onnx").touch()
    config = pytester.parseconfig(*args)
    pytester._request.addfinalizer(config._ensure_unconfigure)
    return config


def test_reading_the_session_does_not_build_it(pytester: pytest.Pytester) -> None:
    config = parsed(pytester)
    with pytest.raises(KeyError):
        session_of(config)
    assert PluginSession.KEY not in config.stash
    assert start_for_fixtures(config) is session_of(config) is start_for_fixtures(config)


def test_ids_name_models_recipes_and_targets_without_a_change_of_options(pytester: pytest.Pytester) -> None:
    pytester.makepyprojecttoml('[tool.mnnquant.targets.phone]\ncommand = "phone python"\ndevice = true\n')
    config = parsed(pytester, "net.onnx::w8@phone::accuracy", "net.onnx::fp16::size", "tests")
    before = copy.deepcopy(vars(config.option))
    assert start_suite(config)
    assert vars(config.option) == before
    assert config.args == ["tests"]
    session = session_of(config)
    (model,) = session.settings.models
    assert (model.source, model.recipes, model.targets) == ("net.onnx", ("w8", "fp16"), ("phone", "host"))
    assert session.requested_ids == ("net.onnx::w8@phone::accuracy", "net.onnx::fp16::size")
    assert session.settings.chooses_variants
    assert list(session.settings.targets) == ["phone"]


def test_what_the_command_line_says_is_not_replaced_by_ids(pytester: pytest.Pytester) -> None:
    config = parsed(pytester, "--mnn-recipe=w4", "--mnn-recipe=w8", "mine::w8::size", "--mnn-model=mine=net.onnx")
    assert start_suite(config)
    (model,) = session_of(config).settings.models
    assert (model.name, model.recipes) == ("mine", ("w4", "w8"))
    assert session_of(config).arguments == ("--mnn-recipe=w4", "--mnn-recipe=w8", "--mnn-model=mine=net.onnx")


def test_a_run_of_tests_alone_has_no_suite(pytester: pytest.Pytester) -> None:
    config = parsed(pytester, "elsewhere/test_x.py::test_x")
    assert not start_suite(config)
    assert session_of(config).sources == ()
    assert config.args == ["elsewhere/test_x.py::test_x"]


@pytest.mark.parametrize(
    "args",
    [("net.onnx::w8::sizes",), ("--mnn-model=none.onnx",), ("--mnn-min-coverage=0.5", "--mnn-config=none.toml")],
)
def test_what_can_not_be_used_is_a_usage_error(pytester: pytest.Pytester, args: tuple[str, ...]) -> None:
    with pytest.raises(pytest.UsageError):
        start_suite(parsed(pytester, *args))
