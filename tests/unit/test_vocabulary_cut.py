"""Vocabularies cut to languages and corpora, and SentencePiece models out of Hugging Face's files."""

import base64
import gzip
import json
import random

import msgpack
import pytest
import sentencepiece
import tokenizers
from sentencepiece import sentencepiece_model_pb2
from sentences import LINES, sentencepiece_model

from tfapp.data.languages import LANGUAGES, script_of
from tfapp.data.sentencepiece_files import (
    SPECIAL_PIECES,
    make_model,
    read_tokenizer_json,
    with_encoder_ids,
)
from tfapp.data.vocabulary_cut import measure_coverage, pieces_of_corpus, pieces_of_languages
from tfapp.data.word_lists import read_words
from tfapp.errors import ConfigError, DataError, WeightsError

PIECES = [
    *SPECIAL_PIECES,
    *["▁", "▁the", "▁The", "▁THE", "the", "▁der", "a", "é", "▁é", "éa", "z", "我", "我们", "▁我"],
    *["の", "か", "カー", "한", "я", "▁я", "ая", "1", "2024", "。", "!", "🎉", "字の", "т", "h", "e", "r"],
]
SCORES = [0.0] * 4 + [-float(number) for number in range(1, len(PIECES) - 3)]


def made():
    return make_model(list(zip(PIECES, SCORES, strict=True)), replaced_characters=b"")


def kept(numbers):
    return {PIECES[number] for number in numbers} - set(SPECIAL_PIECES)


def without(model, keep):
    """The model with the kept pieces alone, as `SentencePieceTokenizer.cut` makes it."""
    parsed = sentencepiece_model_pb2.ModelProto.FromString(model)
    normal = [piece for piece in parsed.pieces if piece.type == 1]
    least = min(normal, key=lambda piece: piece.score).piece
    pieces = [
        piece
        for number, piece in enumerate(parsed.pieces)
        if piece.type != 1 or piece.piece == least or number in keep
    ]
    del parsed.pieces[:]
    parsed.pieces.extend(pieces)
    return parsed.SerializeToString()


COMMON = {"▁", "1", "2024", "。", "!", "🎉", "a", "z", "h", "e", "r"}


@pytest.mark.parametrize(
    ("codes", "expected"),
    [
        (("zh",), COMMON | {"我", "我们", "▁我"}),
        (("ja",), COMMON | {"我", "我们", "▁我", "の", "か", "カー", "字の"}),
        (("ko",), COMMON | {"我", "我们", "▁我", "한"}),
        (("ru",), COMMON | {"я", "▁я", "ая", "т"}),
        (("en",), COMMON | {"é", "▁é", "▁the", "▁The", "▁THE", "the"}),
        (("en", "zh"), COMMON | {"é", "▁é", "▁the", "▁The", "▁THE", "the", "我", "我们", "▁我"}),
    ],
)
def test_a_language_keeps_its_scripts_and_its_words(codes, expected):
    words = {"en": ["the"]}
    assert kept(pieces_of_languages(made(), codes, words=words)) == expected


def test_a_corpus_keeps_its_pieces_and_the_characters_of_its_scripts():
    found = kept(pieces_of_corpus(made(), ["我们 der", "der", "2024"]))
    # What occurs, and the single characters of Latin and Chinese script.
    assert found == COMMON | {"我们", "我", "▁我", "▁der", "é", "▁é"}
    assert "我们" not in kept(pieces_of_corpus(made(), ["我们", "я"], min_count=2))


def test_an_unknown_language_is_refused_with_the_choices():
    with pytest.raises(ConfigError, match=r"unknown language 'xx'.*'zh'"):
        pieces_of_languages(made(), ("zh", "xx"), words={})


def test_every_language_has_a_script_that_its_letters_are_of():
    letters = {"zh": "我", "ja": "の", "ko": "한", "ru": "я", "ar": "ع", "hi": "अ", "el": "λ", "he": "א"}
    letters |= {"th": "ก", "bn": "অ", "ta": "அ", "te": "అ", "ka": "ა", "hy": "ժ", "vi": "ề", "de": "ß"}
    for code, letter in letters.items():
        assert script_of(letter) in LANGUAGES[code].scripts
    assert {script_of(character) for character in "1。!🎉 ①"} == {""}


@pytest.mark.parametrize("share", [0.3, 0.7, 0.95])
def test_texts_whose_pieces_are_all_kept_are_split_as_before(share):
    """The property behind every cut: drawn pieces, real lines, and lines that mix two of them."""
    draw = random.Random(share)
    model = sentencepiece_model()
    whole = sentencepiece.SentencePieceProcessor(model_proto=model)
    keep = {number for number in range(whole.get_piece_size()) if draw.random() < share}
    cut = sentencepiece.SentencePieceProcessor(model_proto=without(model, keep))
    texts = [*LINES, *(draw.choice(LINES)[:8] + draw.choice(LINES)[-8:] for _ in range(300))]
    texts += [whole.decode(draw.sample(sorted(keep), 3)) for _ in range(300)]
    inside = 0
    for text in texts:
        pieces = whole.encode(text, out_type=str)
        if set(whole.encode(text)) <= keep:
            inside += 1
            assert cut.encode(text, out_type=str) == pieces
    assert inside > 50


def test_coverage_counts_pieces_and_characters_by_hand():
    model = made()
    cut = without(model, pieces_of_languages(model, ("zh",), words={}))
    # "the" falls apart into kept letters but "t"; the Cyrillic letter and the unknown one are no piece.
    figures = measure_coverage(model, cut, ["我们!", "the", "1ш", "я"])
    assert (figures.texts, figures.same, figures.pieces) == (4, 2, 8)
    assert (figures.characters, figures.unknown, figures.unknown_before) == (9, 3, 1)
    assert "50.00% split as before" in str(figures)
    assert "33.33% of their characters <unk> (11.11% before)" in str(figures)


def test_word_lists_give_the_most_frequent_words(tmp_path):
    steps = [{"format": "cB", "version": 1}, [], ["the"], ["of", "and"], [], ["zebra"]]
    path = tmp_path / "large_en.msgpack.gz"
    path.write_bytes(gzip.compress(msgpack.dumps(steps)))
    assert read_words(tmp_path, "en", count=3) == ["the", "of", "and"]
    assert read_words(tmp_path, "en", count=9)[-1] == "zebra"
    with pytest.raises(DataError, match="no list of words of the language 'fr'"):
        read_words(tmp_path, "fr", count=1)
    for content in (
        b"",
        path.read_bytes()[:-12],
        gzip.compress(b"\xc1"),
        gzip.compress(msgpack.dumps([[1]])),
    ):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"large_en\.msgpack\.gz is damaged"):
            read_words(tmp_path, "en", count=1)


def tokenizer_json(model, *, change=None):
    """What transformers writes for a unigram model with XLM-R's special tokens."""
    parsed = sentencepiece_model_pb2.ModelProto.FromString(model)
    table = base64.b64encode(parsed.normalizer_spec.precompiled_charsmap).decode()
    sequence = [
        {"type": "Precompiled", "precompiled_charsmap": table},
        {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "},
    ]
    content = {
        "normalizer": {"type": "Sequence", "normalizers": sequence},
        "pre_tokenizer": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always"},
        "model": {
            "type": "Unigram",
            "unk_id": 3,
            "vocab": [[piece.piece, piece.score] for piece in parsed.pieces],
        },
    }
    if change:
        change(content)
    return json.dumps(content)


def test_a_tokenizer_json_gives_the_same_ids_as_its_own_library(tmp_path):
    path = tmp_path / "tokenizer.json"
    path.write_text(tokenizer_json(sentencepiece_model()))
    processor = sentencepiece.SentencePieceProcessor(model_proto=read_tokenizer_json(path))
    theirs = tokenizers.Tokenizer.from_file(str(path))
    ids = (processor.bos_id(), processor.pad_id(), processor.eos_id(), processor.unk_id())
    assert ids == (0, 1, 2, 3)
    texts = [*LINES, "\uff21\uff22\uff11", "two  spaces", "①", "未知的字 😀"]
    same = sum(processor.encode(text) == theirs.encode(text).ids for text in texts)
    # Ways of one probability are the only difference; the trained model has a few.
    assert same > 0.98 * len(texts)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: content["model"].update(type="BPE"), "no unigram"),
        (lambda content: content["model"]["vocab"].pop(0), "begin with"),
        (lambda content: content["pre_tokenizer"].update(type="ByteLevel"), "no unigram"),
        (lambda content: content["normalizer"]["normalizers"].append({"type": "Lowercase"}), "Lowercase"),
        (lambda content: content["normalizer"]["normalizers"][1]["pattern"].update(Regex="a"), "Replace"),
        (lambda content: content["pre_tokenizer"].update(prepend_scheme="never"), "no space"),
        (lambda content: content["pre_tokenizer"].update(add_prefix_space=False), "no space"),
        (lambda content: content["pre_tokenizer"].pop("type"), "damaged"),
        (lambda content: content.update(pre_tokenizer=None), "damaged"),
        (lambda content: content["model"].update(type="WordPiece", vocab={"a": 0}), "WordPiece behind"),
        (lambda content: content.pop("model"), "damaged"),
    ],
)
def test_a_tokenizer_json_of_another_kind_is_refused(tmp_path, change, message):
    path = tmp_path / "tokenizer.json"
    path.write_text(tokenizer_json(sentencepiece_model(), change=change))
    with pytest.raises(WeightsError, match=message):
        read_tokenizer_json(path)


def test_the_ids_of_a_fairseq_model_are_moved():
    parsed = sentencepiece_model_pb2.ModelProto.FromString(made())
    pieces = list(parsed.pieces)
    del parsed.pieces[:]
    parsed.pieces.extend([pieces[3], pieces[0], pieces[2], *pieces[4:]])
    content = with_encoder_ids(parsed.SerializeToString())
    processor = sentencepiece.SentencePieceProcessor(model_proto=content)
    assert [processor.id_to_piece(number) for number in range(len(PIECES) + 1)] == [*PIECES, "<mask>"]
    assert processor.encode("我们 the") == [PIECES.index(piece) for piece in ("▁", "我们", "▁the")]
    with pytest.raises(WeightsError, match="begin with"):
        with_encoder_ids(made())
