"""The answer of every attack on strings."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class WordAttackResult:
    """What an attack on strings found.

    Attributes:
        texts: The adversarial text where one was found, the original elsewhere.
        success: Whether the model answered rightly before and answers ``texts`` wrongly, bool ``(texts,)``.
        queries: How many different texts the model was asked about for each text, itself included, int64
            ``(texts,)``.
        changed: Positions of the changed words, ascending, as `tfapp.data.edits.segment` counts them; empty
            where nothing was found.
        similarity: Cosine between each original and its text, float64 ``(texts,)``; 1 where they are the
            same, NaN where it was not measured.
        clean_correct: Whether the model answered the original rightly, bool ``(texts,)``; where it did not,
            nothing was tried. The accuracy under attack is ``(clean_correct & ~success).mean()``.
        out_of_budget: Whether the search was cut short by ``max_queries`` or ``max_seconds`` without a
            success, bool ``(texts,)``: a larger budget could still find an adversarial text.
        untouched: Whether the model answered the original rightly and no word of it could be changed, bool
            ``(texts,)``: the text is too short for ``max_changed``, or no word has a candidate. Such a text
            withstands the attack without having been attacked.
        seconds: Wall time of the whole attack.
    """

    texts: list[str]
    success: npt.NDArray[np.bool_]
    queries: npt.NDArray[np.int64]
    changed: list[tuple[int, ...]]
    similarity: npt.NDArray[np.float64]
    clean_correct: npt.NDArray[np.bool_]
    out_of_budget: npt.NDArray[np.bool_]
    untouched: npt.NDArray[np.bool_]
    seconds: float
