"""The robustness of what ships: adversarial examples of the model, sent to every artifact, and more.

The examples are made once on the trained model, through its weights. Each artifact then answers them in its
own process; and each TFLite file is attacked itself, by an attack that sees its answers only.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from tfapp.data.drawing import draw_rows
from tfapp.data.image_store import png_file
from tfapp.errors import ConfigError
from tfapp.evaluation.robustness import AttackSettings, Robustness, evaluate_robustness
from tfapp.evaluation.robustness.pixels import PixelModel
from tfapp.evaluation.robustness.text_model import TextModel
from tfapp.exporters import TFLITE_VARIANTS
from tfapp.progress import track
from tfapp.release.answers import FloatArray
from tfapp.release.attack_report import MODEL, Attacked, AttackReport
from tfapp.release.black_box import Ask, black_box_on_pixels, black_box_on_texts
from tfapp.release.probe import Probe, RawFeatures
from tfapp.release.processes import ArtifactRunner

_logger = logging.getLogger("tfapp")
_MODEL_BATCH = 32
# Rows near the border may be answered otherwise in another batch or precision.
_OTHER_ANSWERS = 0.01


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
    asks: dict[str, Ask] = {MODEL: _asking_model(model, kind)}
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
        if variant == MODEL:
            _check_same_model(answers[0], robustness)
            base = transferred
        standing = base & transferred
        # The same rows on every artifact, but for those that it has lost already.
        rows = np.intersect1d(np.flatnonzero(base)[:black_box_examples], np.flatnonzero(standing))
        box = None
        if black_box_queries and len(rows) and (variant == MODEL or variant in TFLITE_VARIANTS):
            some: Any = originals[rows] if kind == "pixels" else [originals[row] for row in rows.tolist()]
            box = attack(ask, make, some, labels[rows], rows, robustness, num_queries=black_box_queries)
        found[variant] = Attacked(float(transferred.mean()), standing, box)
        if variant != MODEL:
            _logger.info("attack: %s keeps %.2f%%", variant, 100 * found[variant].robust_accuracy)
    return AttackReport(robustness, found.pop(MODEL), found)


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
