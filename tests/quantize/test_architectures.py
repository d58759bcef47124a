"""`int8` covers all that MNN can run in int8, on networks of many kinds; what is left float is named with the reason.

The networks are those of the matrix in the documentation, here without training.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from pytest_mnnquant.cache.store import Store
from pytest_mnnquant.config.settings import Limits, ModelSettings
from pytest_mnnquant.evidence.check_runner import run_check
from pytest_mnnquant.evidence.source import FixtureValues, SourceUnderTest
from pytest_mnnquant.evidence.variant import VariantUnderTest, variant_under_test
from pytest_mnnquant.findings.finding import PASSED
from pytest_mnnquant.sources.spec import Spec, parse_spec
from tests.conftest import FIXTURES, ROOT, TIMEOUT, quietly

#: For each network the layers that MNN has no int8 form of, by kind; `body` stands for the body of a loop.
LEFT_FLOAT: dict[str, list[str]] = {
    "cnn": [],
    "mobile_net": [],
    "lenet": [],
    "transformer": [],  # its learned positional table is not a weight
    "mlp": [],
    "conv1d": [],
    "lstm": [],  # the recurrent half of the weights too
    "gru": ["body"],  # MNN computes it in float, whatever its params say
    "two_inputs": [],
    "segmentation": ["Deconvolution", "Deconvolution"],
    "grouped": [],
    "shared": [],
    "raw_weights": ["Const"],  # an einsum with a constant of three dimensions
    "attention": [],
    "tied_embedding": ["Const"],  # the table: the head has its own copy, in int8
}
SHIPPED = {
    "cnn": "digits_cnn",
    "mobile_net": "mobile_net",
    "lenet": "garment_classifier",
    "transformer": "tiny_transformer",
}
#: What the reason for each kind must speak of.
CAUSES = {"Const": "Const", "Deconvolution": "Deconvolution", "body": "While or If body"}
SAMPLES = 8


@pytest.fixture(scope="module", autouse=True)
def _benchmarks() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "benchmarks"))
        yield


@pytest.fixture(scope="module", params=LEFT_FLOAT)
def case(request: pytest.FixtureRequest, store: Store) -> VariantUnderTest:
    """The int8 variant of a network, calibrated in eval mode."""
    name: str = request.param
    return variant_under_test(_gate(name, store), "int8", "eval")


def _gate(name: str, store: Store) -> SourceUnderTest:
    if name in SHIPPED:  # Other tests have made these.
        spec = parse_spec(f"{SHIPPED[name]}.py:build", FIXTURES)
        return SourceUnderTest(ModelSettings(spec.text, name, FIXTURES, timeout=TIMEOUT), spec, store, quietly)
    from architectures import ARCHITECTURES

    architecture = ARCHITECTURES[name]
    data = architecture.calibration(SAMPLES)
    settings = ModelSettings(name, name, FIXTURES, timeout=TIMEOUT)
    return SourceUnderTest(settings, Spec(name, name), store, quietly, FixtureValues(architecture.build(), data, data))


def _kind(op: Any) -> str:
    return "body" if op.subgraph else str(op.kind)


def test_every_layer_that_mnn_can_run_in_int8_is_in_int8(case: VariantUnderTest) -> None:
    assert run_check(case, "conversion").outcome == PASSED
    left = sorted(_kind(row.layer) for row in case.files.rows if not row.quantized and not row.is_operand)
    assert left == LEFT_FLOAT[case.source.settings.name]
    stored = [row.stored.weights[0] for row in case.files.rows if row.quantized and row.stored]
    assert stored
    assert all(weights.full_int8 for weights in stored)


def test_what_is_in_int8_runs_in_int8(case: VariantUnderTest) -> None:
    """By MNN's own trace; of models with loops there is none."""
    if case.model.has_subgraphs:
        pytest.skip("MNN gives no trace of models with loops")
    assert run_check(case, "execution").outcome == PASSED
    assert case.runs.run.trace is not None
    names = {row.stored.name for row in case.files.rows if row.quantized and row.stored}
    assert {op.name for op in case.runs.run.trace if op.int8} >= names


def test_what_stays_float_is_named_with_the_reason(case: VariantUnderTest) -> None:
    left = [row.layer for row in case.files.rows if not row.quantized and not row.is_operand]
    found = run_check(case, "coverage", Limits(min_coverage=1.0)).findings
    findings = {item.layer: item for one in found for item in (one, *one.consequences) if item.code != "MNQ406"}
    assert set(findings) == {op.name for op in left}
    for op in left:
        assert findings[op.name].code == "MNQ401"
        assert CAUSES[_kind(op)] in findings[op.name].cause_text
        assert findings[op.name].fix


def test_the_list_has_every_architecture() -> None:
    from architectures import ARCHITECTURES

    assert list(ARCHITECTURES) == list(LEFT_FLOAT)
