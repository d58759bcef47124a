"""The fixtures users request. They import what they need when they run, so that loading them costs nothing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from pytest_mnnquant.config.settings import ModelSettings
    from pytest_mnnquant.mnnfile.model import Model
    from pytest_mnnquant.plugin.quantized_model import Quantized
    from pytest_mnnquant.statistics.paired_ratio import PairedRatio


@pytest.fixture
def mnn_model(request: pytest.FixtureRequest) -> Any:
    """The model source: from the marker, else from --mnn-model. Override it to return a module or a specification."""
    marked = marker_values(request.node).get("model")
    if marked is not None:
        return marked
    chosen = getattr(request, "param", None)
    if chosen is None:
        pytest.fail(
            "mnn_model: there is no model: give --mnn-model, mark the test with @pytest.mark.mnn(model=...), or "
            "override the fixture mnn_model in your conftest.py",
            pytrace=False,
        )
    return chosen


@pytest.fixture
def mnn_recipe(request: pytest.FixtureRequest) -> str:
    """The recipe this test runs with."""
    return str(request.param)


@pytest.fixture
def mnn_mode(request: pytest.FixtureRequest) -> str | None:
    """The mode this test runs with; None for recipes and sources that have none."""
    return None if request.param is None else str(request.param)


@pytest.fixture
def mnn_calibration() -> Any:
    """Calibration data. Override it to return arrays or batches; None: as --mnn-calibration and the model say."""
    return None


@pytest.fixture
def mnn_evaluation() -> Any:
    """Evaluation data. Override it to return arrays, {"x": ..., "labels": ...}; None: as --mnn-evaluation says."""
    return None


@pytest.fixture
def mnn_tolerances(request: pytest.FixtureRequest) -> dict[str, Any]:
    """What assertions allow where they are not told: options' names without `mnn_`. Override it to change some."""
    return {key: value for key, value in marker_values(request.node).items() if key not in _MARKER_KEYS}


@pytest.fixture
def mnn_quantized(
    request: pytest.FixtureRequest,
    mnn_model: Any,
    mnn_recipe: str,
    mnn_mode: str | None,
    mnn_calibration: Any,
    mnn_evaluation: Any,
    mnn_tolerances: dict[str, Any],
) -> Quantized:
    """One quantized model; the test runs once for each recipe and mode."""
    from pytest_mnnquant.plugin.quantized_model import quantized_for

    data = (mnn_calibration, mnn_evaluation)
    return quantized_for(request.node, mnn_model, mnn_recipe, mnn_mode, *data, mnn_tolerances)


@pytest.fixture
def mnn_float(request: pytest.FixtureRequest, mnn_model: Any, mnn_calibration: Any, mnn_evaluation: Any) -> Model:
    """The float model that quantized ones are compared with."""
    from pytest_mnnquant.plugin.quantized_model import float_for

    return float_for(request.node, mnn_model, mnn_calibration, mnn_evaluation)


@pytest.fixture
def mnn_latency(mnn_quantized: Quantized) -> PairedRatio:
    """Latency of the variant over the float model's, timed in pairs and recorded with pytest-benchmark."""
    return mnn_quantized.latency()


_MARKER_KEYS = ("model", "recipes", "modes")


def marker_values(node: Any) -> dict[str, Any]:
    """The keywords of the closest `mnn` marker."""
    marker = node.get_closest_marker("mnn")
    return dict(marker.kwargs) if marker else {}


def parametrize(metafunc: pytest.Metafunc) -> None:
    """Give a test its models, recipes and modes: the marker's, else those asked for on the command line."""
    wanted = set(metafunc.fixturenames)
    if not wanted & {"mnn_model", "mnn_recipe", "mnn_mode"}:
        return
    from pytest_mnnquant.plugin.session import session_of
    from pytest_mnnquant.sources.spec import SourceError

    marked = marker_values(metafunc.definition)
    try:
        bench = session_of(metafunc.config)
    except (ValueError, SourceError) as error:
        raise pytest.Collector.CollectError(str(error)) from None
    brought = "model" in marked or _overrides_model(metafunc)
    models = () if brought or "mnn_model" not in wanted else bench.settings.models
    both = {"mnn_recipe", "mnn_mode"} <= wanted
    if models and both:
        found = [(model, *pair) for model in models for pair in _variants(model, marked, False)]
        names = [f"{model.name}-{_title(name, mode)}" for model, name, mode in found]
        metafunc.parametrize(("mnn_model", "mnn_recipe", "mnn_mode"), found, indirect=True, ids=names)
        return
    if models:
        metafunc.parametrize("mnn_model", models, indirect=True, ids=[model.name for model in models])
    if not wanted & {"mnn_recipe", "mnn_mode"}:
        return
    first = models[0] if models else bench.settings.defaults
    pairs = list(_variants(first, marked, _overrides_model(metafunc)))
    names = [_title(*pair) for pair in pairs]
    if both:
        metafunc.parametrize(("mnn_recipe", "mnn_mode"), pairs, indirect=True, ids=names)
    else:
        column = 0 if "mnn_recipe" in wanted else 1
        values = list(dict.fromkeys(pair[column] for pair in pairs))
        metafunc.parametrize(("mnn_recipe", "mnn_mode")[column], values, indirect=True, ids=[str(v) for v in values])


def _variants(settings: ModelSettings, marked: dict[str, Any], brings_model: bool) -> Iterator[tuple[str, str | None]]:
    from pytest_mnnquant.recipes.recipe import MODES, recipe_named

    recipes = tuple(marked.get("recipes", settings.recipes))
    modes = tuple(marked.get("modes", settings.modes))
    try:
        known = {name: recipe_named(name) for name in recipes}
    except ValueError as error:
        raise pytest.Collector.CollectError(f"@pytest.mark.mnn(recipes=...): {error}") from None
    for mode in modes:
        if mode not in MODES:
            raise pytest.Collector.CollectError(
                f"@pytest.mark.mnn(modes=...): {mode!r} is unknown; choose from: {', '.join(MODES)}"
            )
    source = marked.get("model", settings.source)
    python = settings.quantized is None and (brings_model or not str(source).endswith((".onnx", ".mnn")))
    for name, recipe in known.items():
        for mode in recipe.modes(python, modes):
            yield name, mode


def _title(recipe: str, mode: str | None) -> str:
    from pytest_mnnquant.recipes.recipe import recipe_named

    return recipe_named(recipe).name + (f"-{mode}" if mode else "")


def _overrides_model(metafunc: pytest.Metafunc) -> bool:
    """Whether the user's own fixture gives the model, so that its kind is not known before it runs."""
    definitions = metafunc._arg2fixturedefs.get("mnn_model", ())  # no public way to ask
    return bool(definitions) and definitions[-1].func.__module__ != __name__
