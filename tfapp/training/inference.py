"""Logits of many texts or images, in batches of similar length."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tfapp.data.bucketing import Rows, evaluation_batches
from tfapp.data.image_rows import naming_bad_images
from tfapp.progress import track

_MOST_IMAGES, _MOST_PIXELS = 128, 128 * 64 * 64


def gradient_batch_size(height: int, width: int) -> int:
    """Chooses how many images fit into a batch whose gradient is taken at the pixels.

    What a network keeps for its gradient grows with the pixels: 128 images of 64 x 64 pixels, and 10 of
    224 x 224, take some 1 to 2 GB in a ResNet50.

    Args:
        height: Of an image, in pixels.
        width: Of an image, in pixels.

    Returns:
        1 to 128.
    """
    return max(1, min(_MOST_IMAGES, _MOST_PIXELS // (height * width)))


def predict_logits(model: Any, features: Sequence[Any], *, batch_size: int = 128) -> npt.NDArray[np.float32]:
    """Computes the logits of texts or images; long texts are cut or averaged over windows as the model says.

    Args:
        model: A classifier with its preprocessor.
        features: Texts, or encoded images.
        batch_size: Rows a batch, 1 or more.

    Returns:
        float32 ``(rows, num_classes)``, in the order of ``features``.
    """
    if not len(features):
        return np.zeros((0, model.num_classes), np.float32)
    encoded = model.preprocessor.encode(features)
    logits = gather_outputs(model, input_rows(model, encoded), batch_size=batch_size)["logits"]
    averaged: npt.NDArray[np.float32] = encoded.average(logits)
    return averaged


def input_rows(model: Any, encoded: Any, *, pad_to: int = 1) -> Rows:
    """Makes rows that a model takes: the inputs that it declares, padded as its preprocessor pads.

    Args:
        model: A classifier with its preprocessor.
        encoded: What the preprocessor's ``encode`` gives.
        pad_to: Widths of texts are rounded up to a multiple of this many tokens.

    Returns:
        The rows.
    """
    rows: Rows = model.preprocessor.make_rows(encoded, inputs=tuple(model.input), pad_to=pad_to)
    return rows


def gather_outputs(model: Any, rows: Rows, *, batch_size: int) -> dict[str, npt.NDArray[Any]]:
    """Runs a model in inference mode over all rows.

    Args:
        model: From the rows' inputs to one tensor (called ``logits`` in the answer) or a dict of tensors,
            each ``(batch, ...)`` with the same trailing shape in every batch.
        rows: The inputs.
        batch_size: Rows a batch, 1 or more.

    Returns:
        One array ``(rows, ...)`` for each output, in the order of ``rows``.
    """
    gathered: dict[str, npt.NDArray[Any]] = {}
    for indices, outputs in batch_outputs(model, rows, batch_size=batch_size):
        for name, values in outputs.items():
            if name not in gathered:
                gathered[name] = np.empty((len(rows), *values.shape[1:]), values.dtype)
            gathered[name][indices] = values
    return gathered


def batch_outputs(
    model: Any, rows: Rows, *, batch_size: int, label: str = "run the model"
) -> Iterator[tuple[npt.NDArray[np.int64], dict[str, npt.NDArray[Any]]]]:
    """Runs a model in inference mode, batch by batch, short rows first.

    Args:
        model: From the rows' inputs to one tensor (called ``logits``) or a dict of tensors ``(batch, ...)``.
        rows: The inputs.
        batch_size: Rows a batch, 1 or more.
        label: What the progress bar says.

    Yields:
        The numbers of a batch's rows, int64 ``(batch,)``, and its outputs.
    """
    dataset, order = evaluation_batches(rows, batch_size=batch_size)
    batches = -(-len(rows) // batch_size)

    def run(inputs: Any) -> dict[str, tf.Tensor]:
        outputs = model(inputs, training=False)
        return outputs if isinstance(outputs, dict) else {"logits": outputs}

    compiled = tf.function(run, input_signature=[dataset.element_spec], autograph=False)
    compiled = compiled.get_concrete_function()
    with naming_bad_images():
        for number, inputs in enumerate(track(dataset, batches, label)):
            indices = order[number * batch_size : (number + 1) * batch_size]
            yield indices, {name: value.numpy() for name, value in compiled(inputs).items()}
