"""The fused forward pass beside Keras's own: the same numbers, the same gradients, honest dropout."""

from types import SimpleNamespace

import keras
import keras_hub
import numpy as np
import pytest
import tensorflow as tf

from tfapp.data.tokenizers import WordPieceTokenizer
from tfapp.models import build_text_classifier
from tfapp.models import fused as module
from tfapp.models.fused import fused_parts
from tfapp.models.kernels import LONG_TEXT, bias_gelu, dropout_add_norm, masked_softmax
from tfapp.training.precision import computing_in

TEXTS = ["the film was great", "bank", "the team won the cup and the coach said it was a long season"]
LABELS = np.array([0, 1, 2])
RATE = 0.3


def make_classifier(vocabulary, *, pooling="mean", dropout=0.0, dropout_rate=0.0):
    keras.utils.set_random_seed(1)
    backbone = keras_hub.models.BertBackbone(
        vocabulary_size=len(vocabulary),
        num_layers=2,
        num_heads=2,
        hidden_dim=16,
        intermediate_dim=32,
        dropout=dropout,
        max_sequence_length=64,
    )
    tokenizer = WordPieceTokenizer(vocabulary, max_length=32)
    model = build_text_classifier(
        backbone, classes=["a", "b", "c"], pooling=pooling, tokenizer=tokenizer, dropout_rate=dropout_rate
    )
    # Random biases and gains, so that one left out would show.
    generator = np.random.default_rng(1)
    model.set_weights([value + generator.normal(0, 0.1, value.shape) for value in model.get_weights()])
    return model


def parts_of(model, train="all", *, precision="float32", seed=0, typical_length=0):
    generator = keras.random.SeedGenerator(seed)
    return fused_parts(model, train, precision=precision, generator=generator, typical_length=typical_length)


def inputs_of(model, texts=TEXTS):
    inputs = model.preprocessor(tf.constant(texts))
    segments = np.zeros(inputs["segment_ids"].shape, np.int32)
    segments[-1, 4:] = 1
    return {**inputs, "segment_ids": tf.constant(segments)}


@pytest.mark.parametrize("pooling", ["mean", "cls", "pooler"])
def test_logits_equal_those_of_keras(tiny_vocab, pooling):
    model = make_classifier(tiny_vocab, pooling=pooling)
    inputs = inputs_of(model)
    logits = parts_of(model).upper(inputs, training=False)
    assert logits.dtype == tf.float32
    np.testing.assert_allclose(logits, model(inputs), atol=1e-5)


def test_padding_changes_nothing(tiny_vocab):
    model = make_classifier(tiny_vocab)
    upper = parts_of(model).upper
    together = upper(inputs_of(model), training=False)
    for row, text in enumerate(TEXTS):
        inputs = {name: value[row : row + 1] for name, value in inputs_of(model).items()}
        length = int(inputs["padding_mask"].numpy().sum())
        alone = upper({name: value[:, :length] for name, value in inputs.items()}, training=False)
        np.testing.assert_allclose(alone[0], together[row], atol=1e-5, err_msg=text)


def gradients_of(function, model, inputs):
    with tf.GradientTape() as tape:
        logits = function(inputs, training=True)
        loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(LABELS, logits))
    variables = model.trainable_variables
    gradients = tape.gradient(loss, [variable.value for variable in variables])
    paths = [variable.path for variable in variables]
    return {path: tf.convert_to_tensor(g).numpy() for path, g in zip(paths, gradients, strict=True)}


@pytest.mark.parametrize("typical_length", [0, LONG_TEXT])
@pytest.mark.parametrize("pooling", ["mean", "cls", "pooler"])
def test_gradients_equal_those_of_keras(tiny_vocab, pooling, typical_length):
    model = make_classifier(tiny_vocab, pooling=pooling)
    inputs = inputs_of(model)
    upper = parts_of(model, typical_length=typical_length).upper
    ours, theirs = gradients_of(upper, model, inputs), gradients_of(model, model, inputs)
    assert ours.keys() == theirs.keys()
    norm = np.sqrt(sum((gradient**2).sum() for gradient in theirs.values()))
    assert norm > 0.1
    for path, gradient in theirs.items():
        assert np.linalg.norm(ours[path] - gradient) < 1e-4 * norm, path


def test_a_table_gets_the_gradients_of_its_used_rows_only(tiny_vocab):
    model = make_classifier(tiny_vocab)
    inputs = inputs_of(model)
    table = model.backbone.token_embedding.embeddings.value
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(parts_of(model).upper(inputs, training=True) ** 2)
    gradient = tape.gradient(loss, table)
    assert isinstance(gradient, tf.IndexedSlices)
    assert set(gradient.indices.numpy()) == set(inputs["token_ids"].numpy().ravel())


@pytest.mark.parametrize("train", ["head", 1, 2])
@pytest.mark.parametrize("pooling", ["mean", "pooler"])
def test_the_two_parts_composed_are_the_whole(tiny_vocab, train, pooling):
    model = make_classifier(tiny_vocab, pooling=pooling)
    inputs = inputs_of(model)
    fused = parts_of(model, train)
    cached = fused.lower(inputs, training=False)
    lower, upper = model.split(train)
    theirs = lower(inputs)
    assert cached.keys() == theirs.keys()
    for name, value in theirs.items():
        np.testing.assert_allclose(cached[name], value, atol=1e-5, err_msg=name)
    np.testing.assert_allclose(fused.upper(cached, training=False), model(inputs), atol=1e-5)
    # Each half fits the other half of Keras too: features may come from one and go to the other.
    np.testing.assert_allclose(upper(cached), fused.upper(theirs, training=False), atol=1e-5)


@pytest.mark.parametrize("train", ["head", 1, "all"])
def test_another_head_stands_beside(tiny_vocab, train):
    model = make_classifier(tiny_vocab)
    beside = keras.layers.Dense(2, kernel_initializer="ones", name="beside")
    generator = keras.random.SeedGenerator(0)
    fused = fused_parts(model, train, precision="float32", generator=generator, beside=beside)
    _, upper = model.split(train, beside=beside)
    inputs = inputs_of(model)
    features = fused.lower(inputs) if fused.lower else inputs
    logits = fused.upper(features, training=False)
    assert logits.shape == (len(TEXTS), 3 + 2)
    np.testing.assert_allclose(logits, upper(features), atol=1e-5)


def test_nothing_is_below_when_all_is_trained(tiny_vocab):
    assert parts_of(make_classifier(tiny_vocab), "all").lower is None


def test_bfloat16_is_as_near_as_keras_in_bfloat16(tiny_vocab):
    model = make_classifier(tiny_vocab)
    inputs = inputs_of(model)
    exact = model(inputs).numpy()
    with computing_in("mixed_bfloat16", model.backbone):
        theirs = np.abs(model(inputs).numpy() - exact).max()
        ours = np.abs(parts_of(model, precision="mixed_bfloat16").upper(inputs, training=False) - exact).max()
    assert 1e-5 < ours < max(2 * theirs, 0.02)


def test_the_fused_pass_without_dropout_in_inference(tiny_vocab):
    model = make_classifier(tiny_vocab, dropout=0.5, dropout_rate=0.5)
    generator = keras.random.SeedGenerator(3)
    before = generator.state.numpy()
    upper = fused_parts(model, "all", precision="float32", generator=generator).upper
    inputs = inputs_of(model)
    np.testing.assert_allclose(upper(inputs, training=False), model(inputs), atol=1e-5)
    np.testing.assert_array_equal(generator.state, before)


def test_the_seed_decides_the_dropout(tiny_vocab):
    model = make_classifier(tiny_vocab, dropout=0.5)
    inputs = inputs_of(model)
    generator = keras.random.SeedGenerator(3)
    state = generator.state.numpy()
    upper = fused_parts(model, "all", precision="float32", generator=generator).upper
    first, second = (upper(inputs, training=True).numpy() for _ in range(2))
    assert np.abs(first - second).max() > 1e-3
    generator.state.assign(state)
    np.testing.assert_array_equal(upper(inputs, training=True), first)
    np.testing.assert_array_equal(upper(inputs, training=True), second)


def test_every_place_has_its_own_seed_in_every_step(tiny_vocab, monkeypatch):
    seeds = []

    def spy(kernel):
        def call(*arguments, **options):
            if options["seed"] is not None:
                seeds.append(tuple(options["seed"].numpy()))
            return kernel(*arguments, **options)

        return call

    for name in ("masked_softmax", "dropout_add_norm"):
        monkeypatch.setattr(module, name, spy(getattr(module, name)))
    model = make_classifier(tiny_vocab, dropout=0.5)
    generator = keras.random.SeedGenerator(3)
    parts = fused_parts(model, "all", precision="float32", generator=generator, typical_length=LONG_TEXT)
    upper = parts.upper
    for _ in range(2):
        upper(inputs_of(model), training=True)
    # Attention, its output and the feed-forward output, in 2 blocks, in 2 steps.
    assert len(seeds) == len(set(seeds)) == 3 * 2 * 2
    # And one more in each step for the embeddings.
    assert int(generator.state.numpy()[1]) == 14


def softmax_mask(seed, shape=(4, 2, 16, 16)):
    """The dropout mask of attention weights: with equal scores, 0 where a weight is dropped."""
    weights = masked_softmax(tf.zeros(shape), tf.zeros([shape[0], 1, 1, shape[3]]), rate=RATE, seed=seed)
    return weights.numpy() > 0


def norm_mask(seed, shape=(64, 32)):
    """The mask before a layer norm: with equal inputs, those that are kept stand above the mean."""
    ones, zeros = tf.ones(shape[1]), tf.zeros(shape[1])
    options = {"epsilon": 1e-6, "rate": RATE, "seed": seed}
    return dropout_add_norm(tf.ones(shape), zeros, tf.zeros(shape), ones, zeros, **options).numpy() > 0


@pytest.mark.parametrize("mask_of", [softmax_mask, norm_mask])
def test_the_share_kept_is_the_rate(mask_of):
    masks = np.stack([mask_of(tf.constant([seed, counter])) for seed in (0, 7) for counter in range(20)])
    sigma = np.sqrt(RATE * (1 - RATE))
    assert abs(masks.mean() - (1 - RATE)) < 4 * sigma / np.sqrt(masks.size)
    # Also in every single mask, row of it and column of it: 6 sigma, for there are thousands of them.
    flat = masks.reshape(len(masks), -1, masks.shape[-1])
    for axes in ((1, 2), (0, 1), (0, 2)):
        shares = flat.mean(axis=axes)
        count = flat.size / shares.size
        assert np.abs(shares - (1 - RATE)).max() < 6 * sigma / np.sqrt(count), axes


@pytest.mark.parametrize("mask_of", [softmax_mask, norm_mask])
def test_masks_of_a_run_know_nothing_of_each_other(mask_of):
    seeds = [(5, counter) for counter in (0, 1, 2, 3, 16, 1000, 2**31 - 1)]
    masks = [mask_of(tf.constant(seed)).ravel() - (1 - RATE) for seed in seeds]
    variance = RATE * (1 - RATE)
    for number, one in enumerate(masks):
        for other in masks[:number]:
            for shift in (0, 1, 2, 16, 32):
                correlation = (one * np.roll(other, shift)).mean() / variance
                assert abs(correlation) < 5 / np.sqrt(len(one))
        for shift in (1, 2, 3, 4, 8, 16, 32):
            assert abs((one * np.roll(one, shift)).mean() / variance) < 5 / np.sqrt(len(one))
    assert (mask_of(tf.constant([0, 1])) == mask_of(tf.constant([0, 1]))).all()


def test_the_weights_that_are_kept_are_scaled_up():
    scores, bias = tf.zeros([4, 2, 16, 16]), tf.zeros([4, 1, 1, 16])
    weights = masked_softmax(scores, bias, rate=RATE, seed=tf.constant([1, 2])).numpy()
    np.testing.assert_allclose(weights[weights > 0], 1 / 16 / (1 - RATE), rtol=1e-6)


def test_forward_and_backward_of_the_norm_use_one_mask():
    """A number that was dropped gets no gradient, and one that was kept gets one."""
    generator = np.random.default_rng(0)
    shape, seed = (64, 32), tf.constant([5, 9])
    inputs, bias = tf.ones(shape), tf.zeros(32)
    upstream = generator.normal(size=shape).astype(np.float32)
    with tf.GradientTape() as tape:
        tape.watch([inputs, bias])
        options = {"epsilon": 1e-6, "rate": RATE, "seed": seed}
        outputs = dropout_add_norm(inputs, bias, tf.zeros(shape), tf.ones(32), tf.zeros(32), **options)
        probe = tf.reduce_sum(outputs * upstream)
    to_inputs, to_bias = tape.gradient(probe, [inputs, bias])
    np.testing.assert_array_equal(to_inputs.numpy() != 0, norm_mask(seed))
    np.testing.assert_allclose(to_bias, to_inputs.numpy().sum(axis=0), rtol=1e-4, atol=1e-5)


def test_forward_and_backward_of_attention_use_one_mask():
    """The gradient equals that of softmax and a mask taken from the forward pass, differentiated by TF."""
    generator = np.random.default_rng(0)
    shape, seed = (2, 2, 8, 8), tf.constant([5, 9])
    scores = tf.constant(generator.normal(size=shape), tf.float32)
    upstream = tf.constant(generator.normal(size=shape), tf.float32)
    mask = np.ones((2, 1, 1, 8), np.float32)
    mask[1, ..., 5:] = 0
    bias = tf.constant((1 - mask) * -1e9)
    kept = softmax_mask(seed, shape) / (1 - RATE)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(scores)
        ours = masked_softmax(scores, bias, rate=RATE, seed=seed)
        theirs = tf.nn.softmax(scores + bias) * kept.astype(np.float32)
        probes = [tf.reduce_sum(weights * upstream) for weights in (ours, theirs)]
    np.testing.assert_allclose(ours, theirs, atol=1e-6)
    np.testing.assert_allclose(*(tape.gradient(probe, scores) for probe in probes), atol=1e-6)
    assert (ours.numpy()[1, ..., 5:] == 0).all()


def test_gelu_equals_keras_forward_and_backward():
    generator = np.random.default_rng(0)
    inputs = tf.constant(generator.normal(size=(50, 8)) * 3, tf.float32)
    bias = tf.constant(generator.normal(size=8), tf.float32)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch([inputs, bias])
        ours = tf.reduce_sum(bias_gelu(inputs, bias) ** 2)
        theirs = tf.reduce_sum(keras.activations.gelu(inputs + bias, approximate=True) ** 2)
    np.testing.assert_allclose(ours, theirs, rtol=1e-5)
    for source in (inputs, bias):
        np.testing.assert_allclose(tape.gradient(ours, source), tape.gradient(theirs, source), atol=1e-3)


def test_another_backbone_goes_through_keras(tiny_vocab):
    backbone = keras_hub.models.RobertaBackbone(
        vocabulary_size=len(tiny_vocab),
        num_layers=1,
        num_heads=2,
        hidden_dim=8,
        intermediate_dim=16,
        max_sequence_length=32,
    )
    model = build_text_classifier(
        backbone, classes=["a", "b"], pooling="mean", tokenizer=WordPieceTokenizer(tiny_vocab, max_length=32)
    )
    assert parts_of(model) is None


@pytest.mark.parametrize("kind", ["GPU", "TPU", "TPU_SYSTEM"])
def test_accelerators_go_through_keras(tiny_vocab, monkeypatch, kind):
    model = make_classifier(tiny_vocab)
    monkeypatch.setattr(
        tf.config, "list_logical_devices", lambda asked=None: ["one"] if asked == kind else []
    )
    assert parts_of(model) is None


@pytest.mark.parametrize("devices", [1, 2])
def test_several_replicas_in_a_process_go_through_keras(tiny_vocab, monkeypatch, devices):
    model = make_classifier(tiny_vocab)
    strategy = SimpleNamespace(extended=SimpleNamespace(worker_devices=["/cpu:0"] * devices))
    monkeypatch.setattr(tf.distribute, "has_strategy", lambda: True)
    monkeypatch.setattr(tf.distribute, "get_strategy", lambda: strategy)
    assert (parts_of(model) is None) == (devices > 1)
