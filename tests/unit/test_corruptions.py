"""Common corruptions: their severities, their randomness and what they leave alone."""

from __future__ import annotations

import inspect

import numpy as np
import pytest

from tfapp.data.corruptions import (
    IMAGE_CORRUPTIONS,
    TEXT_CORRUPTIONS,
    blur,
    corrupt_images,
    corrupt_texts,
    digital,
    noise,
    texts,
    weather,
)
from tfapp.data.corruptions._fields import disk, filtered, fractal, trail
from tfapp.data.edits.keyboard import neighbours
from tfapp.errors import ConfigError, DataError

TEXTS = [
    "I knew that their new film, which they made in a week, would be great; to see it is a joy!",
    "The plot is thin, but for one scene near the end I was glad to be there. By the way: no songs.",
    "He said: it's the whole point (and you know it). Some will hear the sea in every role, right?",
    "A slow, sad and strangely warm portrait of two people who do not talk to each other any more.",
]


@pytest.fixture(scope="module")
def pictures():
    """Colourful clouds with fine grain, uint8 (4, 40, 48, 3): blur, noise and colour all find something."""
    generators = [np.random.default_rng(number) for number in range(4)]
    clouds = [np.stack([fractal((40, 48), rng, decay=1.6) for _ in range(3)], axis=-1) for rng in generators]
    return np.rint(255 * np.stack(clouds)).astype(np.uint8)


@pytest.mark.parametrize("name", IMAGE_CORRUPTIONS)
def test_each_severity_is_farther_from_the_image_than_the_one_before(pictures, name):
    changed = [corrupt_images(pictures, name, severity).astype(float) for severity in range(1, 6)]
    distances = [np.sqrt(np.mean((images - pictures) ** 2)) for images in changed]
    assert distances[0] > 0.5  # half a grey level: something is seen to happen
    assert all(np.diff(distances) > 0.0), distances


@pytest.mark.parametrize("name", IMAGE_CORRUPTIONS)
def test_shape_type_and_range_are_kept(pictures, name):
    exact = corrupt_images(pictures.astype(np.float32), name, 5)
    assert exact.dtype == np.float32
    assert exact.shape == pictures.shape
    assert exact.min() >= 0.0
    assert exact.max() <= 255.0
    rounded = corrupt_images(pictures, name, 5)
    assert rounded.dtype == np.uint8
    # Rounding is the only difference: the same picture draws the same numbers, whatever its type.
    assert np.abs(exact - rounded).max() <= 0.5


@pytest.mark.parametrize("name", IMAGE_CORRUPTIONS)
def test_an_image_is_corrupted_in_the_same_way_alone_and_in_any_batch(pictures, name):
    together = corrupt_images(pictures, name, 3, seed=7)
    backwards = corrupt_images(pictures[::-1], name, 3, seed=7)
    np.testing.assert_array_equal(backwards[::-1], together)
    np.testing.assert_array_equal(corrupt_images(pictures[2:3], name, 3, seed=7)[0], together[2])


@pytest.mark.parametrize("name", ["gaussian_noise", "glass_blur", "motion_blur", "fog", "frost", "snow"])
def test_the_seed_decides_and_each_image_draws_its_own_numbers(pictures, name):
    first = corrupt_images(pictures, name, 3, seed=1)
    assert (first != corrupt_images(pictures, name, 3, seed=2)).any()
    grey = np.stack([np.full((40, 48, 3), level, np.uint8) for level in (127, 128)])
    grey[:, :20] = 90
    noise_of = corrupt_images(grey, name, 3).astype(int) - grey
    assert (noise_of[0] != noise_of[1]).any()


def test_gaussian_noise_has_the_published_strength_at_both_sizes():
    for side, strength in ((32, 0.08), (224, 0.18)):
        grey = np.full((1, side, side, 3), 127.5, np.float32)
        deviation = np.std(corrupt_images(grey, "gaussian_noise", 3)) / 255.0
        assert deviation == pytest.approx(strength, rel=0.05)  # 3,072 numbers: a standard error of 1.3 %


def test_contrast_and_brightness_are_what_their_formulas_say(pictures):
    images = pictures.astype(np.float32)
    weaker = corrupt_images(images, "contrast", 1)
    share = 0.75 + (0.4 - 0.75) * (40 - 32) / 192
    mean = images.mean(axis=(1, 2), keepdims=True)
    np.testing.assert_allclose(weaker, mean + share * (images - mean), atol=1e-3)  # float32 at 255
    brighter = corrupt_images(images, "brightness", 1)
    more = 255 * (0.05 + 0.05 * (40 - 32) / 192)
    np.testing.assert_allclose(brighter.max(axis=3), np.minimum(images.max(axis=3) + more, 255.0), atol=1e-3)


def test_filters_keep_flat_images_and_the_kernels_are_the_stated_ones():
    flat = np.full((33, 40, 3), 0.25, np.float32)
    for kernel in (disk(2.5), trail(6.0, 2.0, 30.0), trail(9.0, 2.5, -45.0)):
        np.testing.assert_allclose(filtered(flat, kernel), flat, atol=1e-6)  # float32 FFT
    assert disk(3.0).sum() == pytest.approx(np.pi * 9.0, rel=0.02)  # 25 samples a pixel
    level = trail(4.0, 2.0, 0.0)
    weights = np.exp(-0.5 * (np.arange(5) / 2.0) ** 2)
    assert level[4, 4] / level[4, 6] == pytest.approx(weights[0] / weights[2], rel=0.35)
    assert level[5:].sum() == level[:4].sum() == 0.0


def test_a_point_is_spread_as_the_kernel_says():
    point = np.zeros((33, 33, 1), np.float32)
    point[16, 16] = 1.0
    kernel = disk(2.2)
    reach = len(kernel) // 2
    spread = filtered(point, kernel)[16 - reach : 17 + reach, 16 - reach : 17 + reach, 0]
    np.testing.assert_allclose(spread, kernel / kernel.sum(), atol=1e-6)  # float32 FFT


@pytest.mark.parametrize("side", [32, 224])
def test_every_corruption_takes_the_smallest_size_and_that_of_imagenet(side):
    image = np.zeros((1, side, side + 1, 3), np.uint8)
    image[:, ::5] = 200
    for name in IMAGE_CORRUPTIONS:
        assert corrupt_images(image, name, 5).shape == image.shape


def test_no_images_give_no_images():
    empty = np.zeros((0, 32, 32, 3), np.uint8)
    assert corrupt_images(empty, "fog", 1).shape == empty.shape


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((1, 31, 32, 3), np.uint8), "32 pixels or more"),
        (np.zeros((32, 32, 3), np.uint8), "batch, height, width, 3"),
        (np.zeros((1, 32, 32, 1), np.uint8), "batch, height, width, 3"),
        (np.zeros((1, 32, 32, 3), np.int32), "int32"),
        (np.full((1, 32, 32, 3), 256.0), "0..255"),
        (np.full((1, 32, 32, 3), np.nan), "0..255"),
    ],
)
def test_images_that_cannot_be_corrupted_are_refused(images, message):
    with pytest.raises(DataError, match=message):
        corrupt_images(images, "fog", 1)


@pytest.mark.parametrize("severity", [0, 6, 2.0, True, "3"])
def test_a_severity_out_of_range_is_refused(pictures, severity):
    for call in (
        lambda: corrupt_images(pictures, "fog", severity),
        lambda: corrupt_texts(TEXTS, "asr", severity),
    ):
        with pytest.raises(ConfigError, match="severity"):
            call()


@pytest.mark.parametrize("seed", [-1, 2**128, 1.0, True, "1", None])
def test_a_seed_that_is_none_is_refused(pictures, seed):
    for call in (
        lambda: corrupt_images(pictures, "fog", 1, seed=seed),
        lambda: corrupt_texts(TEXTS, "asr", 1, seed=seed),
    ):
        with pytest.raises(ConfigError, match=r"seed = .*a whole number, at least 0"):
            call()


def test_seeds_of_numpy_are_those_of_python():
    assert corrupt_texts(TEXTS, "typos", 5, seed=np.int64(7)) == corrupt_texts(TEXTS, "typos", 5, seed=7)


def test_an_unknown_name_is_refused_with_the_nearest_one(pictures):
    with pytest.raises(ConfigError, match="gaussian_blur"):
        corrupt_images(pictures, "gaussian_blurr", 1)
    with pytest.raises(ConfigError, match="typos"):
        corrupt_texts(TEXTS, "typo", 1)


def _changed(text: str, other: str) -> int:
    """Letters that are not in the longest common subsequence, by the bit-parallel rule of Hyyro 2004."""
    places: dict[str, int] = {}
    for place, letter in enumerate(text):
        places[letter] = places.get(letter, 0) | 1 << place
    row = (1 << len(text)) - 1
    for letter in other:
        found = row & places.get(letter, 0)
        row = (row + found) | (row - found)
    common = len(text) - (row & ((1 << len(text)) - 1)).bit_count()
    return len(text) + len(other) - 2 * common


@pytest.mark.parametrize("name", TEXT_CORRUPTIONS)
def test_each_severity_changes_more_letters_than_the_one_before(name):
    many = [f"{text} {other}" for text in TEXTS for other in TEXTS]
    counts = [
        sum(map(_changed, many, corrupt_texts(many, name, severity, seed=3))) for severity in range(1, 6)
    ]
    assert counts[0] > 0
    assert all(np.diff(counts) > 0), counts


@pytest.mark.parametrize("name", TEXT_CORRUPTIONS)
def test_a_text_is_corrupted_in_the_same_way_alone_and_in_any_batch(name):
    together = corrupt_texts(TEXTS, name, 4, seed=5)
    assert together == corrupt_texts(TEXTS[::-1], name, 4, seed=5)[::-1]
    assert corrupt_texts(TEXTS[1:2], name, 4, seed=5) == together[1:2]
    assert together != corrupt_texts(TEXTS, name, 4, seed=6)


@pytest.mark.parametrize("name", TEXT_CORRUPTIONS)
@pytest.mark.parametrize("text", ["", " ", "a", "!", "\n\t", "好看的电影。值得", "\ud800", "🙂" * 3, "ß İ ﬁ"])
def test_odd_texts_are_no_trouble(name, text):
    for severity in (1, 5):
        assert isinstance(corrupt_texts([text], name, severity)[0], str)


class Drawn:
    """Gives numbers that were chosen, in the place of random ones."""

    def __init__(self, *columns, kinds=()):
        self.columns, self.kinds = list(columns), kinds

    def random(self, count):
        return np.array(self.columns.pop(0), float)[:count]

    def integers(self, low, high, count):
        return np.array(self.kinds)


def test_letters_that_changed_places_are_not_touched_again():
    hit = [0.0, 0.0, 1.0]
    for kinds in ([2, 0, 0], [2, 1, 0], [2, 2, 0], [2, 3, 0]):
        assert texts.typos("abc", 1, Drawn(hit, [0.0] * 3, kinds=kinds)) == "bac"
    assert texts.typos("abc", 1, Drawn([0.0, 1.0, 0.0], [0.0] * 3, kinds=[2, 0, 1])) == "ba"


def test_wrong_keys_are_those_of_the_edit():
    for letter, beside in neighbours().items():
        for number, key in enumerate(beside):
            drawn = Drawn([0.0], [(number + 0.5) / len(beside)], kinds=[0])
            assert texts.typos(letter.upper(), 1, drawn) == key.upper()


def test_every_letter_turns_by_its_own_number():
    turned = np.arange(11) % 3 == 0
    numbers = np.where(turned, 0.0, 1.0)
    found = texts.case("abcd efghij", 5, Drawn([0.0, 0.0], [1.0, 1.0], numbers))
    assert [letter.isupper() for letter in found] == [
        t and c != " " for c, t in zip(found, turned, strict=True)
    ]


def test_corruptions_leave_alone_what_they_are_not_about():
    for severity in range(1, 6):
        for text, changed in zip(TEXTS, corrupt_texts(TEXTS, "case", severity), strict=True):
            assert changed.lower() == text.lower()
        for text, changed in zip(TEXTS, corrupt_texts(TEXTS, "whitespace", severity), strict=True):
            assert "".join(changed.split()) == "".join(text.split())
        for text, changed in zip(TEXTS, corrupt_texts(TEXTS, "punctuation", severity), strict=True):
            assert [letter for letter in changed if letter.isalnum()] == [c for c in text if c.isalnum()]
    heard = corrupt_texts(TEXTS, "asr", 1)
    assert all(letter.isalnum() or letter in " '" for text in heard for letter in text)
    assert heard == [text.lower() for text in heard]


def test_every_corruption_of_a_file_is_listed():
    for modules, known in (
        ((noise, blur, weather, digital), IMAGE_CORRUPTIONS),
        ((texts,), TEXT_CORRUPTIONS),
    ):
        functions = {
            name
            for module in modules
            for name, value in vars(module).items()
            if inspect.isfunction(value) and value.__module__ == module.__name__ and not name.startswith("_")
        }
        assert functions == set(known)
