"""Cross-layer equalization: the float model computes the same bits, and int8 gets the codes that it lacked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from pytest_mnnquant.cache.store import Store
from pytest_mnnquant.metrics.agreement import sqnr_db
from pytest_mnnquant.mnnfile.channel_classes import channel_classes
from pytest_mnnquant.mnnfile.channel_joins import FIXED
from pytest_mnnquant.mnnfile.model import Model
from pytest_mnnquant.mnnfile.products import PRODUCT
from pytest_mnnquant.quantize.equalization import find_factors
from pytest_mnnquant.quantize.float_model import prepare
from pytest_mnnquant.quantize.job import Job
from pytest_mnnquant.quantize.prepared import Choices, Prepared
from pytest_mnnquant.quantize.variant import Variant, make_variant
from pytest_mnnquant.recipes.names import recipe_named
from pytest_mnnquant.runtime.inference import run
from pytest_mnnquant.sources.spec import Spec, parse_spec
from tests.conftest import TIMEOUT, quietly

GENERATOR = np.random.default_rng(0)
DATA: dict[str, Any] = {"x": GENERATOR.standard_normal((32, 3, 12, 12)).astype(np.float32)}
HELD_OUT: dict[str, Any] = {"x": GENERATOR.standard_normal((32, 3, 12, 12)).astype(np.float32)}
CHOICES = Choices(Path(), calibration=DATA, evaluation=HELD_OUT, timeout=TIMEOUT)


class Residual(nn.Module):
    """A residual stream, a gate, a concatenation, a depthwise layer; two channels of the stream are 100 times larger.

    `clip`: the activation of the first layer is a ReLU6, whose output no factor may change.
    """

    def __init__(self, clip: bool = False) -> None:
        super().__init__()
        self.clip = clip
        self.stem, self.wide = nn.Conv2d(3, 16, 3, 2, 1), nn.Conv2d(16, 24, 1)
        self.deep = nn.Conv2d(24, 24, 3, 1, 1, groups=24)
        self.gate, self.narrow = nn.Conv2d(24, 24, 1), nn.Conv2d(24, 16, 1)
        self.slope, self.side, self.head = nn.PReLU(24), nn.Conv2d(16, 8, 1), nn.Conv2d(24, 10, 1)
        with torch.no_grad():
            for made in (self.stem, self.narrow):
                made.weight[:2] *= 100
            for reader in (self.wide, self.side):
                reader.weight[:, :2] /= 100
            self.head.weight[:, :2] /= 100

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Ten scores."""
        stem = self.stem(x)
        stem = functional.relu6(stem) if self.clip else stem
        wide = self.deep(self.slope(self.wide(stem)))
        gate = torch.sigmoid(self.gate(wide.mean((2, 3), keepdim=True)))
        stream = stem + self.narrow(wide * gate)
        joined = torch.cat([stream, functional.relu(self.side(stream))], 1)
        scores: torch.Tensor = self.head(functional.avg_pool2d(joined, 2)).mean((2, 3))
        return scores


@pytest.fixture(scope="module")
def source(store: Store) -> Prepared:
    torch.manual_seed(0)
    return prepare(Spec("residual", "residual"), CHOICES, store, quietly, given=Residual().eval())


def made(source: Prepared, store: Store, recipe: str, mode: str | None = "eval") -> Variant:
    return make_variant(Job(source, recipe_named(recipe), mode, (), CHOICES), store, quietly)


def quality(source: Prepared, model: Model) -> float:
    expected, computed = (run(item, HELD_OUT, source.options(TIMEOUT)).outputs for item in (source.model, model))
    return min(sqnr_db(array, computed[name]) for name, array in expected.items())


def test_uneven_channels_get_their_codes_back(source: Prepared, store: Store) -> None:
    plain, equalized = made(source, store, "int8"), made(source, store, "int8+equalized")
    assert quality(source, plain.model) < 15 < 28 < quality(source, equalized.model)
    assert equalized.model.size == plain.model.size
    (step,) = equalized.provenance["transformations"]
    assert (step["suffix"], step["is_refused"]) == ("equalized", False)
    assert len(step["layers"]) >= 5
    assert plain.provenance["transformations"] == []


def test_the_equalized_float_model_computes_the_same_bits(source: Prepared, store: Store) -> None:
    variant = made(source, store, "int8+equalized")
    assert variant.base.path != source.model.path
    expected, computed = (run(item, HELD_OUT, source.options(TIMEOUT)).outputs for item in (source.model, variant.base))
    assert all(np.array_equal(array, computed[name]) for name, array in expected.items())


def test_no_channel_is_enlarged_beyond_half_of_its_tensor(source: Prepared) -> None:
    classes = channel_classes(source.model)
    tensors = {op.outputs[0]: classes.tensors[op.outputs[0]] for op in classes.layers}
    ranges = {tensor: np.geomspace(1e-3, 1, len(ids)) for tensor, ids in tensors.items()}
    factors = find_factors(source.model, classes, ranges)
    for tensor, ids in tensors.items():
        after = ranges[tensor] / factors[ids]
        enlarged = factors[ids] < factors[ids].max()
        assert not enlarged.any() or after[enlarged].max() <= after.max() * 0.5 * np.sqrt(2)
    assert len(np.unique(factors)) > 3


@pytest.mark.parametrize("recipe", ["int8+equalized", "int8+corrected+rounded"])
def test_models_that_were_only_tried_are_not_kept(source: Prepared, store: Store, recipe: str) -> None:
    variant = made(source, store, recipe)
    models = set(variant.model.path.parent.glob("*.mnn"))
    assert models <= {variant.model.path, variant.base.path}


def test_mnn_files_are_equalized_too(source: Prepared, store: Store) -> None:
    choices = Choices(Path(), calibration=DATA, evaluation=HELD_OUT, timeout=TIMEOUT)
    file = prepare(parse_spec(str(source.model.path), Path()), choices, store, quietly)
    assert quality(file, made(file, store, "int8+equalized", None).model) > 28


def test_sums_share_factors_and_gates_have_none(source: Prepared) -> None:
    classes = channel_classes(source.model)
    sums = [
        op for op in source.model.ops if op.kind == "BinaryOp" and len(set(op.inputs) & classes.tensors.keys()) == 2
    ]
    stream = next(op for op in sums if len(classes.tensors[op.outputs[0]]) == 16)
    first, second = (classes.tensors[tensor] for tensor in stream.inputs)
    assert np.array_equal(first, second)
    assert (first != FIXED).all()
    assert len(set(first.tolist())) == 16
    joined = next(op for op in source.model.ops if op.kind == "Concat" and op.outputs[0] in classes.tensors)
    assert np.array_equal(classes.tensors[joined.outputs[0]][:16], first)


def test_clipped_outputs_and_the_models_outputs_have_no_factor(store: Store) -> None:
    torch.manual_seed(0)
    clipped = prepare(Spec("clipped", "clipped"), CHOICES, store, quietly, given=Residual(clip=True).eval())
    classes = channel_classes(clipped.model)
    stem = next(op for op in clipped.model.convolutions if op.shape[1] == 3)
    assert (classes.tensors[stem.outputs[0]] == FIXED).all()
    head = next(op for op in clipped.model.convolutions if op.shape[0] == 10)
    assert quality(clipped, made(clipped, store, "int8+equalized").base) > 100
    assert head.outputs[0] in classes.tensors


class Swish(nn.Module):
    """Hard-swish after each layer; channels of both tensors have magnitudes over eight octaves."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.deep = nn.Conv2d(3, 16, 3, 2, 1), nn.Conv2d(16, 16, 3, 1, 1, groups=16)
        self.head = nn.Conv2d(16, 10, 1)
        with torch.no_grad():
            factors = torch.exp2(torch.linspace(-4, 4, 16))
            self.stem.weight *= factors[:, None, None, None]
            self.deep.weight /= factors[:, None, None, None] / 4
            self.head.weight /= factors.sqrt()[None, :, None, None]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Ten scores."""
        deep = functional.hardswish(self.deep(functional.hardswish(self.stem(x))))
        scores: torch.Tensor = self.head(deep).mean((2, 3))
        return scores


def test_multiplications_scale_the_channels_around_a_hard_swish(store: Store) -> None:
    torch.manual_seed(0)
    source = prepare(Spec("swish", "swish"), CHOICES, store, quietly, given=Swish().eval())
    equalized, scaled = made(source, store, "int8+equalized"), made(source, store, "int8+scaled")
    assert quality(source, scaled.model) > quality(source, equalized.model) + 6
    assert quality(source, scaled.base) > 100
    (step,) = scaled.provenance["transformations"]
    assert (step["suffix"], step["is_refused"]) == ("scaled", False)
    added = {op.name for op in scaled.base.ops} - {op.name for op in source.model.ops}
    assert {name for name in added if name.endswith(PRODUCT)} <= set(step["layers"])
    assert len(added) >= 4


class Cardinal(nn.Module):
    """A grouped convolution reads channels with magnitudes over eight octaves."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.grouped = nn.Conv2d(3, 16, 3, 2, 1, bias=False), nn.Conv2d(16, 24, 3, 1, 1, groups=4)
        self.head = nn.Conv2d(24, 10, 1)
        with torch.no_grad():
            factors = torch.exp2(torch.linspace(-4, 4, 16))[torch.randperm(16)]
            self.stem.weight *= factors[:, None, None, None]
            self.grouped.weight /= factors.view(4, 1, 4, 1, 1).expand(4, 6, 4, 1, 1).reshape(24, 4, 1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Ten scores."""
        scores: torch.Tensor = self.head(functional.relu(self.grouped(functional.relu(self.stem(x))))).mean((2, 3))
        return scores


def test_factors_pass_through_grouped_convolutions(store: Store) -> None:
    torch.manual_seed(0)
    source = prepare(Spec("cardinal", "cardinal"), CHOICES, store, quietly, given=Cardinal().eval())
    plain, changed = made(source, store, "int8"), made(source, store, "int8+equalized+corrected")
    assert quality(source, changed.model) > quality(source, plain.model) + 6
    assert quality(source, changed.base) > 100


class Temporal(nn.Module):
    """1-D layers, a residual stream, PReLU; channels of the stream and inside have magnitudes over ten octaves."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.wide, self.slope = nn.Conv1d(3, 16, 1), nn.Conv1d(16, 16, 3, 1, 2, 2), nn.PReLU(16)
        self.deep, self.head = nn.Conv1d(16, 16, 3, 1, 1, groups=16), nn.Conv1d(16, 4, 1, bias=False)
        stream, inside = (torch.exp2(torch.linspace(-5, 5, 16))[torch.randperm(16)] for _ in range(2))
        with torch.no_grad():
            self.slope.weight.uniform_(0.1, 0.4)
            for maker, factors in ((self.stem, stream), (self.deep, stream / inside), (self.wide, inside)):
                maker.weight *= factors[:, None, None]
            for reader in (self.wide, self.head):
                reader.weight /= stream[None, :, None]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Four curves."""
        stem = self.stem(x)
        curves: torch.Tensor = self.head(stem + self.deep(self.slope(self.wide(stem))))
        return curves


def test_factors_pass_through_layers_of_one_dimension(store: Store) -> None:
    torch.manual_seed(0)
    data = {"x": GENERATOR.standard_normal((32, 3, 40)).astype(np.float32)}
    choices = Choices(Path(), calibration=data, evaluation=data, timeout=TIMEOUT)
    source = prepare(Spec("temporal", "temporal"), choices, store, quietly, given=Temporal().eval())
    expected, qualities = run(source.model, data, source.options(TIMEOUT)).outputs, {}
    for recipe in ("int8", "int8+equalized"):
        variant = make_variant(Job(source, recipe_named(recipe), "eval", (), choices), store, quietly)
        for kind, model in (("base", variant.base), ("model", variant.model)):
            computed = run(model, data, source.options(TIMEOUT)).outputs
            qualities[recipe, kind] = min(sqnr_db(array, computed[name]) for name, array in expected.items())
    assert qualities["int8+equalized", "model"] > max(25, qualities["int8", "model"] + 6)
    assert qualities["int8+equalized", "base"] > 100


class Centered(nn.Module):
    """The mean over the channels of a curve, whose axis counted from the end is that of a map's height."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = nn.Conv1d(3, 8, 1), nn.Conv1d(8, 4, 1)
        with torch.no_grad():
            self.stem.weight *= torch.exp2(torch.linspace(-5, 5, 8))[:, None, None]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Four curves."""
        stem = self.stem(x)
        curves: torch.Tensor = self.head(functional.relu(stem) + stem.mean(-2, keepdim=True))
        return curves


def test_a_mean_over_channels_of_curves_fixes_them(store: Store) -> None:
    torch.manual_seed(0)
    data = {"x": GENERATOR.standard_normal((8, 3, 40)).astype(np.float32)}
    choices = Choices(Path(), calibration=data, evaluation=data, timeout=TIMEOUT)
    model = prepare(Spec("centered", "centered"), choices, store, quietly, given=Centered().eval()).model
    stem = next(op for op in model.convolutions if op.shape[0] == 8)
    assert (channel_classes(model).tensors[stem.outputs[0]] == FIXED).all()


class Expanding(nn.Module):
    """A concatenation of uneven channels with those of a transposed convolution, and of a sigmoid."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.down, self.up = (
            nn.Conv2d(3, 16, 3, 1, 1),
            nn.Conv2d(16, 8, 3, 2, 1),
            nn.ConvTranspose2d(8, 8, 2, 2),
        )
        self.head, factors = nn.Conv2d(32, 4, 1), torch.exp2(torch.linspace(-5, 5, 16))[torch.randperm(16)]
        self.gate = nn.Conv2d(16, 8, 1)
        with torch.no_grad():
            self.stem.weight *= factors[:, None, None, None]
            self.head.weight[:, 8:24] /= factors[None, :, None, None]
            for reader in (self.down, self.gate):
                reader.weight /= factors[None, :, None, None]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """A map of four channels."""
        stem = functional.relu(self.stem(x))
        joined = torch.cat([self.up(functional.relu(self.down(stem))), stem, torch.sigmoid(self.gate(stem))], 1)
        maps: torch.Tensor = self.head(joined)
        return maps


def test_concatenations_with_fixed_channels_pass_factors_on(store: Store) -> None:
    torch.manual_seed(0)
    source = prepare(Spec("expanding", "expanding"), CHOICES, store, quietly, given=Expanding().eval())
    plain, equalized = made(source, store, "int8"), made(source, store, "int8+equalized")
    assert quality(source, equalized.model) > max(28, quality(source, plain.model) + 6)
    assert quality(source, equalized.base) > 100
