"""What a .tflite file says of itself: classes, preprocessing, licence, in MediaPipe's terms."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from tfapp import __version__
from tfapp.data.encoded import MAX_WINDOWS, window_stride

LABELS = "labels.txt"
# The version of the format that a reader needs for a tokenizer, for a vocabulary, and for all else.
_TOKENIZER_VERSION, _VOCABULARY_VERSION, _FIRST_VERSION = "1.1.0", "1.0.1", "1.0.0"


def model_metadata(
    model: Any, inputs: Sequence[str], files: Mapping[str, bytes], *, name: str = "", licence: str = ""
) -> dict[str, Any]:
    """Describes a model for its .tflite file.

    Its version is a checksum of weights, classes and temperature: the number of a release is known only
    after its files are, but the same model has the same version in every file.

    MediaPipe's tokenizer is WordPiece and always lower-cases. A model with another tokenizer, or one that
    tells upper from lower case, carries its vocabulary without naming a tokenizer, so that MediaPipe refuses
    it instead of answering wrongly.

    Args:
        model: A classifier that carries its preprocessor.
        inputs: Names of the file's inputs in the order of its tensors.
        files: The files inside it by name; `LABELS` is among them.
        name: What the model is called.
        licence: The terms of its parts, for people to read.

    Returns:
        The fields of ``ModelMetadata``; see `write_metadata`.
    """
    preprocessor = model.preprocessor
    subgraph: dict[str, Any] = {
        "input_tensor_metadata": [_INPUTS[tensor](preprocessor) for tensor in inputs],
        "output_tensor_metadata": [_probabilities(model)],
    }
    version = _FIRST_VERSION
    name_of_vocabulary = getattr(preprocessor, "vocabulary_file", "")
    if name_of_vocabulary in files:
        vocabulary = {
            "name": name_of_vocabulary,
            "description": preprocessor.vocabulary_description,
            "type": "VOCABULARY",
        }
        wordpiece = preprocessor.kind == "wordpiece"
        if wordpiece and preprocessor.lowercase and _line_by_line(files[name_of_vocabulary]):
            version = _TOKENIZER_VERSION
            options = {"BertTokenizerOptions": {"vocab_file": [vocabulary]}}
            subgraph["input_process_units"] = [{"options": options}]
        else:
            version = _VOCABULARY_VERSION
            subgraph["associated_files"] = [vocabulary]
    described = {
        "name": name,
        "description": f"{model.num_classes} classes; temperature {model.temperature:g} is included.",
        "version": model_version(model),
        "author": f"tfapp {__version__}",
        "license": licence,
        "subgraph_metadata": [subgraph],
        "min_parser_version": version,
    }
    return {field: value for field, value in described.items() if value}


def label_file(classes: Sequence[str]) -> bytes:
    """Writes names of classes as readers of `LABELS` expect them.

    Args:
        classes: The names in their order.

    Returns:
        UTF-8, one name a line.
    """
    return "".join(f"{name}\n" for name in classes).encode("utf-8")


def model_version(model: Any) -> str:
    """Computes what tells a trained model from others.

    Args:
        model: A classifier.

    Returns:
        The first 16 hexadecimal digits of the SHA-256 of its weights, classes and temperature.
    """
    digest = hashlib.sha256(repr((model.classes, float(model.temperature))).encode("utf-8"))
    for weight in model.get_weights():
        digest.update(repr(weight.shape).encode("utf-8"))
        digest.update(np.ascontiguousarray(weight, np.float32).data)
    return digest.hexdigest()[:16]


def _line_by_line(vocabulary: bytes) -> bool:
    """Tells whether a reader that passes over empty lines and carriage returns counts the same ids."""
    return not any(not line or line.endswith(b"\r") for line in vocabulary.removesuffix(b"\n").split(b"\n"))


def _probabilities(model: Any) -> dict[str, Any]:
    return {
        "name": "probabilities",
        "description": f"The probability of each class, in the order of {LABELS}; they add up to 1.",
        "content": {"content_properties": {"FeatureProperties": {}}},
        "stats": {"min": [0.0], "max": [1.0]},
        "associated_files": [
            {
                "name": LABELS,
                "description": "Names of the classes, one a line.",
                "type": "TENSOR_AXIS_LABELS",
            }
        ],
    }


def _feature(name: str, description: str) -> dict[str, Any]:
    return {
        "name": name,
        "description": description,
        "content": {"content_properties": {"FeatureProperties": {}}},
    }


def _token_ids(preprocessor: Any) -> dict[str, Any]:
    if preprocessor.long_texts == "windows":
        longer = (
            f"Of longer texts up to {MAX_WINDOWS} windows that begin "
            f"{window_stride(preprocessor.max_length)} pieces apart are asked one by one, and the logarithms "
            "of their probabilities averaged."
        )
    else:
        longer = "Longer texts are cut."
    return _feature("ids", f"{preprocessor.description} {longer}")


def _padding_mask(preprocessor: Any) -> dict[str, Any]:
    return _feature("mask", "1 for each id of the text, its two special ones included, and 0 for padding.")


def _segment_ids(preprocessor: Any) -> dict[str, Any]:
    return _feature("segment_ids", "0 everywhere: the text is one segment.")


def _text(preprocessor: Any) -> dict[str, Any]:
    return _feature("text", "One text in UTF-8; the model itself tokenizes it.")


def _pixels(preprocessor: Any) -> dict[str, Any]:
    height, width = preprocessor.image_size
    fitted = {
        "stretch": "stretched",
        "crop": "its centre cut out",
        "pad": "black added on two sides",
    }[preprocessor.aspect]
    return {
        "name": "image",
        "description": (
            f"An image as RGB from 0 to 255, {height} pixels high and {width} wide; one of another shape is "
            f"brought to it, {fitted}. The model itself normalises the pixels."
        ),
        "content": {
            "content_properties": {
                "ImageProperties": {
                    "color_space": "RGB",
                    "default_size": {"width": width, "height": height},
                }
            }
        },
        "process_units": [{"options": {"NormalizationOptions": {"mean": [0.0], "std": [1.0]}}}],
        "stats": {"min": [0.0], "max": [255.0]},
    }


_INPUTS: dict[str, Callable[[Any], dict[str, Any]]] = {
    "token_ids": _token_ids,
    "padding_mask": _padding_mask,
    "segment_ids": _segment_ids,
    "text": _text,
    "pixels": _pixels,
}
"""For each name of an input, what describes its tensor; MediaPipe finds those of BERT by these names."""
