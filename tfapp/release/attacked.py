"""The robustness of what ships: adversarial examples of the model, sent to every artifact, and more.

The examples are made once on the trained model, through its weights. Each artifact then answers them in its
own process; and each TFLite file is attacked itself, by an attack that sees its answers only.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tfapp.data.drawing import draw_rows
from tfapp.data.image_store import png_file
from tfapp.errors import ConfigError
from tfapp.evaluation.robustness import AttackSettings, Robustness, evaluate_robustness
from tfapp.evaluation.robustness.pixels import PixelModel
from tfapp.evaluation.robustness.result import wilson_interval
from tfapp.evaluation.robustness.text_model import TextModel
from tfapp.exporters import TFLITE_VARIANTS
from tfapp.progress import track
from tfapp.release.answers import FloatArray
from tfapp.release.black_box import Ask, BlackBoxFound, black_box_on_pixels, black_box_on_texts
from tfapp.release.gate import ROUNDING, Budget
from tfapp.release.probe import Probe, RawFeatures
from tfapp.release.processes import ArtifactRunner

_logger = logging.getLogger("tfapp")
_MODEL, _MODEL_BATCH = "model", 32
# Rows near the border may be answered otherwise in another batch or precision.
_OTHER_ANSWERS = 0.01
Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Attacked:
    """What attacks left of the right answers of the model, or of an artifact.

    Attributes:
        transfer_accuracy: Share of all rows right before the attack and after the examples made on the model.
        standing: Which of these rows the model itself withstands too, ``(rows,)``: that an artifact escapes
            an example that was made for the model does not make it robust.
        black_box: What an attack on the answers found on some of these, or None where there was none.
    """

    transfer_accuracy: float
    standing: Flags
    black_box: BlackBoxFound | None = None

    @property
    def lost_share(self) -> float:
        """Share of the tried rows that the black box fools; 0 where there was none."""
        return 0.0 if self.black_box is None else float(np.mean(self.black_box.fooled))

    @property
    def robust_accuracy(self) -> float:
        """Share of rows that stand, less what the black box would fool of them, reckoned from its rows."""
        return float(np.mean(self.standing)) * (1.0 - self.lost_share)

    @property
    def interval95(self) -> tuple[float, float]:
        """Its 95 % interval; where the black box tried some of the rows only, at least that wide."""
        rows, count = len(self.standing), int(np.sum(self.standing))
        if self.black_box is None:
            return wilson_interval(count, rows)
        tried, fooled = len(self.black_box.rows), int(np.sum(self.black_box.fooled))
        if tried == count:
            return wilson_interval(count - fooled, rows)
        stand, keep = wilson_interval(count, rows), wilson_interval(tried - fooled, tried)
        return stand[0] * keep[0], stand[1] * keep[1]


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
            for variant, found in {_MODEL: self.model, **self.artifacts}.items()
        ]

    def reasons(self, variant: str, budget: Budget) -> list[str]:
        """Judges an artifact.

        The drop is limited after the model's examples, which every row has seen; with the black box it must
        go beyond the limit by two standard errors, as its rows are few and its search draws at random.

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
        drop = self.model.robust_accuracy - accuracy
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


def attack_model(model: Any, split: Any, attack: AttackSettings | Mapping[str, Any]) -> Robustness:
    """Makes the adversarial examples that artifacts are sent.

    Args:
        model: The trained classifier.
        split: The rows.
        attack: What to run, as `AttackSettings` or as its arguments.

    Returns:
        The figures of the model, and the examples.

    Raises:
        ConfigError: When the attack is unknown, lacks a setting, or makes nothing that can be sent.
    """
    settings = attack_settings(attack)
    result = evaluate_robustness(
        model,
        split,
        attack=settings.attack,
        epsilon=settings.epsilon,
        norm=settings.norm,
        num_steps=settings.num_steps,
        num_restarts=settings.num_restarts,
        examples=settings.examples,
        seed=settings.seed,
    )
    for line in result.lines():
        _logger.info("%s", f"  {line}".rstrip())
    return result


def attack_settings(attack: AttackSettings | Mapping[str, Any]) -> AttackSettings:
    """Takes an attack's settings in either form.

    Args:
        attack: The settings, or their arguments by name.

    Returns:
        The settings.

    Raises:
        ConfigError: When one is unknown or out of range.
    """
    if isinstance(attack, AttackSettings):
        return attack
    try:
        return AttackSettings(**attack)
    except TypeError as error:
        known = ", ".join(AttackSettings.__dataclass_fields__)
        raise ConfigError(f"attack = {dict(attack)!r}: an unknown key; there are {known}.") from error


def check_sendable(robustness: Robustness, split: Any, *, norm_step: float = 1 / 255) -> None:
    """Refuses adversarial examples that artifacts cannot be asked about, or that are of other rows.

    Args:
        robustness: The attack on the model.
        split: The rows that artifacts are checked with.
        norm_step: One grey level, the least perturbation that 8 bits can hold.

    Raises:
        ConfigError: When they do not go together.
    """
    if robustness.adversarial is None:
        raise ConfigError(
            f"the attack {robustness.attack!r} perturbs {robustness.domain}, which no artifact takes: choose "
            "'standard', 'word_substitution' or 'character_edits'."
        )
    if robustness.norm == "linf" and robustness.epsilon < norm_step * (1 - 1e-6):
        raise ConfigError(
            f"epsilon = {robustness.epsilon:g} is less than one grey level of 255, the least that pixels of "
            "8 bits can change by."
        )
    count = robustness.examples
    drawn = draw_rows(split, count, seed=robustness.seed)[1]
    same = len(split) >= count and np.array_equal(drawn, robustness.labels)
    if not same or tuple(split.classes) != robustness.classes:
        raise ConfigError(
            f"the attack was made on {count} rows of {robustness.split!r} that are not in the split "
            f"{split.name!r}: give the settings of an attack instead, or the same split."
        )


def attack_artifacts(
    model: Any,
    robustness: Robustness,
    split: Any,
    runner: ArtifactRunner,
    *,
    black_box_queries: int,
    black_box_examples: int,
) -> AttackReport:
    """Sends the model's adversarial examples to every artifact, and attacks the TFLite files themselves.

    A row that the model gets wrong, before the attack or after it, counts as lost for its artifacts too.

    Args:
        model: The trained classifier, in float32.
        robustness: The attack on it; see `check_sendable`.
        split: The rows that it was made on.
        runner: Where the artifacts run.
        black_box_queries: How often the attack on a TFLite file may ask about a row; 0 for no such attack.
        black_box_examples: On how many rows it is tried: the first that survive the examples of the model.

    Returns:
        What is left of each.

    Raises:
        ConfigError: When the attack was made on another model.
    """
    count = robustness.examples
    features, labels, _ = draw_rows(split, count, seed=robustness.seed)
    right = robustness.clean_predicted == labels
    kind = "pixels" if robustness.domain == "pixels" else "texts"
    make = _maker(model, kind)
    originals = model.preprocessor.fixed(features)[0]["pixels"] if kind == "pixels" else list(features)
    clean, sent = make(originals), make(robustness.adversarial)
    asks: dict[str, Ask] = {_MODEL: _asking_model(model, kind)}
    for variant in runner.ready():
        asks[variant] = _asking(runner, variant)
    attack = black_box_on_pixels if kind == "pixels" else black_box_on_texts
    found: dict[str, Attacked] = {}
    base = right
    for variant, ask in track(list(asks.items()), len(asks), "attack artifacts"):
        answers = [ask(clean), ask(sent)]
        if any(answer is None or answer.shape != (count, len(model.classes)) for answer in answers):
            continue  # it has ended, or answers nonsense: its error is judged elsewhere
        transferred = right.copy()
        for answer in answers:
            transferred &= np.asarray(answer).argmax(axis=1) == labels
        if variant == _MODEL:
            _check_same_model(answers[0], robustness)
            base = transferred
        standing = base & transferred
        # The same rows on every artifact, but for those that it has lost already.
        rows = np.intersect1d(np.flatnonzero(base)[:black_box_examples], np.flatnonzero(standing))
        box = None
        if black_box_queries and len(rows) and (variant == _MODEL or variant in TFLITE_VARIANTS):
            some: Any = originals[rows] if kind == "pixels" else [originals[row] for row in rows.tolist()]
            box = attack(ask, make, some, labels[rows], rows, robustness, num_queries=black_box_queries)
        found[variant] = Attacked(float(transferred.mean()), standing, box)
        if variant != _MODEL:
            _logger.info("attack: %s keeps %.2f%%", variant, 100 * found[variant].robust_accuracy)
    return AttackReport(robustness, found.pop(_MODEL), found)


def _check_same_model(clean: FloatArray | None, robustness: Robustness) -> None:
    """Refuses examples that were made on a model with other answers to the rows before the attack."""
    differing = float(np.mean(np.asarray(clean).argmax(axis=1) != robustness.clean_predicted))
    if differing > _OTHER_ANSWERS:
        raise ConfigError(
            f"the attack was made on another model: this one answers {differing:.1%} of its rows otherwise. "
            "Attack this model, or give the settings of the attack."
        )


def _asking_model(model: Any, kind: str) -> Ask:
    """Asks the model itself, compiled once for all that it will be asked."""
    if kind == "pixels":
        pixel_model = PixelModel(model, batch_size=_MODEL_BATCH)
        return lambda probe: pixel_model.predict(probe.tensors["pixels"])
    text_model = TextModel(model, batch_size=_MODEL_BATCH)
    return lambda probe: text_model([feature.decode("utf-8") for feature in probe.features])


def _asking(runner: ArtifactRunner, variant: str) -> Ask:
    return lambda probe: runner.ask(variant, probe)


def _maker(model: Any, kind: str) -> Callable[[Any], Probe]:
    """Gives what turns perturbed rows into what artifacts take: pixels as PNG files too, for a server."""

    def of_pixels(pixels: npt.NDArray[np.uint8]) -> Probe:
        return Probe([png_file(image) for image in pixels], {"pixels": np.ascontiguousarray(pixels)})

    def of_texts(texts: Sequence[str]) -> Probe:
        features = RawFeatures(list(texts))
        tensors, owners = model.preprocessor.fixed([feature.decode("utf-8") for feature in features])
        named = {name: tensors[name] for name in model.input}
        split = owners is not None and len(owners) > len(features)
        return Probe(features, named, owners if split else None)

    return of_pixels if kind == "pixels" else of_texts
