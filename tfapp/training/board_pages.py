"""Pages of a board: validation rows with what the model says of them, and the run's settings."""

from __future__ import annotations

import json
import unicodedata
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tfapp.fonts import families_for

_LONGEST_TEXT = 300
_IMAGES_A_ROW = 4


class PredictionPage:
    """Shows the same validation rows after each epoch.

    Args:
        predict: Computes logits ``(rows, num_classes)`` of the rows that are shown.
        labels: Their class indices, int32 ``(rows,)``.
        classes: Names of the classes.
        texts: The rows as texts; None for images.
        pixels: The rows as images, uint8 ``(rows, height, width, 3)``; None for texts.
    """

    def __init__(
        self,
        predict: Callable[[], Any],
        labels: npt.NDArray[np.int32],
        *,
        classes: Sequence[str],
        texts: Sequence[str] | None = None,
        pixels: npt.NDArray[np.uint8] | None = None,
    ) -> None:
        self._predict, self._labels, self._classes = predict, labels, classes
        self._texts, self._pixels = texts, pixels

    def __call__(self) -> None:
        """Writes the page as a summary of the default writer's step."""
        probabilities = tf.nn.softmax(tf.cast(self._predict(), tf.float32)).numpy()
        predicted = probabilities.argmax(axis=1)
        rows = [
            (self._classes[label], self._classes[best], float(row[best]))
            for label, best, row in zip(self._labels, predicted, probabilities, strict=True)
        ]
        if self._texts is not None:
            tf.summary.text("predictions", text_table(self._texts, rows))
        if self._pixels is not None:
            tf.summary.image("predictions", image_sheet(self._pixels, rows)[np.newaxis])


def text_table(texts: Sequence[str], rows: Sequence[tuple[str, str, float]]) -> str:
    """Makes a markdown table of texts and their predictions.

    Args:
        texts: The texts; long ones are cut.
        rows: Name of the class, name of the predicted class, and its probability, of each.

    Returns:
        Markdown in which nothing of the data is markup.
    """
    lines = ["| | text | class | predicted | probability |", "|---|---|---|---|---:|"]
    for text, (label, predicted, probability) in zip(texts, rows, strict=True):
        cut = text if len(text) <= _LONGEST_TEXT else f"{text[:_LONGEST_TEXT]}…"
        verdict = "right" if label == predicted else "**wrong**"
        cells = (escaped(cut), escaped(label), escaped(predicted))
        lines.append(f"| {verdict} | {' | '.join(cells)} | {probability:.3f} |")
    return "\n".join(lines)


def escaped(text: str) -> str:
    """Makes a text that is no markup, neither of markdown nor of HTML, and stays on its line.

    Args:
        text: Any text.

    Returns:
        The text with all ASCII punctuation as character references; control signs, line ends and marks that
        turn the direction of writing become blanks.
    """
    return "".join(_escaped(sign) for sign in text)


def _escaped(sign: str) -> str:
    if sign.isascii() and sign.isprintable() and not sign.isalnum() and sign != " ":
        return f"&#{ord(sign)};"
    turning = unicodedata.bidirectional(sign) in (
        "LRE",
        "RLE",
        "LRO",
        "RLO",
        "PDF",
        "LRI",
        "RLI",
        "FSI",
        "PDI",
    )
    return " " if turning or unicodedata.category(sign) in ("Cc", "Cs", "Zl", "Zp") else sign


def image_sheet(
    pixels: npt.NDArray[np.uint8], rows: Sequence[tuple[str, str, float]]
) -> npt.NDArray[np.uint8]:
    """Draws images with their predictions as captions, wrong ones in red.

    Args:
        pixels: uint8 ``(rows, height, width, 3)``.
        rows: As in `text_table`.

    Returns:
        One picture, uint8 ``(height, width, 3)``.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    down = -(-len(rows) // _IMAGES_A_ROW)
    figure = Figure(figsize=(2.6 * _IMAGES_A_ROW, 2.9 * down), dpi=80, layout="tight")
    canvas: Any = FigureCanvasAgg(figure)  # its methods have no types
    for number, (image, (label, predicted, probability)) in enumerate(zip(pixels, rows, strict=True)):
        axes = figure.add_subplot(down, _IMAGES_A_ROW, number + 1)
        axes.imshow(image)
        axes.axis("off")
        right = label == predicted
        said = f"{_shortened(predicted)} {probability:.0%}"
        caption = f"right: {said}" if right else f"wrong: {said}\nis {_shortened(label)}"
        axes.set_title(
            caption,
            fontsize=9,
            color="black" if right else "crimson",
            parse_math=False,
            fontfamily=families_for([caption])[0],
        )
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", UserWarning
        )  # signs that no font of the machine has are drawn as boxes
        canvas.draw()
    drawn: npt.NDArray[np.uint8] = np.asarray(canvas.buffer_rgba())[..., :3]
    return drawn


def _shortened(name: str) -> str:
    shown = " ".join(name.split())
    return shown if len(shown) <= 24 else f"{shown[:23]}…"


def write_settings(settings: Mapping[str, Any], metrics: Sequence[str]) -> None:
    """Writes a run's settings for the plugin HParams, into the default writer.

    Args:
        settings: The settings by name; what is no number, text or truth is written as JSON.
        metrics: Tags of the run's final metrics.
    """
    from tensorboard.plugins.hparams import api

    plain = {name: _plain(value) for name, value in settings.items()}
    api.hparams_config(
        hparams=[api.HParam(name) for name in plain], metrics=[api.Metric(tag) for tag in metrics]
    )
    api.hparams(plain)


def write_end() -> None:
    """Tells the plugin HParams that the run is complete, in the default writer."""
    from tensorboard.plugins.hparams import api_pb2, summary

    ended = summary.session_end_pb(api_pb2.STATUS_SUCCESS)
    tf.summary.experimental.write_raw_pb(ended.SerializeToString())


def _plain(value: Any) -> bool | int | float | str:
    if isinstance(value, bool | int | float | str):
        return value
    return json.dumps(value, ensure_ascii=False, default=str)
