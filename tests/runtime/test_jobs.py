"""A native job in a child process: its crash, its silence and its hanging are failures with a reason."""

from __future__ import annotations

import re
import signal
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import pytest

from pytest_mnnquant.runtime import jobs
from pytest_mnnquant.runtime.command import Command
from pytest_mnnquant.runtime.jobs import FailureKind, Job, NativeFailure, run_job, tail
from tests.golden_text import check_golden

Script = Callable[[str], Command]
SLEEPING_FAMILY = """
import pathlib, subprocess, sys, time
grandchild = subprocess.Popen(["sleep", "600"])
pathlib.Path("pids").write_text(f"{__import__('os').getpid()} {grandchild.pid}")
print("asleep", flush=True)
time.sleep(600)
"""


@pytest.fixture
def script(tmp_path: Path) -> Script:
    """Writes a program that ends in ways that MNN can't be brought to; returns the command that runs it."""

    def write(text: str) -> Command:
        path = tmp_path / "scratch_runner.py"
        path.write_text(text)
        return Command(path)

    return write


def ends(pid: int) -> bool:
    """Whether a process that was killed goes away; where nobody waits for it, it stays as a zombie."""
    for _ in range(200):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return True
        if state == "Z":
            return True
        time.sleep(0.05)
    return False


def test_a_crash_of_mnn_is_told_with_its_signal(tmp_path: Path) -> None:
    """MNN reads any file with -f MNN without a look at it."""
    (tmp_path / "random.mnn").write_bytes(bytes(range(1, 256)) * 40)
    arguments = ["-f", "MNN", "--modelFile", "random.mnn", "--MNNModel", "out.mnn", "--bizCode", "MNN"]
    with pytest.raises(NativeFailure, match=r"^converting it: MNN crashed with SIG(SEGV|BUS|ABRT)") as error:
        run_job(Job("convert", "converting it", 60, {"arguments": arguments}), tmp_path)
    assert error.value.kind is FailureKind.CRASHED
    assert "last lines of its log" in str(error.value) or not error.value.log


@pytest.mark.parametrize("name", ["SIGSEGV", "SIGABRT", "SIGKILL", "SIGFPE"])
def test_a_signal_is_named(tmp_path: Path, script: Script, name: str) -> None:
    command = script(f"import os, signal\nprint('so far so good', flush=True)\nos.kill(os.getpid(), signal.{name})")
    with pytest.raises(NativeFailure, match=f"crashed with {name}") as error:
        run_job(Job("run", "it", 60), tmp_path, command)
    assert error.value.log.split() == ["so", "far", "so", "good"]
    check_golden("jobs/a-crash", str(error.value), signal=name)


def test_a_signal_without_a_name_is_told_by_its_number() -> None:
    assert "signal 250" in jobs._describe_exit(-250)


@pytest.mark.parametrize(("end", "status"), [("raise SystemExit(3)", 3), ("raise SystemExit(0)", 0), ("1 / 0", 1)])
def test_an_end_without_a_result_is_a_failure(tmp_path: Path, script: Script, end: str, status: int) -> None:
    command = script(end)
    (tmp_path / "result.json").write_text('{"left over": "from an earlier job"}')
    with pytest.raises(NativeFailure, match=f"ended with exit status {status} and no result") as error:
        run_job(Job("run", "it", 60), tmp_path, command)
    assert error.value.kind is FailureKind.EXITED


def test_a_result_with_a_bad_exit_status_is_not_believed(tmp_path: Path, script: Script) -> None:
    command = script("open('result.json', 'w').write('{}')\nraise SystemExit(1)")
    with pytest.raises(NativeFailure, match="exit status 1"):
        run_job(Job("run", "it", 60), tmp_path, command)


def test_the_job_arrives_and_the_result_comes_back(tmp_path: Path, script: Script) -> None:
    command = script(
        "import json, os, pathlib, sys\n"
        "job = json.load(open(sys.argv[1]))\n"
        "print('x' * 100_000)\n"
        "answer = {'job': job, 'folder': os.getcwd(), 'stdin': sys.stdin.read()}\n"
        "pathlib.Path('result.json').write_text(json.dumps(answer))"
    )
    result = run_job(Job("task", "it", 60, {"batch": 3, "name": "ä"}), tmp_path, command)
    assert result.values["job"] == {"protocol": 1, "task": "task", "batch": 3, "name": "ä"}
    assert result.values["folder"] == str(tmp_path.resolve())
    assert result.values["stdin"] == ""


def test_the_limit_ends_the_whole_family(tmp_path: Path, script: Script) -> None:
    command = script(SLEEPING_FAMILY)
    with pytest.raises(NativeFailure, match=r"^it: not finished after 2 s \(limit: --mnn-timeout\)") as error:
        run_job(Job("run", "it", 2), tmp_path, command)
    assert (error.value.kind, error.value.log) == (FailureKind.TIMED_OUT, "asleep")
    pids = [int(pid) for pid in (tmp_path / "pids").read_text().split()]
    assert [ends(pid) for pid in pids] == [True, True]


def test_an_interrupt_of_the_user_ends_the_whole_family(tmp_path: Path, script: Script) -> None:
    command = script(SLEEPING_FAMILY)

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        if (tmp_path / "pids").exists() and (tmp_path / "pids").stat().st_size:
            raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 0.2, 0.2)
    try:
        with pytest.raises(KeyboardInterrupt):
            run_job(Job("run", "it", 60), tmp_path, command)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    pids = [int(pid) for pid in (tmp_path / "pids").read_text().split()]
    assert [ends(pid) for pid in pids] == [True, True]


def test_an_exception_in_the_job_is_told_in_its_words(tmp_path: Path) -> None:
    with pytest.raises(NativeFailure, match=r"^it: Exception: .*Invalid model file") as error:
        run_job(Job("observe", "it", 60, {"model": "none.mnn", "inputs": {}, "batch": 1, "ops": []}), tmp_path)
    assert error.value.kind is FailureKind.RAISED
    assert "Can't open file:none.mnn" in error.value.log
    with pytest.raises(NativeFailure, match="KeyError: 'no such task'"):
        run_job(Job("no such task", "it", 60), tmp_path)


def test_another_version_of_the_runner_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "_PROTOCOL", 99)
    with pytest.raises(NativeFailure, match="exit status 1") as error:
        run_job(Job("convert", "it", 60), tmp_path)
    assert re.search(r"protocol 1\b.* 99\b", error.value.log)


def test_the_tail_is_the_last_lines_without_noise(tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    assert tail(log) == ""
    log.write_bytes(b"".join(b"line %d\n\n" % number for number in range(30)) + b"The device supports: i8sdot:0\n\xff")
    assert tail(log, 3) == "line 28\nline 29\n�"
    assert len(tail(log).splitlines()) == 12


def test_a_failure_without_a_log_is_its_first_line() -> None:
    assert str(NativeFailure(FailureKind.EXITED, "it failed")) == "it failed"


def test_another_program_gets_its_environment_and_is_named_in_its_failure(tmp_path: Path) -> None:
    program = tmp_path / "other.py"
    program.write_text("import os, pathlib\npathlib.Path('seen').write_text(os.environ['MINE'])\nos.abort()")
    with pytest.raises(NativeFailure, match=r"^it: their code crashed with SIGABRT"):
        run_job(Job("any", "it", 60, who="their code"), tmp_path, Command(program, environment={"MINE": "yes"}))
    assert (tmp_path / "seen").read_text() == "yes"


def test_what_a_finished_job_left_running_is_ended(tmp_path: Path, script: Script) -> None:
    command = script(
        "import pathlib, subprocess\n"
        "pathlib.Path('pid').write_text(str(subprocess.Popen(['sleep', '600']).pid))\n"
        "pathlib.Path('result.json').write_text('{}')"
    )
    assert run_job(Job("run", "it", 60), tmp_path, command).values == {}
    assert ends(int((tmp_path / "pid").read_text()))
