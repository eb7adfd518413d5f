"""Loading image data: what is left out and why, splits, fingerprints, saving."""

from __future__ import annotations

import shutil
import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from photographs import photograph, write_classes, write_image

from tfapp.data.image import ImageData, ImageSplit, load_image_data
from tfapp.data.image_store import png_file
from tfapp.data.report import DataReport, Dropped
from tfapp.data.text import TextData, load_text_data
from tfapp.errors import DataError


def refusal(source, **options) -> str:
    with pytest.raises(DataError) as caught:
        load_image_data(source, **options)
    return str(caught.value)


def dropped(data):
    return {(entry.split, entry.reason): entry.rows for entry in data.report.dropped}


def names(split):
    return {
        "/".join(Path(split.images.name(row)).parts[-2:]): split.classes[split.labels[row]]
        for row in range(len(split))
    }


@pytest.fixture(scope="module")
def pets(tmp_path_factory):
    return write_classes(tmp_path_factory.mktemp("images") / "pets", {"cat": 10, "dog": 20}, suffix=".jpg")


@pytest.fixture
def copy(pets, tmp_path):
    return shutil.copytree(pets, tmp_path / "pets")


def test_every_image_keeps_its_label_and_every_class_its_share(pets):
    data = load_image_data(pets)
    assert data.classes == ("cat", "dog")
    assert {name: np.bincount(split.labels).tolist() for name, split in data.splits.items()} == {
        "train": [7, 14],
        "validation": [1, 2],
        "test": [2, 4],
    }
    found = {file: label for split in data.splits.values() for file, label in names(split).items()}
    assert found == {str(path.relative_to(pets)): path.parent.name for path in pets.glob("*/*")}
    assert data.train.features[0] == Path(data.train.images.name(0)).read_bytes()
    assert data.report.images.formats == {"JPEG": 30}
    assert data.report.images.smallest == data.report.images.largest == (32, 40)
    assert data.report.lines()[-1].split(maxsplit=1) == [
        "images",
        "JPEG 30; 32 x 40 to 32 x 40 pixels, median 32 x 40",
    ]


def test_drawn_splits_depend_on_seed_and_content_alone(pets, tmp_path):
    first = load_image_data(pets)
    renamed = tmp_path / "pets"
    for number, path in enumerate(sorted(pets.glob("*/*"), reverse=True)):
        (renamed / path.parent.name).mkdir(parents=True, exist_ok=True)
        shutil.copy(path, renamed / path.parent.name / f"{number:03}.jpg")
    second = load_image_data(renamed)
    assert {name: set(split.digests) for name, split in first.splits.items()} == {
        name: set(split.digests) for name, split in second.splits.items()
    }
    assert set(load_image_data(pets, seed=1).test.digests) != set(first.test.digests)
    assert load_image_data(pets).fingerprint == first.fingerprint


def png_header(width: int, height: int) -> bytes:
    content = bytearray(png_file(np.zeros((1, 1, 3), np.uint8)))
    content[16:24] = struct.pack(">II", width, height)
    return bytes(content)


DAMAGED = {
    "empty.jpg": (b"", "the file is empty"),
    "text.jpg": (b"not an image at all, only words", "not an image in JPEG, PNG, BMP or GIF format"),
    "huge.png": (png_header(20_000, 20_000), "it has more than max_pixels = 50,000,000 pixels"),
    "web.webp": (b"RIFF\x24\0\0\0WEBPVP8 " + b"\0" * 40, "its format, WebP, cannot be read in the graph"),
    "scan.tif": (b"II*\0" + b"\0" * 40, "its format, TIFF, cannot be read in the graph"),
}


@pytest.fixture
def damaged(copy):
    for name, (content, _) in DAMAGED.items():
        (copy / "dog" / name).write_bytes(content)
    whole = (copy / "dog" / "000.jpg").read_bytes()
    (copy / "dog" / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (copy / "dog" / "damaged.png").write_bytes(png_file(photograph(99))[:-200])
    return copy


def test_unusable_images_are_left_out_by_name_and_reason(damaged):
    data = load_image_data(damaged)
    assert sum(map(len, data.splits.values())) == 30
    reasons = data.report.unreadable
    assert sum(reasons.values()) == 7
    places = {entry.reason: entry.examples for entry in data.report.dropped}
    for name, (_, reason) in DAMAGED.items():
        (found,) = (entry for entry in places if reason in entry)
        assert places[found] == (str(damaged / "dog" / name),)
    assert any("JPEG file is damaged or cut short" in reason for reason in reasons)
    assert any("PNG file is damaged or cut short" in reason for reason in reasons)
    assert (
        "left out   1 row of train, unreadable: the file is empty (pets/dog/empty.jpg)" in data.report.lines()
    )


def test_unusable_images_are_refused_when_that_is_wanted(damaged):
    message = refusal(damaged, unreadable="refuse")
    assert message.startswith("7 of 37 images of train cannot be used:\n")
    for name, (_, reason) in DAMAGED.items():
        assert f"  {damaged / 'dog' / name}: {reason}" in message
    assert message.endswith("or leave them out with unreadable='skip'.")


def test_more_than_half_unusable_is_refused_anyway(tmp_path):
    write_classes(tmp_path, {"cat": 3, "dog": 3})
    for number in range(7):
        (tmp_path / "dog" / f"broken{number}.jpg").write_bytes(b"x")
    assert refusal(tmp_path).startswith("7 of 13 images of train cannot be used:")


def test_files_that_are_absent_or_larger_than_any_image(tmp_path, pets):
    sparse = tmp_path / "large.jpg"
    with sparse.open("wb") as file:
        file.truncate(3_000_000_000)
    rows = [(str(path), path.parent.name) for path in sorted(pets.glob("*/*"))]
    data = load_image_data([*rows, (str(sparse), "cat"), (str(tmp_path / "none.jpg"), "dog"), ("", "dog")])
    assert data.report.unreadable == {
        "the file is larger than any image of max_pixels": 1,
        "there is no such file": 1,
        "no path is given": 1,
    }


def test_max_pixels_is_a_setting(pets):
    assert "it has more than max_pixels = 1,000 pixels" in refusal(pets, max_pixels=1000)


def test_equal_images_are_kept_once_and_conflicting_ones_not_at_all(copy):
    shutil.copy(copy / "dog" / "003.jpg", copy / "dog" / "again.jpg")
    shutil.copy(copy / "dog" / "004.jpg", copy / "cat" / "which.jpg")
    data = load_image_data(copy)
    assert dropped(data) == {("train", "duplicate"): 1, ("train", "conflicting labels"): 2}
    assert sum(map(len, data.splits.values())) == 29


def test_images_of_held_out_splits_leave_the_others(copy, tmp_path):
    shutil.move(copy, tmp_path / "all" / "train")
    for split in ("validation", "test"):
        write_classes(tmp_path / "all" / split, {"cat": 3, "dog": 3}, first=100 if split == "test" else 200)
        shutil.copy(tmp_path / "all/train/dog/005.jpg", tmp_path / "all" / split / "dog")
    shutil.copy(tmp_path / "all/train/cat/001.jpg", tmp_path / "all/validation/cat")
    data = load_image_data(tmp_path / "all")
    assert dropped(data) == {
        ("validation", "also in test"): 1,
        ("train", "also in test"): 1,
        ("train", "also in validation"): 1,
    }
    assert [len(split) for split in data.splits.values()] == [28, 7, 7]
    assert data.report.leaks == 3


def brighter(path: Path) -> np.ndarray:
    number = int(path.stem) + (10 if path.parent.name == "dog" else 0)
    return np.minimum(photograph(number) * 1.1, 255).astype(np.uint8)


def test_near_duplicates_stay_in_one_split_when_it_is_drawn(copy):
    pairs = {}
    for path in sorted(copy.glob("dog/*"))[:8]:
        pairs[f"dog/{path.name}"] = f"dog/{path.stem}b.jpg"
        write_image(path.with_name(f"{path.stem}b.jpg"), brighter(path))
    for seed in range(3):
        data = load_image_data(copy, seed=seed)
        for split in data.splits.values():
            held = set(names(split))
            assert {pair for pair in pairs.items() if set(pair) & held} == {
                pair for pair in pairs.items() if set(pair) <= held
            }
    (near,) = data.report.images.near_duplicates
    assert (near.split, near.other, near.pairs) == ("train", "train", 8)
    assert data.report.near_leaks == 0
    assert "alike      8 pairs of near duplicates within train (pets/dog/000.jpg and" in "\n".join(
        data.report.lines()
    )


def test_near_duplicates_of_held_out_images_leave_the_others(copy, tmp_path):
    shutil.move(copy, tmp_path / "all" / "train")
    held_out = write_classes(tmp_path / "all" / "test", {"cat": 3, "dog": 3}, first=100)
    write_image(held_out / "cat" / "near.png", brighter(tmp_path / "all/train/cat/002.jpg"))
    data = load_image_data(tmp_path / "all")
    assert dropped(data) == {("train", "nearly in test"): 1}
    assert data.report.near_leaks == 1
    kept = load_image_data(tmp_path / "all", near_duplicates="keep")
    assert dropped(kept) == {}
    (near,) = kept.report.images.near_duplicates
    assert (near.split, near.other, near.pairs) == ("train", "test", 1)
    assert near.examples == ((str(tmp_path / "all/train/cat/002.jpg"), str(held_out / "cat" / "near.png")),)


def test_near_duplicates_that_leave_too_few_groups_are_taken_apart(tmp_path, caplog):
    write_classes(tmp_path, {"dog": 12})
    for number in range(6):
        lighter = np.minimum(photograph(50) * (1 + number / 50), 255).astype(np.uint8)
        write_image(tmp_path / "cat" / f"{number}.png", lighter)
    data = load_image_data(tmp_path)
    assert [np.bincount(split.labels).tolist()[0] for split in data.splits.values()] == [4, 1, 1]
    assert "near duplicates of 'cat' may stand in several splits" in caplog.text


def grouped(pets, group):
    paths = sorted(pets.glob("*/*"))
    return pd.DataFrame(
        {
            "path": [str(path) for path in paths],
            "label": [path.parent.name for path in paths],
            "tile": [group(number) for number in range(len(paths))],
        }
    )


def test_groups_stay_in_one_split(pets):
    frame = grouped(pets, lambda number: number // 2 if number < 26 else None)
    data = load_image_data(frame, group="tile")
    shuffled = load_image_data(frame.sample(frac=1, random_state=0), group="tile")
    tile = dict(zip(frame["path"], frame["tile"], strict=True))
    owners = {}
    for name, split in data.splits.items():
        assert set(split.digests) == set(shuffled.splits[name].digests)
        for row in range(len(split)):
            if not np.isnan(number := tile[split.images.name(row)]):
                assert owners.setdefault(number, name) == name
    assert [len(split) for split in data.splits.values()] == [20, 4, 6]  # pairs fill odd shares


def test_groups_of_held_out_splits_leave_the_others(pets):
    frame = grouped(pets, lambda number: f"tile {number // 3}")
    test = frame.iloc[[0, 3, 12, 15]]
    data = load_image_data(frame.drop(test.index), test=test, group="tile")
    assert dropped(data) == {("train", "group also in test"): 8}
    assert data.report.group_leaks == 8


def test_groups_that_are_too_few(pets):
    frame = grouped(pets, lambda number: f"tile {number // 5}")
    message = refusal(frame, group="tile")
    assert "1 class in fewer than 3 groups, one each for train, test, validation: 'cat' (2 groups)" in message


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"unreadable": "drop"}, "unreadable='drop' is unknown; choices: 'refuse', 'skip'"),
        ({"near_duplicates": "remove"}, "near_duplicates='remove' is unknown"),
        ({"test_fraction": 1.5}, "test_fraction=1.5 must lie between 0 and 1"),
        ({"test": "missing"}, "is no file or folder here"),
    ],
)
def test_settings_that_cannot_be(pets, options, said):
    assert said in refusal(pets, **options)


def test_held_out_classes_must_be_known(pets, tmp_path):
    write_classes(tmp_path, {"cat": 1, "dgo": 1}, first=300)
    message = refusal(pets, test=tmp_path)
    assert message.startswith(f"{tmp_path / 'dgo' / '000.png'}: the label 'dgo' of test does not occur")


def test_saving_and_loading(pets, tmp_path):
    data = load_image_data(pets)
    folder = data.save(tmp_path / "saved")
    loaded = ImageData.load(folder)
    assert loaded.fingerprint == data.fingerprint
    assert loaded.report == data.report == DataReport.from_dict(data.report.to_dict())
    assert list(loaded.test.images) == list(data.test.images)
    assert loaded.test.digests == data.test.digests
    assert len(list(folder.iterdir())) == 4


def test_saved_arrays_bring_their_images_along(tmp_path):
    pixels = np.stack([photograph(seed) for seed in range(20)])
    data = load_image_data((pixels, np.arange(20) % 2))
    data.save(tmp_path / "saved")
    folder = (tmp_path / "saved").rename(tmp_path / "moved")
    loaded = ImageData.load(folder)
    assert list(loaded.train.images) == list(data.train.images)
    assert len(list(folder.iterdir())) == 7
    load_image_data((pixels, np.arange(20) % 2), seed=4).save(folder)
    assert len(list(folder.iterdir())) == 7
    next(folder.glob("train-*.images")).write_bytes(b"")
    with pytest.raises(DataError, match=r"the image file .*\.images has 0 bytes"):
        ImageData.load(folder)


def test_loading_says_which_file_is_gone_or_changed(copy, tmp_path):
    data = load_image_data(copy)
    data.save(tmp_path / "saved")
    first, second = (Path(data.train.images.name(row)) for row in (0, 1))
    content = second.read_bytes()
    second.write_bytes(content[:-5])
    with pytest.raises(DataError, match=rf"{second} has [0-9,]+ bytes and had {len(content):,}; put it back"):
        ImageData.load(tmp_path / "saved")
    first.unlink()
    with pytest.raises(DataError, match=f"the image file {first} cannot be found: No such file"):
        ImageData.load(tmp_path / "saved")


def test_texts_are_no_images(tmp_path, pets):
    texts = load_text_data([(f"text {number}", number % 2) for number in range(12)])
    assert texts.train.features == texts.train.texts
    texts.save(tmp_path / "texts")
    with pytest.raises(DataError, match="holds text data, not image data"):
        ImageData.load(tmp_path / "texts")
    load_image_data(pets).save(tmp_path / "images")
    with pytest.raises(DataError, match="holds image data, not text data"):
        TextData.load(tmp_path / "images")
    with pytest.raises(DataError, match="'elpv' is a packaged data set of images, read by load_image_data"):
        load_text_data("elpv")


def test_splits_check_what_they_are_made_of(pets):
    data = load_image_data(pets)
    with pytest.raises(DataError, match="has 6 images and labels of shape"):
        ImageSplit("test", data.test.images, np.zeros(2, np.int32), data.classes, data.test.digests)
    with pytest.raises(DataError, match="has 6 images and 1 checksums"):
        ImageSplit("test", data.test.images, data.test.labels, data.classes, ("x",))
    other = ImageSplit("test", data.test.images, 1 - data.test.labels, data.classes, data.test.digests)
    assert other.sha256 != data.test.sha256
    assert repr(data) == "ImageData(train 21, validation 3, test 6 rows; 2 classes)"


def test_a_record_with_another_checksum_is_left_out_or_refused_as_a_damaged_image(tmp_path):
    path = tmp_path / "pets.tfrecord"
    with tf.io.TFRecordWriter(str(path)) as writer:
        for number in range(12):
            image = png_file(photograph(number, 8, 8))
            feature = {
                "image_bytes": tf.train.Feature(bytes_list=tf.train.BytesList(value=[image])),
                "label": tf.train.Feature(int64_list=tf.train.Int64List(value=[number % 2])),
            }
            features = tf.train.Features(feature=feature)
            writer.write(tf.train.Example(features=features).SerializeToString())
    content = bytearray(path.read_bytes())
    content[content.index(png_file(photograph(5, 8, 8))) + 60] ^= 1  # a pixel
    path.write_bytes(content)
    data = load_image_data(path)
    reason = "its record is damaged: the checksum differs"
    assert data.report.unreadable == {reason: 1}
    assert data.report.dropped[0].examples == (f"{path}, record 5",)
    assert sum(map(len, data.splits.values())) == 11
    assert f"{path}, record 5: {reason}" in refusal(path, unreadable="refuse")


@pytest.fixture(scope="module")
def target(pets):
    return load_image_data(pets)


@pytest.fixture
def other(target, tmp_path):
    """Images of other classes, among them an equal and changed copies of images of the target."""
    folder = write_classes(tmp_path / "other", {"fox": 12, "owl": 12}, first=500)
    (folder / "fox" / "equal.jpg").write_bytes(target.test.images[0])
    for name, split, row in (
        ("test", target.test, 1),
        ("validation", target.validation, 0),
        ("train", target.train, 3),
    ):
        pixels = tf.io.decode_jpeg(split.images[row]).numpy()
        write_image(folder / "owl" / f"like-{name}.jpg", pixels, quality=90)
    return folder


def test_a_source_loses_what_its_target_holds_out_and_nothing_else(target, other):
    data = load_image_data(other, target=target)
    assert dropped(data) == {
        ("train", "also in the target's held-out images"): 1,
        ("train", "nearly in the target's held-out images"): 2,
    }
    kept = {Path(split.images.name(row)).name for split in data.splits.values() for row in range(len(split))}
    assert {name for name in kept if name.startswith(("equal", "like"))} == {"like-train.jpg"}
    (alike,) = data.report.images.near_duplicates
    assert (alike.split, alike.other, alike.pairs) == ("train", "the target's held-out images", 2)
    assert {(Path(one).name, two) for one, two in alike.examples} == {
        ("like-test.jpg", target.test.images.name(1)),
        ("like-validation.jpg", target.validation.images.name(0)),
    }
    assert (data.report.leaks, data.report.near_leaks) == (1, 2)


def test_near_duplicates_of_held_out_images_are_kept_on_request_and_told(target, other):
    data = load_image_data(other, target=target, near_duplicates="keep")
    assert dropped(data) == {("train", "also in the target's held-out images"): 1}
    assert any(
        "2 pairs of near duplicates across train and the target's" in line for line in data.report.lines()
    )


def test_a_target_whose_images_are_gone_is_named(copy, other):
    target = load_image_data(copy)
    gone = target.validation.images.name(0)
    Path(gone).unlink()
    assert f"{gone}, a validation image of the target: it cannot be read" in refusal(other, target=target)


def test_lines_say_how_many_more_were_left_out_and_where_they_are_named(target, tmp_path):
    def said(*counts: int) -> list[str]:
        dropped = tuple(
            Dropped("train", f"reason {rows}", rows, tuple(f"pets/{n}.jpg" for n in range(min(rows, 1000))))
            for rows in counts
        )
        lines = replace(target.report, dropped=dropped).lines(tmp_path / "report.json")
        return [line for line in lines if line.startswith("left out") or "named in" in line]

    three = "left out   3 rows of train, reason 3 (pets/0.jpg, pets/1.jpg, pets/2.jpg)"
    four = "left out   4 rows of train, reason 4 (pets/0.jpg, pets/1.jpg, pets/2.jpg and 1 more)"
    assert said(3) == [three]
    assert said(3, 4) == [three, four, f"           all of them are named in {tmp_path / 'report.json'}"]
    many = said(2500)
    assert many[0].endswith("pets/2.jpg and 2,497 more)")
    assert many[1].endswith(f"the first 1,000 for each reason are named in {tmp_path / 'report.json'}")
