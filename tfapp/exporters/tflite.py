"""TFLite files for phones and edge boxes, of builtin operators only."""

from __future__ import annotations

import json
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tfapp.errors import ConfigError, nearest
from tfapp.exporters._calibration import ready_for_integers
from tfapp.exporters._graph import InferenceGraph
from tfapp.exporters._integers import Check, convert_to_integers
from tfapp.exporters._metadata import LABELS, label_file, model_metadata
from tfapp.exporters._operators import TEXT_OPERATORS, check_operators
from tfapp.exporters._packing import input_names, pack

VARIANTS = ("float32", "float16", "dynamic", "int8", "text")
_CALIBRATION_ROWS = 200
_CHECKED_ROWS = 400
_BATCH = 16
INTEGER_REPORT = "int8-layers.json"


def export_tflite(
    model: Any,
    directory: str | Path,
    *,
    variant: str,
    scratch: str | Path | None = None,
    calibration: Sequence[Any] = (),
    min_agreement: float = 0.0,
    name: str = "",
    licence: str = "",
) -> Path:
    """Writes ``edge/model-<variant>.tflite``, with ``labels.txt`` and the preprocessor's files beside it.

    Each file has one signature, ``serving_default``, with one output, ``probabilities``, the temperature
    included. ``float32``, ``float16`` and ``dynamic`` (8-bit weights) take the model's own tensors with
    one row and fixed lengths. ``int8`` computes in integers: it takes pixels and gives probabilities as
    uint8, whose scale and zero point the file says. ``text`` takes one string, ``(1,)``; it is quantised as
    ``dynamic``, works on the text's own length, and needs the operators of TF.Text.

    Each file also carries metadata that MediaPipe Tasks reads, and copies of the files beside it: one that
    holds its vocabulary in its graph already, those of the classes only.

    Args:
        model: A classifier that carries its preprocessor.
        directory: The release's folder.
        variant: ``"float32"``, ``"float16"``, ``"dynamic"``, ``"int8"`` or ``"text"``.
        scratch: A folder where the graph to be converted is kept for the next variant; by default it is
            made anew and removed.
        calibration: Training features by which the ranges of ``int8`` are found; 200 of them, spread over
            all, are looked at, and the half that is most ordinary decides.
        min_agreement: Least share of 400 of these features that should keep their class in ``int8``, from 0
            to 1. Where fewer do, its head and then the layers to which integers cost most are kept in
            floating point, and ``int8-layers.json`` beside the file says which, and what each layer loses.
        name: What the metadata call the model.
        licence: The terms of the model's parts, for the metadata.

    Returns:
        The file.

    Raises:
        ConfigError: When the variant is unknown, or ``int8`` comes without calibration.
        WeightsError: When the model needs operators that TFLite does not have.
    """
    if variant not in VARIANTS:
        raise ConfigError(f"TFLite variant {variant!r} is unknown; {nearest(variant, VARIANTS)}")
    if variant not in model.preprocessor.variants:
        raise ConfigError(
            f"TFLite variant {variant!r} is not made of such a model; "
            f"{nearest(variant, model.preprocessor.variants)}"
        )
    if variant == "int8" and not len(calibration):
        raise ConfigError("int8 needs training features to be calibrated by: give calibration=...")
    edge = Path(directory) / "edge"
    edge.mkdir(parents=True, exist_ok=True)
    holder = (
        nullcontext(str(scratch)) if scratch else tempfile.TemporaryDirectory(prefix=".convert-", dir=edge)
    )
    labels = {LABELS: label_file(model.classes)}
    beside = {**labels, **model.preprocessor.asset_files()}
    reports: dict[str, bytes] = {}
    with holder as folder:
        if variant == "int8":
            content, report = _integers(model, Path(folder), calibration, min_agreement)
            if report is not None:
                text = json.dumps(report, ensure_ascii=False, indent=1) + "\n"
                reports[INTEGER_REPORT] = text.encode("utf-8")
        else:
            content = _convert(_converted_graph(model, Path(folder), variant), variant)
    check_operators(content, allowed_custom=TEXT_OPERATORS if variant == "text" else frozenset())
    inside = labels if variant == "text" else beside
    metadata = model_metadata(model, input_names(content), inside, name=name, licence=licence)
    path = edge / f"model-{variant}.tflite"
    path.write_bytes(pack(content, metadata, inside))
    for file, data in (beside | reports).items():
        (edge / file).write_bytes(data)
    return path


def _converted_graph(model: Any, scratch: Path, variant: str) -> Path:
    """Returns the SavedModel that the converter reads, one row at a time; written when it is not there."""
    from_text = variant == "text"
    directory = scratch / {"text": "features", "int8": "integers"}.get(variant, "tensors")
    if (directory / "saved_model.pb").exists():
        return directory
    graph = InferenceGraph(model)
    if from_text:
        spec = tf.TensorSpec([1], tf.string, name=graph.preprocessor.feature_name)
    else:
        spec = graph.specs(batch=1, length=getattr(graph.preprocessor, "max_length", None))

    def serve(inputs: Any) -> dict[str, tf.Tensor]:
        return {
            "probabilities": graph.single_probabilities(inputs) if from_text else graph.probabilities(inputs)
        }

    endpoint = tf.function(serve, input_signature=[spec], autograph=False)
    graph.save(directory, {"serve": endpoint}, default="serve")
    return directory


def _tensors(model: Any, features: Sequence[Any], row: int) -> dict[str, npt.NDArray[Any]]:
    """Prepares one row as the exported graph takes it."""
    # A slice, for it keeps the names that messages call images by.
    tensors, _ = model.preprocessor.fixed(features[row : row + 1])
    return {name: tensors[name].astype(tensor.dtype) for name, tensor in model.input.items()}


def _representative(
    model: Any, features: Sequence[Any], rows: Sequence[int]
) -> Iterator[dict[str, npt.NDArray[Any]]]:
    """Prepares training rows, one at a time."""
    for number, row in enumerate(rows):
        tensors = _tensors(model, features, row)
        if number == 0:
            for values in tensors.values():
                # The whole range of the inputs: one integer is then one grey level.
                values.flat[0], values.flat[-1] = 0.0, 255.0
        yield tensors


def _integers(
    model: Any, folder: Path, features: Sequence[Any], min_agreement: float
) -> tuple[bytes, dict[str, Any] | None]:
    """Converts a copy of the model to integers, and checks it on training rows where that is asked for."""
    rows = _spread(features, _CALIBRATION_ROWS)
    twin, typical = ready_for_integers(model, (_tensors(model, features, row) for row in rows))
    rows = [rows[number] for number in typical]
    graph = _converted_graph(twin, folder, "int8")
    check = _check(model, features, min_agreement) if min_agreement else None
    with _quiet():
        made = convert_to_integers(graph, lambda: _representative(model, features, rows), check)
    return made.content, made.report


def _check(model: Any, features: Sequence[Any], min_agreement: float) -> Check:
    """Asks the model about training rows, a few at a time."""
    probabilities = tf.function(InferenceGraph(model).probabilities, reduce_retracing=True, autograph=False)
    rows, pixels, classes = _spread(features, _CHECKED_ROWS), [], []
    for start in range(0, len(rows), _BATCH):
        tensors = [_tensors(model, features, row) for row in rows[start : start + _BATCH]]
        batch = {name: np.concatenate([row[name] for row in tensors]) for name in tensors[0]}
        pixels += [values.astype(np.uint8) for values in batch.values()]
        classes.append(probabilities(batch).numpy().argmax(axis=1))
    return Check(np.concatenate(pixels), np.concatenate(classes), min_agreement)


def _spread(features: Sequence[Any], most: int) -> list[int]:
    """Numbers of rows, spread over all."""
    count = min(most, len(features))
    return [number * len(features) // count for number in range(count)]


def _convert(saved_model: Path, variant: str) -> bytes:
    converter = tf.lite.TFLiteConverter.from_saved_model(str(saved_model), signature_keys=["serving_default"])
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
    if variant != "float32":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if variant == "float16":
        converter.target_spec.supported_types = [tf.float16]
    # TF.Text's operators are custom ones; `check_operators` looks that nothing else has come in.
    converter.allow_custom_ops = variant == "text"
    return bytes(converter.convert())


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps back what the calibrator's own interpreter tells everybody else to leave."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"\s*Warning: tf.lite.Interpreter is deprecated")
        yield
