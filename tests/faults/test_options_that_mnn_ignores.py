"""Flags and params files that MNN's converter takes without a word, and then does nothing or something else."""

from __future__ import annotations

import pytest

from tests.faults.conftest import JUDGED, Judge
from tests.faults.factory import HIDDEN, LAST, Factory


def test_params_given_by_the_right_flag_pass(factory: Factory, judge: Judge) -> None:
    for source in (factory.float(), factory.onnx()):
        verdict = judge(source, factory.int8(), params=factory.params())
        assert verdict.status == 0, verdict.text
        assert verdict.passed == JUDGED


def test_a_mistyped_flag_fails_naming_it(factory: Factory, judge: Judge) -> None:
    params = factory.params()
    model = factory.convert(factory.float(), "--compressionParams", params)
    verdict = judge(factory.onnx(), model, params=params)
    assert verdict.status == 1
    assert verdict.failed == {"int8::params", "int8::coverage", "int8::execution", "int8::size"}
    fix = "--compressionParamsFile"
    verdict.tells("MNQ305", where=f"{HIDDEN}: ", why="mistyped", fix=fix)
    verdict.tells("MNQ401", where=f"{HIDDEN}: is stored as float32", why="mistyped", fix=fix)
    verdict.tells("MNQ603", where="bitwise equal")
    assert len(verdict.layers("MNQ401")) == 4
    assert verdict.metrics("coverage")["coverage"] == 0


def test_a_mistyped_flag_fails_without_the_params_file_too(factory: Factory, judge: Judge) -> None:
    model = factory.convert(factory.float(), "--compressionParams", factory.params())
    verdict = judge(factory.float(), model, still=True)
    assert verdict.status == 1
    assert verdict.failed == {"int8::coverage", "int8::size"}
    verdict.tells("MNQ401", where=HIDDEN, fix="--compressionParamsFile")


@pytest.mark.parametrize("ending", ["bin", "json"])
def test_a_params_file_that_the_converter_made_itself_fails(factory: Factory, judge: Judge, ending: str) -> None:
    guide = factory.fresh(f"params.{ending}")
    model = factory.convert(factory.onnx(), "--compressionParamsFile", guide)
    assert guide.stat().st_size > 0
    verdict = judge(factory.onnx(), model, params=guide, still=True)
    assert verdict.status == 1
    assert verdict.failed == {"int8::params", "int8::coverage", "int8::size"}
    verdict.tells("MNQ303", where=str(guide), why="--compressionParamsFile")
    verdict.tells("MNQ401", where=HIDDEN, why="--compressionParamsFile")


def test_a_params_file_that_is_not_there_fails(factory: Factory, judge: Judge) -> None:
    missing = factory.fresh("nowhere.bin")
    model = factory.convert(factory.float())
    verdict = judge(factory.float(), model, params=missing, still=True)
    assert verdict.status == 1
    assert verdict.failed == {"int8::params", "int8::coverage", "int8::size"}
    verdict.tells("MNQ301", where=str(missing), fix="--mnn-params")
    verdict.tells("MNQ401", where=HIDDEN, why=str(missing), fix="--mnn-calibration")


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("garbage.bin", bytes(range(7, 250)), "this is not a params file"),
        ("garbage.json", b"{ no json", "not JSON"),
        ("empty.bin", b"", "is empty"),
        ("empty.json", b"", "is empty"),
    ],
)
def test_a_params_file_that_is_none_fails(factory: Factory, judge: Judge, name: str, content: bytes, says: str) -> None:
    params = factory.fresh(name)
    params.write_bytes(content)
    model = factory.convert(factory.float(), "--compressionParamsFile", params)
    verdict = judge(factory.float(), model, params=params, still=True)
    assert verdict.status == 1
    assert verdict.failed == {"int8::params", "int8::coverage", "int8::size"}
    verdict.tells("MNQ302", where=str(params), fix="--mnn-calibration")
    verdict.tells("MNQ302", where=says)
    verdict.tells("MNQ401", where=HIDDEN, fix="--mnn-calibration")


def test_a_truncated_params_file_fails_naming_the_layers_behind_the_cut(factory: Factory, judge: Judge) -> None:
    whole = factory.params()
    params = factory.fresh("truncated.bin", whole.read_bytes()[:-300])
    model = factory.convert(factory.float(), "--compressionParamsFile", params)
    verdict = judge(factory.float(), model, params=params)
    assert verdict.status == 1
    assert verdict.failed == {"int8::params", "int8::coverage", "int8::size"}
    verdict.tells("MNQ302", where=str(params), fix="--mnn-calibration")
    verdict.tells("MNQ302", where="truncated")
    assert verdict.layers("MNQ401") == {HIDDEN, LAST}


def test_fp16_swallows_the_quantization_to_8_bits(factory: Factory, judge: Judge) -> None:
    model = factory.convert(factory.onnx(), "--fp16", "--weightQuantBits", "8")
    verdict = judge(factory.onnx(), model, "--mnn-recipe=w8")
    assert verdict.status == 1
    assert verdict.failed == {"w8::coverage", "w8::size"}
    verdict.tells("MNQ402", where=f"{HIDDEN}: is stored as float16", why="--fp16", fix="--fp16")
    assert verdict.metrics("coverage")["coverage"] == 0
    assert judge(factory.float(), model, "--mnn-recipe=fp16", still=True).status == 0


def test_eight_bits_for_four_fail(factory: Factory, judge: Judge) -> None:
    eight = factory.convert(factory.onnx(), "--weightQuantBits", "8")
    verdict = judge(factory.onnx(), eight, "--mnn-recipe=w4")
    assert verdict.status == 1
    assert verdict.failed == {"w4::coverage", "w4::size"}
    verdict.tells("MNQ402", where=f"{HIDDEN}: is stored as w8", why="--weightQuantBits 8", fix="--weightQuantBits 4")
    four = factory.convert(factory.onnx(), "--weightQuantBits", "4")
    healthy = judge(factory.onnx(), four, "--mnn-recipe=w4")
    assert healthy.status == 0, healthy.text
    assert healthy.passed == {item.replace("int8", "w4") for item in JUDGED} - {"w4::params", "w4::calibration"}


def test_weight_only_for_int8_fails(factory: Factory, judge: Judge) -> None:
    model = factory.convert(factory.onnx(), "--weightQuantBits", "8")
    verdict = judge(factory.onnx(), model)
    assert verdict.status == 1
    assert verdict.failed == {"int8::coverage", "int8::execution"}
    verdict.tells("MNQ402", where=f"{HIDDEN}: is stored as w8", fix="--compressionParamsFile")
    verdict.tells("MNQ601", where="0 of 4 layers can run in int8", why="params file was not applied")
    healthy = judge(factory.float(), model, "--mnn-recipe=w8")
    assert healthy.status == 0, healthy.text
    assert healthy.skipped == {"w8::params", "w8::calibration"}
