"""Backbones by name: packaged, keras-hub's, local folders, and everything that is refused."""

import json
import shutil

import keras
import keras_hub
import numpy as np
import pytest
import safetensors.numpy
import tensorflow as tf

from tfapp.assets import ASSETS
from tfapp.data.tokenizers import WordPieceTokenizer
from tfapp.errors import AssetError, WeightsError
from tfapp.models import BACKBONES, build_text_classifier, load_backbone

WIDTH, LAYERS, INNER, POSITIONS = 16, 2, 32, 40


def write_huggingface_folder(folder, vocabulary, *, change=None, drop=(), config=None):
    """Writes a random BERT as Hugging Face's transformers would: names, shapes and files."""
    generator = np.random.default_rng(0)

    def array(*shape):
        return generator.normal(0, 0.2, shape).astype("float32")

    tensors = {
        "embeddings.word_embeddings.weight": array(len(vocabulary), WIDTH),
        "embeddings.position_embeddings.weight": array(POSITIONS, WIDTH),
        "embeddings.token_type_embeddings.weight": array(2, WIDTH),
        "embeddings.LayerNorm.weight": array(WIDTH),
        "embeddings.LayerNorm.bias": array(WIDTH),
        "pooler.dense.weight": array(WIDTH, WIDTH),
        "pooler.dense.bias": array(WIDTH),
    }
    for index in range(LAYERS):
        for name, shape in [
            ("attention.self.query", (WIDTH, WIDTH)),
            ("attention.self.key", (WIDTH, WIDTH)),
            ("attention.self.value", (WIDTH, WIDTH)),
            ("attention.output.dense", (WIDTH, WIDTH)),
            ("attention.output.LayerNorm", (WIDTH,)),
            ("intermediate.dense", (INNER, WIDTH)),
            ("output.dense", (WIDTH, INNER)),
            ("output.LayerNorm", (WIDTH,)),
        ]:
            tensors[f"encoder.layer.{index}.{name}.weight"] = array(*shape)
            tensors[f"encoder.layer.{index}.{name}.bias"] = array(shape[0])
    if change:
        change(tensors)
    settings = {
        "model_type": "bert",
        "vocab_size": len(vocabulary),
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 2,
        "hidden_size": WIDTH,
        "intermediate_size": INNER,
        "max_position_embeddings": POSITIONS,
        "hidden_act": "gelu",
        **(config or {}),
    }
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(settings))
    (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n")
    (folder / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": True}))
    safetensors.numpy.save_file(tensors, folder / "model.safetensors")
    for name in drop:
        (folder / name).unlink()
    return tensors


@pytest.fixture
def folder(tmp_path, tiny_vocab):
    write_huggingface_folder(tmp_path / "bert", tiny_vocab)
    return tmp_path / "bert"


def test_minilm_is_the_published_model(minilm):
    loaded = load_backbone("minilm-l6")
    assert loaded.backbone.count_params() == 22_713_216
    assert (loaded.pooling, loaded.tokenizer.lowercase, loaded.tokenizer.max_length) == ("mean", True, 256)
    assert len(loaded.tokenizer.vocabulary) == loaded.backbone.vocabulary_size == 30522
    model = build_text_classifier("minilm-l6", classes=["a", "b"])
    lower, _ = model.split("head")
    texts = ["A man is eating food.", "A man eats something.", "The stock market fell today."]
    vectors = lower(model.preprocessor(tf.constant(texts)))["features"].numpy()
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    cosines = vectors @ vectors.T
    # What the published model gives for a paraphrase and for an unrelated sentence.
    assert cosines[0, 1] > 0.8
    assert abs(cosines[0, 2]) < 0.1


def test_minilm_loads_in_mixed_precision_and_without_weights(minilm):
    assert load_backbone("minilm-l6", dtype="mixed_bfloat16").backbone.compute_dtype == "bfloat16"
    first, second = (
        load_backbone("minilm-l6", load_weights=load).backbone.get_weights()[0] for load in (True, False)
    )
    assert first.shape == second.shape
    assert not np.array_equal(first, second)


def test_each_preset_is_described():
    for name, preset in BACKBONES.items():
        assert preset.name == name
        assert preset.asset is ASSETS[preset.asset.name]
        assert preset.origin
        assert preset.licence


def test_a_local_hugging_face_folder_loads(tmp_path, tiny_vocab):
    tensors = write_huggingface_folder(tmp_path / "bert", tiny_vocab)
    loaded = load_backbone(str(tmp_path / "bert"))
    assert loaded.pooling == "pooler"
    assert loaded.tokenizer.vocabulary == tuple(tiny_vocab)
    assert loaded.tokenizer.max_length == POSITIONS
    np.testing.assert_array_equal(
        loaded.backbone.token_embedding.embeddings, tensors["embeddings.word_embeddings.weight"]
    )
    np.testing.assert_array_equal(loaded.backbone.pooled_dense.kernel, tensors["pooler.dense.weight"].T)


def test_a_sentence_encoders_own_pooling_is_taken(folder):
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text('{"pooling_mode_mean_tokens": true}')
    assert load_backbone(str(folder)).pooling == "mean"


@pytest.mark.parametrize(
    ("settings", "pieces", "lowercase"),
    [({"do_lower_case": False}, [], False), (None, [], True), (None, ["Film"], False)],
)
def test_lower_casing_is_what_the_files_say(tmp_path, tiny_vocab, settings, pieces, lowercase):
    write_huggingface_folder(tmp_path / "bert", [*tiny_vocab, *pieces])
    path = tmp_path / "bert" / "tokenizer_config.json"
    path.unlink()
    if settings is not None:
        path.write_text(json.dumps(settings))
    assert load_backbone(str(tmp_path / "bert")).tokenizer.lowercase is lowercase


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "vocab.txt"])
def test_a_missing_file_is_named(folder, name):
    (folder / name).unlink()
    with pytest.raises(WeightsError, match=f"lacks {name}"):
        load_backbone(str(folder))


def test_all_missing_files_are_named_at_once(folder):
    (folder / "model.safetensors").unlink()
    (folder / "vocab.txt").unlink()
    with pytest.raises(WeightsError, match=r"lacks model\.safetensors, vocab\.txt"):
        load_backbone(str(folder))


def test_a_given_tokenizer_replaces_the_vocabulary_of_the_folder(folder, tiny_vocab):
    (folder / "vocab.txt").unlink()
    tokenizer = WordPieceTokenizer(tiny_vocab, max_length=11)
    model = build_text_classifier(str(folder), classes=["a", "b"], tokenizer=tokenizer)
    assert model.preprocessor.vocabulary == tuple(tiny_vocab)
    assert model.preprocessor.max_length == 11


@pytest.mark.parametrize("allow_unsafe", [False, True])
def test_a_pickle_is_never_read(folder, allow_unsafe):
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'exit 1'\ntR.")
    with pytest.raises(WeightsError, match="never reads pickles") as caught:
        load_backbone(str(folder), allow_unsafe=allow_unsafe)
    assert "pytorch_model.bin" in str(caught.value)
    assert "safe_serialization=True" in str(caught.value)


@pytest.mark.parametrize("damage", ["truncated", "empty", "header", "not a number"])
def test_a_damaged_weight_file_is_refused(tmp_path, tiny_vocab, damage):
    def spoil(tensors):
        tensors["encoder.layer.1.output.dense.weight"][3, 4] = np.nan

    write_huggingface_folder(
        tmp_path / "bert", tiny_vocab, change=spoil if damage == "not a number" else None
    )
    path = tmp_path / "bert" / "model.safetensors"
    content = path.read_bytes()
    if damage == "truncated":
        path.write_bytes(content[:-100])
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "header":
        path.write_bytes(b"\xff" * 8 + content[8:])
    with pytest.raises(WeightsError, match=r"model\.safetensors.*Download it again"):
        load_backbone(str(tmp_path / "bert"))


def test_weights_that_do_not_fit_the_config_are_refused(tmp_path, tiny_vocab):
    write_huggingface_folder(tmp_path / "missing", tiny_vocab, change=lambda t: t.pop("pooler.dense.weight"))
    write_huggingface_folder(tmp_path / "wider", tiny_vocab, config={"hidden_size": 32})
    for name in ("missing", "wider"):
        with pytest.raises(WeightsError, match="does not fit"):
            load_backbone(str(tmp_path / name))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"model_type": "llama"}, "'llama' does not load; families that do: bert, distilbert"),
        ({"hidden_act": "relu"}, "'relu' is not GELU"),
        ({"position_embedding_type": "relative_key"}, "absolute"),
    ],
)
def test_a_model_of_another_kind_is_refused(tmp_path, tiny_vocab, config, message):
    write_huggingface_folder(tmp_path / "bert", tiny_vocab, config=config)
    with pytest.raises(WeightsError, match=message):
        load_backbone(str(tmp_path / "bert"))


def test_a_damaged_config_or_vocabulary_is_named(folder):
    (folder / "vocab.txt").write_bytes(b"[PAD]\n\xff\xfe\n")
    with pytest.raises(WeightsError, match=r"vocab\.txt cannot be read"):
        load_backbone(str(folder))
    (folder / "vocab.txt").write_text("one\ntwo\n")
    with pytest.raises(WeightsError, match=r"vocab\.txt.*lacks \[PAD\]"):
        load_backbone(str(folder))
    (folder / "config.json").write_text("{")
    with pytest.raises(WeightsError, match=r"config\.json cannot be read as JSON"):
        load_backbone(str(folder))


def test_a_damaged_asset_is_fetched_again_or_refused(minilm, tmp_path, monkeypatch):
    monkeypatch.setenv("TFAPP_CACHE", str(tmp_path))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    copy = tmp_path / "assets" / minilm.name
    copy.mkdir(parents=True)
    for path in minilm.iterdir():
        shutil.copy(path, copy)
    with (copy / "model.safetensors").open("r+b") as weights:
        weights.seek(50_000_000)
        weights.write(b"\x00\x01\x02\x03")
    with pytest.raises(AssetError, match="minilm-l6"):
        load_backbone("minilm-l6")


def save_keras_backbone(folder, vocabulary, *, with_lambda, suffix):
    inputs = {name: keras.Input((None,), dtype="int32", name=name) for name in ("token_ids", "padding_mask")}
    hidden = keras.layers.Embedding(len(vocabulary), 8)(inputs["token_ids"])
    if with_lambda:
        hidden = keras.layers.Lambda(lambda values: values * 2.0, output_shape=(None, 8))(hidden)
    folder.mkdir()
    (folder / "vocab.txt").write_text("\n".join(vocabulary))
    keras.Model(inputs, hidden).save(folder / f"model{suffix}")
    return str(folder / f"model{suffix}")


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_a_keras_file_with_a_lambda_is_refused_unless_allowed_by_name(tmp_path, tiny_vocab, suffix):
    path = save_keras_backbone(tmp_path / "unsafe", tiny_vocab, with_lambda=True, suffix=suffix)
    with pytest.raises(WeightsError, match="allow_unsafe=True"):
        load_backbone(path)
    assert load_backbone(path, allow_unsafe=True).backbone.output.shape == (None, None, 8)
    safe = save_keras_backbone(tmp_path / "safe", tiny_vocab, with_lambda=False, suffix=suffix)
    model = build_text_classifier(safe, classes=["a", "b"])
    batch = model.preprocessor(tf.constant(["the film"]))
    assert model({name: batch[name] for name in model.input}).shape == (1, 2)


def test_a_damaged_or_foreign_file_is_refused(tmp_path, tiny_vocab):
    path = save_keras_backbone(tmp_path / "safe", tiny_vocab, with_lambda=False, suffix=".keras")
    with open(path, "r+b") as file:
        file.truncate(200)
    with pytest.raises(WeightsError, match="cannot be loaded"):
        load_backbone(path)
    (tmp_path / "weights.npz").write_bytes(b"")
    with pytest.raises(WeightsError, match="unknown kind"):
        load_backbone(str(tmp_path / "weights.npz"))


@pytest.fixture
def keras_hub_folder(tmp_path, tiny_vocab):
    """What keras-hub's save_to_preset writes for a random BERT."""
    backbone = keras_hub.models.BertBackbone(
        len(tiny_vocab), 2, 2, WIDTH, INNER, max_sequence_length=POSITIONS
    )
    backbone.save_to_preset(str(tmp_path / "saved"))
    keras_hub.models.BertTokenizer(tiny_vocab, lowercase=True).save_to_preset(str(tmp_path / "saved"))
    return tmp_path / "saved", backbone


def test_a_folder_saved_by_keras_hub_loads(keras_hub_folder, tiny_vocab):
    folder, backbone = keras_hub_folder
    loaded = load_backbone(str(folder))
    assert (loaded.pooling, loaded.tokenizer.lowercase) == ("pooler", True)
    assert loaded.tokenizer.vocabulary == tuple(tiny_vocab)
    for mine, other in zip(loaded.backbone.get_weights(), backbone.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, other)


def test_a_folder_saved_by_keras_hub_loads_from_the_home_folder(keras_hub_folder, tiny_vocab, monkeypatch):
    folder, _ = keras_hub_folder
    monkeypatch.setenv("HOME", str(folder.parent))
    assert load_backbone("~/saved").tokenizer.vocabulary == tuple(tiny_vocab)


def test_a_keras_hub_folder_without_its_tokenizer_says_so(keras_hub_folder):
    folder, _ = keras_hub_folder
    (folder / "tokenizer.json").unlink()
    with pytest.raises(WeightsError, match=r"lacks tokenizer\.json"):
        load_backbone(str(folder))


def test_a_family_with_another_tokenizer_says_which_families_work(tmp_path):
    vocabulary = {"<s>": 0, "<pad>": 1, "</s>": 2, "<mask>": 3, "a": 4, "b": 5, "ab": 6}
    sizes = {"num_layers": 1, "num_heads": 2, "hidden_dim": 8, "intermediate_dim": 8}
    keras_hub.models.RobertaBackbone(len(vocabulary), **sizes).save_to_preset(str(tmp_path / "roberta"))
    keras_hub.models.RobertaTokenizer(vocabulary, ["a b"]).save_to_preset(str(tmp_path / "roberta"))
    with pytest.raises(WeightsError, match="Bert, DistilBert, Electra"):
        load_backbone(str(tmp_path / "roberta"))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("minilm-l7", "did you mean 'minilm-l6'"),
        ("bert_base_en_uncasd", "did you mean 'bert_base_en_uncased'"),
        ("./nowhere", "no file or folder"),
        ("nowhere/model.keras", "no file or folder"),
        ("google-bert/bert-base-uncased", "'hf://google-bert/bert-base-uncased'"),
    ],
)
def test_an_unknown_name_gets_the_nearest_ones(name, message):
    with pytest.raises(WeightsError, match=message):
        load_backbone(name)


@pytest.mark.parametrize("name", ["bert_tiny_en_uncased", "hf://someone/bert", "kaggle://a/bert/keras/b/1"])
def test_without_network_the_error_says_what_to_put_where(name, monkeypatch):
    def no_network(*_, **__):
        raise ConnectionError("Name or service not known")

    monkeypatch.setattr(keras_hub.models.Tokenizer, "from_preset", no_network)
    monkeypatch.setattr(keras_hub.models.Backbone, "from_preset", no_network)
    with pytest.raises(WeightsError, match=r"put the files into a folder and give its path"):
        load_backbone(name)
