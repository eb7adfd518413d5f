"""Drives the long attacks: step by step, in batches, and only on the examples that still stand."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol

import numpy as np
import tensorflow as tf

from tfapp.attacks._ball import Ball, per_example
from tfapp.attacks._checks import ModelFn, fold
from tfapp.attacks._compiled import CompiledModel, as_compiled

Tensors = dict[str, tf.Tensor]
Numbers = tuple[tf.Tensor, tf.Tensor]  # the radius and the seed

# Examples that are done stay in their batch until this share of it is: each new shape costs a set-up.
_DROP_SHARE = 1 / 8
_LONGEST_BLOCK = 32


class Search(Protocol):
    """One way to search for adversarial examples; hashable, so that it is compiled once.

    Its state is a dict of tensors, each with one row an example, among them ``done``, whether an example
    needs no more steps, and ``answer``, its best point so far.
    """

    @property
    def norm(self) -> str:
        """The norm of the budget."""

    @property
    def bounds(self) -> tuple[float, float]:
        """Lowest and highest value of an input."""

    @property
    def num_steps(self) -> int:
        """How many steps follow the beginning, at most."""

    def begin(self, model_fn: ModelFn, ball: Ball, given: Tensors, seed: tf.Tensor) -> Tensors:
        """Makes the first state.

        Args:
            model_fn: The model.
            ball: The budget around the images.
            given: One row an example, ``labels`` among them.
            seed: int32 ``(2,)``.
        """

    def advance(
        self, model_fn: ModelFn, ball: Ball, given: Tensors, seed: tf.Tensor, state: Tensors, step: tf.Tensor
    ) -> Tensors:
        """Takes one step; ``step`` counts from 0."""


def run_rounds(
    model_fn: ModelFn,
    rounds: Iterable[tuple[Search, Tensors]],
    given: Tensors,
    *,
    radius: tf.Tensor,
    seed: tf.Tensor,
    batch_size: int,
) -> tf.Tensor:
    """Runs searches one after the other, each on the examples that the earlier ones left standing.

    Args:
        model_fn: The model.
        rounds: Searches, each with what is added for its round, one row an example.
        given: The examples, one row each: ``images``, ``labels``, ``answer``, which are the images, and
            ``done``, which of them need no attack.
        radius: The budget in the images' own unit, a scalar.
        seed: int32 ``(2,)``.
        batch_size: How many examples are attacked at a time when called eagerly.

    Returns:
        The answers: of each example that of the round that finished it, or else of the last round.
    """
    eager = tf.executing_eagerly()
    for number, (search, extra) in enumerate(rounds):
        numbers = radius, fold(seed, number)
        if eager:
            given = _run_on_standing(as_compiled(model_fn), search, {**given, **extra}, numbers, batch_size)
        else:
            state = _begin(model_fn, search, {**given, **extra}, numbers)
            steps = tf.constant(0), tf.constant(search.num_steps)
            state = _advance(model_fn, search, {**given, **extra}, numbers, state, *steps)
            standing = per_example(~given["done"], given["answer"])
            answer = tf.where(standing, state["answer"], given["answer"])
            given = {**given, "answer": answer, "done": given["done"] | state["done"]}
    return given["answer"]


def _begin(model_fn: ModelFn, search: Search, given: Tensors, numbers: Numbers) -> Tensors:
    radius, seed = numbers
    state = search.begin(model_fn, _ball(search, given, radius), given, seed)
    return {**state, "done": state["done"] | given["done"]}


def _advance(
    model_fn: ModelFn,
    search: Search,
    given: Tensors,
    numbers: Numbers,
    state: Tensors,
    first: tf.Tensor,
    end: tf.Tensor,
) -> Tensors:
    radius, seed = numbers
    ball = _ball(search, given, radius)

    def going_on(step: tf.Tensor, state: Tensors) -> tf.Tensor:
        return (step < end) & ~tf.reduce_all(state["done"])

    def advance(step: tf.Tensor, state: Tensors) -> tuple[tf.Tensor, Tensors]:
        return step + 1, search.advance(model_fn, ball, given, seed, state, step)

    _, state = tf.while_loop(going_on, advance, (first, state))
    return state


def _ball(search: Search, given: Tensors, radius: tf.Tensor) -> Ball:
    return Ball(given["images"], radius, norm=search.norm, bounds=search.bounds)


def _run_on_standing(
    model: CompiledModel, search: Search, given: Tensors, numbers: Numbers, batch_size: int
) -> Tensors:
    answers, done = given["answer"].numpy(), given["done"].numpy()
    standing = np.flatnonzero(~done)
    for number, first in enumerate(range(0, len(standing), batch_size)):
        rows = standing[first : first + batch_size]
        batch = {name: tf.gather(values, rows) for name, values in given.items()}
        radius, seed = numbers
        for finished, state in _run_batch(model, search, batch, (radius, fold(seed, number))):
            answers[rows[finished]] = state["answer"].numpy()
            done[rows[finished]] = state["done"].numpy()
    return {**given, "answer": tf.constant(answers), "done": tf.constant(done)}


def _run_batch(
    model: CompiledModel, search: Search, given: Tensors, numbers: Numbers
) -> Iterable[tuple[np.ndarray, Tensors]]:
    """Searches one batch; yields the positions that are finished, and their last state."""

    def begin(model_fn: ModelFn, *arguments: Any) -> Tensors:
        return _begin(model_fn, search, *arguments)

    def advance(model_fn: ModelFn, *arguments: Any) -> Tensors:
        return _advance(model_fn, search, *arguments)

    rows = np.arange(len(given["answer"]))
    state = model.run((search, "begin"), begin, given, numbers)
    step, length = 0, 1
    while True:
        done = state["done"].numpy()
        over = step == search.num_steps or bool(done.all())
        if over or done.mean() >= _DROP_SHARE:
            leaving = np.flatnonzero(done | over)
            yield rows[leaving], _take(state, leaving)
            if over:
                return
            staying = np.flatnonzero(~done)
            rows, state, given = rows[staying], _take(state, staying), _take(given, staying)
            length = 1
        end = min(step + length, search.num_steps)
        steps = tf.constant(step), tf.constant(end)
        state = model.run((search, "advance"), advance, given, numbers, state, *steps)
        step, length = end, min(2 * length, _LONGEST_BLOCK)


def _take(values: Tensors, rows: np.ndarray) -> Tensors:
    return {name: tf.gather(value, rows) for name, value in values.items()}
