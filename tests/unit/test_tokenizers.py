"""The tokenizer: ids as the original WordPiece gives them, special tokens, cutting, windows, refusals."""

import unicodedata

import numpy as np
import pytest
import tensorflow as tf

from tfapp.data.encoded import EncodedTexts, average_windows, window_stride
from tfapp.data.tokenizers import WordPieceTokenizer
from tfapp.errors import ConfigError, WeightsError

TEXTS = [
    "The film was great!",
    "",
    "   ",
    "the bankers traded slowly, and the team's coach lost... 3-2?",
    "Unknowable Ünïcödé café words: naïve résumé",
    "emoji 😀 and symbols € § and a tab\tand\nnew lines",
    "price" * 60,
    "a" * 120,
    "中文 新闻 and news",
    "don't (stop) [UNK] [SEP] now",
    "x",
]


def is_cjk(character):
    point = ord(character)
    ranges = ((0x4E00, 0x9FFF), (0x3400, 0x4DBF), (0x20000, 0x2FA1F), (0xF900, 0xFAFF))
    return any(low <= point <= high for low, high in ranges)


def is_punctuation(character):
    ascii_symbol = character.isascii() and character.isprintable() and not character.isalnum()
    return (ascii_symbol and character != " ") or unicodedata.category(character).startswith("P")


def reference_ids(text, vocabulary, *, lowercase):
    """BERT's own algorithm, as its first release has it: basic tokens, then the longest piece first."""
    ids = {piece: index for index, piece in enumerate(vocabulary)}
    text = "".join(c for c in text if c.isspace() or unicodedata.category(c) not in ("Cc", "Cf"))
    if lowercase:
        text = unicodedata.normalize("NFD", text.lower())
        text = "".join(c for c in text if unicodedata.category(c) != "Mn")
    spaced = "".join(f" {c} " if is_punctuation(c) or is_cjk(c) else c for c in text)
    answer = []
    for word in spaced.split():
        pieces, start = [], 0
        while start < len(word):
            for end in range(len(word), start, -1):
                piece = ("##" if start else "") + word[start:end]
                if piece in ids:
                    pieces.append(ids[piece])
                    start = end
                    break
            else:
                pieces = [ids["[UNK]"]]
                break
        answer += pieces if len(word) <= 100 else [ids["[UNK]"]]
    return answer


@pytest.fixture(scope="module")
def tokenizer(tiny_vocab):
    return WordPieceTokenizer(tiny_vocab, max_length=16)


@pytest.mark.parametrize("lowercase", [True, False])
def test_ids_equal_the_original_algorithm(tiny_vocab, lowercase):
    vocabulary = [*tiny_vocab, "中", "文", "新", "##新", "Film", "é", "##é"]
    tokenizer = WordPieceTokenizer(vocabulary, lowercase=lowercase)
    texts = [text for text in TEXTS if "[" not in text]
    got = tokenizer.tokenize(tf.constant(texts)).to_list()
    assert got == [reference_ids(text, vocabulary, lowercase=lowercase) for text in texts]


def test_ids_equal_keras_hub(tiny_vocab):
    from keras_hub.tokenizers import BertTokenizer

    peer = BertTokenizer(vocabulary=tiny_vocab, lowercase=True, strip_accents=True)
    texts = [text for text in TEXTS if len(text) < 100]
    ours = WordPieceTokenizer(tiny_vocab).tokenize(tf.constant(texts)).to_list()
    assert ours == [np.asarray(peer(text)).tolist() for text in texts]


def test_special_tokens_frame_each_text(tokenizer, tiny_vocab):
    special = (tokenizer.pad_id, tokenizer.unk_id, tokenizer.cls_id, tokenizer.sep_id)
    assert [tiny_vocab[i] for i in special] == ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    answer = tokenizer(tf.constant(["the film", "", "a good film was late"]))
    pieces = [[tiny_vocab[i] for i in row] for row in answer["token_ids"].numpy()]
    assert pieces == [
        ["[CLS]", "the", "film", "[SEP]", "[PAD]", "[PAD]", "[PAD]"],
        ["[CLS]", "[SEP]", "[PAD]", "[PAD]", "[PAD]", "[PAD]", "[PAD]"],
        ["[CLS]", "a", "good", "film", "was", "late", "[SEP]"],
    ]
    assert answer["padding_mask"].numpy().sum(axis=1).tolist() == [4, 2, 7]
    assert not answer["segment_ids"].numpy().any()
    assert {value.dtype for value in answer.values()} == {tf.int32}


def test_special_tokens_do_not_stand_at_the_places_of_bert(tiny_vocab):
    shuffled = list(reversed(tiny_vocab))
    answer = WordPieceTokenizer(shuffled)(tf.constant(["the film", "the"]))
    pieces = [[shuffled[i] for i in row] for row in answer["token_ids"].numpy()]
    assert pieces == [["[CLS]", "the", "film", "[SEP]"], ["[CLS]", "the", "[SEP]", "[PAD]"]]


def test_long_texts_are_cut_and_keep_their_last_token(tokenizer):
    text = "the film was great and the actor was fine and the song was good and slow and long"
    answer = tokenizer(tf.constant([text]))
    ids = answer["token_ids"].numpy()[0]
    assert len(ids) == 16
    assert (ids[0], ids[-1]) == (tokenizer.cls_id, tokenizer.sep_id)
    assert answer["padding_mask"].numpy().all()
    whole = tokenizer.tokenize(tf.constant([text])).to_list()[0]
    assert ids[1:-1].tolist() == whole[:14]


@pytest.mark.parametrize("max_length", [3, 8, 500])
def test_encoding_equals_calling_row_by_row(tiny_vocab, max_length):
    tokenizer = WordPieceTokenizer(tiny_vocab, max_length=max_length)
    encoded = tokenizer.encode(TEXTS)
    assert len(encoded) == len(TEXTS)
    called = tokenizer(tf.constant(TEXTS))
    fixed, owners = tokenizer.fixed(TEXTS)
    assert owners is None
    assert fixed["token_ids"].shape == (len(TEXTS), max_length)
    assert called["token_ids"].shape[1] == encoded.lengths.max()
    whole = [len(row) + 2 for row in tokenizer.tokenize(tf.constant(TEXTS)).to_list()]
    assert encoded.full_lengths.tolist() == whole
    assert encoded.lengths.tolist() == [min(length, max_length) for length in whole]
    for row in range(len(TEXTS)):
        ids = encoded.values[encoded.row_splits[row] : encoded.row_splits[row + 1]]
        for answer in (called, fixed):
            mask = np.array(answer["padding_mask"])[row].astype(bool)
            np.testing.assert_array_equal(np.array(answer["token_ids"])[row][mask], ids)
            assert (np.array(answer["token_ids"])[row][~mask] == tokenizer.pad_id).all()


def test_encoding_crosses_its_own_chunks_unharmed(tokenizer, monkeypatch):
    whole = tokenizer.encode(TEXTS)
    monkeypatch.setattr("tfapp.data.tokenizers._tokenizer._CHUNK", 3)
    pieces = tokenizer.encode(TEXTS)
    for name in ("values", "row_splits", "full_lengths"):
        np.testing.assert_array_equal(getattr(pieces, name), getattr(whole, name))
    assert (pieces.values.dtype, pieces.row_splits.dtype, pieces.full_lengths.dtype) == (
        np.int32,
        np.int64,
        np.int32,
    )


def test_no_text_at_all_is_no_row(tokenizer):
    encoded = tokenizer.encode([])
    assert (len(encoded), encoded.values.size, encoded.lengths.size) == (0, 0, 0)
    assert tokenizer.encode([], max_length=5).cut(3) is not None
    assert len(encoded.windows(8)) == 0


def test_cutting_later_equals_cutting_at_once(tokenizer):
    whole = tokenizer.encode(TEXTS, max_length=2**30)
    assert whole.cut(10_000) is whole
    for length in (3, 7, 20):
        later, at_once = whole.cut(length), tokenizer.encode(TEXTS, max_length=length)
        np.testing.assert_array_equal(later.values, at_once.values)
        np.testing.assert_array_equal(later.row_splits, at_once.row_splits)
        np.testing.assert_array_equal(later.full_lengths, whole.full_lengths)
        assert later.max_length == length


@pytest.mark.parametrize("length", [3, 5, 8, 20])
def test_windows_cover_every_token_in_order(tokenizer, length, monkeypatch):
    monkeypatch.setattr("tfapp.data.encoded.MAX_WINDOWS", 1000)
    whole = tokenizer.encode(TEXTS, max_length=2**30)
    windows, stride = whole.windows(length), window_stride(length)
    assert sorted(set(windows.texts.tolist())) == list(range(len(TEXTS)))
    assert windows.lengths.max() <= length
    for row in range(len(TEXTS)):
        body = whole.values[whole.row_splits[row] + 1 : whole.row_splits[row + 1] - 1]
        rebuilt = np.full(len(body), -1, np.int32)
        numbers = np.flatnonzero(windows.texts == row)
        for number, window in enumerate(numbers):
            ids = windows.values[windows.row_splits[window] : windows.row_splits[window + 1]]
            assert (ids[0], ids[-1]) == (tokenizer.cls_id, tokenizer.sep_id)
            piece = ids[1:-1]
            np.testing.assert_array_equal(piece, body[number * stride : number * stride + length - 2])
            rebuilt[number * stride : number * stride + length - 2] = piece
        np.testing.assert_array_equal(rebuilt, body)
        # No window is there that adds nothing.
        assert len(numbers) == 1 or (len(numbers) - 2) * stride + length - 2 < len(body)


def test_a_text_has_at_most_16_windows(tiny_vocab):
    tokenizer = WordPieceTokenizer(tiny_vocab, max_length=6, long_texts="windows")
    texts = ["film " * 48, "film " * 49, "film " * 50, "film " * 5000]
    assert np.bincount(tokenizer.encode(texts).texts).tolist() == [16, 16, 16, 16]
    assert np.bincount(tokenizer.encode(["film " * 46, "film " * 4]).texts).tolist() == [15, 1]


@pytest.mark.parametrize("length", [3, 6, 20, 500])
def test_graphs_split_texts_as_encoding_does(tiny_vocab, length):
    tokenizer = WordPieceTokenizer(tiny_vocab, max_length=length, long_texts="windows")
    encoded = tokenizer.encode(TEXTS)
    owners = np.arange(len(TEXTS)) if encoded.texts is None else encoded.texts
    graph = tf.function(tokenizer.rows, input_signature=[tf.TensorSpec([None], tf.string)])
    inputs, numbers = graph(tf.constant(TEXTS))
    np.testing.assert_array_equal(numbers, owners)
    np.testing.assert_array_equal(inputs["padding_mask"].numpy().sum(axis=1), encoded.lengths)
    np.testing.assert_array_equal(
        inputs["token_ids"].numpy()[inputs["padding_mask"].numpy() == 1], encoded.values
    )
    fixed, fixed_owners = tokenizer.fixed(TEXTS)
    np.testing.assert_array_equal(np.arange(len(TEXTS)) if fixed_owners is None else fixed_owners, owners)
    for name, value in inputs.items():
        width = value.shape[1]
        np.testing.assert_array_equal(fixed[name][:, :width], value)
        assert (fixed[name][:, width:] == (tokenizer.pad_id if name == "token_ids" else 0)).all()
    for row, text in enumerate(TEXTS):
        alone = tokenizer.windows(tf.constant([text]))
        width = alone["token_ids"].shape[1]
        for name, value in alone.items():
            np.testing.assert_array_equal(value, fixed[name][owners == row][:, :width])
    nothing, nobody = graph(tf.constant([], tf.string))
    assert (nothing["token_ids"].shape[0], nobody.shape) == (0, (0,))


def test_values_of_windows_are_averaged_by_text():
    values = np.array([[1.0, 2.0], [3.0, 6.0], [5.0, 5.0], [0.0, 1.0]], np.float32)
    averaged = average_windows(values, np.array([0, 0, 1, 2]))
    assert averaged.dtype == np.float32
    assert averaged.tolist() == [[2.0, 4.0], [5.0, 5.0], [0.0, 1.0]]


def test_an_unknown_way_with_long_texts_is_refused(tiny_vocab):
    with pytest.raises(ConfigError, match="long_texts = 'window'; did you mean 'windows'"):
        WordPieceTokenizer(tiny_vocab, long_texts="window")


def test_a_graph_answers_as_eager_execution_does(tokenizer):
    graph = tf.function(tokenizer.__call__, input_signature=[tf.TensorSpec([None], tf.string)])
    for name, value in graph(tf.constant(TEXTS)).items():
        np.testing.assert_array_equal(value, tokenizer(tf.constant(TEXTS))[name])


def test_the_configuration_rebuilds_an_equal_tokenizer(tiny_vocab):
    tokenizer = WordPieceTokenizer(tiny_vocab, lowercase=False, max_length=9, long_texts="windows")
    twin = WordPieceTokenizer.from_config(tokenizer.get_config())
    assert (twin.vocabulary, twin.lowercase) == (tuple(tiny_vocab), False)
    assert (twin.max_length, twin.long_texts) == (9, "windows")
    np.testing.assert_array_equal(twin.encode(TEXTS).values, tokenizer.encode(TEXTS).values)
    lines = tokenizer.asset_files()["vocab.txt"].decode("utf-8").splitlines()
    assert lines == tiny_vocab


def test_a_vocabulary_without_special_tokens_is_refused():
    with pytest.raises(WeightsError, match=r"lacks \[CLS\], \[SEP\]"):
        WordPieceTokenizer(["[PAD]", "[UNK]", "the"])


def test_a_vocabulary_with_a_piece_twice_is_refused(tiny_vocab):
    with pytest.raises(WeightsError, match="twice"):
        WordPieceTokenizer([*tiny_vocab, "the"])


@pytest.mark.parametrize("value", [2, 0, -5])
def test_a_length_without_room_for_a_piece_is_refused(tokenizer, value):
    with pytest.raises(ConfigError, match=f"max_length = {value}"):
        tokenizer.max_length = value
    assert tokenizer.max_length == 16


def test_lengths_are_those_of_the_rows():
    encoded = EncodedTexts(
        np.arange(5, dtype=np.int32), np.array([0, 2, 2, 5]), np.array([2, 0, 9], np.int32), 3
    )
    assert encoded.lengths.tolist() == [2, 0, 3]
    assert len(encoded) == 3
