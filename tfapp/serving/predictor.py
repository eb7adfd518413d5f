"""Predictions from a released SavedModel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_text  # noqa: F401  (registers the operators of the tokenizer)

from tfapp.errors import DataError, ReleaseError
from tfapp.release.golden import Golden
from tfapp.release.manifest import check_files, listing, read_manifest, version_folder
from tfapp.serving.features import feature_name, image_bytes, refusal_text, text_bytes

_GOLDEN = "edge/golden.json"
_SAVED_MODEL = ("saved_model.pb", "fingerprint.pb", "variables/", "assets/")


@dataclass(frozen=True)
class Prediction:
    """The answer for one text or image.

    Attributes:
        label: Name of the most probable class.
        probabilities: The probability of each class by name, adding up to 1.
    """

    label: str
    probabilities: dict[str, float]


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
        self._serve = self._loaded.signatures["serving_default"]

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
        if isinstance(features, str | bytes | Path):
            raise DataError("predict takes a list of texts or images: put the single one into a list.")
        read = text_bytes if self.feature == "text" else image_bytes
        encoded = [read(feature, number) for number, feature in enumerate(features)]
        # Texts of similar length together need little padding.
        order = sorted(range(len(encoded)), key=lambda index: len(encoded[index]))
        predictions: dict[int, Prediction] = {}
        for start in range(0, len(order), batch_size):
            batch = order[start : start + batch_size]
            try:
                answers = self._serve(**{self.feature: tf.constant([encoded[index] for index in batch])})
            except tf.errors.InvalidArgumentError as error:
                raise self._refusal(batch, encoded, features, error) from error
            rows = answers["probabilities"].numpy()
            labels = answers["label"].numpy()
            for index, row, label in zip(batch, rows, labels, strict=True):
                values = (float(value) for value in np.asarray(row))
                predictions[index] = Prediction(
                    label.decode("utf-8"), dict(zip(self.classes, values, strict=True))
                )
        return [predictions[index] for index in range(len(encoded))]

    def _refusal(
        self,
        batch: Sequence[int],
        encoded: Sequence[bytes],
        features: Sequence[Any],
        error: tf.errors.InvalidArgumentError,
    ) -> DataError:
        """Finds the first of a batch that the model refuses by itself."""
        for index in sorted(batch):
            try:
                self._serve(**{self.feature: tf.constant([encoded[index]])})
            except tf.errors.InvalidArgumentError as own:
                return DataError(f"{feature_name(features[index], index)}: {refusal_text(own)}")
        return DataError(f"the model refuses the batch: {refusal_text(error)}")


def load_release(path: str | Path) -> Predictor:
    """Loads a release for prediction, after checking the files that it loads.

    Args:
        path: A version folder, ``saved_models/<name>/<version>``, or ``saved_models/<name>`` for its newest
            version.

    Returns:
        The predictor.

    Raises:
        ReleaseError: When there is no release, it was refused, it has no SavedModel, or a file is damaged.
    """
    directory = version_folder(path)
    manifest = read_manifest(directory)
    if manifest["release"]["verdict"] != "released":
        reasons = "; ".join(manifest["release"]["reasons"])
        raise ReleaseError(f"{directory} was refused ({reasons}); use a released version.")
    files = manifest["files"]
    if "saved_model.pb" not in files:
        raise ReleaseError(f"{directory} has no SavedModel; export again with the variant 'saved_model'.")
    needed = {
        name: value for name, value in files.items() if name == _GOLDEN or name.startswith(_SAVED_MODEL)
    }
    present = [name for name in listing(directory) if name == _GOLDEN or name.startswith(_SAVED_MODEL)]
    wrong = check_files(directory, needed, present=present)
    if wrong:
        raise ReleaseError(f"{directory}: {'; '.join(wrong)}. Copy or export the release again.")
    golden = Golden.load(directory / _GOLDEN)
    return Predictor(directory, golden.classes, feature=golden.feature)
