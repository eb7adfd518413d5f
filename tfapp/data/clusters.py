"""Clusters: rows that belong together because pairs of them do."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array  # type: ignore[import-untyped]
from scipy.sparse.csgraph import connected_components  # type: ignore[import-untyped]

_MOST_EDGES = 1_000_000


class Clusters:
    """Rows that are connected by pairs, directly or through others."""

    def __init__(self, rows: int) -> None:
        self._rows = rows
        self._edges: list[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]] = []
        self._count = 0

    def connect(self, left: npt.NDArray[np.int64], right: npt.NDArray[np.int64]) -> None:
        """Connects pairs of rows.

        Args:
            left: int64 array (pairs,) of positions.
            right: int64 array (pairs,) of positions.
        """
        self._edges.append((left, right))
        self._count += len(left)
        if self._count > _MOST_EDGES:
            labels = self.labels()
            first = np.unique(labels, return_index=True)[1].astype(np.int64)
            self._edges = [(first[labels], np.arange(self._rows, dtype=np.int64))]
            self._count = 0

    def labels(self) -> npt.NDArray[np.int64]:
        """Numbers the clusters; int64 array (rows,)."""
        left = np.concatenate([np.zeros(0, np.int64), *(edge[0] for edge in self._edges)])
        right = np.concatenate([np.zeros(0, np.int64), *(edge[1] for edge in self._edges)])
        graph = coo_array((np.ones(len(left), np.int8), (left, right)), shape=(self._rows, self._rows))
        labels: npt.NDArray[np.int64] = connected_components(graph, directed=False)[1].astype(np.int64)
        return labels


def join_partitions(partitions: Sequence[npt.NDArray[np.int64]]) -> npt.NDArray[np.int64]:
    """Joins rows that are together in any of several partitions.

    Args:
        partitions: At least one int64 array (rows,) of numbers of parts.

    Returns:
        int64 array (rows,): the number of each row's part.
    """
    clusters = Clusters(len(partitions[0]))
    for parts in partitions:
        _, first, inverse = np.unique(parts, return_index=True, return_inverse=True)
        clusters.connect(first[inverse].astype(np.int64), np.arange(len(parts), dtype=np.int64))
    return clusters.labels()
