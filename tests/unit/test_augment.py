"""Augmentation of batches: the seed decides everything, each image gets its own, types and shapes stay."""

import numpy as np
import pytest
import tensorflow as tf

from tfapp.data.augment import PRESETS, Augmentation, AugmentedViews, make_augmentation
from tfapp.data.bucketing import training_batches
from tfapp.errors import ConfigError

SINGLE = {
    "horizontal_flip": True,
    "vertical_flip": True,
    "rotation": 20.0,
    "crop": 0.5,
    "brightness": 0.3,
    "contrast": 0.5,
    "saturation": 0.8,
    "hue": 0.3,
    "rand_augment": 0.5,
    "aug_mix": 0.5,
    "erasing": 1.0,
    "mixup": 1.0,
    "cutmix": 1.0,
}
PIXELS = np.random.default_rng(0).integers(0, 256, (12, 20, 24, 3)).astype(np.uint8)
LABELS = np.arange(12, dtype=np.int32) % 3


def seed(number):
    return tf.constant([number, 7], tf.int64)


def augmented(augmentation, number, pixels=PIXELS, labels=LABELS):
    changed, targets = augmentation.for_batches(3)(
        {"pixels": tf.constant(pixels)}, tf.constant(labels), seed(number)
    )
    return changed["pixels"].numpy(), targets.numpy()


@pytest.mark.parametrize("name", SINGLE)
def test_the_seed_alone_decides_and_types_and_shapes_stay(name):
    augmentation = Augmentation(**{name: SINGLE[name]})
    first, labels = augmented(augmentation, 1)
    other, _ = augmented(augmentation, 2)
    tf.random.uniform([3])
    again, labels_again = augmented(augmentation, 1)
    assert (first.dtype, first.shape) == (np.uint8, PIXELS.shape)
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(labels, labels_again)
    assert (first != other).any()
    assert (first != PIXELS).any()


@pytest.mark.parametrize("name", SINGLE)
def test_every_image_of_a_batch_gets_its_own(name):
    one = Augmentation(**{name: SINGLE[name]})
    if name in ("mixup", "cutmix"):  # what an image keeps shows in its label
        results = augmented(one, 1, labels=np.arange(12, dtype=np.int32) % 2)[1]
    else:
        results, _ = augmented(one, 1, np.repeat(PIXELS[:1], 12, axis=0))
    distinct = len({result.tobytes() for result in results})
    assert distinct == 2 if name.endswith("flip") else distinct >= 8


@pytest.mark.parametrize("name", SINGLE)
@pytest.mark.parametrize("count", [0, 1])
def test_empty_batches_and_batches_of_one_pass(name, count):
    pixels, labels = augmented(Augmentation(**{name: SINGLE[name]}), 1, PIXELS[:count], LABELS[:count])
    assert (pixels.dtype, pixels.shape, len(labels)) == (np.uint8, (count, 20, 24, 3), count)


@pytest.mark.parametrize("size", [(3, 3), (33, 8)])
def test_images_of_any_size_pass(size):
    pixels = np.random.default_rng(1).integers(0, 256, (4, *size, 3)).astype(np.uint8)
    changed, labels = augmented(Augmentation(**SINGLE), 3, pixels, LABELS[:4])
    assert changed.shape == pixels.shape
    np.testing.assert_allclose(labels.sum(axis=1), 1.0, rtol=1e-6)


def test_one_setting_does_not_change_the_numbers_of_another():
    alone = Augmentation(horizontal_flip=True)
    both = Augmentation(horizontal_flip=True, erasing=1e-9, mixup=1.0)
    images = tf.constant(PIXELS)
    np.testing.assert_array_equal(alone.images(images, seed=seed(5)), both.images(images, seed=seed(5)))


def test_nothing_happens_unless_it_is_asked_for():
    nothing = Augmentation()
    pixels, labels = augmented(nothing, 1)
    np.testing.assert_array_equal(pixels, PIXELS)
    np.testing.assert_array_equal(labels, LABELS)
    assert (nothing.described(), nothing.mixes_labels) == ({}, False)


class PixelRows:
    """Images in memory, as rows."""

    def __init__(self, pixels):
        self.lengths = np.ones(len(pixels), np.int32)
        self._pixels = tf.constant(pixels)

    def __len__(self):
        return len(self.lengths)

    def gather(self, indices):
        return {"pixels": tf.gather(self._pixels, indices)}


def epochs_of(augmentation, *, epochs=2, first_epoch=0, threads=None, **options):
    dataset = training_batches(
        PixelRows(PIXELS),
        LABELS,
        batch_size=5,
        seed=4,
        first_epoch=first_epoch,
        augment=augmentation.for_batches(3),
        **options,
    )
    if threads:
        settings = tf.data.Options()
        settings.threading.private_threadpool_size = threads
        settings.threading.max_intra_op_parallelism = threads
        dataset = dataset.with_options(settings)
    return [tf.nest.map_structure(lambda value: value.numpy(), batch) for batch in dataset.take(3 * epochs)]


def check_equal(batches, others):
    for batch, other in zip(batches, others, strict=True):
        tf.nest.map_structure(np.testing.assert_array_equal, batch, other)


def test_training_batches_are_the_same_on_any_number_of_threads_and_after_a_break():
    augmentation = Augmentation(rotation=10, crop=0.5, contrast=0.2, rand_augment=0.5, cutmix=1.0)
    unbroken = epochs_of(augmentation, threads=1)
    check_equal(unbroken[3:], epochs_of(augmentation, epochs=1, first_epoch=1, threads=4))


def test_every_batch_of_every_epoch_has_a_seed_of_its_own():
    seeds = []

    def note(inputs, labels, batch_seed):
        return {"seed": batch_seed}, labels

    rows = PixelRows(PIXELS)
    for run in (1, 2):
        batches = training_batches(rows, LABELS, batch_size=5, seed=run, augment=note).take(30)
        seeds += [tuple(inputs["seed"].numpy()) for inputs, _ in batches]
    assert len(set(seeds)) == 60


def test_rows_with_mixed_labels_weigh_as_the_mean_of_their_classes():
    weights = np.array([1.0, 3.0, 10.0], np.float32)
    for _, labels, sample_weight in epochs_of(Augmentation(mixup=1.0), class_weights=weights):
        assert labels.shape == (len(sample_weight), 3)
        np.testing.assert_allclose(sample_weight, labels @ weights, rtol=1e-6)
    for _, labels, sample_weight in epochs_of(Augmentation(horizontal_flip=True), class_weights=weights):
        np.testing.assert_array_equal(sample_weight, weights[labels])


def test_views_are_augmented_rows_one_after_another():
    views = AugmentedViews(PixelRows(PIXELS), PRESETS["light"], views=2, seed=3)
    assert (len(views), views.lengths.tolist()) == (24, [1] * 24)
    first, second = (views.gather(tf.range(12) + 12 * view)["pixels"].numpy() for view in range(2))
    assert (first != second).any(axis=(1, 2, 3)).all()
    np.testing.assert_array_equal(first, views.gather(tf.range(12))["pixels"])
    flips = AugmentedViews(PixelRows(PIXELS), Augmentation(horizontal_flip=True), views=2, seed=3)
    for image, source in zip(flips.gather(tf.range(12, 24))["pixels"].numpy(), PIXELS, strict=True):
        assert (image == source).all() or (image == source[:, ::-1]).all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rotation": 181}, "augmentation rotation = 181: a number is needed, at least 0 and at most 180"),
        ({"rotation": True}, "rotation = True"),
        ({"crop": 0.0}, "crop = 0.0: a number is needed, more than 0 and at most 1"),
        ({"hue": 0.6}, "hue = 0.6: .* at most 0.5"),
        ({"brightness": -0.1}, "brightness = -0.1"),
        ({"contrast": float("nan")}, "contrast = nan"),
        ({"mixup": float("inf")}, "mixup = inf"),
        ({"erasing": "0.5"}, "erasing = '0.5'"),
        ({"horizontal_flip": 1}, "horizontal_flip = 1: it must be true or false"),
    ],
)
def test_values_out_of_range_are_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        Augmentation(**changes)
    with pytest.raises(ConfigError, match=message):
        make_augmentation(changes)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("lite", "unknown augmentation 'lite'; did you mean 'light'"),
        ({"rotate": 10}, "unknown augmentation setting 'rotate'; did you mean 'rotation'"),
        ({"preset": "mid"}, "unknown augmentation 'mid'"),
        (0.5, "augmentation = 0.5: use a name"),
    ],
)
def test_unknown_names_are_refused(setting, message):
    with pytest.raises(ConfigError, match=message):
        make_augmentation(setting)


def test_presets_can_be_changed_and_switched_off():
    light = make_augmentation("light")
    assert light is PRESETS["light"]
    assert not any(preset.mixes_labels for preset in PRESETS.values())
    changed = make_augmentation({"preset": "light", "rotation": 10, "contrast": 0.0})
    assert changed.described() == {"horizontal_flip": True, "rotation": 10.0, "crop": 0.8, "brightness": 0.1}
    assert make_augmentation(light) is light
    for off in (None, "none", {}, {"preset": "none"}, {"crop": 1}, Augmentation()):
        assert make_augmentation(off) is None


def corrupted(number, pixels, **settings):
    augmentation = Augmentation(corruptions=["gaussian_noise", "fog", "glass_blur"], **settings)
    return augmented(augmentation, number, pixels, np.zeros(len(pixels), np.int32))[0]


def test_corruptions_hit_their_share_each_image_in_its_own_way():
    pixels = np.random.default_rng(0).integers(60, 190, (64, 32, 40, 3)).astype(np.uint8)
    half = corrupted(1, pixels)
    assert (half.dtype, half.shape) == (np.uint8, pixels.shape)
    np.testing.assert_array_equal(corrupted(1, pixels), half)
    assert (corrupted(2, pixels) != half).any()
    changed = (half != pixels).any(axis=(1, 2, 3))
    assert 16 <= changed.sum() <= 48  # 32 expected, within 4 standard deviations
    same = corrupted(3, np.repeat(pixels[:1], 16, axis=0), corruption_fraction=1.0)
    assert len({image.tobytes() for image in same}) == 16
    weak, strong = (
        np.abs(corrupted(1, pixels, severity=severity).astype(int) - pixels).mean() for severity in (1, 5)
    )
    assert weak < strong
    assert not (corrupted(1, pixels, corruption_fraction=0.0) != pixels).any()
    assert corrupted(1, pixels[:0]).shape == (0, 32, 40, 3)


def test_corruptions_are_described_and_checked():
    assert Augmentation(corruptions=["fog"], severity=2).described() == {
        "corruptions": ("fog",),
        "severity": 2.0,
    }
    assert make_augmentation({"severity": 2}) is None
    assert make_augmentation({"preset": "light", "corruptions": ["fog"]}).horizontal_flip
    for settings, message in (
        ({"corruptions": ["frog"]}, "fog"),
        ({"corruptions": "fog"}, "a list of names"),
        ({"corruptions": ["fog"], "severity": 0}, "severity = 0"),
        ({"corruptions": ["fog"], "corruption_fraction": 2.0}, "corruption_fraction"),
    ):
        with pytest.raises(ConfigError, match=message):
            make_augmentation(settings)
    with pytest.raises(ConfigError, match="32 or more a side"):
        corrupted(1, PIXELS)
