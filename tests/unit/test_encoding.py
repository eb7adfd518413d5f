"""Where texts are cut: by the data, within the limits of the default and of the backbone."""

import logging
from types import SimpleNamespace

import pytest

from tfapp.data.encoding import encode_texts
from tfapp.data.tokenizers import WordPieceTokenizer
from tfapp.errors import ConfigError


def split_of(lengths):
    """Texts of as many tokens, [CLS] and [SEP] included."""
    return ["the " * (length - 2) for length in lengths]


def encode_splits(model, splits, max_length):
    return encode_texts(model.preprocessor, splits, max_length=max_length, positions=model.max_positions)


@pytest.fixture
def model(tiny_vocab):
    return SimpleNamespace(preprocessor=WordPieceTokenizer(tiny_vocab), max_positions=512)


@pytest.mark.parametrize(
    ("lengths", "expected"),
    [
        ([10] * 199 + [90], 10),
        ([10] * 99 + [90], 90),  # the length that 99 % of the texts do not exceed, one that occurs
        ([10] * 90 + [90] * 10, 90),
        ([2] * 5, 3),
        ([300] * 5, 256),
        ([600] * 5, 256),
    ],
)
def test_the_99th_percentile_of_the_training_texts_decides(model, lengths, expected):
    splits = {"train": split_of(lengths), "validation": split_of([400, 5])}
    encoded, report = encode_splits(model, splits, None)
    assert model.preprocessor.max_length == expected
    assert encoded["train"].lengths.tolist() == [min(length, expected) for length in lengths]
    assert encoded["validation"].lengths.tolist() == [min(400, expected), min(5, expected)]
    assert encoded["validation"].full_lengths.tolist() == [400, 5]
    assert (report.rows, report.max_length) == (len(lengths), expected)
    assert report.texts_over == pytest.approx(sum(length > expected for length in lengths) / len(lengths))


def test_the_backbones_positions_are_the_limit(model):
    model.max_positions = 64
    encode_splits(model, {"train": split_of([300] * 5)}, None)
    assert model.preprocessor.max_length == 64
    with pytest.raises(ConfigError, match=r"max_length = 65: .* positions for 64 tokens"):
        encode_splits(model, {"train": split_of([5])}, 65)
    assert model.preprocessor.max_length == 64


def test_a_backbone_without_positions_has_no_limit_of_its_own(model):
    model.max_positions = None
    encode_splits(model, {"train": split_of([300] * 5)}, 1000)
    assert model.preprocessor.max_length == 1000


def test_a_length_that_was_asked_for_is_taken(model):
    encoded, _ = encode_splits(model, {"train": split_of([10, 300])}, 200)
    assert model.preprocessor.max_length == 200
    assert encoded["train"].lengths.tolist() == [10, 200]


def test_long_texts_are_split_where_the_tokenizer_says_so(model):
    model.preprocessor.long_texts = "windows"
    encoded, report = encode_splits(model, {"train": split_of([10, 30])}, 18)
    assert encoded["train"].texts.tolist() == [0, 1, 1]
    assert report.long_texts == "windows"


def test_the_report_tells_what_is_cut_and_how_to_keep_it(model, caplog):
    with caplog.at_level(logging.INFO, "tfapp"):
        encode_splits(model, {"train": split_of([10] * 90 + [90] * 10)}, 20)
    assert "p50 10, p95 90, p99 90, longest 90; max_length 20" in caplog.text
    assert "10.0% of the texts, 38.9% of all tokens; max_length = 90 would cut nothing" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.INFO, "tfapp"):
        encode_splits(model, {"train": split_of([10] * 9)}, None)
    assert "nothing: every text fits" in caplog.text
