"""Predictions from a released SavedModel."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf
import tensorflow_text  # noqa: F401  (registers the operators of the tokenizer)

from tfapp.errors import DataError, ReleaseError
from tfapp.release.golden import Golden
from tfapp.release.integrity import check_servable
from tfapp.release.layout import GOLDEN_FILE
from tfapp.release.manifest import manifest_checksum
from tfapp.release.versions import version_folder
from tfapp.serving.features import feature_name, image_bytes, refusal_text, text_bytes
from tfapp.serving.prediction import Prediction
from tfapp.wire.messages import DEFAULT_SIGNATURE

_TEXT_BATCHES = 64  # read ahead and ordered by length


class Predictor:
    """Classifies texts or images with a released SavedModel.

    Args:
        directory: The version folder.
        classes: Names of the classes in their order.
        feature: Name of the SavedModel's input: ``"text"``, or ``"image_bytes"`` for encoded images.

    Raises:
        ReleaseError: When the SavedModel cannot be loaded.
    """

    def __init__(self, directory: Path, classes: Sequence[str], *, feature: str = "text") -> None:
        self.directory = directory
        self.classes = tuple(classes)
        self.feature = feature
        try:
            self._loaded = tf.saved_model.load(str(directory))
        except (OSError, ValueError, RuntimeError, tf.errors.OpError) as error:
            raise ReleaseError(
                f"the SavedModel in {directory} cannot be loaded: {' '.join(str(error).split())[:300]}"
            ) from error
        self._serve = self._loaded.signatures[DEFAULT_SIGNATURE]

    def predict(self, features: Sequence[Any], *, batch_size: int = 32) -> list[Prediction]:
        """Classifies texts or images, as the release does.

        Args:
            features: Texts; or images as paths of files, as the bytes of files, or as uint8 arrays
                ``(height, width, 3)``. Any number of them.
            batch_size: Texts or images computed at once, 1 or more.

        Returns:
            A prediction for each, in their order.

        Raises:
            DataError: When something is no text that UTF-8 can write, or no image that can be read.
        """
        predictions = []
        for answer in self.predict_each(features, batch_size=batch_size):
            if isinstance(answer, DataError):
                raise answer
            predictions.append(answer)
        return predictions

    def predict_each(
        self, features: Iterable[Any], *, batch_size: int = 32
    ) -> Iterator[Prediction | DataError]:
        """Classifies texts or images a few at a time, and goes on after one that cannot be classified.

        Args:
            features: What ``predict`` takes, or an iterator of it; images are read when their turn comes.
            batch_size: Texts or images computed at once, 1 or more.

        Returns:
            An iterator of an answer for each, in their order: a prediction, or the error that says which text
            or image cannot be classified and why.

        Raises:
            DataError: When a single text or image is given.
        """
        if isinstance(features, str | bytes | Path):
            raise DataError("predict takes a list of texts or images: put the single one into a list.")
        if batch_size < 1:
            raise DataError(f"batch_size = {batch_size}: it must be 1 or more.")
        return self._answers(enumerate(features), batch_size)

    def _answers(
        self, numbered: Iterator[tuple[int, Any]], batch_size: int
    ) -> Iterator[Prediction | DataError]:
        read, held = (text_bytes, _TEXT_BATCHES) if self.feature == "text" else (image_bytes, 1)
        while given := dict(itertools.islice(numbered, held * batch_size)):
            answers: dict[int, Prediction | DataError] = {}
            encoded: dict[int, bytes] = {}
            for number, feature in given.items():
                try:
                    encoded[number] = read(feature, number)
                except DataError as error:
                    answers[number] = error
            # Texts of similar length together need little padding.
            order = sorted(encoded, key=lambda number: len(encoded[number]))
            for start in range(0, len(order), batch_size):
                batch = order[start : start + batch_size]
                answers |= self._classify({number: encoded[number] for number in batch}, given)
            yield from (answers[number] for number in given)

    def _classify(
        self, encoded: Mapping[int, bytes], given: Mapping[int, Any]
    ) -> dict[int, Prediction | DataError]:
        """Classifies a batch; where the model refuses it, each half by itself, down to what it refuses."""
        numbers = list(encoded)
        try:
            answers = self._serve(**{self.feature: tf.constant(list(encoded.values()))})
        except tf.errors.InvalidArgumentError as error:
            if len(numbers) == 1:
                name = feature_name(given[numbers[0]], numbers[0])
                return {numbers[0]: DataError(f"{name}: {refusal_text(error)}")}
            halves = (numbers[: len(numbers) // 2], numbers[len(numbers) // 2 :])
            first, second = (
                self._classify({number: encoded[number] for number in half}, given) for half in halves
            )
            return first | second
        rows, labels = answers["probabilities"].numpy(), answers["label"].numpy()
        return {
            number: Prediction(label.decode("utf-8"), dict(zip(self.classes, map(float, row), strict=True)))
            for number, row, label in zip(numbers, rows, labels, strict=True)
        }


def load_release(path: str | Path, *, manifest_sha256: str | None = None) -> Predictor:
    """Loads a release for prediction, after comparing every file with its checksum.

    Without ``manifest_sha256`` that finds damage, but not a release that somebody has replaced as a whole:
    a SavedModel is a program, so load releases that you trust.

    Args:
        path: A version folder, ``saved_models/<name>/<version>``, or ``saved_models/<name>`` for its newest
            version.
        manifest_sha256: The sha256 of the release's ``manifest.json``, printed when it was released; with
            it, no other release is loaded.

    Returns:
        The predictor.

    Raises:
        ReleaseError: When there is no release, it was refused, it is not the one that is meant, it has no
            SavedModel, or a file is damaged, missing or not listed, also when it became so meanwhile.
        ConfigError: When ``manifest_sha256`` is no sha256.
    """
    directory = version_folder(path)
    checksum = manifest_checksum(directory) if manifest_sha256 is None else manifest_sha256
    check_servable(directory, manifest_sha256=checksum)
    golden = Golden.load(directory / GOLDEN_FILE)
    predictor = Predictor(directory, golden.classes, feature=golden.feature)
    # Files are opened by name after they were hashed: what was loaded must still be what was hashed.
    check_servable(directory, manifest_sha256=checksum)
    return predictor
