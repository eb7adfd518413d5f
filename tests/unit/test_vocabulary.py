import hashlib
import logging

import pytest

from tfapp.data.tokenizers import WordPieceTokenizer
from tfapp.release.golden_texts import make_golden_texts
from tfapp.release.vocabulary import check_vocabulary, tokenize

TEXTS = [
    "",
    "The film was great, wasn't it?",
    "FILMS and Coaches; déjà vu 2024!",
    "    spaces\tand\nlines   ",
    "[SEP] and [CLS] are words like others",
    "中文 and Ünïcödé — “quotes” …",
    "unbelievable" * 20,
    "a " * 100,
]


@pytest.fixture
def tokenizer(tiny_vocab):
    return WordPieceTokenizer(tiny_vocab, max_length=16)


@pytest.fixture
def content(tokenizer):
    return tokenizer.asset_files()["vocab.txt"]


def ids_of(tokenizer, texts):
    encoded = tokenizer.encode(texts)
    return [
        encoded.values[start:end].tolist()
        for start, end in zip(encoded.row_splits[:-1], encoded.row_splits[1:], strict=True)
    ]


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("lowercase", [True, False])
def test_both_tokenizers_give_the_same_ids(tiny_vocab, content, text, lowercase):
    tokenizer = WordPieceTokenizer(tiny_vocab, lowercase=lowercase, max_length=16)
    expected = ids_of(tokenizer, [text])
    assert tokenize(content, [text], lowercase=lowercase, max_length=16) == expected


def settings(sha256):
    return {"vocabulary_sha256": sha256, "lowercase": True, "max_length": 16}


def check(content, tokenizer):
    own = tokenizer.asset_files()["vocab.txt"]
    return check_vocabulary(
        content,
        TEXTS,
        ids_of(tokenizer, TEXTS),
        settings(hashlib.sha256(own).hexdigest()),
    )


def test_the_right_file_passes(content, tokenizer):
    assert check(content, tokenizer) is None


def test_exchanged_pieces_are_found(content, tokenizer):
    swapped = (
        content.replace(b"\nfilm\n", b"\n@\n").replace(b"\nthe\n", b"\nfilm\n").replace(b"\n@\n", b"\nthe\n")
    )
    assert "other token ids" in check(swapped, tokenizer)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda text: text.replace(b"[SEP]\n", b""), r"lacks \[SEP\]"),
        (lambda text: b"[unused]\n" + text, "other token ids"),
        (lambda text: b"\xff\xfe" + text, "not UTF-8"),
        (lambda text: text.replace(b"\n", b"\r\n"), r"lacks \[PAD\]"),
        (lambda text: b"", r"lacks \[PAD\]"),
    ],
)
def test_other_files_are_refused(content, tokenizer, change, reason):
    with pytest.raises(AssertionError, match=reason):
        raise AssertionError(check(change(content), tokenizer))


def test_the_right_file_passes_where_tokenizers_differ_and_the_share_is_told(caplog):
    # 120 bytes, 60 characters: TF.Text gives up on the word, `tokenizers` does not.
    texts = ["ж", "ж" * 60]
    tokenizer = WordPieceTokenizer(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "ж", "##ж"], max_length=16)
    content = tokenizer.asset_files()["vocab.txt"]
    ids = ids_of(tokenizer, texts)
    assert tokenize(content, texts, lowercase=True, max_length=16) != ids
    digest = hashlib.sha256(content).hexdigest()
    with caplog.at_level(logging.INFO, logger="tfapp"):
        wrong = check_vocabulary(content, texts, ids, settings(digest))
    assert wrong is None
    assert "same ids on 50.00% of 2 texts" in caplog.text


def test_a_file_with_a_piece_more_is_refused_though_no_text_shows_it(content, tokenizer):
    assert "not the vocabulary" in check(content + b"neverseen\n", tokenizer)


def test_the_second_tokenizer_splits_every_golden_text_alike(tokenizer, content, tiny_vocab):
    texts = make_golden_texts(tiny_vocab, max_length=16)
    assert tokenize(content, texts, lowercase=True, max_length=16) == ids_of(tokenizer, texts)
