"""What keyboards, people and speech recognition do to texts.

Every place of a text draws the same numbers at all severities, and a higher severity reaches more places:
what a low one changes, a high one changes too.
"""

from __future__ import annotations

import re
import unicodedata

import numpy as np

from tfapp.data.edits.keyboard import neighbours

_MARKS = ",.;:!?-"
_EMOJI = "😀😂😍😭😡👍👎🙏🔥✨🎉💯🤔🙄❤"
_SHORT = 3
_HOMOPHONES = (
    ("their", "there"),
    ("to", "too", "two"),
    ("your", "you're"),
    ("its", "it's"),
    ("hear", "here"),
    ("for", "four"),
    ("by", "buy", "bye"),
    ("no", "know"),
    ("new", "knew"),
    ("right", "write"),
    ("one", "won"),
    ("would", "wood"),
    ("which", "witch"),
    ("where", "wear"),
    ("whole", "hole"),
    ("week", "weak"),
    ("weather", "whether"),
    ("scene", "seen"),
    ("role", "roll"),
    ("great", "grate"),
    ("made", "maid"),
    ("plot", "plod"),
    ("ate", "eight"),
    ("sea", "see"),
    ("son", "sun"),
    ("some", "sum"),
    ("way", "weigh"),
    ("through", "threw"),
)
_SOUNDS_LIKE = {word: [other for other in group if other != word] for group in _HOMOPHONES for word in group}
_WORDS = re.compile(r"(\s+)")
_NOT_SPOKEN = re.compile(r"[^\w\s']|_")


def typos(text: str, severity: int, rng: np.random.Generator) -> str:
    """Exchanges, drops and doubles letters, and hits keys next to them; 2 % to 16 % of the letters."""
    share = (0.02, 0.04, 0.07, 0.11, 0.16)[severity - 1]
    hits, kinds, choices = rng.random(len(text)), rng.integers(0, 4, len(text)), rng.random(len(text))
    letters = list(text)
    done = 0
    for place in np.flatnonzero(hits < share).tolist():
        letter = text[place]
        if place < done or not letter.isalnum():
            continue
        beside = neighbours().get(letter.lower())
        if kinds[place] == 0 and beside:
            key = beside[int(choices[place] * len(beside))]
            letters[place] = key.upper() if letter.isupper() else key
        elif kinds[place] == 1:
            letters[place] = ""
        elif kinds[place] == 2 and place + 1 < len(text) and text[place + 1].isalnum():
            letters[place : place + 2] = letters[place + 1], letters[place]
            done = place + 2
        else:
            letters[place] = letter * 2
    return "".join(letters)


def case(text: str, severity: int, rng: np.random.Generator) -> str:
    """Sets words in capitals or turns the case of each letter by chance; 10 % of the words up to all."""
    share = (0.1, 0.25, 0.5, 0.75, 1.0)[severity - 1]
    words = text.split(" ")
    hits, shouted = rng.random(len(words)), rng.random(len(words))
    turned = rng.random(len(text)) < 0.5
    start = 0
    for place, word in enumerate(words):
        flips = turned[start : start + len(word)]
        start += len(word) + 1
        if hits[place] >= share:
            continue
        mixed = "".join(
            letter.swapcase() if flip else letter for letter, flip in zip(word, flips, strict=True)
        )
        words[place] = word.upper() if shouted[place] < 0.5 else mixed
    return " ".join(words)


def punctuation(text: str, severity: int, rng: np.random.Generator) -> str:
    """Drops marks and sets wrong ones behind words; 5 % to 50 % of either."""
    share = (0.05, 0.1, 0.2, 0.35, 0.5)[severity - 1]
    hits, choices = rng.random(len(text) + 1), rng.integers(0, len(_MARKS), len(text) + 1)
    letters = list(text)
    for place, letter in enumerate(text):
        if hits[place] >= share:
            continue
        if unicodedata.category(letter).startswith("P"):
            letters[place] = ""
        elif letter.isalnum() and (place + 1 == len(text) or text[place + 1].isspace()):
            letters[place] += _MARKS[choices[place]]
    return "".join(letters)


def emoji(text: str, severity: int, rng: np.random.Generator) -> str:
    """Sets an emoji at the end and behind 2 % to 40 % of the words."""
    share = (0.02, 0.06, 0.12, 0.24, 0.4)[severity - 1]
    parts = _WORDS.split(text)
    hits, choices = rng.random(len(parts) + 1), rng.integers(0, len(_EMOJI), len(parts) + 1)
    for place in range(0, len(parts), 2):
        if hits[place] < share and parts[place]:
            parts[place] += f" {_EMOJI[choices[place]]}"
    return "".join(parts) + f" {_EMOJI[choices[-1]]}"


def whitespace(text: str, severity: int, rng: np.random.Generator) -> str:
    """Drops and multiplies 8 % to 60 % of the spaces, and sets a quarter as many within words."""
    share = (0.08, 0.16, 0.28, 0.44, 0.6)[severity - 1]
    hits, kinds = rng.random(len(text)), rng.integers(0, 4, len(text))
    letters = list(text)
    for place, letter in enumerate(text):
        if letter.isspace():
            if hits[place] < share:
                letters[place] = ("", "", "   ", "\t")[kinds[place]]
        elif hits[place] < share / 16 and letter.isalnum():
            letters[place] += " "
    return "".join(letters)


def asr(text: str, severity: int, rng: np.random.Generator) -> str:
    """Writes as speech recognition does: no case, no marks, 4 % to 35 % of short words lost or misheard."""
    share = (0.04, 0.08, 0.14, 0.23, 0.35)[severity - 1]
    spoken = _NOT_SPOKEN.sub(" ", text.lower()).split()
    hits, choices = rng.random(len(spoken)), rng.random(len(spoken))
    heard = []
    for place, word in enumerate(spoken):
        alike = _SOUNDS_LIKE.get(word)
        if hits[place] >= share:
            heard.append(word)
        elif alike:
            heard.append(alike[int(choices[place] * len(alike))])
        elif len(word) > _SHORT or not word.isascii():
            heard.append(word)
    return " ".join(heard or spoken)
