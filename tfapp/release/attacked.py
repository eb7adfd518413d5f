"""The robustness of what ships: adversarial examples of the model, sent to every artifact, and more.

The examples are made once on the trained model, through its weights. Each artifact then answers them in its
own process; and each TFLite and ONNX file is attacked itself, by an attack that sees its answers only.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from tfapp.data.drawing import draw_numbers, draw_rows
from tfapp.data.image_store import png_file
from tfapp.errors import ConfigError
from tfapp.evaluation.robustness import AttackSettings, Robustness, evaluate_robustness
from tfapp.evaluation.robustness.pixels import PixelModel
from tfapp.evaluation.robustness.settings import EMBEDDING_ATTACKS
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
_GREY_LEVEL = 1 / 255
# Rows near the border may be answered otherwise in another batch or precision.
_OTHER_ANSWERS = 0.01
_FEWEST_OTHERS = 2
_REVIVED = 0.02
# What is attacked by its answers: the model, and files that leave for other machines.
_SEARCHED = (MODEL, *TFLITE_VARIANTS, "onnx")


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
    check_attack(settings, model)
    result = evaluate_robustness(
        model,
        split,
        attack=settings.attack,
        epsilon=settings.epsilon,
        norm=settings.norm,
        num_steps=settings.num_steps,
        num_restarts=settings.num_restarts,
        max_queries=settings.max_queries,
        max_seconds=settings.max_seconds,
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


def check_attack(attack: AttackSettings, model: Any) -> None:
    """Refuses, before hours of it, an attack whose examples artifacts could not be asked about.

    Args:
        attack: Its settings.
        model: The classifier that it would be made on.

    Raises:
        ConfigError: When it perturbs what no artifact takes, or by less than a grey level.
    """
    if "pixels" in model.input:
        _check_reach(attack.attack, "pixels", attack.epsilon_of("pixels"))
    elif attack.attack in EMBEDDING_ATTACKS:
        _check_reach(attack.attack, "embeddings", math.inf)


def check_sendable(robustness: Robustness, split: Any) -> None:
    """Refuses adversarial examples that artifacts cannot be asked about, or that are of other rows.

    Args:
        robustness: The attack on the model.
        split: The rows that artifacts are checked with.

    Raises:
        ConfigError: When they do not go together.
    """
    _check_reach(robustness.attack, robustness.domain, robustness.epsilon)
    count = robustness.examples
    drawn = draw_numbers(np.arange(len(split)), count, seed=robustness.seed)
    same = tuple(split.classes) == robustness.classes
    same &= np.array_equal(np.asarray(split.labels)[drawn], robustness.labels)
    for then, now in (
        (robustness.split_sha256, getattr(split, "sha256", None)),
        (robustness.rows, drawn),
    ):
        same &= then is None or now is None or np.array_equal(then, now)
    if not same:
        raise ConfigError(
            f"the attack was made on {count} rows of {robustness.split!r} that are not in the split "
            f"{split.name!r}: give the settings of an attack instead, or the same split."
        )


def _check_reach(attack: str, domain: str, epsilon: float) -> None:
    if domain == "embeddings":
        raise ConfigError(
            f"the attack {attack!r} perturbs {domain}, which no artifact takes: choose 'standard', "
            "'word_substitution' or 'character_edits'."
        )
    if domain == "pixels" and epsilon < _GREY_LEVEL * (1 - 1e-6):
        raise ConfigError(
            f"epsilon = {epsilon:g} is less than one grey level of 255, the least that pixels of 8 bits can "
            "change by."
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
    """Sends the model's adversarial examples to every artifact, and attacks the TFLite and ONNX files.

    A row that the model gets wrong, before the attack or after it, counts as lost for its artifacts too; so
    does one that the model loses to the black box, of the rows that this was tried on.

    Args:
        model: The trained classifier, in float32.
        robustness: The attack on it; see `check_sendable`.
        split: The rows that it was made on.
        runner: Where the artifacts run.
        black_box_queries: How often the attack on a TFLite or ONNX file may ask about a row; 0 for none.
        black_box_examples: On how many rows it is tried, drawn from those that survive the examples of the
            model.

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
    base, drawn = right, np.zeros(0, np.int64)
    for variant, ask in track(list(asks.items()), len(asks), "attack artifacts"):
        answers = [ask(clean), ask(sent)]
        if any(answer is None or answer.shape != (count, len(model.classes)) for answer in answers):
            continue  # it has ended, or answers nonsense: its error is judged elsewhere
        transferred = right.copy()
        for answer in answers:
            transferred &= np.asarray(answer).argmax(axis=1) == labels
        if variant == MODEL:
            _check_same_model(answers[0], robustness)
            _warn_of_revived(float(transferred.mean()), robustness)
            base = transferred
            drawn = draw_numbers(np.flatnonzero(base), black_box_examples, seed=robustness.seed)
        standing = base & transferred
        # The same rows on every artifact, but for those that it has lost already.
        rows = drawn[standing[drawn]]
        box = None
        if black_box_queries and len(rows) and variant in _SEARCHED:
            some: Any = originals[rows] if kind == "pixels" else [originals[row] for row in rows.tolist()]
            box = attack(ask, make, some, labels[rows], rows, robustness, num_queries=black_box_queries)
        found[variant] = Attacked(float(transferred.mean()), standing, box, found.get(MODEL))
        if variant != MODEL:
            _logger.info("attack: %s keeps %.2f%%", variant, 100 * found[variant].robust_accuracy)
    return AttackReport(robustness, found.pop(MODEL), found)


def _check_same_model(clean: FloatArray | None, robustness: Robustness) -> None:
    """Refuses examples that were made on a model with other answers to the rows before the attack."""
    others = np.asarray(clean).argmax(axis=1) != robustness.clean_predicted
    if int(others.sum()) > max(_FEWEST_OTHERS, _OTHER_ANSWERS * len(others)):
        raise ConfigError(
            f"the attack was made on another model: this one answers {others.mean():.1%} of its rows "
            "otherwise. Attack this model, or give the settings of the attack."
        )


def _warn_of_revived(accuracy: float, robustness: Robustness) -> None:
    """Tells when what artifacts are sent is much weaker than what the attack found."""
    if accuracy > robustness.robust_accuracy + _REVIVED:
        _logger.warning(
            "attack: the model keeps %.2f%% after the examples that artifacts are sent, and %.2f%% after "
            "those of the attack: rounding to whole grey levels revives rows",
            100 * accuracy,
            100 * robustness.robust_accuracy,
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
