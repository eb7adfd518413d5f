"""Objectives that perturb: their gradients written out, their budgets, and what they leave alone."""

from functools import partial
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfapp.attacks import ATTACKS, pgd
from tfapp.errors import ConfigError
from tfapp.objectives import OBJECTIVES, Perturbable, describe_objective, make_objective
from tfapp.objectives._perturbation import noise, norms, radii, towards
from tfapp.objectives.adversarial import Adversarial
from tfapp.objectives.fgm import Fgm
from tfapp.objectives.free import Free
from tfapp.objectives.freelb import FreeLb
from tfapp.objectives.mart import Mart
from tfapp.objectives.smart import Smart
from tfapp.objectives.standard import Standard
from tfapp.objectives.trades import Trades
from tfapp.objectives.vat import Vat
from tfapp.training.losses import make_loss
from tfapp.training.trainer import TrainingModel

ROWS, WIDTH, CLASSES = 6, 5, 3
GENERATOR = np.random.default_rng(0)
FEATURES = GENERATOR.normal(size=(ROWS, WIDTH)).astype(np.float32)
LABELS = GENERATOR.integers(0, CLASSES, ROWS).astype(np.int32)
WEIGHTS = GENERATOR.uniform(0.5, 2.0, ROWS).astype(np.float32)
PIXELS = GENERATOR.uniform(60.0, 200.0, (ROWS, 4, 4, 3)).astype(np.float32)
PERTURBING = [name for name, make in OBJECTIVES.items() if getattr(make, "perturbs", False)]


def make_trainer(objective, network=None, **options):
    keras.utils.set_random_seed(0)
    if network is None:
        features = keras.Input((WIDTH,), name="features")
        network = keras.Model({"features": features}, keras.layers.Dense(CLASSES)(features))
    trainer = TrainingModel(network, objective=objective, **options)
    trainer.compile(optimizer=keras.optimizers.SGD(0.1), loss=make_loss("cross_entropy"))
    trainer.optimizer.build(trainer.trainable_variables)
    return trainer


def step(objective, weight=None, trainer=None, inputs=None, labels=LABELS):
    trainer = trainer or make_trainer(objective)
    trainer.objective = objective
    inputs = {"features": tf.constant(FEATURES)} if inputs is None else inputs
    given = None if weight is None else tf.constant(weight)
    return trainer.objective.step(trainer, inputs, tf.constant(labels), given)


def pixel_network(*, normalise=False, **options):
    keras.utils.set_random_seed(0)
    pixels = keras.Input((4, 4, 3), name="pixels")
    scaled = keras.layers.Rescaling(1 / 255)(pixels)
    hidden = keras.layers.Conv2D(4, 3, use_bias=False)(scaled)
    if normalise:
        hidden = keras.layers.BatchNormalization(**options)(hidden)
    flat = keras.layers.Flatten()(keras.layers.ReLU()(hidden))
    return keras.Model({"pixels": pixels}, keras.layers.Dense(CLASSES)(flat))


def cross_entropy(kernel, bias, features):
    logits = tf.matmul(features, kernel) + bias
    return tf.nn.sparse_softmax_cross_entropy_with_logits(LABELS, logits)


def variables_of(trainer):
    return [tf.constant(variable.numpy()) for variable in trainer.trainable_variables]


@pytest.mark.parametrize("weight", [None, WEIGHTS])
@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_fgm_is_the_mixture_at_the_clean_point_and_one_normalised_step_from_it(weight, share):
    epsilon = 0.2
    trainer = make_trainer(Fgm(epsilon, share))
    result = step(trainer.objective, weight, trainer)
    kernel, bias = variables_of(trainer)
    rows = tf.constant(np.ones(ROWS, np.float32) if weight is None else weight)
    with tf.GradientTape() as tape:
        tape.watch([kernel, bias])
        with tf.GradientTape() as inner:
            features = tf.constant(FEATURES)
            inner.watch(features)
            total = tf.reduce_sum(cross_entropy(kernel, bias, features))
        gradient = inner.gradient(total, features)
        length = epsilon * np.linalg.norm(FEATURES, axis=1, keepdims=True)
        moved = FEATURES + tf.stop_gradient(gradient / tf.norm(gradient, axis=1, keepdims=True)) * length
        clean, other = (cross_entropy(kernel, bias, each) for each in (FEATURES, moved))
        loss = tf.reduce_mean(rows * ((1 - share) * clean + share * other))
    assert float(result.loss) == pytest.approx(float(loss), rel=1e-5)
    for ours, theirs in zip(result.gradients, tape.gradient(loss, [kernel, bias]), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6)


NEARLY_STANDARD = [
    Fgm(0.0),
    FreeLb(0.0),
    Smart(0.0),
    Vat(0.0),
    Smart(0.1, weight=0.0),
    Adversarial(0.0),
    Adversarial(0.3, adversarial_weight=0.0),
    Free(0.0, replays=1),
    Trades(0.0),
    Trades(0.1, beta=0.0),
]


@pytest.mark.parametrize("objective", NEARLY_STANDARD, ids=lambda each: each.name)
def test_without_a_radius_or_a_weight_all_are_plain_training(objective):
    expected, found = step(Standard(), WEIGHTS), step(objective, WEIGHTS)
    assert float(found.loss) == pytest.approx(float(expected.loss), rel=1e-5)
    for ours, theirs in zip(found.gradients, expected.gradients, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found.logits, expected.logits, rtol=1e-5, atol=1e-6)


def test_on_two_classes_a_linear_model_is_trained_at_its_exact_worst_case():
    features = keras.Input((WIDTH,), name="features")
    network = keras.Model({"features": features}, keras.layers.Dense(2)(features))
    labels, epsilon = LABELS % 2, 0.15
    trainer = make_trainer(Adversarial(epsilon, num_steps=4, random_start=False), network)
    result = step(trainer.objective, trainer=trainer, labels=labels)
    kernel, bias = variables_of(trainer)
    direction = (kernel[:, 1] - kernel[:, 0]).numpy()
    margin = (FEATURES @ direction + float(bias[1] - bias[0])) * (2 * labels - 1)
    worst = margin - epsilon * np.linalg.norm(FEATURES, axis=1) * np.linalg.norm(direction)
    assert float(result.loss) == pytest.approx(float(np.log1p(np.exp(-worst)).mean()), rel=1e-5)


def test_freelb_averages_the_points_of_its_ascent():
    features = keras.Input((WIDTH,), name="features")
    network = keras.Model({"features": features}, keras.layers.Dense(2)(features))
    labels, epsilon = LABELS % 2, 0.2
    trainer = make_trainer(FreeLb(epsilon, num_steps=3), network)
    result = step(trainer.objective, trainer=trainer, labels=labels)
    kernel, bias = variables_of(trainer)
    direction = (kernel[:, 1] - kernel[:, 0]).numpy()
    margin = (FEATURES @ direction + float(bias[1] - bias[0])) * (2 * labels - 1)
    lost = np.linalg.norm(FEATURES, axis=1) * np.linalg.norm(direction)
    points = [np.log1p(np.exp(-(margin - share * epsilon * lost))).mean() for share in (0.0, 0.5, 1.0)]
    assert float(result.loss) == pytest.approx(float(np.mean(points)), rel=1e-5)


def kl(logits, others):
    ours, theirs = tf.nn.log_softmax(logits), tf.nn.log_softmax(others)
    return tf.reduce_sum(tf.nn.softmax(logits) * (ours - theirs), axis=1)


def unit(values):
    return values / tf.norm(values, axis=1, keepdims=True)


def lengths(epsilon):
    return (epsilon * np.linalg.norm(FEATURES, axis=1, keepdims=True)).astype(np.float32)


def weighted_mean(values, weight):
    return tf.reduce_mean(values if weight is None else values * weight)


def assert_is(result, trainer, loss_of):
    """Loss and gradients are those of a function of kernel and bias."""
    kernel, bias = variables_of(trainer)
    with tf.GradientTape() as tape:
        tape.watch([kernel, bias])
        loss = loss_of(kernel, bias)
    assert float(result.loss) == pytest.approx(float(loss), rel=1e-4)
    for ours, theirs in zip(result.gradients, tape.gradient(loss, [kernel, bias]), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("weight", [None, WEIGHTS])
def test_mart_is_its_formula(weight):
    beta = 3.0
    trainer = make_trainer(Mart(0.2, beta=beta, random_start=False))
    result = step(trainer.objective, weight, trainer)
    place = trainer.perturbable({"features": tf.constant(FEATURES)})
    attacked = trainer.objective.threat.find(
        place, tf.constant(LABELS), seed=trainer.step_seed(), loss="cross_entropy"
    )
    assert np.linalg.norm(attacked - FEATURES, axis=1) == pytest.approx(lengths(0.2)[:, 0], rel=1e-3)

    def loss_of(kernel, bias):
        clean, other = (tf.matmul(each, kernel) + bias for each in (FEATURES, attacked))
        truth = tf.one_hot(LABELS, CLASSES)
        rest = tf.reduce_max(tf.nn.softmax(other) * (1.0 - truth), axis=1)
        unsure = 1.0 - tf.reduce_sum(tf.nn.softmax(clean) * truth, axis=1)
        own = cross_entropy(kernel, bias, attacked)
        return weighted_mean(own - tf.math.log(1.0001 - rest) + beta * kl(clean, other) * unsure, weight)

    assert_is(result, trainer, loss_of)


@pytest.mark.parametrize("weight", [None, WEIGHTS])
@pytest.mark.parametrize("random_start", [True, False])
def test_trades_is_its_formula(weight, random_start):
    beta, epsilon = 3.0, 0.4
    trainer = make_trainer(Trades(epsilon, beta=beta, num_steps=5, random_start=random_start))
    result = step(trainer.objective, weight, trainer)
    place = trainer.perturbable({"features": tf.constant(FEATURES)})
    fixed = place.logits(FEATURES)
    wanted = (fixed, lambda logits, clean: kl(clean, logits)) if random_start else (LABELS, "cross_entropy")
    attacked = trainer.objective.threat.find(
        place, tf.constant(wanted[0]), seed=trainer.step_seed(), loss=wanted[1]
    )
    at_random = FEATURES + unit(GENERATOR.normal(size=FEATURES.shape).astype(np.float32)) * lengths(epsilon)
    found, by_chance = (float(tf.reduce_mean(kl(fixed, place.logits(at)))) for at in (attacked, at_random))
    assert found > by_chance > 0.0

    def loss_of(kernel, bias):
        clean, other = (tf.matmul(each, kernel) + bias for each in (FEATURES, attacked))
        return weighted_mean(cross_entropy(kernel, bias, FEATURES) + beta * kl(clean, other), weight)

    assert_is(result, trainer, loss_of)


def climbed(kernel, bias, apart, start):
    """The direction in which a distance from the clean answers grows."""
    start = tf.convert_to_tensor(start)
    with tf.GradientTape() as tape:
        tape.watch(start)
        clean, other = (tf.matmul(each, kernel) + bias for each in (FEATURES, FEATURES + start))
        distance = apart(clean, other)
    return unit(tape.gradient(distance, start))


@pytest.mark.parametrize("weight", [None, WEIGHTS])
@pytest.mark.parametrize("num_steps", [1, 3])
def test_smart_is_its_formula(num_steps, weight):
    epsilon, share, start = 0.4, 2.0, 0.3
    trainer = make_trainer(Smart(epsilon, share, num_steps, start))
    result = step(trainer.objective, weight, trainer)
    kernel, bias = variables_of(trainer)

    def apart(one, other):
        return kl(one, other) + kl(other, one)

    drawn = unit(tf.random.stateless_normal(FEATURES.shape, trainer.step_seed()))
    moved = start * lengths(epsilon) * drawn
    for _ in range(num_steps):
        moved += lengths(epsilon) * climbed(kernel, bias, apart, moved)
        moved *= tf.minimum(1.0, lengths(epsilon) / tf.norm(moved, axis=1, keepdims=True))

    def loss_of(kernel, bias):
        clean, other = (tf.matmul(each, kernel) + bias for each in (FEATURES, FEATURES + moved))
        return weighted_mean(cross_entropy(kernel, bias, FEATURES) + share * apart(clean, other), weight)

    assert_is(result, trainer, loss_of)


@pytest.mark.parametrize("weight", [None, WEIGHTS])
@pytest.mark.parametrize("num_steps", [1, 3])
def test_vat_is_power_iteration_at_the_small_length_away_from_constant_answers(num_steps, weight):
    epsilon, share, start = 0.4, 2.0, 0.3
    trainer = make_trainer(Vat(epsilon, share, num_steps, start))
    result = step(trainer.objective, weight, trainer)
    kernel, bias = variables_of(trainer)
    direction = unit(tf.random.stateless_normal(FEATURES.shape, trainer.step_seed()))
    for _ in range(num_steps):
        direction = climbed(kernel, bias, kl, start * lengths(epsilon) * direction)
    moved = FEATURES + lengths(epsilon) * direction

    def loss_of(kernel, bias):
        clean, other = (tf.matmul(each, kernel) + bias for each in (FEATURES, moved))
        distance = kl(tf.stop_gradient(clean), other)
        return weighted_mean(cross_entropy(kernel, bias, FEATURES) + share * distance, weight)

    assert_is(result, trainer, loss_of)


@pytest.mark.parametrize("weight", [None, WEIGHTS])
def test_free_moves_weights_and_perturbation_by_the_same_passes(weight):
    epsilon, rate = 0.3, 0.1
    trainer = make_trainer(Free(epsilon, replays=3, random_start=False))
    kernel, bias = variables_of(trainer)
    result = step(trainer.objective, weight, trainer)
    points = tf.constant(FEATURES)
    for _ in range(2):
        with tf.GradientTape() as tape:
            tape.watch([kernel, bias, points])
            loss = weighted_mean(cross_entropy(kernel, bias, points), weight)
        of_kernel, of_bias, of_points = tape.gradient(loss, [kernel, bias, points])
        kernel, bias = kernel - rate * of_kernel, bias - rate * of_bias
        moved = points - FEATURES + lengths(epsilon) * unit(of_points)
        moved *= tf.minimum(1.0, lengths(epsilon) / tf.norm(moved, axis=1, keepdims=True))
        points = FEATURES + moved
    for ours, theirs in zip(variables_of(trainer), (kernel, bias), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6)
    assert_is(
        result,
        trainer,
        lambda kernel, bias: weighted_mean(cross_entropy(kernel, bias, points), weight),
    )


def test_free_begins_anywhere_within_the_radius_and_elsewhere_for_each_row():
    epsilon, seen = 0.3, []
    trainer = make_trainer(Free(epsilon, replays=1))

    def forward(inputs, training):
        seen.append(inputs["features"].numpy())
        return trainer.network(inputs, training=training)

    trainer.forward = forward
    step(trainer.objective, trainer=trainer)
    moved = seen[0] - FEATURES
    share = np.linalg.norm(moved, axis=1) / lengths(epsilon)[:, 0]
    assert share.max() <= 1.0
    assert share.min() < 0.95
    directions = moved / np.linalg.norm(moved, axis=1, keepdims=True)
    assert np.abs(directions @ directions.T - np.eye(ROWS)).max() < 0.999


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_free_takes_grey_images_in_a_compiled_step(norm):
    pixels = keras.Input((4, 4, 1), name="pixels")
    flat = keras.layers.Flatten()(keras.layers.Conv2D(2, 3)(pixels / 255.0))
    network = keras.Model({"pixels": pixels}, keras.layers.Dense(CLASSES)(flat))
    trainer = make_trainer(Free(0.1, norm, replays=2), network)
    shape = tf.TensorSpec((None, 4, 4, 1)), tf.TensorSpec((None,), tf.int32)
    run = tf.function(lambda images, labels: trainer.train_step(({"pixels": images}, labels)), shape)
    assert np.isfinite(run(tf.constant(PIXELS[..., :1]), tf.constant(LABELS))["loss"])


@pytest.mark.parametrize("name", PERTURBING)
def test_labels_may_be_distributions(name):
    one, other = (
        step(make_objective(name), WEIGHTS, labels=labels)
        for labels in (LABELS, np.eye(CLASSES, dtype=np.float32)[LABELS])
    )
    for ours, theirs in zip(one.gradients, other.gradients, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", PERTURBING)
def test_padding_is_neither_perturbed_nor_counted(name):
    """Two batches that differ in what stands at padding get the same gradients."""
    hidden = keras.Input((None, 4), name="hidden")
    mask = keras.Input((None,), dtype="int32", name="padding_mask")
    kept = keras.ops.cast(mask, "float32")[..., None]
    mean = keras.ops.sum(hidden * kept, axis=1) / keras.ops.sum(kept, axis=1)
    network = keras.Model({"hidden": hidden, "padding_mask": mask}, keras.layers.Dense(CLASSES)(mean))
    values = GENERATOR.normal(size=(ROWS, 5, 4)).astype(np.float32)
    masks = (np.arange(5) < GENERATOR.integers(1, 5, ROWS)[:, None]).astype(np.int32)
    results = []
    for filler in (0.0, 9.0):
        trainer = make_trainer(make_objective(name), network)
        network.layers[-1].set_weights([np.ones((4, CLASSES)) * [[1, 0, -1]], np.zeros(CLASSES)])
        filled = np.where(masks[..., None] > 0, values, filler).astype(np.float32)
        inputs = {"hidden": tf.constant(filled), "padding_mask": tf.constant(masks)}
        results.append(step(trainer.objective, trainer=trainer, inputs=inputs))
    assert float(results[0].loss) == pytest.approx(float(results[1].loss), rel=1e-5)
    for one, other in zip(results[0].gradients, results[1].gradients, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", PERTURBING)
def test_an_objective_sees_pixels_within_their_bounds(name):
    """White and black pixels at radius one half: a network that breaks beyond the bounds must not see it."""
    pixels = keras.Input((4, 4, 3), name="pixels")
    beyond = keras.ops.relu(pixels - 255.001) + keras.ops.relu(-0.001 - pixels)
    flat = keras.layers.Flatten()(pixels / 255.0 + 1e6 * beyond)
    network = keras.Model({"pixels": pixels}, keras.layers.Dense(CLASSES)(flat))
    images = np.where(PIXELS > 130, 255.0, 0.0).astype(np.float32)
    trainer = make_trainer(make_objective(name, epsilon=0.5), network)
    result = step(trainer.objective, trainer=trainer, inputs={"pixels": tf.constant(images)})
    assert float(result.loss) < 100.0


STATISTICS = [
    (Adversarial(0.2), True),
    (Adversarial(0.2, adversarial_weight=0.5), True),
    (Adversarial(0.2, batch_norm="adversarial"), False),
    (Trades(0.2), True),
    (Mart(0.2), True),
    (Fgm(0.3), True),
    (FreeLb(0.3), True),
    (Smart(0.3), True),
    (Vat(0.3), True),
    (Free(0.2, replays=1), True),
    (Free(0.2, replays=3), True),
]


@pytest.mark.parametrize(("objective", "clean"), STATISTICS, ids=lambda each: getattr(each, "name", each))
@pytest.mark.parametrize("compiled", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_moving_averages_see_clean_images_only_unless_asked(objective, clean, compiled):
    found = []
    for each in (Standard(), objective):
        trainer = make_trainer(each, pixel_network(normalise=True))
        run = tf.function(trainer.train_step) if compiled else trainer.train_step
        run(({"pixels": tf.constant(PIXELS)}, tf.constant(LABELS)))
        norm = next(x for x in trainer.network.layers if isinstance(x, keras.layers.BatchNormalization))
        found.append(np.concatenate([norm.moving_mean.numpy(), norm.moving_variance.numpy()]))
    assert np.abs(found[0] - np.repeat([0.0, 1.0], 4)).max() > 1e-4
    assert np.allclose(found[0], found[1], rtol=1e-5, atol=1e-7) == clean


def statistics_after(objective, network):
    trainer = make_trainer(objective, network)
    trainer.train_step(({"pixels": tf.constant(PIXELS)}, tf.constant(LABELS)))
    norm = next(layer for layer in network.layers if isinstance(layer, keras.layers.BatchNormalization))
    return [variable.numpy() for variable in norm.non_trainable_variables]


def test_moving_averages_see_adversarial_images_only_where_those_are_asked_for():
    whole, half = (
        statistics_after(
            Adversarial(0.2, adversarial_weight=share, batch_norm="adversarial"),
            pixel_network(normalise=True),
        )
        for share in (1.0, 0.5)
    )
    for one, other in zip(whole, half, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("objective", [Fgm(0.3), Free(0.2, replays=2)], ids=lambda each: each.name)
def test_what_renormalisation_keeps_sees_clean_images_only_too(objective):
    expected, found = (
        statistics_after(each, pixel_network(normalise=True, renorm=True)) for each in (Standard(), objective)
    )
    assert len(found) > 2
    for one, other in zip(expected, found, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-7)


def test_so_it_is_in_a_compiled_step():
    test_moving_averages_see_clean_images_only_unless_asked(Adversarial(0.2), True, True)


def test_the_attack_sees_the_model_in_inference_mode():
    seen = []

    def attack(model_fn, values, labels, *, seed):
        seen.append((model_fn(values).numpy(), model_fn(values).numpy()))
        return values

    features = keras.Input((WIDTH,), name="features")
    dropped = keras.layers.Dropout(0.5, seed=1)(features)
    network = keras.Model({"features": features}, keras.layers.Dense(CLASSES)(dropped))
    trainer = make_trainer(Adversarial(attack=attack), network)
    step(trainer.objective, trainer=trainer)
    np.testing.assert_array_equal(*seen[0])
    np.testing.assert_allclose(seen[0][0], network({"features": FEATURES}, training=False), rtol=1e-6)


def test_free_steps_once_a_replay():
    trainer = make_trainer(Free(0.1, replays=3))
    before = trainer.network.get_weights()[0]
    trainer.train_step(({"features": tf.constant(FEATURES)}, tf.constant(LABELS)))
    assert int(trainer.optimizer.iterations.numpy()) == trainer.objective.updates == 3
    assert np.abs(trainer.network.get_weights()[0] - before).max() > 1e-3


@pytest.mark.parametrize(
    ("name", "settings", "words"),
    [
        ("fgm", {"epsilon": -0.1}, "epsilon = -0.1"),
        ("fgm", {"epsilon": float("nan")}, "finite"),
        ("fgm", {"adversarial_weight": 1.5}, "from 0 to 1"),
        ("freelb", {"num_steps": 0}, "at least 1"),
        ("freelb", {"num_steps": True}, "whole number"),
        ("adversarial", {"norm": "linff"}, "linf"),
        ("adversarial", {"batch_norm": "cleen"}, "clean"),
        ("smart", {"start": 0.0}, "start = 0.0: it must be more than 0, at most 1"),
        ("vat", {"start": 1.5}, "more than 0, at most 1"),
        ("fgm", {"epsilon": "0.1"}, "finite number"),
        ("free", {"replays": np.float32(2)}, "whole number"),
        ("trades", {"betta": 1.0}, "beta"),
        ("standard", {"epsilon": 1.0}, "no settings"),
        ("trade", {}, "trades"),
    ],
)
def test_bad_settings_are_named_with_the_cure(name, settings, words):
    with pytest.raises(ConfigError, match=words):
        make_objective(name, **settings)


def test_numbers_of_numpy_are_numbers():
    objective = make_objective("smart", epsilon=np.float32(0.5), num_steps=np.int64(2))
    assert describe_objective(objective)["epsilon"] == 0.5
    assert type(objective.num_steps) is int


def test_a_description_tells_every_setting():
    one, other = (describe_objective(make_objective("trades", epsilon=value)) for value in (0.01, 0.02))
    assert one["name"] == "trades"
    assert one["epsilon"] == 0.01
    assert one != other
    assert describe_objective(make_objective("adversarial", num_steps=7))["num_steps"] == 7


def test_a_description_tells_attacks_of_ones_own_apart():
    weak, strong, again = (
        describe_objective(Adversarial(attack=partial(pgd, epsilon=epsilon))) for epsilon in (0.1, 0.2, 0.1)
    )
    assert weak == again
    assert weak != strong


def pgd_of_features(model_fn, values, labels, *, seed):
    return values


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (
            {"attack": pgd_of_features, "epsilon": 0.1},
            r"epsilon = 0.1 is of no effect beside an attack of one's",
        ),
        ({"attack": pgd_of_features, "norm": "l2"}, r"functools.partial\(attack, norm='l2'\)"),
        ({"attack": pgd_of_features, "num_steps": 1}, "num_steps = 1 is of no effect"),
        ({"attack": pgd_of_features, "step_size": 0.1}, "step_size = 0.1 is of no effect"),
        ({"attack": pgd_of_features, "random_start": False}, "random_start = False is of no effect"),
        ({"attack": 3}, "attack = 3: it must be the name of an attack"),
        ({"attack": "apgdd"}, "unknown attack 'apgdd'; did you mean 'apgd'"),
        ({"attack": "apgd", "step_size": 0.1}, "attack 'apgd' has no setting 'step_size'"),
        ({"attack": "embedding_fgm", "norm": "l2"}, "attack 'embedding_fgm' has no setting 'norm'"),
        ({"attack": "apgd", "num_steps": 0}, "num_steps = 0"),
    ],
)
def test_settings_that_an_attack_would_not_get_are_refused(settings, said):
    with pytest.raises(ConfigError, match=said):
        Adversarial(**settings)


def test_a_named_attack_gets_the_settings_the_bounds_and_a_description():
    trainer = make_trainer(Adversarial(epsilon=0.1, num_steps=2, attack="pgd", norm="l2"), pixel_network())
    by_steps = make_trainer(Adversarial(epsilon=0.1, num_steps=2, norm="l2"), pixel_network())
    inputs = {"pixels": tf.constant(PIXELS)}
    results = [step(each.objective, trainer=each, inputs=inputs) for each in (trainer, by_steps)]
    assert float(results[0].loss) == float(results[1].loss)
    described = describe_objective(trainer.objective)
    assert described["epsilon"] == 0.1
    assert described["attack"]["settings"] == {"norm": "l2", "num_steps": 2, "random_start": True}
    assert described != describe_objective(Adversarial(epsilon=0.1, num_steps=2, attack="apgd", norm="l2"))


def test_an_attack_on_embeddings_takes_features_as_one_token_each():
    named = step(Adversarial(epsilon=0.2, attack="embedding_fgm"))
    bound = step(Adversarial(attack=partial(ATTACKS["embedding_fgm"], epsilon=0.2)))
    own = step(Adversarial(epsilon=0.2, step_size=0.2, random_start=False))
    assert float(named.loss) == float(bound.loss) == pytest.approx(float(own.loss), rel=1e-6)


def test_an_attack_on_embeddings_leaves_padding_alone():
    embeddings = GENERATOR.normal(size=(2, 4, WIDTH)).astype(np.float32)
    mask = tf.constant([[1, 1, 0, 0], [1, 1, 1, 1]])
    kernel = GENERATOR.normal(size=(WIDTH, CLASSES)).astype(np.float32)
    place = Perturbable(
        tf.constant(embeddings), mask, None, lambda values, training: tf.reduce_sum(values, 1) @ kernel
    )
    attack = Adversarial(attack=partial(ATTACKS["embedding_fgm"], epsilon=0.2)).threat
    moved = attack.find(place, tf.constant([0, 1]), seed=tf.constant([0, 1])).numpy() - embeddings
    np.testing.assert_array_equal(moved[0, 2:], 0.0)
    tokens = embeddings * mask.numpy()[..., None]
    lengths = [np.linalg.norm(each.reshape(2, -1), axis=1) for each in (moved, tokens)]
    np.testing.assert_allclose(lengths[0], 0.2 * lengths[1], rtol=1e-5)


@pytest.mark.parametrize("attack", ["apgd", partial(pgd, epsilon=0.1)])
def test_an_attack_on_pixels_is_refused_where_there_are_none(attack):
    with pytest.raises(ConfigError, match="is for pixels, and this phase perturbs embeddings or features"):
        step(Adversarial(attack=attack))


def test_an_attack_on_embeddings_is_refused_on_pixels():
    trainer = make_trainer(Adversarial(attack="embedding_fgm"), pixel_network())
    with pytest.raises(ConfigError, match="is for embeddings, and this phase perturbs pixels"):
        step(trainer.objective, trainer=trainer, inputs={"pixels": tf.constant(PIXELS)})


@pytest.mark.parametrize("name", ["adversarial", "free", "trades"])
def test_a_radius_beyond_the_range_of_pixels_is_refused(name):
    trainer = make_trainer(make_objective(name, epsilon=8.0), pixel_network())
    with pytest.raises(ConfigError, match=r"a fraction of the pixel range: 8/255 = 0\.0314"):
        step(trainer.objective, trainer=trainer, inputs={"pixels": tf.constant(PIXELS)})


def place_of(values, mask=None):
    return Perturbable(tf.constant(values), mask, None, lambda values, training: values)


def test_a_step_along_a_tiny_gradient_has_its_whole_length():
    step = towards(place_of(FEATURES), 1e-25 * FEATURES, 2.0)
    np.testing.assert_allclose(step, 2.0 * FEATURES / np.linalg.norm(FEATURES, axis=1, keepdims=True), 1e-5)
    assert not np.any(towards(place_of(FEATURES), 0.0 * FEATURES, 2.0))


def test_rows_of_which_the_model_is_sure_are_perturbed_too():
    """At a margin of 60 the gradient is about 1e-26, the square of which is zero in float32."""
    features = np.eye(2, WIDTH, dtype=np.float32)
    network = make_trainer(Fgm(0.5)).network
    network.layers[-1].set_weights([np.eye(WIDTH, CLASSES) * 60.0, np.zeros(CLASSES)])
    trainer = make_trainer(Fgm(0.5, adversarial_weight=1.0), network)
    moved = step(
        trainer.objective, trainer=trainer, inputs={"features": tf.constant(features)}, labels=[0, 1]
    )
    assert np.abs(moved.gradients[1]).max() > 1e-20


def test_noise_has_a_direction_for_each_row_and_the_asked_length():
    values = GENERATOR.normal(size=(ROWS, 5, 4)).astype(np.float32)
    mask = tf.constant(np.arange(5) < GENERATOR.integers(1, 5, ROWS)[:, None])
    place = place_of(values, mask)
    drawn = noise(place, radii(place, 0.3), tf.constant([1, 2]))
    np.testing.assert_allclose(norms(place, drawn), 0.3 * norms(place, place.values), rtol=1e-5)
    assert not np.any(drawn[~mask.numpy()])
    first = drawn[:, 0].numpy() / np.linalg.norm(drawn[:, 0], axis=1, keepdims=True)
    assert np.abs(first @ first.T - np.eye(ROWS)).max() < 0.999


def test_every_seed_replica_and_step_draws_anew(monkeypatch):
    drawn = []
    for seed in (0, 1, 1000, 1001, 2**31, 2**31 + 1):
        trainer = make_trainer(Standard(), seed=seed)
        for replica in (0, 1):
            context = SimpleNamespace(replica_id_in_sync_group=replica)
            monkeypatch.setattr(tf.distribute, "get_replica_context", lambda context=context: context)
            for _ in range(2):
                drawn.append(tuple(trainer.step_seed().numpy()))
                trainer.optimizer.iterations.assign_add(1)
            trainer.optimizer.iterations.assign(0)
    assert len(set(drawn)) == len(drawn) == 24


def test_word_augmented_says_how_batches_get_variants():
    with pytest.raises(ConfigError, match=r"call tfapp\.train with augment"):
        step(make_objective("word_augmented"))


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("weight", [None, WEIGHTS])
def test_word_augmented_trains_on_the_variant_with_the_highest_loss(count, weight):
    tokens = keras.Input((WIDTH,), name="token_ids")
    network = keras.Model({"token_ids": tokens}, keras.layers.Dense(CLASSES)(tokens))
    variants = GENERATOR.normal(size=(ROWS, count, WIDTH)).astype(np.float32)
    share = 0.3
    trainer = make_trainer(
        make_objective("word_augmented", variants=count, adversarial_weight=share), network
    )
    inputs = {"token_ids": tf.constant(FEATURES), "variants": {"token_ids": tf.constant(variants)}}
    result = step(trainer.objective, weight, trainer, inputs)
    kernel, bias = variables_of(trainer)
    losses = np.stack([cross_entropy(kernel, bias, variants[:, each]).numpy() for each in range(count)])
    chosen = variants[np.arange(ROWS), losses.argmax(axis=0)]
    rows = tf.constant(np.ones(ROWS, np.float32) if weight is None else weight)
    with tf.GradientTape() as tape:
        tape.watch([kernel, bias])
        clean, worst = (cross_entropy(kernel, bias, each) for each in (FEATURES, chosen))
        loss = tf.reduce_mean(rows * ((1 - share) * clean + share * worst))
    results = tape.gradient(loss, [kernel, bias])
    assert float(result.loss) == pytest.approx(float(loss), rel=1e-5)
    for ours, theirs in zip(result.gradients, results, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6)
