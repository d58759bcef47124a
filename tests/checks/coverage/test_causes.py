"""Why a layer is not stored as requested: the cause that the evidence shows, or none."""

from __future__ import annotations

import dataclasses
import shlex
from pathlib import Path
from typing import Any

import pytest

from pytest_mnnquant.checks.coverage.causes import LayerEvidence, explain_layer
from pytest_mnnquant.checks.coverage.check import LayerRow
from pytest_mnnquant.checks.params.evidence import Misnamed, ParamsEvidence
from pytest_mnnquant.findings.cause import Explanation
from pytest_mnnquant.findings.fix_command import ConvertCommand, mnn_source
from pytest_mnnquant.mnnfile.model import Op
from pytest_mnnquant.mnnfile.params import ActivationParams, LayerParams, Params, WeightParams
from pytest_mnnquant.mnnfile.storage import Storage
from pytest_mnnquant.recipes.names import RECIPES
from tests.golden_text import check_golden
from tests.synthetic_evidence import as_int8, layer, model, with_weights

LAYER = layer("conv")
ENTRY = LayerParams(WeightParams("conv"), ActivationParams("in", 1.0), ActivationParams("wrong:out", 1.0))
APPLIED = Params((ENTRY,), uuid="uuid-1")
PATH = Path("p.bin")
W4: dict[str, Any] = {"storage": Storage.INTEGER, "bits": 4}
W8: dict[str, Any] = {"storage": Storage.INTEGER, "bits": 8}
FP16: dict[str, Any] = {"storage": Storage.FLOAT16, "bits": 16}


def explain(
    stored: Op | None = LAYER,
    recipe: str = "int8",
    params: ParamsEvidence | None = None,
    of: Op = LAYER,
    others: tuple[Op, ...] = (),
    uuid: str = "uuid-1",
) -> Explanation:
    row = LayerRow(of, stored, True, False)
    rows = (row, *(LayerRow(op, op, True, False) for op in others))
    found = model([stored] if stored else [], uuid=uuid)
    command = ConvertCommand(mnn_source(Path("float.mnn")), Path("net.mnn"), params.applicable if params else None)
    return explain_layer(row, LayerEvidence(RECIPES[recipe], rows, params, found, command))


def cause_id(*given: Any, **more: Any) -> str:
    cause = explain(*given, **more).cause
    return cause.id if cause else ""


def test_a_misnamed_entry_is_the_cause_with_both_names() -> None:
    found = explain(params=ParamsEvidence(PATH, APPLIED, misnamed=(Misnamed(ENTRY, LAYER),)))
    assert found.cause is not None
    assert found.cause.id == "name-mismatch"
    assert all(name in found.cause.text for name in ("'wrong:out'", "'conv:out'"))
    assert "'wrong:out'" in found.fix
    repaired = ParamsEvidence(PATH, APPLIED, misnamed=(Misnamed(ENTRY, LAYER),), repaired=Path("my repaired.bin"))
    fix = explain(params=repaired).fix
    check_golden("coverage/a-misnamed-entry-is-the-cause-with-both-names", fix)
    assert shlex.split(fix.splitlines()[1])[-2:] == ["--compressionParamsFile", "my repaired.bin"]


def test_a_guide_is_the_cause() -> None:
    guide = ParamsEvidence(PATH, Params((LayerParams(WeightParams("conv", bits=0)),)), unlisted=(LAYER,))
    assert cause_id(params=guide) == "params-path-wrong"
    assert cause_id(recipe="w8", params=guide) == "guide-overrides-option"


def test_an_unlisted_layer_is_reported_as_such() -> None:
    found = explain(params=ParamsEvidence(PATH, APPLIED, unlisted=(LAYER,)))
    assert found.cause is not None
    assert found.cause.id == "layer-unknown-to-calibration"
    assert "--mnn-skip-layer=conv" in found.fix


def test_a_layer_that_mnn_computes_before_a_run_is_reported_as_such() -> None:
    row = LayerRow(LAYER, LAYER, True, False, is_known_ahead=True)
    params, command = (
        ParamsEvidence(PATH, APPLIED, unlisted=(LAYER,)),
        ConvertCommand(mnn_source(Path("a.mnn")), Path("b")),
    )
    found = explain_layer(row, LayerEvidence(RECIPES["int8"], (row,), params, model([LAYER]), command))
    assert found.cause is not None
    assert found.cause.id == "reads-constants-only"
    assert "--weightQuantBits 8" in found.fix


def test_params_that_were_never_read_missing_or_unreadable_are_the_cause() -> None:
    assert cause_id(params=ParamsEvidence(PATH, APPLIED), uuid="another") == "params-never-read"
    missing = explain(params=ParamsEvidence(PATH, missing="p.bin")).cause
    assert missing is not None
    assert missing.id == "params-missing"
    check_golden("coverage/params-missing", missing.text)
    assert cause_id(params=ParamsEvidence(PATH, unreadable="byte 7")) == "params-ignored"


@pytest.mark.parametrize(
    ("each", "cause"),
    [(4, "float-weights-under-int-header"), (500, "buffer-of-other-size"), (0, "buffer-of-other-size")],
)
def test_a_buffer_of_floats_under_an_int8_header_is_distinguished_from_other_damage(each: int, cause: str) -> None:
    broken = with_weights(LAYER, **W8, full_int8=True, intact=False)
    weights = dataclasses.replace(broken.weights[0], size=each * broken.weights[0].count)
    assert cause_id(dataclasses.replace(broken, weights=(weights,))) == cause


def test_weight_only_bits_in_place_of_int8_are_reported() -> None:
    assert cause_id(with_weights(LAYER, **W8)) == "weights-only"


@pytest.mark.parametrize("recipe", ["int8", "w8", "w4"])
def test_fp16_keeps_integers_away(recipe: str) -> None:
    assert cause_id(with_weights(LAYER, **FP16), recipe) == "cast-to-half-first"
    assert "--fp16" in explain(with_weights(LAYER, **FP16), recipe).fix


@pytest.mark.parametrize(("recipe", "stored", "bits"), [("w8", W4, 4), ("w4", W8, 8)])
def test_other_bits_are_reported(recipe: str, stored: dict[str, Any], bits: int) -> None:
    found = explain(with_weights(LAYER, **stored), recipe)
    assert found.cause is not None
    assert found.cause.id == "converted-with-other-bits"
    assert f"--weightQuantBits {bits}" in found.cause.text
    assert f"--weightQuantBits {RECIPES[recipe].bits}" in found.fix


@pytest.mark.parametrize("recipe", ["int8", "w8", "fp16"])
def test_a_file_in_which_nothing_is_quantized_is_reported_as_one_cause(recipe: str) -> None:
    cause = explain(recipe=recipe).cause
    assert cause is not None
    assert cause.id == "converter-got-no-option"
    check_golden("coverage/a-file-in-which-nothing-is-quantized", cause.text)
    assert cause_id(recipe=recipe, others=(as_int8(layer("other")),)) == ""


def test_tables_and_loop_bodies_stay_float_in_mnn() -> None:
    table = layer("table", (50, 12), kind="Const")
    assert cause_id(table, of=table, recipe="w8") == "operator-stays-float"
    assert "--mnn-skip-layer=table" in explain(table, of=table, recipe="w8").fix
    unsupported = {
        "inside-loop-body": layer("inside", subgraph="body"),
        "operator-not-supported": layer("up", kind="Deconvolution"),
    }
    for cause, op in unsupported.items():
        assert cause_id(op, of=op) == cause
        assert "--mnn-recipe=int8+w8" in explain(op, of=op).fix


def test_a_layer_that_is_gone_is_left_to_the_conversion_check() -> None:
    found = explain(None)
    assert found.cause is None
    check_golden("coverage/a-layer-that-is-gone", found.fix)


def test_what_the_evidence_does_not_show_is_not_claimed() -> None:
    """Params that were read and name the layer, which is float all the same."""
    entry = dataclasses.replace(ENTRY, output=ActivationParams("conv:out", 1.0))
    bound = ParamsEvidence(PATH, Params((entry,), uuid="uuid-1"), bound=((entry, LAYER),))
    found = explain(params=bound, others=(as_int8(layer("other")),))
    assert found.cause is None
    assert "--compressionParamsFile" in found.fix
