"""Stratified splits: shares, disjointness, determinism."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfapp.data.splits import draw_lots, stratified_split
from tfapp.data.text import load_text_data


@st.composite
def problems(draw):
    counts = draw(st.lists(st.integers(3, 60), min_size=2, max_size=6))
    test = draw(st.floats(0.01, 0.6))
    validation = draw(st.floats(0.01, 0.95 - test))
    labels = np.repeat(np.arange(len(counts)), counts)
    keys = np.array([f"text {number}" for number in range(len(labels))], dtype=object)
    return keys, labels, {"test": test, "validation": validation}, draw(st.integers(-(2**70), 2**70))


@settings(max_examples=150, deadline=None)
@given(problems())
def test_every_row_is_in_one_split_and_every_class_in_all(problem):
    keys, labels, fractions, seed = problem
    splits = stratified_split(keys, labels, fractions, seed=seed)
    assert sorted(np.concatenate(list(splits.values())).tolist()) == list(range(len(keys)))
    for positions in splits.values():
        assert set(labels[positions].tolist()) == set(labels.tolist())


@settings(max_examples=150, deadline=None)
@given(problems())
def test_every_class_has_its_share(problem):
    keys, labels, fractions, seed = problem
    counts = np.bincount(labels)
    splits = stratified_split(keys, labels, fractions, seed=seed)
    for split, fraction in fractions.items():
        exact = counts * fraction
        drawn = np.bincount(labels[splits[split]], minlength=len(counts))
        room = counts * (1 - sum(fractions.values())) >= 2  # else one row is kept back for training
        assert np.all(drawn[room] <= np.maximum(np.ceil(exact), 1)[room])
        assert np.all(drawn[room] >= np.floor(exact)[room])


@settings(max_examples=50, deadline=None)
@given(problems(), st.randoms(use_true_random=False))
def test_another_order_of_the_rows_draws_the_same_texts(problem, random):
    keys, labels, fractions, seed = problem
    order = list(range(len(keys)))
    random.shuffle(order)
    one = stratified_split(keys, labels, fractions, seed=seed)
    other = stratified_split(keys[order], labels[order], fractions, seed=seed)
    assert {s: set(keys[p]) for s, p in one.items()} == {s: set(keys[order][p]) for s, p in other.items()}


def test_whole_number_shares_are_exact():
    labels = np.repeat([0, 1], [700, 300])
    keys = [str(number) for number in range(1000)]
    splits = stratified_split(keys, labels, {"test": 0.2, "validation": 0.1}, seed=3)
    assert {name: np.bincount(labels[at]).tolist() for name, at in splits.items()} == {
        "train": [490, 210],
        "validation": [70, 30],
        "test": [140, 60],
    }


def test_seeds_draw_differently():
    keys = [str(number) for number in range(1000)]
    labels = np.zeros(1000, np.int64)
    first, second = (
        set(stratified_split(keys, labels, {"test": 0.3}, seed=s)["test"].tolist()) for s in (0, 1)
    )
    # By chance two draws of 300 share 90 on average, with a standard deviation of 8.
    assert 50 < len(first & second) < 130


def test_lots_are_the_same_everywhere():
    assert draw_lots(["a", "酒店"], 7).tolist() == [432474422086081222, 9462995276717540599]


def test_fingerprint_does_not_depend_on_the_process():
    code = (
        "from tfapp.data.text import load_text_data\n"
        "rows = [(f'text {i}', i % 3) for i in range(50)]\n"
        "print(load_text_data(rows, seed=5).fingerprint)"
    )
    shown = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        for seed in ("1", "2")
    }
    assert shown == {load_text_data([(f"text {i}", i % 3) for i in range(50)], seed=5).fingerprint}


@pytest.mark.parametrize("given_splits", ["test", "validation"])
def test_a_given_split_is_taken_whole(given_splits):
    rows = [(f"text {i}", i % 2) for i in range(100)]
    other = [(f"other {i}", i % 2) for i in range(10)]
    data = load_text_data(rows, **{given_splits: other})
    assert len(data.splits[given_splits]) == 10
    drawn = {"test": data.validation, "validation": data.test}[given_splits]
    assert len(drawn) == {"test": 10, "validation": 20}[given_splits]
    assert len(data.train) + len(drawn) == 100
