"""Layers of tests as markers (tests/layers.py), and real models for those that need them.

Models are made once per run: xdist's workers share them through the package's store. What makes them is imported by
the fixtures, so that unit tests need neither MNN nor torch.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

from pytest_mnnquant.cache.store import Store
from tests.browser import Page, browse
from tests.layers import ImportGuard, ProcessGuard, layers_of_test, may_hold_unit_tests

if TYPE_CHECKING:
    from pytest_mnnquant.quantize.prepared import Prepared
    from pytest_mnnquant.quantize.variant import Variant
    from tests.workshop import Workshop

TESTS = Path(__file__).resolve().parent
ROOT = TESTS.parent
FIXTURES = ROOT / "fixtures"
TIMEOUT = 120.0

if "PYTEST_XDIST_WORKER" in os.environ:  # Before torch is imported: threads that wait for a busy core burn it.
    os.environ.setdefault("OMP_NUM_THREADS", "1")

settings.register_profile("dev", max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", settings.get_profile("dev"), max_examples=40, derandomize=True, database=None)
settings.register_profile("thorough", settings.get_profile("dev"), max_examples=2000)
settings.load_profile("ci" if os.environ.get("CI") else "dev")


def pytest_configure(config: pytest.Config) -> None:
    """With `-m unit`, MNN and torch can't be imported."""
    if config.option.markexpr == "unit":
        ImportGuard().install()


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """With `-m unit`, leave out modules that import MNN or torch."""
    if config.option.markexpr != "unit" or not collection_path.is_relative_to(TESTS):
        return None
    path = collection_path.relative_to(TESTS).as_posix()
    return None if path == "." or may_hold_unit_tests(path) else True


def pytest_itemcollected(item: pytest.Item) -> None:
    """Mark a test with its layers."""
    if not isinstance(item, pytest.Function) or not item.path.is_relative_to(TESTS):
        return
    markers = {marker.name for marker in item.iter_markers()}
    path = item.path.relative_to(TESTS).as_posix()
    for layer in layers_of_test(path, item.fixturenames, markers):
        item.add_marker(layer)


_guard = ProcessGuard()


@pytest.fixture(autouse=True)
def _no_child_process(request: pytest.FixtureRequest) -> Iterator[None]:
    """Hold that unit tests start no child process."""
    _guard.test = request.node.name if request.node.get_closest_marker("unit") else None
    yield
    _guard.test = None


def quietly(_what: str) -> None:
    """Nobody listens to progress here."""


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Artifacts of this run, shared by all workers."""
    base = tmp_path_factory.getbasetemp()
    return Store((base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "artifacts")


@pytest.fixture(scope="session")
def workshop(store: Store) -> Workshop:
    """Makes real models."""
    from tests.workshop import Workshop

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
