"""Image stores: what they read, and what they say when a file is no longer what it was."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from tfapp.data.image_store import ArrayImages, FileImages, file_images
from tfapp.errors import DataError


@pytest.mark.parametrize("channels", [None, 1, 3, 4])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_arrays_become_files_that_decode_to_the_same_pixels(channels, dtype):
    shape = (3, 5, 7) if channels is None else (3, 5, 7, channels)
    pixels = np.random.default_rng(0).integers(0, np.iinfo(dtype).max + 1, shape).astype(dtype)
    content = ArrayImages(pixels, np.arange(3))[2]
    expected = pixels[2].reshape(5, 7, -1)
    if content.startswith(b"BM"):
        decoded, expected = tf.io.decode_bmp(content), np.broadcast_to(expected, (5, 7, 3))
    else:
        decoded = tf.io.decode_png(content, dtype=dtype)
    np.testing.assert_array_equal(decoded, expected)


def test_arrays_know_their_names_and_may_be_chosen_from():
    store = ArrayImages(np.zeros((4, 2, 2), np.uint8), np.arange(4), "train")
    assert store.take([3, 1]).name(0) == "train, index 3"
    assert len(store[1:3]) == 2
    assert store[-1] == store[3]
    with pytest.raises(IndexError):
        store[4]


def write_files(folder):
    paths = [folder / "a.bin", folder / "b.bin"]
    paths[0].write_bytes(b"first image")
    paths[1].write_bytes(b"..second..third")
    return [str(path) for path in paths]


def test_files_and_ranges_of_files(tmp_path):
    files = write_files(tmp_path)
    whole = file_images(files, np.array([11, 15]))
    assert list(whole) == [b"first image", b"..second..third"]
    assert whole.name(1) == files[1]
    index = np.array([1, 1], np.int32)
    places = np.array([2, 10]), np.array([6, 5]), np.array([0, 1])
    ranges = FileImages(tuple(files), np.array([11, 15]), index, *places)
    assert list(ranges) == [b"second", b"third"]
    assert ranges[np.int64(1)] == b"third"
    assert ranges.take(np.array([False, True])).name(0) == f"{files[1]}, record 1"


@pytest.mark.parametrize("damage", ["grow", "cut", "remove"])
def test_a_file_that_is_no_longer_the_same_is_named(tmp_path, damage):
    files = write_files(tmp_path)
    store = file_images(files, np.array([11, 15]))
    if damage == "remove":
        (tmp_path / "b.bin").unlink()
    else:
        (tmp_path / "b.bin").write_bytes(b"....." if damage == "cut" else b"." * 20)
    with pytest.raises(DataError, match=r"b\.bin .*prepare the data"):
        store[1]
    assert store[0] == b"first image"
