"""The rows that every artifact has to answer, and how they reach another process."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Probe:
    """Rows in the two forms that artifacts take.

    Attributes:
        features: Raw features, such as UTF-8 texts.
        tensors: The model's input tensors by name, ``(rows, ...)`` of fixed length.
        owners: The number of the feature that each row of the tensors belongs to, ascending, int64
            ``(rows,)``; None where there is a row for each.
    """

    features: tuple[bytes, ...]
    tensors: dict[str, npt.NDArray[Any]]
    owners: npt.NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.features)

    @property
    def num_rows(self) -> int:
        """Rows of the tensors."""
        return len(next(iter(self.tensors.values())))

    @classmethod
    def from_features(cls, preprocessor: Any, features: Sequence[bytes], *, inputs: Iterable[str]) -> Probe:
        """Preprocesses features.

        Args:
            preprocessor: A preprocessor with ``fixed``.
            features: Raw features, 1 or more.
            inputs: Names of the model's input tensors.

        Returns:
            The features and their tensors.
        """
        tensors, owners = preprocessor.fixed(features)
        return cls(tuple(features), {name: tensors[name] for name in inputs}, owners)

    def save(self, path: Path) -> None:
        """Writes the rows as plain arrays.

        Args:
            path: An ``.npz`` file.
        """
        splits = np.cumsum([0, *(len(feature) for feature in self.features)], dtype=np.int64)
        arrays: dict[str, Any] = {f"tensor:{name}": values for name, values in self.tensors.items()}
        if self.owners is not None:
            arrays["owners"] = self.owners
        blob = np.frombuffer(b"".join(self.features), np.uint8)
        np.savez(path, features=blob, feature_splits=splits, **arrays)
