"""Where texts are cut: by the data, within the limits of the default and of the backbone."""

import logging
from types import SimpleNamespace

import pytest

from tfapp.data.tokenizers import WordPieceTokenizer
from tfapp.errors import ConfigError
from tfapp.training.encoding import encode_splits


def split_of(lengths):
    """Texts of as many tokens, [CLS] and [SEP] included."""
    return SimpleNamespace(texts=["the " * (length - 2) for length in lengths])


@pytest.fixture
def model(tiny_vocab):
    return SimpleNamespace(preprocessor=WordPieceTokenizer(tiny_vocab), max_positions=512)


@pytest.mark.parametrize(
    ("lengths", "expected"),
    [
        ([10] * 99 + [90], 11),  # numpy's 99th percentile lies 1 % of the way from 10 to 90, rounded up
        ([10] * 90 + [90] * 10, 90),
        ([2] * 5, 3),
        ([300] * 5, 256),
        ([600] * 5, 256),
    ],
)
def test_the_99th_percentile_of_the_training_texts_decides(model, lengths, expected):
    splits = {"train": split_of(lengths), "validation": split_of([400, 5])}
    encoded = encode_splits(model, splits, None)
    assert model.preprocessor.max_length == expected
    assert encoded["train"].lengths.tolist() == [min(length, expected) for length in lengths]
    assert encoded["validation"].lengths.tolist() == [min(400, expected), min(5, expected)]
    assert encoded["validation"].full_lengths.tolist() == [400, 5]


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
    encoded = encode_splits(model, {"train": split_of([10, 300])}, 200)
    assert model.preprocessor.max_length == 200
    assert encoded["train"].lengths.tolist() == [10, 200]


def test_the_report_tells_what_is_cut_and_how_to_keep_it(model, caplog):
    with caplog.at_level(logging.INFO, "tfapp"):
        encode_splits(model, {"train": split_of([10] * 90 + [90] * 10)}, 20)
    assert "p50 10, p95 90, p99 90; max_length 20 cuts 10.0 % of the training texts" in caplog.text
    assert "raise max_length to keep more, up to 90" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.INFO, "tfapp"):
        encode_splits(model, {"train": split_of([10] * 9)}, None)
    assert "max_length 10 cuts 0.0 % of the training texts" in caplog.text
    assert "raise" not in caplog.text
