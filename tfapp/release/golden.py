"""Golden vectors: synthetic inputs with the trained model's answers, shipped with every release.

They let anybody, on any device, see whether the files still answer as they did. The inputs are drawn at
random: nothing of a user's data enters a release.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from tfapp.errors import ReleaseError
from tfapp.release.answers import Answers, FloatArray, Reference, differences, find_flaw
from tfapp.release.gate import EXACT_VARIANTS, Budget
from tfapp.release.golden_images import ImageInputs
from tfapp.release.golden_texts import TextInputs
from tfapp.release.probe import Probe

# Room for another processor's rounding: of float32 arithmetic, and of quantised activations. What rounded
# weights have moved at export tells how steep a model is; WebAssembly and aarch64 have moved MiniLM and
# MobileNetV2 by 0.28 to 0.44 of that. Integer arithmetic is the same everywhere. However steep the model, an
# answer that is further off than the last of these is another one.
_TOLERANCE = 1e-3
_QUANTISED_TOLERANCE = 2e-2
_QUANTISED_SHARE = 0.75
_MOST_TOLERANCE = 0.1
# A steady input: most that rounded weights move a probability, and least by which its class stays ahead.
_STEADY = 0.05
_AHEAD = 0.1
# Integer arithmetic moves a few inputs that are unlike any of training, but fewer than there are of a kind.
# Other rounding hardly moves any: what is wrong on one input, such as the empty text, is so in all its draws.
_INTEGER_SHARE = 0.1
_ROUNDED_SHARE = 0.015


class GoldenInputs(Protocol):
    """Inputs of golden vectors, of one kind of feature."""

    @property
    def preprocessor(self) -> dict[str, Any]:
        """Settings of the model's preprocessor, for whoever prepares inputs on a device."""

    def __len__(self) -> int:
        """How many inputs there are."""

    def probe(self, tensors: Sequence[str]) -> Probe:
        """The inputs in the forms that artifacts take; ``tensors`` names the model's inputs."""

    def to_rows(self) -> list[dict[str, Any]]:
        """A mapping for each input, as JSON takes it."""

    def describe(self, row: int) -> str:
        """Words what kind of input one is."""


INPUTS: dict[str, Any] = {"text": TextInputs, "image_bytes": ImageInputs}
"""For each name of a raw feature, the class of its inputs."""


def choose_steady(
    probabilities: FloatArray, answers: Iterable[Answers], *, draws: int
) -> npt.NDArray[np.integer]:
    """Chooses of several inputs of each kind one whose class another processor's rounding does not change.

    Words and pixels drawn at random lie near the borders between classes more often than any text or photo.

    Args:
        probabilities: The trained model's answers ``(draws * count, num_classes)``: ``count`` kinds, drawn
            anew ``draws`` times.
        answers: What artifacts answered on the same rows.
        draws: How many inputs of each kind there are.

    Returns:
        ``(count,)`` rows, of each kind the first that is steady, or else the one that comes nearest.
    """
    reference = Reference(probabilities, None, (), 1.0)
    moved = np.zeros(len(probabilities))
    for answer in answers:
        if not answer.step and find_flaw(answer, reference) is None:
            moved = np.maximum(moved, differences(answer, reference))
    second, first = np.sort(probabilities, axis=1)[:, -2:].T
    ahead = (first - second - 2 * moved).reshape(draws, -1)
    steady = (moved.reshape(draws, -1) <= _STEADY) & (ahead >= _AHEAD)
    chosen = np.where(steady.any(axis=0), steady.argmax(axis=0), ahead.argmax(axis=0))
    rows: npt.NDArray[np.integer] = chosen * ahead.shape[1] + np.arange(ahead.shape[1])
    return rows


@dataclass(frozen=True)
class Golden:
    """Golden vectors as `golden.json` holds them.

    Attributes:
        feature: Name of the raw feature, such as ``"text"``.
        tensor_endpoint: Name of the SavedModel's endpoint for tensors.
        classes: Names of the classes in their order.
        temperature: What logits are divided by.
        tensors: Names of the model's input tensors.
        inputs: The inputs, of the class that `INPUTS` has for the feature.
        probabilities: The trained model's answers ``(rows, num_classes)``.
        answers: What variants with rounded weights answered at export, by variant, in the same shape. Words
            and pixels drawn at random lie near the borders between classes, where rounding moves a
            probability far.
        tolerance: For each variant, the difference of a probability from its ``answers``, or from
            ``probabilities`` where it has none, that is still the same answer.
    """

    feature: str
    tensor_endpoint: str
    classes: tuple[str, ...]
    temperature: float
    tensors: tuple[str, ...]
    inputs: GoldenInputs
    probabilities: FloatArray
    answers: dict[str, FloatArray] = field(default_factory=dict)
    tolerance: dict[str, float] = field(default_factory=dict)

    def judge(self, variant: str, answers: Answers, budget: Budget) -> list[str]:
        """Judges what a variant answers to these inputs, before it is recorded as right.

        Args:
            variant: The variant.
            answers: Its answers.
            budget: How much difference is allowed to variants with the model's own arithmetic; others are
                refused when they are off by half.

        Returns:
            What is wrong, a sentence each.
        """
        reference = Reference(self.probabilities, None, self.classes, self.temperature)
        flaw = find_flaw(answers, reference)
        if flaw:
            return [f"{variant}: on golden vectors, {flaw}"]
        gaps = differences(answers, reference)
        name, share = "max_golden_difference", _INTEGER_SHARE if answers.step else _ROUNDED_SHARE
        if variant in EXACT_VARIANTS:
            name, share = "max_exact_difference", 0.0
        limit = getattr(budget, name)
        worst = int(gaps.argmax())
        if int(np.sum(gaps > limit)) <= share * len(gaps):
            return []
        what = self.inputs.describe(worst)
        return [
            f"{variant}: a probability differs by {gaps[worst]:.4f} on {what}, more than "
            f"{limit:.4f} ({name}); {int(np.sum(gaps > limit))} of {len(gaps)} golden vectors are beyond that"
        ]

    def record(self, variant: str, answers: Answers) -> None:
        """Notes what a variant answers to these inputs.

        Args:
            variant: The variant.
            answers: Its answers; those that cannot be measured are left out.
        """
        if find_flaw(answers, self.reference(variant)):
            return
        if variant in EXACT_VARIANTS:
            gap = float(differences(answers, self.reference(variant)).max())
            self.tolerance[variant] = max(_TOLERANCE, 3 * gap)
        else:
            moved = 0.0 if answers.step else float(differences(answers, self.reference(variant)).max())
            room = max(_QUANTISED_TOLERANCE, _QUANTISED_SHARE * moved)
            self.tolerance[variant] = min(room, _MOST_TOLERANCE)
            self.answers[variant] = answers.probabilities

    def without(self, variants: Collection[str]) -> Golden:
        """Returns the same vectors with nothing noted of some variants.

        Args:
            variants: The variants.
        """
        answers = {name: rows for name, rows in self.answers.items() if name not in variants}
        tolerance = {name: room for name, room in self.tolerance.items() if name not in variants}
        return replace(self, answers=answers, tolerance=tolerance)

    def reference(self, variant: str) -> Reference:
        """Returns the answers that a variant must give.

        Args:
            variant: The variant.
        """
        expected = self.answers.get(variant, self.probabilities)
        return Reference(expected, None, self.classes, self.temperature)

    def probe(self) -> Probe:
        """Returns the inputs in the forms that artifacts take."""
        return self.inputs.probe(self.tensors)

    def save(self, path: Path) -> None:
        """Writes the vectors as JSON.

        Args:
            path: ``golden.json``.
        """
        answered = zip(self.inputs.to_rows(), _rounded(self.probabilities), strict=True)
        inputs = [{**row, "probabilities": probabilities} for row, probabilities in answered]
        content = {
            "feature": self.feature,
            "tensor_endpoint": self.tensor_endpoint,
            "classes": list(self.classes),
            "temperature": self.temperature,
            "preprocessor": self.inputs.preprocessor,
            "tensors": list(self.tensors),
            "tolerance": self.tolerance,
            "inputs": inputs,
            "answers": {variant: _rounded(rows) for variant, rows in self.answers.items()},
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content, ensure_ascii=False) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> Golden:
        """Reads vectors.

        Args:
            path: ``golden.json``.

        Returns:
            The vectors.

        Raises:
            ReleaseError: When the file cannot be read or is not what `save` writes.
        """
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            inputs = content["inputs"]
            return cls(
                feature=content["feature"],
                tensor_endpoint=content["tensor_endpoint"],
                classes=tuple(content["classes"]),
                temperature=float(content["temperature"]),
                tensors=tuple(content["tensors"]),
                inputs=INPUTS[content["feature"]].from_rows(inputs, content["preprocessor"]),
                probabilities=np.array([row["probabilities"] for row in inputs], np.float64),
                answers={variant: np.array(rows, np.float64) for variant, rows in content["answers"].items()},
                tolerance=dict(content["tolerance"]),
            )
        except (
            OSError,
            ValueError,
            KeyError,
            TypeError,
            AttributeError,
            OverflowError,
            RecursionError,
        ) as error:
            raise ReleaseError(
                f"{path} cannot be read ({error}); copy or export the release again."
            ) from error


def _rounded(rows: FloatArray) -> list[list[float]]:
    return [[round(float(value), 6) for value in row] for row in rows]
