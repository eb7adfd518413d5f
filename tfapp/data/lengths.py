"""How long texts are in tokens, and what a maximum length does to them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class LengthReport:
    """Lengths in tokens, special tokens included, and what a maximum length cuts or splits.

    Attributes:
        rows: The number of texts measured.
        p50: The median length.
        p95: The length that 95 % of the texts do not exceed.
        p99: The length that 99 % of the texts do not exceed.
        longest: The longest text's length.
        max_length: The length at which texts are cut or split.
        long_texts: ``"truncate"`` or ``"windows"``.
        texts_over: Share of texts that are longer, 0 to 1.
        tokens_over: Share of all tokens that stand beyond ``max_length``, 0 to 1.
        positions: Most tokens that the backbone takes.
    """

    rows: int
    p50: int
    p95: int
    p99: int
    longest: int
    max_length: int
    long_texts: str
    texts_over: float
    tokens_over: float
    positions: int

    def lines(self) -> list[str]:
        """Words the lengths for people.

        Returns:
            Two lines.
        """
        lengths = (
            f"tokens     p50 {self.p50}, p95 {self.p95}, p99 {self.p99}, longest {self.longest}; "
            f"max_length {self.max_length}"
        )
        if self.texts_over == 0:
            return [lengths, "cut        nothing: every text fits"]
        if self.long_texts == "windows":
            return [
                lengths,
                f"windows    {self.texts_over:.1%} of the texts are split, their logits averaged",
            ]
        cut = f"cut        {self.texts_over:.1%} of the texts, {self.tokens_over:.1%} of all tokens"
        if self.max_length < self.positions:
            enough = min(self.longest, self.positions)
            effect = "nothing" if enough == self.longest else "less"
            cut += f"; max_length = {enough} would cut {effect}, at more time and memory"
        return [lengths, cut]


def length_report(
    lengths: npt.NDArray[np.integer[Any]], max_length: int, *, long_texts: str, positions: int
) -> LengthReport:
    """Measures how long texts are and what a maximum length does to them.

    Args:
        lengths: Integer array (rows,): each text's number of tokens as it came, special tokens included.
        max_length: The length at which texts are cut or split.
        long_texts: ``"truncate"`` or ``"windows"``.
        positions: Most tokens that the backbone takes.

    Returns:
        Percentiles, and the shares of texts and tokens beyond ``max_length``.
    """
    lengths = np.asarray(lengths, np.int64)
    p50, p95, p99 = (int(value) for value in np.percentile(lengths, [50, 95, 99], method="higher"))
    over = np.maximum(lengths - max_length, 0)
    return LengthReport(
        rows=len(lengths),
        p50=p50,
        p95=p95,
        p99=p99,
        longest=int(lengths.max()),
        max_length=max_length,
        long_texts=long_texts,
        texts_over=float((over > 0).mean()),
        tokens_over=float(over.sum() / lengths.sum()),
        positions=positions,
    )
