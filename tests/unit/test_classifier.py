"""The text classifier: its form, its split, its copies, and what a process without tfapp can load."""

import subprocess
import sys

import keras
import keras_hub
import numpy as np
import pytest
import tensorflow as tf

from tfapp.data.tokenizers import WordPieceTokenizer
from tfapp.errors import ConfigError, WeightsError
from tfapp.models import Classifier, LoadedBackbone, build_text_classifier

TEXTS = ["the film was great", "bank", "the team won the cup and the coach said it was a long season"]


def make_classifier(vocabulary, *, pooling="mean", dtype=None):
    keras.utils.set_random_seed(1)
    backbone = keras_hub.models.BertBackbone(
        vocabulary_size=len(vocabulary),
        num_layers=2,
        num_heads=2,
        hidden_dim=16,
        intermediate_dim=32,
        max_sequence_length=64,
        dtype=dtype,
    )
    tokenizer = WordPieceTokenizer(vocabulary, max_length=32)
    model = build_text_classifier(backbone, classes=["a", "b", "c"], pooling=pooling, tokenizer=tokenizer)
    # Random biases and gains, so that a layer applied twice or left out would show.
    generator = np.random.default_rng(1)
    model.set_weights([value + generator.normal(0, 0.1, value.shape) for value in model.get_weights()])
    return model


def inputs_of(model, texts=TEXTS):
    return model.preprocessor(tf.constant(texts))


def test_a_classifier_tells_what_it_is(tiny_classifier):
    model = tiny_classifier
    assert model.classes == ("business", "sport", "tech")
    assert type(model.classes) is tuple
    assert (model.num_classes, model.num_blocks, model.max_positions) == (3, 2, 64)
    assert (model.pooling, model.dropout_rate, model.preset, model.task) == ("mean", 0.1, "", "single_label")
    assert set(model.input) == {"token_ids", "padding_mask", "segment_ids"}
    assert all(tensor.shape == (None, None) and tensor.dtype == "int32" for tensor in model.input.values())
    assert not model.compiled


@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16"])
@pytest.mark.parametrize("pooling", ["mean", "cls", "pooler"])
def test_the_two_parts_composed_are_the_whole(tiny_vocab, pooling, dtype):
    model = make_classifier(tiny_vocab, pooling=pooling, dtype=dtype)
    inputs = inputs_of(model)
    logits = model(inputs)
    assert logits.dtype == "float32"
    for train, keys in [
        ("head", {"features"}),
        (1, {"hidden", "padding_mask"}),
        (2, {"hidden", "padding_mask"}),
    ]:
        lower, upper = model.split(train)
        cached = lower(inputs)
        assert set(cached) == keys
        np.testing.assert_array_equal(upper(cached), logits)


def test_the_two_parts_share_and_divide_the_variables(tiny_vocab):
    model = make_classifier(tiny_vocab)
    paths = {variable.path for variable in model.trainable_variables}
    for train, below in [("head", 2), (1, 1), (2, 0)]:
        lower, upper = model.split(train)
        lower_paths = {variable.path for variable in lower.trainable_variables}
        upper_paths = {variable.path for variable in upper.trainable_variables}
        assert lower_paths | upper_paths == paths
        assert not lower_paths & upper_paths
        blocks = {path.split("/")[0] for path in lower_paths if path.startswith("transformer_layer")}
        assert blocks == {f"transformer_layer_{index}" for index in range(below)}
    assert model.split("all") == (None, model)


def test_training_the_upper_part_changes_the_whole_and_leaves_the_lower_part(tiny_vocab):
    model = make_classifier(tiny_vocab)
    inputs = inputs_of(model)
    lower, upper = model.split(1)
    before = [value.copy() for value in lower.get_weights()]
    cached = lower(inputs)
    logits = model(inputs).numpy()
    upper.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    upper.fit(cached, np.array([0, 1, 2]), epochs=2, verbose=0)
    assert all(np.array_equal(old, new) for old, new in zip(before, lower.get_weights(), strict=True))
    assert np.abs(model(inputs) - logits).max() > 1e-3
    np.testing.assert_array_equal(upper(cached), model(inputs))


@pytest.mark.parametrize("train", [0, 3, "top", True, 1.0])
def test_an_impossible_cut_names_the_possible_ones(tiny_vocab, train):
    with pytest.raises(ConfigError, match="1 to 2 top blocks"):
        make_classifier(tiny_vocab).split(train)


@pytest.mark.parametrize("pooling", ["mean", "cls", "pooler"])
def test_padding_does_not_change_the_logits(tiny_vocab, pooling):
    model = make_classifier(tiny_vocab, pooling=pooling)
    alone = model(inputs_of(model, TEXTS[:1]))
    beside_a_longer_one = model(inputs_of(model))[:1]
    # The same sums in another order: float32 rounding.
    np.testing.assert_allclose(alone, beside_a_longer_one, atol=2e-6)


def test_mean_pooling_averages_the_tokens_and_survives_a_row_without_any(tiny_vocab):
    model = make_classifier(tiny_vocab)
    inputs = inputs_of(model)
    hidden = model.backbone(inputs)["sequence_output"].numpy()
    lengths = np.sum(inputs["padding_mask"], axis=1)
    expected = [row[:length].mean(axis=0) for row, length in zip(hidden, lengths, strict=True)]
    lower, _ = model.split("head")
    np.testing.assert_allclose(lower(inputs)["features"], expected, atol=1e-6)
    empty = {name: tf.zeros((1, 4), tf.int32) for name in inputs}
    assert np.isfinite(model(empty)).all()


def test_every_variable_gets_a_gradient(tiny_vocab):
    for pooling in ("mean", "cls", "pooler"):
        model = make_classifier(tiny_vocab, pooling=pooling)
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(model(inputs_of(model), training=True)[:, 0])
        values = [variable.value for variable in model.trainable_variables]
        assert all(gradient is not None for gradient in tape.gradient(loss, values))


def test_a_saved_classifier_comes_back_whole(tiny_vocab, tmp_path):
    model = make_classifier(tiny_vocab, pooling="pooler")
    model.temperature = 1.7
    model.preprocessor.max_length = 20
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert isinstance(loaded, Classifier)
    assert (loaded.classes, loaded.pooling, loaded.temperature) == (model.classes, "pooler", 1.7)
    assert loaded.preprocessor.get_config() == model.preprocessor.get_config()
    np.testing.assert_array_equal(loaded(inputs_of(model)), model(inputs_of(model)))
    model.save_weights(tmp_path / "model.weights.h5")
    fresh = make_classifier(tiny_vocab, pooling="pooler")
    fresh.load_weights(tmp_path / "model.weights.h5")
    np.testing.assert_array_equal(fresh(inputs_of(model)), model(inputs_of(model)))


@pytest.mark.parametrize("pooling", ["mean", "cls", "pooler"])
def test_the_plain_model_shares_the_weights(tiny_vocab, pooling):
    model = make_classifier(tiny_vocab, pooling=pooling)
    plain = model.plain()
    assert type(plain).__module__.startswith("keras.")
    assert all(not type(layer).__module__.startswith("tfapp") for layer in plain.layers)
    assert [id(value) for value in plain.variables] == [id(value) for value in model.variables]
    np.testing.assert_array_equal(plain(inputs_of(model)), model(inputs_of(model)))


def test_the_plain_model_loads_in_a_process_without_tfapp(tiny_vocab, tmp_path):
    inputs, expected = {}, {}
    for pooling in ("mean", "cls", "pooler"):
        model = make_classifier(tiny_vocab, pooling=pooling)
        model.plain().save(tmp_path / f"{pooling}.keras")
        inputs = {name: value.numpy() for name, value in inputs_of(model).items()}
        expected[pooling] = model(inputs).numpy()
    np.savez(tmp_path / "inputs.npz", **inputs)
    np.savez(tmp_path / "expected.npz", **expected)
    program = """
import sys
import keras, keras_hub, numpy as np
inputs = dict(np.load("inputs.npz"))
for pooling, logits in np.load("expected.npz").items():
    model = keras.saving.load_model(f"{pooling}.keras")
    np.testing.assert_allclose(model(inputs), logits, atol=1e-6)
assert "tfapp" not in sys.modules
"""
    result = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr


def test_the_float32_copy_computes_in_float32_and_shares_nothing(tiny_vocab):
    model = make_classifier(tiny_vocab, dtype="mixed_bfloat16")
    model.temperature = 2.0
    twin = model.float32_copy()
    assert {layer.compute_dtype for layer in twin._flatten_layers()} == {"float32"}
    assert (twin.classes, twin.temperature) == (model.classes, 2.0)
    for mine, other in zip(model.get_weights(), twin.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, other)
    # bfloat16 keeps 8 bits: about 0.4 % of logits of order one.
    np.testing.assert_allclose(twin(inputs_of(model)), model(inputs_of(model)), atol=0.05)
    before = model(inputs_of(model)).numpy()
    twin.set_weights([np.zeros_like(value) for value in twin.get_weights()])
    np.testing.assert_array_equal(model(inputs_of(model)), before)


def test_the_plain_float32_copy_converts_to_tflite_builtins(tiny_vocab, tmp_path):
    from ai_edge_litert.interpreter import Interpreter

    model = make_classifier(tiny_vocab, dtype="mixed_bfloat16").float32_copy()
    inputs = {name: value[:1].numpy() for name, value in inputs_of(model).items()}
    length = inputs["token_ids"].shape[1]
    path = tmp_path / "model.tflite"
    model.plain().export(
        path,
        format="litert",
        input_signature=[{name: tf.TensorSpec([1, length], tf.int32, name=name) for name in inputs}],
        target_spec={"supported_ops": [tf.lite.OpsSet.TFLITE_BUILTINS]},
        verbose=False,
    )
    runner = Interpreter(str(path)).get_signature_runner("serving_default")
    (logits,) = runner(**inputs).values()
    np.testing.assert_allclose(logits, model(inputs), atol=1e-5)


def make_roberta(**sizes):
    return keras_hub.models.RobertaBackbone(**sizes)


def make_distil_bert(**sizes):
    return keras_hub.models.DistilBertBackbone(**sizes)


def make_electra(vocabulary_size, **sizes):
    return keras_hub.models.ElectraBackbone(vocab_size=vocabulary_size, embedding_dim=16, **sizes)


def make_albert(**sizes):
    return keras_hub.models.AlbertBackbone(embedding_dim=8, **sizes)


def make_deberta(**sizes):
    return keras_hub.models.DebertaV3Backbone(bucket_size=8, **sizes)


@pytest.mark.parametrize(
    ("make", "num_blocks", "inputs"),
    [
        (make_roberta, 2, {"token_ids", "padding_mask"}),
        (make_distil_bert, 2, {"token_ids", "padding_mask"}),
        (make_electra, 2, {"token_ids", "padding_mask", "segment_ids"}),
        (make_albert, 0, {"token_ids", "padding_mask", "segment_ids"}),
        (make_deberta, 0, {"token_ids", "padding_mask"}),
    ],
)
def test_other_families_work_with_the_inputs_that_they_have(tiny_vocab, make, num_blocks, inputs):
    backbone = make(
        vocabulary_size=len(tiny_vocab),
        num_layers=2,
        num_heads=2,
        hidden_dim=16,
        intermediate_dim=32,
        max_sequence_length=32,
    )
    tokenizer = WordPieceTokenizer(tiny_vocab, max_length=32)
    model = build_text_classifier(backbone, classes=["a", "b"], tokenizer=tokenizer)
    assert set(model.input) == inputs
    assert model.num_blocks == num_blocks
    batch = {name: value for name, value in inputs_of(model).items() if name in inputs}
    logits = model(batch)
    assert logits.shape == (3, 2)
    for train in ["head", *range(1, num_blocks + 1)]:
        lower, upper = model.split(train)
        np.testing.assert_array_equal(upper(lower(batch)), logits)
    np.testing.assert_allclose(model.float32_copy()(batch), logits, atol=1e-6)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"classes": ["a"]}, ConfigError, "at least 2"),
        ({"classes": ["a", "a"]}, ConfigError, "different names"),
        ({"pooling": "meen"}, ConfigError, "did you mean 'mean'"),
        ({"dropout_rate": 1.0}, ConfigError, "less than 1"),
        ({"max_length": 65}, ConfigError, "64 positions"),
        ({"tokenizer": None}, ConfigError, "needs tokenizer="),
        ({"dtype": "float32"}, ConfigError, "build the encoder with them"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(tiny_classifier, change, error, message):
    arguments = {"classes": ["a", "b"], "tokenizer": tiny_classifier.preprocessor, **change}
    with pytest.raises(error, match=message):
        build_text_classifier(tiny_classifier.backbone, **arguments)


def test_a_vocabulary_larger_than_the_embeddings_is_refused(tiny_classifier, tiny_vocab):
    tokenizer = WordPieceTokenizer([*tiny_vocab, "onemore"], max_length=32)
    with pytest.raises(WeightsError, match="do not belong together"):
        build_text_classifier(tiny_classifier.backbone, classes=["a", "b"], tokenizer=tokenizer)


def test_a_model_that_is_no_text_encoder_is_refused(tiny_vocab):
    image_model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Flatten()])
    with pytest.raises(WeightsError, match="token_ids and padding_mask"):
        build_text_classifier(image_model, classes=["a", "b"], tokenizer=WordPieceTokenizer(tiny_vocab))


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan"), float("inf")])
def test_a_temperature_must_be_positive(tiny_classifier, temperature):
    with pytest.raises(ConfigError, match="positive"):
        tiny_classifier.temperature = temperature


def test_a_model_of_keras_layers_can_be_every_artifact(tiny_classifier):
    assert tiny_classifier.cannot_export == {}


class Doubled(keras.layers.Layer):
    def call(self, hidden):
        return 2 * hidden


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (Doubled, "Doubled is no layer of Keras"),
        (lambda: keras.Sequential([Doubled()]), "Doubled is no layer of Keras"),
        (lambda: keras.layers.Lambda(lambda hidden: 2 * hidden), "Lambda layer: loading the file would run"),
    ],
    ids=["own", "nested", "lambda"],
)
def test_a_model_with_a_layer_of_its_own_says_that_a_keras_file_would_not_load(tiny_vocab, make, reason):
    inputs = {name: keras.Input((None,), dtype="int32", name=name) for name in ("token_ids", "padding_mask")}
    hidden = make()(keras.layers.Embedding(len(tiny_vocab), 8)(inputs["token_ids"]))
    model = build_text_classifier(
        keras.Model(inputs, hidden), classes=["a", "b"], tokenizer=WordPieceTokenizer(tiny_vocab)
    )
    assert set(model.cannot_export) == {"keras"}
    assert reason in model.cannot_export["keras"]


def test_only_declared_tensors_are_picked(tiny_classifier):
    tensors = {**tiny_classifier.preprocessor(["good film"]), "other": 1}
    assert set(tiny_classifier.declared(tensors)) == {"token_ids", "padding_mask", "segment_ids"}


def test_a_classifier_of_other_classes_shares_the_backbone(tiny_vocab):
    model = make_classifier(tiny_vocab, pooling="cls")
    model.temperature = 2.0
    twin = model.with_classes(["x", "y"], seed=3)
    assert (twin.classes, twin.pooling, twin.temperature) == (("x", "y"), "cls", 1.0)
    assert twin.backbone is model.backbone
    assert twin.preprocessor is model.preprocessor
    before = twin(inputs_of(model)).numpy()
    model.backbone.set_weights([value + 0.1 for value in model.backbone.get_weights()])
    assert np.abs(twin(inputs_of(model)).numpy() - before).max() > 1e-3
    again = model.with_classes(["x", "y"], seed=3)
    np.testing.assert_array_equal(again(inputs_of(model)), twin(inputs_of(model)))


def test_random_weights_are_those_of_the_seed(tiny_vocab, monkeypatch):
    asked = []

    def load(name, *, load_weights, **_):
        asked.append((name, load_weights))
        backbone = make_classifier(tiny_vocab).backbone
        return LoadedBackbone(backbone, WordPieceTokenizer(tiny_vocab, max_length=32), "mean", name)

    monkeypatch.setattr("tfapp.models.bert.load_backbone", load)
    models = [
        build_text_classifier("some", classes=["a", "b"], weights=weights, seed=seed)
        for weights, seed in (("pretrained", 0), (None, 0), (None, 0), (None, 1))
    ]
    assert asked == [("some", True)] + [("some", False)] * 3
    _, first, again, other = (model.backbone.get_weights() for model in models)
    for one, same in zip(first, again, strict=True):
        np.testing.assert_array_equal(one, same)
    kernels = [(one.ravel(), new.ravel()) for one, new in zip(first, other, strict=True) if one.ndim > 1]
    together, anew = (np.concatenate(values) for values in zip(*kernels, strict=True))
    assert together.std() == pytest.approx(0.0176, rel=0.05)  # cut at two deviations of 0.02
    assert abs(np.corrcoef(together, anew)[0, 1]) < 0.1
    flat = {variable.path.rsplit("/", 1)[-1]: variable.numpy() for variable in models[1].backbone.weights}
    assert (flat["gamma"] == 1).all()
    assert (flat["beta"] == 0).all()


def test_weights_go_with_a_name(tiny_vocab):
    backbone = make_classifier(tiny_vocab).backbone
    with pytest.raises(ConfigError, match="weights go with a backbone's name"):
        build_text_classifier(
            backbone, classes=["a", "b"], tokenizer=WordPieceTokenizer(tiny_vocab), weights=None
        )
