"""TF-Hub BERT: a stand-in SavedModel in TF-Hub's own form is copied exactly, or wrapped and trained."""

import hashlib
import io
import logging
import shutil
import tarfile
import urllib.request

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfapp.data.text import load_text_data
from tfapp.data.tokenizers import WordPieceTokenizer
from tfapp.errors import ConfigError, WeightsError
from tfapp.models import build_text_classifier, hub, hub_cache, load_backbone
from tfapp.models.hub_layer import HubLayer
from tfapp.release import Budget, export, verify
from tfapp.training import Phase, train

LAYERS, WIDTH, HEADS, INNER, POSITIONS = 2, 16, 4, 32, 24
HANDLE = "https://tfhub.dev/tensorflow/bert_en_uncased_L-2_H-16_A-4/4"
PREPROCESS = "https://tfhub.dev/tensorflow/bert_en_uncased_preprocess/3"


class StandIn(tf.__internal__.tracking.AutoTrackable):
    """BERT as TF-Hub publishes it: its variable names, its inputs and outputs, plain TensorFlow inside."""

    def __init__(self, vocabulary_size, *, gelu_approximate=True, extra_variable=False):
        generator = np.random.default_rng(0)
        self.named = {}
        self.gelu_approximate = gelu_approximate

        def add(name, *shape, center=0.0):
            value = generator.normal(center, 0.2, shape).astype("float32")
            self.named[name] = tf.Variable(value, name=name)

        def add_norm(name):
            add(f"{name}/gamma", WIDTH, center=1.0)
            add(f"{name}/beta", WIDTH)

        add("word_embeddings/embeddings", vocabulary_size, WIDTH)
        add("position_embedding/embeddings", POSITIONS, WIDTH)
        add("type_embeddings/embeddings", 2, WIDTH)
        add_norm("embeddings/layer_norm")
        for index in range(LAYERS):
            block = f"transformer/layer_{index}"
            for part in ("query", "key", "value"):
                add(f"{block}/self_attention/{part}/kernel", WIDTH, HEADS, WIDTH // HEADS)
                add(f"{block}/self_attention/{part}/bias", HEADS, WIDTH // HEADS)
            add(f"{block}/self_attention/attention_output/kernel", HEADS, WIDTH // HEADS, WIDTH)
            add(f"{block}/self_attention/attention_output/bias", WIDTH)
            add_norm(f"{block}/self_attention_layer_norm")
            add(f"{block}/intermediate/kernel", WIDTH, INNER)
            add(f"{block}/intermediate/bias", INNER)
            add(f"{block}/output/kernel", INNER, WIDTH)
            add(f"{block}/output/bias", WIDTH)
            add_norm(f"{block}/output_layer_norm")
        add("pooler_transform/kernel", WIDTH, WIDTH)
        add("pooler_transform/bias", WIDTH)
        if extra_variable:
            add("embedding_projection/bias", WIDTH)
        self.variables = list(self.named.values())
        self.trainable_variables = list(self.variables)
        self.regularization_losses = []

    def norm(self, name, values):
        mean, variance = tf.nn.moments(values, -1, keepdims=True)
        gamma, beta = self.named[f"{name}/gamma"], self.named[f"{name}/beta"]
        return (values - mean) / tf.sqrt(variance + 1e-12) * gamma + beta

    def dense(self, name, equation, values):
        return tf.einsum(equation, values, self.named[f"{name}/kernel"]) + self.named[f"{name}/bias"]

    @tf.function
    def __call__(self, inputs, training=False):
        def dropped(values):
            return tf.nn.dropout(values, 0.1) if training else values

        ids, mask = inputs["input_word_ids"], inputs["input_mask"]
        hidden = tf.gather(self.named["word_embeddings/embeddings"], ids)
        hidden += self.named["position_embedding/embeddings"][None, : tf.shape(ids)[1]]
        hidden += tf.gather(self.named["type_embeddings/embeddings"], inputs["input_type_ids"])
        if "embedding_projection/bias" in self.named:
            hidden += self.named["embedding_projection/bias"]
        hidden = dropped(self.norm("embeddings/layer_norm", hidden))
        blocked = (1.0 - tf.cast(mask, tf.float32))[:, None, None, :] * -1e9
        blocks = []
        for index in range(LAYERS):
            block = f"transformer/layer_{index}"
            query, key, value = (
                self.dense(f"{block}/self_attention/{part}", "bsw,whd->bshd", hidden)
                for part in ("query", "key", "value")
            )
            scores = tf.einsum("bqhd,bkhd->bhqk", query, key) / (WIDTH / HEADS) ** 0.5
            mixed = tf.einsum("bhqk,bkhd->bqhd", dropped(tf.nn.softmax(scores + blocked)), value)
            mixed = self.dense(f"{block}/self_attention/attention_output", "bqhd,hdw->bqw", mixed)
            hidden = self.norm(f"{block}/self_attention_layer_norm", hidden + dropped(mixed))
            inner = self.dense(f"{block}/intermediate", "bsw,wi->bsi", hidden)
            inner = tf.nn.gelu(inner, approximate=self.gelu_approximate)
            outer = self.dense(f"{block}/output", "bsi,iw->bsw", inner)
            hidden = self.norm(f"{block}/output_layer_norm", hidden + dropped(outer))
            blocks.append(hidden)
        pooled = tf.tanh(self.dense("pooler_transform", "bw,wv->bv", hidden[:, 0]))
        outputs = {"pooled_output": pooled, "sequence_output": hidden, "encoder_outputs": blocks}
        return {**outputs, "default": pooled}


def save_stand_in(folder, vocabulary, *, with_vocabulary=True, **options):
    """Writes the SavedModel, with both its training and its inference graph, and its vocabulary."""
    model = StandIn(len(vocabulary), **options)
    names = ("input_word_ids", "input_mask", "input_type_ids")
    signature = {name: tf.TensorSpec([None, None], tf.int32, name=name) for name in names}
    for training in (False, True):
        model.__call__.get_concrete_function(signature, training=training)
    if with_vocabulary:
        path = folder.with_suffix(".vocabulary") / "vocab.txt"
        path.parent.mkdir()
        path.write_text("\n".join(vocabulary) + "\n")
        model.vocab_file = tf.saved_model.Asset(str(path))
        model.do_lower_case = tf.Variable(True, trainable=False)
    tf.saved_model.save(model, str(folder))
    return model


def hub_inputs(batch):
    names = {"input_word_ids": "token_ids", "input_mask": "padding_mask", "input_type_ids": "segment_ids"}
    return {name: batch[ours] for name, ours in names.items()}


@pytest.fixture
def batch(tiny_vocab):
    texts = tf.constant(["the film was great", "bank", "the team won the cup and the coach"])
    inputs = WordPieceTokenizer(tiny_vocab)(texts)
    segments = np.zeros(inputs["token_ids"].shape, "int32")
    segments[2, 5:] = 1
    return {**inputs, "segment_ids": tf.constant(segments)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tiny_vocab):
    """A SavedModel that maps, with its vocabulary."""
    folder = tmp_path_factory.mktemp("mapped") / "bert"
    save_stand_in(folder, tiny_vocab)
    return folder


@pytest.fixture(scope="module")
def bare_folder(tmp_path_factory, tiny_vocab):
    """A SavedModel that maps, without its vocabulary."""
    folder = tmp_path_factory.mktemp("bare") / "bert"
    save_stand_in(folder, tiny_vocab, with_vocabulary=False)
    return folder


@pytest.fixture(scope="module")
def other_folder(tmp_path_factory, tiny_vocab):
    """A SavedModel that does not map: it has a variable more than BERT."""
    folder = tmp_path_factory.mktemp("other") / "bert"
    save_stand_in(folder, tiny_vocab, extra_variable=True)
    return folder


def test_the_variables_are_copied_exactly(folder, batch, tiny_vocab):
    loaded = load_backbone(str(folder))
    theirs = tf.saved_model.load(str(folder))
    expected = theirs(hub_inputs(batch), training=False)
    ours = loaded.backbone(batch)
    real = tf.cast(batch["padding_mask"], tf.bool)
    for name in ("sequence_output", "pooled_output"):
        difference = np.abs(ours[name] - expected[name])
        assert (difference[real] if name == "sequence_output" else difference).max() < 1e-6
    assert type(loaded.backbone).__name__ == "BertBackbone"
    assert loaded.pooling == "pooler"
    assert loaded.tokenizer.vocabulary == tuple(tiny_vocab)
    assert loaded.tokenizer.lowercase
    assert loaded.tokenizer.max_length == POSITIONS
    # Nothing is left over.
    assert sum(value.size for value in loaded.backbone.get_weights()) == sum(
        int(tf.size(variable)) for variable in theirs.variables
    )


def test_a_copied_backbone_takes_the_precision_asked_for(folder, batch):
    half = load_backbone(str(folder), dtype="mixed_bfloat16").backbone
    full = load_backbone(str(folder)).backbone
    assert half(batch)["sequence_output"].dtype == "bfloat16"
    assert all(
        np.array_equal(mine, other)
        for mine, other in zip(half.get_weights(), full.get_weights(), strict=True)
    )


def test_a_classifier_is_built_on_a_folder(folder, batch):
    model = build_text_classifier(str(folder), classes=["a", "b"], max_length=16)
    assert (model.pooling, model.num_blocks, model.preset) == ("pooler", LAYERS, str(folder))
    assert model(batch).shape == (3, 2)


def test_a_cached_handle_is_loaded_without_network(bare_folder, tmp_path, tiny_vocab, monkeypatch):
    monkeypatch.setenv("TFHUB_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(urllib.request, "urlopen", lambda *_, **__: pytest.fail("the network was used"))
    shutil.copytree(bare_folder, tmp_path / hashlib.sha1(HANDLE.encode()).hexdigest())
    with pytest.raises(WeightsError, match="comes without its vocabulary") as caught:
        load_backbone(HANDLE)
    assets = tmp_path / hashlib.sha1(PREPROCESS.encode()).hexdigest() / "assets"
    assert str(assets.parent) in str(caught.value)
    assets.mkdir(parents=True)
    (assets / "vocab.txt").write_text("\n".join(tiny_vocab))
    assert load_backbone(HANDLE).tokenizer.vocabulary == tuple(tiny_vocab)


def test_a_tokenizer_can_be_given_where_the_vocabulary_is_missing(bare_folder, tiny_vocab):
    tokenizer = WordPieceTokenizer(tiny_vocab, max_length=12)
    loaded = load_backbone(str(bare_folder), tokenizer=tokenizer)
    assert loaded.tokenizer is tokenizer
    assert tokenizer.max_length == 12


def test_the_preprocessing_model_beside_the_folder_gives_the_vocabulary(bare_folder, tmp_path, tiny_vocab):
    shutil.copytree(bare_folder, tmp_path / "bert")
    (tmp_path / "bert_preprocess" / "assets").mkdir(parents=True)
    (tmp_path / "bert_preprocess" / "assets" / "vocab.txt").write_text("\n".join(tiny_vocab))
    assert load_backbone(str(tmp_path / "bert")).tokenizer.vocabulary == tuple(tiny_vocab)


def write_preprocessors(folder, vocabularies):
    for name, vocabulary in vocabularies.items():
        (folder / name / "assets").mkdir(parents=True)
        (folder / name / "assets" / "vocab.txt").write_text("\n".join(vocabulary))


@pytest.mark.parametrize("name", ["bert_uncased", "bert_uncased_L-2_H-16_A-2"])
def test_of_several_preprocessing_models_the_one_with_the_models_name_is_taken(
    bare_folder, tmp_path, tiny_vocab, name
):
    shutil.copytree(bare_folder, tmp_path / name)
    cased = [*tiny_vocab[:-1], "Film"]
    write_preprocessors(tmp_path, {"bert_cased_preprocess": cased, "bert_uncased_preprocess": tiny_vocab})
    assert load_backbone(str(tmp_path / name)).tokenizer.vocabulary == tuple(tiny_vocab)


def test_preprocessing_models_among_which_the_name_does_not_choose_are_named(
    bare_folder, tmp_path, tiny_vocab
):
    shutil.copytree(bare_folder, tmp_path / "model")
    write_preprocessors(tmp_path, dict.fromkeys(["bert_cased_preprocess", "bert_preprocess"], tiny_vocab))
    with pytest.raises(WeightsError, match=r"bert_cased_preprocess, bert_preprocess\. Copy vocab\.txt"):
        load_backbone(str(tmp_path / "model"))


def test_without_network_the_error_says_where_to_put_the_files(tmp_path, monkeypatch):
    def no_network(*_, **__):
        raise OSError("Name or service not known")

    monkeypatch.setenv("TFHUB_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(urllib.request, "urlopen", no_network)
    with pytest.raises(WeightsError) as caught:
        load_backbone(HANDLE)
    assert str(tmp_path / hashlib.sha1(HANDLE.encode()).hexdigest()) in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", ["model", "not an archive", "another archive", "escaping archive"])
def test_a_download_is_unpacked_whole_or_not_at_all(folder, tmp_path, monkeypatch, content):
    buffer = io.BytesIO(b"not an archive" if content == "not an archive" else b"")
    if content != "not an archive":
        with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
            source = folder if content == "model" else folder / "assets"
            archive.add(source, arcname="../evil" if content == "escaping archive" else ".")
    cache = tmp_path / "cache"
    monkeypatch.setenv("TFHUB_CACHE_DIR", str(cache))
    monkeypatch.setattr(urllib.request, "urlopen", lambda *_, **__: io.BytesIO(buffer.getvalue()))
    if content == "model":
        assert type(load_backbone(HANDLE).backbone).__name__ == "BertBackbone"
        assert [path.name for path in cache.iterdir()] == [hashlib.sha1(HANDLE.encode()).hexdigest()]
    else:
        with pytest.raises(WeightsError):
            load_backbone(HANDLE)
        assert list(cache.iterdir()) == []
    assert not list(tmp_path.rglob("evil"))


@pytest.mark.parametrize(
    "handle",
    [
        "kaggle://tensorflow/bert/tensorFlow2/tiny/1",
        "https://www.kaggle.com/models/tensorflow/bert/tensorFlow2/tiny/1",
    ],
)
def test_a_handle_on_kaggle_is_downloaded_by_its_client(folder, tmp_path, monkeypatch, handle):
    asked = []

    def model_download(name):
        asked.append(name)
        return str(folder)

    monkeypatch.setenv("TFHUB_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(hub_cache.kagglehub, "model_download", model_download)
    for _ in range(2):
        assert (hub_cache.resolve_handle(handle) / "saved_model.pb").exists()
    assert asked == ["tensorflow/bert/tensorFlow2/tiny/1"]


def test_a_folder_that_is_damaged_is_refused(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "bert")
    (tmp_path / "bert" / "saved_model.pb").write_bytes(b"damaged")
    with pytest.raises(WeightsError, match="cannot be loaded"):
        load_backbone(str(tmp_path / "bert"))
    with pytest.raises(WeightsError, match=r"no saved_model\.pb"):
        hub_cache.resolve_handle(str(tmp_path))


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"extra_variable": True}, "embedding_projection/bias"),
        ({"gelu_approximate": False}, "differs from it"),
    ],
)
def test_a_graph_that_does_not_map_is_wrapped_and_gives_its_own_outputs(
    tmp_path, tiny_vocab, batch, options, reason, caplog
):
    save_stand_in(tmp_path / "bert", tiny_vocab, **options)
    with caplog.at_level(logging.INFO, logger="tfapp"):
        backbone = load_backbone(str(tmp_path / "bert")).backbone
    assert reason in caplog.text
    assert any(isinstance(layer, HubLayer) for layer in backbone.layers)
    theirs = tf.saved_model.load(str(tmp_path / "bert"))
    expected = theirs(hub_inputs(batch), training=False)
    for name in ("sequence_output", "pooled_output"):
        np.testing.assert_allclose(backbone(batch)[name], expected[name], atol=1e-6)


@pytest.fixture
def wrapped(other_folder):
    return build_text_classifier(str(other_folder), classes=["a", "b"], max_length=16)


def test_training_a_wrapped_graph_changes_every_variable(wrapped, batch):
    before = [value.copy() for value in wrapped.get_weights()]
    wrapped.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    wrapped.fit(batch, np.array([0, 1, 1]), epochs=2, verbose=0)
    # Keys' biases have no gradient: softmax takes no notice of what all scores share.
    unchanged = [
        variable.path
        for variable, old, new in zip(wrapped.weights, before, wrapped.get_weights(), strict=True)
        if np.array_equal(old, new)
    ]
    assert not [path for path in unchanged if "key" not in path or "bias" not in path]
    assert len(wrapped.trainable_variables) == len(wrapped.weights)


def test_a_wrapped_graph_has_dropout_in_training_only(wrapped, batch):
    assert np.array_equal(wrapped.backbone(batch)["pooled_output"], wrapped.backbone(batch)["pooled_output"])
    first, second = (wrapped.backbone(batch, training=True)["pooled_output"] for _ in range(2))
    assert not np.array_equal(first, second)


def test_a_wrapped_graph_splits_at_the_head_and_copies(wrapped, batch):
    assert wrapped.num_blocks == 0
    lower, upper = wrapped.split("head")
    np.testing.assert_array_equal(upper(lower(batch)), wrapped(batch))
    wrapped.set_weights([value * 1.1 for value in wrapped.get_weights()])
    np.testing.assert_allclose(wrapped.float32_copy()(batch), wrapped(batch), atol=1e-6)


def test_a_wrapped_graph_saves_reloads_and_exports(wrapped, batch, tmp_path):
    wrapped.set_weights([value * 1.1 for value in wrapped.get_weights()])
    expected = wrapped(batch)
    wrapped.plain().save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(loaded(batch), expected, atol=1e-6)
    wrapped.plain().export(tmp_path / "exported", verbose=False)
    served = tf.saved_model.load(str(tmp_path / "exported"))
    np.testing.assert_allclose(served.serve(batch), expected, atol=1e-5)


def test_tf_hub_itself_is_not_needed():
    import sys

    assert hub.load_hub_backbone
    assert "tensorflow_hub" not in sys.modules
    assert "tf_keras" not in sys.modules


def test_a_wrapped_graph_is_trained_and_released_as_all_that_it_can_be(
    other_folder, tiny_vocab, tmp_path, caplog
):
    words = {"sport": "team goal match coach", "tech": "computer network phone software"}
    rows = [
        (" ".join([*text.split()[: 1 + number % 4], *tiny_vocab[20 + number : 22 + number]]), label)
        for number in range(40)
        for label, text in words.items()
    ]
    data = load_text_data(rows, seed=1)
    model = build_text_classifier(str(other_folder), classes=data.classes, max_length=16)
    phases = [Phase("all", epochs=2, learning_rate=1e-3)]
    train(model, data, phases=phases, batch_size=8, precision="float32", verbose=False)
    budget = Budget(min_agreement=0.8, max_accuracy_drop=0.2)  # 16 rows: one of them is 6 %.
    with pytest.raises(ConfigError, match="'keras' cannot be made of this model: a TF-Hub graph is not"):
        export(model, tmp_path / "hub", check_with=data.test, variants=["keras", "float32"])
    assert list(tmp_path.iterdir()) == []
    with caplog.at_level(logging.INFO, logger="tfapp"):
        release = export(model, tmp_path / "hub", check_with=data.test, budget=budget)
    assert "keras is left out: a TF-Hub graph" in caplog.text
    assert "text is left out: TFLite lacks" in caplog.text
    variants = [row["variant"] for row in release.manifest["artifacts"]]
    assert variants == ["saved_model", "float32", "float16", "dynamic", "onnx"]
    assert str(other_folder) not in (release.path / "model_card.md").read_text()
    assert str(other_folder) not in (release.path / "manifest.json").read_text()
    report = verify(release.path)
    assert report.ok, report.reasons
