"""From inflected English words to base forms and back."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from tfapp.data.lexicon.tagger import Tagger
from tfapp.data.lexicon.wordnet import WordNet

# WordNet's rules of detachment, morphy(7WN): an ending, and what takes its place; and two for nouns, which
# stand in WordNet's list of exceptions, for the packaged dictionary has no such list.
_ENDINGS = {
    "n": (
        *(("sses", "ss"), ("oes", "o"), ("s", ""), ("ses", "s"), ("xes", "x"), ("zes", "z")),
        *(("ches", "ch"), ("shes", "sh"), ("men", "man"), ("ies", "y")),
    ),
    "v": (
        *(("s", ""), ("ies", "y"), ("es", "e"), ("es", "")),
        *(("ed", "e"), ("ed", ""), ("ing", "e"), ("ing", "")),
    ),
    "a": (("er", ""), ("est", ""), ("er", "e"), ("est", "e")),
    "r": (),
}
_IRREGULAR_NOUNS = """
analyses analysis appendices appendix axes axis bases basis calves calf children child criteria
criterion crises crisis curricula curriculum elves elf feet foot geese goose halves half hooves hoof
hypotheses hypothesis indices index knives knife leaves leaf lives life loaves loaf men man mice mouse
nuclei nucleus oases oasis oxen ox phenomena phenomenon scarves scarf selves self sheaves sheaf shelves
shelf stimuli stimulus syntheses synthesis teeth tooth theses thesis thieves thief wives wife wolves
wolf women woman
"""
_IRREGULAR_ADJECTIVES = {
    "better": "good", "best": "good", "worse": "bad", "worst": "bad", "farther": "far", "farthest": "far",
    "further": "far", "furthest": "far",
}  # fmt: skip
_VERB_COLUMNS = {"VBZ": 3, "VBG": 5, "VBD": 10, "VBN": 11}
_PARTS = {"NN": "n", "VB": "v", "JJ": "a", "RB": "r"}


def part_of(tag: str) -> str | None:
    """Returns WordNet's part of speech of a Penn tag, or None for closed classes and proper nouns."""
    return None if tag.startswith("NNP") else _PARTS.get(tag[:2])


class Morphology:
    """Finds base forms of inflected words, and inflects base forms.

    Args:
        folder: The folder with ``en-verbs.txt``.
        wordnet: Tells which base forms exist.
        tagger: Tells which inflected forms are in use.

    Attributes:
        verb_bases: The base forms of each inflected form of a verb.
        irregular_nouns: The base form of each irregular plural.
    """

    def __init__(self, folder: Path, wordnet: WordNet, tagger: Tagger) -> None:
        self._wordnet = wordnet
        self._tagger = tagger
        self._verbs: dict[str, list[str]] = {}
        self.verb_bases: dict[str, list[str]] = defaultdict(list)
        for line in (folder / "en-verbs.txt").read_text("utf-8").splitlines():
            if not line.startswith(";;;"):
                forms = line.split(",")
                if forms[0] == "pay":  # the file says payed
                    forms[10:12] = ["paid", "paid"]
                self._verbs[forms[0]] = forms
                for form in set(filter(None, forms[1:12])):
                    self.verb_bases[form].append(forms[0])
        pairs = iter(_IRREGULAR_NOUNS.split())
        self.irregular_nouns = dict(zip(pairs, pairs, strict=True))
        self._plural = {base: form for form, base in self.irregular_nouns.items()}

    def base(self, word: str, tag: str) -> str | None:
        """Finds the base form of a word.

        Args:
            word: The word in lower case.
            tag: Its tag.

        Returns:
            The base form, or None where WordNet knows none of that part of speech.
        """
        part = part_of(tag)
        if part is None:
            return None
        if tag in ("NN", "VB", "VBP", "JJ", "RB"):
            return word if (word, part) in self._wordnet else None
        return next((form for form in self._guesses(word, part) if (form, part) in self._wordnet), None)

    def _guesses(self, word: str, part: str) -> Iterator[str]:
        yield from self._wordnet.exceptions[part].get(word, ())
        if part == "n" and word in self.irregular_nouns:
            yield self.irregular_nouns[word]
        elif part == "v":
            yield from self.verb_bases.get(word, ())
        elif part == "a" and word in _IRREGULAR_ADJECTIVES:
            yield _IRREGULAR_ADJECTIVES[word]
        for ending, instead in _ENDINGS[part]:
            if word.endswith(ending) and len(word) > len(ending) + 1:
                stem = word.removesuffix(ending) + instead
                yield stem
                if part in "va" and len(stem) > 2 and stem[-1] == stem[-2]:
                    yield stem[:-1]  # bigger, stopped
        if part == "a" and word.endswith(("ier", "iest")):
            yield word.rpartition("i")[0] + "y"

    def inflect(self, lemma: str, tag: str) -> str | None:
        """Gives a base form the form that a tag asks for.

        Args:
            lemma: A base form in lower case, one word.
            tag: The tag.

        Returns:
            The inflected word, or None where it is not known to exist.
        """
        if tag in _VERB_COLUMNS:
            if lemma not in self._verbs:
                return None
            return self._verbs[lemma][_VERB_COLUMNS[tag]] or None
        if tag == "NNS":
            regular = self._plurals(lemma)
            return self._plural.get(lemma) or self._used(regular, "NNS") or regular[0]
        if tag in ("JJR", "JJS", "RBR", "RBS"):
            ending = "er" if tag.endswith("R") else "est"
            return self._used(_compared(lemma, ending), tag)
        return lemma

    def _used(self, forms: list[str], tag: str) -> str | None:
        return next((form for form in forms if self._tagger.usual(form) == tag), None)

    @staticmethod
    def _plurals(lemma: str) -> list[str]:
        if lemma.endswith(("s", "x", "z", "ch", "sh")):
            return [lemma + "es"]
        if lemma.endswith("y") and lemma[-2:-1] not in tuple("aeiou"):
            return [lemma[:-1] + "ies"]
        if lemma.endswith("man"):
            return [lemma[:-3] + "men", lemma + "s"]
        return [lemma + "s", lemma + "es"]


def _compared(lemma: str, ending: str) -> list[str]:
    if lemma.endswith("e"):
        return [lemma + ending[1:]]
    if lemma.endswith("y"):
        return [lemma[:-1] + "i" + ending, lemma + ending]
    return [lemma + ending, lemma + lemma[-1:] + ending]
