"""Adversarial examples made inside a `tf.data` pipeline."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Sequence
from numbers import Real
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tfapp.errors import ConfigError, DataError, nearest

REFRESHES = ("epoch", "never")
_LABELLED = (2, 3)
_IMAGE_RANK = 4


def with_adversarial(
    dataset: tf.data.Dataset,
    attack: Callable[..., Any],
    model_fn: Callable[[Any], Any],
    *,
    fraction: float,
    refresh: str = "epoch",
    seed: int = 0,
) -> tf.data.Dataset:
    """Replaces a share of a dataset's inputs by adversarial ones; labels and weights stay as they are.

    Put it behind `cache` and `batch`, and before `prefetch`. With ``refresh="epoch"``, every iteration draws
    other rows, and the examples are made against the weights that the model has when an element is made.
    They are at most as many steps old as elements are made ahead, which is the size of a `prefetch` behind
    this. Without `prefetch`, Keras's `fit` sees examples made against exactly the weights that it is about to
    change, and runs are repeatable bit by bit; with it, attack and step overlap in time, and which weights an
    attack reads depends on timing. In Keras's own models an optimizer's weight decay, which waits for no
    gradient, may slip in before the attack; in `tfapp.train` it may not. ``steps_per_execution`` above 1 may
    take an element out one step ahead, `tf.distribute.MirroredStrategy` two; there the attack reads the first
    replica's weights, which all share.

    With ``refresh="never"``, the examples are made at once, by this call, and kept in memory: every
    iteration gives the same elements, in the same order, whatever becomes of the model. Give another, already
    trained model to harden against what transfers from it (ensemble adversarial training). Shuffle behind it:
    ``with_adversarial(...).unbatch().shuffle(...).batch(...)``.

    Adversarial rows are rows of the batch like all others: in training they enter the moving averages of
    batch normalisation.

    Random rows and random starts follow from the seed and the number of the iteration. When the weights are
    needed fresh and the step is yours, an objective that attacks inside the step does the same work without
    any staleness; this is for `fit` of models whose step is not yours, and for frozen sets.

    Args:
        dataset: Batches ``(inputs, labels)`` or ``(inputs, labels, weights)``. ``inputs`` is a tensor or a
            structure of them, ``(batch, ...)``: images (uint8 ones become float32), embeddings, or strings
            ``(batch,)``. Labels are class indices ``(batch,)`` or distributions ``(batch, num_classes)``.
        attack: Called as ``attack(model_fn, inputs, labels, seed=seed)`` with the drawn rows of a batch;
            gives inputs of the same structure. Bind its settings with `functools.partial`, as in
            ``partial(pgd, epsilon=4 / 255, num_steps=7)``, and ``bounds`` among them: those of the pixels
            that the model takes, which are ``(0.0, 255.0)`` by default. For strings it is called in Python,
            with lists, an array of labels and a whole number as seed, and gives texts or an object with
            ``texts``.
        model_fn: What the attack is given: inputs to logits in inference mode, such as
            ``lambda pixels: model(pixels, training=False)``; for strings, what that attack takes.
        fraction: Share of the rows, 0 to 1, on average over batches.
        refresh: ``"epoch"`` or ``"never"``.
        seed: Decides rows and random starts, at least 0.

    Returns:
        A dataset of the same structure.

    Raises:
        ConfigError: When a setting is out of range, or the dataset is not batched, has no labels, or is
            without end where ``refresh="never"`` needs one.
        tf.errors.InvalidArgumentError: While batches are made, when images ``(batch, height, width,
            channels)`` lie outside the attack's ``bounds``; ones of a smaller range are not noticed.
        tf.errors.OpError: While batches are made, when an attack on strings gives no list of as many texts.

    Reference:
        Kurakin et al. 2017, Adversarial Machine Learning at Scale, arXiv:1611.01236 (a share of each batch);
        Tramer et al. 2018, Ensemble Adversarial Training, arXiv:1705.07204 (examples from other models).
    """
    _check(dataset, fraction=fraction, refresh=refresh, seed=seed)
    numbers = tf.data.Dataset.random(seed, rerandomize_each_iteration=refresh == "epoch")
    made = adversarial_batches(dataset, attack, model_fn, numbers=numbers, fraction=fraction, seed=seed)
    if refresh == "epoch":
        return made
    kept = made.cache()
    for _ in kept:
        continue  # an iteration that reaches the end fills the cache
    return kept


def adversarial_batches(
    dataset: tf.data.Dataset,
    attack: Callable[..., Any],
    model_fn: Callable[[Any], Any],
    *,
    numbers: tf.data.Dataset,
    fraction: float,
    seed: int,
) -> tf.data.Dataset:
    """Does what `with_adversarial` does, with random numbers that someone else counts.

    Args:
        dataset: As in `with_adversarial`.
        attack: As in `with_adversarial`.
        model_fn: As in `with_adversarial`.
        numbers: A number for each batch, int64; with the seed, it decides rows and random starts.
        fraction: As in `with_adversarial`.
        seed: At least 0.

    Returns:
        A dataset of the same structure.
    """
    change = adversarial_share(attack, model_fn, fraction=fraction)

    def replace(element: tuple[Any, ...], number: tf.Tensor) -> tuple[Any, ...]:
        inputs, labels, *weights = element
        return change(inputs, labels, tf.stack([tf.constant(seed, tf.int64), number])), labels, *weights

    # There is no control flow to convert, and looking for it takes seconds.
    made = tf.data.Dataset.zip((dataset, numbers)).map(tf.autograph.experimental.do_not_convert(replace))
    options = tf.data.Options()
    # TensorFlow would put a buffer of its own behind it, and the examples would be older than is said.
    options.experimental_optimization.inject_prefetch = False
    return made.with_options(options)


def adversarial_share(
    attack: Callable[..., Any], model_fn: Callable[[Any], Any], *, fraction: float
) -> Callable[[Any, Any, tf.Tensor], Any]:
    """Makes the function that attacks a share of a batch, for graphs; see `with_adversarial`.

    Args:
        attack: As in `with_adversarial`.
        model_fn: As in `with_adversarial`.
        fraction: As in `with_adversarial`.

    Returns:
        A function of inputs, labels and a seed, int64 ``(2,)``, that gives inputs.
    """
    bounds = _bounds_of(attack)

    def change(inputs: Any, labels: Any, seed: tf.Tensor) -> Any:
        inputs = tf.nest.map_structure(_attackable, inputs)
        if bounds is not None and tf.is_tensor(inputs):
            inputs = _within(inputs, bounds)
        count, order = _drawn(tf.shape(tf.nest.flatten(labels)[0])[0], fraction, seed)
        rows = tf.sort(order[:count])
        own_seed = tf.random.experimental.stateless_fold_in(tf.cast(seed, tf.int32), 1)

        def attacked() -> Any:
            drawn, drawn_labels = tf.nest.map_structure(
                lambda values: tf.gather(values, rows), (inputs, labels)
            )
            if tf.is_tensor(inputs) and inputs.dtype == tf.string:
                found = _attacked_texts(attack, model_fn, drawn, drawn_labels, own_seed)
            else:
                found = attack(model_fn, drawn, drawn_labels, seed=own_seed)
            tf.nest.assert_same_structure(found, inputs)
            return tf.nest.map_structure(
                lambda clean, adversarial: tf.tensor_scatter_nd_update(
                    clean, rows[:, tf.newaxis], tf.cast(adversarial, clean.dtype)
                ),
                inputs,
                found,
            )

        changed = tf.cond(count > 0, attacked, lambda: tf.nest.map_structure(tf.identity, inputs))
        return tf.nest.map_structure(lambda new, old: tf.ensure_shape(new, old.shape), changed, inputs)

    return change


def _drawn(rows: tf.Tensor, fraction: float, seed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """How many of a batch's rows are attacked, and an order from which the first so many are taken."""
    # Rounded by chance, so that the share holds on average for batches of any size.
    first, second = tf.unstack(tf.random.split(tf.cast(seed, tf.int32), 2))
    chance = tf.random.stateless_uniform([], first)
    count = tf.cast(tf.floor(fraction * tf.cast(rows, tf.float32) + chance), tf.int32)
    return count, tf.random.experimental.stateless_shuffle(tf.range(rows), second)


def _attackable(values: tf.Tensor) -> tf.Tensor:
    """Pixels as floats, since an attack moves them by fractions; everything else as it is."""
    return tf.cast(values, tf.float32) if values.dtype == tf.uint8 else values


def _bounds_of(attack: Callable[..., Any]) -> tuple[float, float] | None:
    """The bounds that an attack keeps to, where its signature tells them."""
    try:
        parameter = inspect.signature(attack).parameters.get("bounds")
    except (TypeError, ValueError):
        return None
    bounds = None if parameter is None else parameter.default
    if not isinstance(bounds, Sequence) or len(bounds) != 2 or not all(isinstance(b, Real) for b in bounds):
        return None
    return float(bounds[0]), float(bounds[1])


def _within(values: tf.Tensor, bounds: tuple[float, float]) -> tf.Tensor:
    """The same values; images outside the bounds are an error when a batch is made."""
    if values.shape.rank != _IMAGE_RANK or not values.dtype.is_floating:
        return values
    low, high = tf.reduce_min(values), tf.reduce_max(values)
    said = (
        f"the images lie outside the attack's bounds = {bounds}: bind the bounds of what the model takes, "
        "such as functools.partial(attack, bounds=(-1.0, 1.0)). Lowest and highest value:"
    )
    with tf.control_dependencies(
        [tf.debugging.Assert((low >= bounds[0]) & (high <= bounds[1]), [said, low, high])]
    ):
        return tf.identity(values)


def _attacked_texts(
    attack: Callable[..., Any], model_fn: Callable[[Any], Any], texts: Any, labels: Any, seed: tf.Tensor
) -> tf.Tensor:
    def run(texts: tf.Tensor, labels: tf.Tensor, seed: tf.Tensor) -> npt.NDArray[np.object_]:
        given = [text.decode("utf-8", "surrogateescape") for text in texts.numpy()]
        number = int(seed.numpy()[0]) & 0x7FFFFFFF
        found = attack(model_fn, given, labels.numpy(), seed=number)
        changed = _checked_texts(getattr(found, "texts", found), len(given))
        return np.array([text.encode("utf-8", "surrogateescape") for text in changed], object)

    changed = tf.py_function(run, [texts, labels, seed], tf.string)
    return tf.ensure_shape(changed, [None])


def _checked_texts(found: Any, count: int) -> list[str]:
    listed = isinstance(found, Iterable) and not isinstance(found, str | bytes)
    texts = list(found) if listed else []
    if listed and len(texts) == count and all(isinstance(text, str) for text in texts):
        return texts
    what = f"a list of {len(texts)}" if listed else type(found).__name__
    kinds = sorted({type(text).__name__ for text in texts} - {"str"})
    raise DataError(
        f"the attack gave {what}{f' with {kinds}' if kinds else ''} for {count} texts: it must return one "
        "text for each, as str, in a list or as `texts` of an object."
    )


def _check(dataset: tf.data.Dataset, *, fraction: float, refresh: str, seed: int) -> None:
    if isinstance(fraction, bool) or not isinstance(fraction, int | float) or not 0.0 <= fraction <= 1.0:
        raise ConfigError(f"fraction = {fraction!r}: it must be a number from 0 to 1.")
    if refresh not in REFRESHES:
        raise ConfigError(f"unknown refresh {refresh!r}; {nearest(str(refresh), REFRESHES)}")
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**31:
        raise ConfigError(f"seed = {seed!r}: it must be a whole number, at least 0 and less than 2^31.")
    spec = dataset.element_spec
    if not isinstance(spec, tuple) or len(spec) not in _LABELLED:
        raise ConfigError("the dataset must give (inputs, labels) or (inputs, labels, weights).")
    for label in tf.nest.flatten(spec[1]):
        batched_rank = 2 if label.dtype.is_floating else 1
        if label.shape.rank is not None and label.shape.rank < batched_rank:
            raise ConfigError(
                f"the dataset is not batched: its labels have the shape {label.shape}. Put .batch(...) "
                "before with_adversarial, and .unbatch() behind it where single rows are needed."
            )
    if refresh == "never" and dataset.cardinality() == tf.data.INFINITE_CARDINALITY:
        raise ConfigError(
            "refresh = 'never' keeps all elements, and this dataset has no end: put with_adversarial before "
            ".repeat(), or .take(...) before it."
        )
