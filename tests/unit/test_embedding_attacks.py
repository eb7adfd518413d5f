"""Attacks on embeddings: closed forms, the budget relative to each example's own tokens, and padding."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from tfapp.attacks import ATTACKS
from tfapp.errors import ConfigError, DataError

LENGTH, HIDDEN = 7, 6
NAMES = ["embedding_fgm", "embedding_pgd"]


@pytest.fixture(scope="module")
def batch():
    """Five examples of 1 to 7 tokens, with noise at the padding; labels; the mask."""
    rng = np.random.default_rng(0)
    embeddings = rng.normal(size=(5, LENGTH, HIDDEN)).astype(np.float32)
    lengths = np.array([7, 5, 3, 1, 6])
    return embeddings, rng.integers(0, 3, 5), (np.arange(LENGTH) < lengths[:, None]).astype(np.int32)


def network(embeddings):
    """Reads the padding too, as a careless model does: the attack itself must leave it alone."""
    rng = np.random.default_rng(1)
    hidden = tf.constant(rng.normal(size=(LENGTH * HIDDEN, 8)), tf.float32)
    weights = tf.constant(rng.normal(size=(8, 3)), tf.float32)
    return (
        tf.tanh(tf.reshape(tf.cast(embeddings, tf.float32), (-1, LENGTH * HIDDEN)) @ hidden * 0.1) @ weights
    )


def relative(adversarial, embeddings, mask):
    """The norm of each example's change as a share of the norm of its tokens."""
    moved, tokens = (tf.cast(values, tf.float64).numpy() for values in (adversarial - embeddings, embeddings))
    tokens = tokens * mask[:, :, None]
    return np.linalg.norm(moved.reshape(5, -1), axis=1) / np.linalg.norm(tokens.reshape(5, -1), axis=1)


def test_fgm_goes_along_the_gradient_of_the_tokens(batch):
    embeddings, labels, mask = batch
    values = tf.constant(embeddings)
    with tf.GradientTape() as tape:
        tape.watch(values)
        loss = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, network(values))
    gradient = tape.gradient(loss, values).numpy() * mask[:, :, None]
    norms = np.linalg.norm((embeddings * mask[:, :, None]).reshape(5, -1), axis=1)
    steps = 0.2 * norms / np.linalg.norm(gradient.reshape(5, -1), axis=1)
    found = ATTACKS["embedding_fgm"](network, embeddings, labels, mask=mask, epsilon=0.2)
    np.testing.assert_allclose(found - embeddings, steps[:, None, None] * gradient, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("epsilon", [0.01, 0.5])
def test_the_budget_is_relative_to_the_tokens_of_each_example(name, epsilon, batch):
    embeddings, labels, mask = batch
    found = ATTACKS[name](network, embeddings, labels, mask=mask, epsilon=epsilon)
    shares = relative(found, embeddings, mask)
    assert (shares <= epsilon * (1 + np.finfo(np.float32).eps)).all()
    if name == "embedding_fgm":
        np.testing.assert_allclose(shares, epsilon, rtol=1e-4)
    else:
        assert (shares > 0.7 * epsilon).all()
    before, after = (
        tf.nn.sparse_softmax_cross_entropy_with_logits(labels, network(values))
        for values in (embeddings, found)
    )
    assert (after > before).numpy().all()


@pytest.mark.parametrize("name", NAMES)
def test_padding_is_neither_moved_nor_counted(name, batch):
    embeddings, labels, mask = batch

    def careful(values):
        return network(values * tf.constant(mask, tf.float32)[:, :, None])

    found = ATTACKS[name](careful, embeddings, labels, mask=mask, seed=3).numpy()
    padding = mask == 0
    np.testing.assert_array_equal(found[padding], embeddings[padding])
    louder = np.where(padding[:, :, None], embeddings * 50, embeddings)
    again = ATTACKS[name](careful, louder, labels, mask=mask.astype(bool), seed=3).numpy()
    np.testing.assert_allclose(again[~padding], found[~padding], rtol=0, atol=1e-6)
    nothing = np.zeros_like(mask)
    untouched = ATTACKS[name](careful, embeddings, labels, mask=nothing).numpy()
    np.testing.assert_array_equal(untouched, embeddings)


@pytest.mark.parametrize("name", NAMES)
def test_bfloat16_embeddings_stay_within_the_budget(name, batch):
    embeddings, labels, mask = batch
    embeddings = tf.cast(embeddings, tf.bfloat16)
    step = tf.function(lambda values, seed: ATTACKS[name](network, values, labels, mask=mask, seed=seed))
    found = step(embeddings, tf.constant([1, 2]))
    assert found.dtype == tf.bfloat16
    moved = tf.cast(found, tf.float32) - tf.cast(embeddings, tf.float32)
    shares = relative(moved + tf.cast(embeddings, tf.float32), tf.cast(embeddings, tf.float32), mask)
    # Rounding each coordinate towards the clean one takes a few per cent of the way.
    assert ((shares > 0.06) & (shares <= 0.1)).all()


def test_pgd_on_a_linear_model_ends_where_one_step_of_fgm_does(batch):
    embeddings, _, mask = batch
    weights = tf.constant(np.random.default_rng(2).normal(size=(LENGTH * HIDDEN, 2)), tf.float32)

    def linear(values):
        return tf.reshape(values, (-1, LENGTH * HIDDEN)) @ weights

    labels = np.zeros(5, np.int32)
    given = {"mask": mask, "epsilon": 0.1, "loss": "margin"}
    single = ATTACKS["embedding_fgm"](linear, embeddings, labels, **given)
    several = ATTACKS["embedding_pgd"](
        linear, embeddings, labels, num_steps=40, step_size=0.1, random_start=True, **given
    )
    np.testing.assert_allclose(several, single, rtol=0, atol=1e-3)


def test_the_random_start_follows_its_seed(batch):
    embeddings, labels, mask = batch
    given = {"mask": mask, "step_size": 0.0, "num_steps": 1}
    first, again, other = (
        ATTACKS["embedding_pgd"](network, embeddings, labels, seed=seed, **given).numpy()
        for seed in (1, tf.constant([1, 0]), 2)
    )
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 0.01
    start = ATTACKS["embedding_pgd"](network, embeddings, labels, random_start=False, **given)
    np.testing.assert_array_equal(start, embeddings)


def test_a_step_costs_one_pass(batch):
    embeddings, labels, mask = batch
    passes = tf.Variable(0)

    def counted(values):
        passes.assign_add(1)
        return network(values)

    tf.function(lambda: ATTACKS["embedding_fgm"](counted, embeddings, labels, mask=mask))()
    assert int(passes) == 1
    tf.function(lambda: ATTACKS["embedding_pgd"](counted, embeddings, labels, mask=mask, num_steps=4))()
    assert int(passes) == 5


@pytest.mark.parametrize("name", NAMES)
def test_bad_input_is_refused(name, batch):
    embeddings, labels, mask = batch
    with pytest.raises(ConfigError, match=r"epsilon = -1\.0"):
        ATTACKS[name](network, embeddings, labels, mask=mask, epsilon=-1.0)
    with pytest.raises(DataError, match=r"the mask has the shape \(5, 6\), the embeddings \(5, 7, 6\)"):
        ATTACKS[name](network, embeddings, labels, mask=mask[:, :-1])
    with pytest.raises(DataError, match=r"the embeddings are int64 of the shape \(5, 7\)"):
        ATTACKS[name](network, np.ones((5, 7), np.int64), labels, mask=mask)
    with pytest.raises(DataError, match="the mask holds other values than 0 and 1"):
        ATTACKS[name](network, embeddings, labels, mask=mask * 2)
    with pytest.raises(DataError, match="the embeddings hold a number that is not finite"):
        ATTACKS[name](network, np.where(embeddings > 2, np.nan, embeddings), labels, mask=mask)
    with pytest.raises(DataError, match="there are 5 inputs and 4 labels"):
        ATTACKS[name](network, embeddings, labels[1:], mask=mask)
    with pytest.raises(DataError, match="label 3 is outside the model's classes, which are 0 to 2"):
        ATTACKS[name](network, embeddings, labels + 3 * (labels == 0), mask=mask)
