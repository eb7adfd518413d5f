"""Integer files, and which layers stay in floating point when integers change too many answers."""

from __future__ import annotations

import csv
import io
import logging
import math
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter
from tensorflow.lite.python.convert import mlir_quantize

_logger = logging.getLogger("tfapp")
_Rows = Callable[[], Iterator[dict[str, npt.NDArray[Any]]]]
_SENSITIVITY_ROWS = 20
_VERIFIED = "NumericVerify/"
# A file that is larger than this many times the one in integers is no integer file any more.
_LARGEST = 2.0


@dataclass(frozen=True)
class Check:
    """Rows on which an integer file is compared with its model.

    Attributes:
        pixels: uint8 ``(rows, height, width, 3)``.
        classes: The model's own class of each row, ``(rows,)``.
        min_agreement: Least share of rows with the same class, from 0 to 1.
    """

    pixels: npt.NDArray[np.uint8]
    classes: npt.NDArray[np.int64]
    min_agreement: float

    def agreement(self, content: bytes) -> float:
        """Measures the share of rows with the model's class.

        Args:
            content: A ``.tflite`` file that takes one row of uint8 pixels.
        """
        interpreter = Interpreter(model_content=content, num_threads=os.cpu_count())
        run = interpreter.get_signature_runner("serving_default")
        answers = [run(pixels=row[np.newaxis])["probabilities"].argmax() for row in self.pixels]
        return float(np.mean(np.array(answers) == self.classes))


@dataclass(frozen=True)
class Layer:
    """What integers cost one operator of a network.

    Attributes:
        name: Its name in the file.
        operator: What it computes.
        error: Root mean square of what its integer output is off, in steps of that integer; rounding alone
            makes it 0.29.
    """

    name: str
    operator: str
    error: float

    @property
    def nodes(self) -> list[str]:
        """The names by which the converter may know it: that of the integer copy may end in another digit."""
        return [self.name, self.name[:-1]] if self.name[-1:].isdigit() else [self.name]


@dataclass(frozen=True)
class Integers:
    """An integer file and how it came about.

    Attributes:
        content: The ``.tflite`` file.
        report: The agreement of every file that was tried, and the layers by what integers cost them; None
            where the first file agreed well enough.
    """

    content: bytes
    report: dict[str, Any] | None = None


def convert_to_integers(saved_model: Path, rows: _Rows, check: Check | None) -> Integers:
    """Converts a network to integers, and back in part when that changes too many answers.

    If fewer rows than wanted keep their class, first the head, logits and softmax, is computed in floating
    point: 8 bits for the logits are the commonest loss, and the head weighs little. Then 1, 2, 4, ... of the
    layers follow to which integers cost most, until the rows agree or the file grows to twice its size.

    Args:
        saved_model: The graph, of one row.
        rows: Gives the inputs by which ranges are found.
        check: The rows to compare; None takes the file as it is.

    Returns:
        The first file that agrees, else the one that agrees best.
    """
    converter = _converter(saved_model, rows)
    whole = bytes(converter.convert())
    if check is None:
        return Integers(whole)
    agreement = check.agreement(whole)
    if agreement >= check.min_agreement:
        return Integers(whole)
    _logger.info(
        "export: int8 keeps the class of %.2f%% of %d training rows, %.2f%% are wanted: trying which layers "
        "to keep in floating point",
        100 * agreement,
        len(check.classes),
        100 * check.min_agreement,
    )
    debugger = _debugger(_converter(saved_model, rows), rows)
    layers = _layers(debugger)
    best, most = whole, agreement
    tried = [_attempt([], agreement, whole)]
    for kept in _choices(layers):
        content = bytes(
            mlir_quantize(
                debugger.calibrated_model,
                input_data_type=tf.uint8,
                output_data_type=tf.uint8,
                denylisted_nodes=[node for layer in kept for node in layer.nodes],
            )
        )
        if len(content) > _LARGEST * len(whole):
            break
        agreement = check.agreement(content)
        tried.append(_attempt(kept, agreement, content))
        if agreement > most:
            best, most = content, agreement
        _logger.info(
            "export: int8 with %d layers in floating point: %.2f%%, %.1f MB",
            len(kept),
            100 * agreement,
            len(content) / 1e6,
        )
        if agreement >= check.min_agreement:
            break
    costly = sorted(layers, key=lambda layer: -layer.error)
    report = {
        "rows": len(check.classes),
        "min_agreement": check.min_agreement,
        "tried": tried,
        "layers": [asdict(layer) for layer in costly],
    }
    return Integers(best, report)


def _attempt(kept: Sequence[Layer], agreement: float, content: bytes) -> dict[str, Any]:
    return {"float_layers": [layer.name for layer in kept], "agreement": agreement, "bytes": len(content)}


def _converter(saved_model: Path, rows: _Rows) -> Any:
    converter = tf.lite.TFLiteConverter.from_saved_model(str(saved_model), signature_keys=["serving_default"])
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.representative_dataset = rows
    converter.inference_input_type = converter.inference_output_type = tf.uint8
    return converter


def _debugger(converter: Any, rows: _Rows) -> Any:
    """Runs a file that computes every layer both ways."""

    def some() -> Iterator[list[npt.NDArray[Any]]]:
        for _, row in zip(range(_SENSITIVITY_ROWS), rows(), strict=False):
            yield list(row.values())

    debugger = tf.lite.experimental.QuantizationDebugger(converter=converter, debug_dataset=some)
    debugger.run()
    return debugger


def _layers(debugger: Any) -> list[Layer]:
    """The layers of a network in their order."""
    table = io.StringIO()
    debugger.layer_statistics_dump(table)
    table.seek(0)
    rows = list(csv.DictReader(table))
    return [
        Layer(
            name.removeprefix(_VERIFIED).rpartition(":")[0],
            row["op_name"],
            math.sqrt(float(row["mean_squared_error"])) / float(row["scale"]),
        )
        for name, row in zip(debugger.layer_statistics, rows, strict=True)
    ]


def _choices(layers: Sequence[Layer]) -> Iterator[list[Layer]]:
    """Ever more layers to keep in floating point."""
    dense = [number for number, layer in enumerate(layers) if layer.operator == "FULLY_CONNECTED"]
    start = dense[-1] if dense else len(layers) - 1
    head, body = list(layers[start:]), sorted(layers[:start], key=lambda layer: -layer.error)
    yield head
    count = 1
    while count <= len(body):
        yield head + body[:count]
        count *= 2
