"""Batches: every row once an epoch, an order that the seed decides, little padding, nothing mixed up."""

import numpy as np
import pytest
import tensorflow as tf

from tfapp.data.bucketing import (
    FeatureRows,
    TokenRows,
    epoch_plan,
    evaluation_batches,
    padding_share,
    rows_of_step,
    training_batches,
)
from tfapp.data.encoded import EncodedTexts


def encoded_rows(lengths, *, max_length=None):
    """Rows whose every token is 1000 times the row's number plus its place, so that a mix-up shows."""
    lengths = np.asarray(lengths)
    values = np.concatenate([1000 * (row + 1) + np.arange(n) for row, n in enumerate(lengths)])
    splits = np.concatenate([[0], np.cumsum(lengths)])
    limit = int(lengths.max()) if max_length is None else max_length
    return EncodedTexts(values.astype(np.int32), splits, lengths.astype(np.int32), limit)


def random_lengths(rows, seed=0):
    return np.random.default_rng(seed).integers(3, 40, rows)


def batches_of(rows, *, epochs=1, batch_size=8, **options):
    options.setdefault("seed", 1)
    steps = -(-len(rows) // batch_size)
    labels = options.pop("labels", np.arange(len(rows), dtype=np.int32))
    return list(training_batches(rows, labels, batch_size=batch_size, **options).take(steps * epochs))


def numbers(batches):
    return [batch[1].numpy().tolist() for batch in batches]


@pytest.mark.parametrize("rows", [1, 7, 8, 30, 32, 1000])
def test_an_epoch_holds_every_row_once(rows):
    token_rows = TokenRows(encoded_rows(random_lengths(rows)), pad_id=0)
    for epoch in np.array_split(np.array(numbers(batches_of(token_rows, epochs=3)), dtype=object), 3):
        sizes = [len(batch) for batch in epoch]
        assert sorted(number for batch in epoch for number in batch) == list(range(rows))
        assert all(size == 8 for size in sizes) if rows % 8 == 0 else sorted(sizes)[0] == rows % 8


def test_inputs_belong_to_their_labels():
    lengths = random_lengths(30)
    rows = TokenRows(encoded_rows(lengths), pad_id=7)
    for inputs, labels in batches_of(rows):
        ids, mask = inputs["token_ids"].numpy(), inputs["padding_mask"].numpy()
        assert ids.shape == mask.shape == inputs["segment_ids"].shape
        assert ids.shape[1] == lengths[labels].max()
        assert not inputs["segment_ids"].numpy().any()
        for row, label in enumerate(labels.numpy()):
            expected = 1000 * (label + 1) + np.arange(lengths[label])
            np.testing.assert_array_equal(ids[row][: lengths[label]], expected)
            np.testing.assert_array_equal(mask[row], np.arange(ids.shape[1]) < lengths[label])
            assert (ids[row][lengths[label] :] == 7).all()


def test_only_declared_inputs_are_gathered():
    rows = TokenRows(encoded_rows([3, 5]), pad_id=0, inputs=("token_ids", "padding_mask"))
    assert set(rows.gather(tf.constant([0, 1]))) == {"token_ids", "padding_mask"}


@pytest.mark.parametrize("options", [{}, {"sampling": "balanced"}, {"views": 2}])
def test_an_epoch_goes_on_within(options):
    """Batches from a step on, and the rows of one, are those of all batches."""
    rows = TokenRows(encoded_rows(random_lengths(60)), pad_id=0)
    labels = np.arange(60 // options.get("views", 1), dtype=np.int32)
    given = {"labels": labels, "batch_size": 7, **options}
    steps = -(-len(labels) // 7)
    whole = numbers(training_batches(rows, seed=1, **given).take(3 * steps))
    rest = numbers(training_batches(rows, seed=1, first_epoch=1, first_step=3, **given).take(2 * steps - 3))
    assert rest == whole[steps + 3 :]
    for place in (0, steps + 2, 3 * steps - 1):
        epoch, step = divmod(place, steps)
        assert rows_of_step(rows, seed=1, epoch=epoch, step=step, **given).tolist() == whole[place]


def test_the_parts_of_workers_make_up_each_batch():
    """29 rows in batches of 7 leave one for the last, so that two of three workers have none."""
    rows = TokenRows(encoded_rows(random_lengths(29)), pad_id=0)
    parts = [numbers(batches_of(rows, batch_size=7, epochs=2, share=(number, 3))) for number in range(3)]
    whole = numbers(batches_of(rows, batch_size=7, epochs=2))
    assert [[row for piece in pieces for row in piece] for pieces in zip(*parts, strict=True)] == whole
    assert max(len(piece) for pieces in parts for piece in pieces) == 3


def test_full_batches_leave_the_other_one_out_and_say_how_many_rows_they_have():
    rows = TokenRows(encoded_rows(random_lengths(29)), pad_id=0, pad_to=32)
    labels, given = np.arange(29, dtype=np.int32), {"batch_size": 7, "seed": 1, "full": True}
    made = training_batches(rows, labels, **given)
    assert [spec.shape[0] for spec in tf.nest.flatten(made.element_spec)] == [7] * 4
    found = numbers(made.take(8))
    assert len(set(np.concatenate(found[:4]))) == 28
    assert {batch[0]["token_ids"].shape[1] for batch in made.take(8)} <= {32, rows.limit}
    assert rows_of_step(rows, labels, epoch=1, step=2, **given).tolist() == found[6]


def test_the_seed_and_the_epoch_decide_the_order():
    rows = TokenRows(encoded_rows(random_lengths(100)), pad_id=0)
    once = numbers(batches_of(rows, epochs=2))
    assert once == numbers(batches_of(rows, epochs=2))
    assert once[:13] != once[13:]
    assert once != numbers(batches_of(rows, epochs=2, seed=2))


@pytest.mark.parametrize("seed", [0, 2**31 - 1, (2**31 - 1) * 1000 + 999])
def test_any_seed_of_a_run_will_do(seed):
    rows = TokenRows(encoded_rows(random_lengths(20)), pad_id=0)
    assert sorted(np.concatenate(numbers(batches_of(rows, seed=seed)))) == list(range(20))


def test_a_run_that_goes_on_sees_the_order_of_an_unbroken_one():
    rows = TokenRows(encoded_rows(random_lengths(50)), pad_id=0)
    unbroken = batches_of(rows, epochs=4)
    resumed = batches_of(rows, epochs=2, first_epoch=2)
    for (inputs, labels), (again, labels_again) in zip(unbroken[14:], resumed, strict=True):
        np.testing.assert_array_equal(labels, labels_again)
        np.testing.assert_array_equal(inputs["token_ids"], again["token_ids"])


def test_rows_of_a_batch_are_of_similar_length():
    lengths = np.random.default_rng(0).integers(3, 100, 4000)
    rows = TokenRows(encoded_rows(lengths), pad_id=0)
    spreads = [np.ptp(lengths[batch]) for batch in numbers(batches_of(rows))]
    assert np.mean(spreads) < 10  # 97 lengths over pools of 50 batches: about 2; at random it is about 75
    shares = padding_share(rows, batch_size=8, seed=1)
    assert shares < 0.05


def test_batches_do_not_come_in_order_of_length():
    lengths = np.random.default_rng(0).integers(3, 100, 4000)
    rows = TokenRows(encoded_rows(lengths), pad_id=0)
    means = np.array([lengths[batch].mean() for batch in numbers(batches_of(rows))])
    correlation = np.corrcoef(means, np.arange(len(means)))[0, 1]
    assert abs(correlation) < 4 / np.sqrt(len(means))  # 4 standard errors of a correlation of 0


def test_pools_of_one_batch_are_plain_shuffling():
    lengths = tf.constant(np.sort(random_lengths(400)).astype(np.int32))
    plan = epoch_plan(lengths, batch_size=8, seed=3, epoch=tf.constant(0), pool_batches=1).numpy()
    assert np.mean([np.ptp(lengths.numpy()[batch]) for batch in plan]) > 20


@pytest.mark.parametrize("pad_to", [1, 8, 16])
@pytest.mark.parametrize("rows", [30, 200])
def test_the_padding_share_is_what_the_batches_hold(rows, pad_to):
    token_rows = TokenRows(encoded_rows(random_lengths(rows)), pad_id=0, pad_to=pad_to)
    masks = [inputs["padding_mask"].numpy() for inputs, _ in batches_of(token_rows, seed=5)]
    assert all(mask.shape[1] % pad_to == 0 or mask.shape[1] == token_rows.limit for mask in masks)
    counted = 1 - sum(mask.sum() for mask in masks) / sum(mask.size for mask in masks)
    assert padding_share(token_rows, batch_size=8, seed=5) == pytest.approx(counted, abs=1e-12)


def test_class_weights_become_the_weights_of_rows():
    labels = np.array([0, 1, 2, 1, 0], np.int32)
    rows = TokenRows(encoded_rows([3, 4, 5, 6, 7]), pad_id=0)
    weights = np.array([0.5, 2.0, 1.0], np.float32)
    for batch in batches_of(rows, batch_size=2, labels=labels, class_weights=weights):
        np.testing.assert_array_equal(batch[2], weights[batch[1].numpy()])


def test_evaluation_goes_from_short_to_long_and_tells_the_order():
    lengths = [9, 3, 5, 3, 12, 4]
    labels = np.array([5, 4, 3, 2, 1, 0], np.int32)
    dataset, order = evaluation_batches(TokenRows(encoded_rows(lengths), pad_id=0), labels, batch_size=4)
    assert order.tolist() == [1, 3, 5, 2, 0, 4]
    batches = list(dataset)
    assert [batch[0]["token_ids"].shape for batch in batches] == [(4, 5), (2, 12)]
    assert np.concatenate([batch[1] for batch in batches]).tolist() == labels[order].tolist()
    firsts = np.concatenate([batch[0]["token_ids"][:, 0] for batch in batches])
    assert firsts.tolist() == (1000 * (order + 1)).tolist()
    unlabelled, _ = evaluation_batches(TokenRows(encoded_rows(lengths), pad_id=0), batch_size=4)
    assert set(next(iter(unlabelled))) == {"token_ids", "padding_mask", "segment_ids"}


def test_token_vectors_are_gathered_with_zeros_for_padding():
    lengths = np.array([3, 1, 4])
    splits = np.concatenate([[0], np.cumsum(lengths)])
    vectors = np.arange(1, 17, dtype=np.float32).reshape(8, 2)
    rows = FeatureRows({"hidden": vectors}, splits)
    assert (len(rows), rows.lengths.tolist()) == (3, [3, 1, 4])
    gathered = rows.gather(tf.constant([1, 0]))
    assert gathered["padding_mask"].numpy().tolist() == [[1, 0, 0], [1, 1, 1]]
    np.testing.assert_array_equal(gathered["hidden"][0], [vectors[3], [0, 0], [0, 0]])
    np.testing.assert_array_equal(gathered["hidden"][1], vectors[:3])


def test_pooled_features_are_gathered_row_by_row():
    features = np.arange(6, dtype=np.float32).reshape(3, 2)
    rows = FeatureRows({"features": features})
    assert rows.lengths.tolist() == [1, 1, 1]
    gathered = rows.gather(tf.constant([2, 0]))
    assert set(gathered) == {"features"}
    np.testing.assert_array_equal(gathered["features"], features[[2, 0]])
