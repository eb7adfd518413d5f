"""Cutting a SentencePiece vocabulary to languages or a corpus, and what the cut costs a text.

Pieces keep their scores. A text whose most probable pieces are all kept is therefore split into the same
pieces as before; in another text other, mostly shorter pieces take their place, and a character that no kept
piece covers becomes ``<unk>``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

import sentencepiece

from tfapp.data.languages import find_languages, script_of

_SPACE = "\u2581"
# So many of a language's words, the most frequent ones, are looked up in each way to write them.
WORDS = 25_000
_CHUNK = 4096
_CASES = (str, str.capitalize, str.upper)


@dataclass(frozen=True)
class Coverage:
    """What a cut vocabulary does to texts.

    Attributes:
        texts: How many texts were split.
        same: How many of them are split into the same pieces as with the whole vocabulary.
        pieces: How many pieces the whole vocabulary splits them into.
        kept: How many of these occurrences are of kept pieces.
        characters: How many characters the texts have once they are normalised, spaces not counted.
        unknown: How many of these characters became ``<unk>``.
        unknown_before: How many of them are ``<unk>`` to the whole vocabulary, too.
    """

    texts: int
    same: int
    pieces: int
    kept: int
    characters: int
    unknown: int
    unknown_before: int

    def __str__(self) -> str:
        return (
            f"{self.texts:,} texts: {_share(self.same, self.texts)} split as before, "
            f"{_share(self.kept, self.pieces)} of their pieces kept, "
            f"{_share(self.unknown, self.characters)} of their characters <unk> "
            f"({_share(self.unknown_before, self.characters)} before)"
        )


def pieces_of_languages(
    model: bytes, codes: tuple[str, ...], *, words: Mapping[str, Sequence[str]]
) -> set[int]:
    """Finds the pieces that languages need.

    All pieces without a letter (digits, punctuation, symbols) and single ASCII characters are kept for every
    language; so are all pieces of scripts that are the language's own. Of scripts that many languages share,
    every single character is kept, and the pieces that the language's words are made of: as they are,
    capitalised, in capitals, and behind punctuation.

    Args:
        model: The serialized ``ModelProto``.
        codes: Keys of `LANGUAGES`.
        words: The frequent words of each language that is told by its words.

    Returns:
        Ids of the pieces.

    Raises:
        ConfigError: For an unknown language.
    """
    processor = sentencepiece.SentencePieceProcessor(model_proto=model)
    languages = find_languages(codes)
    own = {script for language in languages if not language.by_words for script in language.scripts}
    shared = {script for language in languages if language.by_words for script in language.scripts}
    kept = set()
    for number in range(processor.get_piece_size()):
        letters = processor.id_to_piece(number).replace(_SPACE, "")
        scripts = {script_of(character) for character in letters} - {""}
        if scripts <= own or (len(letters) == 1 and (scripts <= shared or letters.isascii())):
            kept.add(number)
    for language in languages:
        if language.by_words:
            kept |= _pieces_of_words(processor, words[language.code])
    return kept


def _pieces_of_words(processor: sentencepiece.SentencePieceProcessor, words: Sequence[str]) -> set[int]:
    kept: set[int] = set()
    for before in ("", "("):
        for case in _CASES:
            kept.update(*processor.encode([before + case(word) for word in words]))
    return kept


def pieces_of_corpus(model: bytes, texts: Iterable[str], *, min_count: int = 1) -> set[int]:
    """Finds the pieces that texts are split into, and all single characters of their scripts.

    Args:
        model: The serialized ``ModelProto``.
        texts: The texts; they are gone through once.
        min_count: How often a piece occurs at least; 1 or more.

    Returns:
        Ids of the pieces.
    """
    processor = sentencepiece.SentencePieceProcessor(model_proto=model)
    counts: Counter[int] = Counter()
    for chunk in _chunks(texts):
        for pieces in processor.encode(chunk):
            counts.update(pieces)
    kept = {number for number, count in counts.items() if count >= min_count}
    scripts = {script_of(character) for number in kept for character in processor.id_to_piece(number)}
    for number in range(processor.get_piece_size()):
        letters = processor.id_to_piece(number).replace(_SPACE, "")
        if len(letters) <= 1 and (letters.isascii() or script_of(letters) in scripts):
            kept.add(number)
    return kept


def measure_coverage(whole: bytes, cut: bytes, texts: Iterable[str]) -> Coverage:
    """Measures what a cut vocabulary does to texts.

    Args:
        whole: The serialized ``ModelProto`` of the whole vocabulary.
        cut: That of the cut one.
        texts: The texts; they are gone through once.

    Returns:
        How many are split alike, and how much became ``<unk>``.
    """
    before, after = (sentencepiece.SentencePieceProcessor(model_proto=model) for model in (whole, cut))
    remaining = {after.id_to_piece(number) for number in range(after.get_piece_size())}
    figures: Counter[str] = Counter()
    for chunk in _chunks(texts):
        for old, new in zip(_split(before, chunk), _split(after, chunk), strict=True):
            pieces = [piece for piece, _ in old]
            figures["texts"] += 1
            figures["same"] += pieces == [piece for piece, _ in new]
            figures["pieces"] += len(old)
            figures["kept"] += sum(piece in remaining for piece in pieces)
            figures["characters"] += sum(_length(piece) for piece in pieces)
            figures["unknown"] += sum(_length(piece) for piece, unknown in new if unknown)
            figures["unknown_before"] += sum(_length(piece) for piece, unknown in old if unknown)
    return Coverage(**{name: figures[name] for name in Coverage.__dataclass_fields__})


def _split(
    processor: sentencepiece.SentencePieceProcessor, texts: list[str]
) -> Iterator[list[tuple[str, bool]]]:
    """Yields the pieces of each text as it writes them, and whether they are unknown to the vocabulary."""
    unknown = processor.unk_id()
    numbers, surfaces = processor.encode(texts), processor.encode(texts, out_type=str)
    for row, pieces in zip(numbers, surfaces, strict=True):
        yield [(piece, number == unknown) for piece, number in zip(pieces, row, strict=True)]


def _length(piece: str) -> int:
    return len(piece.replace(_SPACE, ""))


def _chunks(texts: Iterable[str]) -> Iterator[list[str]]:
    rest = iter(texts)
    while chunk := list(islice(rest, _CHUNK)):
        yield chunk


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.2%}" if whole else "none"
