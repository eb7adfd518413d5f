"""Golden vectors: synthetic inputs with the trained model's answers, shipped with every release.

They let anybody, on any device, see whether the files still answer as they did. The inputs are words of the
vocabulary drawn at random: no text of a user's data enters a release.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tfapp.errors import ReleaseError
from tfapp.release.gate import FloatArray, Reference
from tfapp.release.probe import Probe

_MIN_TOLERANCE = 1e-3
_TOLERANCE_MARGIN = 3.0


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
        preprocessor: ``lowercase``, ``max_length`` and ``pad_id``.
        texts: The inputs.
        token_ids: The model's ids of each, not padded.
        probabilities: The trained model's answers ``(rows, num_classes)``.
        tolerance: For each variant, the difference of a probability that is still the same answer.
    """

    feature: str
    tensor_endpoint: str
    classes: tuple[str, ...]
    temperature: float
    preprocessor: dict[str, Any]
    texts: tuple[str, ...]
    token_ids: tuple[tuple[int, ...], ...]
    probabilities: FloatArray
    tolerance: dict[str, float]

    @property
    def reference(self) -> Reference:
        """The answers as the gate compares with them."""
        return Reference(self.probabilities, None, self.classes, self.temperature)

    def probe(self) -> Probe:
        """Returns the inputs in the forms that artifacts take, made without a tokenizer."""
        shape = (len(self.texts), int(self.preprocessor["max_length"]))
        token_ids = np.full(shape, self.preprocessor["pad_id"], np.int32)
        padding_mask = np.zeros(shape, np.int32)
        for row, ids in enumerate(self.token_ids):
            token_ids[row, : len(ids)] = ids
            padding_mask[row, : len(ids)] = 1
        tensors = {
            "token_ids": token_ids,
            "padding_mask": padding_mask,
            "segment_ids": np.zeros(shape, np.int32),
        }
        return Probe(tuple(text.encode("utf-8") for text in self.texts), tensors)

    def save(self, path: Path) -> None:
        """Writes the vectors as JSON.

        Args:
            path: ``golden.json``.
        """
        inputs = [
            {"text": text, "token_ids": list(ids), "probabilities": [round(float(p), 7) for p in row]}
            for text, ids, row in zip(self.texts, self.token_ids, self.probabilities, strict=True)
        ]
        content = {
            "feature": self.feature,
            "tensor_endpoint": self.tensor_endpoint,
            "classes": list(self.classes),
            "temperature": self.temperature,
            "preprocessor": self.preprocessor,
            "tolerance": self.tolerance,
            "inputs": inputs,
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")

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
                texts=tuple(row["text"] for row in inputs),
                token_ids=tuple(tuple(row["token_ids"]) for row in inputs),
                probabilities=np.array([row["probabilities"] for row in inputs], np.float64),
                tolerance=dict(content["tolerance"]),
            )
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ReleaseError(
                f"{path} cannot be read ({error}); copy or export the release again."
            ) from error


def tolerance(difference: float) -> float:
    """Chooses how far later answers may be, from how far they were at export.

    Args:
        difference: Largest difference of a probability measured at export.

    Returns:
        The tolerance: some room for another processor's rounding.
    """
    return max(_MIN_TOLERANCE, _TOLERANCE_MARGIN * difference)
