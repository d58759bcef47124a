"""The files of history: nothing is lost, and nothing that is damaged does harm."""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_mnnquant.findings.figures import Figures
from pytest_mnnquant.history.storage import KEY, Machine, file_name, machine_of, numbered, read_runs, write_run
from tests.history.past import HOST, START, content, sha, store

FULL = Figures(
    model="net", variant="int8-eval", source="net.py:build", size=1000, float_size=3600, coverage=0.99, accuracy=0.9,
    metric="top1", ratio=0.61, ratio_low=0.6, ratio_high=0.62, memory=5000, float_memory=9000, layers={"conv": "int8"},
    failed=("size",), sha256="ab", float_sha256="cd", path="x.mnn",
)  # fmt: skip


def test_all_but_the_layers_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "machine" / file_name(sha(1), START)
    info = {"id": sha(1), "time": "2026-09-01T14:00:00+02:00", "dirty": True}
    write_run(path, content([FULL], START, info))
    (run,) = read_runs(tmp_path)
    assert run.figures == (dataclasses.replace(FULL, layers={}),)
    assert (run.path, run.time, run.commit, run.dirty, run.machine) == (path, START, sha(1), True, HOST)
    assert run.commit_time == START
    assert run.complete


def test_runs_are_in_the_order_of_time_whatever_their_files_are_called(tmp_path: Path) -> None:
    later = store(tmp_path, 1, day=5, size=1)
    earlier = store(tmp_path, 2, day=3, size=2)
    later.rename(later.with_name("0001_" + later.name))
    earlier.rename(earlier.with_name("0002_" + earlier.name))
    assert [run.figures[0].size for run in read_runs(tmp_path)] == [2, 1]


def test_a_storage_that_is_not_there_holds_nothing(tmp_path: Path) -> None:
    assert read_runs(tmp_path / "none") == ()


def test_results_of_pytest_benchmark_alone_are_no_runs(tmp_path: Path) -> None:
    store(tmp_path, 1, size=1)
    (tmp_path / "Linux-CPython-3.11-64bit" / "0001_save.json").write_text('{"benchmarks": []}')
    told: list[str] = []
    assert len(read_runs(tmp_path, told.append)) == 1
    assert told == []


OURS = content([FULL], START, {"id": sha(1)})


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", ""),
        (json.dumps(OURS)[:-40], ""),
        ("[]", "file: is not an object"),
        ("[" * 100_000, ""),
        (json.dumps({**OURS, KEY: 1}), "mnnquant: is not an object"),
        (json.dumps({**OURS, KEY: {**OURS[KEY], "schema": 9}}), "schema: 9 is not 1"),
        (json.dumps({**OURS, KEY: {**OURS[KEY], "figures": {}}}), "mnnquant.figures: is not a list"),
        (json.dumps({**OURS, KEY: {**OURS[KEY], "figures": [{"size": "x"}]}}), "mnnquant.figures[0].size: 'x'"),
        (json.dumps({**OURS, KEY: {**OURS[KEY], "figures": [{"ratio": float("nan")}]}}), "mnnquant.figures[0].ratio"),
        (json.dumps({**OURS, "datetime": "yesterday"}), "datetime: 'yesterday'"),
        (
            json.dumps({**OURS, KEY: {**OURS[KEY], "figures": [{"size": 10**400}]}}),
            "mnnquant.figures[0].size: the number is too",
        ),
        (json.dumps({**OURS, "datetime": "0001-01-01T00:00:00+05:00"}), "datetime: '0001-01-01T00:00:00+05:00'"),
        (json.dumps({**OURS, "datetime": None}), "datetime: "),
        (json.dumps({**OURS, "commit_info": {"id": 5}}), "commit_info.id: 5 is not text"),
    ],
)
def test_a_damaged_file_is_named_in_one_line_and_skipped(tmp_path: Path, text: str, why: str) -> None:
    store(tmp_path, 1, size=1)
    (tmp_path / "Linux-CPython-3.11-64bit" / "0001_bad.json").write_text(text)
    told: list[str] = []
    assert len(read_runs(tmp_path, told.append)) == 1
    (line,) = told
    assert "0001_bad.json: " in line
    assert why in line
    assert "\n" not in line


@given(st.integers(0, 2**16), st.binary(max_size=3))
def test_no_damage_stops_reading(tmp_path_factory: pytest.TempPathFactory, place: int, piece: bytes) -> None:
    folder = tmp_path_factory.mktemp("damaged")
    path = store(folder, 1, size=1)
    whole = path.read_bytes()
    place %= len(whole)
    path.write_bytes(whole[:place] + piece + whole[place + 1 :])
    told: list[str] = []
    assert len(read_runs(folder, told.append)) + len(told) <= 1


def test_what_is_being_written_is_not_seen(tmp_path: Path) -> None:
    path = store(tmp_path, 1, size=1)
    path.with_name(f".{path.name}.part").write_text("half")
    told: list[str] = []
    assert len(read_runs(tmp_path, told.append)) == 1
    assert told == []


def test_numbers_go_on_from_those_of_pytest_benchmark(tmp_path: Path) -> None:
    assert numbered(tmp_path, "x.json") == "0001_x.json"
    for name in ("0007_save.json", "10000_many.json", "mnnquant_new.json", "0099_no.txt"):
        (tmp_path / name).touch()
    assert numbered(tmp_path, "x.json") == "10001_x.json"


def test_no_two_runs_take_one_name() -> None:
    assert len({file_name(sha(1), START) for _ in range(1000)}) == 1000
    assert file_name("../x y", START + timedelta(microseconds=1)).startswith("mnnquant_xy_20260901_120000_000001_")


def _append(folder: Path, number: int) -> None:
    for size in range(20):
        store(folder, number, size=size + 1)


@pytest.mark.slow
def test_processes_that_write_at_once_lose_nothing(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_append, args=(tmp_path, number)) for number in range(3)]
    for process in processes:
        process.start()
    while any(process.is_alive() for process in processes):
        told: list[str] = []
        read_runs(tmp_path, told.append)
        assert told == []
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert len(read_runs(tmp_path)) == 60


def test_a_machine_is_known_by_processor_flags_and_mnn() -> None:
    info = {"machine": "x86_64", "cpu": {"brand_raw": "Some CPU", "flags": ["b", "a"]}}
    machine = machine_of(info, "3.6.1")
    assert machine == machine_of({"machine": "x86_64", "cpu": {"brand_raw": "Some CPU", "flags": ["a", "b"]}}, "3.6.1")
    assert machine != machine_of({"machine": "x86_64", "cpu": {"brand_raw": "Some CPU", "flags": ["a"]}}, "3.6.1")
    assert str(machine) == "Some CPU, MNN 3.6.1"
    assert str(machine_of({"machine": "aarch64", "cpu": None}, "")) == "aarch64, MNN unknown"
    assert str(Machine()) == "unknown processor, MNN unknown"
