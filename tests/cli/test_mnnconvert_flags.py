"""A command line is read as MNN reads it, and what MNN would misread is refused."""

from __future__ import annotations

import pytest

from pytest_mnnquant.cli.mnnconvert_flags import FLAGS, Refused, as_arguments, read_flags
from pytest_mnnquant.runtime.convert import known_flags
from tests.conftest import TIMEOUT
from tests.golden_text import check_golden


def reasons(line: str) -> tuple[str, ...]:
    with pytest.raises(Refused) as refused:
        read_flags(line.split())
    return refused.value.reasons


@pytest.mark.parametrize(
    ("line", "given"),
    [
        ("-f ONNX", {"framework": "ONNX"}),
        ("--framework=ONNX", {"framework": "ONNX"}),
        ("--f ONNX", {"framework": "ONNX"}),
        ("--weightQuantBits= 8", {"weightQuantBits": "8"}),
        ("--weightQuantBlock -1", {"weightQuantBlock": "-1"}),
        ("--fp16 --hqq=1 --saveExternalData true", {"fp16": "", "hqq": "1", "saveExternalData": ""}),
        ("--keepInputFormat=0 --targetVersion 1.2", {"keepInputFormat": "0", "targetVersion": "1.2"}),
        ("--bizCode a --bizCode a", {"bizCode": "a"}),
        ("-h", {"help": ""}),
    ],
)
def test_what_is_right_is_read(line: str, given: dict[str, str]) -> None:
    assert read_flags(line.split()) == given


@pytest.mark.parametrize(
    ("line", "entry"),
    [
        ("--weightQuantBit 8", "a-typo"),
        ("--compressionParams x", "a-short-name"),
        ("--FP16", "capitals"),
        ("--modelfile x", "no-capitals"),
        ("-weightQuantBits 8", "one-dash"),
        ("-fONNX", "framework-without-a-blank"),
        ("-f=ONNX", "framework-with-a-sign"),
        ("--weightQuantBits", "no-value"),
        ("--weightQuantBits --fp16", "a-flag-for-a-value"),
        ("--weightQuantBits eight", "a-word-for-an-integer"),
        ("--weightQuantBits 8.5", "decimals-for-an-integer"),
        ("--weightQuantBits 1", "too-few-bits"),
        ("--weightQuantBits=16", "too-many-bits"),
        ("--weightQuantBits 0", "zero-bits"),
        ("--batch 0", "zero-batch"),
        ("--targetVersion new", "a-word-for-a-number"),
        ("--weightQuantBits 8 --weightQuantBits 4", "given-twice"),
        ("--fp16=false", "a-switch-with-a-value"),
        ("--fp16 0", "a-switch-with-a-word"),
        ("--keepInputFormat", "a-bare-boolean"),
        ("--weightQuantAsymmetric=true", "a-boolean-as-a-word"),
        ("--weightQuantAsymmetric true", "a-boolean-after-a-blank"),
        ("-- --fp16", "two-dashes"),
        ("model.onnx", "a-stray-word"),
    ],
)
def test_what_mnn_would_misread_is_refused(line: str, entry: str) -> None:
    check_golden(f"flags/{entry}", "\n".join(reasons(line)))


def test_all_errors_are_reported_at_once() -> None:
    flags = "--weightQuantBit 8 --FP16 --batch x --modelFile"
    assert len(reasons(flags)) == 4


def test_what_was_read_is_as_arguments_so_that_mnn_reads_the_same() -> None:
    given = read_flags(["-f", "ONNX", "--modelFile", "a", "--fp16", "--keepInputFormat=0", "--batch=2"])
    assert as_arguments(given) == [
        "--framework",
        "ONNX",
        "--modelFile",
        "a",
        "--fp16",
        "--keepInputFormat=0",
        "--batch",
        "2",
    ]
    assert read_flags(as_arguments(given)) == given


@pytest.mark.mnn
def test_every_flag_of_the_installed_mnn_is_known() -> None:
    assert known_flags(TIMEOUT) <= set(FLAGS)
