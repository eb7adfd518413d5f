"""The square attack's searches: which squares are tried, and what is kept of them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tfapp.attacks._ball import Ball, per_example, unit
from tfapp.attacks._checks import ModelFn, fold
from tfapp.attacks._losses import is_wrong, logits_of, margin
from tfapp.attacks._search import Tensors

_FIRST_SHARE = 0.8  # of the image's pixels, in the first squares
_HALVED_AFTER = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)  # steps
_TILES = 5  # in the height of an image, at the start under l2


def square_sides(height: int, width: int, num_steps: int, *, smallest: int = 1) -> list[int]:
    """Gives the side of the squares at each step.

    Args:
        height: Of the image.
        width: Of the image.
        num_steps: How many steps.
        smallest: The smallest side.

    Returns:
        ``num_steps`` sides, none of them larger than the image.
    """
    sides = []
    for step in range(num_steps):
        share = _FIRST_SHARE / 2 ** sum(step > after for after in _HALVED_AFTER)
        side = max(round(math.sqrt(share * height * width)), smallest)
        sides.append(min(side, height, width))
    return sides


@dataclass(frozen=True)
class LinfSquares:
    """Squares of one colour at the edge of the budget.

    Attributes:
        bounds: Lowest and highest value of a pixel.
        num_steps: Squares tried after the start.
        norm: Of the budget.
    """

    bounds: tuple[float, float]
    num_steps: int
    norm: str = "linf"

    def begin(self, model_fn: ModelFn, ball: Ball, given: Tensors, seed: tf.Tensor) -> Tensors:
        """Starts with vertical stripes of random sign in each channel."""
        batch, _, width, channels = tf.unstack(tf.shape(ball.clean))
        signs = _signs(fold(seed, self.num_steps), [batch, 1, width, channels])
        return _first(model_fn, given, ball.inputs(ball.corner(signs)))

    def advance(
        self, model_fn: ModelFn, ball: Ball, given: Tensors, seed: tf.Tensor, state: Tensors, step: tf.Tensor
    ) -> Tensors:
        """Tries one square of random colour at a random place of each image."""
        height, width, channels = ball.clean.shape[1:]
        side = tf.constant(square_sides(height, width, self.num_steps), tf.int32)[step]
        seeds = tf.random.split(fold(seed, step), 2)
        batch = tf.shape(ball.clean)[0]
        mask, _, _ = _windows(seeds[0], batch, side, height, width)
        colours = ball.corner(_signs(seeds[1], [batch, 1, 1, channels]))
        return _better(model_fn, given, state, tf.where(mask, ball.inputs(colours), state["answer"]))


@dataclass(frozen=True)
class L2Squares:
    """Squares of a peaked pattern, which take their energy from another square of the image.

    Attributes:
        bounds: Lowest and highest value of a pixel.
        num_steps: Squares tried after the start.
        norm: Of the budget.
    """

    bounds: tuple[float, float]
    num_steps: int
    norm: str = "l2"

    def begin(self, model_fn: ModelFn, ball: Ball, given: Tensors, seed: tf.Tensor) -> Tensors:
        """Starts with a grid of patterns of random sign and orientation."""
        height, width, channels = ball.clean.shape[1:]
        side = max(min(height, width) // _TILES, 1)
        rows, columns = height // side, width // side
        batch = tf.shape(ball.clean)[0]
        seeds = tf.random.split(fold(seed, self.num_steps), 2)
        signs = _signs(seeds[0], [batch, rows, columns, channels])
        turned = _signs(seeds[1], [batch, rows, columns, 1]) > 0

        def spread(values: tf.Tensor) -> tf.Tensor:
            return tf.repeat(tf.repeat(values, side, axis=1), side, axis=2)

        pattern = tf.constant(peaks(side), ball.clean.dtype)
        upright = tf.tile(pattern, [rows, columns])[tf.newaxis, :, :, tf.newaxis]
        lying = tf.tile(tf.transpose(pattern), [rows, columns])[tf.newaxis, :, :, tf.newaxis]
        grid = spread(tf.cast(signs, ball.clean.dtype)) * tf.where(spread(turned), lying, upright)
        above, before = (height - rows * side) // 2, (width - columns * side) // 2
        grid = tf.image.pad_to_bounding_box(grid, above, before, height, width)
        return _first(model_fn, given, ball.inputs(_on_sphere(ball, grid)))

    def advance(
        self, model_fn: ModelFn, ball: Ball, given: Tensors, seed: tf.Tensor, state: Tensors, step: tf.Tensor
    ) -> Tensors:
        """Moves the energy of one random square of each image into a new pattern at another."""
        height, width, channels = ball.clean.shape[1:]
        sides = [
            min(side + (side + 1) % 2, height, width)
            for side in square_sides(height, width, self.num_steps, smallest=3)
        ]
        side = tf.constant(sides, tf.int32)[step]
        seeds = tf.random.split(fold(seed, step), 4)
        batch = tf.shape(ball.clean)[0]
        into, top, left = _windows(seeds[0], batch, side, height, width)
        out_of, _, _ = _windows(seeds[1], batch, side, height, width)

        delta = tf.cast(state["answer"], ball.clean.dtype) - ball.clean
        squares = tf.square(delta)
        zero = tf.zeros_like(delta)
        unused = tf.maximum(ball.radius**2 - tf.reduce_sum(squares, axis=[1, 2, 3], keepdims=True), 0.0)
        moved = tf.reduce_sum(tf.where(into | out_of, squares, zero), axis=[1, 2], keepdims=True)
        kept = tf.where(into, delta, zero)
        signs = tf.cast(_signs(seeds[2], [batch, 1, 1, channels]), delta.dtype)
        fresh = _placed_peaks(sorted(set(sides)), side, top, left, seeds[3], ball.clean)
        fresh = tf.where(into, signs * fresh, zero) + _unit_channels(kept)
        fresh = _unit_channels(fresh) * tf.sqrt(unused / channels + moved)
        delta = tf.where(into, fresh, tf.where(out_of, zero, delta))
        return _better(model_fn, given, state, ball.inputs(_on_sphere(ball, delta)))


def peaks(side: int) -> npt.NDArray[np.float64]:
    """Gives the pattern of a square under l2: a positive peak above a negative one, of norm 1.

    Args:
        side: Of the square.

    Returns:
        ``(side, side)``.
    """
    upper, lower = _peak(side // 2, side), _peak(side - side // 2, side)
    both = np.concatenate([upper, -lower])
    return np.asarray(both / np.linalg.norm(both))


def _peak(height: int, width: int) -> npt.NDArray[np.float64]:
    """A pyramid of norm 1 whose ring m, counted from the centre, has the sum of 1 / k^2 over k > m."""
    if not height:
        return np.zeros((0, width))
    rows, columns = np.abs(np.arange(height) - height // 2), np.abs(np.arange(width) - width // 2)
    rings = 1.0 / np.arange(1, max(height // 2, width // 2) + 2) ** 2
    tails = np.cumsum(rings[::-1])[::-1]
    values = tails[np.maximum(rows[:, None], columns[None, :])]
    return np.asarray(values / np.linalg.norm(values))


def _placed_peaks(
    sides: list[int], side: tf.Tensor, top: tf.Tensor, left: tf.Tensor, seed: tf.Tensor, like: tf.Tensor
) -> tf.Tensor:
    """Puts a side's pattern, upright or lying, at its place in each image, ``(batch, height, width, 1)``."""
    batch, height, width = tf.shape(like)[0], like.shape[1], like.shape[2]
    canvases = np.zeros((2 * len(sides), height, width))
    for number, length in enumerate(sides):
        canvases[2 * number, :length, :length] = peaks(length)
        canvases[2 * number + 1, :length, :length] = peaks(length).T
    which = tf.argmax(tf.constant(sides, tf.int32) == side, output_type=tf.int32)
    lying = tf.cast(_signs(seed, [batch]) > 0, tf.int32)
    chosen = tf.gather(tf.constant(canvases, like.dtype), 2 * which + lying)
    rows = tf.clip_by_value(tf.range(height) - top[:, tf.newaxis], 0, height - 1)
    columns = tf.clip_by_value(tf.range(width) - left[:, tf.newaxis], 0, width - 1)
    placed = tf.gather(tf.gather(chosen, rows, batch_dims=1), columns, axis=2, batch_dims=1)
    return placed[..., tf.newaxis]


def _windows(
    seed: tf.Tensor, batch: tf.Tensor, side: tf.Tensor, height: int, width: int
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Draws a square in each image: a mask ``(batch, height, width, 1)``, and its top and left."""
    seeds = tf.random.split(seed, 2)
    top = tf.random.stateless_uniform([batch], seeds[0], 0, height - side + 1, tf.int32)
    left = tf.random.stateless_uniform([batch], seeds[1], 0, width - side + 1, tf.int32)

    def within(count: int, first: tf.Tensor) -> tf.Tensor:
        place = tf.range(count)[tf.newaxis]
        return (place >= first[:, tf.newaxis]) & (place < first[:, tf.newaxis] + side)

    mask = within(height, top)[:, :, tf.newaxis] & within(width, left)[:, tf.newaxis, :]
    return mask[..., tf.newaxis], top, left


def _signs(seed: tf.Tensor, shape: list[Any]) -> tf.Tensor:
    return 2 * tf.random.stateless_uniform(shape, seed, 0, 2, tf.int32) - 1


def _unit_channels(values: tf.Tensor) -> tf.Tensor:
    length = tf.sqrt(tf.reduce_sum(tf.square(values), axis=[1, 2], keepdims=True))
    return tf.math.divide_no_nan(values, length)


def _on_sphere(ball: Ball, delta: tf.Tensor) -> tf.Tensor:
    return ball.project(ball.clean + ball.radius * unit(delta))


def _first(model_fn: ModelFn, given: Tensors, points: tf.Tensor) -> Tensors:
    logits = logits_of(model_fn, points)
    margins = margin(logits, given["labels"])
    return {"answer": points, "margin": margins, "done": is_wrong(logits, given["labels"])}


def _better(model_fn: ModelFn, given: Tensors, state: Tensors, points: tf.Tensor) -> Tensors:
    """Keeps points that are misclassified or have a larger margin, in examples that are not done."""
    logits = logits_of(model_fn, points)
    margins, wrong = margin(logits, given["labels"]), is_wrong(logits, given["labels"])
    better = ~state["done"] & (wrong | (margins > state["margin"]))
    return {
        "answer": tf.where(per_example(better, points), points, state["answer"]),
        "margin": tf.where(better, margins, state["margin"]),
        "done": state["done"] | wrong,
    }
