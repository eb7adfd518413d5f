"""Random numbers of one batch: the seed alone decides them."""

from __future__ import annotations

import zlib

import tensorflow as tf

_ALGORITHM = "philox"
_TOO_SMALL = 1e-300  # TensorFlow's gamma numbers end at 2e-308


class Draws:
    """Draws random numbers for the images of a batch, each kind by its name.

    Every name has a stream of its own, so that switching one augmentation on leaves the others' numbers as
    they are. Nothing is remembered: the same seed and name give the same numbers, on any number of threads.

    Args:
        seed: int64 ``(2,)``.
        images: How many images the batch has, an int32 scalar.
    """

    def __init__(self, seed: tf.Tensor, images: tf.Tensor) -> None:
        self.seed = seed
        self.images = images

    def _stream(self, name: str) -> tf.Tensor:
        number = zlib.crc32(name.encode()) & 0x7FFFFFFF
        return tf.random.experimental.stateless_fold_in(self.seed, number, alg=_ALGORITHM)

    def within(self, name: str) -> Draws:
        """Further draws that no name of these ones meets."""
        return Draws(self._stream(name), self.images)

    def uniform(self, name: str, low: float = 0.0, high: float = 1.0) -> tf.Tensor:
        """Draws one number an image from ``low`` up to ``high``, float32 ``(batch,)``."""
        return tf.random.stateless_uniform(
            [self.images], self._stream(name), low, high, tf.float32, alg=_ALGORITHM
        )

    def chance(self, name: str, probability: float = 0.5) -> tf.Tensor:
        """Draws yes or no for each image, bool ``(batch,)``."""
        return self.uniform(name) < probability

    def sign(self, name: str) -> tf.Tensor:
        """Draws 1 or -1 for each image, float32 ``(batch,)``."""
        return tf.where(self.chance(name), 1.0, -1.0)

    def below(self, name: str, count: int) -> tf.Tensor:
        """Draws a whole number from 0 to ``count - 1`` for each image, int32 ``(batch,)``."""
        return tf.random.stateless_uniform(
            [self.images], self._stream(name), 0, count, tf.int32, alg=_ALGORITHM
        )

    def shares(self, name: str, count: int, concentration: float) -> tf.Tensor:
        """Draws ``count`` shares that add up to 1 for each image, float32 ``(batch, count)``.

        Args:
            name: Name of the stream.
            count: How many shares, 2 or more; with 2, the first follows a Beta distribution.
            concentration: Of the symmetric Dirichlet distribution; small values favour one share.
        """
        gammas = tf.random.stateless_gamma(
            [self.images, count], self._stream(name), tf.constant(concentration, tf.float64), dtype=tf.float64
        )
        total = tf.reduce_sum(gammas, axis=1, keepdims=True)
        # At a very small concentration all may be too small for numbers: then one share takes all.
        alone = tf.one_hot(self.below(f"{name} alone", count), count, dtype=tf.float64)
        return tf.cast(tf.where(total > _TOO_SMALL, gammas / total, alone), tf.float32)

    def noise(self, name: str, shape: tf.Tensor) -> tf.Tensor:
        """Draws grey levels of any shape, uint8, all values equally likely."""
        words = tf.random.stateless_uniform(shape, self._stream(name), 0, 256, tf.int32, alg=_ALGORITHM)
        return tf.cast(words, tf.uint8)
