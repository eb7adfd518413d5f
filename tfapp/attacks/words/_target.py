"""A text under attack: what was changed so far, and what is still to be tried."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tfapp.attacks.words._victim import Probabilities
from tfapp.data.edits import Segments


@dataclass
class Variant:
    """A text that one more change makes.

    Attributes:
        changes: All its changed words by their positions.
        text: The text.
        cosine: Its similarity to the original; NaN where that is not measured.
    """

    changes: dict[int, str]
    text: str
    cosine: float = np.nan


class Target:
    """The state of the search on one text.

    Args:
        text: The text.
        segments: Its words.
        label: Its class.
        most: How many words may change.
        budget: How many texts the model may be asked about; None sets no limit.
        rng: Orders words of equal importance.
    """

    def __init__(
        self,
        text: str,
        segments: Segments,
        *,
        label: int,
        most: int,
        budget: int | None,
        rng: np.random.Generator,
    ) -> None:
        self.text, self.segments, self.label = text, segments, label
        self.most, self.budget, self.rng = most, budget, rng
        self.probabilities: Probabilities = np.zeros(0)
        self.clean_correct = self.success = self.cut_short = self.untouched = False
        self.queries = 0
        self.changes: dict[int, str] = {}
        self.similarity = 1.0
        self.candidates: Sequence[Sequence[str]] = ()
        self.order: list[int] = []

    def offer(self, candidates: Sequence[Sequence[str]]) -> None:
        """Sets what may take the place of each word."""
        self.candidates = candidates
        self.order = [at for at, words in enumerate(candidates) if words]

    def goes_on(self) -> bool:
        """Whether there is a word left to try."""
        return not self.success and len(self.changes) < self.most and bool(self.order)

    def affordable(self, count: int) -> int:
        """How many more texts may be asked about, of ``count`` that would be."""
        left = count if self.budget is None else min(count, self.budget - self.queries)
        self.cut_short |= left < count
        return left

    def count(self, texts: Sequence[str], answers: Sequence[Probabilities | None]) -> None:
        """Counts the texts that were asked about; those without an answer were not, for want of time."""
        asked = {text for text, answer in zip(texts, answers, strict=True) if answer is not None}
        self.cut_short |= len(asked) < len(set(texts))
        self.queries += len(asked)

    def without(self) -> list[str]:
        """The text without each word that may change, in their order: as many as may be asked about."""
        return [self.segments.join({at: ""}) for at in self.order[: self.affordable(len(self.order))]]

    def rank(self, answers: Sequence[Probabilities | None]) -> None:
        """Orders the words that may change: first those whose absence hurts the right answer most.

        Args:
            answers: The model's to `without`; they may be fewer, and any may be missing.
        """
        before = self.probabilities
        importance = np.full(len(self.order), -np.inf)
        for number, after in enumerate(answers):
            if after is None:
                continue
            importance[number] = before[self.label] - after[self.label]
            other = int(after.argmax())
            if other != self.label:
                importance[number] += after[other] - before[other]
        ties = self.rng.permutation(len(self.order))
        self.order = [self.order[number] for number in np.lexsort((ties, -importance)).tolist()]

    def next_variants(self) -> list[Variant]:
        """The texts that the candidates of the next word make, each once."""
        position = self.order.pop(0)
        changes = [{**self.changes, position: word} for word in self.candidates[position]]
        variants = {self.segments.join(change): change for change in changes}
        return [Variant(change, text) for text, change in variants.items()]

    def choose(self, variants: Sequence[Variant], answers: Sequence[Probabilities | None]) -> None:
        """Takes the most similar variant that fools the model, else the one that hurts it most, if any does.

        Args:
            variants: Any number.
            answers: The model's to each, any of which may be missing.
        """
        known = [(v, answer) for v, answer in zip(variants, answers, strict=True) if answer is not None]
        if not known:
            return
        right = np.array([answer[self.label] for _, answer in known])
        fooled = np.array([int(answer.argmax()) != self.label for _, answer in known])
        if fooled.any():
            # Of equally similar ones (all, where similarity is not measured) the one that hurts most.
            cosines = np.nan_to_num(np.array([variant.cosine for variant, _ in known]))
            best = int(np.lexsort((right, -cosines, ~fooled))[0])
            self.success = True
        else:
            best = int(right.argmin())
            if right[best] >= self.probabilities[self.label]:
                return
        chosen, self.probabilities = known[best]
        self.changes, self.similarity = chosen.changes, chosen.cosine
