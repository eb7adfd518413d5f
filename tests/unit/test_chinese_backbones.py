"""Chinese BERT in each form in which it is published: keras-hub's, Hugging Face's, TF-Hub's."""

# ruff: noqa: RUF001 - signs of full width are what is tested

from __future__ import annotations

import json

import keras
import keras_hub
import numpy as np
import pytest
import tensorflow as tf
from test_hub import save_stand_in
from test_presets import write_huggingface_folder

from tfapp.models import build_text_classifier, load_backbone

# As in bert-base-chinese's vocab.txt: characters alone and after others, ASCII words, signs of both widths.
VOCABULARY = [
    *("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"),
    *("酒", "店", "很", "好", "服", "務", "务", "##店", "##好", "，", "。", "！", ",", "!", "(", ")"),
    *("wifi", "##fi", "w", "2008", "##8", "ab", "𠮷"),
]
SPLITS = {
    "酒店很好": ["酒", "店", "很", "好"],  # each character by itself, never ##店
    "wifi很好！": ["wifi", "很", "好", "!"],
    "WiFi，2008（好）。": ["wifi", ",", "2008", "(", "好", ")", "。"],  # signs become half-width ones
    "ＡＢ": ["ab"],  # and so do letters
    "酒\u3000店\u200b好": ["酒", "店", "好"],  # the ideographic space divides, invisible signs vanish
    "服務": ["服", "務"],
    "𠮷龘好": ["𠮷", "[UNK]", "好"],
}


def keras_hub_preset(folder):
    keras.utils.set_random_seed(0)
    tokenizer = keras_hub.models.BertTokenizer(vocabulary=VOCABULARY, lowercase=True)
    backbone = keras_hub.models.BertBackbone(
        vocabulary_size=len(VOCABULARY),
        num_layers=2,
        num_heads=2,
        hidden_dim=16,
        intermediate_dim=32,
        max_sequence_length=32,
    )
    backbone.save_to_preset(str(folder))
    tokenizer.save_to_preset(str(folder))


def hugging_face_folder(folder):
    write_huggingface_folder(folder, VOCABULARY)


def cased_hugging_face_folder(folder):
    """bert-base-chinese itself says ``do_lower_case: false`` in newer copies."""
    write_huggingface_folder(folder, VOCABULARY)
    (folder / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": False}))


def tf_hub_folder(folder):
    save_stand_in(folder, VOCABULARY)


@pytest.fixture(scope="module", params=[keras_hub_preset, hugging_face_folder, tf_hub_folder])
def loaded(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("chinese") / "bert_zh"
    request.param(folder)
    return load_backbone(str(folder))


@pytest.mark.parametrize("text", SPLITS)
def test_characters_are_split_one_by_one(loaded, text):
    pieces = np.array(loaded.tokenizer.vocabulary)
    assert loaded.tokenizer.lowercase
    assert pieces[loaded.tokenizer.tokenize(tf.constant([text])).to_list()[0]].tolist() == SPLITS[text]


def test_the_vocabulary_is_that_of_the_embeddings(loaded):
    assert loaded.tokenizer.vocabulary == tuple(VOCABULARY)
    assert loaded.backbone.vocabulary_size == len(VOCABULARY)


def test_a_classifier_on_it_answers_alike_alone_and_in_a_batch(loaded):
    model = build_text_classifier(
        loaded.backbone, tokenizer=loaded.tokenizer, classes=["好评", "差评"], max_length=12
    )
    texts = ["酒店很好！", "服务", "wifi很好，2008"]
    together = model(model.preprocessor(tf.constant(texts))).numpy()
    alone = np.concatenate([model(model.preprocessor(tf.constant([text]))).numpy() for text in texts])
    np.testing.assert_allclose(together, alone, atol=1e-5)


def test_a_folder_that_keeps_case_does(tmp_path):
    cased_hugging_face_folder(tmp_path / "bert")
    tokenizer = load_backbone(str(tmp_path / "bert")).tokenizer
    pieces = np.array(tokenizer.vocabulary)
    assert not tokenizer.lowercase
    assert pieces[tokenizer.tokenize(tf.constant(["wifi很好，WIFI"])).to_list()[0]].tolist() == [
        *("wifi", "很", "好", "，", "[UNK]")
    ]
