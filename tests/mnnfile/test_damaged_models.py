"""A damaged `.mnn` is a model or a `BadModel`, whatever is asked of it; never a crash or another exception."""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from pytest_mnnquant.mnnfile.ledger import account
from pytest_mnnquant.mnnfile.matching import match_layers
from pytest_mnnquant.mnnfile.model import BadModel, Model, read_model
from pytest_mnnquant.mnnfile.pooling import write_exact_copy
from pytest_mnnquant.quantize.variant import Variant
from tests.mutations import Edit, damaged, edits
from tests.smallnets import PoolNet, one_layer
from tests.workshop import Workshop

LAYER_FLAGS = {
    "float": (),
    "w3": ("--weightQuantBits", "3"),
    "w4-block": ("--weightQuantBits", "4", "--weightQuantBlock", "32"),
    "fp16": ("--fp16",),
    "external": ("--weightQuantBits", "4", "--saveExternalData"),
    "external-fp16": ("--fp16", "--saveExternalData"),
    "sparse": ("--detectSparseSpeedUp",),
    "sparse-integer": ("--weightQuantBits", "8", "--detectSparseSpeedUp"),
    "sparse-external": ("--detectSparseSpeedUp", "--saveExternalData"),
}


@pytest.fixture(scope="session")
def victims(workshop: Workshop, digits_int8: Variant) -> dict[str, Model]:
    """Small real models of every storage, and a whole net with quantized tensors."""
    found = {}
    for name, flags in LAYER_FLAGS.items():
        layer = one_layer("linear", zeros=0.95 if "sparse" in name else 0.0)
        model = workshop.floats(layer.network, {"input": layer.identity})
        found[name] = workshop.quantized(model, *flags) if flags else model
    torch.manual_seed(0)
    found["pools"] = workshop.floats(PoolNet().eval(), {"x": torch.randn(4, 1, 8, 8).numpy()})
    found["int8"] = digits_int8.model
    return found


@pytest.fixture(scope="module")
def patient(tmp_path_factory: pytest.TempPathFactory, victims: dict[str, Model]) -> Callable[[str, bytes], Path]:
    """Puts damaged bytes into a file, beside the external weights of the model they come from."""
    folder = tmp_path_factory.mktemp("damaged")
    for name, model in victims.items():
        if model.external_path is not None:
            (folder / f"{name}.mnn.weight").write_bytes(model.external_path.read_bytes())

    def write(name: str, data: bytes) -> Path:
        path = folder / f"{name}.mnn"
        path.unlink(missing_ok=True)  # The last one may still be mapped.
        path.write_bytes(data)
        return path

    return write


def ask_everything(model: Model, healthy: Model, folder: Path) -> None:
    """Touch all that the rest of the package reads; only `BadModel` may come of it."""
    assert model.size > 0
    assert model.external_missing >= 0
    for op in model.ops:
        _ = (op.weight_count, op.weight_bytes, op.is_layer, [weights.label for weights in op.weights])
    for op in model.layers:
        for question in (model.decoded, model.steps):
            with contextlib.suppress(BadModel):
                assert question(op).dtype.kind == "f"
    match_layers(healthy, model)
    with contextlib.suppress(BadModel):
        assert all(vector.ndim == 1 for vector in model.vectors().values())
    with contextlib.suppress(BadModel):
        assert account(model).total == model.size
    with contextlib.suppress(BadModel):
        write_exact_copy(model, {op.name for op in model.ops}, folder / "copy")


@pytest.mark.parametrize("name", [*LAYER_FLAGS, "pools", "int8"])
@given(changes=edits)
def test_damage_gives_a_model_or_bad_model(
    victims: dict[str, Model], patient: Callable[[str, bytes], Path], name: str, changes: list[Edit]
) -> None:
    path = patient(name, damaged(victims[name].path.read_bytes(), changes))
    try:
        model = read_model(path)
    except BadModel:
        return
    ask_everything(model, victims[name], path.parent)


def parameter_places(model: Model) -> Iterator[int]:
    """Where the layer's own numbers lie: the fields of its tables, and the heads of their vectors."""
    (op,) = model.layers
    assert op.parameters is not None
    common, quantized = op.parameters.table(0), op.parameters.table(3)
    for table in (op.parameters, common, quantized):
        for slot in range(16):
            if table is not None and (place := table.field(slot)):
                yield place
    for table, slot, size in ((op.parameters, 6, 8), (quantized, 0, 1), (quantized, 1, 4), (quantized, 13, 4)):
        if table is not None:
            start, count = table.span(slot, size)
            yield from range(start, start + size * min(count, 12), size)


WORDS = st.one_of(
    st.integers(-40, 40), st.sampled_from([-(2**31), 2**31 - 1, 0x7F800000, 0x7FC00000]), st.integers(0, 2000)
)


@pytest.mark.parametrize("name", list(LAYER_FLAGS))
@given(data=st.data())
def test_any_number_in_a_layers_own_fields_gives_weights_or_bad_model(
    victims: dict[str, Model], patient: Callable[[str, bytes], Path], name: str, data: st.DataObject
) -> None:
    healthy = victims[name]
    places = list(parameter_places(healthy))
    content = bytearray(healthy.path.read_bytes())
    for place in data.draw(st.lists(st.sampled_from(places), min_size=1, max_size=3)):
        struct.pack_into("<i", content, place, data.draw(WORDS))
    path = patient(name, bytes(content))
    try:
        model = read_model(path)
    except BadModel:
        return
    ask_everything(model, healthy, path.parent)


@given(content=st.binary(max_size=200))
@example(content=b"\x10\0\0\0" + b"\xff" * 60)
def test_any_bytes_are_a_bad_model(patient: Callable[[str, bytes], Path], content: bytes) -> None:
    path = patient("any", content)
    with pytest.raises(BadModel):
        read_model(path)


@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.9, 0.99])
@pytest.mark.parametrize("name", ["float", "w4-block", "int8"])
def test_a_truncated_model_never_passes_for_whole(
    victims: dict[str, Model], patient: Callable[[str, bytes], Path], name: str, share: float
) -> None:
    """Cut anywhere, the file is refused or lacks a layer's data: it never decodes to what the whole file gives."""
    healthy = victims[name]
    data = healthy.path.read_bytes()
    path = patient(name, data[: int(share * len(data))])
    with pytest.raises(BadModel):
        model = read_model(path)
        for op in healthy.layers:
            model.decoded(next(other for other in model.layers if other.name == op.name))


@pytest.mark.parametrize("name", ["external", "external-fp16"])
@pytest.mark.parametrize(("part", "value"), [(0, -8), (1, 7), (1, -4), (1, 2**31), (0, 2**31)])
def test_places_in_the_weight_file_that_make_no_sense_are_refused(
    victims: dict[str, Model], patient: Callable[[str, bytes], Path], name: str, part: int, value: int
) -> None:
    (op,) = victims[name].layers
    assert op.parameters is not None
    start, _ = op.parameters.span(6, 8)
    content = bytearray(victims[name].path.read_bytes())
    struct.pack_into("<q", content, start + 8 * part, value)
    model = read_model(patient(name, bytes(content)))
    with pytest.raises(BadModel):
        model.decoded(model.layers[0])
