"""The set of inputs that an attack may answer with, and steps and projections within it.

Points are carried in float32, or float64 for float64 inputs; the budget holds in the dtype of the inputs, as
every limit is rounded towards the clean input.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf

# A float32 sum of squares over an image has a relative error of this order: the l2 ball is as much smaller.
_SUM_MARGIN = 1.0 - 2.0**-18


def compute_dtype(dtype: tf.DType) -> tf.DType:
    """Gives the type in which an attack computes for inputs of a type."""
    return tf.float64 if dtype == tf.float64 else tf.float32


def as_number(value: Any, dtype: tf.DType) -> tf.Tensor:
    """Takes a number, or a tensor, in the type in which an attack computes for inputs of a type."""
    # tf.cast would take a Python number by way of float32.
    wanted = compute_dtype(dtype)
    return tf.cast(value, wanted) if tf.is_tensor(value) else tf.constant(value, wanted)


def per_example(values: tf.Tensor, like: tf.Tensor) -> tf.Tensor:
    """Reshapes ``(batch,)`` so that it broadcasts against a batch ``(batch, ...)``."""
    return tf.reshape(values, tf.concat([tf.shape(values), tf.ones([tf.rank(like) - 1], tf.int32)], axis=0))


def norms(values: tf.Tensor) -> tf.Tensor:
    """Computes each example's Euclidean norm, safe from underflow and overflow.

    Args:
        values: ``(batch, ...)``.

    Returns:
        ``(batch,)``.
    """
    axes = list(range(1, values.shape.rank))
    largest = tf.reduce_max(tf.abs(values), axis=axes, keepdims=True)
    scaled = tf.math.divide_no_nan(values, largest)
    return tf.reshape(largest, [-1]) * tf.sqrt(tf.reduce_sum(tf.square(scaled), axis=axes))


def unit(values: tf.Tensor) -> tf.Tensor:
    """Scales each example to Euclidean norm 1; an example of zeros stays as it is.

    Args:
        values: ``(batch, ...)``.
    """
    axes = list(range(1, values.shape.rank))
    largest = tf.reduce_max(tf.abs(values), axis=axes, keepdims=True)
    scaled = tf.math.divide_no_nan(values, largest)
    length = tf.sqrt(tf.reduce_sum(tf.square(scaled), axis=axes, keepdims=True))
    return tf.math.divide_no_nan(scaled, length)


class Ball:
    """All inputs within a budget of the clean ones, and within the bounds of an input.

    Args:
        clean: The clean inputs, floating point ``(batch, ...)``.
        radius: The budget in the inputs' own unit, a scalar or ``(batch,)``.
        norm: ``"linf"`` or ``"l2"``.
        bounds: Lowest and highest value of an input; None for inputs without bounds.
        mask: What may be moved, 1 or 0, of a shape that broadcasts to ``clean``; None for everything.
    """

    def __init__(
        self,
        clean: tf.Tensor,
        radius: Any,
        *,
        norm: str,
        bounds: tuple[float, float] | None = None,
        mask: tf.Tensor | None = None,
    ) -> None:
        self.dtype: tf.DType = clean.dtype
        self.norm = norm
        self.clean = tf.stop_gradient(tf.cast(clean, compute_dtype(clean.dtype)))
        self.radius = as_number(radius, clean.dtype)
        self._mask = None if mask is None else tf.cast(mask, self.clean.dtype)
        self._bounds = bounds
        if norm == "linf":
            size = self._wide(self.radius)
            self._lower = self._bounded(self._rounded(self.clean - size, size))
            self._upper = self._bounded(self._rounded(self.clean + size, size))

    def direction(self, gradient: tf.Tensor) -> tf.Tensor:
        """Gives the direction of steepest ascent, of norm 1 in the ball's norm; zero where there is none.

        Args:
            gradient: ``(batch, ...)``; what is not finite in it counts as zero.
        """
        finite = tf.where(tf.math.is_finite(gradient), gradient, tf.zeros_like(gradient))
        if self._mask is not None:
            finite *= self._mask
        return tf.sign(finite) if self.norm == "linf" else unit(finite)

    def ascend(self, points: tf.Tensor, gradient: tf.Tensor, size: Any) -> tf.Tensor:
        """Takes a step of steepest ascent and projects it back.

        Args:
            points: ``(batch, ...)`` within the ball.
            gradient: Of the same shape.
            size: Length of the step in the ball's norm, a scalar or ``(batch,)``.
        """
        return self.project(points + self._wide(size) * self.direction(gradient))

    def project(self, points: tf.Tensor) -> tf.Tensor:
        """Moves points into the ball and the bounds.

        Args:
            points: ``(batch, ...)``.
        """
        if self.norm == "linf":
            return tf.clip_by_value(points, self._lower, self._upper)
        moved = points - self.clean
        length = norms(moved)
        # A length of zero would divide to a shrink of zero, which does no harm.
        shrink = tf.math.divide_no_nan(self.radius * _SUM_MARGIN, length)
        moved *= self._wide(tf.minimum(shrink, tf.ones_like(shrink)))
        return self._bounded(self._rounded(self.clean + moved, tf.abs(moved)))

    def contains(self, points: tf.Tensor) -> tf.Tensor:
        """Says of each example whether its point lies in the ball, bool ``(batch,)``.

        Args:
            points: ``(batch, ...)`` within the bounds.
        """
        if self.norm == "l2":
            return norms(points - self.clean) <= self.radius * _SUM_MARGIN
        inside = (points >= self._lower) & (points <= self._upper)
        return tf.reduce_all(inside, axis=list(range(1, points.shape.rank)))

    def corner(self, signs: tf.Tensor) -> tf.Tensor:
        """Gives the highest point of a ``"linf"`` ball where signs are positive, and the lowest elsewhere.

        Args:
            signs: Of a shape that broadcasts to the clean inputs.
        """
        return tf.where(signs > 0, self._upper, self._lower)

    def random(self, seed: tf.Tensor) -> tf.Tensor:
        """Draws one point for each example, uniformly from the ball, then moved into the bounds.

        Args:
            seed: int32 ``(2,)``.
        """
        shape, dtype = tf.shape(self.clean), self.clean.dtype
        if self.norm == "linf":
            noise = tf.random.stateless_uniform(shape, seed, -1.0, 1.0, dtype)
        else:
            seeds = tf.random.split(seed, 2)
            heading = self.direction(tf.random.stateless_normal(shape, seeds[0], dtype=dtype))
            features = tf.cast(tf.reduce_prod(shape[1:]), dtype)
            if self._mask is not None:
                everywhere = tf.broadcast_to(self._mask, shape)
                features = tf.maximum(tf.reduce_sum(everywhere, axis=list(range(1, heading.shape.rank))), 1.0)
            depth = tf.random.stateless_uniform(shape[:1], seeds[1], dtype=dtype)
            noise = self._wide(depth ** (1.0 / features)) * heading
        return self.project(self.clean + self._wide(self.radius) * noise)

    def inputs(self, points: tf.Tensor) -> tf.Tensor:
        """Gives points in the dtype of the clean inputs, as a model takes them."""
        return tf.cast(points, self.dtype)

    def _wide(self, size: Any) -> tf.Tensor:
        values = as_number(size, self.dtype)
        return per_example(values, self.clean) if values.shape.rank == 1 else values

    def _bounded(self, points: tf.Tensor) -> tf.Tensor:
        return points if self._bounds is None else tf.clip_by_value(points, *self._bounds)

    def _rounded(self, points: tf.Tensor, distance: tf.Tensor) -> tf.Tensor:
        """Rounds points to the inputs' dtype so that none is farther from its clean value than a distance."""
        rounded = tf.cast(self.inputs(points), points.dtype)
        moved = rounded - self.clean
        # A value times the dtype's spacing at 1 is one to two units in its last place: two may be too many.
        back = rounded - tf.sign(moved) * tf.abs(rounded) * _spacing(self.dtype)
        back = tf.cast(self.inputs(back), points.dtype)
        back = tf.where(tf.abs(back - self.clean) > distance, self.clean, back)
        return tf.where(tf.abs(moved) > distance, back, rounded)


def _spacing(dtype: tf.DType) -> float:
    return {tf.bfloat16: 2.0**-7, tf.float16: 2.0**-10, tf.float32: 2.0**-23, tf.float64: 2.0**-52}[dtype]
