"""A command line is read as MNN reads it, and what MNN would misread is refused."""

from __future__ import annotations

import pytest

from pytest_mnnquant.cli.mnnconvert_flags import FLAGS, Refused, as_arguments, read_flags
from pytest_mnnquant.runtime.convert import known_flags
from tests.conftest import TIMEOUT


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
    ("line", "reason"),
    [
        (
            "--weightQuantBit 8",
            "--weightQuantBit: MNN has no such flag, and ignores it; did you mean --weightQuantBits?",
        ),
        ("--compressionParams x", "did you mean --compressionParamsFile?"),
        ("--FP16", "did you mean --fp16?"),
        ("--modelfile x", "did you mean --modelFile?"),
        ("-weightQuantBits 8", "-weightQuantBits: MNN has no such flag; write --weightQuantBits"),
        ("-fONNX", "write -f FRAMEWORK"),
        ("-f=ONNX", "write -f FRAMEWORK"),
        ("--weightQuantBits", "MNN needs an integer after it"),
        ("--weightQuantBits --fp16", "MNN needs an integer after it, and takes '--fp16' for it"),
        ("--weightQuantBits eight", "it must be an integer"),
        ("--weightQuantBits 8.5", "it must be an integer"),
        ("--weightQuantBits 1", "it must be 2 to 8"),
        ("--weightQuantBits=16", "it must be 2 to 8"),
        ("--weightQuantBits 0", "it must be 2 to 8"),
        ("--batch 0", "it must be 1 or more"),
        ("--targetVersion new", "it must be a number"),
        ("--weightQuantBits 8 --weightQuantBits 4", "is given twice, '8' and '4'; MNN takes the last"),
        ("--fp16=false", "MNN switches it on whatever is given"),
        ("--fp16 0", "MNN switches it on whatever follows"),
        ("--keepInputFormat", "MNN takes this for false, the reverse of what it says; write --keepInputFormat=1"),
        ("--weightQuantAsymmetric=true", "MNN takes this for false, the reverse of what it says; leave it out"),
        ("--weightQuantAsymmetric true", "leave it out for asymmetric weights"),
        ("-- --fp16", "--: MNN reads no flag that comes after it"),
        ("model.onnx", "'model.onnx' belongs to no flag, and MNN ignores it"),
    ],
)
def test_what_mnn_would_misread_is_refused(line: str, reason: str) -> None:
    assert any(reason in found for found in reasons(line)), reasons(line)


def test_all_that_is_wrong_is_told_at_once() -> None:
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
