"""Predictions of a SavedModel: read a few at a time, and one that is refused costs no other its answer."""

from __future__ import annotations

from pathlib import Path

import pytest
import tensorflow as tf

from tfapp.errors import DataError
from tfapp.serving import Prediction, Predictor


class Model(tf.Module):
    """Answers with the length of an image file, and refuses those that begin with ``bad``."""

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="image_bytes")])
    def serve(self, image_bytes):
        bad = tf.strings.regex_full_match(image_bytes, "bad.*")
        tf.debugging.Assert(~tf.reduce_any(bad), ["the file is damaged"])
        share = tf.cast(tf.strings.length(image_bytes), tf.float32) / 10.0
        labels = tf.where(share > 0.5, "large", "small")
        return {"probabilities": tf.stack([1.0 - share, share], axis=1), "label": labels}


@pytest.fixture(scope="module")
def predictor(tmp_path_factory) -> Predictor:
    folder = tmp_path_factory.mktemp("model")
    model = Model()
    tf.saved_model.save(model, str(folder), signatures={"serving_default": model.serve})
    return Predictor(folder, ("small", "large"), feature="image_bytes")


def write(folder: Path, contents: list[bytes]) -> list[str]:
    paths = [folder / f"{number}.jpg" for number in range(len(contents))]
    for path, content in zip(paths, contents, strict=True):
        path.write_bytes(content)
    return [str(path) for path in paths]


@pytest.mark.parametrize("batch_size", [1, 2, 3, 32])
def test_every_good_image_gets_its_answer_in_order(predictor, tmp_path, batch_size):
    contents = [b"1234567", b"bad", b"12", b"123456", b"1", b"bad too", b"123"]
    paths = write(tmp_path, contents)
    Path(paths[3]).unlink()
    answers = list(predictor.predict_each([*paths, "nu\0l.jpg"], batch_size=batch_size))
    assert [answer.label if isinstance(answer, Prediction) else None for answer in answers] == [
        "large", None, "small", None, "small", None, "small", None,
    ]  # fmt: skip
    assert answers[2].probabilities == pytest.approx({"small": 0.8, "large": 0.2})
    assert [str(answers[number]) for number in (1, 5)] == [
        f"{paths[number]}: the file is damaged" for number in (1, 5)
    ]
    assert str(answers[3]).startswith(f"{paths[3]} cannot be read: No such file or directory")
    assert "cannot be read" in str(answers[7])


def test_images_are_read_when_their_turn_comes(predictor, tmp_path):
    paths = write(tmp_path, [b"1", b"22", b"333"])
    answers = predictor.predict_each(iter(paths), batch_size=1)
    assert next(answers).probabilities["large"] == pytest.approx(0.1)
    Path(paths[2]).write_bytes(b"7777777")
    assert [next(answers).label, next(answers).label] == ["small", "large"]


def test_predict_raises_for_the_first_that_cannot_be_classified(predictor, tmp_path):
    paths = write(tmp_path, [b"1", b"bad", b"2", b"bad"])
    with pytest.raises(DataError, match=r"1\.jpg: the file is damaged"):
        predictor.predict(paths)


def test_one_path_and_empty_batches_are_refused(predictor):
    with pytest.raises(DataError, match="put the single one into a list"):
        predictor.predict_each("photo.jpg")
    with pytest.raises(DataError, match="batch_size = 0"):
        predictor.predict(["photo.jpg"], batch_size=0)
