"""What each kind of augmentation does to pixels and labels, beside Pillow and SciPy."""

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageEnhance, ImageOps
from scipy import ndimage

from tfapp.data.augment import Augmentation
from tfapp.data.augment._draws import Draws
from tfapp.data.augment._operations import OPERATIONS, operate
from tfapp.data.augment._pixels import warped
from tfapp.data.augment.colour import LUMA, colour
from tfapp.data.augment.geometry import geometry

GENERATOR = np.random.default_rng(0)
NOISE = GENERATOR.integers(0, 256, (16, 20, 24, 3)).astype(np.uint8)
# Something smooth with a dark and a bright end inside the range, so that curves have work to do.
ROWS, PLACES = np.mgrid[:20, :24]
SMOOTH = np.stack([40 + 5 * ROWS + PLACES, 60 + 3 * PLACES, 200 - 4 * ROWS], axis=-1).astype(np.uint8)
FLAT = np.full_like(SMOOTH, 77)


def draws(number=1, images=16):
    return Draws(tf.constant([number, 0], tf.int64), tf.constant(images))


def test_flips_are_exact_and_about_half_of_the_images_are_flipped():
    pixels = np.tile(NOISE, (20, 1, 1, 1))
    for name, axis in (("horizontal_flip", 2), ("vertical_flip", 1)):
        changed = geometry(tf.constant(pixels), draws(images=320), **{name: True}).numpy()
        flipped = (changed == np.flip(pixels, axis)).all(axis=(1, 2, 3))
        assert ((changed == pixels).all(axis=(1, 2, 3)) | flipped).all()
        assert abs(flipped.mean() - 0.5) < 4 * 0.5 / np.sqrt(320)  # 4 standard errors


def test_images_are_warped_as_scipy_does_it():
    angle = 0.3
    transform = np.array(
        [np.cos(angle), -np.sin(angle), 2.5, 0.8 * np.sin(angle), np.cos(angle), -1.25], np.float32
    )
    middle = np.array([9.5, 11.5])
    matrix = transform.reshape(2, 3)[::-1, 1::-1]
    offset = middle - matrix @ middle + transform.reshape(2, 3)[::-1, 2]
    matrix = np.pad(matrix, (0, 1)) + np.diag([0, 0, 1.0])
    for mirror, mode in ((True, "reflect"), (False, "grid-constant")):
        ours = warped(tf.constant(NOISE[:1]), tf.constant(transform[None]), mirror=mirror)[0]
        theirs = ndimage.affine_transform(
            NOISE[0].astype(float),
            matrix,
            [*offset, 0],
            order=1,
            mode=mode,
        )
        np.testing.assert_allclose(ours, theirs, atol=0.02)  # positions are float32: 24 * 6e-8 * 255 and more


def test_rotation_turns_by_at_most_the_angle_asked_for():
    spot = np.zeros((200, 41, 41, 3), np.uint8)
    spot[:, 19:22, 33:36] = 255
    changed = geometry(tf.constant(spot), draws(images=200), rotation=30.0).numpy()[..., 0]
    rows, places = np.mgrid[-20:21, -20:21]
    centres = [(np.average(rows, weights=image), np.average(places, weights=image)) for image in changed]
    angles = np.degrees([np.arctan2(*centre) for centre in centres])
    assert np.hypot(*np.transpose(centres)) == pytest.approx(np.full(200, 14), abs=0.3)
    assert 27 < np.abs(angles).max() < 30.5
    assert angles.min() < -20 < 20 < angles.max()


@pytest.mark.parametrize("rotation", [0.0, 1e-6])
def test_crops_keep_the_share_asked_for_and_stay_inside(rotation):
    ramp = np.zeros((300, 40, 50, 3), np.uint8)
    ramp[..., 0] = 2 * np.arange(40)[:, None]
    ramp[..., 1] = 2 * np.arange(50)
    ramp[..., 2] = 255
    changed = geometry(
        tf.constant(ramp), draws(images=300), crop=0.4, rotation=rotation, horizontal_flip=True
    ).numpy()
    assert changed[..., 2].min() > 254  # nothing black comes in from beyond the border
    high = np.abs(changed[:, 30, 20, 0] - changed[:, 10, 20, 0]) / 40
    wide = np.abs(changed[:, 20, 35, 1] - changed[:, 20, 15, 1]) / 40
    assert (high * wide).min() > 0.39
    assert (high * wide).max() <= 1.0 + 1e-3
    assert (high * wide).mean() == pytest.approx(0.7, abs=0.05)
    aspects = (wide / high)[(wide < 0.99) & (high < 0.99)]
    assert 0.74 < aspects.min() < 0.8 < 1.25 < aspects.max() < 1.35


def test_the_fused_change_of_colours_is_that_of_the_steps_in_turn():
    settings = {"brightness": 0.3, "contrast": 0.5, "saturation": 0.9, "hue": 0.2}
    stepwise = tf.constant(NOISE)
    for name, value in settings.items():
        stepwise = colour(stepwise, draws(), **{name: value})
    np.testing.assert_allclose(colour(tf.constant(NOISE), draws(), **settings), stepwise, atol=1e-2)


def test_brightness_adds_contrast_keeps_the_mean_and_colour_changes_keep_grey():
    pixels = tf.constant(NOISE)
    added = colour(pixels, draws(), brightness=0.2).numpy() - NOISE
    assert np.ptp(added, axis=(1, 2, 3)) == pytest.approx(0, abs=1e-3)
    assert 30 < np.abs(added).max() <= 51
    luma = (NOISE * np.array(LUMA)).sum(axis=-1)
    contrasted = (colour(pixels, draws(), contrast=0.9).numpy() * np.array(LUMA)).sum(axis=-1)
    np.testing.assert_allclose(contrasted.mean(axis=(1, 2)), luma.mean(axis=(1, 2)), rtol=1e-4)
    ratio = contrasted.std(axis=(1, 2)) / luma.std(axis=(1, 2))
    assert 0.1 <= ratio.min() < 0.5 < 1.5 < ratio.max() <= 1.9
    for name, value in (("saturation", 1.0), ("hue", 0.5)):
        changed = colour(pixels, draws(), **{name: value}).numpy()
        np.testing.assert_allclose((changed * np.array(LUMA)).sum(axis=-1), luma, atol=0.05)
        assert np.abs(changed - NOISE).max() > 20
        greys = np.repeat(NOISE[..., :1], 3, axis=-1)
        np.testing.assert_allclose(colour(tf.constant(greys), draws(), **{name: value}), greys, atol=0.05)


def operated(name, strength, image=SMOOTH):
    operation = tf.constant([OPERATIONS.index(name)])
    return operate(tf.constant(image[None]), operation, tf.constant([strength], tf.float32))[0].numpy()


@pytest.mark.parametrize(
    "image", [SMOOTH, NOISE[0], np.full_like(SMOOTH, 77)], ids=["smooth", "noise", "flat"]
)
@pytest.mark.parametrize(
    ("name", "strength", "pillow"),
    [
        ("brightness", 0.5, lambda image: ImageEnhance.Brightness(image).enhance(1.45)),
        ("brightness", -0.5, lambda image: ImageEnhance.Brightness(image).enhance(0.55)),
        ("saturation", 0.5, lambda image: ImageEnhance.Color(image).enhance(1.45)),
        ("contrast", -0.5, lambda image: ImageEnhance.Contrast(image).enhance(0.55)),
        ("sharpness", 0.5, lambda image: ImageEnhance.Sharpness(image).enhance(1.45)),
        ("sharpness", -1.0, lambda image: ImageEnhance.Sharpness(image).enhance(0.1)),
        ("posterize", -0.5, lambda image: ImageOps.posterize(image, 6)),
        ("solarize", 0.5, lambda image: ImageOps.solarize(image, 128)),
        ("auto_contrast", 0.1, ImageOps.autocontrast),
        ("equalize", 0.1, ImageOps.equalize),
        ("identity", 1.0, lambda image: image),
    ],
)
def test_operations_do_what_pillow_does(name, strength, pillow, image):
    expected = np.asarray(pillow(Image.fromarray(image))).astype(int)
    # Pillow rounds greys and means to whole levels first, and cuts fractions off.
    tolerance = 0 if name in ("posterize", "solarize", "equalize", "identity") else 2
    np.testing.assert_allclose(operated(name, strength, image).astype(int), expected, atol=tolerance)


def test_operations_move_by_what_they_say():
    shift = 24 * 150 / 331  # at full strength; this one moves by 6 whole pixels
    expected = np.pad(SMOOTH[:, 6:], ((0, 0), (0, 6), (0, 0)))
    np.testing.assert_array_equal(operated("translate_x", 6 / shift), expected)
    np.testing.assert_array_equal(operated("translate_x", 0.0), SMOOTH)
    down = operated("translate_y", -5 / (20 * 150 / 331))
    np.testing.assert_allclose(down, np.pad(SMOOTH[:-5], ((5, 0), (0, 0), (0, 0))), atol=1)
    for name in ("shear_x", "shear_y", "rotate"):
        there, back = operated(name, 1.0), operated(name, -1.0)
        assert (there != SMOOTH).any()
        assert (back != there).any()
        np.testing.assert_allclose(there[10, 12], SMOOTH[10, 12], atol=8)  # the middle stays


def test_images_with_different_operations_keep_their_places():
    operations = np.arange(len(OPERATIONS) * 2, dtype=np.int32) % len(OPERATIONS)
    batch = np.stack([SMOOTH, NOISE[0]]).repeat(len(OPERATIONS), axis=0)
    together = operate(tf.constant(batch), tf.constant(operations), tf.fill([len(batch)], 0.6)).numpy()
    for result, image, operation in zip(together, batch, operations, strict=True):
        np.testing.assert_array_equal(result, operated(OPERATIONS[operation], 0.6, image))


def test_erasing_hides_one_rectangle_in_as_many_images_as_asked_for():
    flat = np.full((400, 32, 40, 3), 255, np.uint8)
    changed = Augmentation(erasing=0.3).images(tf.constant(flat), seed=tf.constant([3, 4], tf.int64)).numpy()
    hidden = (changed != flat).any(axis=-1)
    assert hidden.any(axis=(1, 2)).mean() == pytest.approx(0.3, abs=4 * 0.023)  # 4 standard errors
    for mask in hidden[hidden.any(axis=(1, 2))]:
        rows, places = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        assert mask[rows[0] : rows[-1] + 1, places[0] : places[-1] + 1].mean() > 0.99  # noise may be 255, too
        assert 0.015 < mask.mean() < 0.35


@pytest.mark.parametrize("changes", [{"mixup": 0.4}, {"cutmix": 1.0}, {"mixup": 0.4, "cutmix": 1.0}])
def test_labels_are_mixed_as_their_images(changes):
    greys = np.array([0, 100, 200, 40, 250, 130], np.uint8)
    pixels = np.broadcast_to(greys[:, None, None, None], (6, 30, 30, 3)).copy()
    classes = np.arange(6, dtype=np.int32)
    augmentation = Augmentation(**changes)
    shares = []
    for number in range(20):
        mixed, labels = augmentation.mix(
            tf.constant(pixels), tf.constant(classes), 6, seed=tf.constant([number, 1], tf.int64)
        )
        assert (mixed.dtype, labels.dtype) == (tf.uint8, tf.float32)
        np.testing.assert_allclose(tf.reduce_sum(labels, axis=1), 1.0, rtol=1e-6)
        np.testing.assert_allclose(
            labels @ greys[:, None].astype(np.float32),
            tf.reduce_mean(tf.cast(mixed, tf.float32), axis=[1, 2, 3])[:, None],
            atol=0.51,
        )  # one rounding
        assert ((labels.numpy() > 0).sum(axis=1) <= 2).all()
        shares += tf.linalg.diag_part(labels).numpy().tolist()
    assert len(set(shares)) > 60
    assert min(shares) < 0.4 < 0.9 < max(shares)


@pytest.mark.parametrize("concentration", [1e-4, 0.2, 1.0, 10.0])
def test_shares_of_a_blend_are_beta_distributed(concentration):
    shares = draws(images=4000).shares("some", 2, concentration).numpy()
    np.testing.assert_allclose(shares.sum(axis=1), 1.0, rtol=1e-6)
    variance = 0.25 / (2 * concentration + 1)
    assert shares[:, 0].mean() == pytest.approx(0.5, abs=4 * np.sqrt(variance / 4000))
    assert shares[:, 0].var() == pytest.approx(variance, rel=0.1)


def test_mixing_both_ways_gives_each_image_one_of_them():
    pixels = np.zeros((64, 16, 16, 3), np.uint8)
    pixels[::2] = 200
    mixed, _ = Augmentation(mixup=5.0, cutmix=1.0).mix(
        tf.constant(pixels), tf.zeros([64], tf.int32), 2, seed=tf.constant([1, 1], tf.int64)
    )
    values = [np.unique(image) for image in mixed.numpy()]
    pasted = [set(levels) <= {0, 200} for levels in values]
    assert all(paste or len(levels) == 1 for paste, levels in zip(pasted, values, strict=True))
    assert 16 <= sum(pasted) <= 48
