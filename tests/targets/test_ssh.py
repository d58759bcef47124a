"""A machine behind a real sshd: what runs there is what runs here, each failure is told, and nothing is left behind."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest

from pytest_mnnquant.config.settings import model_settings
from pytest_mnnquant.evidence.export import ExportOnTarget, ExportUnderTest
from pytest_mnnquant.findings.finding import PASSED
from pytest_mnnquant.findings.run_metrics import ExecutionMetrics
from pytest_mnnquant.measurements.timing import TimingSettings
from pytest_mnnquant.mnnfile.model import Model
from pytest_mnnquant.quantize.prepared import Prepared
from pytest_mnnquant.quantize.variant import Variant
from pytest_mnnquant.runtime.inference import Arrays, run
from pytest_mnnquant.runtime.jobs import FailureKind
from pytest_mnnquant.runtime.options import RunOptions
from pytest_mnnquant.runtime.timing import memory_use, paired_times
from pytest_mnnquant.targets import connection, ssh
from pytest_mnnquant.targets.parse import target_named
from pytest_mnnquant.targets.self_test import run_self_test
from pytest_mnnquant.targets.ssh import SshLauncher
from pytest_mnnquant.targets.target import Target, TargetFailure
from tests.conftest import TIMEOUT
from tests.hosts import SshHost, needs_hosts, ssh_host
from tests.llm.conftest import DATA, EXPORTS

pytestmark = needs_hosts
PYTHON = shlex.quote(sys.executable)


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SshHost]:
    with ssh_host(tmp_path_factory.mktemp("host")) as found:
        yield found


@pytest.fixture
def room(tmp_path: Path) -> Path:
    """Where the machine's jobs lie."""
    path = tmp_path / "room"
    path.mkdir()
    return path


@pytest.fixture
def board(host: SshHost, room: Path) -> Iterator[Target]:
    made = behind(host, room)
    yield made
    made.close()
    emptied(room)


@pytest.fixture
def images(digits: Prepared) -> Arrays:
    assert digits.evaluation is not None
    return digits.evaluation.head(40)


def behind(host: SshHost, room: Path, python: str = PYTHON) -> Target:
    table = {"ssh": f"ssh://root@{host.address}/", "python": python, "folder": str(room), "options": [*host.options]}
    made = target_named("board", {"board": table})
    assert made is not None
    return made


def emptied(room: Path) -> None:
    """What a connection held and ran there is gone, soon after it."""
    end = time.monotonic() + 20
    while left := [*room.iterdir(), *processes(room)]:
        assert time.monotonic() < end, left
        time.sleep(0.05)


def processes(room: Path) -> list[int]:
    """What runs with something of this folder on its command line."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            found += [int(path.parent.name)] if str(room).encode() in path.read_bytes() else []
    return found


def failure(target: Target, model: Model, images: Arrays, timeout: float = TIMEOUT) -> TargetFailure:
    with pytest.raises(TargetFailure) as error:
        run(model, images, RunOptions(timeout, send=target.send))
    assert str(error.value).startswith("board: ")
    return error.value


def test_what_runs_there_is_what_runs_here(board: Target, digits_int8: Variant, images: Arrays, room: Path) -> None:
    there = run(digits_int8.model, images, RunOptions(TIMEOUT, send=board.send))
    here = run(digits_int8.model, images, RunOptions(TIMEOUT))
    np.testing.assert_array_equal(there.outputs["output"], here.outputs["output"])
    assert there.trace == here.trace
    assert there.machine is not None
    assert (there.machine.mnn, there.machine.host.machine) == (version("mnn"), os.uname().machine)
    (mine,) = room.iterdir()
    held = {path.name: path.stat().st_mtime_ns for path in (mine / "held").iterdir()}
    again = run(digits_int8.model, images, RunOptions(TIMEOUT, send=board.send))
    np.testing.assert_array_equal(again.outputs["output"], here.outputs["output"])
    # Through the same connection, and what was sent before is not sent again.
    assert {path.name: path.stat().st_mtime_ns for path in (mine / "held").iterdir()} == held
    assert list(room.iterdir()) == [mine]


def test_inputs_are_sent_once_whatever_runs_in_between(
    board: Target, digits_int8: Variant, images: Arrays, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[str] = []
    send = connection.Connection.send_file

    def counted(own: connection.Connection, path: Path, size: int, end: float) -> None:
        sent.append(path.name)
        send(own, path, size, end)

    monkeypatch.setattr(connection.Connection, "send_file", counted)
    many = {name: np.repeat(array, 40, 0) for name, array in images.items()}
    for _ in range(2):
        run(digits_int8.model, many, RunOptions(TIMEOUT, send=board.send))
        memory_use(digits_int8.model, images, RunOptions(TIMEOUT, send=board.send))
    assert sent.count("input0.npy") == 3  # `images` are small.
    run(digits_int8.model, {name: array + 1 for name, array in many.items()}, RunOptions(TIMEOUT, send=board.send))
    assert isinstance(board.launcher, SshLauncher)
    assert sum(board.launcher._held.values()) <= 2 * board.launcher._largest


def test_time_and_memory_are_measured_there(
    board: Target, digits: Prepared, digits_int8: Variant, images: Arrays
) -> None:
    how = TimingSettings(pairs=20, most=20, budget=5.0)
    times = paired_times(digits.model, digits_int8.model, images, how, RunOptions(TIMEOUT, send=board.send))
    assert len(times.reference) == len(times.candidate) == 20
    assert times.reference.min() > 0
    assert times.host is not None
    assert (times.host.machine, times.host.name) == (os.uname().machine, os.uname().nodename)
    there = memory_use(digits_int8.model, images, RunOptions(TIMEOUT, send=board.send))
    here = memory_use(digits_int8.model, images, RunOptions(TIMEOUT))
    assert there[0].session == here[0].session > 0


def test_a_check_says_what_works(board: Target) -> None:
    lines = list(run_self_test(board, TIMEOUT))
    assert lines[0].startswith(f"board: {os.uname().machine}, Python ")
    assert lines[-1] == "  latency, memory: yes"


def test_a_shell_that_greets_everybody_is_no_hindrance(
    host: SshHost, room: Path, digits_int8: Variant, images: Arrays
) -> None:
    made = behind(host, room, python=f"echo Welcome; cd /; {PYTHON}")
    assert run(digits_int8.model, images, RunOptions(TIMEOUT, send=made.send)).outputs
    made.close()


def test_a_changed_host_key_sends_nothing(host: SshHost, room: Path, digits_int8: Variant, images: Arrays) -> None:
    made = behind(host, room)
    known = (host.folder / "known_hosts").read_text()
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(room.parent / "other")], check=True)
    key = (room.parent / "other.pub").read_text()
    (host.folder / "known_hosts").write_text(f"{host.address} {key}")
    try:
        found = failure(made, digits_int8.model, images)
        assert found.kind is FailureKind.NO_CONNECTION
        assert "ssh-keygen -R" in found.fix
        assert list(room.iterdir()) == []
        started = time.monotonic()
        again = failure(made, digits_int8.model, images)  # It is not tried again in this run.
        assert (again.what, time.monotonic() - started < 1) == (found.what, True)
        (host.folder / "known_hosts").write_text("")
        found = failure(behind(host, room), digits_int8.model, images)
        assert (found.kind, "known_hosts" in found.fix) == (FailureKind.NO_CONNECTION, True)
    finally:
        (host.folder / "known_hosts").write_text(known)


def other_agent(room: Path, monkeypatch: pytest.MonkeyPatch, part: str, instead: str) -> None:
    """Replace a part of the remote agent."""
    source = ssh._AGENT.read_text()
    agent = room.parent / "agent.py"
    agent.write_text(source.replace(part, instead))
    assert agent.read_text() != source
    monkeypatch.setattr(ssh, "_AGENT", agent)


def answering(room: Path, monkeypatch: pytest.MonkeyPatch, answer: bytes) -> None:
    """Have the remote agent answer jobs with this."""
    told = f"def do(self, *_):\n        self.write({answer!r})\n\n    def other(self, "
    other_agent(room, monkeypatch, "def do(self, ", told)


def test_a_machine_that_hangs_before_python_is_given_up_once(
    host: SshHost, room: Path, digits_int8: Variant, images: Arrays, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ssh, "_STARTING", 2.0)
    made = behind(host, room, python="cat >/dev/null; python3")
    found = failure(made, digits_int8.model, images)
    assert (found.kind, "in 2 s" in found.what) == (FailureKind.NO_CONNECTION, True)
    assert f"root@{host.address} true" in found.fix
    started = time.monotonic()
    assert failure(made, digits_int8.model, images).what == found.what
    assert time.monotonic() - started < 1


@pytest.mark.parametrize(
    "answer",
    [
        "[]",
        "7",
        "not JSON",
        r'{"progress": "\u00e4"}',
        '{"done": 0}',
        '{"done": 0, "files": [["result.json", "x"]]}',
        "x" * (3 << 20),
    ],
)
def test_an_answer_that_is_none_of_ours(
    host: SshHost, room: Path, digits_int8: Variant, images: Arrays, monkeypatch: pytest.MonkeyPatch, answer: str
) -> None:
    answering(room, monkeypatch, answer.encode() + b"\n")
    made = behind(host, room)
    assert failure(made, digits_int8.model, images).kind is FailureKind.BAD_ANSWER
    emptied(room)


def test_nothing_is_written_but_into_the_job_s_folder(
    host: SshHost, room: Path, digits_int8: Variant, images: Arrays, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the other end calls what it hands back, and however long it says that it is."""
    said = {"done": 0, "files": [["../escaped", 4], ["/etc/escaped", 4], ["below", -1], ["..", 4]]}
    answering(room, monkeypatch, json.dumps(said).encode() + b"\n" + bytes(12))
    monkeypatch.setenv("TMPDIR", str(room.parent))
    monkeypatch.setattr("tempfile.tempdir", None)
    failure(behind(host, room), digits_int8.model, images)
    assert not [*room.parent.rglob("*escaped"), *Path("/etc").glob("escaped")]
    emptied(room)


def test_who_has_no_key_stays_out(host: SshHost, room: Path, digits_int8: Variant, images: Arrays) -> None:
    table = {"ssh": f"root@{host.address}", "options": ["-F", "none", *host.options[4:], "-i", "/dev/null"]}
    made = target_named("board", {"board": table})
    assert made is not None
    found = failure(made, digits_int8.model, images)
    assert found.kind is FailureKind.NO_CONNECTION
    assert "ssh-copy-id" in found.fix


@pytest.mark.parametrize(
    ("address", "told"), [("root@{host}:1", "Connection refused"), ("root@no-such.invalid", "no-such.invalid")]
)
def test_a_machine_that_is_not_there(
    host: SshHost, digits_int8: Variant, images: Arrays, address: str, told: str
) -> None:
    table = {"ssh": "ssh://" + address.format(host=host.address), "options": [*host.options]}
    made = target_named("board", {"board": table})
    assert made is not None
    found = failure(made, digits_int8.model, images)
    assert (found.kind, "255" in found.what) == (FailureKind.NO_CONNECTION, True)
    assert told in found.log
    user, _, port = address.format(host=host.address).partition(":")
    assert f"{'-p 1 ' if port else ''}{user} true" in found.fix  # As ssh and ssh-copy-id take it.


def test_no_python_there(host: SshHost, room: Path, digits_int8: Variant, images: Arrays) -> None:
    found = failure(behind(host, room, python="/etc/passwd"), digits_int8.model, images)
    # "Permission denied", but not ssh's.
    assert (found.kind, "/etc/passwd" in found.what) == (FailureKind.NOT_STARTED, True)
    found = failure(behind(host, room, python="no-such-python"), digits_int8.model, images)
    assert (found.kind, "no-such-python" in found.what) == (FailureKind.NOT_STARTED, True)
    assert 'python = "..." in [tool.mnnquant.targets.board]' in found.fix


@pytest.mark.parametrize(
    ("shell", "kind"),
    [
        ("echo 'no-such-python: Command not found.' >&2; exit 1;", FailureKind.NOT_STARTED),  # As csh has it.
        (f'old() {{ {PYTHON} -c "import sys; sys.version_info = (3, 7); $2"; }}; old', FailureKind.WRONG_VERSION),
    ],
)
def test_no_python_that_can_be_used_there(
    host: SshHost, room: Path, digits_int8: Variant, images: Arrays, shell: str, kind: FailureKind
) -> None:
    found = failure(behind(host, room, python=shell), digits_int8.model, images)
    assert found.kind is kind
    assert 'python = "..." in [tool.mnnquant.targets.board]' in found.fix


def test_no_numpy_there(host: SshHost, room: Path, digits_int8: Variant, images: Arrays) -> None:
    own = room.parent / "own"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(own)], check=True)
    found = failure(behind(host, room, python=f"{own}/bin/python"), digits_int8.model, images)
    assert found.kind is FailureKind.MISSING_PACKAGE
    assert f"pip install MNN=={version('mnn')}" in found.fix
    (package,) = (own / "lib").glob("python*/site-packages")
    import MNN

    for path in Path(MNN.__file__).parents[1].iterdir():
        if path.name.lower().startswith(("mnn", "_mnn")):
            (package / path.name).symlink_to(path)
    found = failure(behind(host, room, python=f"{own}/bin/python"), digits_int8.model, images)
    assert found.kind is FailureKind.MISSING_PACKAGE
    assert "pip install numpy" in found.fix


@contextlib.contextmanager
def disk(host: SshHost, room: Path, size: str) -> Iterator[None]:
    """A disk of its own for what lies there."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(room)], check=True)
    host.stop()
    host.start()  # A namespace sees what is mounted when its processes start.
    try:
        yield
    finally:
        subprocess.run(["umount", str(room)], check=True)


def test_a_full_disk_there(host: SshHost, room: Path, digits_int8: Variant, images: Arrays) -> None:
    with disk(host, room, "320k"):
        made = behind(host, room)
        found = failure(made, digits_int8.model, {name: np.repeat(array, 50, 0) for name, array in images.items()})
        assert (found.kind, "input0.npy" in found.what) == (FailureKind.NO_SPACE, True)
        assert 'folder = "..." in [tool.mnnquant.targets.board]' in found.fix
        few = {name: array[:1] for name, array in images.items()}
        assert run(digits_int8.model, few, RunOptions(TIMEOUT, send=made.send))
        made.close()
        emptied(room)


def test_a_small_disk_is_left_to_the_jobs(host: SshHost, room: Path, digits_int8: Variant, images: Arrays) -> None:
    many = {name: np.repeat(array, 40, 0) for name, array in images.items()}
    with disk(host, room, "6m"):
        made = behind(host, room)
        run(digits_int8.model, many, RunOptions(TIMEOUT, send=made.send))
        memory_use(digits_int8.model, images, RunOptions(TIMEOUT, send=made.send))
        (mine,) = room.iterdir()
        assert max(path.stat().st_size for path in (mine / "held").iterdir()) < 1 << 20
        made.close()
        emptied(room)


def python_that(room: Path, does: str) -> str:
    """A Python that does something before it runs the runner."""
    place = room.parent / "does"
    place.mkdir()
    code = f"import sys\nif 'programs' in sys.orig_argv:\n    {does}\n"
    (place / "sitecustomize.py").write_text(code)
    return f"env PYTHONPATH={place} {PYTHON}"


def test_a_disk_that_gets_full_while_the_runner_runs(
    host: SshHost, room: Path, digits_int8: Variant, images: Arrays
) -> None:
    with disk(host, room, "1m"):
        fills = python_that(room, f"open('{room}/other', 'wb', buffering=0).write(bytes(2 << 20))")
        made = behind(host, room, python=fills)
        found = failure(made, digits_int8.model, images)
        assert (found.kind, str(room) in found.what) == (FailureKind.NO_SPACE, True)
        made.close()
        (room / "other").unlink()
        emptied(room)


def runner_of(room: Path) -> int:
    """The runner's process, once it works there."""
    end = time.monotonic() + TIMEOUT
    while not (found := processes(room)):
        assert time.monotonic() < end
        time.sleep(0.02)
    return found[0]


def parent_of(process: int) -> int:
    (line,) = re.findall(r"^PPid:\s*(\d+)$", Path(f"/proc/{process}/status").read_text(), re.MULTILINE)
    return int(line)


@pytest.fixture
def hanging(room: Path) -> str:
    """A Python whose runner never ends."""
    return python_that(room, "print('thinking', flush=True); import time; time.sleep(600)")


def test_a_hanging_runner_is_given_up_and_nothing_is_left(
    host: SshHost, room: Path, hanging: str, digits_int8: Variant, images: Arrays
) -> None:
    made = behind(host, room, python=hanging)
    started = time.monotonic()
    found = failure(made, digits_int8.model, images, timeout=4)
    assert 4 <= time.monotonic() - started < 8
    assert found.kind is FailureKind.TIMED_OUT
    assert "thinking" in found.log
    emptied(room)


def test_a_runner_that_is_killed(host: SshHost, room: Path, hanging: str, digits_int8: Variant, images: Arrays) -> None:
    made = behind(host, room, python=hanging)
    failures: list[TargetFailure] = []
    thread = threading.Thread(target=lambda: failures.append(failure(made, digits_int8.model, images)))
    thread.start()
    os.kill(runner_of(room), signal.SIGKILL)
    thread.join(20)
    assert (failures[0].kind, "SIGKILL" in failures[0].what) == (FailureKind.CRASHED, True)
    made.close()
    emptied(room)


@pytest.mark.parametrize("victim", ["sshd", "agent", "client"])
def test_what_is_killed_in_the_middle_leaves_nothing(
    host: SshHost, room: Path, hanging: str, digits_int8: Variant, images: Arrays, victim: str
) -> None:
    made = behind(host, room, python=hanging)
    failures: list[TargetFailure] = []
    thread = threading.Thread(target=lambda: failures.append(failure(made, digits_int8.model, images)))
    thread.start()
    runner, remote = runner_of(room), made.launcher
    assert isinstance(remote, SshLauncher)
    assert remote._connection is not None
    if victim == "client":
        os.kill(remote._connection._process.pid, signal.SIGKILL)
    elif victim == "agent":
        os.kill(parent_of(runner), signal.SIGKILL)
    else:
        found = parent_of(runner)
        while Path(f"/proc/{found}/comm").read_text() != "sshd\n":
            found = parent_of(found)
        os.kill(found, signal.SIGKILL)
    started = time.monotonic()
    thread.join(20)
    assert time.monotonic() - started < 10
    assert failures[0].kind is FailureKind.LOST_CONNECTION
    emptied(room)
    assert run(digits_int8.model, images, RunOptions(TIMEOUT, send=behind(host, room).send))
    made.close()


def test_who_tells_of_its_progress_all_the_time_is_heard_out(
    host: SshHost, room: Path, digits_int8: Variant, images: Arrays, monkeypatch: pytest.MonkeyPatch
) -> None:
    other_agent(room, monkeypatch, "PATIENCE, IDLE = 60.0", "PATIENCE, IDLE = 1.5")
    monkeypatch.setattr(connection, "_ALIVE", 0.5)
    step = "(open('progress', 'w').write(f'{n} 40 batches'), time.sleep(0.1))"
    made = behind(host, room, python=python_that(room, f"import time; [{step} for n in range(40)]"))
    assert run(digits_int8.model, images, RunOptions(TIMEOUT, send=made.send)).outputs
    made.close()
    emptied(room)


def test_what_was_half_sent_when_the_cable_was_cut_goes_soon(
    host: SshHost, room: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other_agent(room, monkeypatch, "PATIENCE, IDLE = 60.0", "PATIENCE, IDLE = 1.0")
    remote, end = SshLauncher(f"root@{host.address}", PYTHON, str(room), host.options), time.monotonic() + 4
    opened = remote._connect(end, TIMEOUT)
    job = {"program": "programs", "files": {}, "new": [["input0.npy", "0" * 64, 2]], "keep": [], "limit": 60}
    opened.send(json.dumps(job).encode() + b"\n0", end)
    with pytest.raises(connection.ConnectionLost):
        opened.read_line(end)
    remote.close()
    emptied(room)


def test_an_ended_connection_kills_nothing_later(host: SshHost, room: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its process's number may be another's by then."""
    killed: list[int] = []
    made = connection.Connection(["ssh", *host.options, f"root@{host.address}", "true"])
    with pytest.raises(connection.ConnectionLost):
        made.read_line(time.monotonic() + TIMEOUT)
    assert made.wait_for_end() == (0, "")
    monkeypatch.setattr(os, "killpg", lambda process, _: killed.append(process))
    made.close()
    del made
    assert killed == []


def test_a_cable_that_is_cut_leaves_nothing_on_either_side(
    host: SshHost, room: Path, hanging: str, digits_int8: Variant, images: Arrays, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody is told then: each side must find out by itself."""
    other_agent(room, monkeypatch, "PATIENCE, IDLE = 60.0", "PATIENCE, IDLE = 2.0")
    made = behind(host, room, python=hanging)
    failures: list[TargetFailure] = []
    thread = threading.Thread(target=lambda: failures.append(failure(made, digits_int8.model, images, timeout=5)))
    thread.start()
    runner_of(room)
    with host.cut_off():
        thread.join(20)
        assert failures[0].kind is FailureKind.TIMED_OUT
        emptied(room)


def test_a_cable_that_is_cut_while_files_are_sent_says_how_far_they_were(
    host: SshHost, room: Path, digits_int8: Variant, images: Arrays, monkeypatch: pytest.MonkeyPatch
) -> None:
    other_agent(room, monkeypatch, "PATIENCE, IDLE = 60.0, 3600.0", "PATIENCE, IDLE = 2.0, 4.0")
    made = behind(host, room)
    assert run(digits_int8.model, images, RunOptions(TIMEOUT, send=made.send))
    many = {name: np.repeat(array, 1500, 0) for name, array in images.items()}
    with host.cut_off():
        found = failure(made, digits_int8.model, many, timeout=3)
        assert found.kind is FailureKind.TIMED_OUT
        assert re.search(r"[\d.]+ of 61\.\d", found.what), found.what
        assert "raise --mnn-timeout" in found.fix
        emptied(room)


def test_an_export_of_a_language_model_is_judged_there(board: Target, tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("A text in plain English, which is split into many tokens. " * 40, encoding="utf-8")
    values = {"quantized": str(EXPORTS / "qwen2-w4"), "evaluation": str(text), "timeout": TIMEOUT, "max_kl": 0.5}
    home = ExportUnderTest(model_settings(str(DATA / "qwen2"), "qwen2", tmp_path, values), DATA / "qwen2")
    there = ExportOnTarget(home, board)
    assert set(there.checks) >= {"execution", "accuracy"}
    results = [case.run_check(check) for check in ("execution", "accuracy") for case in (home, there)]
    assert [result.outcome for result in results] == [PASSED] * 4
    first, second = results[0].metrics, results[1].metrics
    assert isinstance(first, ExecutionMetrics)
    assert isinstance(second, ExecutionMetrics)
    assert second.kl == pytest.approx(first.kl)
