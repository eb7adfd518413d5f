"""The Keras model of a release, with the preprocessor that belongs to it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import keras
import keras_hub  # noqa: F401  (registers the layers of encoders)

from tfapp.data.image_decoding import ImageDecoder
from tfapp.data.tokenizers import Tokenizer, tokenizer_family
from tfapp.errors import ReleaseError
from tfapp.models.encoders import split_at_embeddings
from tfapp.release.golden import Golden
from tfapp.release.integrity import check_release
from tfapp.release.layout import GOLDEN_FILE
from tfapp.release.versions import version_folder

KERAS_FILE = "keras/model.keras"


class ReleasedModel:
    """What a release's Keras file computes, as measurements take a classifier.

    Args:
        network: The model from the file.
        golden: Its classes, temperature and preprocessor's settings.
        preprocessor: What makes its inputs from raw features.
    """

    def __init__(self, network: keras.Model, golden: Golden, preprocessor: Any) -> None:
        self.network = network
        self.classes = golden.classes
        self.num_classes = len(golden.classes)
        self.temperature = golden.temperature
        self.preprocessor = preprocessor

    @property
    def input(self) -> dict[str, Any]:
        """The input tensors by name."""
        return dict(self.network.input)

    def split_at_embeddings(self) -> tuple[keras.Model, Callable[..., Any]]:
        """Cuts a text model at its embeddings; see `TextClassifier.split_at_embeddings`."""
        return split_at_embeddings(self.network)

    def __call__(self, inputs: Mapping[str, Any], training: bool = False) -> Any:
        """Computes logits."""
        return self.network(inputs, training=training)


def load_released_model(release_dir: str | Path) -> ReleasedModel:
    """Loads the Keras model of a release, after a look at the checksums of its files.

    Args:
        release_dir: A version folder, or ``saved_models/<name>`` for its newest version.

    Returns:
        The model.

    Raises:
        ReleaseError: When there is no release, it lacks the Keras file or vocabulary, or a file is damaged.
    """
    directory = version_folder(release_dir)
    files = check_release(directory)["files"]
    for name, variant in ((KERAS_FILE, "'keras'"), (GOLDEN_FILE, "any")):
        if name not in files:
            raise ReleaseError(
                f"{directory} has no {name}, which gradients are taken through: export again with the "
                f"variant {variant}, or attack the workflow that made it."
            )
    golden = Golden.load(directory / GOLDEN_FILE)
    preprocessor = load_preprocessor(directory, golden)
    try:
        network = keras.saving.load_model(directory / KERAS_FILE, compile=False)
    except Exception as error:
        # Keras raises errors of many kinds for a file of another version or with unknown layers.
        raise ReleaseError(
            f"{directory / KERAS_FILE} cannot be loaded: {' '.join(str(error).split())[:300]}"
        ) from error
    return ReleasedModel(network, golden, preprocessor)


def load_preprocessor(directory: Path, golden: Golden) -> Any:
    """Loads what makes a release's tensors from raw features.

    Args:
        directory: The version folder, whose files were checked.
        golden: Its golden vectors, which have the settings.

    Returns:
        A tokenizer or an image decoder.

    Raises:
        ReleaseError: When it lacks the vocabulary, or has another one.
    """
    settings = golden.inputs.preprocessor
    return _tokenizer(directory, settings) if golden.feature == "text" else ImageDecoder.from_config(settings)


def _tokenizer(directory: Path, settings: Mapping[str, Any]) -> Tokenizer:
    family = tokenizer_family(settings)
    path = directory / "edge" / family.vocabulary_file
    if not path.is_file():
        raise ReleaseError(
            f"{directory} has no edge/{path.name}, without which texts cannot be tokenized here: export "
            "again with a TFLite variant such as 'float32'."
        )
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != settings["vocabulary_sha256"]:
        raise ReleaseError(f"{path} is not the vocabulary of the model's tokenizer.")
    return family.from_file(content, settings)
