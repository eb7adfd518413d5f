"""What was measured on rows of any kind, before it is counted and worded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tfapp.evaluation.alarms import Alarm
from tfapp.evaluation.robustness.intervals import share_and_interval
from tfapp.evaluation.robustness.result import AttackFigures, Example, Robustness
from tfapp.evaluation.robustness.settings import AttackSettings

NUM_WORST = 8


@dataclass(frozen=True)
class Measured:
    """Answers before and after an attack.

    Attributes:
        domain: ``"pixels"``, ``"words"`` or ``"embeddings"``.
        norm: In what the perturbation is measured.
        epsilon: The budget.
        before: Probabilities before the attack ``(rows, num_classes)``.
        after: Probabilities after it; those of rows that were not attacked are the same.
        survived: Rows that are right before and after every attack, ``(rows,)``.
        per_attack: The attacks in their order.
        originals: The rows as they were, or None.
        perturbed: The rows as the attack left them, to be shown, or None.
        handed_on: The same as others can be asked about them: uint8 pixels or texts, or None.
        alarms: The alarms that went off.
        checked: Names of those that were looked for.
    """

    domain: str
    norm: str
    epsilon: float
    before: npt.NDArray[np.floating]
    after: npt.NDArray[np.floating]
    survived: npt.NDArray[np.bool_]
    per_attack: tuple[AttackFigures, ...]
    originals: Any = None
    perturbed: Any = None
    handed_on: Any = None
    alarms: tuple[Alarm, ...] = ()
    checked: tuple[str, ...] = ()

    def result(
        self,
        split: Any,
        labels: npt.NDArray[np.integer],
        settings: AttackSettings,
        *,
        rows: npt.NDArray[np.int64],
    ) -> Robustness:
        """Counts.

        Args:
            split: The split of the rows.
            labels: True classes ``(rows,)``.
            settings: What was asked for.
            rows: Where the attacked rows stand in the split ``(rows,)``.

        Returns:
            The figures.
        """
        predicted = self.before.argmax(axis=1)
        clean, clean_interval = share_and_interval(predicted == labels)
        robust, interval = share_and_interval(self.survived)
        classes = tuple(split.classes)
        return Robustness(
            split=split.name,
            classes=classes,
            domain=self.domain,
            attack=settings.attack,
            norm=self.norm,
            epsilon=self.epsilon,
            settings=self._common_settings(),
            examples=len(labels),
            seed=settings.seed,
            clean_accuracy=clean,
            clean_interval95=clean_interval,
            robust_accuracy=robust,
            interval95=interval,
            labels=labels.astype(np.int64),
            clean_predicted=predicted.astype(np.int64),
            predicted=self.after.argmax(axis=1).astype(np.int64),
            per_attack=self.per_attack,
            queries=sum(figures.queries for figures in self.per_attack),
            seconds=sum(figures.seconds for figures in self.per_attack),
            alarms=self.alarms,
            checked=self.checked,
            worst=self._worst(classes, labels, rows),
            adversarial=self.handed_on,
            split_sha256=getattr(split, "sha256", None),
            rows=rows,
        )

    def _common_settings(self) -> dict[str, Any]:
        """The settings of the attack; of several those on which all agree that have them."""
        values: dict[str, set[Any]] = {}
        for figures in self.per_attack:
            for name, value in figures.settings.items():
                values.setdefault(name, set()).add(value)
        return {name: next(iter(found)) for name, found in values.items() if len(found) == 1}

    def _worst(
        self,
        classes: tuple[str, ...],
        labels: npt.NDArray[np.integer],
        rows: npt.NDArray[np.int64],
    ) -> tuple[Example, ...]:
        """The fooled rows with the highest probability of the wrong class, in that order."""
        if self.originals is None or self.perturbed is None:
            return ()
        right = self.before.argmax(axis=1) == labels
        fooled = np.flatnonzero(right & ~self.survived)
        sure = self.after[fooled].max(axis=1)
        order = fooled[np.argsort(-sure, kind="stable")][:NUM_WORST]
        return tuple(
            Example(
                row=int(rows[row]),
                label=classes[int(labels[row])],
                predicted=classes[int(self.after[row].argmax())],
                before=float(self.before[row, labels[row]]),
                after=float(self.after[row].max()),
                original=self.originals[row],
                adversarial=self.perturbed[row],
            )
            for row in order
        )
