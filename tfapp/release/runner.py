"""Runs one artifact in a fresh process, as somebody would who has nothing but the files.

This script is started by path with ``python -I`` and imports only what its runtime needs, never tfapp. It
reads ``request.json`` from the folder that is its argument, answers every row of the inputs, says so on
standard output, and waits for lines on standard input: at ``ask FOLDER`` it answers the inputs of that
folder into ``outputs.npz`` there, at any other line it times single calls and ends. What it found is in
``result.json`` and ``outputs.npz``. An error becomes ``{"error": ...}`` in ``result.json`` and exit status 1;
on a full disk, where nothing can be written any more, exit status 28 says so.
"""

from __future__ import annotations

import errno
import importlib.metadata
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ANSWERED = "tfapp-runner: answered"
ASK = "ask "
DISK_FULL = 28
_BATCH = 16
_ENDPOINT_ROWS = 16
_TIE = 1e-3


def main(folder: Path, *, only_latency: bool) -> int:
    """Answers the rows of a request, then times single calls.

    Args:
        folder: Where request and inputs lie, and results go.
        only_latency: The rows were answered by this process before it started itself anew.

    Returns:
        The exit status.
    """
    request = json.loads((folder / "request.json").read_text(encoding="utf-8"))
    # Isolated mode hides user and PYTHONPATH installations, in which the runtimes may lie.
    sys.path.extend(path for path in request["paths"] if path not in sys.path)
    result_file = folder / "result.json"
    try:
        threads = 1 if only_latency else request["threads"]
        artifact = _RUNTIMES[request["runtime"]](request, threads)
        inputs = _Inputs(request["inputs"])
        if not only_latency:
            outputs, facts = artifact.answer(inputs)
            _np().savez(folder / "outputs.npz", **outputs)
            loaded = sorted(set(request["forbidden"]) & set(sys.modules))
            if loaded:
                raise ImportError(f"this runtime must do without {', '.join(loaded)}, but has loaded it")
            facts["libraries"] = {name: importlib.metadata.version(name) for name in artifact.libraries}
            result_file.write_text(json.dumps(facts), encoding="utf-8")
            print(ANSWERED, flush=True)  # noqa: T201
            while (line := sys.stdin.readline()).startswith(ASK):
                _answer_more(artifact, Path(line.removeprefix(ASK).rstrip("\n")))
            if request["latency_calls"] and threads > 1:
                # A runtime keeps the number of threads that it started with.
                os.execv(sys.executable, [sys.executable, "-I", __file__, str(folder), "latency"])
        facts = json.loads(result_file.read_text(encoding="utf-8"))
        facts["latency_ms"] = _latency(artifact.call, inputs, request)
        result_file.write_text(json.dumps(facts), encoding="utf-8")
    except Exception as error:
        if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or "No space left" in str(error):
            return DISK_FULL
        message = " ".join(str(error).split())
        if len(message) > 500:
            message = f"{message[:200]} ... {message[-280:]}"
        result_file.write_text(json.dumps({"error": f"{type(error).__name__}: {message}"}), encoding="utf-8")
        return 1
    return 0


def _answer_more(artifact: Any, folder: Path) -> None:
    """Answers further rows, which have come since the process started."""
    inputs = _Inputs(str(folder))
    outputs, _ = artifact.answer(inputs)
    inputs.close()
    _np().savez(folder / "outputs.npz", **outputs)
    print(ANSWERED, flush=True)  # noqa: T201


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


class _Inputs:
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
        self.features.close()

    @property
    def num_rows(self) -> int:
        """Rows of the tensors: one for each feature, or for each window of a text."""
        return len(next(iter(self.tensors.values())))

    @property
    def owners(self) -> Any:
        """The number of the feature that each row belongs to."""
        return _np().arange(len(self.features)) if self._owners is None else self._owners

    def average(self, probabilities: Any) -> Any:
        """Averages the logits of a text's windows; probabilities show logits but for a constant."""
        if self._owners is None:
            return probabilities
        np = _np()
        owners = self._owners[: len(probabilities)]
        firsts = np.flatnonzero(np.diff(owners, prepend=-1))
        sums = np.add.reduceat(np.log(np.maximum(probabilities, 1e-37)), firsts, axis=0)
        means = sums / np.diff(np.append(firsts, len(owners)))[:, None]
        powers = np.exp(means - means.max(axis=1, keepdims=True))
        return powers / powers.sum(axis=1, keepdims=True)

    def row(self, index: int) -> dict[str, Any]:
        return {name: values[index : index + 1] for name, values in self.tensors.items()}


class _SavedModel:
    """TensorFlow and TF.Text, as TF Serving links them."""

    libraries = ("tensorflow", "tensorflow-text")

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

    def answer(self, inputs: _Inputs) -> tuple[dict[str, Any], dict[str, Any]]:
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
        facts = {"labels": labels, **self._compare_endpoints(inputs, stacked["probabilities"], labels)}
        return stacked, facts

    def _compare_endpoints(self, inputs: _Inputs, served: Any, labels: list[str]) -> dict[str, Any]:
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

    def call(self, inputs: _Inputs, row: int) -> None:
        self._serve("serving_default", **{self._request["feature"]: [inputs.features[row]]})


def _names(labels: Any) -> Any:
    return _np().array([value.decode("utf-8", "replace") for value in labels])


class _LiteRT:
    """LiteRT alone, as on a phone."""

    libraries: tuple[str, ...] = ("ai-edge-litert",)

    def __init__(self, request: dict[str, Any], threads: int) -> None:
        self._run = self._interpreter(request["artifact"], threads).get_signature_runner("serving_default")
        given = self._run.get_input_details()
        self._types = {name: details["dtype"] for name, details in given.items()}
        self._given = {
            name: [_np().dtype(details["dtype"]).name, *map(float, details["quantization"])]
            for name, details in given.items()
        }
        output = self._run.get_output_details()["probabilities"]
        # A file with integers in and out: what one step of its answer is worth, and which integer is 0.
        exact = output["dtype"] == _np().float32
        quantization: tuple[float, int] = (0.0, 0) if exact else output["quantization"]
        self._step, self._zero = quantization

    def _interpreter(self, path: str, threads: int) -> Any:
        from ai_edge_litert.interpreter import Interpreter

        self._kept = Interpreter(model_path=path, num_threads=threads)
        return self._kept

    def answer(self, inputs: _Inputs) -> tuple[dict[str, Any], dict[str, Any]]:
        rows = _np().concatenate([self._one(inputs, row) for row in range(inputs.num_rows)])
        if self._step:
            rows = (rows.astype(float) - self._zero) * self._step
        return {"probabilities": inputs.average(rows)}, {"step": self._step, "inputs": self._given}

    def call(self, inputs: _Inputs, row: int) -> None:
        self._one(inputs, row)

    def _one(self, inputs: _Inputs, row: int) -> Any:
        tensors = {name: values.astype(self._types[name]) for name, values in inputs.row(row).items()}
        return self._run(**tensors)["probabilities"]


class _LiteRTText(_LiteRT):
    """LiteRT with the operators of TF.Text, whose registrar needs TensorFlow's libraries."""

    libraries = ("ai-edge-litert", "tensorflow", "tensorflow-text")

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

    def answer(self, inputs: _Inputs) -> tuple[dict[str, Any], dict[str, Any]]:
        rows = [self._one(inputs, row) for row in range(len(inputs.features))]
        return {"probabilities": _np().concatenate(rows)}, {}

    def _one(self, inputs: _Inputs, row: int) -> Any:
        text = _np().array([inputs.features[row]], dtype=object)
        return self._run(**{self._feature: text})["probabilities"]


class _Keras:
    """Keras and keras-hub; the temperature comes with the request, as the file does not hold it."""

    libraries = ("keras", "keras-hub", "tensorflow")

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

    def answer(self, inputs: _Inputs) -> tuple[dict[str, Any], dict[str, Any]]:
        np, tensors = _np(), inputs.tensors
        rows = np.arange(inputs.num_rows)
        lengths = None
        if "padding_mask" in tensors:
            # Rows of similar length together, without the padding that none of them needs.
            lengths = tensors["padding_mask"].sum(axis=1)
            rows = np.argsort(lengths, kind="stable")
        answers = []
        for start in range(0, len(rows), _BATCH):
            batch = rows[start : start + _BATCH]
            stop = None if lengths is None else int(lengths[batch].max())
            answers.append(self._answer({name: values[batch, :stop] for name, values in tensors.items()}))
        return {"probabilities": inputs.average(np.concatenate(answers)[np.argsort(rows)])}, {}

    def call(self, inputs: _Inputs, row: int) -> None:
        self._answer(inputs.row(row))


_RUNTIMES: dict[str, Callable[[dict[str, Any], int], Any]] = {
    "saved_model": _SavedModel,
    "litert": _LiteRT,
    "litert_text": _LiteRTText,
    "keras": _Keras,
}


def _tensorflow(threads: int) -> Any:
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(threads)
    return tf


def _latency(call: Callable[[_Inputs, int], None], inputs: _Inputs, request: dict[str, Any]) -> Any:
    """Times single calls on rows spread over all of them, after two to warm up."""
    calls = request["latency_calls"]
    if not calls:
        return None
    rows = [index * len(inputs.features) // calls for index in range(calls)]
    times: list[float] = []
    for row in [*rows[:2], *rows]:
        start = time.perf_counter()
        call(inputs, row)
        times.append((time.perf_counter() - start) * 1e3)
    p50, p95 = (float(value) for value in _np().percentile(times[2:], [50, 95]))
    return {"p50": p50, "p95": p95, "threads": 1, "batch": 1}


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), only_latency=len(sys.argv) > 2))
