"""What is known of attacks on images in closed form, and what each method promises beyond the others."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import tensorflow as tf
from scipy import optimize

from tfapp.attacks import ATTACKS, CompiledModel, standard_attacks
from tfapp.attacks._ascent import Ascent, checkpoints
from tfapp.attacks._ball import Ball
from tfapp.attacks._hyperplane import onto_hyperplane
from tfapp.attacks._squares import peaks, square_sides

BOUNDS = (0.0, 1.0)
SHAPE = (6, 6, 3)
SIZE = 108


def linear(weights, biases=0.0):
    """Logits that are linear in the pixels."""
    matrix, offsets = tf.constant(weights, tf.float32), tf.constant(biases, tf.float32)
    return lambda inputs: tf.reshape(inputs, (-1, SIZE)) @ matrix + offsets


@pytest.fixture(scope="module")
def two_classes():
    """A linear model of two classes, grey images far from the bounds, and the model's answers as labels."""
    rng = np.random.default_rng(0)
    weights = rng.normal(size=(SIZE, 2)).astype(np.float32)
    weights -= weights.mean(axis=0)  # so that both classes occur among images that are nearly grey
    images = rng.uniform(0.4, 0.6, size=(16, *SHAPE)).astype(np.float32)
    return weights, images, np.argmax(linear(weights)(images), axis=1)


def towards_other(weights, labels):
    """The gradient of what an attack on a linear model of two classes raises, ``(batch, *SHAPE)``."""
    signs = np.where(labels == 0, 1.0, -1.0)
    return (signs[:, None] * (weights[:, 1] - weights[:, 0])).reshape(-1, *SHAPE)


def gaps(weights, images, labels):
    """By how much the true class leads, ``(batch,)``."""
    logits = images.reshape(-1, SIZE).astype(np.float64) @ weights
    rows = np.arange(len(labels))
    return logits[rows, labels] - logits[rows, 1 - labels]


@pytest.mark.parametrize("name", ["fgsm", "pgd", "apgd"])
def test_on_a_linear_model_linf_attacks_reach_the_exact_worst_case(name, two_classes):
    weights, images, labels = two_classes
    epsilon = 0.003
    found = ATTACKS[name](linear(weights), images, labels, epsilon=epsilon, bounds=BOUNDS).numpy()
    worst = images + epsilon * np.sign(towards_other(weights, labels))
    standing = gaps(weights, worst, labels) > 0  # APGD leaves the others alone once they are broken
    assert standing.sum() >= 4
    np.testing.assert_allclose(found[standing], worst[standing], rtol=0, atol=1e-6)
    drop = gaps(weights, images, labels) - gaps(weights, found, labels)
    expected = epsilon * np.abs(weights[:, 1] - weights[:, 0]).sum()
    np.testing.assert_allclose(drop[standing], expected, rtol=1e-5)


def test_an_l2_step_goes_along_the_gradient_as_far_as_epsilon(two_classes):
    weights, images, labels = two_classes
    found = ATTACKS["fgsm"](linear(weights), images, labels, epsilon=0.3, norm="l2", bounds=BOUNDS)
    gradient = towards_other(weights, labels)
    expected = 0.3 * gradient / np.linalg.norm(gradient.reshape(16, -1), axis=1)[:, None, None, None]
    # The budget is kept smaller by the margin for rounding, 4e-6 of it.
    np.testing.assert_allclose(found - images, expected, rtol=0, atol=1e-6)


def test_tiny_gradients_still_have_a_direction(two_classes):
    weights, images, labels = two_classes
    for norm in ("linf", "l2"):
        given = {"norm": norm, "bounds": BOUNDS, "loss": "margin"}
        whole = ATTACKS["fgsm"](linear(weights), images, labels, **given)
        # The squares of these gradients are below the smallest float32.
        tiny = ATTACKS["fgsm"](linear(weights * np.float32(1e-30)), images, labels, **given)
        np.testing.assert_allclose(tiny, whole, rtol=0, atol=1e-6)


def test_the_default_step_from_a_random_start_is_a_quarter_longer(two_classes):
    weights, images, labels = two_classes
    given = {"epsilon": 0.1, "bounds": BOUNDS, "random_start": True, "seed": 3}
    model_fn = linear(weights)
    default = ATTACKS["fgsm"](model_fn, images, labels, **given)
    quarter = ATTACKS["fgsm"](model_fn, images, labels, step_size=0.125, **given)
    np.testing.assert_array_equal(default, quarter)
    assert np.abs(default - ATTACKS["fgsm"](model_fn, images, labels, step_size=0.1, **given)).max() > 0.01


def convex_losses(model_fn, images, labels, **settings):
    found = ATTACKS["pgd"](model_fn, images, labels, bounds=BOUNDS, random_start=False, **settings)
    return tf.nn.sparse_softmax_cross_entropy_with_logits(labels, model_fn(found)).numpy()


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_on_a_convex_loss_pgd_is_never_weaker_than_its_first_step(norm):
    rng = np.random.default_rng(1)
    model_fn = linear(rng.normal(size=(SIZE, 7)))
    images = rng.uniform(size=(64, *SHAPE)).astype(np.float32)
    labels = rng.integers(0, 7, 64)
    epsilon = 0.05 if norm == "linf" else 0.5
    # Steps of the ball's diameter: the first is FGSM's, and under convexity none can lower the loss.
    given = {"norm": norm, "epsilon": epsilon, "step_size": 2 * epsilon}
    single = convex_losses(model_fn, images, labels, num_steps=1, **given)
    fgsm = ATTACKS["fgsm"](model_fn, images, labels, norm=norm, epsilon=epsilon, bounds=BOUNDS)
    fgsm = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, model_fn(fgsm)).numpy()
    several = convex_losses(model_fn, images, labels, num_steps=8, **given)
    if norm == "linf":
        np.testing.assert_allclose(single, fgsm, rtol=1e-5)
    assert (several >= single - 1e-5 * np.abs(single)).all()
    assert (several > single + 1e-3).any()


def test_more_restarts_never_answer_a_worse_point():
    rng = np.random.default_rng(2)
    hidden, out = (tf.constant(rng.normal(size=size), tf.float32) for size in ((SIZE, 16), (16, 4)))

    def model_fn(inputs):
        return tf.sin(tf.reshape(inputs, (-1, SIZE)) @ hidden) @ out

    images = rng.uniform(size=(64, *SHAPE)).astype(np.float32)
    labels = rng.integers(0, 4, 64)

    def judged(restarts, loss="cross_entropy"):
        given = {"epsilon": 0.02, "num_steps": 2, "num_restarts": restarts, "bounds": BOUNDS, "seed": 4}
        logits = model_fn(ATTACKS["pgd"](model_fn, images, labels, loss=loss, **given))
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits).numpy()
        return np.argmax(logits, axis=1) != labels, losses

    (wrong, losses), (wrong_of_five, losses_of_five) = judged(1), judged(5)
    assert (wrong_of_five >= wrong).all()
    same = wrong_of_five == wrong
    assert (losses_of_five[same] >= losses[same] - 1e-5).all()
    assert losses_of_five.mean() > losses.mean() + 0.01

    # For a loss of the caller's own only the loss counts, whatever the labels are.
    def own(logits, labels):
        return tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)

    assert (judged(5, own)[1] >= judged(1, own)[1] - 1e-5).all()


def test_a_loss_may_take_something_else_than_labels(two_classes):
    """A divergence from the clean logits, as TRADES has it, leads away from them without any label."""
    weights, images, _ = two_classes
    model_fn = linear(weights)
    clean = tf.nn.log_softmax(model_fn(images) * 0.1)

    def divergence(logits, clean):
        return tf.reduce_sum(tf.exp(clean) * (clean - tf.nn.log_softmax(logits * 0.1)), axis=1)

    found = ATTACKS["pgd"](model_fn, images, clean, loss=divergence, bounds=BOUNDS)
    assert (divergence(model_fn(found), clean).numpy() > 1e-4).all()


def test_the_step_is_judged_where_the_paper_says():
    # p_0 = 0, p_1 = 0.22, p_{j+1} = p_j + max(p_j - p_{j-1} - 0.03, 0.06), section 3.1 of arXiv:2003.01690.
    assert list(checkpoints(100)) == [22, 41, 57, 70, 80, 87, 93, 99]
    assert list(checkpoints(100).values()) == [22, 19, 16, 13, 10, 7, 6, 6]
    assert list(checkpoints(3)) == [1, 2, 3]


def test_the_step_is_halved_at_checkpoints_where_the_loss_oscillates():
    """The true logit is a bowl whose lowest point lies inside the ball: long steps jump over it for ever."""

    def model_fn(inputs):
        bowl = 5.0 + tf.reduce_sum(tf.square(inputs - 0.503), axis=[1, 2, 3])
        return tf.stack([bowl, tf.zeros_like(bowl)], axis=1)

    images, labels = tf.fill((2, *SHAPE), 0.5), tf.zeros(2, tf.int32)
    search = Ascent("linf", BOUNDS, 50, "cross_entropy")
    ball, given, seed = Ball(images, 0.1, norm="linf", bounds=BOUNDS), {"labels": labels}, tf.constant([0, 0])
    state = search.begin(model_fn, ball, given, seed)
    sizes = [float(state["size"][0])]
    for step in range(50):
        state = search.advance(model_fn, ball, given, seed, state, tf.constant(step))
        sizes.append(float(state["size"][0]))
    assert sizes[0] == pytest.approx(0.2)
    halved = [step for step in range(1, 51) if sizes[step] < sizes[step - 1]]
    assert len(halved) >= 4
    assert set(halved) <= set(checkpoints(50))
    assert all(sizes[step] == pytest.approx(sizes[step - 1] / 2) for step in halved)
    assert not bool(tf.reduce_any(state["done"]))
    # From a corner of the ball the way is about 0.1 a pixel.
    assert np.abs(state["answer"] - 0.503).mean() < 0.01


@pytest.mark.parametrize("loss", ["cross_entropy", "dlr", "dlr_targeted"])
def test_apgd_finds_what_a_fixed_step_overlooks(loss):
    """At this scale the cross-entropy of most examples has no gradient in float32; DLR has one."""
    rng = np.random.default_rng(5)
    weights = rng.normal(size=(SIZE, 5)) * 40
    images = rng.uniform(0.3, 0.7, size=(40, *SHAPE)).astype(np.float32)
    model_fn = CompiledModel(linear(weights))
    labels = np.argmax(model_fn(images), axis=1)

    def standing(attack, **settings):
        found = ATTACKS[attack](model_fn, images, labels, epsilon=0.05, bounds=BOUNDS, **settings)
        return (np.argmax(model_fn(found), axis=1) == labels).mean()

    logits = model_fn(images).numpy()
    others = np.array([logits[row] - logits[row, label] for row, label in enumerate(labels)])
    reach = [
        0.05 * np.abs(weights - weights[:, [label]]).sum(axis=0) + other
        for label, other in zip(labels, others, strict=True)
    ]
    breakable = np.mean([np.delete(row, label).max() > 0 for row, label in zip(reach, labels, strict=True)])
    assert breakable > 0.5
    overlooked = 1 - standing("pgd", num_steps=20)
    found = 1 - standing("apgd", loss=loss, num_steps=20)
    if loss == "cross_entropy":
        assert found < breakable
    else:
        assert overlooked < breakable - 0.2
        assert found == pytest.approx(breakable, abs=0.03)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_fab_finds_the_distance_to_the_boundary(norm):
    rng = np.random.default_rng(6)
    weights = rng.normal(size=(SIZE, 4))
    images = rng.uniform(0.4, 0.6, size=(12, *SHAPE)).astype(np.float32)
    model_fn = linear(weights)
    labels = np.argmax(model_fn(images), axis=1)
    found = ATTACKS["fab"](
        model_fn,
        images,
        labels,
        epsilon=1.0 if norm == "linf" else 10.0,
        norm=norm,
        bounds=BOUNDS,
        closest=True,
        num_steps=20,
    )
    assert (np.argmax(model_fn(found), axis=1) != labels).all()
    moved = (found - images).numpy().reshape(12, -1)
    distances = np.abs(moved).max(1) if norm == "linf" else np.linalg.norm(moved, axis=1)
    logits = images.reshape(12, SIZE).astype(np.float64) @ weights
    exact = []
    for row, label in enumerate(labels):
        slopes = np.delete(weights - weights[:, [label]], label, axis=1)
        leads = logits[row, label] - np.delete(logits[row], label)
        dual = np.abs(slopes).sum(0) if norm == "linf" else np.linalg.norm(slopes, axis=0)
        exact.append((leads / dual).min())
    # An adversarial image lies beyond the boundary; FAB steps over it by 5 % of what is left of the way.
    assert (distances > exact).all()
    assert (distances < np.array(exact) * 1.01).all()


def test_fab_answers_nothing_beyond_epsilon(two_classes):
    weights, images, labels = two_classes
    distances = gaps(weights, images, labels) / np.abs(weights[:, 1] - weights[:, 0]).sum()
    epsilon = float(np.median(distances))
    for closest in (False, True):
        found = ATTACKS["fab"](
            linear(weights), images, labels, epsilon=epsilon, bounds=BOUNDS, closest=closest, num_steps=20
        ).numpy()
        broken = np.argmax(linear(weights)(found), axis=1) != labels
        np.testing.assert_array_equal(broken, distances < epsilon * 0.999)
        np.testing.assert_array_equal(found[~broken], images[~broken])


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("gap", [0.6, -0.6, 2.0, 40.0, 0.0])
def test_the_projection_onto_a_hyperplane_in_a_box_is_the_shortest(norm, gap):
    rng = np.random.default_rng(7)
    points = rng.uniform(size=(5, 6))
    points[0, :3] = [0.0, 1.0, 1.0]
    normals = rng.normal(size=(5, 6))
    normals[1, :4] = 0.0
    moves = onto_hyperplane(
        tf.constant(points),
        tf.constant(normals),
        tf.fill([5], tf.constant(gap, tf.float64)),
        norm=norm,
        bounds=(0, 1),
    ).numpy()
    assert ((points + moves >= -1e-12) & (points + moves <= 1 + 1e-12)).all()
    for point, normal, move in zip(points, normals, moves, strict=True):
        farthest = np.where(normal * gap > 0, 1 - point, -point)
        reach = abs(normal @ farthest)
        assert normal @ move == pytest.approx(np.sign(gap) * min(abs(gap), reach), abs=1e-9)
        if reach <= abs(gap):
            continue
        if norm == "linf":
            # Least t with -t <= move <= t, <normal, move> = gap, within the box.
            rows = np.vstack(
                [np.hstack([np.eye(6), -np.ones((6, 1))]), np.hstack([-np.eye(6), -np.ones((6, 1))])]
            )
            limits = [*zip(-point, 1 - point, strict=True), (0, None)]
            best = optimize.linprog(
                [0] * 6 + [1], rows, np.zeros(12), np.append(normal, 0)[None], [gap], bounds=limits
            ).fun
            length = np.abs(move).max()
        else:
            best = optimize.minimize(
                lambda values: values @ values,
                move * 0.0,
                jac=lambda values: 2 * values,
                bounds=list(zip(-point, 1 - point, strict=True)),
                constraints={"type": "eq", "fun": lambda values, normal=normal: normal @ values - gap},
                options={"ftol": 1e-14},
            )
            best, length = np.sqrt(best.fun), np.linalg.norm(move)
        assert length == pytest.approx(best, abs=1e-5)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_square_asks_no_more_than_it_may(norm):
    asked = tf.Variable(tf.zeros(5, tf.int32))

    def model_fn(inputs):
        # Each image is told by its mean: the squares move it by less than the images are apart.
        which = tf.cast(tf.round(tf.reduce_mean(inputs, axis=[1, 2, 3]) * 10), tf.int32) - 2
        asked.scatter_nd_add(which[:, None], tf.ones_like(which))
        return tf.stack([tf.ones(tf.shape(inputs)[0]), tf.zeros(tf.shape(inputs)[0])], axis=1)

    images = np.repeat(np.arange(2, 7, dtype=np.float32) / 10, SIZE).reshape(5, *SHAPE)
    given = {"epsilon": 0.02, "norm": norm, "bounds": BOUNDS, "num_queries": 30}
    ATTACKS["square"](model_fn, images, np.zeros(5, np.int32), **given)
    # One question more, whether the clean image is answered rightly, is not the search's.
    np.testing.assert_array_equal(asked, np.full(5, 31))


def test_square_breaks_a_linear_model_that_its_squares_can_break():
    """Each channel's weights have one sign: the worst case is a square of one colour over the whole image."""
    weights = np.zeros((SIZE, 2), np.float32)
    weights[:, 1] = np.tile([1.0, -1.0, 1.0], SIZE // 3)
    images = np.full((6, *SHAPE), 0.5, np.float32)
    # At these images the second logit is SIZE / 6; the first leads by 90 % of what the budget can move.
    model_fn = linear(weights, [SIZE / 6 + 0.9 * 0.1 * SIZE, 0.0])
    given = {"epsilon": 0.1, "bounds": BOUNDS, "num_queries": 1000}
    found = ATTACKS["square"](model_fn, images, np.zeros(6, np.int32), **given)
    np.testing.assert_array_equal(np.argmax(model_fn(found), axis=1), np.ones(6))


def test_square_sees_through_a_masked_gradient_that_stops_the_white_box(two_classes):
    weights, images, labels = two_classes

    def model_fn(inputs):
        return tf.round(linear(weights)(inputs) * 10.0) / 10.0

    given = {"epsilon": 0.1, "bounds": BOUNDS}
    right = (np.argmax(model_fn(images), axis=1) == labels).mean()
    pgd = ATTACKS["pgd"](model_fn, images, labels, random_start=False, **given)
    np.testing.assert_array_equal(pgd, images)
    square = ATTACKS["square"](model_fn, images, labels, num_queries=300, **given)
    assert (np.argmax(model_fn(square), axis=1) == labels).mean() < right - 0.5


def test_squares_shrink_as_autoattack_has_it():
    sides = square_sides(32, 32, 5000)
    # sqrt(0.8 / 2^k * 1024), halved in area after 10, 50, 200, 500, 1000, 2000 and 4000 steps.
    changes = [step for step in range(1, 5000) if sides[step] != sides[step - 1]]
    assert changes == [11, 51, 201, 501, 1001, 2001, 4001]
    assert [sides[0], *(sides[step] for step in changes)] == [29, 20, 14, 10, 7, 5, 4, 3]
    assert max(square_sides(4, 40, 3)) == 4


def test_the_pattern_of_l2_squares_has_norm_one_and_two_peaks():
    for side in (1, 2, 3, 7, 12):
        pattern = peaks(side)
        assert np.linalg.norm(pattern) == pytest.approx(1.0)
        assert (pattern[: side // 2] > 0).all()
        assert (pattern[side // 2 :] < 0).all()


def test_the_ensemble_breaks_what_any_of_its_attacks_breaks():
    """Even images mask their gradient, odd ones have thin directions that a black box will not find."""
    rng = np.random.default_rng(9)
    broad, thin = np.tile([1.0, -1.0, 1.0], SIZE // 3), rng.normal(size=SIZE)
    images = rng.uniform(0.4, 0.6, size=(12, *SHAPE)).astype(np.float32)
    images[:, 0, 0, 0] = np.where(np.arange(12) % 2, 0.45, 0.55)

    def logits(inputs):
        flat = tf.reshape(inputs, (-1, SIZE)) - 0.5
        masked = inputs[:, 0, 0, 0] > 0.5
        broken = tf.round(3 * tf.linalg.matvec(flat, tf.constant(broad, tf.float32))) + 2
        sound = tf.linalg.matvec(flat, tf.constant(thin, tf.float32)) + 3.0
        lead = tf.where(masked, broken, sound)
        return tf.stack([lead, tf.zeros_like(lead), tf.fill(tf.shape(lead), -9.0), lead - 20.0], axis=1)

    model_fn = CompiledModel(logits)
    labels = np.zeros(12, np.int32)
    labels[np.argmax(model_fn(images), axis=1) != 0] = 1
    settings = {"num_steps": 10, "num_queries": 200}
    given = {"epsilon": 0.04, "bounds": BOUNDS, "seed": 0}

    def standing(attack, **more):
        return np.argmax(model_fn(attack(model_fn, images, labels, **given, **more)), axis=1) == labels

    alone = {name: standing(attack) for name, attack in standard_attacks("linf", 4, **settings)}
    together = standing(ATTACKS["standard"], **settings)
    assert not (together & ~np.logical_and.reduce(list(alone.values()))).any()
    assert together.sum() < min(stand.sum() for stand in alone.values())


def test_with_few_classes_dlr_gives_way_to_cross_entropy_and_says_so(two_classes, caplog):
    weights, images, labels = two_classes
    epsilon = float(np.median(gaps(weights, images, labels))) / np.abs(weights[:, 1] - weights[:, 0]).sum()
    with caplog.at_level(logging.WARNING, logger="tfapp"):
        found = ATTACKS["standard"](
            linear(weights), images, labels, epsilon=epsilon, bounds=BOUNDS, num_steps=5, num_queries=5
        )
    messages = [record.getMessage() for record in caplog.records]
    assert messages == ["the DLR loss compares 4 classes and the model has 2: cross-entropy takes its place"]
    assert 0 < (np.argmax(linear(weights)(found), axis=1) == labels).mean() < 1


def test_examples_are_dropped_and_batched_without_losing_their_place():
    """Batches of seven, of which some break at once, some later and some never."""
    rng = np.random.default_rng(10)
    weights = rng.normal(size=(SIZE, 2)).astype(np.float32)
    images = rng.uniform(0.4, 0.6, size=(20, *SHAPE)).astype(np.float32)
    labels = np.argmax(linear(weights)(images), axis=1)
    distances = gaps(weights, images, labels) / np.abs(weights[:, 1] - weights[:, 0]).sum()
    epsilon = float(np.quantile(distances, 0.6))
    settings = {"apgd": {"num_steps": 30}, "fab": {"num_steps": 30}, "square": {"num_queries": 200}}
    for name, more in settings.items():
        given = {"epsilon": epsilon, "bounds": BOUNDS, "batch_size": 7, **more}
        found = ATTACKS[name](linear(weights), images, labels, **given).numpy()
        assert np.abs(found - images).max() <= epsilon * (1 + 1e-6)
        broken = np.argmax(linear(weights)(found), axis=1) != labels
        assert not broken[distances > epsilon].any()
        if name != "square":
            np.testing.assert_array_equal(broken, distances < epsilon * 0.999)
