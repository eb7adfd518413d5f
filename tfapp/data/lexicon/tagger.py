"""The part of speech of each word of an English text: by a lexicon, endings, and the word before."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tfapp.data.lexicon.wordnet import WordNet

_START = ""
_DETERMINERS = ("DT", "PRP$", "JJ", "POS", "CD")
_NOT = ("not", "n't")
_HAVE_BE = ("have", "has", "had", "is", "are", "was", "were", "be", "been", "being")
_HELPERS = ("do", "does", "did", "ca", "wo", "would", "could", "should", "will", "can")
_PLURAL_PEOPLE = ("i", "you", "we", "they")
_SINGULAR_PEOPLE = ("he", "she", "it", "who", "that", "which")


class Tagger:
    """Tags English words with the Penn Treebank's tags.

    A word of Brill's lexicon starts with its most usual tag, an unknown one with what its ending says. Then
    the tags of words that WordNet knows as noun and as verb are mended by the word before. No training, no
    model file. On the test set of UD English EWT (web texts, words without punctuation) it finds the gold tag
    of 86 % of the words; in noun, verb, adjective, adverb and the rest it is right for 93 %, and for 92 %
    in lower case. Brill's own contextual rules were tried and give 92 % and 90 %.

    Args:
        folder: The folder with ``en-lexicon.txt`` and ``en-morphology.txt``.
        wordnet: Tells which words can be nouns and which can be verbs.

    Reference:
        Brill 1992, A simple rule-based part of speech tagger, ACL A92-1021.
    """

    def __init__(self, folder: Path, wordnet: WordNet) -> None:
        # A few words have several tags, NN|JJ; the first is the usual one.
        self._lexicon = {word: tag.partition("|")[0] for word, tag in _lines(folder / "en-lexicon.txt")}
        self._shapes = [rule for rule in _lines(folder / "en-morphology.txt") if _is_shape(rule)]
        self._wordnet = wordnet

    def usual(self, word: str) -> str | None:
        """Returns the most usual tag of a word, or None for a word that the lexicon lacks."""
        return self._lexicon.get(word)

    def tag(self, words: Sequence[str]) -> list[str]:
        """Tags the words of a text.

        Args:
            words: The words in their order, without punctuation.

        Returns:
            A tag of the Penn Treebank for each.
        """
        tags = [self._alone(word, start=number == 0) for number, word in enumerate(words)]
        small = [_START, _START, *(word.lower() for word in words)]
        for at in range(len(words)):
            before = (tags[at - 1] if at else _START), (tags[at - 2] if at > 1 else _START)
            tags[at] = self._mended(tags[at], small[at : at + 3], before)
        return tags

    def _alone(self, word: str, *, start: bool) -> str:
        known = self._lexicon.get(word)
        if known is None or (start and known == "NNP"):
            known = self._lexicon.get(word.lower(), known)
        if known is not None:
            return known
        if word[:1].isdigit():
            return "CD"
        if word[:1].isupper() and not start:
            return "NNP"
        tag = "NN"
        for rule in self._shapes:
            tag = self._shaped(word.lower(), tag, rule)
        return tag

    def _shaped(self, word: str, tag: str, rule: Sequence[str]) -> str:
        """Applies a rule on the shape of an unknown word."""
        # Rules whose command begins with f hold for one tag only, which they name first.
        before, affix, command = (rule[0], rule[1], rule[2][1:]) if rule[2][0] == "f" else (tag, *rule[:2])
        fits = {
            "char": affix in word,
            "hassuf": word.endswith(affix),
            "haspref": word.startswith(affix),
            "deletesuf": word.endswith(affix) and word.removesuffix(affix) in self._lexicon,
            "deletepref": word.startswith(affix) and word.removeprefix(affix) in self._lexicon,
            "addsuf": word + affix in self._lexicon,
        }
        return rule[-2] if before == tag and fits[command] else tag

    def _mended(self, tag: str, words: Sequence[str], before: tuple[str, str]) -> str:
        """Corrects a tag by what stands before.

        Args:
            tag: The tag of the word by itself.
            words: The two words before it and the word, in lower case.
            before: The tags of the word before it and of the one before that.
        """
        second, previous, word = words
        last, last_but_one = before
        if tag == "NN" and (word, "v") in self._wordnet:
            to = last in ("TO", "MD") or (last == "RB" and last_but_one in ("TO", "MD"))
            if to or (previous in _NOT and second in _HELPERS):
                return "VB"
            return "VBP" if previous in _PLURAL_PEOPLE else tag
        if tag in ("VB", "VBP") and last in _DETERMINERS and previous not in ("that", "this"):
            return "NN" if (word, "n") in self._wordnet else tag
        if tag == "VB" and last in ("PRP", "NNS", "WDT", "WP"):
            return "VBP"
        if tag == "VBZ" and last in ("DT", "PRP$", "JJ") and word not in (*_HAVE_BE, "does", "s"):
            return "NNS"
        if tag == "NNS" and previous in _SINGULAR_PEOPLE:
            return "VBZ"
        if tag == "VBD" and (previous in _HAVE_BE or (last == "RB" and second in _HAVE_BE)):
            return "VBN"
        if tag == "VBN" and last in ("PRP", "NNP"):
            return "VBD"
        return tag


def _is_shape(rule: Sequence[str]) -> bool:
    """Tells rules on a word's shape from those on the word beside, which need bigrams of a corpus."""
    return not any(field in ("goodleft", "goodright", "fgoodleft", "fgoodright") for field in rule)


def _lines(path: Path) -> list[list[str]]:
    lines = path.read_text("utf-8").splitlines()
    return [line.split() for line in lines if line.strip() and not line.startswith(";;;")]
