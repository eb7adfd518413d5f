"""The runtimes that artifacts are run by in a fresh process, and the rows that they answer.

`runner.py` and `stopwatch.py` beside it, which are started by path, load this file by path too: it
imports only what its runtime needs, never tfapp.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

_BATCH = 16
_ENDPOINT_ROWS = 16
_TIE = 1e-3


def check_alone(request: dict[str, Any]) -> None:
    """Refuses a process that has loaded what its artifact's user need not have.

    Args:
        request: What this process was started with.

    Raises:
        ImportError: When a module is there that the request forbids.
    """
    loaded = sorted(set(request["forbidden"]) & set(sys.modules))
    if loaded:
        raise ImportError(f"this runtime must do without {', '.join(loaded)}, but has loaded it")


def _np() -> Any:
    import numpy

    return numpy


class _Features:
    """Raw features as bytes, read from one file when they are asked for."""

    def __init__(self, path: str, splits: list[int]) -> None:
        self._splits = splits
        self._file = os.open(path, os.O_RDONLY)

    def __len__(self) -> int:
        return len(self._splits) - 1

    def __getitem__(self, row: int) -> bytes:
        start, end = self._splits[row : row + 2]
        return os.pread(self._file, end - start, start)

    def close(self) -> None:
        os.close(self._file)


class Inputs:
    """The rows of a request: raw features as bytes, and input tensors of fixed length."""

    def __init__(self, folder: str) -> None:
        np, index = _np(), json.loads((Path(folder) / "index.json").read_text(encoding="utf-8"))
        self.features = _Features(**index["features"])
        self.tensors = {
            name: np.memmap(array["path"], array["dtype"], "r", shape=tuple(array["shape"]))
            for name, array in index["tensors"].items()
        }
        self._owners = None if index["owners"] is None else np.array(index["owners"])

    def close(self) -> None:
        """Closes the file of the raw features."""
        self.features.close()

    @property
    def num_rows(self) -> int:
        """Rows of the tensors: one for each feature, or for each window of a text."""
        return len(next(iter(self.tensors.values())))

    @property
    def owners(self) -> Any:
        """The number of the feature that each row belongs to."""
        return _np().arange(len(self.features)) if self._owners is None else self._owners

    def rows(self, features: list[int]) -> Any:
        """The numbers of the rows that features are: one each, or all windows of each text in turn."""
        np = _np()
        if self._owners is None:
            return np.array(features)
        starts, ends = (np.searchsorted(self._owners, features, side) for side in ("left", "right"))
        return np.concatenate([np.arange(*span) for span in zip(starts, ends, strict=True)])

    def average(self, probabilities: Any, rows: Any = None) -> Any:
        """Averages the logits of a text's windows; probabilities show logits but for a constant.

        Without numbers of rows, they are those of the first rows.
        """
        if self._owners is None:
            return probabilities
        np = _np()
        owners = self._owners[: len(probabilities)] if rows is None else self._owners[rows]
        firsts = np.flatnonzero(np.diff(owners, prepend=-1))
        sums = np.add.reduceat(np.log(np.maximum(probabilities, 1e-37)), firsts, axis=0)
        means = sums / np.diff(np.append(firsts, len(owners)))[:, None]
        powers = np.exp(means - means.max(axis=1, keepdims=True))
        return powers / powers.sum(axis=1, keepdims=True)

    def row(self, index: int) -> dict[str, Any]:
        """One row, of fixed length."""
        return {name: values[index : index + 1] for name, values in self.tensors.items()}

    @property
    def lengths(self) -> Any:
        """Tokens of each row; None where rows are no tokens."""
        mask = self.tensors.get("padding_mask")
        return None if mask is None else mask.sum(axis=1)

    def trimmed(self, rows: Any) -> dict[str, Any]:
        """Some rows, without the padding that none of them needs."""
        mask = self.tensors.get("padding_mask")
        stop = None if mask is None else int(mask[rows].sum(axis=1).max())
        return {name: values[rows, :stop] for name, values in self.tensors.items()}


class _SavedModel:
    """TensorFlow and TF.Text, as TF Serving links them."""

    libraries = ("tensorflow", "tensorflow-text")
    takes_features, most_rows = True, None

    def __init__(self, request: dict[str, Any], threads: int) -> None:
        tf = _tensorflow(threads)
        import tensorflow_text  # noqa: F401

        self._tf, self._request = tf, request
        self._loaded = tf.saved_model.load(request["artifact"])
        self._signatures = self._loaded.signatures

    def _serve(self, endpoint: str, **inputs: Any) -> dict[str, Any]:
        answers = self._signatures[endpoint](
            **{name: self._tf.constant(value) for name, value in inputs.items()}
        )
        return {name: value.numpy() for name, value in answers.items()}

    def answer(self, inputs: Inputs) -> tuple[dict[str, Any], dict[str, Any]]:
        np, feature = _np(), self._request["feature"]
        order = sorted(range(len(inputs.features)), key=lambda row: len(inputs.features[row]))
        gathered: dict[str, list[Any]] = {"logits": [], "probabilities": [], "label": []}
        for start in range(0, len(order), _BATCH):
            batch = [inputs.features[row] for row in order[start : start + _BATCH]]
            answers = self._serve("serving_default", **{feature: batch})
            for name, parts in gathered.items():
                parts.append(answers[name])
        back = np.argsort(order)
        stacked = {name: np.concatenate(parts)[back] for name, parts in gathered.items()}
        labels = _names(stacked.pop("label")).tolist()
        facts: dict[str, Any] = {"labels": labels}
        if inputs.tensors:
            facts |= self._compare_endpoints(inputs, stacked["probabilities"], labels)
        return stacked, facts

    def _compare_endpoints(self, inputs: Inputs, served: Any, labels: list[str]) -> dict[str, Any]:
        """Compares other endpoints with ``serving_default``: probabilities, and labels where no two tie."""
        np, feature, tensors = _np(), self._request["feature"], self._request["tensor_endpoint"]
        count = min(_ENDPOINT_ROWS, len(inputs.features))
        some, owners = [inputs.features[row] for row in range(count)], inputs.owners[inputs.owners < count]
        examples = [self._example(feature, value) for value in some]
        answers = {
            "serve": self._serve("serve", **{feature: some}),
            "serve_examples": self._serve("serve_examples", examples=examples),
            tensors: self._serve(
                tensors, **{name: values[: len(owners)] for name, values in inputs.tensors.items()}
            ),
        }
        if "classify" in self._signatures:  # releases of earlier versions lack it
            found = self._serve("classify", inputs=examples)
            scores = found["scores"]
            named = found["classes"][np.arange(count), scores.argmax(axis=1)]
            answers["classify"] = {"probabilities": scores, "label": named}
        # A window is labelled by itself, so only texts of one window have a label to compare.
        alone = np.flatnonzero(np.bincount(owners)[owners] == 1)
        best = np.sort(served[:count], axis=1)
        decided = best[:, -1] - best[:, -2] > _TIE
        expected = np.array(labels[:count])
        gaps: dict[str, float] = {}
        wrong: dict[str, int] = {}
        for name, answer in answers.items():
            probabilities, found, texts = answer["probabilities"], _names(answer["label"]), np.arange(count)
            if name == tensors:
                probabilities, found, texts = inputs.average(probabilities), found[alone], owners[alone]
            gaps[name] = float(np.max(np.abs(probabilities - served[:count])))
            wrong[name] = int(np.sum((found != expected[texts]) & decided[texts]))
        return {"endpoints": gaps, "endpoint_labels": wrong}

    def _example(self, feature: str, value: bytes) -> bytes:
        train = self._tf.train
        features = {feature: train.Feature(bytes_list=train.BytesList(value=[value]))}
        return bytes(train.Example(features=train.Features(feature=features)).SerializeToString())

    def call(self, inputs: Inputs, features: list[int]) -> Any:
        given = [inputs.features[number] for number in features]
        return _names(self._serve("serving_default", **{self._request["feature"]: given})["label"])


def _names(labels: Any) -> Any:
    return _np().array([value.decode("utf-8", "replace") for value in labels])


class _LiteRT:
    """LiteRT alone, as on a phone."""

    libraries: tuple[str, ...] = ("ai-edge-litert",)
    takes_features = False

    def __init__(self, request: dict[str, Any], threads: int) -> None:
        self._run = self._interpreter(request["artifact"], threads).get_signature_runner("serving_default")
        given = self._run.get_input_details()
        self._types = {name: details["dtype"] for name, details in given.items()}
        self._given = {
            name: [_np().dtype(details["dtype"]).name, *map(float, details["quantization"])]
            for name, details in given.items()
        }
        self.most_rows = min(int(details["shape"][0]) for details in given.values())
        output = self._run.get_output_details()["probabilities"]
        # A file with integers in and out: what one step of its answer is worth, and which integer is 0.
        exact = output["dtype"] == _np().float32
        quantization: tuple[float, int] = (0.0, 0) if exact else output["quantization"]
        self._step, self._zero = quantization

    def _interpreter(self, path: str, threads: int) -> Any:
        from ai_edge_litert.interpreter import Interpreter

        self._kept = Interpreter(model_path=path, num_threads=threads)
        return self._kept

    def answer(self, inputs: Inputs) -> tuple[dict[str, Any], dict[str, Any]]:
        rows = _np().concatenate([self._one(inputs, row) for row in range(inputs.num_rows)])
        if self._step:
            rows = (rows.astype(float) - self._zero) * self._step
        return {"probabilities": inputs.average(rows)}, {"step": self._step, "inputs": self._given}

    def call(self, inputs: Inputs, features: list[int]) -> Any:
        rows = inputs.rows(features)
        return inputs.average(_np().concatenate([self._one(inputs, row) for row in rows]), rows)

    def _one(self, inputs: Inputs, row: int) -> Any:
        tensors = {name: values.astype(self._types[name]) for name, values in inputs.row(row).items()}
        return self._run(**tensors)["probabilities"]


class _LiteRTText(_LiteRT):
    """LiteRT with the operators of TF.Text, whose registrar needs TensorFlow's libraries."""

    libraries = ("ai-edge-litert", "tensorflow", "tensorflow-text")
    takes_features = True

    def __init__(self, request: dict[str, Any], threads: int) -> None:
        self._feature = request["feature"]
        super().__init__(request, threads)

    def _interpreter(self, path: str, threads: int) -> Any:
        import tensorflow_text
        from ai_edge_litert.interpreter import InterpreterWithCustomOps

        operators = tensorflow_text.tflite_registrar.SELECT_TFTEXT_OPS
        self._kept = InterpreterWithCustomOps(
            model_path=path, custom_op_registerers=operators, num_threads=threads
        )
        return self._kept

    def answer(self, inputs: Inputs) -> tuple[dict[str, Any], dict[str, Any]]:
        rows = [self._one(inputs, row) for row in range(len(inputs.features))]
        return {"probabilities": _np().concatenate(rows)}, {}

    def call(self, inputs: Inputs, features: list[int]) -> Any:
        return self._one(inputs, features[0])

    def _one(self, inputs: Inputs, row: int) -> Any:
        text = _np().array([inputs.features[row]], dtype=object)
        return self._run(**{self._feature: text})["probabilities"]


def _in_batches(inputs: Inputs, answer: Callable[[dict[str, Any]], Any]) -> Any:
    """Answers all rows, those of similar length together."""
    np, lengths = _np(), inputs.lengths
    rows = np.arange(inputs.num_rows) if lengths is None else np.argsort(lengths, kind="stable")
    starts = range(0, len(rows), _BATCH)
    answers = [answer(inputs.trimmed(rows[start : start + _BATCH])) for start in starts]
    return np.concatenate(answers)[np.argsort(rows)]


class _Keras:
    """Keras and keras-hub; the temperature comes with the request, as the file does not hold it."""

    libraries = ("keras", "keras-hub", "tensorflow")
    takes_features, most_rows = False, None

    def __init__(self, request: dict[str, Any], threads: int) -> None:
        tf = _tensorflow(threads)
        import keras
        import keras_hub  # noqa: F401

        model = keras.saving.load_model(request["artifact"], compile=False)
        temperature = request["temperature"]

        @tf.function(reduce_retracing=True)  # type: ignore[untyped-decorator]
        def run(inputs: Any) -> Any:
            return tf.nn.softmax(tf.cast(model(inputs, training=False), tf.float32) / temperature)

        self._tf, self._run = tf, run

    def _answer(self, tensors: dict[str, Any]) -> Any:
        return self._run({name: self._tf.constant(values) for name, values in tensors.items()}).numpy()

    def answer(self, inputs: Inputs) -> tuple[dict[str, Any], dict[str, Any]]:
        return {"probabilities": inputs.average(_in_batches(inputs, self._answer))}, {}

    def call(self, inputs: Inputs, features: list[int]) -> Any:
        rows = inputs.rows(features)
        return inputs.average(self._answer(inputs.trimmed(rows)), rows)


class _ONNX:
    """ONNX Runtime alone. Rows and lengths are open: a text needs no padding beyond its own batch."""

    libraries = ("onnxruntime",)
    takes_features, most_rows = False, None
    _TYPES: ClassVar[dict[str, str]] = {"tensor(int32)": "int32", "tensor(float)": "float32"}

    def __init__(self, request: dict[str, Any], threads: int) -> None:
        try:
            import onnxruntime
        except ModuleNotFoundError as error:
            raise ImportError('onnxruntime is not installed here: pip install "tfapp[onnx]"') from error

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(
            request["artifact"], options, providers=["CPUExecutionProvider"]
        )
        self._types = {given.name: self._TYPES[given.type] for given in self._session.get_inputs()}
        labels = self._session.get_modelmeta().custom_metadata_map["labels.txt"]
        self._labels = labels.removesuffix("\n").split("\n")

    def _answer(self, tensors: dict[str, Any]) -> Any:
        given = {name: values.astype(self._types[name]) for name, values in tensors.items()}
        return self._session.run(["probabilities"], given)[0]

    def answer(self, inputs: Inputs) -> tuple[dict[str, Any], dict[str, Any]]:
        probabilities = inputs.average(_in_batches(inputs, self._answer))
        if len(self._labels) != probabilities.shape[1]:
            raise ValueError(f"{len(self._labels)} labels for {probabilities.shape[1]} classes")
        labels = [self._labels[index] for index in probabilities.argmax(axis=1)]
        return {"probabilities": probabilities}, {"labels": labels}

    def call(self, inputs: Inputs, features: list[int]) -> Any:
        rows = inputs.rows(features)
        return inputs.average(self._answer(inputs.trimmed(rows)), rows)


def _tensorflow(threads: int) -> Any:
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(threads)
    return tf


RUNTIMES: dict[str, Callable[[dict[str, Any], int], Any]] = {
    "saved_model": _SavedModel,
    "litert": _LiteRT,
    "litert_text": _LiteRTText,
    "keras": _Keras,
    "onnx": _ONNX,
}
