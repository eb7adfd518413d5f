"""What a teacher says of the texts that its student learns from: computed once where it fits."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tfapp.data.bucketing import Rows
from tfapp.data.digests import digest
from tfapp.data.feature_cache import FeatureShape, cached_features
from tfapp.models import Classifier
from tfapp.models.fused import FusedParts, fused_parts
from tfapp.models.hidden_pass import hidden_pass
from tfapp.objectives.distilled import LABELLED, TEACHER_LOGITS
from tfapp.training.checkpoints import read_values
from tfapp.training.features import EVALUATION_BATCH, PhaseRows
from tfapp.training.inference import batch_outputs, gather_outputs, input_rows
from tfapp.training.run_state import Run

_LOG = logging.getLogger("tfapp")
_STATES = "teacher_states"


class TextTeacher:
    """A trained classifier of texts that a student learns from.

    Its logits are its answers to the texts as it reads them. Hidden states, which are compared token by
    token, are those it has when it reads the student's pieces.

    Args:
        model: The classifier, which stays as it is.
        texts: All texts that the student learns from.
        labelled: How many of them, the first, have labels of their own.
        token_ids: The teacher's id of each of the student's, int32 ``(vocabulary,)``; None where they agree.
        layers: For each block of the student the number of the teacher's, from 1, that it is compared with.
        precision: ``"float32"`` or ``"mixed_bfloat16"``.
        directory: Folder of its cached answers; None keeps them in memory only.

    Attributes:
        logits: Its logits, float32 ``(texts, num_classes)``.
    """

    def __init__(
        self,
        model: Classifier,
        texts: Sequence[str],
        *,
        labelled: int,
        token_ids: Sequence[int] | None,
        layers: Sequence[int],
        precision: str,
        directory: Path | None,
    ) -> None:
        self.model = model
        self.layers = tuple(layers)
        self._precision = precision
        self._ids = None if token_ids is None else np.array(token_ids, np.int32)
        self._labelled = (np.arange(len(texts)) < labelled).astype(np.float32)
        self._weights = digest(*read_values(model.weights))
        self._reading = hidden_pass(model, self._fused())
        self.logits = self._answers(texts, directory)

    @property
    def labels(self) -> npt.NDArray[np.int32]:
        """The class that it answers to each text, int32 ``(texts,)``."""
        labels: npt.NDArray[np.int32] = self.logits.argmax(axis=1).astype(np.int32)
        return labels

    def described(self) -> dict[str, Any]:
        """The teacher by plain values."""
        return {
            "teacher": self._weights,
            "compared": list(self.layers),
            "answers": digest(self.logits, self._labelled),
            "token_ids": None if self._ids is None else digest(self._ids),
        }

    def hidden_states(self, inputs: Mapping[str, Any]) -> list[tf.Tensor]:
        """Gives its hidden states in inference mode; see `tfapp.objectives.distilled.Teacher`."""
        if _STATES in inputs:
            width = tf.shape(inputs["padding_mask"])[1]
            return list(tf.split(inputs[_STATES][:, :width], len(self.layers) + 1, axis=-1))
        ids = inputs["token_ids"]
        own = {name: values for name, values in inputs.items() if name in self.model.input}
        if self._ids is not None:
            own["token_ids"] = tf.gather(tf.constant(self._ids), ids)
        _, states = self._reading(own, training=False)
        return [states[0], *(states[layer] for layer in self.layers)]

    def rows(
        self,
        rows: Rows,
        encoded: Any,
        *,
        states: bool,
        directory: Path,
        limit_megabytes: float,
        pad_to: int,
    ) -> TaughtRows:
        """Puts what it says of texts beside the rows that the student is trained on.

        Args:
            rows: The student's rows.
            encoded: The texts as the student reads them, of which ``rows`` are made.
            states: Whether hidden states are wanted.
            directory: Folder of cached hidden states.
            limit_megabytes: Largest size of them in MB; beyond it they are computed in every step.
            pad_to: Widths of batches are rounded up to a multiple of this many tokens.

        Returns:
            The rows.
        """
        texts = np.arange(len(self.logits)) if encoded.texts is None else encoded.texts
        beside = {TEACHER_LOGITS: self.logits[texts], LABELLED: self._labelled[texts]}
        if not states:
            return TaughtRows(rows, beside)
        width = (len(self.layers) + 1) * self.model.backbone.hidden_dim
        shape = FeatureShape(int(encoded.lengths.sum()), (width,), self._precision == "mixed_bfloat16")
        if shape.megabytes > limit_megabytes:
            _LOG.info(
                "the teacher's hidden states of %.0f MB are beyond feature_cache_megabytes = %.0f: it reads "
                "every batch again",
                shape.megabytes,
                limit_megabytes,
            )
            return TaughtRows(rows, beside)

        def compute() -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[Any]]]:
            def read(inputs: Any, training: bool = False) -> dict[str, Any]:
                found = [tf.cast(each, tf.float32) for each in self.hidden_states(inputs)]
                return {"states": tf.concat(found, axis=-1)}

            for indices, outputs in batch_outputs(
                read, rows, batch_size=EVALUATION_BATCH, label="the teacher reads"
            ):
                yield indices, outputs["states"]

        key = f"{self.described()}-{self._precision}-{encoded.fingerprint()}"
        stored, hit = cached_features(
            directory / "teacher-states", key, shape, encoded.row_splits, compute, name=_STATES, pad_to=pad_to
        )
        _LOG.info(
            "the teacher's hidden states: %.1f MB, %s", shape.megabytes, "reused" if hit else "computed"
        )
        return TaughtRows(rows, beside, stored)

    def extra_inputs(self, rows: int, length: int, *, states: bool) -> dict[str, tf.TensorSpec]:
        """The shapes of what stands beside the student's inputs at most, for estimates of memory.

        Args:
            rows: Rows of a batch.
            length: Tokens of the longest.
            states: Whether hidden states are wanted.
        """
        specs = {
            TEACHER_LOGITS: tf.TensorSpec([rows, self.logits.shape[1]], tf.float32),
            LABELLED: tf.TensorSpec([rows], tf.float32),
        }
        if states:
            width = (len(self.layers) + 1) * self.model.backbone.hidden_dim
            specs[_STATES] = tf.TensorSpec([rows, length, width], tf.float32)
        return specs

    def _fused(self) -> FusedParts | None:
        return fused_parts(self.model, "all", precision=self._precision, generator=None)

    def _answers(self, texts: Sequence[str], directory: Path | None) -> npt.NDArray[np.float32]:
        encoded = self.model.preprocessor.encode(texts)
        fused = self._fused()
        rows = input_rows(self.model, encoded, pad_to=fused.pad_to if fused else 1)
        forward: Callable[..., Any] = fused.upper if fused else self.model

        def compute() -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[Any]]]:
            answered = gather_outputs(forward, rows, batch_size=EVALUATION_BATCH)["logits"]
            yield np.arange(len(texts)), encoded.average(answered.astype(np.float32))

        _LOG.info("the teacher answers %s texts", f"{len(texts):,}")
        if directory is None:
            return next(compute())[1]
        shape = FeatureShape(len(texts), (self.model.num_classes,), bfloat16=False)
        key = f"{self._weights}-{self._precision}-{encoded.fingerprint()}"
        stored, _ = cached_features(directory / "teacher-logits", key, shape, None, compute, name="logits")
        found: npt.NDArray[np.float32] = stored.gather(tf.range(len(texts)))["logits"].numpy()
        return found


class TaughtRows:
    """Rows of a student with what its teacher says of them.

    Args:
        rows: The student's rows.
        beside: Further inputs by name, each ``(rows, ...)``.
        states: Rows of the teacher's hidden states, or None.
    """

    def __init__(
        self, rows: Rows, beside: Mapping[str, npt.NDArray[Any]], states: Rows | None = None
    ) -> None:
        self.lengths = rows.lengths
        self._rows, self._states = rows, states
        self._beside = {name: tf.constant(values) for name, values in beside.items()}

    def __len__(self) -> int:
        return len(self._rows)

    def gather(self, indices: tf.Tensor) -> dict[str, tf.Tensor]:
        """Gathers the student's inputs and what stands beside them."""
        gathered = {name: tf.gather(values, indices) for name, values in self._beside.items()}
        if self._states is not None:
            gathered[_STATES] = self._states.gather(indices)[_STATES]
        return {**self._rows.gather(indices), **gathered}


def taught(run: Run, given: PhaseRows) -> PhaseRows:
    """Puts what a teacher says beside the training rows, where the objective has one.

    Args:
        run: The run.
        given: What a phase trains on.

    Returns:
        The same with what the objective asks for.
    """
    teacher = getattr(run.objective, "teacher", None)
    if teacher is None:
        return given
    rows = teacher.rows(
        given.rows["train"],
        run.encoded["train"],
        states=compares_states(run),
        directory=run.features,
        limit_megabytes=run.settings.feature_cache_megabytes,
        pad_to=run.pad_to,
    )
    return replace(given, rows={**given.rows, "train": rows})


def compares_states(run: Run) -> bool:
    """Tells whether a run's objective compares hidden states."""
    return bool(getattr(run.objective, "compares_states", False))


def states_pass(run: Run, fused: FusedParts | None) -> Callable[..., Any] | None:
    """Makes the pass that gives hidden states, for objectives that compare them; None for others."""
    return hidden_pass(run.model, fused) if compares_states(run) else None
