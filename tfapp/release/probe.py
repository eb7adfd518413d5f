"""The rows that every artifact has to answer, and how they reach another process."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

import numpy as np
import numpy.typing as npt

_CHUNK = 256


class RawFeatures(Sequence[bytes]):
    """Features of one or several sequences as bytes, read when they are asked for.

    Args:
        parts: Sequences of texts, or of encoded images; with ``name(row)`` where their features have names.
        rows: Which features of all, counted through the parts; every one when None.
    """

    def __init__(self, *parts: Sequence[Any], rows: range | None = None) -> None:
        self._parts = parts
        self._ends = np.cumsum([len(part) for part in parts])
        self._rows = range(int(self._ends[-1])) if rows is None else rows

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, index: int) -> bytes: ...

    @overload
    def __getitem__(self, index: slice) -> RawFeatures: ...

    def __getitem__(self, index: int | slice) -> bytes | RawFeatures:
        if isinstance(index, slice):
            return RawFeatures(*self._parts, rows=self._rows[index])
        part, inside = self._place(self._rows[index])
        feature = part[inside]
        return feature.encode("utf-8") if isinstance(feature, str) else bytes(feature)

    def name(self, index: int) -> str:
        """Names a feature for people, by its file where it has one.

        Args:
            index: Its position from 0.
        """
        row = self._rows[index]
        part, inside = self._place(row)
        named = getattr(part, "name", None)
        return f"row {row}" if named is None else str(named(inside))

    @property
    def total_bytes(self) -> int:
        """Bytes of all features of all parts; files that say how long they are need not be read."""
        sizes = (getattr(part, "total_bytes", None) for part in self._parts)
        return sum(
            sum(map(len, RawFeatures(part))) if size is None else size
            for part, size in zip(self._parts, sizes, strict=True)
        )

    def _place(self, row: int) -> tuple[Sequence[Any], int]:
        """The sequence that a feature is of, and its position there."""
        part = int(np.searchsorted(self._ends, row, side="right"))
        return self._parts[part], row - int(self._ends[part]) + len(self._parts[part])


@dataclass(frozen=True)
class Probe:
    """Rows in the two forms that artifacts take.

    Attributes:
        features: Raw features, such as UTF-8 texts or image files.
        tensors: The model's input tensors by name, ``(rows, ...)`` of fixed length; empty for artifacts that
            take raw features.
        owners: The number of the feature that each row of the tensors belongs to, ascending, int64
            ``(rows,)``; None where there is a row for each.
    """

    features: Sequence[bytes]
    tensors: dict[str, npt.NDArray[Any]]
    owners: npt.NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.features)

    @property
    def num_rows(self) -> int:
        """Rows of the tensors, or of the features where there are no tensors."""
        return len(next(iter(self.tensors.values()), self.features))

    @classmethod
    def from_features(
        cls, preprocessor: Any, features: Sequence[bytes], *, inputs: Iterable[str], folder: Path
    ) -> Probe:
        """Preprocesses features, a few at a time, into files: images as pixels may be larger than memory.

        Args:
            preprocessor: A preprocessor with ``fixed``.
            features: Raw features, 1 or more.
            inputs: Names of the model's input tensors.
            folder: An existing folder that keeps the tensors while they are used.

        Returns:
            The features and their tensors.

        Raises:
            DataError: When images cannot be read or decoded any more, with their names.
        """
        names = tuple(inputs)
        shapes: dict[str, tuple[np.dtype[Any], tuple[int, ...]]] = {}
        owners: list[npt.NDArray[np.int64]] = []
        rows = 0
        files = {name: (folder / f"{name}.tensor").open("wb") for name in names}
        for start in range(0, len(features), _CHUNK):
            tensors, owned = preprocessor.fixed(features[start : start + _CHUNK])
            for name, file in files.items():
                file.write(np.ascontiguousarray(tensors[name]).data)
                shapes[name] = tensors[name].dtype, tensors[name].shape[1:]
            count = len(tensors[names[0]])
            owners.append(start + (np.arange(count) if owned is None else owned))
            rows += count
        for file in files.values():
            file.close()
        mapped: dict[str, npt.NDArray[Any]] = {
            name: np.memmap(folder / f"{name}.tensor", dtype, "r", shape=(rows, *shape))
            for name, (dtype, shape) in shapes.items()
        }
        return cls(features, mapped, np.concatenate(owners) if rows > len(features) else None)

    def save(self, folder: Path) -> None:
        """Writes the rows as plain numbers that a process can map into memory.

        Args:
            folder: Gets ``index.json`` and a file for each array; it is made.
        """
        folder.mkdir()
        splits = [0]
        with (folder / "features").open("wb") as file:
            for feature in self.features:
                splits.append(splits[-1] + file.write(feature))
        arrays = {name: self._file(values, folder / name) for name, values in self.tensors.items()}
        index = {
            "features": {"path": str(folder / "features"), "splits": splits},
            "tensors": arrays,
            "owners": None if self.owners is None else self.owners.tolist(),
        }
        (folder / "index.json").write_text(json.dumps(index), encoding="utf-8")

    @staticmethod
    def _file(values: npt.NDArray[Any], path: Path) -> dict[str, Any]:
        if isinstance(values, np.memmap) and values.filename is not None:
            path = Path(values.filename)
        else:
            values.tofile(path)
        return {"path": str(path), "dtype": values.dtype.name, "shape": list(values.shape)}
