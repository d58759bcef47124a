"""Every run of the suite is appended to pytest-benchmark's storage, and none is lost."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pytest_mnnquant.cli.main import main
from pytest_mnnquant.history.storage import Run as Kept
from pytest_mnnquant.history.storage import read_runs
from tests.plugin.conftest import Files, Run


@pytest.fixture
def given(files: Files) -> tuple[str, ...]:
    """A suite that needs no PyTorch: seconds."""
    return (f"--mnn-model=net={files.float}", f"--mnn-quantized={files.w8}", "--mnn-recipe=w8")


def kept(pytester: pytest.Pytester, folder: str = ".benchmarks") -> tuple[Kept, ...]:
    """The runs in the storage; nothing in it may be damaged."""
    told: list[str] = []
    runs = read_runs(pytester.path / folder, told.append)
    assert told == []
    return runs


def names(pytester: pytest.Pytester) -> list[str]:
    """All files of the storage."""
    return sorted(path.name for path in (pytester.path / ".benchmarks").rglob("*") if path.is_file())


def commit(pytester: pytest.Pytester) -> str:
    """Make the folder a repository with one commit; returns its name."""

    def git(*args: str) -> str:  # fmt: skip
        who = ("-c", "user.name=x", "-c", "user.email=x@y")
        return subprocess.run(
            ["git", *who, *args], cwd=pytester.path, check=True, capture_output=True, text=True
        ).stdout

    git("init", "-q")
    git("add", "net.py")
    git("commit", "-q", "-m", "one")
    return git("rev-parse", "HEAD").strip()


def benchmark_tool(pytester: pytest.Pytester, *args: str) -> str:
    """What pytest-benchmark's own command says."""
    done = pytester.run(sys.executable, "-m", "pytest_benchmark", *args)
    assert done.ret == 0, done.stderr.str()
    return done.stdout.str()


def test_a_run_is_appended_with_its_figures_and_its_commit(
    run: Run, given: tuple[str, ...], files: Files, pytester: pytest.Pytester
) -> None:
    made = commit(pytester)
    assert run(*given, "-k", "size or coverage").status == 0
    (pytester.path / "net.py").write_text("# changed")
    assert run(*given, "-k", "size or coverage").status == 0
    first, second = kept(pytester)
    assert (first.commit, first.dirty, first.complete) == (made, False, True)
    assert (second.commit, second.dirty) == (made, True)
    (figures,) = first.figures
    assert (figures.model, figures.variant, figures.coverage) == ("net", "w8", 1.0)
    assert figures.size == files.w8.stat().st_size
    assert figures.ratio is None
    assert first.machine == second.machine
    assert first.machine.mnn
    assert first.machine.machine


def test_the_branch_is_git_s_or_where_head_is_detached_ci_s(
    run: Run, given: tuple[str, ...], pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("GITHUB_REF_NAME", "CI_COMMIT_REF_NAME", "BRANCH_NAME", "GIT_BRANCH")
    for name in names:
        monkeypatch.delenv(name, raising=False)
    made = commit(pytester)
    for args, told in ((["-b", "feature"], "other"), (["--detach", made], "main"), (["--detach", made], "")):
        subprocess.run(["git", "checkout", "-q", *args], cwd=pytester.path, check=True)
        monkeypatch.setenv("CI_COMMIT_REF_NAME", told)
        assert run(*given, "-k", "size").status == 0
    assert [one.branch for one in kept(pytester)] == ["feature", "main", ""]


def test_timings_are_in_the_form_of_pytest_benchmark(
    run: Run, given: tuple[str, ...], pytester: pytest.Pytester
) -> None:
    assert run(*given, "-k", "size or latency").status == 0
    (name,) = names(pytester)
    assert name.startswith("0001_mnnquant_")
    (ours,) = kept(pytester)
    (figures,) = ours.figures
    content: dict[str, Any] = json.loads(ours.path.read_text())
    plain, quantized = content["benchmarks"]
    assert quantized["extra_info"]["mnnquant"]["ratio"] == figures.ratio
    assert "mnnquant" not in plain["extra_info"]
    assert "data" not in plain["stats"]
    assert name in benchmark_tool(pytester, "list")
    compared = benchmark_tool(pytester, "compare", "--columns=min")
    assert "net::float" in compared
    assert "net::w8" in compared
    again = run(*given, "-k", "latency", "--benchmark-compare", "--benchmark-compare-fail=min:100000%")
    assert again.status == 0, again.text
    assert (
        f"Comparing against benchmarks from: Linux-CPython-3.{sys.version_info[1]}-64bit/0001_mnnquant_" in again.text
    )
    assert len(kept(pytester)) == 2


def test_a_run_without_timings_takes_no_number(run: Run, given: tuple[str, ...], pytester: pytest.Pytester) -> None:
    """`--benchmark-compare` takes the run of the highest number, and would have nothing to compare with."""
    assert run(*given, "-k", "latency").status == 0
    assert run(*given, "-k", "size").status == 0
    first, second = names(pytester)
    assert first.startswith("0001_mnnquant_")
    assert second.startswith("mnnquant_")
    assert "Comparing against" in run(*given, "-k", "latency", "--benchmark-compare").text


def test_what_pytest_benchmark_saves_itself_is_not_listed_twice(
    run: Run, given: tuple[str, ...], pytester: pytest.Pytester, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*given, "-k", "size or latency", "--benchmark-autosave").status == 0
    theirs, ours = names(pytester)
    assert theirs.startswith("0001_unversioned_")
    assert ours.startswith("mnnquant_")
    (found,) = kept(pytester)
    assert json.loads(found.path.read_text())["benchmarks"] == []
    assert found.figures[0].ratio is not None
    capsys.readouterr()
    assert main(["history", "--storage", str(pytester.path / ".benchmarks"), "--json"]) == 0
    (listed,) = json.loads(capsys.readouterr().out)
    assert len(listed["runs"]) == 1
    assert benchmark_tool(pytester, "compare", "--columns=min").count("net::w8") == 1


def test_benchmarks_of_the_users_own_are_not_ours(run: Run, given: tuple[str, ...], pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_own="def test_own(benchmark):\n    benchmark.pedantic(len, ('',), rounds=3)")
    assert run("test_own.py").status == 0
    assert names(pytester) == []
    assert run(*given, "-k", "latency or own", "test_own.py").status == 0
    (found,) = kept(pytester)
    assert {entry["group"] for entry in json.loads(found.path.read_text())["benchmarks"]} == {"net w8"}


def test_runs_at_once_are_all_appended(
    run: Run, given: tuple[str, ...], pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *given, "-k", "size"]
    processes = [subprocess.Popen([*command, f"--mnn-cache-dir=cache{number}"]) for number in range(3)]
    assert [process.wait() for process in processes] == [0, 0, 0]
    assert len(kept(pytester)) == 3


KILLS = """
import os, signal, time

def pytest_runtest_setup(item):
    if item.nodeid.endswith("::bundle"):
        time.sleep(2.1)  # longer than the pause between two writes

def pytest_runtest_logfinish(nodeid):
    if nodeid.endswith("::bundle"):
        os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_run_that_is_killed_keeps_what_it_had(run: Run, given: tuple[str, ...], pytester: pytest.Pytester) -> None:
    pytester.makeconftest(KILLS)
    done = pytester.runpytest_subprocess("-p", "no:cacheprovider", "--mnn-cache-dir=cache", *given)
    assert done.ret == -9
    (found,) = kept(pytester)
    assert not found.complete
    assert found.figures[0].size is not None
    assert found.figures[0].coverage == 1.0
    assert [name for name in names(pytester) if name.endswith(".part")] == []


def test_a_run_that_stops_early_is_not_complete(run: Run, given: tuple[str, ...], pytester: pytest.Pytester) -> None:
    assert run(*given, "-k", "size", "--mnn-min-size-ratio=99", "-x").status == 1
    (found,) = kept(pytester)
    assert (found.complete, found.figures[0].failed) == (False, ("size",))


def test_the_baseline_check_alone_appends_all_that_it_measured(
    run: Run, given: tuple[str, ...], pytester: pytest.Pytester
) -> None:
    usual = (*given, "--mnn-evaluation=net.py:evaluation", "--benchmark-disable")
    assert run(*usual, "-k", "not latency", "--mnn-update-baseline").status == 0
    alone = run(*usual, "-k", "baseline and not entries")
    assert alone.passed == {"w8::baseline"}, alone.text
    whole, one = (ours.figures[0] for ours in kept(pytester))
    assert (one.size, one.float_size, one.coverage) == (whole.size, whole.float_size, 1.0)
    assert (one.accuracy, one.metric, one.lower_is_better) == (whole.accuracy, "top1", False)
    assert one.memory
    assert one.float_memory
    assert one.sha256 == whole.sha256  # Of the file as it is, not the baseline's, without MNN's uuid.


def test_workers_append_one_run(run: Run, given: tuple[str, ...], pytester: pytest.Pytester) -> None:
    assert run(*given, "-k", "size or coverage or latency", "-n2", alone=True).status == 0
    (found,) = kept(pytester)
    (figures,) = found.figures
    assert figures.size
    assert figures.coverage
    assert figures.ratio is None
    assert found.complete


def test_benchmarks_that_are_disabled_leave_the_other_figures(
    run: Run, given: tuple[str, ...], pytester: pytest.Pytester
) -> None:
    assert run(*given, "-k", "size or latency", "--benchmark-disable").status == 0
    (found,) = kept(pytester)
    assert found.figures[0].size
    assert found.figures[0].ratio is None


def test_another_folder_is_taken_from_pytest_benchmark(
    run: Run, given: tuple[str, ...], pytester: pytest.Pytester
) -> None:
    assert run(*given, "-k", "size", "--benchmark-storage=file://./elsewhere").status == 0
    assert len(kept(pytester, "elsewhere")) == 1
    assert not (pytester.path / ".benchmarks").exists()


def test_tests_of_ones_own_are_appended_too(run: Run, pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        test_own="""
        import pytest
        from pytest_mnnquant import assert_quantized

        @pytest.mark.mnn(model="net.py:build", recipes=["w8"])
        def test_own(mnn_quantized):
            assert_quantized(mnn_quantized)
        """
    )
    assert run().status == 0
    (found,) = kept(pytester)
    assert found.figures[0].coverage == 1.0


@pytest.mark.parametrize("off", [("-p", "no:benchmark"), ("-k", "params"), ("--co",)])
def test_nothing_is_appended_without_storage_or_figures(
    run: Run, given: tuple[str, ...], pytester: pytest.Pytester, off: tuple[str, ...]
) -> None:
    found = run(*given, *off)
    assert found.status == 0
    assert "history" not in found.text
    assert names(pytester) == [] if (pytester.path / ".benchmarks").exists() else True


def test_a_storage_that_can_not_be_written_is_a_warning_and_no_failure(
    run: Run, given: tuple[str, ...], pytester: pytest.Pytester
) -> None:
    (pytester.path / "file").touch()
    found = run(*given, "-k", "size", "--benchmark-storage=./file")
    assert (found.status, found.passed) == (0, {"w8::size"})
    assert f"WARNING: history: {Path(pytester.path)}/file/" in found.text
    assert "Not a directory" in found.text
