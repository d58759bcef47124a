"""Networks as their wheels give them: what is read of them is whole, and healthy files of them are not accused.

Needs the extra `zoo` (rapidocr-onnxruntime) and facenet-pytorch installed with `pip install --no-deps`; only the files
of these wheels are used, their code is not imported.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from pytest_mnnquant.cache.store import Store
from pytest_mnnquant.config.settings import model_settings
from pytest_mnnquant.evidence.check_runner import run_check
from pytest_mnnquant.evidence.source import FixtureValues, SourceUnderTest
from pytest_mnnquant.evidence.variant import VariantUnderTest, variant_under_test
from pytest_mnnquant.findings.finding import PASSED
from pytest_mnnquant.mnnfile.ledger import account
from pytest_mnnquant.sources.spec import Spec, parse_spec

READERS = {"cls": "ch_ppocr_mobile_v2.0_cls_infer.onnx", "rec": "ch_PP-OCRv4_rec_infer.onnx"}
READER_SIZES = {"cls": (48, 192), "rec": (48, 320)}
FACE_SIZES = {"pnet": 12, "rnet": 24, "onet": 48}
RECIPES = ("w8", "w4", "int8")


def file_of(package: str, *parts: str) -> Path:
    """A file of an installed package, found without importing it; skips the test where the package is not there."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        pytest.skip(f"{package} is not installed (extra `zoo`)")
    return Path(next(iter(spec.submodule_search_locations))).joinpath(*parts)


def images(count: int, height: int, width: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """Patches of even colour in -1..1."""
    random = np.random.default_rng(0)
    cells = random.standard_normal((count, 3, -(-height // 6), -(-width // 6))).astype(np.float32)
    return np.clip(cells.repeat(6, 2).repeat(6, 3)[:, :, :height, :width], -1, 1)


class FaceNet(nn.Module):
    """The three nets of MTCNN (Zhang et al. 2016) as facenet-pytorch names their layers."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        widths = {"pnet": (10, 16, 32), "rnet": (28, 48, 64), "onet": (32, 64, 64, 128)}[kind]
        kernels = {"pnet": (3, 3, 3), "rnet": (3, 3, 2), "onet": (3, 3, 3, 2)}[kind]
        pools = {"pnet": (2,), "rnet": (3, 3), "onet": (3, 3, 2)}[kind]
        self.count, self.pools = len(widths), pools
        for number, (a, b, size) in enumerate(zip((3, *widths), widths, kernels, strict=False), 1):
            setattr(self, f"conv{number}", nn.Conv2d(a, b, size))
            setattr(self, f"prelu{number}", nn.PReLU(b))
        dense, classes = {"pnet": (0, 32), "rnet": (576, 128), "onet": (1152, 256)}[kind]
        number = len(widths) + 1
        if dense:
            setattr(self, f"dense{number}", nn.Linear(dense, classes))
            setattr(self, f"prelu{number}", nn.PReLU(classes))
        self.dense = dense
        head = (lambda n: nn.Linear(classes, n)) if dense else (lambda n: nn.Conv2d(classes, n, 1))
        names = {
            "pnet": {"conv4_1": 2, "conv4_2": 4},
            "rnet": {"dense5_1": 2, "dense5_2": 4},
            "onet": {"dense6_1": 2, "dense6_2": 4, "dense6_3": 10},
        }[kind]
        self.heads = tuple(names)
        for name, width in names.items():
            setattr(self, name, head(width))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Class scores (before softmax), boxes, and landmarks."""
        for number in range(1, self.count + 1):
            x = getattr(self, f"prelu{number}")(getattr(self, f"conv{number}")(x))
            if number <= len(self.pools):
                size = self.pools[number - 1]
                x = nn.functional.max_pool2d(x, size, 2, ceil_mode=True)
        if self.dense:
            number = self.count + 1
            x = x.permute(0, 3, 2, 1).flatten(1)
            x = getattr(self, f"prelu{number}")(getattr(self, f"dense{number}")(x))
        return tuple(getattr(self, name)(x) for name in self.heads)


def face_net(kind: str) -> nn.Module:
    """The net with its trained weights."""
    state = torch.load(file_of("facenet_pytorch", "data", f"{kind}.pt"), weights_only=True)
    if kind != "pnet":
        names = {"rnet": ("dense4", "prelu4"), "onet": ("dense5", "prelu5")}[kind]
        assert all(f"{name}.weight" in state for name in names)
    network = FaceNet(kind)
    network.load_state_dict(state)
    return network.eval()


def judged(case: VariantUnderTest) -> None:
    """The file is read whole, and nothing in it is accused."""
    assert account(case.model).total == case.model.size
    for name in ("conversion", "coverage", "weights", "size", "execution", "bundle"):
        result = run_check(case, name)
        assert result.outcome == PASSED, (name, result.findings)


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("name", READERS)
def test_text_readers(name: str, recipe: str, tmp_path: Path) -> None:
    path = file_of("rapidocr_onnxruntime", "models", READERS[name])
    spec = parse_spec(path.name, path.parent)
    data = images(4, *READER_SIZES[name])
    settings = model_settings(spec.text, name, path.parent, {})
    gate = SourceUnderTest(settings, spec, Store(tmp_path), print, FixtureValues(calibration=data, evaluation=data))
    judged(variant_under_test(gate, recipe, None))


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("kind", FACE_SIZES)
def test_face_detectors(kind: str, recipe: str, tmp_path: Path) -> None:
    data = images(8, FACE_SIZES[kind], FACE_SIZES[kind])
    settings = model_settings(kind, kind, tmp_path, {})
    gate = SourceUnderTest(
        settings,
        Spec(kind, kind),
        Store(tmp_path),
        print,
        FixtureValues(model=face_net(kind), calibration=data, evaluation=data),
    )
    judged(variant_under_test(gate, recipe, "eval" if recipe == "int8" else None))
