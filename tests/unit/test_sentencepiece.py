"""SentencePiece: the ids of Google's library in training, SavedModel and TFLite; cutting; refusals."""

import random

import numpy as np
import pytest
import sentencepiece
import tensorflow as tf
import tensorflow_text as tf_text
from ai_edge_litert.interpreter import InterpreterWithCustomOps
from helpers import tiny_text_classifier
from sentencepiece import sentencepiece_model_pb2
from sentences import LINES, sentencepiece_model

from tfapp.data.tokenizers import SentencePieceTokenizer, read_tokenizer
from tfapp.errors import ConfigError, WeightsError
from tfapp.exporters import export_saved_model, export_tflite

ODD = [
    "",
    " ",
    "  two  spaces ",
    "\uff21\uff22\uff11\uff12\u3000全角",
    "ﾊﾝｶｸ",
    "好\x00坏",
    "a\tb\nc",
    "\u200b零宽\u00ad",
    "😀好👨‍👩‍👧",
    "\ue000\ufffd\U000e0001\U00020000",
    "① ½ ㎏ ﬁne",
    "\ufeff好",
    "e\u0301 é",
    "\x01\x02\x7f",
    "▁a <s> </s> <unk> <pad>",
    "繁體字與简体字",
    "长" * 600,
]


def lines(count, seed=0):
    """Lines of all kinds: the corpus, pieces of it side by side, and characters drawn from all of Unicode."""
    draw = random.Random(seed)
    points = [*range(0xD800), *range(0xE000, 0x110000)]
    drawn = ["".join(chr(draw.choice(points)) for _ in range(draw.randint(1, 12))) for _ in range(count)]
    mixed = [draw.choice(LINES)[:20] + text + draw.choice(LINES)[-20:] for text in drawn]
    return [*ODD, *LINES, *drawn, *mixed]


@pytest.fixture(scope="module")
def model():
    return sentencepiece_model()


@pytest.fixture(scope="module")
def tokenizer(model):
    return SentencePieceTokenizer(model, max_length=32)


@pytest.fixture(scope="module")
def classifier(tokenizer):
    return tiny_text_classifier(list(tokenizer.vocabulary), ("差评", "好评"), tokenizer=tokenizer)


def reference(model, texts):
    return sentencepiece.SentencePieceProcessor(model_proto=model).encode(texts)


def test_ids_equal_googles_library_but_for_ties(model, tokenizer):
    """Of two ways of one probability, such as ``.`` and ``..`` in either order, rounding takes one."""
    texts = lines(500)
    scores = [piece.score for piece in sentencepiece_model_pb2.ModelProto.FromString(model).pieces]
    pairs = zip(tokenizer.tokenize(tf.constant(texts)).to_list(), reference(model, texts), strict=True)
    differing = [(own, other) for own, other in pairs if own != other]
    assert len(differing) < 0.005 * len(texts)
    for own, other in differing:
        assert sorted(own) == sorted(other)
        assert sum(scores[number] for number in own) == pytest.approx(sum(scores[number] for number in other))


def test_bytes_that_are_no_utf_8_become_unknown(tokenizer):
    ids = tokenizer.tokenize(tf.constant([b"\xff\xfe", b"\xe5\xa5"])).to_list()
    assert all(tokenizer.unk_id in row for row in ids)


def test_rows_begin_and_end_with_special_tokens_and_are_cut(tokenizer):
    texts = tf.constant(["喜欢", "", "很好" * 60])
    lengths = [len(tokenizer.tokenize(texts).to_list()[0]) + 2, 2, 32]
    encoded = tokenizer(texts)
    ids = encoded["token_ids"].numpy()
    assert (ids[:, 0] == tokenizer.cls_id).all()
    assert [row[length - 1] for row, length in zip(ids, lengths, strict=True)] == [tokenizer.sep_id] * 3
    assert encoded["padding_mask"].numpy().sum(axis=1).tolist() == lengths
    assert (ids[1, 2:] == tokenizer.pad_id).all()


def test_special_tokens_in_a_text_are_text(tokenizer):
    ids = tokenizer.tokenize(tf.constant(["<s> </s> <pad> 好"])).to_list()[0]
    assert not {tokenizer.cls_id, tokenizer.sep_id, tokenizer.pad_id} & set(ids)


def test_an_equal_tokenizer_comes_back_from_its_config_and_from_its_file(tokenizer):
    texts = tf.constant(lines(20))
    expected = tokenizer.tokenize(texts).to_list()
    for twin in (
        read_tokenizer(tokenizer.get_config()),
        SentencePieceTokenizer.from_file(tokenizer.vocabulary_content(), tokenizer.settings()),
    ):
        assert twin.tokenize(texts).to_list() == expected
        assert (twin.max_length, twin.long_texts) == (32, "truncate")


def test_saved_model_and_tflite_have_the_same_ids(classifier, tokenizer, tmp_path):
    """Of every line, by one model of which each vocabulary entry moves the logits."""
    texts = lines(150, seed=1)
    export_saved_model(classifier, tmp_path)
    path = export_tflite(classifier, tmp_path, variant="text")
    served = tf.saved_model.load(str(tmp_path)).signatures["serving_default"]
    expected = np.concatenate([classifier.single_logits(tf.constant([text])).numpy() for text in texts])
    found = served(tf.constant(texts))["logits"].numpy()
    np.testing.assert_allclose(found, expected, atol=1e-5)
    interpreter = InterpreterWithCustomOps(
        model_path=str(path), custom_op_registerers=tf_text.tflite_registrar.SELECT_TFTEXT_OPS
    )
    runner = interpreter.get_signature_runner("serving_default")
    answers = [runner(text=np.array([text.encode()], object))["probabilities"][0] for text in texts]
    np.testing.assert_allclose(np.array(answers), tf.nn.softmax(expected).numpy(), atol=0.02)


def test_ids_in_tflite_are_those_of_training(tokenizer):
    """The tokenizer alone, without a model that could hide a difference."""
    texts = lines(400, seed=2)

    class Encode(tf.Module):
        def __init__(self):
            self.tokenizer = tokenizer

        @tf.function(input_signature=[tf.TensorSpec([1], tf.string, name="text")])
        def __call__(self, text):
            pieces = self.tokenizer.tokenize(text).values
            return {"token_ids": tf.concat([[self.tokenizer.cls_id], pieces], axis=0)}

    module = Encode()
    converter = tf.lite.TFLiteConverter.from_concrete_functions(
        [module.__call__.get_concrete_function()], module
    )
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
    converter.allow_custom_ops = True
    interpreter = InterpreterWithCustomOps(
        model_content=converter.convert(),
        custom_op_registerers=tf_text.tflite_registrar.SELECT_TFTEXT_OPS,
    )
    runner = interpreter.get_signature_runner("serving_default")
    for text, own in zip(texts, tokenizer.tokenize(tf.constant(texts)).to_list(), strict=True):
        assert runner(text=np.array([text.encode()], object))["token_ids"].tolist()[1:] == own, text


def test_the_keras_file_carries_the_model(classifier, tmp_path):
    import keras

    classifier.save(tmp_path / "model.keras")
    twin = keras.saving.load_model(tmp_path / "model.keras")
    assert twin.preprocessor.vocabulary_content() == classifier.preprocessor.vocabulary_content()


class TestCut:
    def test_texts_of_kept_pieces_keep_them(self, tokenizer):
        """Whatever is cut off, by texts of which some keep all their pieces and some do not."""
        texts = lines(300, seed=3)
        rows = tokenizer.tokenize(tf.constant(texts)).to_list()
        draw = random.Random(4)
        keep = draw.sample(range(len(tokenizer.vocabulary)), len(tokenizer.vocabulary) * 3 // 4)
        smaller, kept = tokenizer.cut(keep)
        found = [[kept[number] for number in row] for row in smaller.tokenize(tf.constant(texts)).to_list()]
        inside = [set(row) <= set(kept) and tokenizer.unk_id not in row for row in rows]
        assert sum(inside) > 20
        assert not all(inside)
        assert all(new == old for new, old, whole in zip(found, rows, inside, strict=True) if whole)

    def test_special_tokens_stay_whatever_is_kept(self, tokenizer):
        smaller, kept = tokenizer.cut([])
        assert [smaller.vocabulary[number] for number in (smaller.cls_id, smaller.pad_id)] == ["<s>", "<pad>"]
        assert [smaller.vocabulary[number] for number in (smaller.sep_id, smaller.unk_id)] == [
            "</s>",
            "<unk>",
        ]
        assert [tokenizer.vocabulary[number] for number in kept] == list(smaller.vocabulary)
        assert smaller.max_length == tokenizer.max_length

    def test_a_character_without_a_piece_becomes_unknown(self, tokenizer):
        smaller, _ = tokenizer.cut([tokenizer.vocabulary.index("▁")])
        assert smaller.unk_id in smaller.tokenize(tf.constant(["好"])).to_list()[0]

    def test_an_id_outside_is_refused(self, tokenizer):
        with pytest.raises(WeightsError, match="piece 100000: the vocabulary ends at"):
            tokenizer.cut([100000])


def changed(model, **trainer):
    proto = sentencepiece_model_pb2.ModelProto.FromString(model)
    for name, value in trainer.items():
        setattr(proto.trainer_spec, name, value)
    return proto.SerializeToString()


@pytest.mark.parametrize(
    ("trainer", "message"),
    [
        ({"model_type": 2}, "of the kind BPE; only UNIGRAM"),
        ({"pad_id": -1}, "has no id for <pad>"),
        ({"bos_id": -1, "eos_id": 10**6}, "has no id for <s>, </s>"),
        ({"byte_fallback": True}, "falls back to bytes"),
    ],
)
def test_models_that_would_answer_otherwise_are_refused(model, trainer, message):
    with pytest.raises(WeightsError, match=message):
        SentencePieceTokenizer(changed(model, **trainer))


def test_what_is_no_model_is_refused():
    with pytest.raises(WeightsError, match="damaged or none at all"):
        SentencePieceTokenizer(b"\xff" * 50)


def test_lengths_are_checked(model):
    with pytest.raises(ConfigError, match="max_length = 2"):
        SentencePieceTokenizer(model, max_length=2)
