"""The fixture models, prepared and quantized for the benchmarks."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from pytest_mnnquant.cache.store import Store
from pytest_mnnquant.config.settings import model_settings
from pytest_mnnquant.evidence.source import SourceUnderTest
from pytest_mnnquant.sources.spec import parse_spec

FIXTURES: Final = Path(__file__).resolve().parent.parent / "fixtures"
MODELS: Final = ("digits_cnn", "garment_classifier", "mobile_net", "tiny_transformer")


def gate(name: str, store: Store) -> SourceUnderTest:
    """A fixture model under test."""
    spec = parse_spec(f"{name}.py:build", FIXTURES)
    return SourceUnderTest(model_settings(spec.text, name, FIXTURES, {}), spec, store, lambda _: None)
