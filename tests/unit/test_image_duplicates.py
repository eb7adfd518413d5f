"""Near duplicates: changed copies are found, images that look alike are not."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from photographs import photograph

from tfapp.data.image_duplicates import Thumbnails, near_pairs


def thumbnail(image):
    height, width = (side // 32 for side in image.shape[:2])
    grey = image.astype(np.float64) @ (0.299, 0.587, 0.114)
    return np.round(grey.reshape(32, height, 32, width).mean(axis=(1, 3))).astype(np.uint8)


def pairs(images, **options):
    with Thumbnails() as thumbnails:
        positions = np.array([thumbnails.add(thumbnail(image)) for image in images])
        keys = np.array([f"{number:04}" for number in range(len(images))], dtype=object)
        blocks = list(near_pairs(thumbnails, positions, keys, **options))
    return {(a, b) for left, right in blocks for a, b in zip(left.tolist(), right.tolist(), strict=True)}


def changed(image, how):
    if how == "smaller":
        resized = tf.image.resize(image, (64, 64), antialias=True)
        return tf.cast(tf.round(tf.clip_by_value(resized, 0, 255)), tf.uint8).numpy()
    if how == "jpeg":
        return tf.io.decode_jpeg(tf.io.encode_jpeg(image, quality=60)).numpy()
    return np.minimum(np.round(image * 1.1), 255).astype(np.uint8)


@pytest.mark.parametrize("others", [20, 200])
def test_changed_copies_are_found_and_nothing_else(others):
    images = [photograph(seed, 96, 96) // 2 for seed in range(others)]
    copies = [changed(images[number], how) for number, how in enumerate(("smaller", "jpeg", "brighter"))]
    assert pairs(images + copies) == {(number, others + number) for number in range(3)}


def test_what_all_images_share_does_not_make_them_alike():
    rng = np.random.default_rng(0)
    frame = photograph(1, 64, 64).astype(np.float64) * 0.8
    images = [np.clip(frame + rng.normal(0, 12, frame.shape), 0, 255).astype(np.uint8) for _ in range(160)]
    assert pairs([*images, images[7]]) == {(7, 160)}


def test_many_copies_of_one_image_are_found():
    copies = [
        np.clip(photograph(1, 32) + np.int64(number % 3), 0, 255).astype(np.uint8) for number in range(40)
    ]
    found = pairs(copies + [photograph(seed, 32) for seed in range(2, 120)])
    assert found == {(a, b) for b in range(40) for a in range(b)}


def test_images_without_contrast_are_like_none():
    flat = [np.full((32, 32, 3), grey, np.uint8) for grey in (0, 0, 120, 121)]
    assert pairs(flat + [photograph(seed, 32) for seed in range(5)]) == set()


def test_pairs_do_not_depend_on_blocks(monkeypatch):
    images = [photograph(seed % 25, 32) for seed in range(60)]
    expected = pairs(images)
    assert len(expected) == 25 + 20  # ten of three, fifteen of two
    monkeypatch.setattr("tfapp.data.image_duplicates._BLOCK", 7)
    assert pairs(images) == expected
    assert pairs(images, first=10) == {pair for pair in expected if pair[0] < 10}
