"""Folders of images: the pixels that mnnquant feeds, in a fixed order; what is no image is named."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import nn

from pytest_mnnquant.measurements.dataset import Dataset
from pytest_mnnquant.mnnfile.model import read_model
from pytest_mnnquant.quantize.mnnquant import quantize_offline
from pytest_mnnquant.recipes.recipe import MnnquantRecipe
from pytest_mnnquant.runtime.jobs import NativeFailure
from pytest_mnnquant.runtime.mnnquant import mnnquant
from pytest_mnnquant.runtime.options import RunOptions
from pytest_mnnquant.sources import images
from pytest_mnnquant.sources.data import load_data
from pytest_mnnquant.sources.images import Preprocess, parse_preprocess
from pytest_mnnquant.sources.spec import DataError
from tests.conftest import TIMEOUT
from tests.pictures import flat, png, scene, write_jpegs
from tests.workshop import Workshop

GREY = Preprocess("GRAY", (4, 4), (0.0,), (1.0,))


def load(folder: Path, preprocess: Preprocess = GREY) -> Dataset:
    return load_data(folder.name, folder.parent, ("x",), preprocess, TIMEOUT)


def greys(folder: Path, *names: str) -> Path:
    """Flat pictures; the n-th named is n units of grey bright."""
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(flat(5, 3, number))
    return folder


def seen(data: Dataset) -> list[int]:
    """How bright each sample is."""
    return [round(float(sample.mean())) for sample in data.inputs["x"]]


def by_mnnquant(folder: Path, preprocess: Preprocess, model: Path, output: Path) -> Path:
    """Calibrate with MNN's tool as it reads images itself."""
    facts = dataclasses.asdict(preprocess)
    width, height = facts.pop("size")
    del facts["count"]
    config = {**facts, "width": width, "height": height, "path": f"{folder}/", "used_image_num": 0}
    mnnquant(model, output, {**config, "feature_quantize_method": "KL"}, timeout=TIMEOUT)
    return output


@pytest.mark.parametrize(
    "preprocess",
    [
        Preprocess("RGB", (24, 20), (103.94, 116.78, 123.68), (0.017, 0.018, 0.0165)),
        Preprocess("BGR", (61, 57), (103.94, 116.78, 123.68), (0.017, 0.018, 0.0165), 0.6, 0.83),
        Preprocess("GRAY", (40, 25), (127.5,), (0.00784,), 0.9),
        Preprocess("RGBA", (53, 37), (1.5, 2.5, 3.5, 0.0), (0.01, 0.02, 0.03, 0.004)),
    ],
    ids=lambda preprocess: preprocess.format,
)
def test_the_pixels_are_those_that_mnnquant_feeds(
    preprocess: Preprocess, tmp_path: Path, workshop: Workshop, random: np.random.Generator
) -> None:
    """Calibrated on the files by MNN's tool, and on our arrays: the models are equal in every byte."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    shots = [scene(random, 53 + 20 * number, 37 + 9 * number) for number in range(4)]
    write_jpegs(folder, {"c": shots[0], "a": shots[1]})
    (folder / "b.png").write_bytes(png(shots[2]))
    (folder / "d.png").write_bytes(png(shots[3][..., :1]))
    network = nn.Sequential(nn.Conv2d(preprocess.channels, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3)).eval()
    data = load_data("pictures", tmp_path, ("input",), preprocess, TIMEOUT)
    model = workshop.floats(network, data, dynamic=False)
    theirs = read_model(by_mnnquant(folder, preprocess, model.path, tmp_path / "theirs.mnn"))

    def ours(data: Dataset) -> Any:
        options = RunOptions(TIMEOUT, batched=False)
        quantize_offline(model, data, tmp_path / "ours.mnn", MnnquantRecipe(name="kl", feature="KL"), (), options)
        return read_model(tmp_path / "ours.mnn").tensor_quants

    assert len(theirs.tensor_quants) > 3
    assert ours(data) == theirs.tensor_quants
    assert (tmp_path / "ours.mnn").read_bytes() == theirs.path.read_bytes()
    nearly = dataclasses.replace(preprocess, mean=tuple(mean + 0.01 for mean in preprocess.mean))
    assert ours(load_data("pictures", tmp_path, ("input",), nearly, TIMEOUT)) != theirs.tensor_quants


@pytest.mark.parametrize(
    ("kind", "channels"), [("RGB", [10, 20, 30]), ("BGR", [30, 20, 10]), ("GRAY", [18]), ("RGBA", [10, 20, 30, 255])]
)
def test_pixels_become_values_channel_by_channel(tmp_path: Path, kind: str, channels: list[int]) -> None:
    (tmp_path / "a.png").write_bytes(flat(7, 9, 10, 20, 30))
    mean, normal = np.array([1.0, 2.0, 3.0, 4.0])[: len(channels)], np.array([2.0, 3.0, 4.0, 5.0])[: len(channels)]
    data = load(tmp_path, Preprocess(kind, (6, 5), tuple(mean), tuple(normal)))
    found = data.inputs["x"]
    assert found.shape == (1, len(channels), 5, 6)  # the size is (width, height)
    assert found.dtype == np.float32
    expected = (np.array(channels) - mean) * normal
    np.testing.assert_allclose(found[0], np.broadcast_to(expected[:, None, None], found[0].shape), rtol=0.06)
    np.testing.assert_array_equal(found[0], np.broadcast_to(found[0, :, :1, :1], found[0].shape))


def test_the_middle_is_cut_out(tmp_path: Path) -> None:
    pixels = np.zeros((10, 10, 1))
    pixels[4:6, 2:8] = 200
    (tmp_path / "a.png").write_bytes(png(pixels))
    cut = dataclasses.replace(GREY, center_crop_w=0.6, center_crop_h=0.2)
    assert load(tmp_path, cut).inputs["x"].min() == 200
    assert load(tmp_path).inputs["x"].min() == 0


def test_images_come_in_the_order_of_their_names(tmp_path: Path) -> None:
    folder = greys(tmp_path / "pictures", "b.png", "a.png", "10.png", "deeper/x.png", "9.png", ".hidden.png", ".git/a")
    assert seen(load(folder)) == [2, 4, 1, 0, 3]
    assert load(folder).labels is None


@pytest.mark.parametrize(("count", "expected"), [(1, [5]), (2, [2, 7]), (5, [1, 3, 5, 7, 9]), (10, list(range(10)))])
def test_a_subset_is_spread_evenly_and_always_the_same(tmp_path: Path, count: int, expected: list[int]) -> None:
    folder = greys(tmp_path / "pictures", *(f"{number}.png" for number in range(10)))
    assert seen(load(folder, dataclasses.replace(GREY, count=count))) == expected
    assert seen(load(folder, dataclasses.replace(GREY, count=99))) == list(range(10))


def test_folders_named_by_numbers_are_labels(tmp_path: Path) -> None:
    folder = greys(tmp_path / "pictures", "0/a.png", "0/b.png", "12/a.png", "7/z.png")
    data = load(folder)
    assert data.labels is not None
    assert (seen(data), data.labels.tolist()) == ([0, 1, 2, 3], [0, 0, 12, 7])
    greys(folder, "cat/a.png")
    with pytest.raises(DataError, match=r"pictures: cat/a\.png: its folder"):
        load(folder)


def test_folders_named_by_classes_are_labels_as_torchvision_counts_them(tmp_path: Path) -> None:
    folder = greys(tmp_path / "pictures", "cat/a.png", "Dog/deep/b.png", "ant/a.png", "cat/b.png")
    data = load(folder)
    assert data.labels is not None
    assert (seen(data), data.labels.tolist()) == ([1, 2, 0, 3], [0, 1, 2, 2])
    some = load(folder, dataclasses.replace(GREY, count=3))
    assert some.labels is not None
    assert some.labels.tolist() == [0, 1, 2]
    listed = load(folder, dataclasses.replace(GREY, classes=("ant", "bee", "cat", "Dog")))
    assert listed.labels is not None
    assert listed.labels.tolist() == [3, 0, 2, 2]
    (folder / "bee").mkdir()
    with pytest.raises(DataError, match="the class 'bee' has no files"):
        load(folder)


def test_a_webp_is_decoded_by_pillow(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    image.new("RGBA", (5, 3), (90, 90, 90, 7)).save(tmp_path / "a.webp", lossless=True)
    assert seen(load(tmp_path)) == [90]
    (tmp_path / "a.webp").write_bytes((tmp_path / "a.webp").read_bytes()[:20])
    with pytest.raises(DataError, match=r"a\.webp: Pillow can't decode this image"):
        load(tmp_path)


def test_forms_of_pixels_are_read_as_pillow_reads_them(tmp_path: Path) -> None:
    """16 bits keep their high byte, transparency is dropped, and the orientation in EXIF is not applied."""
    pillow = pytest.importorskip("PIL.Image")
    y, x = np.mgrid[:12, :16]
    colours = np.stack([x * 16, y * 20, (x + y) * 9], -1).astype(np.uint8)
    seen_through = np.dstack([colours, (x * 15).astype(np.uint8)])
    image, deep, turned = pillow.fromarray(colours), (x * 4000 + y * 300).astype(np.uint16), pillow.Exif()
    turned[0x0112] = 6
    image.save(tmp_path / "a.png")
    image.quantize(16).save(tmp_path / "palette.png")
    image.quantize(16).save(tmp_path / "palette.bmp")
    image.quantize(16).save(tmp_path / "palette_with_hole.png", transparency=3)
    pillow.fromarray(seen_through).save(tmp_path / "alpha.png")
    pillow.fromarray(seen_through).save(tmp_path / "alpha.webp", lossless=True, exact=True)
    pillow.fromarray(seen_through[..., 2:], "LA").save(tmp_path / "grey_alpha.png")
    pillow.fromarray(colours[..., 0] > 100).save(tmp_path / "one_bit.png")
    image.convert("L").save(tmp_path / "grey.jpg")
    image.convert("CMYK").save(tmp_path / "cmyk.jpg")
    image.save(tmp_path / "turned.jpg", exif=turned, progressive=True)
    image.save(tmp_path / "turned.webp", exif=turned, lossless=True)
    pillow.fromarray(deep).save(tmp_path / "deep.png")
    data = load(tmp_path, Preprocess("RGB", (16, 12), (0.0,) * 3, (1.0,) * 3)).inputs["x"]
    for path, found in zip(sorted(tmp_path.iterdir()), data, strict=True):
        expected = np.array(pillow.open(path).convert("RGB"), np.float32)
        if path.stem == "deep":
            expected = np.repeat((deep >> 8)[..., None], 3, 2).astype(np.float32)
        # Decoders of JPEG round differently.
        assert np.abs(found.transpose(1, 2, 0) - expected).max() <= (2 if path.suffix == ".jpg" else 0), path.name


def test_a_truncated_bmp_is_named(tmp_path: Path) -> None:
    """MNN reads it without a word, with any values in what is missing."""
    rows = bytes(3 * 8 * 8)
    head = b"BM" + (54 + len(rows)).to_bytes(4, "little") + bytes(4) + (54).to_bytes(4, "little")
    form = (40).to_bytes(4, "little") + (8).to_bytes(4, "little") * 2 + b"\x01\0\x18\0" + bytes(24)
    (tmp_path / "a.bmp").write_bytes(head + form + rows)
    assert seen(load(tmp_path)) == [0]
    (tmp_path / "a.bmp").write_bytes(head + form + rows[:50])
    with pytest.raises(DataError, match=r"a\.bmp: MNN can't decode this image"):
        load(tmp_path)


def test_what_is_no_image_is_named(tmp_path: Path, random: np.random.Generator) -> None:
    folder = greys(tmp_path / "pictures", "a.png", "z.png")
    bad, whole = folder / "bad.png", png(scene(random, 40, 40))
    for content in (b"", b"no image", whole[:50], whole[: len(whole) // 2]):
        bad.write_bytes(content)
        with pytest.raises(DataError, match=r"pictures: bad\.png: MNN can't decode this image"):
            load(folder)
    bad.rename(folder / "notes.txt")
    with pytest.raises(DataError, match=r"pictures: notes\.txt: not an image that MNN can decode \(\.png, \.jpg"):
        load(folder)


def test_a_folder_without_images_is_named(tmp_path: Path) -> None:
    (tmp_path / "pictures" / ".hidden").mkdir(parents=True)
    with pytest.raises(DataError, match="pictures: the folder contains no files"):
        load(tmp_path / "pictures")


def test_transparency_that_mnn_would_feed_is_refused(tmp_path: Path) -> None:
    """MNN's tool would feed it, its Python package drops it: the pixels would not be the same."""
    (tmp_path / "a.png").write_bytes(flat(4, 4, 10, 20, 30, 128))
    with pytest.raises(DataError, match=r"a\.png: MNN's Python package can't read an alpha channel"):
        load(tmp_path, Preprocess("RGBA", (4, 4), (0.0,) * 4, (1.0,) * 4))
    assert load(tmp_path, Preprocess("RGB", (4, 4), (0.0,) * 3, (1.0,) * 3)).inputs["x"][0, :, 0, 0].tolist() == [
        10,
        20,
        30,
    ]


def test_a_cut_that_leaves_nothing_is_named(tmp_path: Path) -> None:
    greys(tmp_path, "a.png")
    with pytest.raises(DataError, match=r"a\.png: center_crop .*5x3 pixels"):
        load(tmp_path, dataclasses.replace(GREY, center_crop_h=0.1))


def test_more_than_memory_holds_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    greys(tmp_path, "a.png", "b.png")
    monkeypatch.setattr(images, "MEMORY_LIMIT", 100)
    with pytest.raises(DataError, match=r"2 images of 4x4 take more than .*preprocess = \{count = 500"):
        load(tmp_path)
    assert load(tmp_path, dataclasses.replace(GREY, count=1)).samples == 1


def test_a_time_limit_is_no_damaged_image(tmp_path: Path, random: np.random.Generator) -> None:
    (tmp_path / "a.png").write_bytes(png(scene(random, 60, 60)))
    with pytest.raises(NativeFailure, match=r"decoding the images of .*: not finished after 1e-06 s"):
        load_data(tmp_path.name, tmp_path.parent, ("x",), GREY, 1e-6)


def test_a_folder_feeds_one_input(tmp_path: Path) -> None:
    greys(tmp_path, "a.png")
    with pytest.raises(DataError, match=r"feeds one input, the model has 2: image, extra; .*numpy\.savez"):
        load_data(".", tmp_path, ("image", "extra"), GREY, TIMEOUT)


def test_a_folder_without_preprocessing_is_told_what_to_declare(tmp_path: Path) -> None:
    greys(tmp_path / "pictures", "a.png")
    with pytest.raises(DataError, match=r'the preprocessing of a folder.*preprocess = \{format = "RGB", size = \['):
        load_data("pictures", tmp_path, ("x",))


TABLE = {"format": "RGB", "size": [8, 6], "mean": [1, 2, 3], "normal": [0.1, 0.2, 0.3]}


def test_a_table_becomes_settings() -> None:
    plain = Preprocess("RGB", (8, 6), (1.0, 2.0, 3.0), (0.1, 0.2, 0.3))
    assert parse_preprocess(TABLE, "here") == plain
    assert plain.channels == 3
    more = {"center_crop_w": 0.875, "center_crop_h": 0.5, "count": 200}
    changed = dataclasses.replace(plain, center_crop_w=0.875, center_crop_h=0.5, count=200)
    assert parse_preprocess({**TABLE, **more}, "here") == changed


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"format": "rgb"}, r"format: 'rgb' is unknown; choose from: RGB, BGR, RGBA, GRAY"),
        ({"format": ["RGB"]}, r"format: \['RGB'\] is unknown"),
        ({"size": 224}, r"size: 224 is not \[width, height\]"),
        ({"size": [224]}, r"size: \[224\] is not \[width, height\]"),
        ({"size": [224, 0]}, "size: "),
        ({"size": [224, 2.5]}, "size: "),
        ({"size": [True, 4]}, "size: "),
        ({"mean": [1, 2]}, r"mean: \[1, 2\] .* 3 .*RGB"),
        ({"mean": 1}, "mean: 1 is not a list of 3 numbers"),
        ({"normal": [1, 2, "3"]}, "normal: "),
        ({"normal": [1, 2, float("nan")]}, "normal: "),
        ({"format": "GRAY"}, "mean: .* 1 .*GRAY"),
        ({"count": 0}, "count: 0 is not a number of samples"),
        ({"center_crop_w": 1.5}, "center_crop_w: 1.5 is not a share of the image"),
        ({"center_crop_h": 0}, "center_crop_h: 0 is not a share of the image"),
        ({"width": 224}, "unknown key 'width'; known: format, size, mean, normal, center_crop_w"),
    ],
)
def test_a_bad_value_is_named(change: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match=problem) as error:
        parse_preprocess({**TABLE, **change}, "[models.x]: preprocess")
    assert str(error.value).startswith("[models.x]: preprocess: ")


@pytest.mark.parametrize("key", TABLE)
def test_a_missing_key_is_named(key: str) -> None:
    with pytest.raises(ValueError, match=f"here: the key '{key}' is missing; example: preprocess = "):
        parse_preprocess({name: value for name, value in TABLE.items() if name != key}, "here")
    with pytest.raises(ValueError, match="here: 3 is not a table"):
        parse_preprocess(3, "here")
