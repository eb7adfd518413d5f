"""One version of a release, loaded for serving and proven on its golden vectors."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import itertools
import logging
from collections.abc import Hashable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_text  # noqa: F401  (registers the operators of the tokenizer)
from tensorflow_serving.apis import prediction_log_pb2

from tfapp.errors import ReleaseError
from tfapp.release.golden import Golden
from tfapp.release.integrity import check_servable
from tfapp.release.layout import GOLDEN_FILE
from tfapp.release.manifest import manifest_checksum
from tfapp.release.warmup import WARMUP_FILE
from tfapp.serving.server.joining import call_of, work_of
from tfapp.serving.server.settings import Batching
from tfapp.serving.server.signatures import Arrays, Signature
from tfapp.serving.server.status import RequestError
from tfapp.serving.server.tensors import array_of, as_strings
from tfapp.wire.messages import DEFAULT_SIGNATURE as DEFAULT_SIGNATURE

_MOST_WARMUPS = 1000
_keys = itertools.count()


class LoadedModel:
    """A released SavedModel in a session of its own, whose memory goes when it is closed.

    Args:
        directory: The version folder.
        version: Its number.
        batching: How requests are joined.
        threads: Cores that a batch is computed on; None for all.
        manifest_sha256: What the sha256 of its manifest must be; any if None.

    Raises:
        ReleaseError: When the folder is no release or another one, was refused, is damaged or changed
            meanwhile, cannot be loaded, or does not answer its golden vectors as it did.
    """

    def __init__(
        self,
        directory: Path,
        version: int,
        *,
        batching: Batching,
        threads: int | None = None,
        manifest_sha256: str | None = None,
    ) -> None:
        self.directory = directory
        self.version = version
        self.requests = 0
        """Requests in flight, and those whose computations go on; whoever serves counts them."""
        self.manifest_sha256 = manifest_checksum(directory) if manifest_sha256 is None else manifest_sha256
        """The sha256 of the manifest that vouches for what was loaded."""
        check_servable(directory, manifest_sha256=self.manifest_sha256)
        self.golden = Golden.load(directory / GOLDEN_FILE)
        self.signatures: dict[str, Signature] = {}
        self._alone = ThreadPoolExecutor(batching.num_batch_threads, thread_name_prefix="tfapp-alone")
        self._again = ThreadPoolExecutor(1, thread_name_prefix="tfapp-again")
        v1 = tf.compat.v1
        options = v1.ConfigProto(intra_op_parallelism_threads=threads or 0, use_per_session_threads=True)
        self._session = v1.Session(graph=tf.Graph(), config=options)
        try:
            with self._session.graph.as_default():
                meta = v1.saved_model.load(self._session, [tf.saved_model.SERVING], str(directory))
            self.signatures = self._signatures(meta, batching)
            self._warm_up()
            # Files are opened by name after they were hashed: what was loaded must still be what was hashed.
            check_servable(directory, manifest_sha256=self.manifest_sha256)
        except (OSError, ValueError, RuntimeError, tf.errors.OpError) as error:
            self.close()
            raise ReleaseError(
                f"the SavedModel in {directory} cannot be loaded: {' '.join(str(error).split())[:300]}"
            ) from error
        except BaseException:
            self.close()
            raise

    @property
    def feature(self) -> str:
        """The name of the raw input: ``"text"`` or ``"image_bytes"``."""
        return self.golden.feature

    @property
    def max_length(self) -> int | None:
        """Most tokens of a row; None where rows have no length."""
        return self.golden.inputs.preprocessor.get("max_length")

    def close(self) -> None:
        """Frees the memory of the model; nothing may be running."""
        self._alone.shutdown()
        self._again.shutdown()
        self._session.close()
        self.signatures = {}
        gc.collect()  # graphs are full of cycles
        with contextlib.suppress(AttributeError, OSError):  # a C library of another kind
            # Without this, glibc keeps a fifth of a model's memory for itself at every swap.
            ctypes.CDLL(None).malloc_trim(0)

    def _signatures(self, meta: Any, batching: Batching) -> dict[str, Signature]:
        functions = {function.signature.name: function for function in meta.graph_def.library.function}
        made: dict[Hashable, Signature] = {}
        signatures = {}
        for name, definition in meta.signature_def.items():
            if name.startswith("__"):
                continue
            work = self._work(name, definition, functions)
            if work not in made:
                made[work] = Signature(
                    definition,
                    self._session,
                    batching=batching,
                    alone=self._alone,
                    again=self._again,
                    by_length=self.golden.feature == "text",
                    key=f"tfapp-{next(_keys)}",
                )
            signatures[name] = made[work]
        return signatures

    def _work(self, name: str, definition: Any, functions: Mapping[str, Any]) -> Hashable:
        graph = self._session.graph
        fetches = [graph.get_tensor_by_name(info.name) for info in definition.outputs.values()]
        call = call_of(fetches, [info.name for info in definition.inputs.values()])
        return name if call is None else work_of(call, definition, functions)

    def _warm_up(self) -> None:
        """Runs recorded requests, then the golden vectors, whose answers must be those of the release."""
        count = 0
        for signature, inputs in self._recorded():
            values = [inputs[alias] for alias in signature.inputs]
            signature.run(values)
            count += 1
        gap, tolerance = self.golden_gap(), self.golden.tolerance.get("saved_model", 0.0)
        if not gap <= tolerance:
            raise ReleaseError(
                f"{self.directory}: a probability of the golden vectors differs by {gap:.5f}, more than "
                f"{tolerance:.5f}: this machine does not compute what was released. Run `tfapp verify`."
            )
        logging.getLogger(__name__).debug("%d recorded requests, golden gap %.2g", count, gap)

    def golden_gap(self) -> float:
        """Runs the golden vectors as requests are run.

        Returns:
            The largest difference of a probability from the released one.

        Raises:
            RequestError: When the model refuses one.
        """
        signature = self.signatures[DEFAULT_SIGNATURE]
        expected = self.golden.reference("saved_model").probabilities
        place = signature.outputs.index("probabilities")
        features = as_strings(self.golden.probe().features)
        rows = [features[row : row + 1] for row in range(len(features))]
        # All at once, as a batch may wait for more.
        with ThreadPoolExecutor(len(rows)) as pool:
            answers = list(pool.map(lambda row: signature.run([row])[place], rows))
        return float(np.abs(np.concatenate(answers) - expected).max())

    def _recorded(self) -> Iterator[tuple[Signature, Arrays]]:
        path = self.directory / WARMUP_FILE
        if not path.is_file():
            return
        records = tf.data.TFRecordDataset(str(path)).take(_MOST_WARMUPS)
        for record in records.as_numpy_iterator():
            log = prediction_log_pb2.PredictionLog.FromString(record)
            request = log.predict_log.request
            name = request.model_spec.signature_name or DEFAULT_SIGNATURE
            if log.WhichOneof("log_type") != "predict_log" or name not in self.signatures:
                raise ReleaseError(
                    f"{path}: a record is no Predict request to a signature of the model; export again."
                )
            try:
                inputs = {alias: array_of(tensor, alias) for alias, tensor in request.inputs.items()}
                yield self.signatures[name], inputs
            except RequestError as error:
                raise ReleaseError(f"{path}: {error.message}; export again.") from error
