"""The fixtures for users. They import what they need when they run, so that loading this module costs nothing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

import pytest

if TYPE_CHECKING:
    from pytest_mnnquant.config.settings import ModelSettings
    from pytest_mnnquant.mnnfile.model import Model
    from pytest_mnnquant.plugin.quantized_model import Quantized
    from pytest_mnnquant.recipes.recipe import Recipe
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
            "mnn_model: no model is given: use --mnn-model, mark the test with @pytest.mark.mnn(model=...), or "
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
    """Calibration data. Override it to return arrays or batches; None: from --mnn-calibration or the model."""
    return None


@pytest.fixture
def mnn_evaluation() -> Any:
    """Evaluation data. Override it to return arrays, {"x": ..., "labels": ...}; None: from --mnn-evaluation."""
    return None


@pytest.fixture
def mnn_tolerances(request: pytest.FixtureRequest) -> dict[str, Any]:
    """The default limits of assertions, by the options' names without `mnn_`. Override it to change some."""
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
    from pytest_mnnquant.evidence.source import FixtureValues
    from pytest_mnnquant.plugin.quantized_model import quantized_for

    values = FixtureValues(mnn_model, mnn_calibration, mnn_evaluation)
    return quantized_for(request.node, values, mnn_recipe, mnn_mode, mnn_tolerances)


@pytest.fixture
def mnn_float(request: pytest.FixtureRequest, mnn_model: Any, mnn_calibration: Any, mnn_evaluation: Any) -> Model:
    """The float model that the quantized models are compared with."""
    from pytest_mnnquant.evidence.source import FixtureValues
    from pytest_mnnquant.plugin.quantized_model import float_for

    return float_for(request.node, FixtureValues(mnn_model, mnn_calibration, mnn_evaluation))


@pytest.fixture
def mnn_latency(mnn_quantized: Quantized) -> PairedRatio:
    """The variant's latency / the float model's, timed in pairs and recorded with pytest-benchmark."""
    return mnn_quantized.latency()


#: The names of all fixtures.
NAMES: Final = frozenset(
    (
        *("mnn_model", "mnn_recipe", "mnn_mode", "mnn_calibration", "mnn_evaluation", "mnn_tolerances"),
        *("mnn_quantized", "mnn_float", "mnn_latency"),
    )
)
_MARKER_KEYS: Final = ("model", "recipes", "modes")
_VARIANT: Final = ("mnn_recipe", "mnn_mode")


def marker_values(node: Any) -> dict[str, Any]:
    """The keywords of the closest `mnn` marker."""
    marker = node.get_closest_marker("mnn")
    return dict(marker.kwargs) if marker else {}


def parametrize(metafunc: pytest.Metafunc) -> None:
    """Give a test its models, recipes and modes: the marker's, else those that the command line requests."""
    columns = [name for name in ("mnn_model", *_VARIANT) if name in metafunc.fixturenames]
    if not columns:
        return
    from pytest_mnnquant.plugin.session import start_for_fixtures
    from pytest_mnnquant.sources.spec import SourceError

    try:
        settings = start_for_fixtures(metafunc.config).settings
    except (ValueError, SourceError) as error:
        raise pytest.Collector.CollectError(str(error)) from None
    marked = marker_values(metafunc.definition)
    brings_model = "model" in marked or _overrides_model(metafunc)
    models = () if brings_model or "mnn_model" not in columns else settings.models
    if models and columns == ["mnn_model", *_VARIANT]:
        _parametrize_all(metafunc, models, marked)
        return
    if models:
        metafunc.parametrize("mnn_model", models, indirect=True, ids=[model.name for model in models])
    if any(name in columns for name in _VARIANT):
        pairs = list(_variants(models[0] if models else settings.defaults, marked, _overrides_model(metafunc)))
        _parametrize_variant(metafunc, [name for name in _VARIANT if name in columns], pairs)


def _parametrize_all(metafunc: pytest.Metafunc, models: tuple[ModelSettings, ...], marked: dict[str, Any]) -> None:
    """Parametrize the test with each model and its recipes and modes."""
    rows = [(model, *pair) for model in models for pair in _variants(model, marked, False)]
    names = [f"{model.name}-{_title(name, mode)}" for model, name, mode in rows]
    metafunc.parametrize(("mnn_model", *_VARIANT), rows, indirect=True, ids=names)


def _parametrize_variant(metafunc: pytest.Metafunc, columns: list[str], pairs: list[tuple[str, str | None]]) -> None:
    """The recipe, the mode or both."""
    if columns == [*_VARIANT]:
        metafunc.parametrize(_VARIANT, pairs, indirect=True, ids=[_title(*pair) for pair in pairs])
        return
    place = _VARIANT.index(columns[0])
    values = list(dict.fromkeys(pair[place] for pair in pairs))
    metafunc.parametrize(columns[0], values, indirect=True, ids=[str(value) for value in values])


def _variants(settings: ModelSettings, marked: dict[str, Any], brings_model: bool) -> Iterator[tuple[str, str | None]]:
    from pytest_mnnquant.sources.spec import MODEL_SUFFIXES, TORCH_SUFFIXES

    modes = _marked_modes(marked, settings)
    source = marked.get("model", settings.source)
    is_file = str(source).endswith((*MODEL_SUFFIXES, *TORCH_SUFFIXES))
    is_python = settings.quantized is None and (brings_model or not is_file)
    for name, recipe in _marked_recipes(marked, settings).items():
        for mode in recipe.modes(is_python, modes):
            yield name, mode


def _marked_recipes(marked: dict[str, Any], settings: ModelSettings) -> dict[str, Recipe]:
    from pytest_mnnquant.recipes.names import recipe_named

    try:
        return {name: recipe_named(name) for name in marked.get("recipes", settings.recipes)}
    except ValueError as error:
        raise pytest.Collector.CollectError(f"@pytest.mark.mnn(recipes=...): {error}") from None


def _marked_modes(marked: dict[str, Any], settings: ModelSettings) -> tuple[str, ...]:
    from pytest_mnnquant.recipes.recipe import MODES

    modes = tuple(marked.get("modes", settings.modes))
    for mode in modes:
        if mode not in MODES:
            raise pytest.Collector.CollectError(
                f"@pytest.mark.mnn(modes=...): unknown mode {mode!r}; choose from: {', '.join(MODES)}"
            )
    return modes


def _title(recipe: str, mode: str | None) -> str:
    from pytest_mnnquant.recipes.names import recipe_named

    return recipe_named(recipe).name + (f"-{mode}" if mode else "")


def _overrides_model(metafunc: pytest.Metafunc) -> bool:
    """Whether the user's own fixture gives the model, so that its kind is not known before it runs.

    pytest has no public function that says which of several fixtures of one name a test gets. It is the last of the
    list.
    """
    definitions = metafunc._arg2fixturedefs.get("mnn_model", ())
    return bool(definitions) and definitions[-1].func.__module__ != __name__
