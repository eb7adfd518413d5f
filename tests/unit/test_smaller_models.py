"""Parts of a trained encoder and of its vocabulary: what is taken, and what stays the same."""

from __future__ import annotations

import logging

import keras
import keras_hub
import numpy as np
import pytest
import tensorflow as tf
from helpers import tiny_bert

from tfapp.data.kept_pieces import choose_pieces, wordpiece_fallback
from tfapp.data.tokenizers import WordPieceTokenizer
from tfapp.data.unlabelled import load_unlabelled_texts, without_known
from tfapp.errors import ConfigError, DataError, WeightsError
from tfapp.models.smaller import evenly_spaced, smaller_backbone

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[unused0]"]
TEXTS = ["the banker sold a share", "good good movies", "the team, the goal"]


@pytest.fixture(scope="module")
def tokenizer(tiny_vocab) -> WordPieceTokenizer:
    return WordPieceTokenizer(tiny_vocab, max_length=32)


def pieces_of(tokenizer, text):
    return [tokenizer.vocabulary[at] for at in tokenizer.tokenize(tf.constant([text])).values.numpy()]


def test_a_text_whose_pieces_are_kept_is_split_alike(tokenizer):
    small, kept = tokenizer.cut(choose_pieces(tokenizer, TEXTS))
    assert len(small.vocabulary) < len(tokenizer.vocabulary)
    assert [tokenizer.vocabulary[old] for old in kept] == list(small.vocabulary)
    assert (small.pad_id, small.max_length) == (tokenizer.pad_id, tokenizer.max_length)
    for text in TEXTS:
        assert pieces_of(small, text) == pieces_of(tokenizer, text)
        ids, before = (each.encode([text]).values for each in (small, tokenizer))
        np.testing.assert_array_equal(kept[ids], before)


def test_a_dropped_piece_is_spelled_and_nothing_becomes_unknown(tokenizer):
    small, _ = tokenizer.cut(choose_pieces(tokenizer, TEXTS))
    assert pieces_of(tokenizer, "company") == ["company"]
    assert pieces_of(small, "company") == ["c", "##o", "##m", "##p", "##a", "##n", "##y"]
    everything = " ".join(piece.removeprefix("##") for piece in tokenizer.vocabulary[5:])
    assert "[UNK]" not in pieces_of(small, everything)


def test_rare_pieces_go_and_the_size_is_kept_to(tokenizer):
    fallback = tokenizer.fallback_ids
    twice = choose_pieces(tokenizer, TEXTS, min_count=2)
    words = {tokenizer.vocabulary[at] for at in np.setdiff1d(twice, fallback)}
    assert words == {"the", "good"}
    limited = choose_pieces(tokenizer, TEXTS, vocabulary_size=len(fallback) + 1)
    assert {tokenizer.vocabulary[at] for at in np.setdiff1d(limited, fallback)} == {"the"}


def test_a_size_without_room_for_all_characters_keeps_those_that_occur(tokenizer, caplog):
    with caplog.at_level(logging.WARNING, logger="tfapp"):
        chosen = choose_pieces(tokenizer, ["a b , a", "the the the"], vocabulary_size=7)
    assert [tokenizer.vocabulary[at] for at in chosen] == [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "the",
        "a",
        "b",
    ]
    assert "characters are left out and become unknown tokens, 1 of which occur" in caplog.text


def test_characters_that_are_words_of_their_own_need_no_piece_within_words():
    pieces = [*SPECIAL, "a", "##a", "中", "##中", ",", "##,", "banana", "éa", "##xa", "x", "##x"]
    kept = {pieces[at] for at in wordpiece_fallback(pieces)}
    # "b" and "é" begin no word by themselves, and "n" stands nowhere: these pieces cannot be spelled.
    assert kept == {"a", "##a", "中", ",", "x", "##x", "banana", "éa"}


@pytest.mark.parametrize(
    ("given", "message"),
    [({"min_count": 0}, "min_count = 0"), ({"vocabulary_size": 4}, "more than the 4 special tokens")],
)
def test_numbers_out_of_range_are_refused(tokenizer, given, message):
    with pytest.raises(ConfigError, match=message):
        choose_pieces(tokenizer, TEXTS, **given)


def test_blocks_are_spaced_evenly_and_the_last_is_among_them():
    assert evenly_spaced(3, 6) == (2, 4, 6)
    assert evenly_spaced(3, 12) == (4, 8, 12)
    assert evenly_spaced(4, 6) == (2, 3, 5, 6)
    assert evenly_spaced(2, 2) == (1, 2)
    with pytest.raises(ConfigError, match="the teacher has 2 blocks; give 1 to 2"):
        evenly_spaced(3, 2)


def test_all_of_it_taken_in_another_order_computes_the_same(tiny_vocab):
    keras.utils.set_random_seed(0)
    whole = tiny_bert(tiny_vocab, dropout=0.0)
    order = np.arange(len(tiny_vocab))[::-1]
    same = smaller_backbone(whole, layers=(1, 2), token_ids=order, max_positions=9)
    ids = np.random.default_rng(0).integers(0, len(tiny_vocab), (2, 9))
    others = {"padding_mask": np.ones((2, 9), np.int32), "segment_ids": np.zeros((2, 9), np.int32)}
    before = whole({"token_ids": ids, **others})["sequence_output"]
    after = same({"token_ids": len(tiny_vocab) - 1 - ids, **others})["sequence_output"]
    np.testing.assert_allclose(after, before, atol=1e-6)


def test_blocks_positions_and_neurons_are_those_that_were_asked_for(tiny_vocab):
    keras.utils.set_random_seed(0)
    whole = tiny_bert(tiny_vocab)
    small = smaller_backbone(whole, layers=[2], token_ids=[3, 1, 7], max_positions=5, intermediate_dim=6)
    np.testing.assert_array_equal(
        small.token_embedding.get_weights()[0], whole.token_embedding.get_weights()[0][[3, 1, 7]]
    )
    np.testing.assert_array_equal(
        small.position_embedding.get_weights()[0], whole.position_embedding.get_weights()[0][:5]
    )
    (block,), source = small.transformer_layers, whole.transformer_layers[1]
    np.testing.assert_array_equal(
        block._self_attention_layer.get_weights()[0], source._self_attention_layer.get_weights()[0]
    )
    widen, _ = source._feedforward_intermediate_dense.get_weights()
    narrow = source._feedforward_output_dense.get_weights()[0]
    norms = np.sqrt((widen**2).sum(0) * (narrow**2).sum(1))
    best = sorted(sorted(range(len(norms)), key=lambda at: -norms[at])[:6])
    np.testing.assert_array_equal(block._feedforward_intermediate_dense.get_weights()[0], widen[:, best])
    np.testing.assert_array_equal(block._feedforward_output_dense.get_weights()[0], narrow[best])
    assert small.get_config()["intermediate_dim"] == 6


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"layers": [2, 1]}, r"layers = \[2, 1\]: give different numbers from 1 to 2"),
        ({"layers": [0]}, "from 1 to 2"),
        ({"layers": [1], "max_positions": 65}, "max_positions = 65: the backbone has 64"),
        ({"layers": [1], "intermediate_dim": 33}, "intermediate_dim = 33: the backbone has 32"),
    ],
)
def test_parts_that_are_not_there_are_refused(tiny_vocab, given, message):
    with pytest.raises(ConfigError, match=message):
        smaller_backbone(tiny_bert(tiny_vocab), **given)


def test_other_families_are_refused_with_the_cure():
    electra = keras_hub.models.ElectraBackbone(
        vocab_size=20, num_layers=1, num_heads=2, hidden_dim=8, embedding_dim=8, intermediate_dim=8
    )
    with pytest.raises(WeightsError, match="not from ElectraBackbone: fine-tune a BERT"):
        smaller_backbone(electra, layers=[1])


@pytest.mark.parametrize("name", ["rows.txt", "rows.csv", "rows.jsonl", "rows.parquet", "rows.tsv"])
def test_texts_without_labels_are_read_from_every_format(tmp_path, name):
    import pandas as pd

    texts, path = ["one text", "", "two  texts", "one text"], tmp_path / name
    frame = pd.DataFrame({"id": range(4), "text": texts})
    if name.endswith(".txt"):
        path.write_text("\n".join(texts))
    elif name.endswith(".parquet"):
        frame.to_parquet(path)
    elif name.endswith(".jsonl"):
        frame.to_json(path, orient="records", lines=True)
    else:
        frame.to_csv(path, index=False, sep="\t" if name.endswith(".tsv") else ",")
    assert load_unlabelled_texts(path) == ("one text", "two  texts")
    assert load_unlabelled_texts(str(tmp_path / "rows.*")) == ("one text", "two  texts")
    if not name.endswith(".txt"):
        with pytest.raises(DataError, match=r"has no (column|key) 'body'"):
            load_unlabelled_texts(path, text="body")


def test_texts_of_the_data_are_left_out_of_those_without_labels(caplog):
    from types import SimpleNamespace as Given

    data = Given(splits={"test": Given(texts=["held out"]), "train": Given(texts=["learned"])})
    with caplog.at_level(logging.INFO, logger="tfapp"):
        assert without_known(["held  out", "new", "learned", "new "], data) == ("new",)
    assert "3 texts without labels are left out" in caplog.text


def test_what_holds_no_texts_is_refused(tmp_path):
    (tmp_path / "empty.txt").write_text("\n \n")
    (tmp_path / "rows.doc").write_text("a")
    for source, message in (
        (tmp_path / "empty.txt", "holds no text"),
        (tmp_path / "rows.doc", "suffix '.doc'"),
        (tmp_path, "is a folder"),
        (tmp_path / "none.txt", "does not exist"),
        (["a", 1], "index 1 is 1, not a string"),
    ):
        with pytest.raises(DataError, match=message):
            load_unlabelled_texts(source)
