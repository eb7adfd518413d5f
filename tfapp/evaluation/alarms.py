"""Signs that a robust accuracy says more about the attack than about the model.

Each function compares two measurements and answers an alarm, or None where nothing is wrong. What they are
based on is measured by `tfapp.evaluation.robustness`; the thresholds are the constants of this module.

Reference:
    Athalye, Carlini and Wagner (2018), "Obfuscated Gradients Give a False Sense of Security",
    arXiv:1802.00420; Carlini et al. (2019), "On Evaluating Adversarial Robustness", arXiv:1902.06705.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

BLACK_BOX_MARGIN = 0.01
"""Share of all examples that a black box may fool beyond the white box; AutoAttack's own check takes 0.002
of 1,000 examples, which are 2 of them, and so is the least number here."""

LARGEST_SURVIVAL = 0.05
"""Share of rows that may survive an attack whose budget reaches plain grey from every image."""

NOISE_SHARE = 0.9
"""Share of the rows that an attack fools, from which on random noise of the same size is as strong."""

NOISE_ROWS = 0.01
"""Share of the probed rows that noise must fool to be looked at; a row on the border proves nothing."""

ZERO_GRADIENT_SHARE = 0.01
"""Share of rows whose loss may have no gradient at all."""

RISE_MARGIN = 0.01
"""By how much robust accuracy may be higher at a larger epsilon: attacks draw at random."""

CUT_SHORT_SHARE = 0.01
"""Share of all examples whose search may end for lack of queries or time."""

UNTOUCHED_SHARE = 0.1
"""Share of all examples that may withstand an attack because it had no word to change."""

OVERFITTED = "catastrophic_overfitting"
"""The alarm that goes off while a model is trained."""

_FEWEST_ROWS = 2


@dataclass(frozen=True)
class Alarm:
    """A sign that a number is not to be trusted.

    Attributes:
        name: ``"black_box_stronger"``, ``"does_not_fall_to_zero"``, ``"noise_as_strong"``,
            ``"zero_gradients"``, ``"search_cut_short"``, ``"nothing_to_try"``, ``"rises_with_epsilon"`` or
            `OVERFITTED`.
        undermines: The attack whose number it undermines.
        message: What was measured, what would be normal, and what it means.
    """

    name: str
    undermines: str
    message: str

    def __str__(self) -> str:
        return f"ALARM {self.name} (undermines the figure of {self.undermines}): {self.message}"

    def to_dict(self) -> dict[str, str]:
        """Returns the fields as a plain dict, ready for JSON."""
        return asdict(self)


def black_box_stronger(
    *, attack: str, black_box: str, fooled: int, probed: int, survivors: int, examples: int
) -> Alarm | None:
    """Compares a black box attack with the white box attacks before it, on the rows that survived these.

    Args:
        attack: The white box attack, or several in words.
        black_box: The attack that asks for answers only.
        fooled: How many of the probed rows it fools.
        probed: How many of the survivors it was tried on.
        survivors: Rows that survived the white box.
        examples: All rows that were measured.

    Returns:
        An alarm when at least 2 rows are fooled, and, reckoned over all survivors, more than
        `BLACK_BOX_MARGIN` of the examples.
    """
    if not probed or fooled < _FEWEST_ROWS:
        return None
    gap = fooled / probed * survivors / examples
    if gap <= BLACK_BOX_MARGIN:
        return None
    return Alarm(
        "black_box_stronger",
        attack,
        f"{black_box}, which sees answers only, fools {fooled} of {probed} rows that {attack} did not: about "
        f"{gap:.1%} of the examples, more than {BLACK_BOX_MARGIN:.0%}. The gradients mislead {attack}, or it "
        "is too weak: the true robust accuracy is lower.",
    )


def does_not_fall_to_zero(*, attack: str, epsilon: str, survivors: int, probed: int) -> Alarm | None:
    """Judges an attack whose budget is so large that no model that looks at its input can withstand it.

    Args:
        attack: The attack in question.
        epsilon: The budget of the probe, in words.
        survivors: Rows still answered rightly.
        probed: Rows that were tried.

    Returns:
        An alarm when more than `LARGEST_SURVIVAL` of the rows, and at least 2, survive.
    """
    if not probed or survivors < _FEWEST_ROWS or survivors / probed <= LARGEST_SURVIVAL:
        return None
    return Alarm(
        "does_not_fall_to_zero",
        attack,
        f"at epsilon {epsilon}, where every image can become plain grey, {survivors} of {probed} rows still "
        f"survive gradient steps, more than {LARGEST_SURVIVAL:.0%}. The gradients lead nowhere, or the model "
        "does not look at its input.",
    )


def noise_as_strong(*, attack: str, fooled_by_noise: int, fooled_by_attack: int, probed: int) -> Alarm | None:
    """Compares an attack with random noise of the same size, on the same rows.

    Args:
        attack: The attack in question.
        fooled_by_noise: Rows that at least one draw of noise fools.
        fooled_by_attack: Rows that the attack fools.
        probed: Rows that both were tried on.

    Returns:
        An alarm when noise fools `NOISE_SHARE` of what the attack fools, and at least `NOISE_ROWS` of the
        rows and 2 of them.
    """
    if fooled_by_noise < max(_FEWEST_ROWS, NOISE_ROWS * probed):
        return None
    if fooled_by_noise < NOISE_SHARE * fooled_by_attack:
        return None
    return Alarm(
        "noise_as_strong",
        attack,
        f"random noise of the same size fools {fooled_by_noise} of {probed} rows and {attack} "
        f"{fooled_by_attack}; noise should fool far fewer than {NOISE_SHARE:.0%} of what an attack does. The "
        "attack finds no direction, or epsilon is so large that any direction will do.",
    )


def zero_gradients(*, attack: str, zero_rows: int, probed: int) -> Alarm | None:
    """Judges how many rows give an attack no gradient to follow.

    Args:
        attack: The attack in question.
        zero_rows: Rows whose cross-entropy has a gradient of zeros, or one that is not finite.
        probed: Rows that were looked at.

    Returns:
        An alarm when they are more than `ZERO_GRADIENT_SHARE` of the rows.
    """
    if not probed or zero_rows / probed <= ZERO_GRADIENT_SHARE:
        return None
    return Alarm(
        "zero_gradients",
        attack,
        f"the gradient of the cross-entropy is zero or not finite on {zero_rows} of {probed} rows, more than "
        f"{ZERO_GRADIENT_SHARE:.0%}: logits so far apart that float32 rounds the softmax to 0 and 1, or a "
        "step that cannot be differentiated. Gradient steps stand still there; compare with 'apgd' on the "
        "dlr loss, and with 'square'.",
    )


def search_cut_short(*, attack: str, rows: int, examples: int) -> Alarm | None:
    """Judges how many rows survive only because the attack ran out of its budget of queries or seconds.

    Args:
        attack: The attack in question.
        rows: Rows that survived it in that way.
        examples: All rows that were measured.

    Returns:
        An alarm when they are more than `CUT_SHORT_SHARE` of the examples.
    """
    if rows <= CUT_SHORT_SHARE * examples:
        return None
    return Alarm(
        "search_cut_short",
        attack,
        f"the search ended for lack of queries or time on {rows} of {examples} rows, more than "
        f"{CUT_SHORT_SHARE:.0%}: with a larger budget some of them may fall.",
    )


def nothing_to_try(*, attack: str, rows: int, examples: int) -> Alarm | None:
    """Judges how many rows survive an attack that could not change a word of them.

    Args:
        attack: The attack in question.
        rows: Rows that it left untouched.
        examples: All rows that were measured.

    Returns:
        An alarm when they are more than `UNTOUCHED_SHARE` of the examples.
    """
    if rows <= UNTOUCHED_SHARE * examples:
        return None
    return Alarm(
        "nothing_to_try",
        attack,
        f"{rows} of {examples} rows, more than {UNTOUCHED_SHARE:.0%}, count as robust though {attack} could "
        "change no word of them: they are too short for the share that may change, or no word has a "
        "candidate, as where the attack is for another language. Take a larger epsilon or another attack.",
    )


def catastrophic_overfitting(*, attack: str, found: str) -> Alarm:
    """Tells that the training of the model had to be ended.

    Args:
        attack: The attack whose figure is of this model.
        found: Where and how it overfitted, and what was done, in words.
    """
    return Alarm(
        OVERFITTED,
        attack,
        f"the training came to resist a single step and nothing else in {found}. What is measured are "
        "weights from before: trust attacks of several steps only, and train with a smaller epsilon, more "
        "steps, or TRADES.",
    )


def rises_with_epsilon(*, attack: str, points: Sequence[tuple[float, float]]) -> Alarm | None:
    """Looks whether a larger budget leaves more rows right.

    Args:
        attack: The attack in question.
        points: Epsilon and robust accuracy, in order of epsilon.

    Returns:
        An alarm when robust accuracy is anywhere more than `RISE_MARGIN` above that at a smaller epsilon.
    """
    lowest = points[0] if points else (0.0, 1.0)
    for epsilon, accuracy in points[1:]:
        if accuracy > lowest[1] + RISE_MARGIN:
            return Alarm(
                "rises_with_epsilon",
                attack,
                f"robust accuracy is {accuracy:.4f} at epsilon {epsilon:.4g}, above {lowest[1]:.4f} at the "
                f"smaller epsilon {lowest[0]:.4g}: what fools the model within the smaller budget is also "
                "within the larger one, so the attack does not find what is there.",
            )
        if accuracy < lowest[1]:
            lowest = epsilon, accuracy
    return None
