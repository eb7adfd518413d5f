"""Predictions from a released SavedModel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tensorflow as tf
import tensorflow_text  # noqa: F401  (registers the operators of the tokenizer)

from tfapp.errors import DataError, ReleaseError
from tfapp.release.golden import Golden
from tfapp.release.manifest import check_files, listing, read_manifest, version_folder

_GOLDEN = "edge/golden.json"
_SAVED_MODEL = ("saved_model.pb", "fingerprint.pb", "variables/", "assets/")


@dataclass(frozen=True)
class Prediction:
    """The answer for one text.

    Attributes:
        label: Name of the most probable class.
        probabilities: The probability of each class by name, adding up to 1.
    """

    label: str
    probabilities: dict[str, float]


class Predictor:
    """Classifies texts with a released SavedModel.

    Args:
        directory: The version folder.
        classes: Names of the classes in their order.
        feature: Name of the SavedModel's input.

    Raises:
        ReleaseError: When the SavedModel cannot be loaded.
    """

    def __init__(self, directory: Path, classes: Sequence[str], *, feature: str = "text") -> None:
        self.directory = directory
        self.classes = tuple(classes)
        self._feature = feature
        try:
            self._loaded = tf.saved_model.load(str(directory))
        except (OSError, ValueError, RuntimeError, tf.errors.OpError) as error:
            raise ReleaseError(
                f"the SavedModel in {directory} cannot be loaded: {' '.join(str(error).split())[:300]}"
            ) from error
        self._serve = self._loaded.signatures["serving_default"]

    def predict(self, texts: Sequence[str], *, batch_size: int = 32) -> list[Prediction]:
        """Classifies texts.

        Args:
            texts: The texts, any number of them.
            batch_size: Texts computed at once, 1 or more.

        Returns:
            A prediction for each text, in their order.

        Raises:
            DataError: When the texts are one string, or something else than strings that UTF-8 can write.
        """
        if isinstance(texts, str):
            raise DataError("predict takes a list of texts: put the one text into a list.")
        wrong = next((index for index, text in enumerate(texts) if not isinstance(text, str)), None)
        if wrong is not None:
            raise DataError(f"text {wrong} is {type(texts[wrong]).__name__} instead of str.")
        for index, text in enumerate(texts):
            try:
                text.encode("utf-8")
            except UnicodeEncodeError as error:
                raise DataError(
                    f"text {index} ({text!r:.60}) holds half a surrogate pair, which UTF-8 cannot write; "
                    "repair it."
                ) from error
        # Texts of similar length together need little padding.
        order = sorted(range(len(texts)), key=lambda index: len(texts[index]))
        predictions: dict[int, Prediction] = {}
        for start in range(0, len(order), batch_size):
            batch = order[start : start + batch_size]
            answers = self._serve(**{self._feature: tf.constant([texts[index] for index in batch])})
            rows = answers["probabilities"].numpy()
            labels = answers["label"].numpy()
            for index, row, label in zip(batch, rows, labels, strict=True):
                values = (float(value) for value in np.asarray(row))
                predictions[index] = Prediction(
                    label.decode("utf-8"), dict(zip(self.classes, values, strict=True))
                )
        return [predictions[index] for index in range(len(texts))]


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
