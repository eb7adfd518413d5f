"""FusedAdamW beside Keras's AdamW, sparse rows, the learning rate's course, and layer-wise rates."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfapp.training.optimizers import FusedAdamW, FusedSGD, layer_rate_factors, make_optimizer
from tfapp.training.schedules import WarmupDecay, make_schedule
from tfapp.training.settings import Phase, TrainSettings

SHAPES = {"kernel": (7, 5), "bias": (5,), "gamma": (5,), "embeddings": (11, 4)}


def make_variables():
    generator = np.random.default_rng(0)
    return {
        name: keras.Variable(generator.normal(size=shape).astype(np.float32), name=name)
        for name, shape in SHAPES.items()
    }


def gradients_of(step, *, scale=1.0):
    generator = np.random.default_rng(100 + step)
    return [tf.constant(generator.normal(size=s) * scale, tf.float32) for s in SHAPES.values()]


def keras_adamw(rate, *, weight_decay=0.1, clip_norm=1.0):
    peer = keras.optimizers.AdamW(rate, weight_decay=weight_decay, epsilon=1e-8, global_clipnorm=clip_norm)
    peer.exclude_from_weight_decay(var_names=["bias", "gamma", "embeddings"])
    return peer


@pytest.mark.parametrize("clip_norm", [1.0, 100.0, None])
def test_it_equals_keras_adamw_on_dense_variables(clip_norm):
    """Keras rounds 1 - 0.999 to float32 with an error of 1.3e-5, half of which is in the length of a step."""
    ours, theirs = make_variables(), make_variables()
    rate = WarmupDecay(0.01, 20, 4)
    optimizer = FusedAdamW(rate, weight_decay=0.1, decay_every=1, clip_norm=clip_norm)
    peer = keras_adamw(rate, clip_norm=clip_norm)
    for step in range(20):
        gradients = gradients_of(step, scale=1.0 + step % 3)
        optimizer.apply(gradients, list(ours.values()))
        peer.apply(gradients, list(theirs.values()))
    for name, variable in ours.items():
        moved = np.abs(variable.numpy() - make_variables()[name].numpy()).max()
        assert moved > 0.02, name
        np.testing.assert_allclose(variable, theirs[name], atol=1e-6, err_msg=name)


def test_only_matrices_are_decayed():
    variables = make_variables()
    optimizer = FusedAdamW(0.1, weight_decay=0.5, decay_every=1, clip_norm=None)
    optimizer.apply([tf.zeros(shape) for shape in SHAPES.values()], list(variables.values()))
    for name, before in make_variables().items():
        factor = 0.95 if name == "kernel" else 1.0
        np.testing.assert_allclose(variables[name], before.numpy() * factor, rtol=1e-6, err_msg=name)


def test_decay_in_every_tenth_step_is_decay_in_every_step():
    """At the rates of fine-tuning the two differ by no more than 20 roundings to float32."""
    ours, theirs = make_variables(), make_variables()
    optimizer = FusedAdamW(1e-4, weight_decay=0.1, clip_norm=None)
    peer = FusedAdamW(1e-4, weight_decay=0.1, decay_every=1, clip_norm=None)
    for step in range(20):
        before = ours["kernel"].numpy()
        optimizer.apply([tf.zeros(shape) for shape in SHAPES.values()], list(ours.values()))
        peer.apply([tf.zeros(shape) for shape in SHAPES.values()], list(theirs.values()))
        assert np.array_equal(before, ours["kernel"].numpy()) == (step % 10 != 9), step
    np.testing.assert_allclose(ours["kernel"], theirs["kernel"], rtol=3e-6)
    assert np.abs(ours["kernel"].numpy() / make_variables()["kernel"].numpy() - 1).max() > 1e-4


@pytest.mark.parametrize(("steps", "decayed"), [(7, 7), (10, 10), (19, 19), (25, 25)])
def test_the_decay_of_the_last_steps_is_caught_up(steps, decayed):
    variables = make_variables()
    optimizer = FusedAdamW(1e-3, weight_decay=0.1, clip_norm=None, total_steps=steps)
    for _ in range(steps):
        optimizer.apply([tf.zeros(shape) for shape in SHAPES.values()], list(variables.values()))
    left = variables["kernel"].numpy() / make_variables()["kernel"].numpy()
    np.testing.assert_allclose(1 - left, decayed * 1e-4, rtol=2e-3)


@pytest.mark.parametrize("clip_norm", [1.0, None])
def test_sgd_equals_keras_sgd_on_dense_variables(clip_norm):
    ours, theirs = make_variables(), make_variables()
    rate = WarmupDecay(0.01, 20, 4)
    optimizer = FusedSGD(rate, weight_decay=0.1, decay_every=1, clip_norm=clip_norm)
    peer = keras.optimizers.SGD(
        rate, momentum=0.9, nesterov=True, weight_decay=0.1, global_clipnorm=clip_norm
    )
    peer.exclude_from_weight_decay(var_names=["bias", "gamma", "embeddings"])
    for step in range(20):
        gradients = gradients_of(step, scale=1.0 + step % 3)
        optimizer.apply(gradients, list(ours.values()))
        peer.apply(gradients, list(theirs.values()))
    for name, variable in ours.items():
        assert np.abs(variable.numpy() - make_variables()[name].numpy()).max() > 0.02, name
        np.testing.assert_allclose(variable, theirs[name], atol=1e-6, err_msg=name)


def test_sgd_moves_used_rows_by_the_clipped_sum_of_their_gradients():
    """The norm is that of the sum of a row's gradients, and rows that are not used do not move."""
    variable = keras.Variable(np.ones((5, 2), np.float32), name="embeddings")
    optimizer = FusedSGD(0.1, momentum=0.0, weight_decay=0.5, clip_norm=1.0)
    values = np.array([[3.0, 0.0], [0.0, 4.0], [0.0, 0.0]], np.float32)
    optimizer.apply([tf.IndexedSlices(values, tf.constant([3, 3, 1]), tf.constant([5, 2]))], [variable])
    np.testing.assert_allclose(variable.numpy()[3], [1 - 0.06, 1 - 0.08], rtol=1e-6)
    assert (variable.numpy()[[0, 1, 2, 4]] == 1.0).all()


def sparse_step(step, rows):
    generator = np.random.default_rng(step)
    indices = generator.choice(rows, 3, replace=False)
    return indices, generator.normal(size=(3, 4)).astype(np.float32)


def test_used_rows_move_as_in_dense_adam_and_others_not_at_all():
    """A row that every step uses has the moments of dense Adam, for its gradient is never 0."""
    initial = np.random.default_rng(0).normal(size=(11, 4)).astype(np.float32)
    ours, theirs = (keras.Variable(initial, name="embeddings") for _ in range(2))
    optimizer = FusedAdamW(0.05, weight_decay=0.1, clip_norm=1.0)
    peer = keras_adamw(0.05)
    used = [7, 2, 4]
    for step in range(20):
        values = np.random.default_rng(step).normal(size=(3, 4)).astype(np.float32)
        dense = np.zeros((11, 4), np.float32)
        dense[used] = values
        optimizer.apply([tf.IndexedSlices(values, tf.constant(used), tf.constant([11, 4]))], [ours])
        peer.apply([tf.constant(dense)], [theirs])
    unused = np.setdiff1d(np.arange(11), used)
    assert np.abs(ours.numpy()[used] - initial[used]).max() > 0.1
    np.testing.assert_allclose(ours.numpy()[used], theirs.numpy()[used], atol=1e-6)
    np.testing.assert_array_equal(ours.numpy()[unused], initial[unused])


def test_a_row_used_now_and_then_keeps_its_moments_in_between():
    """Lazy Adam: the moments of a row change in the steps that use it, and only there."""
    initial = np.random.default_rng(0).normal(size=(11, 4)).astype(np.float32)
    variable = keras.Variable(initial, name="embeddings")
    optimizer = FusedAdamW(0.05, weight_decay=0.1, clip_norm=None)
    value, first, second = initial.copy(), np.zeros((11, 4)), np.zeros((11, 4))
    for step in range(12):
        rows, gradient = sparse_step(step, 11)
        optimizer.apply([tf.IndexedSlices(gradient, tf.constant(rows), tf.constant([11, 4]))], [variable])
        first[rows] = 0.9 * first[rows] + 0.1 * gradient
        second[rows] = 0.999 * second[rows] + 0.001 * gradient**2
        corrected = first[rows] / (1 - 0.9 ** (step + 1)), second[rows] / (1 - 0.999 ** (step + 1))
        value[rows] -= 0.05 * corrected[0] / (np.sqrt(corrected[1]) + 1e-8)
    np.testing.assert_allclose(variable, value, atol=1e-5)


@pytest.mark.parametrize("clip_norm", [0.5, None])
def test_rows_that_stand_twice_are_added_up(clip_norm):
    """Also before clipping: the norm is that of the sum, not of the pieces."""
    initial = np.ones((5, 2), np.float32)
    twice, once = (keras.Variable(initial, name="embeddings") for _ in range(2))
    values = np.array([[1.0, 2.0], [3.0, -1.0], [-0.5, 2.0]], np.float32)
    optimizers = [FusedAdamW(0.1, clip_norm=clip_norm) for _ in range(2)]
    summed = np.array([values[0] + values[2], values[1]])
    for _ in range(3):
        shape = tf.constant([5, 2])
        optimizers[0].apply([tf.IndexedSlices(values, tf.constant([3, 1, 3]), shape)], [twice])
        optimizers[1].apply([tf.IndexedSlices(summed, tf.constant([3, 1]), shape)], [once])
    np.testing.assert_allclose(twice, once, atol=1e-7)
    assert (twice.numpy()[[0, 2, 4]] == 1.0).all()
    moments = [optimizer.variables[-1].numpy()[[1, 3]] for optimizer in optimizers]
    np.testing.assert_allclose(moments[0], moments[1], rtol=1e-6)
    norm = min(clip_norm or np.inf, np.linalg.norm(summed))
    expected = (norm * summed[1] / np.linalg.norm(summed)) ** 2 * (1 - 0.999**3)
    np.testing.assert_allclose(moments[0][0], expected, rtol=1e-4)


def test_it_runs_in_a_graph_as_in_eager_execution():
    eager, graph = make_variables(), make_variables()
    optimizers = [FusedAdamW(WarmupDecay(0.05, 5, 2)) for _ in range(2)]
    optimizers[1].build(list(graph.values()))
    step = tf.function(lambda *gradients: optimizers[1].apply(list(gradients), list(graph.values())))
    for number in range(5):
        optimizers[0].apply(gradients_of(number), list(eager.values()))
        step(*gradients_of(number))
    for name, variable in eager.items():
        np.testing.assert_allclose(variable, graph[name], atol=1e-7, err_msg=name)
    assert int(optimizers[1].iterations) == 5


@pytest.mark.parametrize("kind", [FusedAdamW, lambda *a, **k: FusedSGD(*a, momentum=0.0, **k)])
def test_rate_factors_scale_the_steps(kind):
    variables = make_variables()
    path = variables["bias"].path
    optimizer = kind(0.1, weight_decay=0.0, clip_norm=None, rate_factors={path: 0.25})
    optimizer.apply([tf.ones(shape) for shape in SHAPES.values()], list(variables.values()))
    for name, before in make_variables().items():
        moved = before.numpy() - variables[name].numpy()
        np.testing.assert_allclose(moved, 0.025 if name == "bias" else 0.1, rtol=1e-4, err_msg=name)


@pytest.mark.parametrize("kind", [FusedAdamW, FusedSGD])
def test_the_configuration_rebuilds_an_equal_optimizer(kind):
    rate = WarmupDecay(0.1, 10, 2, "cosine")
    optimizer = kind(rate, weight_decay=0.3, clip_norm=None, rate_factors={"a": 0.5}, total_steps=10)
    twin = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
    assert isinstance(twin, kind)
    assert twin.get_config() == optimizer.get_config()
    ours, theirs = make_variables(), make_variables()
    for number in range(3):
        optimizer.apply(gradients_of(number), list(ours.values()))
        twin.apply(gradients_of(number), list(theirs.values()))
    np.testing.assert_array_equal(ours["kernel"], theirs["kernel"])


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        # Steps 0, 4 (the end of the warm-up), 12 (half of what is left) and 20 (the end).
        ("linear", [0.2, 1.0, 0.5, 0.0]),
        ("cosine", [0.2, 1.0, 0.5, 0.0]),
        ("constant", [0.2, 1.0, 1.0, 1.0]),
    ],
)
def test_the_rate_rises_to_the_peak_and_falls(shape, expected):
    schedule = WarmupDecay(3.0, 20, 5, shape)
    linear_middle = 20 - 15 / 2  # the decay runs over the 15 steps after the warm-up
    rates = [float(schedule(step)) for step in (0, 4, linear_middle, 20)]
    np.testing.assert_allclose(rates, 3.0 * np.array(expected), atol=1e-6)
    everywhere = np.array([float(schedule(step)) for step in range(25)])
    assert (np.diff(everywhere[:5]) > 0).all()
    assert (np.diff(everywhere[4:]) <= 0).all()
    assert everywhere.min() >= 0.0


def test_a_cosine_is_flatter_at_both_ends_than_a_line():
    line, cosine = (WarmupDecay(1.0, 100, 0, shape) for shape in ("linear", "cosine"))
    assert float(cosine(10)) > float(line(10))
    assert float(cosine(90)) < float(line(90))


def test_without_warm_up_the_first_step_is_at_the_peak():
    assert float(WarmupDecay(0.5, 10, 0)(0)) == 0.5


def test_settings_decide_the_optimizer():
    phase = Phase("all", 2, 0.01)

    def made(settings, factors):
        return make_optimizer(settings, make_schedule(settings, phase, total_steps=50), rate_factors=factors)

    adamw = made(TrainSettings(weight_decay=0.3, clip_norm=2.0), {"a": 0.5})
    assert isinstance(adamw, FusedAdamW)
    config = adamw.get_config()
    assert (config["weight_decay"], config["clip_norm"], config["rate_factors"]) == (0.3, 2.0, {"a": 0.5})
    assert config["total_steps"] == 50
    sgd = made(TrainSettings(optimizer="sgd", schedule="cosine", weight_decay=0.2), {"b": 0.5})
    assert isinstance(sgd, FusedSGD)
    config = sgd.get_config()
    assert (config["momentum"], config["clip_norm"], config["weight_decay"]) == (0.9, 1.0, 0.2)
    assert config["rate_factors"] == {"b": 0.5}
    rates = [float(sgd._learning_rate(step)) for step in (0, 4, 5, 50)]
    np.testing.assert_allclose(rates, [0.002, 0.01, 0.01, 0.0], atol=1e-8)


def test_lower_blocks_get_lower_rates(tiny_classifier):
    model = tiny_classifier
    assert layer_rate_factors(model, 1.0) == {}
    factors = layer_rate_factors(model, 0.5)
    expected = {"token_embedding": 0.125, "transformer_layer_0": 0.25, "transformer_layer_1": 0.5}
    for variable in model.trainable_variables:
        prefix = variable.path.split("/")[0]
        factor = next((f for name, f in expected.items() if name in variable.path), None)
        if prefix == "logits":
            assert variable.path not in factors
        elif factor is not None:
            assert factors[variable.path] == factor, variable.path
        else:
            assert factors[variable.path] == 0.125, variable.path
