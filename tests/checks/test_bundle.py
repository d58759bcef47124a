"""The bundle check: what must be deployed together is there, and of one conversion."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from pytest_mnnquant.checks.bundle import check_bundle
from pytest_mnnquant.checks.params.evidence import ParamsEvidence
from pytest_mnnquant.findings.file_metrics import BundleMetrics
from pytest_mnnquant.findings.finding import FAILED, PASSED
from pytest_mnnquant.mnnfile.model import read_model
from pytest_mnnquant.mnnfile.params import Params
from pytest_mnnquant.quantize.prepared import Prepared
from tests.results import measured
from tests.synthetic_evidence import codes
from tests.workshop import Workshop

PATH = Path("params.bin")


def test_a_model_of_one_file_is_a_bundle(digits: Prepared) -> None:
    result = check_bundle(digits.model, None)
    assert result.outcome == PASSED
    assert result.metrics == BundleMetrics(("float.mnn",), digits.model.size)


@pytest.mark.parametrize("kept", [None, 0, 10, -1])
def test_missing_or_short_external_weights_fail(
    workshop: Workshop, digits: Prepared, tmp_path: Path, kept: int | None
) -> None:
    """MNN prints a line and computes garbage."""
    whole = workshop.quantized(digits.model, "--weightQuantBits", "8", "--saveExternalData")
    assert check_bundle(whole, None).outcome == PASSED
    assert whole.external_path is not None
    (tmp_path / "net.mnn").write_bytes(whole.path.read_bytes())
    content = whole.external_path.read_bytes()
    if kept is not None:
        (tmp_path / "net.mnn.weight").write_bytes(content[:kept])
    result = check_bundle(read_model(tmp_path / "net.mnn"), None)
    assert result.outcome == FAILED
    assert codes(result) == ["MNQ803"]
    missing = len(content) - len(content[:kept]) if kept is not None else len(content)
    assert (f"{missing:,} of the" in result.findings[0].message) == (0 < missing < len(content))
    assert f"{len(content):,} bytes" in result.findings[0].message
    assert measured(BundleMetrics, result).files == ("net.mnn", "net.mnn.weight")


def test_whole_external_weights_pass_with_bytes_to_spare(workshop: Workshop, digits: Prepared, tmp_path: Path) -> None:
    whole = workshop.quantized(digits.model, "--saveExternalData")
    assert whole.external_path is not None
    (tmp_path / "net.mnn").write_bytes(whole.path.read_bytes())
    (tmp_path / "net.mnn.weight").write_bytes(whole.external_path.read_bytes() + b"more")
    assert check_bundle(read_model(tmp_path / "net.mnn"), None).outcome == PASSED


def test_params_of_another_conversion_are_a_warning(digits: Prepared) -> None:
    same = ParamsEvidence(PATH, Params((), uuid=digits.model.uuid))
    assert codes(check_bundle(digits.model, same)) == []
    assert measured(BundleMetrics, check_bundle(digits.model, same)).files == ("float.mnn", "params.bin")
    other = dataclasses.replace(same, params=Params((), uuid="another"))
    result = check_bundle(digits.model, other)
    assert result.outcome == PASSED
    assert codes(result) == ["MNQ804"]
    nameless = dataclasses.replace(digits.model, uuid="")
    assert codes(check_bundle(nameless, same)) == ["MNQ804"]
    # Converted from another .mnn, whose uuid it keeps, with these params all the same.
    assert codes(check_bundle(digits.model, other, params_applied=True)) == []


@pytest.mark.parametrize(
    "evidence",
    [
        ParamsEvidence(PATH, Params((), uuid="")),
        ParamsEvidence(PATH, missing="params.bin"),
        ParamsEvidence(PATH, unreadable="damaged"),
    ],
    ids=["no uuid", "missing", "unreadable"],
)
def test_params_that_say_nothing_are_left_to_their_own_check(digits: Prepared, evidence: ParamsEvidence) -> None:
    assert check_bundle(digits.model, evidence).findings == ()
