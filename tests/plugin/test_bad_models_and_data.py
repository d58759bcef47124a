"""Models and data that turn out to be unusable fail the conversion check, with one line that says why."""

from __future__ import annotations

import pickle
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.golden_text import check_golden
from tests.plugin.conftest import NET, Files, Run

MODEL, W8 = "--mnn-model=net.py:build", "--mnn-recipe=w8"
HEAD = "import numpy as np\nimport torch\nfrom torch import nn\nfrom net import Net, calibration, evaluation\n\n"


def fails(run: Run, *args: object) -> str:
    """Runs the conversion check alone, which must fail. Returns what its finding says."""
    found = run(*args, "-k", "conversion")
    assert found.status == 1, found.text
    ((check,), outcomes) = found.checks[:1], set(found.items.values())
    assert outcomes == {"failed"}
    (finding,) = check["findings"]
    assert finding["code"] in ("MNQ101", "MNQ102", "MNQ201", "MNQ202")
    assert " ".join(finding["message"].split()) in found.text
    if finding["code"] != "MNQ201" and "give --mnn-calibration" not in finding["message"]:
        assert finding["remedy"], finding["message"]
        assert "fix: " in found.text
    return str(finding["message"])


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("x = 1", "no callable 'build'"),
        ("build = 3\n\ndef other(): pass", "no callable 'build'; the module has: other"),
        (
            "def build():\n    raise RuntimeError('no weights\\nhere')",
            "build() raised RuntimeError: no weights (bad.py:2)",
        ),
        ("def build(size):\n    pass", "build() raised TypeError"),
        ("def build():\n    return 42", "returned int, expected torch.nn.Module"),
        ("def build(:\n    pass", "importing it raised SyntaxError"),
        ("import no_such_package", "importing it raised ModuleNotFoundError: No module named 'no_such_package'"),
        ("raise SystemExit(3)", "importing it raised SystemExit"),
        ("def build():\n    raise SystemExit(3)", "build() raised SystemExit"),
    ],
)
def test_a_module_that_gives_no_model_is_told(run: Run, pytester: pytest.Pytester, source: str, says: str) -> None:
    pytester.makepyfile(bad=source)
    assert says in fails(run, "--mnn-model=bad.py:build", W8)


def test_what_raises_can_be_run_by_itself(run: Run, pytester: pytest.Pytester) -> None:
    (pytester.path / "my nets").mkdir()
    (pytester.path / "my nets" / "one.py").write_text("import other\n\ndef build():\n    raise KeyError('weights')")
    (pytester.path / "my nets" / "other.py").touch()
    found = run("--mnn-model=my nets/one.py:build", W8, "-k", "conversion")
    (finding,) = found.checks[0]["findings"]
    command = finding["remedy"].splitlines()[-1]
    assert command in re.sub(r"\s+(\\\s+)?", " ", found.text)
    alone = subprocess.run(command, shell=True, capture_output=True, text=True)
    assert "Traceback" in alone.stderr
    assert alone.stderr.endswith("KeyError: 'weights'\n")


@pytest.mark.parametrize(
    ("forward", "says"),
    [
        (
            "raise RuntimeError('shape mismatch')",
            "the model fails on bad.py:evaluation() (x (1, 1, 8, 8)): RuntimeError",
        ),
        ("return 'text'", "the model returns no tensors"),
        ("return []", "the model returns no tensors"),
        (
            "y = super().forward(x); return (y, y + 1) if torch.onnx.is_in_onnx_export() else y",
            "the model returns 1 tensors, its ONNX export 2",
        ),
        ("return super().forward(x) if x.sum() > 1e9 else x.new_zeros(()).item()", "the model returns no tensors"),
    ],
)
def test_a_forward_that_does_not_work_is_told(run: Run, pytester: pytest.Pytester, forward: str, says: str) -> None:
    body = f"class Bad(Net):\n    def forward(self, x):\n        {forward}\n\ndef build():\n    return Bad().eval()"
    pytester.makepyfile(bad=HEAD + body)
    assert says in fails(run, "--mnn-model=bad.py:build", W8)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ("{}", "no array for the model's input 'x'"),
        ("{'y': np.ones((4, 1, 8, 8), 'f')}", "no array for the model's input 'x'; it has: y"),
        ("{'x': np.ones((0, 1, 8, 8), 'f')}", "array 'x' is empty: shape (0, 1, 8, 8)"),
        ("[]", "no batches"),
        ("{'x': np.full((4, 1, 8, 8), np.nan)}", "array 'x' holds NaN or infinity"),
        ("{'x': np.array(['a', 'b'])}", "array 'x' does not hold numeric samples"),
        (
            "{'x': np.ones((4, 1, 8, 8), 'f'), 'labels': np.zeros(3)}",
            "different numbers of samples: 'x' [4, 1, 8, 8], 'labels' [3]",
        ),
        ("{'x': np.ones((4, 3, 8, 8), 'f')}", "the model fails on bad.py:evaluation()"),
        ("(np.ones((4, 1, 8, 8)), 1, 2)", "a batch of 3 arrays for 1 model inputs"),
        ("42", "int is neither arrays nor batches of arrays"),
        ("[np.ones((4, 1, 8, 8)), np.ones((4, 1, 9, 9))]", "its batches do not match"),
        ("(1 / 0 for _ in range(3))", "batches raised ZeroDivisionError: division by zero (bad.py:9)"),
        ("[{'x': np.ones((4, 1, 8, 8))}, {'y': 1}]", "not all have the array x, y"),
        ("1 / 0", "evaluation() raised ZeroDivisionError"),
        ("np.float32(3)", "array 'x' has shape [], expected [samples, ...]"),
    ],
)
def test_data_that_do_not_fit_are_told(run: Run, pytester: pytest.Pytester, data: str, says: str) -> None:
    pytester.makepyfile(
        bad=HEAD.replace(", evaluation", "") + f"from net import build\n\ndef evaluation():\n    return {data}"
    )
    assert says in fails(run, "--mnn-model=bad.py:build", W8)


class Bomb:
    """When unpickled, it leaves a file in the working directory."""

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return Path.touch, (Path("unpickled"),)


def pickled(path: Path) -> None:
    with path.open("wb") as file:
        np.save(file, np.array([Bomb()], dtype=object))


def pickled_in_archive(path: Path) -> None:
    with path.open("wb") as file:
        np.savez(file, x=np.array([Bomb()], dtype=object))


def bare_pickle(path: Path) -> None:
    path.write_bytes(pickle.dumps(Bomb()))


def cut(path: Path) -> None:
    np.savez(path.with_name("whole.npz"), x=np.ones((4, 1, 8, 8), np.float32))
    path.write_bytes(path.with_name("whole.npz").read_bytes()[:200])


def text(path: Path) -> None:
    path.write_text("no array")


def nothing(path: Path) -> None:
    path.touch()


@pytest.mark.parametrize("ending", ["npz", "npy"])
@pytest.mark.parametrize("write", [pickled, pickled_in_archive, bare_pickle, cut, text, nothing])
def test_a_data_file_that_holds_no_arrays_is_told_and_never_unpickled(
    run: Run, pytester: pytest.Pytester, write: Callable[[Path], None], ending: str
) -> None:
    path = pytester.path / f"data.{ending}"
    write(path)
    reason = fails(run, MODEL, W8, f"--mnn-evaluation={path.name}").split(": ")[:2]  # then the error of numpy
    check_golden("plugin-data/no-arrays", ": ".join(reason), file=path.name)
    assert not (pytester.path / "unpickled").exists()


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        (
            {"x": np.ones((4, 1, 9, 9), np.float32)},
            "array 'x' has shape [4, 1, 9, 9], the model takes [samples, 1, 8, 8]",
        ),
        ({"x": np.ones((4, 8, 8), np.float32)}, "array 'x' has shape [4, 8, 8], the model takes [samples, 1, 8, 8]"),
        ({"image": np.ones((4, 1, 8, 8), np.float32)}, "no array for the model's input 'x'; it has: image"),
    ],
)
def test_data_that_do_not_fit_a_file_are_told(
    run: Run, pytester: pytest.Pytester, files: Files, arrays: dict[str, Any], says: str
) -> None:
    np.savez(pytester.path / "data.npz", **arrays)
    assert says in fails(run, f"--mnn-model={files.onnx}", W8, "--mnn-evaluation=data.npz")


def test_int8_without_calibration_data_is_told(run: Run, files: Files) -> None:
    check_golden("plugin-data/no-calibration-data", fails(run, f"--mnn-model={files.onnx}"), model=files.onnx)


def test_a_model_without_data_is_told(run: Run, pytester: pytest.Pytester) -> None:
    pytester.makepyfile(bare=NET.partition("def images")[0])
    check_golden("plugin-data/no-data", fails(run, "--mnn-model=bare.py:build", W8))


@pytest.mark.parametrize("ending", ["onnx", "mnn"])
def test_a_model_file_that_is_none_is_told(run: Run, pytester: pytest.Pytester, ending: str) -> None:
    (pytester.path / f"bad.{ending}").write_bytes(b"This is no model, but a text of some length. " * 9)
    assert f"bad.{ending}" in fails(run, f"--mnn-model=bad.{ending}", W8)


def test_calibration_data_of_another_shape_are_told_in_one_finding(run: Run) -> None:
    np.savez("wrong.npz", x=np.zeros((8, 8, 8, 1), np.float32))
    found = run(MODEL, "--mnn-calibration=wrong.npz", "-k", "conversion")
    assert found.codes() == {"MNQ102"}
    assert "wrong.npz (x (2," in found.text
