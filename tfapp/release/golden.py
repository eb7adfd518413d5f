"""Golden vectors: synthetic inputs with the trained model's answers, shipped with every release.

They let anybody, on any device, see whether the files still answer as they did. The inputs are words of the
vocabulary drawn at random: no text of a user's data enters a release.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tfapp.errors import ReleaseError
from tfapp.release.answers import Answers, FloatArray, Reference, differences, find_flaw
from tfapp.release.gate import EXACT_VARIANTS, Budget
from tfapp.release.probe import Probe

# Room for another processor's rounding: of float32 arithmetic, and of quantised activations.
_TOLERANCE = 1e-3
_QUANTISED_TOLERANCE = 2e-2


def make_golden_texts(
    vocabulary: Sequence[str], *, max_length: int, count: int = 50, seed: int = 0
) -> list[str]:
    """Draws texts from a vocabulary: the empty one, one that is too long, and others of all lengths.

    Args:
        vocabulary: WordPieces.
        max_length: Most tokens of a text, special tokens included.
        count: How many texts, 2 or more.
        seed: Seed of the draw.

    Returns:
        ``count`` texts, the same for the same arguments.
    """
    whole = [piece for piece in vocabulary if piece.isalpha()]
    plain = [piece for piece in whole if piece.isascii() and piece.islower()]
    # Plain words are the same to every tokenizer; other scripts are used where there are too few.
    words = (plain if len(plain) >= 100 else whole) or list(vocabulary)
    draw = random.Random(seed)
    longest = min(64, max_length - 2)
    lengths = [0, max_length + 8, *(draw.randint(1, longest) for _ in range(count - 2))]
    return [" ".join(draw.choices(words, k=length)) for length in lengths]


@dataclass(frozen=True)
class Golden:
    """Golden vectors as `golden.json` holds them.

    Attributes:
        feature: Name of the raw feature, such as ``"text"``.
        tensor_endpoint: Name of the SavedModel's endpoint for tensors.
        classes: Names of the classes in their order.
        temperature: What logits are divided by.
        preprocessor: ``lowercase``, ``max_length``, ``long_texts``, ``window_stride``, ``max_windows``,
            ``pad_id`` and ``vocabulary_sha256``, the checksum of the tokenizer's own ``vocab.txt``.
        tensors: Names of the model's input tensors.
        texts: The inputs.
        token_ids: The model's ids of each, not padded: one row, or a row a window, whose logits (or the
            logarithms of whose probabilities) are averaged.
        probabilities: The trained model's answers ``(rows, num_classes)``.
        answers: What variants with rounded weights answered at export, by variant, in the same shape. Words
            drawn at random lie near the borders between classes, where rounding moves a probability far.
        tolerance: For each variant, the difference of a probability from its ``answers``, or from
            ``probabilities`` where it has none, that is still the same answer.
    """

    feature: str
    tensor_endpoint: str
    classes: tuple[str, ...]
    temperature: float
    preprocessor: dict[str, Any]
    tensors: tuple[str, ...]
    texts: tuple[str, ...]
    token_ids: tuple[tuple[tuple[int, ...], ...], ...]
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
        name = "max_exact_difference" if variant in EXACT_VARIANTS else "max_golden_difference"
        limit = getattr(budget, name)
        worst = int(gaps.argmax())
        if gaps[worst] <= limit:
            return []
        return [
            f"{variant}: a probability differs by {gaps[worst]:.4f} on {self._kind(worst)}, more than "
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
            self.answers[variant] = answers.probabilities
            self.tolerance[variant] = _QUANTISED_TOLERANCE

    def reference(self, variant: str) -> Reference:
        """Returns the answers that a variant must give.

        Args:
            variant: The variant.
        """
        expected = self.answers.get(variant, self.probabilities)
        return Reference(expected, None, self.classes, self.temperature)

    def probe(self) -> Probe:
        """Returns the inputs in the forms that artifacts take, made without a tokenizer."""
        windows = [ids for rows in self.token_ids for ids in rows]
        shape = (len(windows), int(self.preprocessor["max_length"]))
        token_ids = np.full(shape, self.preprocessor["pad_id"], np.int32)
        padding_mask = np.zeros(shape, np.int32)
        for row, ids in enumerate(windows):
            token_ids[row, : len(ids)] = ids
            padding_mask[row, : len(ids)] = 1
        tensors = {
            "token_ids": token_ids,
            "padding_mask": padding_mask,
            "segment_ids": np.zeros(shape, np.int32),
        }
        owners = np.repeat(np.arange(len(self.texts)), [len(rows) for rows in self.token_ids])
        split = len(windows) > len(self.texts)
        features = tuple(text.encode("utf-8") for text in self.texts)
        declared = {name: tensors[name] for name in self.tensors}
        return Probe(features, declared, owners if split else None)

    def save(self, path: Path) -> None:
        """Writes the vectors as JSON.

        Args:
            path: ``golden.json``.
        """
        inputs = [
            {"text": text, "token_ids": ids, "probabilities": row}
            for text, ids, row in zip(self.texts, self.token_ids, _rounded(self.probabilities), strict=True)
        ]
        content = {
            "feature": self.feature,
            "tensor_endpoint": self.tensor_endpoint,
            "classes": list(self.classes),
            "temperature": self.temperature,
            "preprocessor": self.preprocessor,
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
                preprocessor=dict(content["preprocessor"]),
                tensors=tuple(content["tensors"]),
                texts=tuple(row["text"] for row in inputs),
                token_ids=tuple(tuple(map(tuple, row["token_ids"])) for row in inputs),
                probabilities=np.array([row["probabilities"] for row in inputs], np.float64),
                answers={variant: np.array(rows, np.float64) for variant, rows in content["answers"].items()},
                tolerance=dict(content["tolerance"]),
            )
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ReleaseError(
                f"{path} cannot be read ({error}); copy or export the release again."
            ) from error

    def _kind(self, row: int) -> str:
        words = len(self.texts[row].split())
        if not words:
            return "the empty text"
        longer = words > int(self.preprocessor["max_length"])
        return "the text beyond max_length" if longer else f"a text of {words} words"


def _rounded(rows: FloatArray) -> list[list[float]]:
    return [[round(float(value), 6) for value in row] for row in rows]
