"""A user's own test that fails, or asks for what can't be, is told in the user's words: no frame of ours is shown."""

from __future__ import annotations

import pytest

from tests.golden_text import check_golden
from tests.plugin.conftest import Run

USES = "from pytest_mnnquant import *\nimport pytest\n\n"
W8 = ("--mnn-model=net.py:build", "--mnn-recipe=w8", "test_own.py", "-k", "test_it")


@pytest.mark.parametrize(
    ("assertion", "says"),
    [
        ("assert_size_reduction(mnn_quantized, at_least=50)", "MNQ802 size-ratio"),
        ("assert_accuracy(mnn_quantized, max_drop=-0.5)", "MNQ701 accuracy-drop"),
        ("assert_latency(mnn_quantized, max_ratio=1e-6)", "MNQ901 latency-ratio"),
        ("assert_params_applied(mnn_quantized)", "params skipped: w8"),
    ],
)
def test_a_failed_assertion_shows_its_findings(run: Run, pytester: pytest.Pytester, assertion: str, says: str) -> None:
    pytester.makepyfile(test_own=f"{USES}def test_it(mnn_quantized):\n    {assertion}")
    found = run(*W8)
    assert (found.status, found.failed) == (1, {"test_own.py::test_it[net-w8]"})
    assert says in found.text
    assert "net w8: " in found.text


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("assert_quantized(mnn_quantized, min_coverage=7)", "min_coverage: 7"),
        ("assert_size_reduction(mnn_quantized, at_least='much')", "'much' is not a number"),
    ],
)
def test_an_impossible_limit_is_told(run: Run, pytester: pytest.Pytester, line: str, says: str) -> None:
    pytester.makepyfile(test_own=f"{USES}def test_it(mnn_quantized):\n    {line}")
    found = run(*W8)
    assert found.failed == {"test_own.py::test_it[net-w8]"}
    assert says in found.text


@pytest.mark.parametrize(
    ("marker", "says"),
    [
        ("recipes=['int7']", "unknown recipe 'int7'"),
        ("modes=['test']", "'test'"),
        ("min_accuracy=0.9", "unknown tolerance 'min_accuracy'; known: "),
        ("min_coverage=9", "min_coverage: 9"),
        ("model='none.py:build'", "none.py: no such file"),
        ("model='net.py'", "'net.py' is not a model"),
    ],
)
def test_a_marker_that_makes_no_sense_is_told(run: Run, pytester: pytest.Pytester, marker: str, says: str) -> None:
    head = f"{USES}@pytest.mark.mnn(**{{'model': 'net.py:build', **dict({marker})}})\n"
    pytester.makepyfile(test_own=f"{head}def test_it(mnn_quantized):\n    assert_quantized(mnn_quantized)")
    found = run("test_own.py")
    assert found.status in (pytest.ExitCode.TESTS_FAILED, pytest.ExitCode.INTERRUPTED)
    assert says in found.text


def test_without_a_model_the_fixture_says_how_to_give_one(run: Run, pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_own="def test_it(mnn_quantized):\n    pass")
    found = run()
    assert found.status == pytest.ExitCode.TESTS_FAILED
    check_golden("plugin-own-tests/no-model", found.containing("mnn_model: "))


@pytest.mark.parametrize(
    "line",
    [
        "assert_quantized(mnn_quantized)",
        "print(mnn_quantized.path)",
        "assert mnn_quantized.size_ratio > 1",
        "assert mnn_quantized.coverage > 0.5",
        "mnn_quantized.params_path",
    ],
)
def test_a_model_that_can_not_be_quantized_fails_each_use(run: Run, pytester: pytest.Pytester, line: str) -> None:
    (pytester.path / "bad.onnx").write_bytes(b"no model")
    pytester.makepyfile(test_own=f"{USES}def test_it(mnn_quantized):\n    {line}")
    found = run("--mnn-model=bad.onnx", "--mnn-recipe=w8", "test_own.py", "-k", "test_it")
    assert found.status == 1
    assert "converting bad.onnx (float)" in found.text


@pytest.mark.parametrize("fixture", ["mnn_float", "mnn_latency"])
def test_a_model_that_can_not_be_used_fails_the_other_fixtures(
    run: Run, pytester: pytest.Pytester, fixture: str
) -> None:
    (pytester.path / "bad.onnx").write_bytes(b"no model")
    pytester.makepyfile(test_own=f"def test_it({fixture}):\n    pass")
    found = run("--mnn-model=bad.onnx", "--mnn-recipe=w8", "test_own.py", "-k", "test_it")
    assert found.status == 1
    assert "converting bad.onnx (float)" in found.text


@pytest.mark.parametrize(
    ("returned", "says"),
    [("42", "returned int, expected torch.nn.Module"), ("None", "None"), ("'x.txt'", "is not a model")],
)
def test_a_fixture_that_returns_no_model_is_told(run: Run, pytester: pytest.Pytester, returned: str, says: str) -> None:
    pytester.makeconftest(f"import pytest\n\n@pytest.fixture\ndef mnn_model():\n    return {returned}")
    pytester.makepyfile(test_own=f"{USES}def test_it(mnn_quantized):\n    assert_quantized(mnn_quantized)")
    found = run("--mnn-recipe=w8")
    assert found.status == 1
    assert says in found.text


def test_a_live_model_without_data_is_told(run: Run, pytester: pytest.Pytester) -> None:
    pytester.makeconftest("import net, pytest\n\n@pytest.fixture\ndef mnn_model():\n    return net.build()")
    pytester.makepyfile(test_own=f"{USES}def test_it(mnn_quantized):\n    assert_quantized(mnn_quantized)")
    found = run("--mnn-recipe=w8")
    assert found.status == 1
    check_golden("plugin-own-tests/no-data", found.containing("no data to"))


def test_ones_own_test_tells_what_to_do_about_unusable_data(run: Run, pytester: pytest.Pytester) -> None:
    data = "\n\n@pytest.fixture\ndef mnn_calibration():\n    return {'image': numpy.ones((4, 1, 8, 8))}"
    model = "import net, numpy, pytest\n\n@pytest.fixture\ndef mnn_model():\n    return net.build()"
    pytester.makeconftest(model + data)
    pytester.makepyfile(test_own=f"{USES}def test_it(mnn_quantized):\n    assert_quantized(mnn_quantized)")
    found = run("--mnn-recipe=w8")
    check_golden("plugin-own-tests/unusable-data", found.containing("fix: name"))
