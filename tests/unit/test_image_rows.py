"""Images as rows: the pixels of the decoder in any order, and bad images named."""

import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from tfapp.data.bucketing import evaluation_batches, training_batches
from tfapp.data.image_decoding import ImageDecoder
from tfapp.data.image_rows import naming_bad_images
from tfapp.errors import DataError
from tfapp.release.probe import RawFeatures


class Store(list):
    """Images with names; those that are exceptions cannot be read."""

    def __getitem__(self, index):
        image = super().__getitem__(index)
        if isinstance(image, Exception):
            raise image
        return image

    def name(self, index):
        return f"cats/{index}.png"


def picture(seed):
    pixels = np.random.default_rng(seed).integers(0, 256, (9, 12, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def decoder():
    return ImageDecoder((8, 10))


@pytest.fixture
def images():
    return Store(picture(seed) for seed in range(11))


def test_rows_are_what_the_decoder_gives(decoder, images):
    encoded = decoder.encode(images)
    rows = decoder.make_rows(encoded)
    expected = decoder.fixed(images)[0]["pixels"]
    assert len(rows) == len(encoded) == 11
    np.testing.assert_array_equal(rows.lengths, np.ones(11))
    np.testing.assert_array_equal(rows.gather(tf.constant([7, 2, 7]))["pixels"], expected[[7, 2, 7]])
    batches, order = evaluation_batches(rows, batch_size=4)
    assert batches.element_spec["pixels"].shape.as_list() == [None, 8, 10, 3]
    np.testing.assert_array_equal(np.concatenate([batch["pixels"] for batch in batches]), expected[order])


def test_training_batches_hold_every_image_once_an_epoch(decoder, images):
    rows = decoder.make_rows(decoder.encode(images))
    batches = training_batches(rows, np.arange(11, dtype=np.int32), batch_size=4, seed=0)
    expected = decoder.fixed(images)[0]["pixels"]
    seen = []
    for inputs, labels in batches.take(3):
        np.testing.assert_array_equal(inputs["pixels"], expected[labels.numpy()])
        seen.extend(labels.numpy())
    assert sorted(seen) == list(range(11))


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (picture(3)[:-30], r"cats/5.png: the PNG file is damaged or cut short"),
        (b"\xff\xd8\xff\xe0", r"cats/5.png: the JPEG file's header is damaged"),
        (b"", r"cats/5.png: the file is empty"),
        (FileNotFoundError(2, "No such file or directory"), r"cats/5.png cannot be read: No such file"),
        (
            DataError("cats/5.png has another size than before."),
            r"cats/5.png has another size than before\. ",
        ),
    ],
)
def test_a_bad_image_is_named(decoder, images, bad, words):
    images[5] = bad
    rows = decoder.make_rows(decoder.encode(images))
    batches = training_batches(rows, np.zeros(11, np.int32), batch_size=4, seed=0).take(3)
    with pytest.raises(DataError, match=words), naming_bad_images():
        list(batches)
    with pytest.raises(DataError, match=words):
        decoder.fixed(images)


def test_a_bad_image_of_several_sequences_is_named_by_its_own(decoder, images):
    images[5] = picture(3)[:-30]
    features = RawFeatures([picture(1)], images, ["text"])
    assert [features.name(row) for row in (0, 6, 12)] == ["row 0", "cats/5.png", "row 12"]
    assert features[4:9][1:].name(1) == "cats/5.png"
    assert list(features[10:]) == [images[9], images[10], b"text"]
    with pytest.raises(DataError, match=r"cats/5.png: the PNG file is damaged"):
        decoder.fixed(features[4:9])


def test_many_bad_images_are_counted(decoder):
    # A pipeline that another test has left may still read a bad image of its own.
    rows = decoder.make_rows(decoder.encode(Store(b"no image" for _ in range(9))))
    with pytest.raises(DataError, match=r"cats/0.png: not an image.*; and [45] more"), naming_bad_images():
        rows.gather(tf.range(9))


def test_other_errors_pass(decoder, images):
    rows = decoder.make_rows(decoder.encode(images))
    with (
        pytest.raises(
            tf.errors.InvalidArgumentError, match=r"Incompatible|Dimensions|must be equal|broadcast"
        ),
        naming_bad_images(),
    ):
        tf.raw_ops.AddV2(x=tf.cast(rows.gather(tf.range(2))["pixels"], tf.float32), y=tf.zeros(7))


def test_encoded_images_have_no_windows_and_a_fingerprint(decoder, images):
    encoded = decoder.encode(images)
    values = np.arange(3)
    assert encoded.average(values) is values
    assert encoded.texts is None
    assert encoded.max_length == 1
    prints = {
        encoded.fingerprint(),
        decoder.encode(images[:10]).fingerprint(),
        ImageDecoder((8, 11)).encode(images).fingerprint(),
        ImageDecoder((8, 10), aspect="pad").encode(images).fingerprint(),
    }
    assert len(prints) == 4
    assert decoder.encode(list(images)).fingerprint() == encoded.fingerprint()
    assert decoder.encode(list(images)).name(3) == "image 3"
