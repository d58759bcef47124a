"""The commands of fix lines, taken from what is printed and run by a shell, make a model that passes."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch

from pytest_mnnquant.mnnfile.params import read_params, write_params
from tests.faults.conftest import JUDGED, Judge
from tests.faults.factory import HIDDEN, NET, SECOND, Factory
from tests.faults.test_accuracy_lost import weights_scaled

_PROGRAMS = ("pytest-mnnquant ", "pytest ")
TIMEOUT = 200


def command(lines: Sequence[str]) -> str:
    """The first command of a failure, with its line continuations, as the user marks it with the mouse."""
    start = next(number for number, line in enumerate(lines) if line.strip().startswith(_PROGRAMS))
    end = next(number for number, line in enumerate(lines) if number >= start and not line.endswith("\\"))
    return "\n".join(lines[start : end + 1])


def paste(text: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """What a shell makes of the text in this folder."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        ["sh", "-c", text],
        cwd=folder,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )


Sides = tuple[Path, Path, Path]


def unread(factory: Factory) -> Sides:
    """The converter was run without the params file."""
    source, params = factory.float(), factory.params()
    return source, factory.copy(factory.convert(source)), params


def renamed(factory: Factory) -> Sides:
    """The params file has another name for the tensor of a Linear than MNN."""
    source, params = factory.onnx(), factory.fresh("named by onnx.bin")
    content = read_params(factory.params())
    old = next(entry.name for entry in content.layers if entry.name.startswith("ConvertTensor"))
    write_params(content.renamed({old: "/classifier/classifier.2/Gemm_output_0"}), params)
    return source, factory.copy(factory.convert(factory.float(), "--compressionParamsFile", params)), params


@pytest.mark.parametrize(("plant", "code"), [(unread, "MNQ305"), (renamed, "MNQ304")])
def test_the_command_applies_the_params_file(
    factory: Factory,
    judge: Judge,
    pytester: pytest.Pytester,
    plant: Callable[[Factory], Sides],
    code: str,
) -> None:
    source, model, params = plant(factory)
    verdict = judge(source, model, params=params)
    assert verdict.status == 1
    assert (code, "MNQ401") == (verdict.roots()[0][0], verdict.told("coverage")[0]["code"])
    for check in ("params", "coverage"):
        broken = factory.copy(model)
        failed = judge(source, broken, "-k", check, params=params, still=True)
        done = paste(command(failed.lines), pytester.path)
        assert done.returncode == 0, done.stdout + done.stderr
        fixed = judge(source, broken, params=pytester.path / applied(failed.lines))
        assert fixed.status == 0, fixed.text
        assert fixed.passed == JUDGED


def applied(lines: Sequence[str]) -> str:
    """The params file of the command; a repaired one is named to pytest too."""
    words = shlex.split(command(lines).replace("\\\n", ""))
    path = words[words.index("--compressionParamsFile") + 1]
    if "repaired" in path:
        assert shlex.quote(f"--mnn-params={path}") in " ".join(" ".join(lines).split())
    return path


def test_without_a_params_file_the_command_calibrates_on_the_data_of_the_run(
    factory: Factory, judge: Judge, pytester: pytest.Pytester
) -> None:
    source, data = factory.onnx(), factory.evaluation()
    model = factory.copy(factory.convert(factory.float()))
    verdict = judge(source, model, "--mnn-calibration", data, still=True)
    assert verdict.roots()[0] == ("MNQ401", HIDDEN)
    done = paste(command(verdict.lines), pytester.path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "int8" in done.stdout


@pytest.mark.parametrize(("bits", "recipe", "flags"), [("4", "w8", ()), ("8", "w4b32", ("--weightQuantBlock", "64"))])
def test_the_command_stores_the_requested_bits(
    factory: Factory, judge: Judge, pytester: pytest.Pytester, bits: str, recipe: str, flags: tuple[str, ...]
) -> None:
    source = factory.float()
    model = factory.copy(factory.convert(source, "--weightQuantBits", bits, *flags))
    verdict = judge(source, model, "--mnn-recipe", recipe, still=True)
    assert "MNQ402" in verdict.codes("coverage")
    done = paste(command(verdict.lines), pytester.path)
    assert done.returncode == 0, done.stdout + done.stderr
    fixed = judge(source, model, "--mnn-recipe", recipe, still=True)
    assert fixed.status == 0, fixed.text


def test_the_command_replaces_the_model_of_another_training(
    factory: Factory, judge: Judge, pytester: pytest.Pytester
) -> None:
    torch.manual_seed(1)
    network = factory.module(NET).build().eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    other = factory.prepared(NET, network)
    model = factory.copy(factory.convert(other.model.path, "--weightQuantBits", "8"))
    verdict = judge(factory.float(), model, "--mnn-recipe", "w8", still=True)
    assert verdict.roots()[0][0] == "MNQ410"
    done = paste(command(verdict.lines), pytester.path)
    assert done.returncode == 0, done.stdout + done.stderr
    fixed = judge(factory.float(), model, "--mnn-recipe", "w8", still=True)
    assert fixed.status == 0, fixed.text


def test_the_command_replaces_the_model_of_another_network(
    factory: Factory, judge: Judge, pytester: pytest.Pytester
) -> None:
    source = factory.float()
    model = factory.copy(factory.convert(factory.float("garment_classifier"), "--weightQuantBits", "8"))
    verdict = judge(source, model, "--mnn-recipe", "w8", still=True)
    assert verdict.roots()[0][0] == "MNQ203"
    done = paste(command(verdict.lines), pytester.path)
    assert done.returncode == 0, done.stdout + done.stderr
    fixed = judge(source, model, "--mnn-recipe", "w8", still=True)
    assert fixed.status == 0, fixed.text


def test_the_command_repeats_the_layers_that_stay_float(
    factory: Factory, judge: Judge, pytester: pytest.Pytester
) -> None:
    source, params = factory.float(), factory.params(skip=["/features/features.0/*"])
    model = factory.copy(factory.convert(source))
    skip = ("--mnn-skip-layer", "/features/features.0/*")
    verdict = judge(source, model, *skip, params=params, still=True)
    assert verdict.status == 1
    done = paste(command(verdict.lines), pytester.path)
    assert done.returncode == 0, done.stdout + done.stderr
    fixed = judge(source, model, *skip, params=params)
    assert fixed.status == 0, fixed.text


def test_the_command_of_a_verified_alternative_makes_a_model_that_passes(
    factory: Factory, judge: Judge, pytester: pytest.Pytester
) -> None:
    source, params = factory.float(), weights_scaled(factory, SECOND, 0.02)
    model = factory.copy(factory.convert(source, "--compressionParamsFile", params))
    failed = judge(source, model, "-k", "accuracy", "--mnn-suggest", params=params)
    tried = failed.metrics("accuracy")["tried"]
    options = next(item["options"] for item in tried if item["passes"])
    assert SECOND in options[-1]
    done = paste(command(failed.lines), pytester.path)
    assert done.returncode == 0, done.stdout + done.stderr
    fixed = judge(source, model, *shlex.split(" ".join(options[1:])))
    assert fixed.status == 0, fixed.text
