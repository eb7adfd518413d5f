"""KServe's Python server as it comes, with one SavedModel: a peer of `serving_throughput.py`."""

from __future__ import annotations

import sys
from typing import Any

import tensorflow as tf
import tensorflow_text  # noqa: F401
from kserve import Model, ModelServer


class Classifier(Model):  # type: ignore[misc]
    """Answers `instances` as TensorFlow Serving's REST does."""

    def __init__(self, name: str, directory: str) -> None:
        super().__init__(name)
        self._loaded = tf.saved_model.load(directory)
        self._serve = self._loaded.signatures["serving_default"]
        self.ready = True

    def predict(self, payload: dict[str, Any], headers: Any = None) -> dict[str, Any]:
        answer = self._serve(text=tf.constant(payload["instances"]))
        rows = zip(answer["probabilities"].numpy().tolist(), answer["label"].numpy().tolist(), strict=True)
        return {"predictions": [{"probabilities": row, "label": label.decode()} for row, label in rows]}


if __name__ == "__main__":
    folder, model_name, port = sys.argv[1:4]
    ModelServer(http_port=int(port), enable_grpc=False, workers=1).start([Classifier(model_name, folder)])
