"""The shortest way from a point onto a hyperplane without leaving a box."""

from __future__ import annotations

import tensorflow as tf

# Every round but the last passes at least one corner of the piecewise linear function below; few are near.
_MOST_ROUNDS = 50


def onto_hyperplane(
    points: tf.Tensor, normals: tf.Tensor, gaps: tf.Tensor, *, norm: str, bounds: tuple[float, float]
) -> tf.Tensor:
    """Finds each point's smallest move ``d`` with ``<normal, d> = gap`` that keeps it within the bounds.

    Under both norms coordinate i of the solution is ``min(t * rate_i, room_i)`` in the helpful direction,
    with rate 1 (linf) or ``|normal_i|`` (l2), and room the distance to the bound. What is gained along the
    normal is a concave, piecewise linear function of t, so Newton's method from t = 0 climbs to the solution
    monotonically and ends on it exactly, where a search over sorted rooms would cost a sort of every image.

    Args:
        points: ``(batch, features)`` within the bounds.
        normals: ``(batch, features)``.
        gaps: ``(batch,)``.
        norm: ``"linf"`` or ``"l2"``: in which the move is smallest.
        bounds: Lowest and highest value of a coordinate.

    Returns:
        The moves, ``(batch, features)``; where the hyperplane is out of reach, the move closest to it.
    """
    heading = tf.sign(normals) * tf.sign(gaps)[:, tf.newaxis]
    room = tf.where(heading > 0, bounds[1] - points, points - bounds[0])
    weight = tf.abs(normals)
    rate = tf.ones_like(weight) if norm == "linf" else weight
    goal = tf.abs(gaps)

    def moves(reach: tf.Tensor) -> tf.Tensor:
        return tf.minimum(reach[:, tf.newaxis] * rate, room)

    def going_on(reach: tf.Tensor, moving: tf.Tensor) -> tf.Tensor:
        return tf.reduce_any(moving)

    def climb(reach: tf.Tensor, moving: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        free = reach[:, tf.newaxis] * rate < room
        slope = tf.reduce_sum(tf.where(free, weight * rate, tf.zeros_like(weight)), axis=1)
        gained = tf.reduce_sum(weight * moves(reach), axis=1)
        ahead = reach + tf.math.divide_no_nan(goal - gained, slope)
        moving &= ahead > reach
        return tf.where(moving, ahead, reach), moving

    reach, _ = tf.while_loop(
        going_on, climb, (tf.zeros_like(goal), goal > 0), maximum_iterations=_MOST_ROUNDS
    )
    return heading * moves(reach)
