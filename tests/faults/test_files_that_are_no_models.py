"""Files that are missing, cut, of another kind, or quantized where a float model is needed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pytest_mnnquant.findings.catalogue import CHECK_NAMES
from tests.faults.conftest import Judge
from tests.faults.factory import FIRST, HIDDEN, LAST, SECOND, Factory
from tests.plugin.outcomes import Outcome

BLOCKED = {f"int8::{check}" for check in CHECK_NAMES if check not in ("conversion", "latency")}


def external(factory: Factory) -> Path:
    """A copy of an int8 model whose weights lie in a file of their own."""
    return factory.copy(
        factory.convert(factory.float(), "--saveExternalData", "--compressionParamsFile", factory.params())
    )


def test_a_model_with_its_weight_file_passes(factory: Factory, judge: Judge) -> None:
    model = external(factory)
    assert model.with_name("net.mnn.weight").stat().st_size > 60_000
    verdict = judge(factory.float(), model, params=factory.params())
    assert verdict.status == 0, verdict.text
    assert verdict.metrics("bundle")["files"][1:] == ["net.mnn.weight", "compress_params_index.bin"]


@pytest.mark.parametrize("kept", [0, 31_000, 62_000])
def test_a_missing_or_cut_weight_file_fails(factory: Factory, judge: Judge, kept: int) -> None:
    model = external(factory)
    weights = model.with_name("net.mnn.weight")
    whole = weights.read_bytes()
    weights.write_bytes(whole[:kept])
    if not kept:
        weights.unlink()
    verdict = judge(factory.float(), model, params=factory.params())
    assert verdict.status == 1
    assert verdict.failed >= {"int8::weights", "int8::bundle", "int8::accuracy"}
    lacking = f"{weights}: {len(whole) - kept:,} of the {len(whole):,} bytes" if kept else f"{len(whole):,} bytes"
    verdict.tells("MNQ803", where=lacking, why="--saveExternalData", fix=".mnn.weight")
    unreadable = verdict.layers("MNQ403")
    assert LAST in unreadable
    assert unreadable == {FIRST, SECOND, HIDDEN, LAST} or kept
    assert "MNQ202" not in verdict.codes()


def half(model: bytes) -> bytes:
    return model[: len(model) // 2]


def almost_all(model: bytes) -> bytes:
    return model[:-16]


def noise(_: bytes) -> bytes:
    return bytes(number * 37 % 251 for number in range(4000))


def nothing(_: bytes) -> bytes:
    return b""


@pytest.mark.parametrize("damage", [half, almost_all, noise, nothing])
def test_a_damaged_model_fails_as_unreadable(factory: Factory, judge: Judge, damage: Callable[[bytes], bytes]) -> None:
    model = factory.fresh("net.mnn")
    model.write_bytes(damage(factory.int8().read_bytes()))
    verdict = judge(factory.float(), model)
    assert verdict.status == 1
    assert verdict.failed == {"int8::conversion"}
    assert verdict.skipped == BLOCKED
    verdict.tells("MNQ202", where=str(model), fix="convert again")


def test_an_onnx_file_called_mnn_fails_as_unreadable(factory: Factory, judge: Judge) -> None:
    model = factory.fresh("net.mnn", factory.onnx().read_bytes())
    verdict = judge(factory.float(), model)
    assert verdict.status == 1
    assert verdict.failed == {"int8::conversion"}
    verdict.tells("MNQ202", where=f"{model} is not a complete MNN model", fix="convert again")


def test_a_conversion_that_wrote_nothing_fails(factory: Factory, judge: Judge) -> None:
    verdict = judge(factory.float(), factory.folder / "nowhere.mnn")
    assert verdict.status == 1
    assert verdict.failed == {"int8::conversion"}
    assert verdict.skipped == BLOCKED
    verdict.tells("MNQ202", where="nowhere.mnn: no such file", why="even when it writes nothing", fix="writable")


def test_without_the_conversion_check_the_others_say_so_themselves(factory: Factory, judge: Judge) -> None:
    verdict = judge(factory.float(), factory.folder / "nowhere.mnn", "-k", "coverage or size")
    assert verdict.status == 1
    assert verdict.failed == {"int8::coverage", "int8::size"}
    verdict.tells("MNQ202", where="nowhere.mnn: no such file")


def test_a_source_that_is_quantized_itself_fails(factory: Factory, judge: Judge, gate: Callable[..., Outcome]) -> None:
    source = factory.convert(factory.float(), "--weightQuantBits", "8")
    for verdict in (
        judge(source, factory.int8(), "-k", "conversion", still=True),
        gate("--mnn-model", source, "--mnn-recipe=w8", "-k", "conversion"),
    ):
        assert verdict.status == 1
        verdict.tells("MNQ104", where="4 of 4 layers of net.mnn", fix="--mnn-model")
    assert judge(factory.float(), factory.int8(), "-k", "conversion", still=True).status == 0


def test_the_same_file_as_source_and_result_fails(factory: Factory, judge: Judge) -> None:
    verdict = judge(factory.float(), factory.float())
    assert verdict.status == 1
    assert verdict.failed == {"int8::coverage", "int8::execution", "int8::size"}
    verdict.tells("MNQ401", where=HIDDEN)
