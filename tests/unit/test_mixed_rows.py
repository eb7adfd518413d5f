"""Batches of two tasks: which rows they hold, in which order, and how they are padded."""

import numpy as np
import pytest
import tensorflow as tf

from tfapp.data.bucketing import FeatureRows, TokenRows, training_batches
from tfapp.data.encoded import EncodedTexts
from tfapp.data.mixed_rows import MixedRows, SourceRows, augment_both

TARGET, SOURCE, CLASSES = 10, 7, 3


def token_rows(lengths, first_id, pad_to=1):
    splits = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    values = (first_id + np.arange(splits[-1])).astype(np.int32)
    encoded = EncodedTexts(values, splits, np.asarray(lengths, np.int32), max_length=64)
    return TokenRows(encoded, pad_id=9, pad_to=pad_to)


def mixed(pad_to=1):
    lengths = np.random.default_rng(0).integers(3, 30, TARGET + SOURCE)
    target, source = token_rows(lengths[:TARGET], 1000, pad_to), token_rows(lengths[TARGET:], 5000, pad_to)
    return MixedRows(target, source), target, source


@pytest.mark.parametrize("pad_to", [1, 8])
def test_rows_are_gathered_as_from_each_task_alone(pad_to):
    rows, target, source = mixed(pad_to)
    batch = rows.gather(tf.constant([4, 1, TARGET + 6, TARGET]))
    places = [(target, 4), (target, 1), (source, 6), (source, 0)]
    alone = [part.gather(tf.constant([row])) for part, row in places]
    assert batch["token_ids"].shape == (4, max(part["token_ids"].shape[1] for part in alone))
    for row, part in enumerate(alone):
        width = part["token_ids"].shape[1]
        for name, filler in (("token_ids", 9), ("padding_mask", 0), ("segment_ids", 0)):
            np.testing.assert_array_equal(batch[name][row, :width], part[name][0])
            assert (batch[name].numpy()[row, width:] == filler).all()


def test_cached_token_vectors_are_padded_with_zeros_and_a_mask():
    def cached(lengths, number):
        splits = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        return FeatureRows({"hidden": np.full((splits[-1], 2), number, np.float32)}, splits)

    batch = MixedRows(cached([2, 3], 1.0), cached([5], 2.0)).gather(tf.constant([0, 2]))
    assert batch["hidden"].shape == (2, 5, 2)
    np.testing.assert_array_equal(batch["padding_mask"], [[1, 1, 0, 0, 0], [1] * 5])
    np.testing.assert_array_equal(batch["hidden"][..., 0], [[1, 1, 0, 0, 0], [2] * 5])


def test_rows_of_one_size_are_stacked():
    target, source = (FeatureRows({"features": np.full((3, 4), n, np.float32)}) for n in (1, 2))
    batch = MixedRows(target, source).gather(tf.constant([0, 5, 4]))
    np.testing.assert_array_equal(batch["features"], np.repeat([[1.0], [2.0], [2.0]], 4, axis=1))


def planned(epochs, *, first=0, batch_size=4, beside=3, seed=5):
    """The labels of every batch, where a label is the number of its row."""
    rows, _, _ = mixed()
    labels = np.arange(TARGET, dtype=np.int32)
    source = SourceRows(rows, np.arange(TARGET, TARGET + SOURCE, dtype=np.int32), batch_size=beside, seed=9)
    batches = training_batches(
        rows, labels, batch_size=batch_size, seed=seed, first_epoch=first, beside=source
    )
    steps = -(-TARGET // batch_size)
    given = [batch[1].numpy() for batch in batches.take(epochs * steps)]
    return [given[start : start + steps] for start in range(0, len(given), steps)]


def test_every_batch_holds_both_tasks_and_an_epoch_every_target_row_once():
    for epoch in planned(4):
        target = np.concatenate([batch[batch < TARGET] for batch in epoch])
        assert sorted(target) == list(range(TARGET))
        for batch in epoch:
            assert (np.diff(batch >= TARGET) >= 0).all()  # the target's rows first
            assert (batch >= TARGET).sum() == 3


@pytest.mark.parametrize("beside", [1, 3, 20])
def test_the_source_is_seen_evenly_over_epochs(beside):
    drawn = np.concatenate([np.concatenate(epoch) for epoch in planned(14, beside=beside)])
    counts = np.bincount(drawn[drawn >= TARGET] - TARGET, minlength=SOURCE)
    assert counts.sum() == 14 * 3 * beside
    assert counts.max() - counts.min() <= 1


def test_batches_depend_on_seed_and_epoch_only():
    whole, late = planned(3), planned(1, first=2)
    for one, other in zip(whole[2], late[0], strict=True):
        np.testing.assert_array_equal(one, other)
    assert not all(np.array_equal(a, b) for a, b in zip(whole[0], whole[1], strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(whole[0], planned(1, seed=6)[0], strict=True))


def test_long_texts_of_both_tasks_stand_together():
    lengths = np.random.default_rng(1).integers(3, 60, 800).astype(np.int32)
    rows = MixedRows(token_rows(lengths[:400], 0), token_rows(lengths[400:], 0))
    source = SourceRows(rows, np.zeros(400, np.int32), batch_size=8, seed=0)
    plan = training_batches(rows, np.zeros(400, np.int32), batch_size=8, seed=0, beside=source)
    batches = [inputs["padding_mask"].numpy() for inputs, _ in plan.take(50)]
    assert 1 - sum(mask.sum() for mask in batches) / sum(mask.size for mask in batches) < 0.1


def test_views_of_the_target_leave_the_source_as_it_is():
    target = FeatureRows({"features": np.arange(8, dtype=np.float32)[:, np.newaxis]})  # 4 rows in 2 views
    source = FeatureRows({"features": np.arange(100, 103, dtype=np.float32)[:, np.newaxis]})
    rows = MixedRows(target, source)
    beside = SourceRows(rows, np.array([10, 11, 12], np.int32), batch_size=3, seed=0)
    labels = np.arange(4, dtype=np.int32)
    for inputs, answers in training_batches(rows, labels, batch_size=4, seed=0, views=2, beside=beside).take(
        6
    ):
        values = inputs["features"].numpy()[:, 0]
        np.testing.assert_array_equal(values[:4] % 4, answers[:4])
        np.testing.assert_array_equal(values[4:] - 90, answers[4:])


def test_views_of_the_source_take_turns():
    target = FeatureRows({"features": np.arange(8, dtype=np.float32)[:, np.newaxis]})  # 4 rows in 2 views
    source = FeatureRows({"features": np.arange(100, 106, dtype=np.float32)[:, np.newaxis]})  # 3 in 2
    labels = np.array([10, 11, 12], np.int32)
    beside = SourceRows(MixedRows(target, source), labels, batch_size=3, seed=0, views=2)
    batches = training_batches(
        MixedRows(target, source),
        np.arange(4, dtype=np.int32),
        batch_size=4,
        seed=0,
        views=2,
        beside=beside,
    )
    seen = []
    for inputs, answers in batches.take(6):
        values = inputs["features"].numpy()[4:, 0]
        np.testing.assert_array_equal((values - 100) % 3 + 10, answers[4:])
        seen.append(sorted(values))
    assert seen[0] == seen[2] == seen[4] != seen[1] == seen[3] == seen[5]
    assert sorted([*seen[0], *seen[1]]) == list(range(100, 106))


@pytest.mark.parametrize("mixes", [False, True])
def test_each_task_is_augmented_by_itself(mixes):
    def augment(added, classes):
        def one(inputs, labels, seed):
            return {"x": inputs["x"] + added}, tf.one_hot(labels, classes) if mixes else labels

        return one

    both = augment_both(augment(1.0, CLASSES), augment(5.0, 2), classes=(CLASSES, 2))
    seed = tf.constant([0, 0], tf.int64)
    inputs, labels = both({"x": tf.zeros([4, 1])}, tf.constant([0, 2, 3, 4]), seed)
    np.testing.assert_array_equal(inputs["x"][:, 0], [1, 1, 5, 5])
    expected = np.eye(5)[[0, 2, 3, 4]] if mixes else [0, 2, 3, 4]
    np.testing.assert_array_equal(labels, expected)
