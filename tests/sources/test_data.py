"""Calibration and evaluation data: every form gives the same arrays, what does not fit is named."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pytest_mnnquant.measurements.dataset import Dataset
from pytest_mnnquant.sources import batches as batches_module
from pytest_mnnquant.sources.data import as_dataset, load_data
from pytest_mnnquant.sources.spec import SourceError

X = np.arange(24, dtype=np.float32).reshape(6, 4)
EXTRA = np.arange(6, dtype=np.int64).reshape(6, 1)
LABELS = np.array([0, 1, 2, 0, 1, 2])


def batches(*arrays: Any) -> Iterator[tuple[Any, ...]]:
    for start in range(0, 6, 2):
        yield tuple(array[start : start + 2] for array in arrays)


ONE_INPUT: dict[str, Callable[[], Any]] = {
    "an array": lambda: X,
    "a tensor": lambda: torch.from_numpy(X),
    "a tensor with gradients": lambda: torch.from_numpy(X).requires_grad_(),
    "a mapping": lambda: {"x": X},
    "a tuple": lambda: (X,),
    "batches": lambda: [X[:2], X[2:]],
    "a generator": lambda: batches(X),
    "batches of mappings": lambda: ({"x": part} for (part,) in batches(X)),
    "a data loader": lambda: torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.from_numpy(X)), 4),
}
LABELLED: dict[str, Callable[[], Any]] = {
    "a mapping": lambda: {"x": X, "labels": LABELS},
    "a pair": lambda: (X, LABELS),
    "batches of pairs": lambda: batches(X, LABELS),
    "a data loader": lambda: torch.utils.data.DataLoader(
        torch.utils.data.TensorDataset(torch.from_numpy(X), torch.from_numpy(LABELS)), 4
    ),
    "mappings and labels": lambda: (({"x": part}, labels) for part, labels in batches(X, LABELS)),
}


@pytest.mark.parametrize("form", ONE_INPUT)
def test_every_form_of_one_input_is_the_same_dataset(form: str) -> None:
    data = as_dataset(ONE_INPUT[form](), ("x",), "test")
    assert list(data.inputs) == ["x"]
    np.testing.assert_array_equal(data.inputs["x"], X)
    assert data.labels is None
    assert data.samples == 6


@pytest.mark.parametrize("form", LABELLED)
def test_every_form_with_labels_is_the_same_dataset(form: str) -> None:
    data = as_dataset(LABELLED[form](), ("x",), "test")
    np.testing.assert_array_equal(data.inputs["x"], X)
    assert data.labels is not None
    np.testing.assert_array_equal(data.labels, LABELS)


@pytest.mark.parametrize(
    "value",
    [
        {"x": X, "extra": EXTRA},
        {"extra": EXTRA, "labels": LABELS, "x": X},
        (X, EXTRA),
        list(batches(X, EXTRA)),
        [{"extra": EXTRA, "x": X}],
        ((X, EXTRA), LABELS),
    ],
    ids=["mapping", "mapping in another order", "tuple", "batches", "batches in another order", "labelled"],
)
def test_several_inputs_come_in_the_models_order(value: Any) -> None:
    """They are handed to `forward` by position: in another order a model of two like inputs computes nonsense."""
    data = as_dataset(value, ("x", "extra"), "test")
    assert list(data.inputs) == ["x", "extra"]
    np.testing.assert_array_equal(data.inputs["x"], X)
    np.testing.assert_array_equal(data.inputs["extra"], EXTRA)


NAN = np.where(X == 5, np.nan, X)
UNUSABLE: dict[str, tuple[Any, str]] = {
    "no batches": ([], "no batches"),
    "no samples": (X[:0], "array 'x' is empty"),
    "a missing input": ({"y": X}, "no array for the model's input 'x'; it has: y"),
    "an array of another name": ({"x": X, "ids": EXTRA}, "'ids' is neither an input of the model nor its labels"),
    "labels only": ({"labels": LABELS}, "no array for the model's input 'x'; it has: none"),
    "NaN": (NAN, "'x' holds NaN or infinity"),
    "infinity": (np.full((6, 4), np.inf), "'x' holds NaN or infinity"),
    "text": (np.array(["a", "b"]), "numeric"),
    "complex": (X.astype(complex), "numeric"),
    "other numbers of labels": ({"x": X, "labels": LABELS[:5]}, "different numbers of samples"),
    "batches of other shapes": ([X, X[:, :3]], "do not match"),
    "batches of other inputs": ([{"x": X}, {"y": X}], "do not match"),
    "too many arrays": ((X, X, X), "a batch of 3 arrays for 1 model inputs"),
    "no arrays at all": (7, "int is neither arrays nor batches"),
    "a lone number": (np.float32(3), "has shape"),
}


@pytest.mark.parametrize("kind", UNUSABLE)
def test_what_does_not_fit_is_named(kind: str) -> None:
    value, problem = UNUSABLE[kind]
    with pytest.raises(SourceError, match=problem) as error:
        as_dataset(value, ("x",), "the origin")
    assert str(error.value).startswith("the origin: ")


@given(st.integers(1, 7), st.integers(0, 8))
def test_batches_are_the_samples_in_order(size: int, count: int) -> None:
    data = Dataset({"x": X, "extra": EXTRA})
    parts = list(data.batches(size))
    assert all(len(part["x"]) <= size for part in parts)
    np.testing.assert_array_equal(np.concatenate([part["x"] for part in parts]), X)
    np.testing.assert_array_equal(np.concatenate([part["extra"] for part in parts]), EXTRA)
    assert len(data.head(count)["x"]) == min(count, 6)


def test_the_digest_is_that_of_the_content() -> None:
    first = Dataset({"x": X, "extra": EXTRA})
    assert first.digest() == Dataset({"extra": EXTRA.copy(), "x": X.copy()}, origin="elsewhere").digest()
    others = [
        Dataset({"x": X}),
        Dataset({"x": X + 1, "extra": EXTRA}),
        Dataset({"x": X.reshape(6, 2, 2), "extra": EXTRA}),
        Dataset({"x": X.astype(np.float64), "extra": EXTRA}),
        Dataset({"z": X, "extra": EXTRA}),
        Dataset({"x": np.asfortranarray(X)[::-1], "extra": EXTRA}),
    ]
    assert len({item.digest() for item in [first, *others]}) == 7


def test_an_npz_holds_one_array_an_input(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "d.npz", extra=EXTRA, x=X, labels=LABELS)
    data = load_data("d.npz", tmp_path, ("x", "extra"))
    assert list(data.inputs) == ["x", "extra"]
    np.testing.assert_array_equal(data.inputs["x"], X)
    assert data.labels is not None
    assert data.origin == "d.npz"


def test_an_npy_is_the_only_input(tmp_path: Path) -> None:
    np.save(tmp_path / "d.npy", X)
    np.testing.assert_array_equal(load_data("d.npy", tmp_path, ("x",)).inputs["x"], X)


def test_a_python_callable_yields_batches(tmp_path: Path) -> None:
    (tmp_path / "feed.py").write_text(
        "import numpy as np\ndef batches():\n    for i in range(3):\n        yield {'x': np.full((2, 4), i, 'f')}\n"
        "def fails():\n    raise OSError('disk')\n"
    )
    assert load_data("feed.py:batches", tmp_path, ("x",)).inputs["x"].shape == (6, 4)
    with pytest.raises(SourceError, match=r"fails\(\) raised OSError: disk"):
        load_data("feed.py:fails", tmp_path, ("x",))
    with pytest.raises(SourceError, match="no callable 'missing'"):
        load_data("feed.py:missing", tmp_path, ("x",))


@pytest.mark.parametrize("text", ["raise SystemExit(3)", "import no_such_package", "def ("])
def test_a_python_file_that_can_not_be_imported_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "feed.py").write_text(text)
    with pytest.raises(SourceError, match=r"feed\.py:batches: importing it raised"):
        load_data("feed.py:batches", tmp_path, ("x",))
    with pytest.raises(SourceError, match=r"none\.py: no such file"):
        load_data("none.py:batches", tmp_path, ("x",))


def test_batches_that_can_not_be_made_are_named() -> None:
    def failing() -> Iterator[Any]:
        yield X
        raise RuntimeError("disk is full")

    with pytest.raises(SourceError, match=r"^the origin: .*RuntimeError: disk is full"):
        as_dataset(failing(), ("x",), "the origin")


def test_a_dataset_stays_as_it_is() -> None:
    data = Dataset({"x": X})
    assert as_dataset(data, ("x",), "test") is data


def test_the_content_decides_whether_it_is_one_array_or_many(tmp_path: Path) -> None:
    np.save(tmp_path / "d.npy", X)
    (tmp_path / "d.npy").replace(tmp_path / "one.npz")
    np.savez(tmp_path / "d.npz", x=X)
    (tmp_path / "d.npz").replace(tmp_path / "many.npy")
    for name in ("one.npz", "many.npy"):
        np.testing.assert_array_equal(load_data(name, tmp_path, ("x",)).inputs["x"], X)


@pytest.mark.parametrize("kind", ["text", "empty", "truncated", "overwritten", "pickled", "missing"])
@pytest.mark.parametrize("suffix", ["npz", "npy"])
def test_files_that_hold_no_arrays_are_named(tmp_path: Path, kind: str, suffix: str) -> None:
    path = tmp_path / f"d.{suffix}"
    save: Any = np.savez_compressed if suffix == "npz" else np.save
    save(path, np.array([{}], dtype=object) if kind == "pickled" else np.random.default_rng(0).random((50, 50)))
    whole = path.read_bytes()
    if kind in ("text", "empty"):
        path.write_bytes(b"1 2 3" if kind == "text" else b"")
    elif kind == "truncated":
        path.write_bytes(whole[:-500])
    elif kind == "overwritten":
        start = len(whole) // 3 if suffix == "npz" else 0
        path.write_bytes(whole[:start] + bytes(20) + whole[start + 20 :])
    elif kind == "missing":
        path.unlink()
    with pytest.raises(SourceError, match=path.name):
        load_data(path.name, tmp_path, ("x",))


def test_a_generator_may_fill_the_same_array_again() -> None:
    def refilled() -> Iterator[Any]:
        batch = np.empty((2, 4), np.float32)
        for start in range(0, 6, 2):
            batch[:] = X[start : start + 2]
            yield {"x": batch}

    np.testing.assert_array_equal(as_dataset(refilled(), ("x",), "test").inputs["x"], X)


def test_an_infinite_mask_has_a_fix_that_gives_a_finite_mask() -> None:
    mask = np.where(np.tri(6) == 1, 0, -np.inf)
    with pytest.raises(SourceError) as raised:
        as_dataset({"mask": mask}, ("mask",), "the origin")
    finite = eval(raised.value.fix.partition(": ")[2], {"np": np, "arrays": {"mask": mask}})
    np.testing.assert_array_equal(as_dataset({"mask": finite}, ("mask",), "the origin").inputs["mask"] == 0, mask == 0)
    with pytest.raises(SourceError) as other:
        as_dataset({"mask": np.full((6, 6), -np.inf)}, ("mask",), "the origin")
    assert other.value.fix != raised.value.fix


@pytest.mark.parametrize("size", [1, 100_000])
def test_batches_that_never_end_are_stopped(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    """Tiny ones too, long before their values fill memory."""
    taken = []

    def endless() -> Iterator[Any]:
        for number in itertools.count():
            taken.append(number)
            yield np.zeros((1, size), np.float32)

    monkeypatch.setattr(batches_module, "MEMORY_LIMIT", 10**7)
    with pytest.raises(SourceError, match=r"the origin: more than 0\.0 GB after \d+ batches"):
        as_dataset(endless(), ("x",), "the origin")
    assert len(taken) == 10**7 // max(4096, 4 * size) + 1
    few = as_dataset(itertools.islice(endless(), 5), ("x",), "the origin")
    assert few.inputs["x"].shape == (5, size)


def test_a_large_data_set_is_refused_before_it_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    class Large(torch.utils.data.Dataset[Any]):
        def __init__(self) -> None:
            self.read = 0

        def __len__(self) -> int:
            return 50_000

        def __getitem__(self, number: int) -> Any:
            self.read += 1
            return np.zeros((3, 8, 8), np.float32)

    monkeypatch.setattr(batches_module, "MEMORY_LIMIT", 10**7)
    data = Large()
    with pytest.raises(SourceError, match=r"50000 samples take 0\.2 GB") as error:
        as_dataset(data, ("x",), "the origin")
    assert data.read == 1
    assert "range(0, 50000, 100)" in error.value.fix


def test_the_first_samples_are_data_of_their_own() -> None:
    data = Dataset({"x": np.arange(10)}, np.arange(10) * 2, "there", alone=True)
    some = data.first(3)
    assert some.samples == 3
    assert some.labels is not None
    assert (some.labels.tolist(), some.origin, some.alone) == ([0, 2, 4], "there", True)
    assert [len(batch["x"]) for batch in some.batches(32)] == [1, 1, 1]


def test_big_endian_arrays_become_native(tmp_path: Path) -> None:
    """PyTorch refuses other byte orders, which files of other machines and of FITS or IDX readers have."""
    given = np.arange(12, dtype=">f4").reshape(4, 3)
    np.save(tmp_path / "big.npy", given)
    for value in (given, [given[:2], given[2:]], np.load(tmp_path / "big.npy")):
        array = as_dataset(value, ("x",), "test").inputs["x"]
        assert array.dtype.isnative
        assert np.array_equal(array, given)
