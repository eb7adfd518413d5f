"""How long texts are in tokens, and what a maximum length does to them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tfapp.data.encoded import window_reach


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
        kept: Most tokens of a text that are read: ``max_length``, or as far as its windows reach.
        texts_cut: Share of texts that are longer than that, 0 to 1.
        tokens_cut: Share of all tokens that are cut away, 0 to 1.
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
    kept: int
    texts_cut: float
    tokens_cut: float
    positions: int

    def lines(self) -> list[str]:
        """Words the lengths for people.

        Returns:
            Two or three lines.
        """
        lengths = (
            f"tokens     p50 {self.p50}, p95 {self.p95}, p99 {self.p99}, longest {self.longest}; "
            f"max_length {self.max_length}"
        )
        split = f"windows    {self.texts_over:.1%} of the texts are split, their logits averaged"
        before = [lengths, split] if self.long_texts == "windows" and self.texts_over else [lengths]
        if self.texts_cut == 0:
            return before if len(before) > 1 else [*before, "cut        nothing: every text fits"]
        cut = f"cut        {self.texts_cut:.1%} of the texts, {self.tokens_cut:.1%} of all tokens"
        if self.kept > self.max_length:
            cut += f", what stands beyond {self.kept} tokens"
        if self.max_length < self.positions:
            enough = min(self.longest, self.positions)
            effect = "nothing" if enough == self.longest else "less"
            cut += f"; max_length = {enough} would cut {effect}, at more time and memory"
        return [*before, cut]


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
    kept = window_reach(max_length) if long_texts == "windows" else max_length
    cut = np.maximum(lengths - kept, 0)
    return LengthReport(
        rows=len(lengths),
        p50=p50,
        p95=p95,
        p99=p99,
        longest=int(lengths.max()),
        max_length=max_length,
        long_texts=long_texts,
        texts_over=float((lengths > max_length).mean()),
        kept=kept,
        texts_cut=float((cut > 0).mean()),
        tokens_cut=float(cut.sum() / lengths.sum()),
        positions=positions,
    )
