"""The model under attack: many texts at a time, none twice, and not beyond the time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from tfapp.errors import ConfigError

PredictFn: TypeAlias = Callable[[list[str]], Any]
Similarity: TypeAlias = Callable[[list[str], list[str]], Any]
Probabilities: TypeAlias = npt.NDArray[np.float64]
Item = TypeVar("Item")


class Victim:
    """Asks a model about texts, and an encoder how alike they are.

    Args:
        predict_fn: From texts to probabilities ``(n, num_classes)``.
        similarity_fn: From originals and as many candidates to cosines ``(n,)``, or None.
        batch_size: Most texts in one call of either.
        max_seconds: Wall time from now on after which neither is called; None sets no limit.
    """

    def __init__(
        self,
        predict_fn: PredictFn,
        similarity_fn: Similarity | None,
        *,
        batch_size: int,
        max_seconds: float | None,
    ) -> None:
        self.num_classes = 0
        self.measures = similarity_fn is not None
        self._predict_fn, self._similarity_fn, self._batch_size = predict_fn, similarity_fn, batch_size
        self._started = time.perf_counter()
        self._end = np.inf if max_seconds is None else self._started + max_seconds

    @property
    def seconds(self) -> float:
        """Wall time since the attack began."""
        return time.perf_counter() - self._started

    def out_of_time(self) -> bool:
        """Whether the time is over."""
        return time.perf_counter() >= self._end

    def ask_all(self, texts: Sequence[str]) -> list[Probabilities]:
        """Asks about texts, each different one once, whatever the time.

        Args:
            texts: Any number of texts.

        Returns:
            Probabilities ``(num_classes,)`` of each.

        Raises:
            ConfigError: If the model's answer has another shape than it should, or is not finite.
        """
        known = self._answers(texts, in_time=False)
        return [known[text] for text in texts]

    def ask(self, texts: Sequence[str]) -> list[Probabilities | None]:
        """Asks about texts, each different one once, while there is time.

        Args:
            texts: Any number of texts.

        Returns:
            Probabilities ``(num_classes,)`` of each; None for those that the time did not suffice for.

        Raises:
            ConfigError: As `ask_all`.
        """
        known = self._answers(texts, in_time=True)
        return [known.get(text) for text in texts]

    def compare(self, pairs: Sequence[tuple[str, str]]) -> list[float | None]:
        """Measures how alike originals and candidates are.

        Args:
            pairs: Any number of pairs, all different.

        Returns:
            The cosine of each; NaN where that is not measured, None for those that the time did not suffice
            for.

        Raises:
            ConfigError: If the encoder's answer has another shape than it should, or is not finite.
        """
        if self._similarity_fn is None:
            return [np.nan] * len(pairs)
        known: dict[tuple[str, str], float] = {}
        for batch in self._batches(sorted(pairs, key=lambda pair: len(pair[1])), in_time=True):
            answer = np.asarray(self._similarity_fn([a for a, _ in batch], [b for _, b in batch]), np.float64)
            if answer.shape != (len(batch),):
                raise ConfigError(
                    f"similarity_fn returned the shape {answer.shape} for {len(batch)} pairs: it must return "
                    "one cosine for each."
                )
            if not np.isfinite(answer).all():
                raise ConfigError("similarity_fn returned a number that is not finite.")
            known.update(zip(batch, answer.tolist(), strict=True))
        return [known.get(pair) for pair in pairs]

    def _answers(self, texts: Sequence[str], *, in_time: bool) -> dict[str, Probabilities]:
        known: dict[str, Probabilities] = {}
        # Texts of similar length in one call leave little padding to a model that pads to the longest.
        for batch in self._batches(sorted(dict.fromkeys(texts), key=len), in_time=in_time):
            known.update(zip(batch, self._predict(batch), strict=True))
        return known

    def _batches(self, items: Sequence[Item], *, in_time: bool) -> Iterator[list[Item]]:
        for start in range(0, len(items), self._batch_size):
            if in_time and self.out_of_time():
                return
            yield list(items[start : start + self._batch_size])

    def _predict(self, batch: list[str]) -> Probabilities:
        answer = np.asarray(self._predict_fn(batch), np.float64)
        width = self.num_classes or (answer.shape[-1] if answer.ndim == 2 else 0)
        if answer.shape != (len(batch), width) or width < 2:
            raise ConfigError(
                f"predict_fn returned the shape {answer.shape} for {len(batch)} texts: it must return "
                "probabilities (texts, num_classes), of two classes or more."
            )
        if not np.isfinite(answer).all():
            raise ConfigError("predict_fn returned a number that is not finite.")
        self.num_classes = width
        return answer
