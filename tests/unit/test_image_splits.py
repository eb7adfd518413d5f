"""Grouped splits: groups stay whole, classes keep their shares, the order of rows does not matter."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfapp.data.clusters import Clusters, join_partitions
from tfapp.data.grouped_splits import check_groups, few_groups, grouped_split
from tfapp.errors import DataError

FRACTIONS = {"test": 0.2, "validation": 0.1}


@st.composite
def problems(draw):
    classes = draw(st.integers(2, 5))
    labels, groups = [], []
    for number in range(classes):
        for size in draw(st.lists(st.integers(1, 9), min_size=6, max_size=30)):
            groups += [len(set(groups))] * size
            labels += [number] * size
    keys = np.array([f"key {number}" for number in range(len(labels))], dtype=object)
    return keys, np.array(labels), np.array(groups, np.int64), draw(st.integers(0, 2**40))


@settings(max_examples=60, deadline=None)
@given(problems())
def test_groups_stay_whole_and_every_class_is_everywhere(problem):
    keys, labels, groups, seed = problem
    splits = grouped_split(keys, labels, groups, FRACTIONS, seed=seed)
    assert sorted(np.concatenate(list(splits.values())).tolist()) == list(range(len(keys)))
    owners = [set(groups[positions].tolist()) for positions in splits.values()]
    assert sum(map(len, owners)) == len(set(groups.tolist()))
    for positions in splits.values():
        assert set(labels[positions].tolist()) == set(labels.tolist())


@settings(max_examples=60, deadline=None)
@given(problems())
def test_classes_keep_their_shares_but_for_about_one_group(problem):
    keys, labels, groups, seed = problem
    splits = grouped_split(keys, labels, groups, FRACTIONS, seed=seed)
    counts, largest = np.bincount(labels), np.bincount(groups).max()
    for split, fraction in FRACTIONS.items():
        drawn = np.bincount(labels[splits[split]], minlength=len(counts))
        assert np.all(np.abs(drawn - counts * fraction) <= largest + 1)


@settings(max_examples=30, deadline=None)
@given(problems(), st.randoms(use_true_random=False))
def test_neither_the_order_of_the_rows_nor_the_numbers_of_groups_matter(problem, random):
    keys, labels, groups, seed = problem
    order = list(range(len(keys)))
    random.shuffle(order)
    one = grouped_split(keys, labels, groups, FRACTIONS, seed=seed)
    other = grouped_split(keys[order], labels[order], 7 - 3 * groups[order], FRACTIONS, seed=seed)
    assert {s: set(keys[p]) for s, p in one.items()} == {s: set(keys[order][p]) for s, p in other.items()}


def test_seeds_draw_differently():
    labels, groups = np.repeat([0, 1], 100), np.repeat(np.arange(100), 2)
    keys = [str(number) for number in range(200)]
    drawn = [set(grouped_split(keys, labels, groups, FRACTIONS, seed=s)["test"].tolist()) for s in (0, 1)]
    assert [len(part) for part in drawn] == [40, 40]
    assert drawn[0] != drawn[1]


def test_single_rows_fill_up_to_exact_shares():
    labels = np.repeat([0, 1], [70, 30])
    groups = np.arange(100)
    groups[:10] = 0
    splits = grouped_split([str(n) for n in range(100)], labels, groups, FRACTIONS, seed=3)
    assert np.bincount(labels[splits["test"]]).tolist() == [14, 6]
    assert np.bincount(labels[splits["validation"]]).tolist() == [7, 3]


def test_classes_in_too_few_groups_are_named():
    labels, groups = np.array([0, 0, 0, 1, 1, 1, 1]), np.array([0, 1, 2, 3, 3, 4, 4])
    assert few_groups(labels, groups, 2, 3).tolist() == [1]
    with pytest.raises(DataError, match=r"1 class in fewer than 3 groups.*'dog' \(2 groups\)"):
        check_groups(labels, groups, ("cat", "dog"), ("train", "test", "validation"))


def test_groups_that_hold_all_of_two_classes_are_refused():
    labels = np.array([0, 1, 0, 1, 2, 2, 2])
    groups = np.array([0, 0, 0, 0, 1, 2, 3])
    with pytest.raises(DataError, match="no split can be drawn that keeps the groups together"):
        grouped_split(list("abcdefg"), labels, groups, FRACTIONS, seed=0)


def test_clusters_connect_through_others_however_many_pairs_there_are(monkeypatch):
    monkeypatch.setattr("tfapp.data.clusters._MOST_EDGES", 2)
    clusters = Clusters(6)
    for left, right in ((0, 3), (1, 2), (3, 5), (4, 4)):
        clusters.connect(np.array([left]), np.array([right]))
    labels = clusters.labels()
    assert labels[0] == labels[3] == labels[5]
    assert labels[1] == labels[2]
    assert len(set(labels.tolist())) == 3


def test_partitions_are_joined():
    joined = join_partitions([np.array([0, 0, 1, 2, 3]), np.array([5, 6, 6, 7, 8])])
    assert joined[0] == joined[1] == joined[2]
    assert len(set(joined.tolist())) == 3
