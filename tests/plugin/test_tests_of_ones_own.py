"""The fixtures, the marker and the assertions in a user's own tests."""

from __future__ import annotations

import pytest

from tests.plugin.conftest import Files, Run

CONFTEST = """
import copy

import numpy as np
import pytest
from net import build, calibration, evaluation

MODEL = build()


@pytest.fixture
def mnn_model():
    return MODEL
"""
DATA = """

@pytest.fixture(scope="session")
def mnn_calibration():
    return [calibration()["x"][:8], calibration()["x"][8:]]


@pytest.fixture(scope="session")
def mnn_evaluation():
    return evaluation()
"""
ALL = """
from pytest_mnnquant import (
    assert_accuracy, assert_bundle_complete, assert_calibration_sufficient, assert_converted, assert_int8_executed,
    assert_latency, assert_params_applied, assert_quantized, assert_size_reduction, assert_weights_preserved,
)


def test_ships(mnn_quantized, mnn_recipe, mnn_mode, mnn_float):
    assert (mnn_quantized.recipe, mnn_quantized.mode) == (mnn_recipe, mnn_mode)
    assert assert_converted(mnn_quantized)["layers_matched"] == 2
    assert assert_size_reduction(mnn_quantized, at_least=1.5)["size_ratio"] > 1.5
    assert assert_quantized(mnn_quantized, min_coverage=1)["coverage"] == mnn_quantized.coverage == 1
    assert assert_params_applied(mnn_quantized)["bound"] == 2
    assert assert_weights_preserved(mnn_quantized)["worst_sqnr_db"] > 35
    assert assert_calibration_sufficient(mnn_quantized)["samples"] == 24
    assert assert_int8_executed(mnn_quantized)["int8_layers"] == 2
    assert assert_accuracy(mnn_quantized, max_drop=0.05)["top1"] > 0.94
    assert assert_bundle_complete(mnn_quantized)["bytes"] == mnn_quantized.path.stat().st_size
    assert mnn_quantized.float_path == mnn_float.path
    assert mnn_float.size / mnn_quantized.path.stat().st_size == mnn_quantized.size_ratio
    assert mnn_quantized.params_path.name == "compress_params_index.bin"
    assert repr(mnn_quantized).startswith("<")
"""


def test_all_assertions_hold_for_a_model_from_the_command_line(run: Run, pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_own=ALL)
    found = run("--mnn-model=net.py:build", "-k", "ships", "test_own.py")
    assert found.status == 0, found.text
    assert found.passed == {"test_own.py::test_ships[net-int8-train]", "test_own.py::test_ships[net-int8-eval]"}
    assert "int8-train" in found.text
    assert "MNN quantization" in found.text


def test_a_live_model_and_data_can_be_brought(run: Run, pytester: pytest.Pytester) -> None:
    pytester.makeconftest(CONFTEST + DATA)
    pytester.makepyfile(test_own=ALL)
    found = run("--mnn-mode=eval")
    assert (found.status, found.passed) == (0, {"test_own.py::test_ships[int8-eval]"}), found.text


def test_the_brought_model_is_left_as_it_was(run: Run, pytester: pytest.Pytester) -> None:
    pytester.makeconftest(
        CONFTEST.replace("MODEL = build()", "MODEL = build().train()\nBEFORE = copy.deepcopy(MODEL.state_dict())")
        + DATA
    )
    pytester.makepyfile(
        test_own="""
        import pytest
        from pytest_mnnquant import assert_accuracy, assert_quantized

        def test_ships(mnn_quantized):
            assert_quantized(mnn_quantized)
            assert_accuracy(mnn_quantized, max_drop=1)

        def test_afterwards():
            import conftest
            model, now = conftest.MODEL, conftest.MODEL.state_dict()
            assert model.training and model.norm.training
            assert all((now[key] == value).all() for key, value in conftest.BEFORE.items())
            assert all(p.requires_grad and p.grad is None for p in model.parameters())
            assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
        """
    )
    found = run()
    assert found.status == 0, found.text
    assert found.passed == {
        f"test_own.py::test_{name}" for name in ("ships[int8-train]", "ships[int8-eval]", "afterwards")
    }


def test_the_marker_chooses_model_recipes_modes_and_tolerances(run: Run, pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        test_own="""
        import pytest
        from pytest_mnnquant import assert_size_reduction

        @pytest.mark.mnn(model="net.py:build", recipes=["w8", "int8"], modes=["eval"], min_size_ratio=50)
        def test_small(mnn_quantized, mnn_tolerances):
            assert mnn_tolerances == {"min_size_ratio": 50}
            assert_size_reduction(mnn_quantized, at_least=1.5)
            with pytest.raises(pytest.fail.Exception, match="50x"):
                assert_size_reduction(mnn_quantized)
        """
    )
    found = run("--mnn-model=net.py:build", "test_own.py", "-k", "small")
    assert found.status == 0, found.text
    assert found.passed == {"test_own.py::test_small[w8]", "test_own.py::test_small[int8-eval]"}


def test_each_of_several_models_has_its_own_recipes(run: Run, files: Files, pytester: pytest.Pytester) -> None:
    (pytester.path / "net.onnx").write_bytes(files.onnx.read_bytes())
    pytester.makepyprojecttoml(
        """
        [tool.mnnquant.models.a]
        source = "net.py:build"
        mode = "eval"
        [tool.mnnquant.models.b]
        source = "net.onnx"
        recipes = ["w8", "fp16"]
        """
    )
    pytester.makepyfile(test_own="def test_it(mnn_quantized):\n    assert mnn_quantized.size_ratio > 1")
    found = run("--mnn-model=a", "--mnn-model=b", "test_own.py", "-k", "test_it")
    assert found.status == 0, found.text
    assert found.passed == {f"test_own.py::test_it[{name}]" for name in ("a-int8-eval", "b-w8", "b-fp16")}


def test_overridden_tolerances_decide(run: Run, pytester: pytest.Pytester) -> None:
    pytester.makeconftest("import pytest\n\n@pytest.fixture\ndef mnn_tolerances():\n    return {'min_size_ratio': 50}")
    pytester.makepyfile(
        test_own="""
        from pytest_mnnquant import assert_size_reduction

        def test_it(mnn_quantized):
            assert_size_reduction(mnn_quantized)
        """
    )
    found = run("--mnn-model=net.py:build", "--mnn-recipe=w8", "test_own.py", "-k", "test_it")
    assert (found.status, found.failed) == (1, {"test_own.py::test_it[net-w8]"})
    found.tells("MNQ802", where="50x")


def test_latency_is_measured_in_pairs(run: Run, pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        test_own="""
        from pytest_mnnquant import assert_latency

        def test_it(mnn_latency, mnn_quantized):
            assert 0 < mnn_latency.low <= mnn_latency.median <= mnn_latency.high
            assert assert_latency(mnn_quantized, max_ratio=1e6)["pairs"] == mnn_latency.pairs >= 30
        """
    )
    usual = ["--mnn-model=net.py:build", "--mnn-recipe=w8", "test_own.py", "-k", "test_it"]
    assert run(*usual).passed == {"test_own.py::test_it[net-w8]"}
    assert run(*usual, "--benchmark-disable").skipped == {"test_own.py::test_it[net-w8]"}
