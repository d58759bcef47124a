"""The file is written as a whole or not at all, whoever else writes and whatever happens."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pytest_mnnquant.baseline.file import BadBaseline, Baseline, as_text, read_baseline
from pytest_mnnquant.baseline.models import BadArtifact, drop, folder_of, keep, kept_model, place_of
from pytest_mnnquant.baseline.write import update_file
from pytest_mnnquant.cache.atomic_write import is_read_only, write_whole
from pytest_mnnquant.mnnfile.fingerprint import fingerprint
from pytest_mnnquant.mnnfile.model import read_model
from pytest_mnnquant.quantize.variant import Variant
from tests.conftest import TIMEOUT
from tests.history.accepted import baseline, entry

NAME = "mnnquant-baseline.json"
TIMES_KILLED = 40
# Adds entries of its own, one after the other, as so many runs would.
ADDS = """
import sys
from pathlib import Path
from pytest_mnnquant.baseline.write import update_file
from pytest_mnnquant.baseline.update import updated
from tests.history.accepted import entry

path, name, count = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
for number in range(count):
    update_file(path, lambda before: updated(before, [entry(f"{name}{number}")]))
"""
# Writes one of two baselines after the other until it is killed.
WRITES = """
import itertools, sys
from pathlib import Path
from pytest_mnnquant.baseline.write import update_file
from tests.history.accepted import baseline, entry

path = Path(sys.argv[1])
print("ready", flush=True)
for which in itertools.cycle((1, 2)):
    new = baseline(*(entry(f"net{n}", size=which) for n in range(200)))
    update_file(path, lambda _: (new, None))
"""


def started(program: str, *args: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", program, *map(str, args)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parent.parent.parent)


def accept(path: Path, accepted: Baseline) -> None:
    update_file(path, lambda _: (accepted, None))


def test_a_new_file_is_written_with_its_folder_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "deep" / NAME
    accept(path, baseline(entry()))
    assert path.read_text() == as_text(baseline(entry()))
    assert [found.name for found in path.parent.iterdir()] == [NAME]
    mask = os.umask(0)
    os.umask(mask)
    assert path.stat().st_mode & 0o777 == 0o666 & ~mask


def test_what_stays_as_it_is_is_not_written(tmp_path: Path) -> None:
    path = tmp_path / NAME
    accept(path, baseline(entry()))
    path.write_text(path.read_text().replace("\n ", "\n    "))  # Somebody's own layout.
    before = path.read_bytes()
    accept(path, baseline(entry()))
    assert path.read_bytes() == before
    accept(tmp_path / "none.json", Baseline())
    assert not (tmp_path / "none.json").exists()


def test_mode_and_link_stay(tmp_path: Path) -> None:
    path, link = tmp_path / "real.json", tmp_path / NAME
    accept(path, baseline(entry()))
    path.chmod(0o640)
    link.symlink_to(path)
    accept(link, baseline(entry(size=1)))
    assert link.is_symlink()
    assert read_baseline(path) == baseline(entry(size=1))
    assert path.stat().st_mode & 0o777 == 0o640


def test_a_file_that_can_not_be_read_is_not_overwritten(tmp_path: Path) -> None:
    path = tmp_path / NAME
    path.write_text("<<<<<<< ours\n")
    with pytest.raises(BadBaseline):
        accept(path, baseline(entry()))
    assert path.read_text() == "<<<<<<< ours\n"


def test_a_read_only_file_is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / NAME
    accept(path, baseline(entry()))
    assert not is_read_only(path)
    path.chmod(0o444)
    assert is_read_only(path)
    with pytest.raises(PermissionError, match="it is read-only"):
        accept(path, baseline(entry(size=1)))
    assert read_baseline(path) == baseline(entry())
    assert [found.name for found in tmp_path.iterdir()] == [NAME]


def test_a_write_that_fails_leaves_the_old_file_and_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / NAME
    path.write_bytes(b"old")

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_whole(path, b"new")
    assert path.read_bytes() == b"old"
    assert [found.name for found in tmp_path.iterdir()] == [NAME]


@pytest.mark.slow
def test_processes_at_once_all_land_their_entries(tmp_path: Path) -> None:
    path = tmp_path / NAME
    running = [started(ADDS, path, name, 10) for name in ("a", "b", "c")]
    said = [process.communicate(timeout=TIMEOUT)[0] for process in running]
    assert [process.returncode for process in running] == [0, 0, 0], said
    assert set(read_baseline(path).models) == {f"{name}{number}" for name in "abc" for number in range(10)}
    assert [found.name for found in tmp_path.iterdir()] == [NAME]


def test_without_a_lock_on_folders_a_file_stands_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import fcntl

    real = fcntl.flock
    locked = []

    def picky(descriptor: int, how: int) -> None:
        if os.path.isdir(f"/proc/self/fd/{descriptor}"):  # noqa: PTH112  As a network's file system does.
            raise OSError(9, "Bad file descriptor")
        locked.append(descriptor)
        real(descriptor, how)

    monkeypatch.setattr(fcntl, "flock", picky)
    accept(tmp_path / NAME, baseline(entry()))
    assert len(locked) == 1
    assert [found.name for found in tmp_path.iterdir()] == [NAME]


@pytest.mark.slow
def test_killed_at_any_moment_it_is_the_old_or_the_new_file(tmp_path: Path) -> None:
    path = tmp_path / NAME
    both = [as_text(baseline(*(entry(f"net{n}", size=which) for n in range(200)))) for which in (1, 2)]
    path.write_text(both[0])
    moments = random.Random(0)
    seen, longest = set(), 0.06
    for _ in range(TIMES_KILLED):
        with started(WRITES, path) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            time.sleep(moments.uniform(0, longest))
            os.kill(process.pid, signal.SIGKILL)
        content = path.read_text()
        assert content in both
        seen.add(content)
        longest = 0.06 if len(seen) == 2 else longest * 1.3  # A busy machine writes later.
        assert {found.name for found in tmp_path.iterdir()} <= {NAME, f".{NAME}.part"}
    assert len(seen) == 2  # It was killed in the middle of its work.
    accept(path, baseline(entry()))  # What the dead left is no hindrance.
    assert [found.name for found in tmp_path.iterdir()] == [NAME]


def test_models_are_kept_only_where_there_is_a_folder(tmp_path: Path, digits_w4: Variant) -> None:
    path = tmp_path / NAME
    assert folder_of(path) is None
    assert folder_of(tmp_path) is None
    folder = tmp_path / "mnnquant-baseline"
    folder.mkdir()
    assert folder_of(path) == folder
    accepted = fingerprint(digits_w4.model)
    assert kept_model(folder, "net", "w4", accepted) is None
    keep(folder, "net", "int8-eval", digits_w4.model.path)
    assert place_of(folder, "net", "int8-eval") == folder / "net" / "int8-eval.mnn"
    found = kept_model(folder, "net", "int8-eval", accepted)
    assert found is not None
    assert found.path.read_bytes() == digits_w4.model.path.read_bytes()
    with pytest.raises(BadArtifact, match="is not the accepted model"):
        kept_model(folder, "net", "int8-eval", "another")
    drop(folder, "net", "int8-eval")
    assert kept_model(folder, "net", "int8-eval", accepted) is None


def test_external_weights_go_along(tmp_path: Path, digits_w4: Variant) -> None:
    model = tmp_path / "net.mnn"
    model.write_bytes(digits_w4.model.path.read_bytes())
    weights = tmp_path / "net.mnn.weight"
    weights.write_bytes(b"weights")
    folder = tmp_path / "kept"
    keep(folder, "net", "w4", model)
    beside = folder / "net" / "w4.mnn.weight"
    assert beside.read_bytes() == b"weights"
    weights.unlink()
    keep(folder, "net", "w4", model)
    assert not beside.exists()


@pytest.mark.parametrize("part", ["w4.mnn", "w4.mnn.weight"])
def test_what_git_lfs_has_not_fetched_is_reported_with_the_command(
    tmp_path: Path, digits_w4: Variant, part: str
) -> None:
    keep(tmp_path, "net", "w4", digits_w4.model.path)
    (tmp_path / "net" / part).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    with pytest.raises(BadArtifact, match="git-lfs") as error:
        kept_model(tmp_path, "net", "w4", fingerprint(read_model(digits_w4.model.path)))
    assert "git lfs pull" in error.value.fix


def test_half_a_kept_model_is_told(tmp_path: Path, digits_w4: Variant) -> None:
    keep(tmp_path, "net", "w4", digits_w4.model.path)
    place = place_of(tmp_path, "net", "w4")
    place.write_bytes(place.read_bytes()[:100])
    with pytest.raises(BadArtifact) as error:
        kept_model(tmp_path, "net", "w4", fingerprint(digits_w4.model))
    assert str(place) in str(error.value)


@pytest.mark.parametrize("name", ["../up", "a/b", ".", "..", "a b", "net:x", ""])
def test_no_name_leads_out_of_the_folder(tmp_path: Path, name: str) -> None:
    place = place_of(tmp_path, name, name)
    assert place.resolve().parent.parent == tmp_path.resolve()
    assert place.parent.name not in ("", ".", "..")


def test_names_that_must_be_replaced_share_no_place(tmp_path: Path) -> None:
    assert len({place_of(tmp_path, name, "w8") for name in ("a/b", "a_b", "a b", "a:b")}) == 4
