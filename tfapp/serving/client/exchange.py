"""What is asked of a server and what follows from its answers, apart from how it is sent.

The functions here are generators that yield what is to be done (`Send`, `Wait`) and are given the outcome, so
that blocking and asynchronous clients share them.
"""

from __future__ import annotations

import random
import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from tfapp.data.image_store import png_file
from tfapp.errors import DataError, ServingError, TfappError
from tfapp.serving.client.target import Target
from tfapp.serving.features import refusal_words
from tfapp.serving.prediction import Prediction
from tfapp.wire.messages import DEFAULT_SIGNATURE
from tfapp.wire.tensors import example

CLASSIFY_SIGNATURE = "classify"
FEATURES = ("text", "image_bytes")

_FIRST_DELAY, _LONGEST_DELAY = 0.1, 5.0  # seconds
_MOST_DOUBLINGS = 10
_SAME_PROBABILITY = 1e-6  # what writing numbers as text may lose
_PROBE_SIDE = 32  # pixels


@dataclass(frozen=True)
class Call:
    """One question to the server.

    Attributes:
        kind: ``"predict"``, ``"metadata"`` (which signatures there are) or ``"status"`` (which versions).
        signature: The signature that is run.
        input: Name of its input.
        values: The input's values.
        outputs: Names of the outputs that are wanted.
    """

    kind: Literal["predict", "metadata", "status"]
    signature: str = DEFAULT_SIGNATURE
    input: str = ""
    values: Sequence[bytes] = ()
    outputs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Failure:
    """Why there is no answer.

    Attributes:
        kind: ``"unsent"``: the server was not reached; ``"busy"``: it may answer later; ``"refused"``: it
            does not take the input; ``"missing"``: it lacks the model; ``"denied"``: it lets nobody in
            without the right token; ``"late"``: no answer in time; ``"broken"``: the connection ended before
            the answer; ``"failed"``: anything else.
        message: The server's or the system's words.
        code: The server's status code; empty where there is none.
        retry_after: After how many seconds the server wants to be asked again; None where it does not say.
    """

    kind: Literal["unsent", "busy", "refused", "missing", "denied", "late", "broken", "failed"]
    message: str
    code: str = ""
    retry_after: float | None = None


@dataclass(frozen=True)
class Send:
    """Ask to send a call and to be given its answer or a `Failure`, within ``timeout`` seconds."""

    call: Call
    timeout: float


@dataclass(frozen=True)
class Wait:
    """Ask to be resumed after so many seconds."""

    seconds: float


Steps = Generator[Send | Wait, Any, Any]

_CURES = {
    "unsent": "check the address, and that the server runs",
    "busy": "send less at once (max_in_flight), or later",
    "refused": "check the model's name and version",
    "missing": "check the model's name and version, and the server's log",
    "denied": "give the token that the server wants",
    "late": "give a larger timeout or a smaller batch_size",
    "broken": "it was not asked again, for it may have been at work already",
    "failed": "see the server's log",
}


@dataclass
class Exchange:
    """A model on a server, and what is known of it.

    Attributes:
        target: Where it is.
        timeout: Seconds for an answer, all attempts together.
        retries: How often a request is sent again when the server cannot have worked on it.
        feature: Name of the model's input; found out on first use when None.
        classes: Names of its classes in their order; found out on first use when None.
        told: Whether the classes were given by the user.
    """

    target: Target
    timeout: float
    retries: int
    feature: str | None
    classes: tuple[str, ...] | None
    told: bool = field(init=False)

    def __post_init__(self) -> None:
        self.told = self.classes is not None

    def ask(self, call: Call) -> Steps:
        """Sends a call, again after a while where that is safe.

        Args:
            call: The call.

        Returns:
            The answer; or the failure, when the server refuses the input.

        Raises:
            ServingError: There is no answer.
        """
        deadline = time.monotonic() + self.timeout
        attempt = 0
        while True:
            outcome = yield Send(call, max(deadline - time.monotonic(), 0.001))
            if not isinstance(outcome, Failure):
                return outcome
            if outcome.kind == "refused":
                return outcome
            attempt += 1
            delay = _delay(attempt, outcome.retry_after)
            late = time.monotonic() + delay >= deadline
            if outcome.kind not in ("unsent", "busy") or attempt > self.retries or late:
                raise self.error(outcome, attempt)
            yield Wait(delay)

    def error(self, failure: Failure, attempts: int = 1) -> ServingError:
        """Words a failure.

        Args:
            failure: The failure.
            attempts: How often the server was asked.
        """
        words = {
            "unsent": "cannot be reached",
            "busy": "is busy",
            "refused": "refuses the request",
            "missing": "lacks it",
            "denied": "does not let you in",
            "late": f"has not answered within {self.timeout:g} s",
            "broken": "broke the connection",
            "failed": "failed",
        }[failure.kind]
        often = f", asked {attempts} times" if attempts > 1 else ""
        why = ": ".join(filter(None, (failure.code, failure.message))) or "it does not say why"
        return self._wrong(f"{words}{often}: {why}; {_CURES[failure.kind]}.")

    def _wrong(self, words: str) -> ServingError:
        return ServingError(f"{self.target.url} ({self.target.what}) {words}")

    def learn(self, *, anew: bool = False) -> Steps:
        """Finds out what the model takes and which classes it knows, unless that is known.

        Args:
            anew: Asks for the classes again.

        Returns:
            The classes.

        Raises:
            ServingError: There is no answer, or the model is none of tfapp's.
        """
        if self.feature is not None and self.classes is not None and not anew:
            return self.classes
        signatures = yield from self.ask(Call("metadata"))
        if isinstance(signatures, Failure):
            raise self.error(signatures)
        inputs = signatures.get(DEFAULT_SIGNATURE, ())
        found = [name for name in FEATURES if name in inputs]
        if len(inputs) != 1 or not found:
            takes = ", ".join(sorted(inputs)) or "nothing"
            raise self._wrong(f"takes {takes} instead of 'text' or 'image_bytes': it is no release of tfapp.")
        self.feature = found[0]
        classes = self.classes
        if classes is None or anew:
            classes = self.classes = yield from self._ask_classes(signatures)
        return classes

    def _ask_classes(self, signatures: dict[str, Any]) -> Steps:
        if CLASSIFY_SIGNATURE not in signatures:
            raise self._wrong(
                "does not tell the names of its classes; give them as classes=[...], in the order of the "
                "release's edge/labels.txt."
            )
        values = [example(str(self.feature), self._probe())]
        outputs = yield from self.ask(Call("predict", CLASSIFY_SIGNATURE, "inputs", values, ("classes",)))
        if isinstance(outputs, Failure):
            raise self.error(outputs)
        return tuple(map(_text, outputs["classes"][0]))

    def classify(self, encoded: Sequence[bytes], names: Sequence[str], *, half: bool = False) -> Steps:
        """Classifies a batch; where the server refuses it, each half by itself, down to what it refuses.

        Args:
            encoded: The texts or image files.
            names: Their names, for messages.
            half: Whether they are a part of what the server has refused.

        Returns:
            A prediction for each, or the error that says why there is none.
        """
        # Those of now: another thread may learn of other ones while the server works.
        classes = self.classes or ()
        try:
            outputs = yield from self.ask(self._call(encoded))
            if not isinstance(outputs, Failure):
                return (yield from self._predictions(outputs, len(encoded), classes))
            if not half:
                yield from self._check_welcome(outputs)
        except ServingError as error:
            return [error] * len(encoded)
        if len(encoded) == 1:
            return [DataError(f"{names[0]}: {refusal_words(outputs.message)}")]
        answers: list[Prediction | TfappError] = []
        middle = len(encoded) // 2
        for part in (slice(None, middle), slice(middle, None)):
            answers += yield from self.classify(encoded[part], names[part], half=True)
        return answers

    def _call(self, encoded: Sequence[bytes]) -> Call:
        return Call("predict", DEFAULT_SIGNATURE, str(self.feature), encoded, ("label", "probabilities"))

    def _probe(self) -> bytes:
        """An input that no release refuses."""
        if self.feature == "text":
            return b""
        return png_file(np.zeros((_PROBE_SIDE, _PROBE_SIDE, 3), np.uint8))

    def _check_welcome(self, refusal: Failure) -> Steps:
        """Raises a `ServingError` when the server refuses in the same words what is surely right."""
        outcome = yield from self.ask(self._call([self._probe()]))
        if isinstance(outcome, Failure) and outcome.message == refusal.message:
            raise self.error(refusal)

    def _predictions(self, outputs: dict[str, Any], count: int, classes: tuple[str, ...]) -> Steps:
        labels, rows = [_text(label) for label in outputs["label"]], outputs["probabilities"]
        if len(labels) != count or len(rows) != count:
            raise self._wrong(f"answered {len(rows)} rows to {count}; see the server's log.")
        if not _fits(classes, labels, rows):
            # Perhaps another version, with other classes, has taken over.
            if not self.told:
                classes = yield from self.learn(anew=True)
            if not _fits(classes, labels, rows):
                raise self._wrong(
                    f"answers with other classes than {list(classes)}; give those of the version it serves."
                )
        return [
            Prediction(label, dict(zip(classes, map(float, row), strict=True)))
            for label, row in zip(labels, rows, strict=True)
        ]


def _fits(classes: Sequence[str], labels: Sequence[str], rows: Sequence[Sequence[float]]) -> bool:
    return all(
        len(row) == len(classes)
        and label in classes
        and row[classes.index(label)] >= max(row) - _SAME_PROBABILITY
        for label, row in zip(labels, rows, strict=True)
    )


def _delay(attempt: int, asked: float | None) -> float:
    """Seconds before the next attempt: longer each time and never the same, after what the server asks."""
    longest = min(_FIRST_DELAY * 2 ** min(attempt - 1, _MOST_DOUBLINGS), _LONGEST_DELAY)
    return max(asked or 0.0, 0.0) + random.uniform(longest / 2, longest)


def _text(value: str | bytes) -> str:
    return value.decode("utf-8") if isinstance(value, bytes) else value
