"""MLServer with adaptive batching, with one SavedModel: a peer of `serving_throughput.py`."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path

import tensorflow as tf
import tensorflow_text  # noqa: F401
from mlserver import MLModel
from mlserver.codecs import NumpyCodec, StringCodec
from mlserver.types import InferenceRequest, InferenceResponse


class Classifier(MLModel):  # type: ignore[misc]
    """Answers requests of the V2 protocol with an input `text` of BYTES."""

    async def load(self) -> bool:
        self._loaded = tf.saved_model.load(self.settings.parameters.uri)
        self._serve = self._loaded.signatures["serving_default"]
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        texts = StringCodec.decode_input(payload.inputs[0])
        answer = self._serve(text=tf.constant(texts))
        labels = [label.decode() for label in answer["label"].numpy()]
        return InferenceResponse(
            model_name=self.name,
            outputs=[
                NumpyCodec.encode_output("probabilities", answer["probabilities"].numpy()),
                StringCodec.encode_output("label", labels),
            ],
        )


def main() -> None:
    folder, name, port, grpc_port, metrics_port, batch, milliseconds, workers = sys.argv[1:9]
    here = Path(tempfile.mkdtemp(prefix="tfapp-mlserver-"))
    settings = {
        "host": "127.0.0.1",
        "http_port": int(port),
        "grpc_port": int(grpc_port),
        "metrics_port": int(metrics_port),
        "parallel_workers": int(workers),
        "debug": False,
    }
    model = {
        "name": name,
        "implementation": "peer_mlserver.Classifier",
        "max_batch_size": int(batch),
        "max_batch_time": float(milliseconds) / 1e3,
        "parameters": {"uri": folder},
    }
    (here / "settings.json").write_text(json.dumps(settings))
    (here / "model-settings.json").write_text(json.dumps(model))
    # The workers import this file by its name.
    os.environ["PYTHONPATH"] = str(Path(__file__).resolve().parent)
    start = "import sys; from mlserver.cli import main; sys.argv = ['mlserver', 'start', sys.argv[1]]; main()"
    os.execv(sys.executable, [sys.executable, "-c", start, str(here)])


if __name__ == "__main__":
    main()
