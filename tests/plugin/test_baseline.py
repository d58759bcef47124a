"""The committed baseline: accepted once, compared in each run, updated by who says so."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.conftest import TIMEOUT
from tests.golden_text import check_golden, without_numbers
from tests.plugin.conftest import CONV, HEAD, NET, Files, Run
from tests.plugin.outcomes import Outcome

Refused = Callable[..., str]
MODEL, W8, UPDATE = "--mnn-model=net.py:build", "--mnn-recipe=w8", "--mnn-update-baseline"
# What need not be timed is not: the tests share their cores.
QUICK = "--benchmark-disable"
NAME = "mnnquant-baseline.json"
ENTRIES = f"{NAME}::entries"


@pytest.fixture(autouse=True)
def _without_settings(pytester: pytest.Pytester) -> None:
    pytester.makeini("[pytest]")


class File:
    """The baseline file of the test's folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def content(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.path.read_text())
        return found

    def entry(self, model: str = "net", variant: str = "w8") -> dict[str, Any]:
        found: dict[str, Any] = self.content["models"][model]["variants"][variant]
        return found

    def edit(self, change: Callable[[dict[str, Any]], None], model: str = "net", variant: str = "w8") -> None:
        """Change an entry by hand."""
        content = self.content
        change(content["models"][model]["variants"][variant])
        self.path.write_text(json.dumps(content, indent=1))

    def scale(self, figure: str, factor: float, variant: str = "w8") -> None:
        """Have another figure accepted than was measured."""

        def change(entry: dict[str, Any]) -> None:
            old = entry["figures"][figure]
            entry["figures"][figure] = type(old)(old * factor)

        self.edit(change, variant=variant)


@pytest.fixture
def file(pytester: pytest.Pytester) -> File:
    return File(pytester.path / NAME)


@pytest.fixture
def accepted(run: Run, file: File) -> File:
    """The model's w8 variant, accepted, with all that can be measured in any test."""
    found = run(MODEL, W8, QUICK, UPDATE)
    assert found.status == 0, found.text
    return file


class Update(NamedTuple):
    """How many entries an update changed in each way."""

    added: int = 0
    changed: int = 0
    kept: int = 0
    removed: int = 0


def sums(found: Outcome) -> Update:
    """The last line that an update prints."""
    (numbers,) = re.findall(r"baseline: (\d+) added, (\d+) changed, (\d+) kept, (\d+) removed", found.text)
    return Update(*map(int, numbers))


def test_without_a_file_nothing_is_added(run: Run) -> None:
    assert not [line for line in run(MODEL, W8, "--co", "-q").lines if "baseline" in line or "entries" in line]


def test_what_was_accepted_passes_from_then_on(run: Run, accepted: File) -> None:
    before = accepted.path.read_bytes()
    found = run(MODEL, W8, QUICK)
    assert (found.status, found.failed) == (0, set())
    assert {"w8::baseline", ENTRIES} <= found.passed
    assert not found.told("baseline")
    assert accepted.path.read_bytes() == before


def test_the_file_is_readable_sorted_and_says_what_it_is_from(accepted: File) -> None:
    text = accepted.path.read_text()
    assert text == json.dumps(accepted.content, indent=1, sort_keys=True) + "\n"
    assert accepted.content["schema"] == 1
    assert accepted.content["models"]["net"]["source"] == "net.py:build"
    entry = accepted.entry()
    assert {"size", "float_size", "coverage", "accuracy", "memory", "metric"} <= set(entry["figures"])
    assert entry["figures"]["metric"] == "top1"
    assert entry["layers"] == {CONV: "w8", HEAD: "w8"}
    assert {"size", "coverage", "accuracy", "memory", "ratio"} <= set(entry["tolerances"])
    assert len(entry["sha256"]) == 64
    assert "MNN" in entry["versions"]
    assert "machine" in entry["host"]


def test_an_update_that_finds_nothing_new_writes_nothing(run: Run, accepted: File) -> None:
    before = accepted.path.stat()
    found = run(MODEL, W8, QUICK, UPDATE)
    assert (found.status, sums(found)) == (0, Update(kept=1))
    assert (accepted.path.stat().st_mtime_ns, accepted.path.stat().st_ino) == (before.st_mtime_ns, before.st_ino)


def test_it_works_alone(run: Run, accepted: File) -> None:
    accepted.scale("size", 0.5)
    found = run(MODEL, W8, QUICK, "-k", "baseline")
    assert (set(found.items), found.failed) == ({"net.py:build::w8::baseline", ENTRIES}, {"w8::baseline"})


@pytest.mark.parametrize(
    ("figure", "factor", "told"),
    [("size", 0.9, "+1.0%"), ("memory", 0.5, "+5.0%"), ("accuracy", 1.01, "allowed drop")],
)
def test_a_figure_that_is_worse_than_accepted_fails(
    run: Run, accepted: File, figure: str, factor: float, told: str
) -> None:
    accepted.scale(figure, factor)
    found = run(MODEL, W8, QUICK)
    assert (found.status, found.failed) == (1, {"w8::baseline"}), found.text
    found.tells("MNQ913", where=figure, fix="--mnn-update-baseline")
    found.tells("MNQ913", where=told)


def test_a_little_worse_is_allowed_and_how_much_is_edited_in_the_file(run: Run, accepted: File) -> None:
    accepted.scale("size", 0.995)
    assert run(MODEL, W8, QUICK, "-k", "baseline").status == 0
    accepted.edit(lambda entry: entry["tolerances"].update(size=0.001))
    assert run(MODEL, W8, QUICK, "-k", "baseline").codes() == {"MNQ913"}
    found = run(MODEL, W8, QUICK, UPDATE)
    assert "net w8: size " in found.text
    assert accepted.entry()["tolerances"]["size"] == 0.001


def test_data_that_changed_show_in_the_accuracy(run: Run, accepted: File, pytester: pytest.Pytester) -> None:
    wrong = NET.replace("logits[clear].argmax(1)}", "(logits[clear].argmax(1) + (np.arange(24) % 3 == 0)) % 4}")
    (pytester.path / "net.py").write_text(wrong)
    found = run(MODEL, W8, QUICK)
    assert found.failed == {"w8::baseline"}, found.text  # Against the float model nothing was lost.
    found.tells("MNQ913", where="accuracy (top1)", why="bit for bit")


def test_layers_that_became_float_are_named_with_what_they_cost(run: Run, accepted: File) -> None:
    found = run(MODEL, W8, QUICK, "--mnn-skip-layer=*head*", "--mnn-skip-layer=output*", "--mnn-min-coverage=0")
    assert found.failed == {"w8::baseline"}, found.text
    found.tells("MNQ914", where=f"{HEAD}: stored as float32, accepted as w8", fix=UPDATE)
    assert found.layers("MNQ914") == {HEAD}
    worse = " ".join(one["message"] for one in found.told("baseline") if one["code"] == "MNQ913")
    assert "size" in worse  # Coverage does not count what is meant to stay float.


def test_a_file_that_a_pipeline_made_otherwise_is_seen(run: Run, file: File, files: Files) -> None:
    usual = [f"--mnn-model=net={files.float}", "--mnn-evaluation=net.py:evaluation", W8, QUICK]
    assert run(*usual, f"--mnn-quantized={files.w8}", UPDATE).status == 0
    found = run(*usual, f"--mnn-quantized={files.int8}")
    assert found.failed == {"w8::baseline"}  # Eight bits are eight bits, for the other checks.
    assert found.layers("MNQ914") == {CONV, HEAD}
    found.tells("MNQ913", where="size 6,152 bytes, accepted 5,920")


def test_what_follows_from_another_check_is_told_as_that(run: Run, file: File, files: Files) -> None:
    usual = [f"--mnn-model=net={files.float}", W8, QUICK]
    assert run(*usual, f"--mnn-quantized={files.w8}", UPDATE).status == 0
    found = run(*usual, f"--mnn-quantized={files.float}")
    assert {"w8::coverage", "w8::baseline"} <= found.failed
    (own,) = [check["findings"] for check in found.checks if check["check"] == "baseline"]
    assert {(one["code"], one["severity"]) for one in own} == {("MNQ913", "consequence"), ("MNQ914", "consequence")}
    assert {HEAD, CONV} == found.layers("MNQ914")
    messages = {one["message"] for one in found.told("baseline")}
    check_golden("baseline/follows-from-coverage", "\n".join(sorted(messages)))
    alone = run(*usual, f"--mnn-quantized={files.float}", "-k", "baseline")
    assert {one["severity"] for one in alone.told("baseline")} == {"error"}


def test_a_slower_model_fails(run: Run, file: File) -> None:
    found = run(MODEL, W8, UPDATE)
    assert "ratio" in file.entry()["figures"], found.text
    for part in ("ratio", "ratio_low", "ratio_high"):
        file.scale(part, 0.3)
    found = run(MODEL, W8)
    assert found.failed == {"w8::baseline"}, found.text
    found.tells("MNQ915", where="accepted", fix=UPDATE)
    not_timed = run(MODEL, W8, QUICK)
    assert "w8::baseline" in not_timed.skipped
    assert not_timed.codes("baseline") == {"MNQ003"}
    check_golden("baseline/latency-not-measured", without_numbers(not_timed.reason("baseline")))


def test_a_figure_that_can_not_be_measured_any_more_is_no_pass(
    run: Run, accepted: File, pytester: pytest.Pytester
) -> None:
    (pytester.path / "net.py").write_text(NET.partition("def evaluation")[0])
    found = run(MODEL, W8, QUICK)
    assert "w8::baseline" in found.skipped
    assert found.codes("baseline") == {"MNQ003"}
    check_golden("baseline/accuracy-not-measured", found.reason("baseline"))
    assert run(MODEL, W8, QUICK, "--mnn-strict", "-k", "baseline").failed == {"w8::baseline"}


def test_a_figure_that_is_new_or_far_better_is_told(run: Run, accepted: File) -> None:
    accepted.scale("size", 1.2)
    accepted.edit(lambda entry: entry["figures"].pop("memory"))
    found = run(MODEL, W8, QUICK)
    assert (found.status, found.codes("baseline")) == (0, {"MNQ916", "MNQ917"})
    assert "w8::baseline" in found.skipped
    assert run(MODEL, W8, QUICK, "--mnn-strict", "-k", "baseline").failed == {"w8::baseline"}
    found = run(MODEL, W8, QUICK, UPDATE)
    assert "memory none -> " in found.text
    assert not run(MODEL, W8, QUICK).told("baseline")


def test_a_figure_whose_tolerance_is_null_is_not_compared(run: Run, accepted: File) -> None:
    accepted.scale("memory", 0.5)
    accepted.edit(lambda entry: entry["tolerances"].update(memory=None))
    assert run(MODEL, W8, QUICK, "-k", "baseline").status == 0


def test_a_variant_that_is_not_in_the_file_fails_with_the_command_that_mends_it(run: Run, accepted: File) -> None:
    found = run(MODEL, "--mnn-recipe=fp16", QUICK)
    assert found.failed == {"fp16::baseline"}, found.text
    (finding,) = found.told("baseline")
    assert finding["code"] == "MNQ911"
    command = shlex.split(finding["remedy"].partition("pytest ")[2])
    mended = run(*command, QUICK)
    assert (mended.status, sums(mended)) == (0, Update(added=1, kept=1)), mended.text
    assert run(MODEL, W8, "--mnn-recipe=fp16", QUICK, "-k", "baseline").status == 0


def test_one_model_of_three_is_updated(run: Run, file: File) -> None:
    models = [f"--mnn-model={name}=net.py:build" for name in "abc"]
    assert sums(run(*models, W8, QUICK, UPDATE)) == Update(added=3)
    before = file.content
    file.edit(lambda entry: entry["figures"].update(size=7), model="b")
    file.edit(lambda entry: entry["figures"].update(size=9), model="c")
    found = run(models[1], W8, QUICK, UPDATE)
    assert sums(found) == Update(changed=1, kept=2)
    size = f"{before['models']['b']['variants']['w8']['figures']['size']:,}"
    check_golden("baseline/update-changed", found.starting("baseline: b"), size=size)
    after = file.content
    assert [after["models"][name]["variants"]["w8"]["figures"]["size"] for name in "bc"] == [
        before["models"]["b"]["variants"]["w8"]["figures"]["size"],
        9,
    ]
    assert after["models"]["a"] == before["models"]["a"]


def test_a_model_that_is_gone_fails_until_an_update(run: Run, accepted: File, pytester: pytest.Pytester) -> None:
    (pytester.path / "net.py").rename(pytester.path / "new.py")
    usual = ["--mnn-model=new.py:build", W8, QUICK]
    assert run(*usual, UPDATE, "-k", "baseline and not entries").status == 0  # A part of the suite removes nothing.
    found = run(*usual, "--mnn-report=r.html")
    assert found.failed == {ENTRIES}, found.text
    title = (pytester.path / "r.html").read_text(encoding="utf-8").partition("<title>")[2].partition("</title>")[0]
    check_golden("baseline/title-of-stale", title)
    check_golden("baseline/stale-source", found.failure(ENTRIES))
    found = run(*usual, UPDATE)
    assert (found.status, sums(found)) == (0, Update(kept=1, removed=1))
    check_golden("baseline/update-removed", found.starting("baseline: net"))
    assert run(*usual).status == 0


def test_a_callable_that_is_gone_is_a_model_that_is_gone(run: Run, accepted: File, pytester: pytest.Pytester) -> None:
    (pytester.path / "net.py").write_text(NET.replace("build()", "make()"))
    usual = ["--mnn-model=net.py:make", W8, QUICK]
    found = run(*usual, "-k", "baseline")
    assert found.failed == {"w8::baseline", ENTRIES}, found.text
    check_golden("baseline/stale-callable", found.failure(ENTRIES))
    found = run(*usual, UPDATE)
    assert (found.status, sums(found)) == (0, Update(added=1, removed=1)), found.text
    assert accepted.content["models"].keys() == {"net.make"}


def test_a_model_that_keeps_its_name_is_not_removed_with_its_old_source(
    run: Run, accepted: File, pytester: pytest.Pytester
) -> None:
    (pytester.path / "net.py").rename(pytester.path / "new.py")
    usual = ["--mnn-model=net=new.py:build", W8, QUICK]
    assert sums(run(*usual, UPDATE)) == Update(kept=1)
    assert accepted.content["models"]["net"]["source"] == "new.py:build"
    assert run(*usual, "-k", "baseline").status == 0


def test_what_another_command_asks_for_is_kept(run: Run, accepted: File) -> None:
    found = run(MODEL, "--mnn-mode=eval", QUICK, UPDATE)
    assert sums(found) == Update(added=1, kept=1)
    assert {"int8-eval", "w8"} == accepted.content["models"]["net"]["variants"].keys()
    assert run(MODEL, "--mnn-recipe=w8", QUICK).status == 0


def test_what_the_configuration_lost_is_stale(run: Run, file: File, pytester: pytest.Pytester) -> None:
    def configured(*models: str, recipes: str = '["w8", "fp16"]') -> None:
        tables = "".join(f'[tool.mnnquant.models.{name}]\nsource = "net.py:build"\n' for name in models)
        (pytester.path / "mnn.toml").write_text(f"[tool.mnnquant]\nrecipes = {recipes}\n{tables}")

    usual = ["--mnn-config=mnn.toml", QUICK]
    configured("one", "two")
    assert sums(run(*usual, UPDATE)) == Update(added=4)
    configured("one", recipes='["w8"]')
    found = run(*usual)
    assert found.failed == {ENTRIES}
    check_golden("baseline/stale-configuration", found.failure(ENTRIES))
    assert run("--mnn-model=one", "--mnn-config=mnn.toml", QUICK).status == 0  # Only a part was asked for.
    assert sums(run(*usual, UPDATE)) == Update(kept=1, removed=3)


BROKEN = {
    "a merge conflict": ('{\n<<<<<<< HEAD\n "schema": 1\n=======\n>>>>>>> b\n}', "line 2"),
    "a newer schema": ('{"schema": 2, "things": []}', "schema 2"),
    "an older schema": ('{"schema": 0, "models": {}}', "schema 0"),
    "a pointer": ("version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "git-lfs"),
    "half a file": ('{"schema": 1, "models": {', "JSON"),
    "nothing": ("", "JSON"),
    "bytes": (b"\xff\xfe\x00", "UTF-8"),
}


@pytest.mark.parametrize(("content", "told"), BROKEN.values(), ids=BROKEN)
def test_a_file_that_can_not_be_used_fails_and_is_not_overwritten(
    run: Run, refused: Refused, file: File, content: str | bytes, told: str
) -> None:
    file.path.write_bytes(content if isinstance(content, bytes) else content.encode())
    found = run(MODEL, W8, QUICK, "-k", "baseline")
    assert found.failed == {"w8::baseline", ENTRIES}
    found.tells("MNQ910", where=told)
    before = file.path.read_bytes()
    assert told in refused(MODEL, W8, QUICK, UPDATE)
    assert file.path.read_bytes() == before


def test_a_folder_in_its_place_can_not_be_used(run: Run, file: File) -> None:
    file.path.mkdir()
    found = run(MODEL, W8, QUICK, "-k", "baseline")
    assert found.failed == {"w8::baseline", ENTRIES}
    found.tells("MNQ910", where="Is a directory")


def test_a_read_only_file_is_refused_before_anything_runs(run: Run, refused: Refused, accepted: File) -> None:
    accepted.path.chmod(0o444)
    before = accepted.path.read_bytes()
    assert run(MODEL, W8, QUICK, "-k", "baseline").status == 0
    assert "is read-only" in refused(MODEL, W8, QUICK, UPDATE)
    assert accepted.path.read_bytes() == before


@pytest.mark.parametrize(("value", "is_ci"), [("true", True), ("1", True), ("false", False), ("0", False), ("", False)])
def test_nothing_is_accepted_in_ci(
    run: Run, file: File, monkeypatch: pytest.MonkeyPatch, value: str, is_ci: bool
) -> None:
    monkeypatch.setenv("CI", value)
    found = run(MODEL, W8, QUICK, UPDATE, "-k", "baseline")
    assert (found.status, file.path.exists()) == ((4, False) if is_ci else (0, True))
    assert ("CI is set" in found.text) == is_ci


def test_jenkins_is_ci(refused: Refused, file: File, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BUILD_NUMBER", "12")
    assert "BUILD_NUMBER is set" in refused(MODEL, W8, QUICK, UPDATE)


def test_memory_is_accepted_on_another_processor_where_latency_is_not_timed(run: Run, file: File) -> None:
    assert run(MODEL, W8, UPDATE).status == 0
    file.edit(lambda entry: entry["host"].update(processor="another"))
    file.scale("memory", 0.5)
    assert run(MODEL, W8, QUICK).failed == {"w8::baseline"}
    found = run(MODEL, W8, QUICK, UPDATE)
    check_golden("baseline/update-without-latency", without_numbers(found.starting("baseline: net w8: ratio")))
    assert "memory " in found.starting("baseline: net w8")
    assert run(MODEL, W8, QUICK).failed == set()
    assert file.entry()["host"]["processor"] == "another"  # The ratio is of that one still.


def test_the_flag_can_not_be_left_in_a_file(run: Run, refused: Refused, pytester: pytest.Pytester, file: File) -> None:
    pytester.makeini("[pytest]\nmnn_update_baseline = true")
    found = run(MODEL, W8, QUICK, "-k", "size", "-W", "default")
    assert not file.path.exists()
    assert "unknown" in found.text.lower()


def test_the_flag_without_a_model_is_refused(refused: Refused) -> None:
    check_golden("baseline/update-without-model", refused(UPDATE))


def test_a_file_that_was_named_must_be_there(run: Run, refused: Refused, pytester: pytest.Pytester) -> None:
    named = "--mnn-baseline=accepted/here.json"
    assert "no such file" in refused(MODEL, W8, named)
    found = run(MODEL, W8, QUICK, named, UPDATE)
    assert found.status == 0, found.text
    assert (
        json.loads((pytester.path / "accepted/here.json").read_text())["models"]["net"]["source"] == "../net.py:build"
    )
    found = run(MODEL, W8, QUICK, named)
    assert {"w8::baseline", "here.json::entries"} <= found.passed


def test_the_ini_file_names_it_from_its_own_folder(
    run: Run, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytester.makeini("[pytest]\nmnn_baseline = kept.json")
    monkeypatch.chdir(pytester.mkdir("deep"))
    assert run("--mnn-model=../net.py:build", W8, QUICK, UPDATE).status == 0
    assert (pytester.path / "kept.json").is_file()
    assert "w8::baseline" in run("--mnn-model=../net.py:build", W8, QUICK).passed


def test_what_failed_is_not_accepted(run: Run, file: File) -> None:
    found = run(MODEL, W8, QUICK, UPDATE, "--mnn-min-size-ratio=9")
    assert (found.status, found.failed) == (1, {"w8::size"})
    assert "w8::baseline" in found.skipped
    check_golden("baseline/update-size-failed", found.starting("baseline: "))
    assert not file.path.exists()
    alone = run(MODEL, W8, QUICK, UPDATE, "--mnn-min-size-ratio=9", "-k", "baseline")
    assert (alone.status, file.path.exists()) == (1, False)
    broken = run(MODEL, W8, QUICK, UPDATE, "--mnn-quantized=nowhere.mnn")
    assert (broken.status, broken.failed) == (1, {"w8::conversion"})
    check_golden("baseline/update-conversion-failed", broken.starting("baseline: "))


def test_a_run_that_was_stopped_removes_nothing(run: Run, accepted: File) -> None:
    accepted.edit(lambda entry: entry["figures"].update(size=7))
    found = run(MODEL, "--mnn-recipe=fp16", W8, QUICK, UPDATE, "-x", "--mnn-min-size-ratio=2.5")
    assert found.status == 1  # fp16 halves at best.
    assert accepted.entry()["figures"]["size"] == 7


def test_ids_run_alone(run: Run, accepted: File) -> None:
    found = run(MODEL, W8, QUICK, "net.py:build::w8::baseline")
    assert (found.status, set(found.items)) == (0, {"net.py:build::w8::baseline"})
    for given in ([MODEL, W8], []):
        found = run(*given, QUICK, ENTRIES)
        assert (found.status, set(found.items)) == (0, {ENTRIES}), found.text
    listed = [line for line in run(MODEL, W8, "--co", "-q").lines if "::" in line]
    assert listed[-2:] == ["net.py:build::w8::baseline", ENTRIES]


def test_workers_accept_and_compare(run: Run, file: File) -> None:
    found = run(MODEL, W8, "--mnn-recipe=fp16", "-n", "2", UPDATE, alone=True)
    assert found.status == 0, found.text
    assert sums(found) == Update(added=2)
    assert "ratio" not in file.entry()["figures"]
    check_golden("baseline/update-among-workers", found.starting("baseline: net w8: ratio"))
    file.edit(lambda entry: entry["figures"].update(size=7))
    found = run(MODEL, W8, "--mnn-recipe=fp16", "-n", "2", alone=True)
    assert (found.status, found.failed) == (1, {"w8::baseline"}), found.text
    file.edit(lambda entry: entry["figures"].update(ratio=1.0, size=entry["figures"]["float_size"]))
    found = run(MODEL, W8, "-n", "2", alone=True)
    assert found.status == 0
    check_golden("baseline/compare-among-workers", found.starting("  baseline inconclusive: "))


def test_two_processes_at_once_both_land(file: File, pytester: pytest.Pytester, files: Files) -> None:
    (pytester.path / "net.py").write_text(NET)
    commands = [
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", f"--mnn-model={name}={files.float}", W8, QUICK,
         UPDATE, "-k", "baseline"]
        for name in ("one", "two", "three")
    ]  # fmt: skip
    environment = {name: value for name, value in os.environ.items() if name != "PYTEST_XDIST_WORKER"}
    running = [
        subprocess.Popen(command, cwd=pytester.path, env=environment, stdout=subprocess.PIPE, text=True)
        for command in commands
    ]
    said = [process.communicate(timeout=TIMEOUT)[0] for process in running]
    assert [process.returncode for process in running] == [0] * 3, said
    assert set(file.content["models"]) == {"one", "two", "three"}


def kept(folder: Path) -> Iterator[str]:
    return (path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*")) if path.is_file())


def test_accepted_models_are_kept_where_there_is_a_folder_for_them(
    run: Run, accepted: File, pytester: pytest.Pytester
) -> None:
    folder = pytester.mkdir("mnnquant-baseline")
    found = run(MODEL, W8)
    assert "w8::baseline" in found.skipped  # There is nothing yet to time it beside.
    check_golden("baseline/accepted-model-missing", found.reason("baseline"), folder=folder)
    assert run(MODEL, W8, UPDATE).status == 0
    assert [*kept(folder)] == ["net/w8.mnn"]
    found = run(MODEL, W8)
    assert found.failed == set(), found.text
    assert "w8::baseline" in found.passed
    (folder / "net/w8.mnn").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n")
    found = run(MODEL, W8, "-k", "baseline")
    found.tells("MNQ910", where="git-lfs", fix="git lfs pull")


def test_a_model_that_can_not_be_kept_is_told_and_the_rest_is_accepted(
    run: Run, file: File, pytester: pytest.Pytester
) -> None:
    folder = pytester.mkdir("mnnquant-baseline")
    place = folder / "net/w8.mnn"
    (place / "x").mkdir(parents=True)
    found = run(MODEL, W8, "--mnn-recipe=fp16", QUICK, UPDATE)
    assert found.status == 4
    check_golden("baseline/model-not-kept", found.starting("ERROR: "), place=place)
    assert sums(found) == Update(added=2)
    assert file.content["models"]["net"]["variants"].keys() == {"fp16", "w8"}
    assert [*kept(folder)] == ["net/fp16.mnn"]


def test_models_that_workers_made_in_a_cache_of_one_run_are_kept(
    file: File, files: Files, pytester: pytest.Pytester
) -> None:
    folder = pytester.mkdir("mnnquant-baseline")
    pytester.makepyfile(net=NET)
    usual = [f"--mnn-model=net={files.float}", W8, "--mnn-recipe=fp16", QUICK, UPDATE, "-k", "baseline"]
    done = pytester.runpytest_subprocess("-n2", "-p", "no:cacheprovider", *usual)
    assert done.ret == 0, done.stdout.str()
    assert file.content["models"]["net"]["variants"].keys() == {"fp16", "w8"}
    assert [*kept(folder)] == ["net/fp16.mnn", "net/w8.mnn"]


def test_a_larger_net_is_slower_than_the_kept_one(run: Run, accepted: File, pytester: pytest.Pytester) -> None:
    pytester.mkdir("mnnquant-baseline")
    assert run(MODEL, W8, UPDATE).status == 0
    slow = NET.replace("nn.Conv2d(1, 16, 3)", "nn.Conv2d(1, 256, 3)").replace("(16", "(256")
    slow = slow.replace("BatchNorm2d(16", "BatchNorm2d(256")
    (pytester.path / "net.py").write_text(slow)
    found = run(MODEL, W8)
    assert found.failed == {"w8::baseline"}, found.text
    assert {"MNQ913", "MNQ915"} <= found.codes("baseline")
    found.tells("MNQ915", where="times the accepted model's latency", why="the float model")
