"""Reads the dictionary files of WordNet, each synset when it is asked for."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from tfapp.errors import DataError

PARTS = {"noun": "n", "verb": "v", "adj": "a", "adv": "r"}
_PARTS = {"n": "n", "v": "v", "a": "a", "s": "a", "r": "r"}
_ANTONYM, _SIMILAR = "!", "&"


@dataclass(frozen=True)
class Pointer:
    """A relation of a synset or of one of its words to another.

    Attributes:
        symbol: WordNet's symbol of the relation, such as ``"!"`` for an antonym.
        offset: Where the other synset stands.
        part: Part of speech of the other synset: n, v, a or r.
    """

    symbol: str
    offset: int
    part: str


@dataclass(frozen=True)
class Synset:
    """Words that share a meaning.

    Attributes:
        words: The words as written, with spaces inside phrases.
        pointers: Its relations.
    """

    words: tuple[str, ...]
    pointers: tuple[Pointer, ...]


class WordNet:
    """A WordNet in the format of its dictionary files (``index.noun``, ``data.noun``, and so on).

    Args:
        folder: The folder of the files: the packaged asset's, or an installed one such as Debian's
            ``/usr/share/wordnet``.

    Raises:
        DataError: If a file is missing.

    Reference:
        Fellbaum (ed.) 1998, WordNet: An Electronic Lexical Database; the manual page wndb(5WN).
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._index: dict[str, dict[str, str]] = {}
        self._data: dict[str, bytes] = {}
        for name, part in PARTS.items():
            index = self._read(f"index.{name}").decode("utf-8")
            lines = (line for line in index.splitlines() if not line.startswith(" "))
            self._index[part] = {line.partition(" ")[0]: line for line in lines}
            self._data[part] = self._read_data(name)
        self._synsets: dict[tuple[str, int], Synset] = {}

    def _read(self, name: str) -> bytes:
        try:
            return (self.folder / name).read_bytes()
        except OSError as error:
            raise DataError(
                f"{self.folder} is not a WordNet: {name} cannot be read ({error.strerror})."
            ) from error

    def _read_data(self, name: str) -> bytes:
        # The packaged asset has the nouns in two files, cut at a line's end.
        if (self.folder / f"data.{name}1").is_file():
            return self._read(f"data.{name}1") + b"\n" + self._read(f"data.{name}2")
        return self._read(f"data.{name}")

    def __contains__(self, lemma_and_part: tuple[str, str]) -> bool:
        """Tells whether a lemma has a part of speech, as in ``("film", "n") in wordnet``."""
        lemma, part = lemma_and_part
        return lemma in self._index[part]

    def synsets(self, lemma: str, part: str) -> tuple[Synset, ...]:
        """Returns the meanings of a base form, the most usual first.

        Args:
            lemma: The base form in lower case, with underscores for spaces.
            part: ``"n"``, ``"v"``, ``"a"`` or ``"r"`` (adverb).

        Returns:
            The synsets; none for an unknown word.
        """
        line = self._index[part].get(lemma)
        if line is None:
            return ()
        fields = line.split()
        offsets = fields[6 + int(fields[3]) :]
        return tuple(self._synset(part, int(offset)) for offset in offsets)

    def antonyms(self, lemma: str, part: str) -> frozenset[str]:
        """Returns every opposite of a base form, in any of its meanings.

        For adjectives these are also the opposites of the adjectives that they are similar to: ``tiny``
        opposes ``large`` through ``small``.

        Args:
            lemma: As in `synsets`.
            part: As in `synsets`.

        Returns:
            The words, in lower case.
        """
        own = self.synsets(lemma, part)
        groups = [*own, *(near for synset in own for near in self._related(synset, _SIMILAR))]
        opposites = (synset for group in groups for synset in self._related(group, _ANTONYM))
        return frozenset(word.lower() for synset in opposites for word in synset.words) - {lemma}

    @cached_property
    def exceptions(self) -> dict[str, dict[str, tuple[str, ...]]]:
        """Base forms of irregular forms by part of speech, from ``*.exc`` where the folder has them."""
        found: dict[str, dict[str, tuple[str, ...]]] = {}
        for name, part in PARTS.items():
            path = self.folder / f"{name}.exc"
            lines = path.read_text("utf-8").splitlines() if path.is_file() else []
            found[part] = {form: tuple(bases) for form, *bases in map(str.split, lines)}
        return found

    def _related(self, synset: Synset, symbol: str) -> list[Synset]:
        wanted = (pointer for pointer in synset.pointers if pointer.symbol == symbol)
        return [self._synset(pointer.part, pointer.offset) for pointer in wanted]

    def _synset(self, part: str, offset: int) -> Synset:
        key = part, offset
        if key not in self._synsets:
            data = self._data[part]
            end = data.find(b"\n", offset)
            line = data[offset : len(data) if end < 0 else end]
            self._synsets[key] = _parse(line.decode("utf-8"), self.folder)
        return self._synsets[key]


def _parse(line: str, folder: Path) -> Synset:
    """Reads a line of a data file: offset, file, type, words with their numbers, pointers, gloss."""
    fields = line.partition("|")[0].split()
    try:
        count = int(fields[3], 16)
        # An adjective's place is written behind it: galore(ip).
        words = tuple(word.partition("(")[0].replace("_", " ") for word in fields[4 : 4 + 2 * count : 2])
        first = 4 + 2 * count
        last = first + 4 * int(fields[first])
        pointers = tuple(
            Pointer(fields[at], int(fields[at + 1]), _PARTS[fields[at + 2]])
            for at in range(first + 1, last + 1, 4)
        )
    except (ValueError, IndexError, KeyError) as error:
        raise DataError(f"{folder} is a damaged WordNet: {line[:60]!r} is not a synset.") from error
    return Synset(words, pointers)
