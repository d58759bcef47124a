"""What the command line and the ini file say, read once and parsed."""

from __future__ import annotations

import copy

import pytest

from pytest_mnnquant.config.given import is_requested, may_hold_ids, read_given, suite_arguments


def test_the_command_line_comes_before_the_ini_file(pytester: pytest.Pytester) -> None:
    pytester.makeini(
        "[pytest]\nmnn_min_coverage = 0.5\nmnn_timeout = 60\nmnn_recipe = w8 fp16\nmnn_strict = true\nmnn_mode = eval\n"
    )
    config = pytester.parseconfig("--mnn-min-coverage=0.25", "--mnn-model=a.py:b", "--mnn-model", "c.onnx")
    assert read_given(config).values == {
        "model": ("a.py:b", "c.onnx"),
        "min_coverage": 0.25,
        "timeout": 60.0,
        "recipe": ("w8", "fp16"),
        "strict": True,
        "mode": "eval",
    }
    assert is_requested(config)


def test_reading_leaves_what_pytest_knows_as_it_is(pytester: pytest.Pytester) -> None:
    config = pytester.parseconfig("--mnn-model=a.py:b", "--mnn-recipe=w8", "--mnn-min-sqnr=y=20")
    before = copy.deepcopy(vars(config.option))
    given = read_given(config)
    assert given.with_typed({"mode": "eval"}).typed == {"model", "recipe", "min_sqnr", "mode"}
    assert "mode" not in given.values
    assert vars(config.option) == before


def test_paths_in_the_ini_file_start_at_its_folder(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    models = "mnn_model = zoo/net.py:build\n    mine=zoo/net.py:small\n    pkg.nets:build\n"
    pytester.makeini(f"[pytest]\n{models}mnn_calibration = c.npz\nmnn_mode = eval\nmnn_report = r.json\n")
    for name in ("zoo", "sub"):
        (pytester.path / name).mkdir()
    for name in ("zoo/net.py", "c.npz"):
        (pytester.path / name).touch()
    monkeypatch.chdir(pytester.path / "sub")
    root = pytester.path
    assert read_given(pytester.parseconfig()).values == {
        "model": (f"{root}/zoo/net.py:build", f"mine={root}/zoo/net.py:small", "pkg.nets:build"),
        "calibration": f"{root}/c.npz",
        "mode": "eval",
        "report": ("r.json",),
    }
    given = read_given(pytester.parseconfig("--mnn-calibration=c.npz"))
    assert (given.values["calibration"], set(given.typed)) == ("c.npz", {"calibration"})


def test_paths_in_the_ini_file_may_contain_equals_signs(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = "mnn_model = a=b/n=1.py:build\n    mine=a=b/n=1.py:build\n    x=1.onnx\n    y=x=1.onnx\n    z=none.onnx\n"
    pytester.makeini(f"[pytest]\n{models}mnn_calibration = c=1.npz\n")
    for name in ("a=b", "sub"):
        (pytester.path / name).mkdir()
    for name in ("a=b/n=1.py", "x=1.onnx", "c=1.npz"):
        (pytester.path / name).touch()
    monkeypatch.chdir(pytester.path / "sub")
    root = pytester.path
    code, file = f"{root}/a=b/n=1.py:build", f"{root}/x=1.onnx"
    assert read_given(pytester.parseconfig()).values == {
        "model": (code, f"mine={code}", file, f"y={file}", "z=none.onnx"),
        "calibration": f"{root}/c=1.npz",
    }


def test_nothing_given_is_nothing_asked(pytester: pytest.Pytester) -> None:
    config = pytester.parseconfig()
    assert read_given(config).values == {}
    assert not is_requested(config)


def test_a_model_in_the_ini_file_is_requested(pytester: pytest.Pytester) -> None:
    pytester.makeini("[pytest]\nmnn_model = net.py:build\n")
    assert is_requested(pytester.parseconfig())


def test_a_bad_value_in_the_ini_file_is_named(pytester: pytest.Pytester) -> None:
    pytester.makeini("[pytest]\nmnn_min_coverage = most\n")
    with pytest.raises(ValueError, match="--mnn-min-coverage: 'most' is not a number"):
        read_given(pytester.parseconfig())


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], False),
        (["tests"], False),
        ([__file__ + "::test_x"], False),
        ([__file__], False),
        (["net.py:build::int8-eval::size"], True),
        (["net.onnx::int8::size"], True),
        (["tests", "mine::w8"], True),
    ],
)
def test_ids_of_ours_are_told_from_files(arguments: list[str], expected: bool) -> None:
    assert may_hold_ids(arguments) is expected


def test_only_options_of_the_suite_are_repeated_in_commands() -> None:
    arguments = ["-q", "--mnn-model", "a.py:b", "--mnn-strict", "--mnn-recipe=w8", "--mnn-report=r.json", "tests"]
    assert suite_arguments([*arguments, "--mnn-suggest", "--mnn-timeout"]) == (
        *("--mnn-model", "a.py:b", "--mnn-recipe=w8"),
        *("--mnn-suggest", "--mnn-timeout", ""),
    )
