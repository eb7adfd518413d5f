"""What an attack found: figures that never travel without their settings."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tfapp.errors import DataError, OutputError
from tfapp.evaluation.alarms import Alarm
from tfapp.evaluation.calibration import IntArray
from tfapp.evaluation.metrics import CONFIDENCE_LEVEL
from tfapp.evaluation.report import table_lines, write_whole
from tfapp.evaluation.robustness.wording import plain_settings, settings_text

_FIGURES = "robustness.json"
_EXAMPLES = "adversarial.npz"


@dataclass(frozen=True)
class AttackFigures:
    """One attack of several that run one after another, each on what the ones before left.

    Attributes:
        name: The attack.
        attacked: Rows that it was given.
        fooled: Rows of these that it fooled.
        robust_accuracy: Share of all examples still right after it.
        queries: Rows that the model was asked about.
        seconds: How long it took.
        settings: Every plain setting that it ran with.
    """

    name: str
    attacked: int
    fooled: int
    robust_accuracy: float
    queries: int
    seconds: float
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Example:
    """A row that the attack fooled.

    Attributes:
        row: Its number in the split.
        label: Name of its class.
        predicted: Name of the class that it is taken for.
        before: Probability of its class before the attack.
        after: Probability of the wrong class after it.
        original: The row: a text, or uint8 pixels ``(height, width, 3)``.
        adversarial: What it was turned into: a text, or float32 pixels of the same shape.
    """

    row: int
    label: str
    predicted: str
    before: float
    after: float
    original: Any
    adversarial: Any


@dataclass(frozen=True, eq=False)
class Robustness:
    """Clean and robust accuracy of a model on rows of a split, and how they were measured.

    Attributes:
        split: Name of the split.
        classes: Names of the classes, in the order of the model's outputs.
        domain: What was perturbed: ``"pixels"``, ``"words"`` or ``"embeddings"``.
        attack: Name of the attack.
        norm: In what the perturbation is measured.
        epsilon: The largest one.
        settings: ``num_steps``, ``num_restarts`` and other settings of the attack; for an ensemble those of
            its members are in ``per_attack``.
        examples: How many rows were attacked, drawn by the seed where the split has more.
        seed: Seed of what was drawn.
        clean_accuracy: Share of these rows answered rightly before the attack.
        clean_interval95: Its 95 % interval.
        robust_accuracy: Share of these rows answered rightly before and after it.
        interval95: Its 95 % interval.
        labels: True classes, int64 ``(examples,)``.
        clean_predicted: Answers before the attack, ``(examples,)``.
        predicted: Answers to what it made, ``(examples,)``; rows that were wrong before are not attacked.
        per_attack: The attacks in their order.
        queries: Rows that the model was asked about, alarms not counted.
        seconds: How long the attacks took, alarms not counted.
        alarms: Signs that ``robust_accuracy`` is not to be trusted.
        checked: Names of the alarms that were looked for.
        worst: Rows fooled with the greatest confidence.
        split_sha256: Fingerprint of the split; None where it has none.
        rows: Where the attacked rows stand in the split, int64 ``(examples,)``.
        adversarial: What the attack made of every row, in their order; a row that was not attacked as it is:
            uint8 pixels ``(examples, height, width, 3)`` in whole grey levels within the budget, or texts;
            None where the perturbation is of no row.
    """

    split: str
    classes: tuple[str, ...]
    domain: str
    attack: str
    norm: str
    epsilon: float
    settings: dict[str, Any]
    examples: int
    seed: int
    clean_accuracy: float
    clean_interval95: tuple[float, float]
    robust_accuracy: float
    interval95: tuple[float, float]
    labels: IntArray
    clean_predicted: IntArray
    predicted: IntArray
    per_attack: tuple[AttackFigures, ...]
    queries: int
    seconds: float
    alarms: tuple[Alarm, ...] = ()
    checked: tuple[str, ...] = ()
    worst: tuple[Example, ...] = ()
    adversarial: npt.NDArray[np.uint8] | tuple[str, ...] | None = None
    split_sha256: str | None = None
    rows: IntArray | None = None

    @property
    def settings_text(self) -> str:
        """Norm, epsilon, attack, steps, restarts, examples and seed in one line."""
        return settings_text(self.to_dict())

    def joined_by(self, alarms: Iterable[Alarm], *, checked: str) -> Robustness:
        """Adds alarms that went off elsewhere.

        Args:
            alarms: The alarms.
            checked: Name of what was looked for.

        Returns:
            The figures with them; those that are there already are not repeated.
        """
        further = [alarm for alarm in alarms if alarm not in self.alarms]
        return replace(
            self,
            alarms=(*self.alarms, *further),
            checked=tuple(dict.fromkeys((*self.checked, checked))),
        )

    def lines(self) -> list[str]:
        """Words the figures with everything that they depend on, one string a line."""
        lines = [
            f"{self.split}: robust accuracy {_share(self.robust_accuracy, self.interval95)}, "
            f"clean accuracy {_share(self.clean_accuracy, self.clean_interval95)} ({CONFIDENCE_LEVEL:.0%} "
            "intervals)",
            self.settings_text,
            *(str(alarm) for alarm in self.alarms),
        ]
        if self.checked and not self.alarms:
            lines.append(f"no alarm among: {', '.join(self.checked)}")
        body = [
            (
                item.name,
                f"{item.attacked:,}",
                f"{item.fooled:,}",
                f"{item.robust_accuracy:.4f}",
                f"{item.queries:,}",
                f"{item.seconds:.1f}",
                plain_settings(item.settings),
            )
            for item in self.per_attack
        ]
        header = ("attack", "rows", "fooled", "right after it", "queries", "seconds", "settings")
        return [*lines, *table_lines(header, body)]

    def __str__(self) -> str:
        return "\n".join(self.lines())

    def to_dict(self) -> dict[str, Any]:
        """Returns everything but the single rows, ready for JSON."""
        return {
            "split": self.split,
            "split_sha256": self.split_sha256,
            "domain": self.domain,
            "attack": self.attack,
            "norm": self.norm,
            "epsilon": self.epsilon,
            "num_steps": self.settings.get("num_steps"),
            "num_restarts": self.settings.get("num_restarts"),
            "settings": dict(self.settings),
            "examples": self.examples,
            "seed": self.seed,
            "clean_accuracy": self.clean_accuracy,
            "clean_interval95": list(self.clean_interval95),
            "robust_accuracy": self.robust_accuracy,
            "interval95": list(self.interval95),
            "per_attack": [asdict(figures) for figures in self.per_attack],
            "queries": self.queries,
            "seconds": self.seconds,
            "alarms": [alarm.to_dict() for alarm in self.alarms],
            "checked": list(self.checked),
        }

    def save(self, directory: str | Path) -> Path:
        """Writes ``robustness.json``, the figures, and ``adversarial.npz``, what the attack made of the rows.

        Args:
            directory: The folder; it is made if it does not exist.

        Returns:
            The folder.

        Raises:
            OutputError: A file cannot be written.
        """
        folder = Path(directory)
        content = {**self.to_dict(), "classes": list(self.classes)}
        arrays: dict[str, Any] = {
            name: getattr(self, name) for name in ("labels", "clean_predicted", "predicted")
        }
        if self.rows is not None:
            arrays["rows"] = self.rows
        if isinstance(self.adversarial, tuple):
            content["texts"] = list(self.adversarial)
        elif self.adversarial is not None:
            arrays["pixels"] = self.adversarial
        text = json.dumps(content, ensure_ascii=False, indent=1) + "\n"

        def write_arrays(path: Path) -> None:
            with path.open("wb") as file:
                np.savez_compressed(file, **arrays)

        try:
            folder.mkdir(parents=True, exist_ok=True)
            write_whole(folder / _EXAMPLES, write_arrays)
            write_whole(folder / _FIGURES, lambda path: path.write_text(text, encoding="utf-8"))
        except OSError as error:
            raise OutputError(f"{folder}: the results cannot be written there ({error})") from error
        return folder

    @classmethod
    def load(cls, directory: str | Path) -> Robustness:
        """Reads what `save` wrote; the worst examples are not kept.

        Args:
            directory: The folder.

        Returns:
            The figures and the adversarial rows.

        Raises:
            DataError: If a file is missing or damaged.
        """
        folder = Path(directory)
        try:
            content = json.loads((folder / _FIGURES).read_text(encoding="utf-8"))
            with np.load(folder / _EXAMPLES, allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
            texts = content.pop("texts", None)
            for name in ("num_steps", "num_restarts"):
                content.pop(name)
            pixels = arrays.pop("pixels", None)
            return cls(
                **{
                    **content,
                    **arrays,
                    "classes": tuple(content["classes"]),
                    "clean_interval95": tuple(content["clean_interval95"]),
                    "interval95": tuple(content["interval95"]),
                    "per_attack": tuple(AttackFigures(**each) for each in content["per_attack"]),
                    "alarms": tuple(Alarm(**each) for each in content["alarms"]),
                    "checked": tuple(content["checked"]),
                    "adversarial": tuple(texts) if texts is not None else pixels,
                }
            )
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"{folder}: the attack's results cannot be read ({error}); attack again."
            ) from error


def _share(value: float, interval: Sequence[float]) -> str:
    return f"{value:.4f} [{interval[0]:.4f}, {interval[1]:.4f}]"
