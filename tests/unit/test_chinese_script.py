"""Traditional characters read as simplified ones: in training, artifacts, the second tokenizer, the page."""

import base64

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_text as tf_text
from ai_edge_litert.interpreter import InterpreterWithCustomOps
from helpers import tiny_bert
from node import run_script
from sentencepiece import sentencepiece_model_pb2
from sentences import LINES, sentencepiece_model
from test_web_exporter import ENCODE, ENCODE_BY_MODEL, ODD, odd_texts, rows_of

from tfapp import build_text_classifier
from tfapp.data.chinese_script import simplified_characters
from tfapp.data.tokenizers import SentencePieceTokenizer, WordPieceTokenizer, read_tokenizer
from tfapp.data.tokenizers._rules import compile_rules, read_rules
from tfapp.errors import ConfigError
from tfapp.exporters import export_tflite
from tfapp.release.vocabulary import check_vocabulary, tokenize, tokenize_sentencepiece

PAIRS = [
    ("這家酒店非常乾淨", "这家酒店非常干净"),
    ("這本書很有趣,不推薦", "这本书很有趣,不推荐"),
    ("筆記本電腦的鍵盤 very 慢!", "笔记本电脑的键盘 very 慢!"),
    ("滿意", "满意"),
    ("(繁體)", "(繁体)"),
]
TRADITIONAL, SIMPLIFIED = (list(texts) for texts in zip(*PAIRS, strict=True))


@pytest.fixture(scope="module")
def characters():
    pytest.importorskip("opencc", reason='the extra "zh" is not installed')
    return simplified_characters()


def wordpiece(vocabulary):
    chinese = sorted({character for text in SIMPLIFIED for character in text if ord(character) > 0x3000})
    return WordPieceTokenizer([*vocabulary, *(c for c in chinese if c not in "體"), "書"], max_length=24)


@pytest.fixture(scope="module", params=["wordpiece", "sentencepiece"])
def tokenizers(request, tiny_vocab, characters):
    """A tokenizer as it was, and one that reads simplified characters."""
    plain = (
        wordpiece(tiny_vocab)
        if request.param == "wordpiece"
        else SentencePieceTokenizer(sentencepiece_model(), max_length=24)
    )
    return plain, plain.with_replaced(characters)


def ids(tokenizer, texts):
    return tokenizer.tokenize(tf.constant(texts)).to_list()


def test_the_table_is_of_single_characters(characters):
    assert characters["書"] == "书"
    assert characters["體"] == "体"
    assert "书" not in characters
    assert all(len(old) == len(new) == 1 and old != new for old, new in characters.items())


def test_both_scripts_have_the_ids_of_the_simplified_one(tokenizers):
    plain, tokenizer = tokenizers
    known = [pair for pair in PAIRS if plain.unk_id not in ids(plain, [pair[1]])[0]]
    assert len(known) >= 2
    assert ids(tokenizer, TRADITIONAL) == ids(tokenizer, SIMPLIFIED) == ids(plain, SIMPLIFIED)
    assert ids(plain, TRADITIONAL) != ids(plain, SIMPLIFIED)


def test_all_else_is_as_it_was(tokenizers):
    plain, tokenizer = tokenizers
    texts = [*LINES, *(text for text in ODD if not set(text) & set("龜聞"))]
    assert ids(tokenizer, texts) == ids(plain, texts)
    assert tokenizer.vocabulary == plain.vocabulary


def test_a_character_without_a_simplified_piece_stays(tiny_vocab, characters):
    tokenizer = WordPieceTokenizer([*tiny_vocab, "書"]).with_replaced(characters)
    assert ids(tokenizer, ["書"]) == [[tokenizer.vocabulary.index("書")]]


def test_an_equal_tokenizer_comes_back_from_config_and_file(tokenizers):
    _, tokenizer = tokenizers
    expected = ids(tokenizer, [*TRADITIONAL, *LINES])
    content = tokenizer.vocabulary_content()
    for twin in (
        read_tokenizer(tokenizer.get_config()),
        type(tokenizer).from_file(content, tokenizer.settings()),
    ):
        assert ids(twin, [*TRADITIONAL, *LINES]) == expected


def test_the_second_tokenizer_reads_alike(tokenizers):
    _, tokenizer = tokenizers
    content, texts = tokenizer.vocabulary_content(), [*TRADITIONAL, *SIMPLIFIED]
    expected = rows_of(tokenizer, texts)
    settings = tokenizer.settings()
    if settings["tokenizer"] == "wordpiece":
        found = tokenize(content, texts, lowercase=True, max_length=24, replaced=settings["replaced"])
    else:
        found = tokenize_sentencepiece(content, texts, max_length=24)
    assert [[row] for row in found] == expected
    checksum = {**settings, "vocabulary_sha256": "another"}
    wrong = check_vocabulary(content, texts, [rows[0] for rows in expected], checksum)
    assert wrong is not None
    assert wrong.endswith("is not the vocabulary of the model's tokenizer")


def test_the_page_reads_alike(tokenizers, tmp_path):
    _, tokenizer = tokenizers
    texts = [*TRADITIONAL, *SIMPLIFIED, *ODD, *odd_texts(tokenizer.words, count=200, seed=3)]
    texts += ["".join(simplified_characters())[start : start + 20] for start in range(0, 5000, 20)]
    given = {"settings": tokenizer.web_settings(), "texts": texts}
    if isinstance(tokenizer, WordPieceTokenizer):
        script, given["vocabulary"] = ENCODE, list(tokenizer.vocabulary)
    else:
        script, given["model"] = ENCODE_BY_MODEL, base64.b64encode(tokenizer.vocabulary_content()).decode()
    (found,) = run_script(tmp_path, script, [given])
    assert found == rows_of(tokenizer, texts)


def test_tflite_reads_alike(tokenizers, tmp_path):
    plain, _ = tokenizers
    vocabulary = list(plain.vocabulary)
    model = build_text_classifier(
        tiny_bert(vocabulary, width=16),
        classes=("差评", "好评"),
        tokenizer=plain,
        max_length=24,
        script="simplified",
    )
    path = export_tflite(model, tmp_path, variant="text")
    interpreter = InterpreterWithCustomOps(
        model_path=str(path), custom_op_registerers=tf_text.tflite_registrar.SELECT_TFTEXT_OPS
    )
    runner = interpreter.get_signature_runner("serving_default")
    answers = [
        runner(text=np.array([text.encode()], object))["probabilities"][0]
        for text in (*TRADITIONAL, *SIMPLIFIED)
    ]
    np.testing.assert_array_equal(answers[: len(PAIRS)], answers[len(PAIRS) :])


def test_another_script_is_refused(tiny_vocab):
    with pytest.raises(ConfigError, match="script = 'traditional': it is 'simplified' or None"):
        build_text_classifier(
            tiny_bert(tiny_vocab, width=16),
            classes=("a", "b"),
            tokenizer=WordPieceTokenizer(tiny_vocab),
            script="traditional",
        )


def test_rules_come_back_as_they_were():
    proto = sentencepiece_model_pb2.ModelProto.FromString(sentencepiece_model())
    compiled = proto.normalizer_spec.precompiled_charsmap
    rules = read_rules(compiled)
    assert rules["\uff21"] == "A"
    assert rules["\u2460"] == "1"
    assert compile_rules(rules) == compiled
    assert read_rules(b"") == {}
