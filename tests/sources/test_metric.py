"""Specifications of task metrics: names of ours, and callables of the user's own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pytest_mnnquant.sources.metric import load_metric, metric_digest
from pytest_mnnquant.sources.spec import SourceError


@pytest.mark.parametrize("name", ["top1", "top5", "miou", "mae", "rmse", "words", "characters", "top1@scores"])
def test_our_own_are_known_by_name(name: str, tmp_path: Path) -> None:
    found = load_metric(name, tmp_path)
    assert (found.name, found.output) == (name.partition("@")[0], name.partition("@")[2])


def test_a_callable_is_loaded_with_its_direction(tmp_path: Path) -> None:
    (tmp_path / "m.py").write_text("def a(o, l):\n    return 1\ndef b(o, l):\n    return 2\nb.lower_is_better = True\n")
    first, second = load_metric("m.py:a", tmp_path), load_metric("m.py:b", tmp_path)
    assert (first.lower_is_better, second.lower_is_better) == (False, True)
    assert (first.label, first.is_share) == ("a", False)
    assert second.call is not None
    assert second.call({"y": np.zeros(3)}, None) == 2


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("accuracy", "unknown metric 'accuracy'"),
        ("top0", "the number of classes must be at least 1"),
        ("none.py:f", "none.py: no such file"),
        ("m.py:g", "m.py has no callable 'g'"),
        ("m.py:value", "m.py has no callable 'value'"),
        ("bad.py:f", "importing it raised ZeroDivisionError: division by zero (bad.py:1)"),
        ("m.py:", "unknown metric 'm.py:'"),
    ],
)
def test_what_can_not_be_loaded_is_one_line(text: str, line: str, tmp_path: Path) -> None:
    (tmp_path / "m.py").write_text("value = 3\n")
    (tmp_path / "bad.py").write_text("1 / 0\n")
    with pytest.raises(SourceError) as error:
        load_metric(text, tmp_path)
    assert str(error.value).startswith("--mnn-metric: ")
    assert line in str(error.value)


def test_the_digest_of_a_metric_depends_on_its_code_and_on_what_it_imports(tmp_path: Path) -> None:
    source = "from metric_helper_of_this_test import value\n\n\ndef a(outputs, labels):\n    return value\n"
    (tmp_path / "metric_helper_of_this_test.py").write_text("value = 1\n")
    (tmp_path / "m.py").write_text(source)
    digests = [metric_digest("m.py:a", tmp_path)]
    (tmp_path / "metric_helper_of_this_test.py").write_text("value = 2\n")
    digests.append(metric_digest("m.py:a", tmp_path))
    (tmp_path / "m.py").write_text(source + "# Changed.\n")
    digests.append(metric_digest("m.py:a", tmp_path))
    assert len(set(digests)) == 3
    assert metric_digest("m.py:a", tmp_path) == digests[-1]
    assert metric_digest("top1", tmp_path) == ""
