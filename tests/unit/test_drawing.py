"""Drawing rows of a split: all classes of a sorted one, in its order, the same for a seed."""

import numpy as np

from tfapp.data.drawing import draw_rows
from tfapp.data.text import TextSplit

SPLIT = TextSplit(
    "test",
    tuple(f"text {row}" for row in range(300)),
    np.repeat(np.arange(3, dtype=np.int32), 100),
    ("a", "b", "c"),
)


def test_a_sorted_split_shows_all_its_classes():
    features, labels, rows = draw_rows(SPLIT, 60, seed=1)
    assert set(labels.tolist()) == {0, 1, 2}
    assert list(features) == [f"text {row}" for row in rows]
    assert (np.diff(rows) > 0).all()
    np.testing.assert_array_equal(labels, SPLIT.labels[rows])


def test_the_seed_decides_which():
    first, again, other = (draw_rows(SPLIT, 60, seed=seed)[2].tolist() for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_all_rows_are_taken_where_there_are_no_more():
    assert draw_rows(SPLIT, 300)[2].tolist() == draw_rows(SPLIT, 5000)[2].tolist() == list(range(300))
