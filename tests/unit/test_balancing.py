"""Which rows an epoch holds: classes equally often, rows taking turns, views one after another."""

import numpy as np
import pytest
import tensorflow as tf

from tfapp.data.balancing import draw_balanced, draw_each_once, draw_views
from tfapp.data.bucketing import FeatureRows, TokenRows, training_batches
from tfapp.data.encoded import EncodedTexts
from tfapp.errors import ConfigError

LABELS = np.repeat([0, 1, 3], [60, 9, 2]).astype(np.int32)  # no row of class 2
LABELS = np.random.default_rng(5).permutation(LABELS)


def drawn(draw, epochs):
    return [[part.numpy() for part in draw(tf.constant(epoch, tf.int64))] for epoch in range(epochs)]


def test_classes_are_drawn_equally_often_within_an_epoch():
    for rows, _ in drawn(draw_balanced(LABELS, seed=1), 5):
        assert rows.dtype == np.int32
        counts = np.bincount(LABELS[rows])
        assert (counts.sum(), counts[2]) == (71, 0)
        assert np.ptp(counts[[0, 1, 3]]) <= 1


def test_rows_of_a_class_take_turns_over_epochs():
    rows, turns = np.concatenate(drawn(draw_balanced(LABELS, seed=1), 7), axis=1)
    for label in (0, 1, 3):
        members = rows[LABELS[rows] == label]
        times = np.bincount(members, minlength=len(LABELS))[label == LABELS]
        assert np.ptp(times) <= 1
        count = (label == LABELS).sum()
        assert set(members[:count]) == set(np.flatnonzero(label == LABELS))
        np.testing.assert_array_equal(turns[LABELS[rows] == label], np.arange(len(members)) // count)


def test_the_seed_decides_the_order_and_nothing_is_remembered():
    draw = draw_balanced(LABELS, seed=1)
    first = drawn(draw, 3)
    later = draw(tf.constant(2, tf.int64))
    np.testing.assert_array_equal(first[2], later)
    np.testing.assert_array_equal(first, drawn(draw_balanced(LABELS, seed=1), 3))
    assert (first[0][0] != drawn(draw_balanced(LABELS, seed=2), 1)[0][0]).any()


def test_views_follow_one_another_and_begin_at_random():
    once = draw_views(draw_each_once(200), 200, views=3, seed=1)
    views = []
    for rows, _ in drawn(once, 6):
        assert sorted(rows % 200) == list(range(200))
        views.append(rows[np.argsort(rows % 200)] // 200)
    views = np.array(views)
    np.testing.assert_array_equal(views[1:], (views[:-1] + 1) % 3)
    assert (np.bincount(views[0]) > 40).all()  # 67 of 200 expected, 4 standard errors are 27
    repeated = draw_views(draw_balanced(LABELS, seed=1), len(LABELS), views=2, seed=1)
    rows = drawn(repeated, 1)[0][0]
    for row in np.flatnonzero(LABELS == 3):
        seen = rows[rows % len(LABELS) == row] // len(LABELS)
        assert (np.diff(seen) != 0).all()  # the repeats of a row change views


def batches(rows, labels, *, epochs, batch_size=8, **options):
    steps = -(-len(labels) // batch_size)
    return list(training_batches(rows, labels, batch_size=batch_size, seed=3, **options).take(steps * epochs))


def test_balanced_batches_of_texts_belong_to_their_labels_and_go_on_after_a_break():
    lengths = np.random.default_rng(0).integers(3, 40, len(LABELS))
    values = np.concatenate([1000 * (row + 1) + np.arange(n) for row, n in enumerate(lengths)])
    splits = np.concatenate([[0], np.cumsum(lengths)])
    encoded = EncodedTexts(values.astype(np.int32), splits, lengths.astype(np.int32), 40)
    rows = TokenRows(encoded, pad_id=0)
    unbroken = batches(rows, LABELS, epochs=3, sampling="balanced")
    resumed = batches(rows, LABELS, epochs=1, sampling="balanced", first_epoch=2)
    for (inputs, labels), (again, labels_again) in zip(unbroken[18:], resumed, strict=True):
        np.testing.assert_array_equal(labels, labels_again)
        np.testing.assert_array_equal(inputs["token_ids"], again["token_ids"])
    for epoch in range(3):
        of_epoch = unbroken[9 * epoch : 9 * epoch + 9]
        assert sorted(len(labels) for _, labels in of_epoch) == [7] + [8] * 8
        counts = np.bincount(np.concatenate([labels for _, labels in of_epoch]))
        assert np.ptp(counts[[0, 1, 3]]) <= 1
        for inputs, labels in of_epoch:
            ids, mask = inputs["token_ids"].numpy(), inputs["padding_mask"].numpy()
            numbers = ids[:, 0] // 1000 - 1
            np.testing.assert_array_equal(LABELS[numbers], labels)
            np.testing.assert_array_equal(mask.sum(axis=1), lengths[numbers])


@pytest.mark.parametrize("sampling", ["natural", "balanced"])
def test_features_in_several_views_keep_their_labels(sampling):
    count = len(LABELS)
    features = np.arange(3 * count, dtype=np.float32)[:, None]  # a row's feature is its number
    found = batches(FeatureRows({"features": features}), LABELS, epochs=3, views=3, sampling=sampling)
    seen = []
    for inputs, labels in found:
        numbers = inputs["features"].numpy()[:, 0].astype(int)
        np.testing.assert_array_equal(LABELS[numbers % count], labels)
        seen += numbers.tolist()
    assert len(seen) == 3 * count
    if sampling == "natural":
        assert sorted(seen) == list(range(3 * count))  # three epochs show each row in all of its views


def test_an_unknown_sampling_is_refused():
    rows = FeatureRows({"features": np.zeros((2, 1), np.float32)})
    with pytest.raises(ConfigError, match="unknown sampling 'balance'; did you mean 'balanced'"):
        training_batches(rows, np.zeros(2, np.int32), batch_size=1, seed=0, sampling="balance")
