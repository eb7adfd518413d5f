"""Descriptions of functions: equal where they do the same, in every process."""

import json
import subprocess
import sys
from functools import partial, wraps

import numpy as np
import pytest
import tensorflow as tf

from tfapp.attacks import embedding_pgd, pgd
from tfapp.data.digests import describe_callable
from tfapp.errors import ConfigError

RADIUS = 0.1


def make_attack(epsilon):
    def attack(model_fn, values, labels, *, seed):
        return values + epsilon

    return attack


def reads_a_global(values):
    return values + RADIUS


def logged(function):
    @wraps(function)
    def run(*given):
        return function(*given)

    return run


class Moves:
    def __init__(self, epsilon):
        self.epsilon = epsilon

    def __call__(self, values):
        return values + self.epsilon

    def move(self, values):
        return values + self.epsilon


DIFFERENT = {
    "partials": (partial(pgd, epsilon=0.1), partial(pgd, epsilon=0.2)),
    "their functions": (partial(pgd, epsilon=0.1), partial(embedding_pgd, epsilon=0.1)),
    "their arguments": (partial(make_attack, 0.1), partial(make_attack, 0.2)),
    "closures": (make_attack(0.1), make_attack(0.2)),
    "partials of closures": (partial(make_attack(0.1), seed=0), partial(make_attack(0.2), seed=0)),
    "arrays": (make_attack(np.zeros(3000)), make_attack(np.eye(3000)[1])),
    "defaults": (lambda values, epsilon=0.1: values, lambda values, epsilon=0.2: values),
    "code": (lambda values: values + 0.1, lambda values: values + 0.2),
    "inner code": (lambda: lambda values: values + 0.1, lambda: lambda values: values + 0.2),
    "decorated": (logged(make_attack(0.1)), logged(make_attack(0.2))),
    "compiled": (tf.function(make_attack(0.1)), tf.function(make_attack(0.2))),
    "objects": (Moves(0.1), Moves(0.2)),
    "methods": (Moves(0.1).move, Moves(0.2).move),
}


@pytest.mark.parametrize("kind", DIFFERENT)
def test_functions_with_another_epsilon_are_told_apart(kind):
    one, other = map(describe_callable, DIFFERENT[kind])
    assert json.dumps(one) != json.dumps(other)


@pytest.mark.parametrize(
    "make",
    [
        lambda: partial(pgd, epsilon=np.float32(0.1), bounds=(0.0, 255.0)),
        lambda: make_attack(np.arange(3)),
        lambda: Moves(0.1),
        lambda: Moves(0.1).move,
        lambda: tf.function(make_attack(0.1)),
    ],
)
def test_functions_that_are_made_alike_are_the_same(make):
    one, other = json.dumps(describe_callable(make())), json.dumps(describe_callable(make()))
    assert one == other
    assert " at 0x" not in one


def test_a_plain_global_counts(monkeypatch):
    before = describe_callable(reads_a_global)
    monkeypatch.setitem(globals(), "RADIUS", 0.2)
    assert describe_callable(reads_a_global) != before


def test_a_function_that_calls_itself_is_described():
    def down(count):
        return down(count - 1) if count else 0

    assert describe_callable(down)["closes_over"] == {"down": "down"}


def test_a_description_is_the_same_in_another_process():
    script = (
        "from functools import partial\nfrom tfapp.data.digests import describe_callable\n"
        "def made(epsilon):\n    return lambda word: word in {'a', 'b', 'c', 'd'} or epsilon\n"
        "print(describe_callable(partial(made(0.1), 'a')))"
    )
    found = {
        subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=120
        ).stdout
        for _ in range(3)
    }
    assert len(found) == 1


def test_what_cannot_be_told_is_refused_by_name():
    surrogate = iter([1.0])

    def attack(model_fn, values, labels, *, seed):
        return surrogate

    with pytest.raises(ConfigError, match=r"surrogate .* numbers, texts, arrays and other functions"):
        describe_callable(attack)
