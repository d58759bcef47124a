"""Makes real models for the tests with the package's functions, each once per run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pytest_mnnquant.cache.store import Store
from pytest_mnnquant.measurements.dataset import Dataset
from pytest_mnnquant.mnnfile.model import Model, read_model
from pytest_mnnquant.quantize.float_model import prepare
from pytest_mnnquant.quantize.job import Job
from pytest_mnnquant.quantize.prepare_pytorch import export_float
from pytest_mnnquant.quantize.prepared import Choices, Prepared
from pytest_mnnquant.quantize.variant import Variant, make_variant
from pytest_mnnquant.recipes.names import recipe_named
from pytest_mnnquant.runtime.convert import convert
from pytest_mnnquant.sources.data import as_dataset
from pytest_mnnquant.sources.model_digest import digest
from pytest_mnnquant.sources.pytorch import ExportOptions
from pytest_mnnquant.sources.spec import parse_spec
from pytest_mnnquant.sources.torch_call import forward_inputs
from tests.conftest import FIXTURES, TIMEOUT, quietly


class Workshop:
    """Real models, made on first use and shared through the package's store."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._prepared: dict[str, Prepared] = {}
        self._variants: dict[tuple[str, str, str | None], Variant] = {}

    def floats(self, network: Any, data: Dataset | dict[str, Any], *, dynamic: bool = True) -> Model:
        """A PyTorch model as a float `.mnn`."""
        data = as_dataset(data, forward_inputs(network, "net").names(()), "test data")

        def build(folder: Path) -> None:
            export_float(network, data, folder, ExportOptions("test net", dynamic=dynamic), TIMEOUT)

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
            self._variants[key] = make_variant(
                Job(source, recipe_named(recipe), mode, (), choices), self.store, quietly
            )
        return self._variants[key]
