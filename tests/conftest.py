"""Real models for all tests, made once per run: xdist's workers share them through the package's own store."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

from pytest_mnnquant.cache.store import Store
from pytest_mnnquant.measurements.dataset import Dataset
from pytest_mnnquant.mnnfile.model import Model, read_model
from pytest_mnnquant.quantize.float_model import Choices, Prepared, export_float, prepare
from pytest_mnnquant.quantize.variant import Variant, make_variant
from pytest_mnnquant.recipes.recipe import recipe_named
from pytest_mnnquant.runtime.convert import convert
from pytest_mnnquant.sources.data import as_dataset
from pytest_mnnquant.sources.pytorch import digest, input_names
from pytest_mnnquant.sources.spec import parse_spec
from tests.browser import Page, browse

ROOT = Path(__file__).resolve().parent.parent
FIXTURES = ROOT / "fixtures"
TIMEOUT = 120.0

settings.register_profile("dev", max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", settings.get_profile("dev"), derandomize=True, database=None)
settings.register_profile("thorough", settings.get_profile("dev"), max_examples=2000)
settings.load_profile("ci" if os.environ.get("CI") else "dev")


def quietly(_what: str) -> None:
    """Nobody listens to progress here."""


class Workshop:
    """Makes models with the package's own means, each once."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._prepared: dict[str, Prepared] = {}
        self._variants: dict[tuple[str, str, str | None], Variant] = {}

    def floats(self, network: Any, data: Dataset | dict[str, Any], *, dynamic: bool = True) -> Model:
        """A PyTorch model as a float `.mnn`."""
        data = as_dataset(data, input_names(network, "net"), "test data")

        def build(folder: Path) -> None:
            export_float(network, data, folder, "torchscript", dynamic, "test net", TIMEOUT)

        inputs = {"net": digest(network), "dynamic": dynamic, "data": data.digest()}
        return read_model(self.store.folder("test-float", inputs, build) / "float.mnn")

    def quantized(self, model: Model, *flags: str) -> Model:
        """A float `.mnn` converted again with flags of MNN's converter."""

        def build(folder: Path) -> None:
            convert(model.path, folder / "quantized.mnn", flags, timeout=TIMEOUT)

        inputs = {"model": str(model.path), "flags": flags}
        return read_model(self.store.folder("test-quantized", inputs, build) / "quantized.mnn")

    def prepared(self, name: str) -> Prepared:
        """One of the models that ship with the repository, as the suite prepares it."""
        if name not in self._prepared:
            spec = parse_spec(f"{name}.py:build", FIXTURES)
            self._prepared[name] = prepare(spec, Choices(FIXTURES, timeout=TIMEOUT), self.store, quietly)
        return self._prepared[name]

    def variant(self, name: str, recipe: str, mode: str | None = None) -> Variant:
        """One of its variants."""
        key = (name, recipe, mode)
        if key not in self._variants:
            source, choices = self.prepared(name), Choices(FIXTURES, timeout=TIMEOUT)
            self._variants[key] = make_variant(source, recipe_named(recipe), mode, (), choices, self.store, quietly)
        return self._variants[key]


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Artifacts of this run, shared by all workers."""
    base = tmp_path_factory.getbasetemp()
    return Store((base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "artifacts")


@pytest.fixture(scope="session")
def workshop(store: Store) -> Workshop:
    """Makes real models."""
    return Workshop(store)


@pytest.fixture(scope="session")
def digits(workshop: Workshop) -> Prepared:
    """The convolutional net of the repository, prepared."""
    return workshop.prepared("digits_cnn")


@pytest.fixture(scope="session")
def digits_int8(workshop: Workshop) -> Variant:
    """Its int8 variant, calibrated in eval mode."""
    return workshop.variant("digits_cnn", "int8", "eval")


@pytest.fixture(scope="session")
def digits_w4(workshop: Workshop) -> Variant:
    """Its weight-only 4-bit variant."""
    return workshop.variant("digits_cnn", "w4")


@pytest.fixture
def random() -> np.random.Generator:
    """Seeded random numbers."""
    return np.random.default_rng(0)


@pytest.fixture(scope="session")
def browser() -> Iterator[Page]:
    """A real browser; tests that use it are marked `needs_chromium`."""
    yield from browse()
