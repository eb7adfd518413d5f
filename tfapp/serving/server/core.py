"""What both protocols share: a request's tensors are checked, queued, joined with others and computed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt

from tfapp.serving.server.loaded import DEFAULT_SIGNATURE, LoadedModel
from tfapp.serving.server.metrics import Metrics
from tfapp.serving.server.request_checks import check_features, check_tensors
from tfapp.serving.server.settings import ServerSettings
from tfapp.serving.server.signatures import Arrays, Signature
from tfapp.serving.server.status import Code, RequestError, invalid
from tfapp.serving.server.versions import Versions

_THREADS = 64

Part = tuple[npt.NDArray[np.int64], list[npt.NDArray[Any]]]


class Core:
    """Answers requests of any protocol.

    Args:
        versions: The versions that are served.
        settings: Limits.
        metrics: Where is counted what happens.
    """

    def __init__(self, versions: Versions, settings: ServerSettings, metrics: Metrics) -> None:
        self.versions = versions
        self.settings = settings
        self.metrics = metrics
        self.draining = False
        self.waiting = 0
        # Each waits in TensorFlow's batching operator; the cores work in TensorFlow's own threads.
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="tfapp-serve")

    @property
    def ready(self) -> bool:
        """Whether requests are welcome."""
        return self.versions.ready and not self.draining

    def signature(self, model: LoadedModel, name: str) -> Signature:
        """Finds a signature of a model.

        Args:
            model: The model.
            name: The name a client gave; empty for the default.

        Returns:
            The signature.

        Raises:
            RequestError: When the model has none of that name.
        """
        wanted = name or DEFAULT_SIGNATURE
        if wanted not in model.signatures:
            raise invalid(f'Serving signature name: "{wanted}" not found in signature def')
        return model.signatures[wanted]

    async def predict(
        self,
        model: LoadedModel,
        signature: Signature,
        inputs: Mapping[str, npt.NDArray[Any]],
        *,
        seconds: float | None = None,
    ) -> Arrays:
        """Computes the outputs of a request.

        Args:
            model: The model, leased by the caller.
            signature: Its signature.
            inputs: Arrays by name, the rows of the request along their first dimension.
            seconds: How long the client waits, where it says so.

        Returns:
            Arrays by name.

        Raises:
            RequestError: When the request is refused or not answered in time.
        """
        limits = self.settings.limits
        rows = check_tensors(signature, inputs, limits)
        if model.feature == "image_bytes" and signature.of_strings:
            await self._in_thread(lambda: check_features(model, signature, inputs, limits))
        else:
            check_features(model, signature, inputs, limits)
        if self.draining:
            raise RequestError(Code.UNAVAILABLE, "the server is shutting down")
        if self.waiting + rows > limits.waiting_rows:
            raise RequestError(
                Code.RESOURCE_EXHAUSTED,
                "The batch scheduling queue to which this task was submitted is full; currently "
                f"{self.waiting} rows wait",
            )
        self.waiting += rows
        started = time.perf_counter()
        tasks = [
            (places, self._submit(signature, values)) for places, values in _parts(signature, inputs, rows)
        ]
        try:
            async with asyncio.timeout(min(limits.seconds, seconds or limits.seconds)):
                answers = [(places, await task) for places, task in tasks]
        except TimeoutError as error:
            raise RequestError(
                Code.DEADLINE_EXCEEDED, f"the request was not answered within {limits.seconds:g} seconds"
            ) from error
        finally:
            self.waiting -= rows
            for _, task in tasks:
                task.cancel()
        self.metrics.computed(rows, time.perf_counter() - started)
        if len(answers) == 1:
            return signature.named(answers[0][1])
        return signature.named(_assembled(answers, rows))

    def metrics_page(self) -> str:
        """Writes what was counted, with the state of this moment, in Prometheus' text format."""
        versions = self.versions.states.values()
        newest = self.versions.newest()
        gauges = {
            "tfapp_waiting_rows": ("Rows that wait or are computed.", self.waiting),
            "tfapp_ready": ("Whether requests are welcome.", float(self.ready)),
            "tfapp_served_version": ("The newest version that is served.", newest.version if newest else 0),
            "tfapp_loads": ("Versions loaded since the start.", self.versions.loads),
            "tfapp_refused_versions": (
                "Versions in the folder that cannot be served.",
                sum(bool(state.problem) for state in versions),
            ),
        }
        return self.metrics.page(gauges)

    def close(self) -> None:
        """Ends the threads."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _submit(
        self, signature: Signature, values: Sequence[npt.NDArray[Any]]
    ) -> asyncio.Future[list[npt.NDArray[Any]]]:
        return asyncio.wrap_future(self._pool.submit(signature.run, values))

    async def _in_thread(self, call: Any) -> None:
        await asyncio.get_running_loop().run_in_executor(self._pool, call)


def _parts(signature: Signature, inputs: Mapping[str, npt.NDArray[Any]], rows: int) -> list[Part]:
    """Splits a request into parts that fit a batch, strings of similar length together."""
    values = [inputs[alias] for alias in signature.inputs]
    size = signature.max_batch_size
    if not signature.joins or rows <= size:
        return [(np.arange(rows), values)]
    order = np.arange(rows)
    if signature.of_strings:
        order = np.argsort([len(row) for row in values[0]], kind="stable")
    starts = range(0, rows, size)
    return [
        (order[start : start + size], [value[order[start : start + size]] for value in values])
        for start in starts
    ]


def _assembled(answers: Sequence[Part], rows: int) -> list[npt.NDArray[Any]]:
    outputs = []
    for number, first in enumerate(answers[0][1]):
        output = np.empty((rows, *first.shape[1:]), first.dtype)
        for places, arrays in answers:
            output[places] = arrays[number]
        outputs.append(output)
    return outputs
