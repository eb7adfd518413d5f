"""The rows that every artifact has to answer, and how they reach another process."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

_CHUNK = 256


@dataclass(frozen=True)
class Probe:
    """Rows in the two forms that artifacts take.

    Attributes:
        features: Raw features, such as UTF-8 texts.
        tensors: The model's input tensors by name, ``(rows, ...)`` of fixed length.
    """

    features: tuple[bytes, ...]
    tensors: dict[str, npt.NDArray[Any]]

    def __len__(self) -> int:
        return len(self.features)

    @classmethod
    def from_features(cls, preprocessor: Any, features: Sequence[bytes]) -> Probe:
        """Preprocesses features.

        Args:
            preprocessor: A preprocessor with ``fixed``.
            features: Raw features, 1 or more.

        Returns:
            The features and their tensors.
        """
        chunks = [
            {
                name: value.numpy()
                for name, value in preprocessor.fixed(list(features[start : start + _CHUNK])).items()
            }
            for start in range(0, len(features), _CHUNK)
        ]
        tensors = {name: np.concatenate([chunk[name] for chunk in chunks]) for name in chunks[0]}
        return cls(tuple(features), tensors)

    def save(self, path: Path) -> None:
        """Writes the rows as plain arrays.

        Args:
            path: An ``.npz`` file.
        """
        splits = np.cumsum([0, *(len(feature) for feature in self.features)], dtype=np.int64)
        arrays: dict[str, Any] = {f"tensor:{name}": values for name, values in self.tensors.items()}
        blob = np.frombuffer(b"".join(self.features), np.uint8)
        np.savez(path, features=blob, feature_splits=splits, **arrays)
