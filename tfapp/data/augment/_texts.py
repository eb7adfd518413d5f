"""What is done to training texts, as plain settings, and its doing in a `tf.data` pipeline."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tfapp.data.augment._augmentation import Augment
from tfapp.data.augment._corrupting import checked_corruptions, checked_share
from tfapp.data.corruptions import TEXT_CORRUPTIONS, corrupt_text
from tfapp.data.digests import describe_callable
from tfapp.data.edits import Edit, random_edits, resolve_edits, try_edits
from tfapp.errors import ConfigError, check_known

if TYPE_CHECKING:
    from tfapp.data.encoded import EncodedTexts
    from tfapp.data.tokenizers import Tokenizer

_MOST = 2**31 - 1
VARIANTS = "variants"
"""The input that holds the variants of each row."""


@dataclass(frozen=True, kw_only=True)
class TextAugmentation:
    """What is done to training texts before they are encoded; everything is off unless it is asked for.

    Texts are changed anew in every epoch, as seed and epoch decide. Labels stay: leave out what could change
    the meaning in your task. Edits of letters mostly split words into other pieces, which lengthens texts.

    Attributes:
        edits: Names of `TEXT_EDITS`, or edits, to draw from.
        edit_share: Share of the words of an edited text that are changed, 0 to 1.
        edit_fraction: Probability that a text is edited, 0 to 1.
        corruptions: Keys of `TEXT_CORRUPTIONS` to draw from.
        severity: Highest severity of a corruption, 1 to 5; each from 1 up to it is equally likely.
        corruption_fraction: Probability that a text is corrupted, 0 to 1.

    Raises:
        ConfigError: When a name is unknown, a value is of another type or out of its range, or an edit lacks
            its package.
        AssetError: When the table of an edit cannot be fetched.
    """

    edits: Sequence[str | Edit] = ()
    edit_share: float = 0.15
    edit_fraction: float = 0.5
    corruptions: Sequence[str] = ()
    severity: int = 3
    corruption_fraction: float = 0.5

    def __post_init__(self) -> None:
        if self.edits or isinstance(self.edits, str):
            try_edits(self.edits)
        for name in ("edit_share", "edit_fraction", "corruption_fraction"):
            object.__setattr__(self, name, checked_share(name, getattr(self, name)))
        corruptions = checked_corruptions(self.corruptions, self.severity, TEXT_CORRUPTIONS)
        object.__setattr__(self, "edits", tuple(self.edits))
        object.__setattr__(self, "corruptions", corruptions)

    def described(self) -> dict[str, Any]:
        """What is switched on, as plain values, for keys and records; equal runs have equal ones."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        switches = {
            "edits": ("edit_share", "edit_fraction"),
            "corruptions": ("severity", "corruption_fraction"),
        }
        described: dict[str, Any] = {}
        for switch, settings in switches.items():
            if values[switch]:
                described[switch] = [
                    value if isinstance(value, str) else describe_callable(value) for value in values[switch]
                ]
                described.update({name: values[name] for name in settings})
        return described

    def change(self, texts: Sequence[str], *, seed: int | Sequence[int], always: bool = False) -> list[str]:
        """Changes texts at random.

        Args:
            texts: The texts.
            seed: Decides all changes, together with the texts and their order; whole numbers, 0 or more.
            always: Whether every text is changed in each way that is switched on, whatever ``edit_fraction``
                and ``corruption_fraction`` say.

        Returns:
            As many texts.
        """
        rng = np.random.default_rng(seed)
        edits = resolve_edits(self.edits) if self.edits else []
        edited = rng.random(len(texts)) < _share(edits, self.edit_fraction, always)
        corrupted = rng.random(len(texts)) < _share(self.corruptions, self.corruption_fraction, always)
        changed = list(texts)
        for row in np.flatnonzero(edited).tolist():
            changed[row] = random_edits(changed[row], rng, self.edit_share, edits)
        for row in np.flatnonzero(corrupted).tolist():
            name = self.corruptions[int(rng.integers(len(self.corruptions)))]
            strength = int(rng.integers(1, self.severity + 1))
            changed[row] = corrupt_text(changed[row], name, strength, int(rng.integers(_MOST)))
        return changed

    def for_batches(
        self, tokenizer: Tokenizer, *, inputs: Sequence[str], pad_to: int = 1, variants: int = 0
    ) -> Augment:
        """Makes the function that `training_batches` takes as ``augment`` for rows of texts, `TextRows`.

        Args:
            tokenizer: Encodes what was changed; its ``max_length`` cuts.
            inputs: Names of the inputs that the model declares.
            pad_to: Widths are rounded up to a multiple of this many tokens, up to ``max_length``.
            variants: How many changed variants of each text stand beside the text itself; with 0, the changed
                text takes its place.

        Returns:
            A function of inputs, labels and seed. What it gives are token ids and the like, int32
            ``(batch, length)``; with variants, those of the texts as they were and, as ``"variants"``, a
            dictionary of the same names, each int32 ``(batch, variants, length)``.
        """

        def encoded(texts: tf.Tensor) -> dict[str, tf.Tensor]:
            tokens = tokenizer(texts)
            width = tf.shape(tokens["token_ids"])[1]
            wider = tf.minimum(-(-width // pad_to) * pad_to, tokenizer.max_length)
            more = [[0, 0], [0, tf.maximum(wider - width, 0)]]
            fillers = {"token_ids": tokenizer.pad_id}
            return {name: tf.pad(tokens[name], more, constant_values=fillers.get(name, 0)) for name in inputs}

        def augment(
            given: dict[str, tf.Tensor], labels: tf.Tensor, seed: tf.Tensor
        ) -> tuple[dict[str, Any], tf.Tensor]:
            texts = given["texts"]
            if not variants:
                return encoded(_changed(self.change, texts, seed)), labels
            repeated = tf.repeat(texts, variants)
            changed = encoded(
                _changed(lambda texts, seed: self.change(texts, seed=seed, always=True), repeated, seed)
            )
            beside = {
                name: tf.reshape(values, [-1, variants, tf.shape(values)[1]])
                for name, values in changed.items()
            }
            return {**encoded(texts), VARIANTS: beside}, labels

        # There is no control flow to convert, and looking for it takes seconds.
        plain: Augment = tf.autograph.experimental.do_not_convert(augment)
        return plain

    def encode_views(
        self, texts: Sequence[str], tokenizer: Tokenizer, *, views: int, seed: int
    ) -> EncodedTexts:
        """Encodes several changed variants of texts, so that their features can be computed once and kept.

        Args:
            texts: The texts.
            tokenizer: Encodes them; long ones are cut.
            views: How many variants, 1 or more.
            seed: Decides all of them, at least 0.

        Returns:
            ``views * len(texts)`` rows, all of the first variant before all of the second.
        """
        return tokenizer.encode(
            [text for view in range(views) for text in self.change(texts, seed=[seed, view])]
        )


def make_text_augmentation(
    setting: str | Mapping[str, Any] | TextAugmentation | None,
) -> TextAugmentation | None:
    """Resolves what a user asks for.

    Args:
        setting: ``"none"``; the arguments of `TextAugmentation` by name; an augmentation, which is returned
            as it is; or None.

    Returns:
        The augmentation, or None where nothing is changed.

    Raises:
        ConfigError: When a name is unknown, or a value is of another type or out of its range.
    """
    if setting is None or setting == "none":
        return None
    if isinstance(setting, Mapping):
        known = [field.name for field in fields(TextAugmentation)]
        check_known(setting, known, "augmentation setting of texts")
        setting = TextAugmentation(**setting)
    if not isinstance(setting, TextAugmentation):
        raise ConfigError(
            f"augmentation = {setting!r}: presets are for images; texts take a table of settings, such as "
            "{'edits': ['swap', 'keyboard']}."
        )
    return setting if setting.described() else None


def _share(ways: Sequence[Any], fraction: float, always: bool) -> float:
    """The probability that a text is changed in one of these ways."""
    if not ways:
        return 0.0
    return 1.0 if always else fraction


def _changed(change: Callable[..., list[str]], texts: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    def run(texts: npt.NDArray[np.object_], seed: npt.NDArray[np.int64]) -> npt.NDArray[np.object_]:
        given = [text.decode() for text in texts.tolist()]
        changed = change(given, seed=seed.astype(np.uint64).tolist())
        return np.array([text.encode() for text in changed], object)

    changed = tf.numpy_function(run, [texts, seed], tf.string, stateful=False)
    return tf.ensure_shape(changed, texts.shape)
