"""What attacks left of the model and of its artifacts, and whether that refuses a release."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tfapp.evaluation.robustness import Robustness
from tfapp.evaluation.robustness.intervals import wilson_interval
from tfapp.release.black_box import BlackBoxFound
from tfapp.release.gate import ROUNDING, Budget

MODEL = "model"
"""What the model itself is called among its artifacts."""

Flags = npt.NDArray[np.bool_]
Rows = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Attacked:
    """What attacks left of the right answers of the model, or of an artifact.

    Attributes:
        transfer_accuracy: Share of all rows right before the attack and after the examples made on the model.
        standing: Which of these rows the model itself withstands too, ``(rows,)``: that an artifact escapes
            an example that was made for the model does not make it robust.
        black_box: What an attack on the answers found on some of these, or None where there was none.
        model: The same of the model that an artifact was made of; None for the model itself.
    """

    transfer_accuracy: float
    standing: Flags
    black_box: BlackBoxFound | None = None
    model: Attacked | None = None

    @property
    def searched_accuracy(self) -> float:
        """Share of rows that stand, less what its own black box would fool of them."""
        fooled = 0.0 if self.black_box is None else float(np.mean(self.black_box.fooled))
        return float(np.mean(self.standing)) * (1.0 - fooled)

    @property
    def robust_accuracy(self) -> float:
        """Share of rows that stand, less what black boxes would fool of them, reckoned from the tried rows.

        A row that the model loses to its black box is lost for an artifact too, which thus never counts as
        more robust than the model.
        """
        tried, fooled = self._tried()
        lost = float(np.mean(np.isin(tried, fooled))) if len(tried) else 0.0
        own = float(np.mean(self.standing)) * (1.0 - lost)
        return own if self.model is None else min(own, self.model.robust_accuracy)

    @property
    def interval95(self) -> tuple[float, float]:
        """Its 95 % interval.

        Where black boxes tried some of the rows only, it is the product of two such intervals: that of the
        rows that stand, and that of the tried ones which are kept. It is conservative: it covers more.
        """
        rows, count = len(self.standing), int(np.sum(self.standing))
        tried, fooled = self._tried()
        if len(tried) == count:
            low, high = wilson_interval(count - len(fooled), rows)
        elif len(tried):
            stand, keep = wilson_interval(count, rows), wilson_interval(len(tried) - len(fooled), len(tried))
            low, high = stand[0] * keep[0], stand[1] * keep[1]
        else:
            low, high = wilson_interval(count, rows)
        accuracy = self.robust_accuracy
        return min(low, accuracy), max(high, accuracy)

    def _tried(self) -> tuple[Rows, Rows]:
        """The standing rows that a black box tried, here or on the model, and those that either fooled."""
        boxes = [self.black_box, None if self.model is None else self.model.black_box]
        none = np.zeros(0, np.int64)
        tried = [none, *(box.rows for box in boxes if box is not None)]
        fooled = [none, *(box.rows[box.fooled] for box in boxes if box is not None)]
        standing = np.flatnonzero(self.standing)
        return np.intersect1d(np.concatenate(tried), standing), np.intersect1d(
            np.concatenate(fooled), standing
        )


@dataclass(frozen=True)
class AttackReport:
    """Robust accuracies of the model and of its artifacts under one attack.

    Attributes:
        robustness: The attack on the model, through its weights.
        model: The model's own answers to what the artifacts are asked, and the black box on it.
        artifacts: Those of each artifact that could be asked, by variant.
    """

    robustness: Robustness
    model: Attacked
    artifacts: dict[str, Attacked]

    def entries(self) -> list[dict[str, Any]]:
        """Returns what a manifest says of the robustness of each artifact, after that of the model itself."""
        return [
            {
                "variant": variant,
                "robust_accuracy": found.robust_accuracy,
                "robustness": self._entry(found),
            }
            for variant, found in {MODEL: self.model, **self.artifacts}.items()
        ]

    def reasons(self, variant: str, budget: Budget) -> list[str]:
        """Judges an artifact.

        The drop is limited after the model's examples, which every row has seen. With the black box it must
        go beyond the limit by two standard errors, as its rows are few and its search draws at random; here
        model and artifact are each judged by their own search, as rows that only one of the two finds are
        chance.

        Args:
            variant: Its variant.
            budget: The limits.

        Returns:
            Why it is refused; empty when it is not.
        """
        found = self.artifacts.get(variant)
        if found is None:
            return []
        accuracy, rows = found.robust_accuracy, self.robustness.examples
        settings = self.robustness.settings_text
        least, most = budget.min_robust_accuracy, budget.max_robust_accuracy_drop
        reasons = []
        if least is not None and accuracy < least - ROUNDING:
            reasons.append(
                f"{variant}: robust accuracy is {accuracy:.2%} on {rows} rows, less than {least:.2%} "
                f"(min_robust_accuracy; {settings})"
            )
        transferred = float(np.mean(self.model.standing) - np.mean(found.standing))
        drop = 0.0
        if found.black_box is not None:
            drop = self.model.searched_accuracy - found.searched_accuracy
        if transferred > most + ROUNDING or drop > most + 2 * self._black_box_error(found) + ROUNDING:
            reasons.append(
                f"{variant}: loses {max(drop, transferred):.2%} robust accuracy on {rows} rows against the "
                f"model's {self.model.robust_accuracy:.2%}, more than {most:.2%} "
                f"(max_robust_accuracy_drop; {settings})"
            )
        return reasons

    def _black_box_error(self, found: Attacked) -> float:
        """Standard error of the drop, from rows that the black box fools on one side and not on the other."""
        ours, theirs = self.model.black_box, found.black_box
        if ours is None or theirs is None:
            return 0.0
        both = np.intersect1d(ours.rows, theirs.rows)
        lost = [np.isin(both, box.rows[box.fooled]) for box in (ours, theirs)]
        more, less = int(np.sum(lost[1] & ~lost[0])), int(np.sum(lost[0] & ~lost[1]))
        spread = more + less - (more - less) ** 2 / len(both)
        return float(np.mean(found.standing)) * float(np.sqrt(max(spread, 0.0))) / len(both)

    def entry(self, variant: str) -> dict[str, Any] | None:
        """Returns what the manifest says of an artifact; None for one that was not attacked.

        Args:
            variant: Its variant.
        """
        found = self.artifacts.get(variant)
        return None if found is None else self._entry(found)

    def _entry(self, found: Attacked) -> dict[str, Any]:
        figures = self.robustness.to_dict()
        stated = ("attack", "norm", "epsilon", "num_steps", "num_restarts", "split", "examples", "seed")
        box = found.black_box
        return {
            **{name: figures[name] for name in stated},
            "model_robust_accuracy": self.model.robust_accuracy,
            "robust_accuracy_drop": self.model.robust_accuracy - found.robust_accuracy,
            "transfer_accuracy": found.transfer_accuracy,
            "interval95": list(found.interval95),
            "black_box": None
            if box is None
            else {
                "attack": box.attack,
                "num_queries": box.num_queries,
                "examples": len(box.rows),
                "fooled": int(box.fooled.sum()),
            },
        }
