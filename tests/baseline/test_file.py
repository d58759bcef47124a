"""The baseline file: read strictly, written the same for the same figures; what an update makes of it."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_mnnquant.baseline.entry import Entry, Tolerances, rounded, usual_tolerances
from pytest_mnnquant.baseline.file import SCHEMA, BadBaseline, Baseline, as_text, parsed, read_baseline
from pytest_mnnquant.baseline.update import updated
from pytest_mnnquant.findings.json_fields import BadField
from tests.golden_text import check_golden
from tests.history.accepted import HOST, baseline, baselines, entry, figures


def written(folder: Path, text: str) -> Path:
    path = folder / "mnnquant-baseline.json"
    path.write_text(text, encoding="utf-8")
    return path


def content(**changes: Any) -> dict[str, Any]:
    """A good file as parsed JSON, with changes to the only entry."""
    found: dict[str, Any] = json.loads(as_text(baseline(entry())))
    found["models"]["net"]["variants"]["w8"] |= changes
    return found


@given(baselines())
def test_what_is_written_is_read_as_it_was(accepted: Baseline) -> None:
    text = as_text(accepted)
    again = parsed(json.loads(text))
    assert again == accepted
    assert as_text(again) == text
    assert text.endswith("}\n")


def test_the_file_is_sorted_and_has_one_value_a_line() -> None:
    one, other = entry("b", "w8"), entry("a", "int8-eval", layers={"z": "int8", "a": "w8"})
    text = as_text(baseline(one, other))
    assert text == as_text(baseline(other, one))
    models = json.loads(text)["models"]
    assert list(models) == ["a", "b"]
    layers = models["a"]["variants"]["int8-eval"]["layers"]
    assert list(layers) == ["a", "z"]
    assert set(models["b"]["variants"]["w8"]) == {"figures", "tolerances", "layers", "sha256", "versions", "host"}
    assert all(line.count(":") <= 2 for line in text.splitlines())
    assert f'"schema": {SCHEMA}' in text


def test_a_tolerance_left_out_is_the_usual_one_and_null_compares_nothing() -> None:
    tolerances = parsed(content(tolerances={"size": None})).models["net"].variants["w8"].tolerances
    assert tolerances == Tolerances(size=None, accuracy=0.005)
    again = parsed(json.loads(as_text(baseline(entry(tolerances=tolerances)))))
    assert again.models["net"].variants["w8"].tolerances.size is None


@pytest.mark.parametrize(
    ("text", "entry"),
    [
        ("{\n<<<<<<< ours\n}", "merge-conflict"),
        ("{}\n=======\n", "merge-conflict"),
        ('{"schema": 1,}', "not-json"),
        ("", "empty-file"),
        ("[]", "not-an-object"),
        ("{}", "no-schema"),
        ('{"schema": 2, "models": {}, "new": 1}', "newer-schema"),
        ('{"schema": 0, "models": {}}', "older-schema"),
        ('{"schema": "1", "models": {}}', "schema-as-text"),
        ('{"schema": true, "models": {}}', "schema-as-boolean"),
        ('{"schema": 1, "models": {}, "modles": {}}', "unknown-key"),
        ('{"schema": 1, "models": {"a": {}, "a": {}}}', "a-key-twice"),
        ('{"schema": 1, "models": NaN}', "nan"),
        ("version https://git-lfs.github.com/spec/v1\noid sha256:0", "git-lfs-pointer"),
        ('{"schema": 1, "models": {"net": {"variants": {"int8[train]": {}}}}}', "variant-in-brackets"),
        ("[" * 100_000, "nested-too-deeply"),
        (f'{{"schema": 1, "models": {"1" * 5000}}}', "too-many-digits"),
    ],
)
def test_a_file_that_can_not_be_used_says_why_in_a_line(tmp_path: Path, text: str, entry: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(BadBaseline) as error:
        read_baseline(path)
    assert str(error.value).startswith(f"{path}: ")
    assert "\n" not in str(error.value)
    check_golden(f"baseline/file-{entry}", f"{error.value}\nfix: {error.value.fix}", path=path)


def test_no_file_and_no_text_are_reported(tmp_path: Path) -> None:
    with pytest.raises(BadBaseline, match=r"x\.json"):
        read_baseline(tmp_path / "x.json")
    (tmp_path / "x.json").write_bytes(b"\xff\xfe")
    with pytest.raises(BadBaseline, match="UTF-8"):
        read_baseline(tmp_path / "x.json")
    with pytest.raises(BadBaseline, match=re.escape(str(tmp_path))):
        read_baseline(tmp_path)


def test_a_byte_order_mark_does_no_harm(tmp_path: Path) -> None:
    path = written(tmp_path, "\ufeff" + as_text(baseline(entry())))
    assert read_baseline(path) == baseline(entry())


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"figures": {"size": 1.5}}, "figures.size: 1.5 is not a whole number"),
        ({"figures": {"size": -1}}, "figures.size: -1 is out of range"),
        ({"figures": {"coverage": "all"}}, "figures.coverage: 'all' is not a number"),
        ({"figures": {"coverage": True}}, "figures.coverage: True is not a number"),
        ({"figures": {"accuracy": 1}}, "figures.metric: is missing"),
        ({"figures": {"lower_is_better": 1}}, "lower_is_better: 1 is not true or false"),
        ({"figures": {"sise": 1}}, "unknown key 'sise'"),
        ({"figures": {"ratio": 10**400}}, "figures.ratio: the number is too large"),
        ({"figures": {"size": 10**400}}, "figures.size: the number is too large"),
        ({"figures": []}, "figures: is not an object"),
        ({"tolerances": {"size": -0.1}}, "tolerances.size: -0.1 is out of range"),
        ({"tolerances": {"speed": 1}}, "unknown key 'speed'"),
        ({"layers": {"conv": 8}}, "layers.conv: 8 is not text"),
        ({"sha256": 1}, "sha256: 1 is not text"),
        ({"host": {"threads": 1}}, "host.threads: 1 is not text"),
    ],
)
def test_a_wrong_value_is_named_with_its_key(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(BadField) as error:
        parsed(content(**changes))
    assert str(error.value).startswith("models.net.variants.w8")
    assert told in str(error.value)


KEYS = st.sampled_from(["schema", "models", "net", "variants", "figures", "layers", "host"])
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers(0, 1) | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(KEYS, inner, max_size=3),
)


@given(value=ANYTHING)
def test_whatever_else_stands_in_the_file_is_refused_in_a_line(value: Any) -> None:
    try:
        found = parsed(value)
    except BadField as error:
        told = str(error)
    else:
        told = ""
        assert parsed(json.loads(as_text(found))) == found
    assert "\n" not in told


def test_figures_are_kept_with_as_many_digits_as_can_be_told() -> None:
    kept = rounded(figures(coverage=0.123456789, ratio=1.23456789, accuracy=1234567.89, path="x", failed=("size",)))
    assert (kept.coverage, kept.ratio, kept.accuracy) == (0.123457, 1.235, 1234570.0)
    assert (kept.path, kept.failed) == ("", ())


@pytest.mark.parametrize(
    ("metric", "accuracy", "lower", "absolute", "relative"),
    [
        ("top1", 0.9, False, 0.005, None),
        ("cosine", 0.99, False, 0.002, None),
        ("rmse@boxes", 0.1, True, None, 0.01),
        ("psnr.py:psnr", 31.0, False, None, 0.01),
        ("", None, False, 0.005, None),
    ],
)
def test_tolerances_go_by_the_metric(
    metric: str, accuracy: float | None, lower: bool, absolute: float | None, relative: float | None
) -> None:
    found = usual_tolerances(figures(metric=metric, accuracy=accuracy, lower_is_better=lower))
    assert (found.accuracy, found.accuracy_relative) == (absolute, relative)
    assert (found.size, found.coverage, found.memory, found.ratio, found.ratio_paired) == (0.01, 0.0, 0.05, 0.25, 0.1)


def test_an_update_adds_changes_and_keeps() -> None:
    before = baseline(entry("a"), entry("b"), entry("c"))
    ran = [entry("b", size=5000, sha256="bb"), entry("d")]
    after, changes = updated(before, ran)
    assert {name: set(found.variants) for name, found in after.models.items()} == {
        name: {"w8"} for name in ("a", "b", "c", "d")
    }
    assert after.models["a"] == before.models["a"]
    assert (set(changes.added), set(changes.changed), changes.kept) == (
        {("d", "w8")}, {("b", "w8")}, (("a", "w8"), ("c", "w8")))  # fmt: skip
    check_golden("baseline/update-adds-changes-and-keeps", "\n".join(changes.lines))


def test_what_failed_is_refused_and_its_entry_stays() -> None:
    before = baseline(entry("a"))
    after, changes = updated(before, [entry("a", size=1, failed=("coverage",)), entry("b", failed=("size",))])
    assert after == before
    assert set(changes.refused) == {("a", "w8"), ("b", "w8")}
    check_golden("baseline/update-refuses-what-failed", "\n".join(changes.lines))


def test_what_is_gone_is_removed_with_the_reason() -> None:
    before = baseline(entry("a"), entry("b", "w8"), entry("b", "w4"))
    after, changes = updated(before, [], {("a", "w8"): "its source is gone", ("b", "w4"): "no such variant"})
    assert set(after.models) == {"b"}
    assert set(after.models["b"].variants) == {"w8"}
    check_golden("baseline/update-removes-what-is-gone", "\n".join(changes.lines))


def test_tolerances_that_were_edited_stay_until_the_metric_is_another_one() -> None:
    edited = Tolerances(size=0.5, accuracy=0.1, ratio=None)
    before = baseline(entry(tolerances=edited))
    after, _ = updated(before, [entry(size=1)])
    assert after.models["net"].variants["w8"].tolerances == edited
    fresh = figures(metric="rmse", lower_is_better=True)
    after, _ = updated(before, [Entry(fresh, usual_tolerances(fresh), {}, HOST)])
    assert after.models["net"].variants["w8"].tolerances == Tolerances(size=0.5, accuracy_relative=0.01, ratio=None)


def test_the_same_again_changes_nothing_not_even_versions() -> None:
    before = baseline(entry())
    same = dataclasses.replace(entry(), versions={"MNN": "9"})
    after, changes = updated(before, [same])
    assert after == before
    assert changes.kept == (("net", "w8"),)


def test_what_was_not_measured_this_time_is_kept() -> None:
    before = baseline(entry())
    fresh = entry(size=5000, sha256="bb", ratio=None, ratio_low=None, ratio_high=None, accuracy=None, metric="")
    after, _ = updated(before, [fresh])
    found = after.models["net"].variants["w8"].figures
    assert (found.size, found.ratio, found.ratio_low, found.accuracy, found.metric) == (5000, 1.0, 0.99, 0.9, "top1")


def test_a_ratio_that_differs_as_two_runs_do_is_no_change() -> None:
    before = baseline(entry())
    after, changes = updated(before, [entry(ratio=1.1, ratio_low=1.05, ratio_high=1.2)])
    assert (after, changes.changed) == (before, {})
    after, changes = updated(before, [entry(ratio=1.5)])
    assert after.models["net"].variants["w8"].figures.ratio == 1.5


def test_figures_of_another_machine_come_with_its_name() -> None:
    before = baseline(entry())
    there = {**HOST, "machine": "aarch64"}
    timed = dataclasses.replace(entry(ratio=0.5, memory=1), host=there)
    after, _ = updated(before, [timed])
    assert after.models["net"].variants["w8"].host == there
    # Without a timing the old machine's latency and memory stay, with its name.
    untimed = dataclasses.replace(entry(size=5000, ratio=None, memory=1), host=there)
    after, _ = updated(before, [untimed])
    found = after.models["net"].variants["w8"]
    assert (found.host, found.figures.ratio, found.figures.memory, found.figures.size) == (HOST, 1.0, 70_000, 5000)


@given(baselines(), baselines())
def test_updates_keep_the_rest_and_do_nothing_twice(before: Baseline, ran: Baseline) -> None:
    fresh = [one for _, _, one in ran.entries]
    after, changes = updated(before, fresh)
    places = {(model, variant) for model, variant, _ in ran.entries}
    for model, variant, one in before.entries:
        found = after.entry(model, variant)
        assert found is not None
        if (model, variant) not in places:
            assert found.tolerances == one.tolerances
            assert found.figures.size == one.figures.size
    assert {(model, variant) for model, variant, _ in after.entries} >= places
    assert parsed(json.loads(as_text(after))) == after
    again, nothing = updated(after, fresh)
    assert not nothing.added
    assert again == after or nothing.changed
    assert len(list(changes.lines)) == 1 + len(changes.added) + len(changes.changed)
