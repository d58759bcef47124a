"""Makes what faults are planted in: sources, params files and conversions, with MNN's own converter."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch

from pytest_mnnquant.cache.store import Store
from pytest_mnnquant.quantize.float_model import prepare
from pytest_mnnquant.quantize.job import Job
from pytest_mnnquant.quantize.prepared import Choices, Prepared
from pytest_mnnquant.quantize.variant import make_variant
from pytest_mnnquant.recipes.names import RECIPES
from pytest_mnnquant.runtime.convert import convert
from pytest_mnnquant.sources.spec import Spec, parse_spec
from pytest_mnnquant.sources.user_modules import load_module
from tests.conftest import FIXTURES, TIMEOUT, quietly

SAMPLES = 120
NET = "digits_cnn"
#: The layers of that net, from input to output.
FIRST, SECOND, HIDDEN, LAST = (
    "/features/features.0/Conv_output_0",
    "/features/features.4/Conv_output_0",
    "/classifier/classifier.2/Gemm_output_0__matmul_converted",
    "output__matmul_converted",
)


class Factory:
    """Makes sources, params files and conversions; each is made once, so copy before damaging it."""

    def __init__(self, store: Store, folder: Path) -> None:
        self.store = store
        self.folder = folder
        self._numbers = itertools.count()
        self._known: dict[tuple[Any, ...], Any] = {}

    def module(self, name: str) -> ModuleType:
        return load_module(parse_spec(f"{name}.py:build", FIXTURES))

    def prepared(self, name: str, network: torch.nn.Module | None = None, exporter: str = "torchscript") -> Prepared:
        """A net of the repository; or `network`, of the same kind, as its own source."""
        key = ("source", name, id(network), exporter)
        if key not in self._known:
            spec = parse_spec(f"{name}.py:build", FIXTURES)
            choices, given = Choices(FIXTURES, exporter=exporter, timeout=TIMEOUT), None
            if network is not None:
                data = self.module(name)
                spec, given = Spec(f"other {name}", f"other {name}"), network
                choices = Choices(FIXTURES, data.calibration(), data.evaluation(), exporter, TIMEOUT)
            self._known[key] = prepare(spec, choices, self.store, quietly, given), network
        return self._known[key][0]  # type: ignore[no-any-return]

    def float(self, name: str = NET) -> Path:
        return self.prepared(name).model.path

    def onnx(self, name: str = NET) -> Path:
        return self.float(name).with_name("float.onnx")

    def params(self, source: Prepared | str = NET, skip: Sequence[str] = ()) -> Path:
        """The params file of a calibration in eval mode, without the layers that match `skip`."""
        source = self.prepared(source) if isinstance(source, str) else source
        choices = Choices(FIXTURES, timeout=TIMEOUT)
        found = make_variant(Job(source, RECIPES["int8"], "eval", tuple(skip), choices), self.store, quietly).params
        assert found is not None
        return found

    def evaluation(self, name: str = NET) -> Path:
        """The first held-out images and labels, in a file."""
        path = self.folder / f"{name}.npz"
        if not path.exists():
            np.savez(path, **{key: array[:SAMPLES] for key, array in self.module(name).evaluation().items()})
        return path

    def convert(self, source: Path, *flags: str | Path, name: str = "net.mnn") -> Path:
        """What MNN's converter makes of a file, alone in a folder."""
        key = ("converted", source, flags, name)
        if key not in self._known:
            output = self.fresh(name)
            convert(source, output, [str(flag) for flag in flags], timeout=TIMEOUT)
            self._known[key] = output
        return self._known[key]  # type: ignore[no-any-return]

    def int8(self, name: str = NET) -> Path:
        """A healthy int8 model."""
        return self.convert(self.float(name), "--compressionParamsFile", self.params(name))

    def fresh(self, name: str, content: bytes = b"") -> Path:
        """A file in a folder of its own; it exists if there is content for it."""
        path = self.folder / str(next(self._numbers)) / name
        path.parent.mkdir()
        if content:
            path.write_bytes(content)
        return path

    def copy(self, path: Path) -> Path:
        """A model that a test may damage, with its external weights."""
        target = self.fresh(path.name)
        for part in (path, path.with_name(path.name + ".weight")):
            if part.exists():
                shutil.copy2(part, target.with_name(part.name))
        return target
