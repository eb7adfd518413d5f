"""Logits of many texts, in batches of similar length."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tfapp.data.bucketing import Rows, TokenRows, evaluation_batches
from tfapp.data.encoded import EncodedTexts
from tfapp.progress import track


def predict_logits(model: Any, texts: Sequence[str], *, batch_size: int = 128) -> npt.NDArray[np.float32]:
    """Computes the logits of texts, long ones cut or averaged over windows as the model's tokenizer says.

    Args:
        model: A text classifier with its preprocessor.
        texts: The texts.
        batch_size: Texts a batch, 1 or more.

    Returns:
        float32 ``(rows, num_classes)``, in the order of ``texts``.
    """
    if not len(texts):
        return np.zeros((0, model.num_classes), np.float32)
    encoded = model.preprocessor.encode(texts)
    logits = gather_outputs(model, token_rows(model, encoded), batch_size=batch_size)["logits"]
    averaged: npt.NDArray[np.float32] = encoded.average(logits)
    return averaged


def token_rows(model: Any, encoded: EncodedTexts, *, pad_to: int = 1) -> TokenRows:
    """Makes rows of token ids that a model takes: the inputs that it declares, padded as it pads.

    Args:
        model: A text classifier with its preprocessor.
        encoded: The texts' ids.
        pad_to: Widths are rounded up to a multiple of this many tokens.

    Returns:
        The rows.
    """
    return TokenRows(encoded, pad_id=model.preprocessor.pad_id, pad_to=pad_to, inputs=tuple(model.input))


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
    for number, inputs in enumerate(track(dataset, batches, label)):
        indices = order[number * batch_size : (number + 1) * batch_size]
        yield indices, {name: value.numpy() for name, value in compiled(inputs).items()}
