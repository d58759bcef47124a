"""Real exports: healthy ones pass; each fault that an exporter makes is one root cause in the right check and layer."""

from __future__ import annotations

import pytest

from pytest_mnnquant.checks.llm.collect import collect_evidence
from pytest_mnnquant.checks.llm.registry import EXPORT_CHECKS
from pytest_mnnquant.checks.llm.size import check_size
from pytest_mnnquant.findings.finding import INCONCLUSIVE, PASSED
from pytest_mnnquant.findings.rule import Severity
from pytest_mnnquant.llm.checkpoint import read_checkpoint
from pytest_mnnquant.llm.requests import RequestedForm
from tests.checks.llm.judging import Root, findings, judge, roots, source_of, warnings
from tests.golden_text import check_golden
from tests.llm.conftest import DATA, EXPORTS, HEALTHY, Copy, change_json

Q_PROJ = "/layers.1/self_attn/q_proj/Linear"
HEAD = "/lm/lm_head/Linear"


@pytest.mark.parametrize("name", HEALTHY)
def test_healthy_exports_pass(name: str) -> None:
    results = judge(EXPORTS / name)
    assert tuple(results) == EXPORT_CHECKS
    assert {check: result.outcome for check, result in results.items()} == dict.fromkeys(EXPORT_CHECKS, PASSED)
    # The source of qwen3 is in brain floats, which are too coarse for 8 bits.
    assert warnings(results) == (["MNQ413"] if name == "qwen3-w3" else [])


@pytest.mark.parametrize(
    ("name", "root", "cause", "failed"),
    [
        ("bad-block", Root("params", "MNQ312", HEAD), "block-larger-than-layer", {"params", "weights", "bundle"}),
        (
            "bad-config-symmetric",
            Root("params", "MNQ310", Q_PROJ),
            "symmetry-of-layer-ignored",
            {"params", "weights"},
        ),
        ("bad-gptq-path", Root("params", "MNQ315", ""), "gptq-path-empty", {"params"}),
        (
            "bad-gptq-scales",
            Root("params", "MNQ315", "/layers.0/self_attn/q_proj/Linear"),
            "gptq-scales-broken",
            {"params", "weights"},
        ),
        ("bad-layer-names", Root("params", "MNQ313", "layers.0.mlp.down_proj"), "name-of-no-layer", {"params"}),
        ("bad-skip-weight", Root("params", "MNQ312", ""), "weights-skipped", {"params", "weights", "bundle"}),
        ("bad-tied-embedding8", Root("bundle", "MNQ810", "embedding"), "embedding-is-tied", {"coverage", "bundle"}),
        ("bad-tied-w2", Root("bundle", "MNQ815", "embedding"), "embedding-read-as-four-bits", {"bundle"}),
    ],
)
def test_a_fault_of_an_exporter_is_one_root_cause(name: str, root: Root, cause: str, failed: set[str]) -> None:
    results = judge(EXPORTS / name)
    assert roots(results) == [root]
    (finding,) = findings(results)
    assert finding.cause_id == cause
    assert finding.fix
    assert {check for check, result in results.items() if not result} == failed
    check_golden(f"llm-faults/{name}", "\n".join([finding.message, finding.cause_text, finding.fix]))


def test_blocks_in_all_layers_are_one_finding() -> None:
    (finding,) = findings(judge(EXPORTS / "bad-block"))
    others = [other.layer for other in finding.consequences if other.code == "MNQ312"]
    assert len(others) == 12  # All but down_proj, which has 128 inputs.
    assert not any("down_proj" in layer for layer in others)


def test_the_options_that_exporters_ignore_are_warnings(copied: Copy) -> None:
    path = copied("qwen2-w4")
    change_json(path / "export_args.json", act_bit=8, calib_data="text.txt", type="qwen2", ppl=True)
    results = judge(path)
    assert roots(results) == []
    warned = findings(results, Severity.WARNING)
    assert [finding.layer for finding in warned] == ["--act_bit", "--calib_data", "--type", "--ppl"]
    assert {finding.code for finding in warned} == {"MNQ311"}


def test_without_options_a_form_decides(copied: Copy) -> None:
    path = copied("qwen2-w4")
    (path / "export_args.json").unlink()
    results = judge(path)
    assert {check for check, result in results.items() if result.outcome == INCONCLUSIVE} == {"params", "coverage"}
    assert {finding.code for finding in findings(results, Severity.GAP)} == {"MNQ314"}
    results = judge(path, form=RequestedForm(4, 32, False, 16))
    assert roots(results) == []
    assert {result.outcome for result in results.values()} == {PASSED}


@pytest.mark.parametrize(
    ("form", "code", "layer"),
    [
        (RequestedForm(bits=8), "MNQ402", HEAD),
        (RequestedForm(block=64), "MNQ310", HEAD),
        (RequestedForm(symmetric=True), "MNQ310", HEAD),
        (RequestedForm(scale_bits=32), "MNQ310", HEAD),
        (RequestedForm(hqq=True), "MNQ415", HEAD),
    ],
)
def test_another_form_than_was_exported_is_an_error(form: RequestedForm, code: str, layer: str) -> None:
    assert Root("", code, layer) in [
        Root("", root.code, root.layer) for root in roots(judge(EXPORTS / "qwen2-w4", form=form))
    ]


def test_a_head_in_more_bits_than_requested_is_named() -> None:
    results = judge(EXPORTS / "qwen3-w3", form=RequestedForm(bits=3))
    assert Root("coverage", "MNQ402", HEAD) in roots(results)
    finding = next(finding for finding in findings(results) if finding.layer == HEAD)
    assert finding.cause_id == "head-has-its-own-option"


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("qwen2-w4", {"quant_bit": 8}),
        ("qwen2-w4", {"quant_block": 64}),
        ("qwen2-w4", {"sym": True}),
        ("qwen2-w4", {"scale_bit": 32}),
        ("qwen2-w4", {"lm_quant_bit": 8}),
        ("qwen2-w4", {"hqq": True}),
        ("qwen2-w4", {"gptq_path": "qwen2-gptq"}),
        ("qwen2-w4", {"quant_config": "layers.json"}),
        ("qwen3-w4-embedding8", {"embed_bit": 16}),
        ("qwen2-w8-sym", {"sym": False}),
        ("llama-w4-old", {"quant_bit": 16}),
    ],
)
def test_each_option_is_held_against_the_files(name: str, options: dict[str, object], copied: Copy) -> None:
    path = copied(name)
    for file in ("layers.json",):
        (path.parent / file).write_text((DATA / file).read_text())
    if "gptq_path" in options:
        options = {"gptq_path": str(DATA / "qwen2-gptq")}
    change_json(path / "export_args.json", **options)
    results = judge(path)
    assert roots(results)
    assert {root.check for root in roots(results)} <= {"params", "coverage", "weights", "size"}


def test_what_can_not_be_compared_is_inconclusive(copied: Copy) -> None:
    path = copied("qwen2-w4")
    change_json(path / "export_args.json", quant_config="nowhere.json")
    results = judge(path)
    assert {check for check, result in results.items() if result.outcome == INCONCLUSIVE} == {"params", "coverage"}
    change_json(path / "export_args.json", quant_config=None, awq=True)
    assert judge(path)["weights"].outcome == INCONCLUSIVE


def test_layers_of_any_form_are_no_error_if_what_was_requested_is_lost(copied: Copy) -> None:
    path = copied("qwen2-config")  # Without layers.json beside it.
    results = judge(path)
    assert roots(results) == []
    assert {check for check, result in results.items() if result.outcome == INCONCLUSIVE} == {"params", "coverage"}


def test_a_size_ratio_is_judged_with_the_embedding() -> None:
    evidence = collect_evidence(EXPORTS / "llama-w4-old", read_checkpoint(source_of("llama")))
    assert check_size(evidence, 1.1)
    result = check_size(evidence, 3.0)
    assert [(finding.code, finding.cause_id) for finding in result.findings] == [("MNQ802", "large-embedding")]
