"""Edits of words: one file an edit, all of them in `TEXT_EDITS`; and what cuts a text into words.

An edit maps a word and a random generator to candidates, maybe none, that differ from the word. Those whose
names begin with ``zh_`` are for Chinese; three of them need packages of the extra ``zh``.
"""

from tfapp.data.edits._chinese import chinese_edits, has_han
from tfapp.data.edits._edit import Edit
from tfapp.data.edits._random import random_edits, random_edits_batch, resolve_edits, try_edits
from tfapp.data.edits._segments import Chinese, Segments, segment
from tfapp.data.edits.drop import drop
from tfapp.data.edits.homoglyph import homoglyph
from tfapp.data.edits.insert import insert
from tfapp.data.edits.keyboard import keyboard
from tfapp.data.edits.swap import swap
from tfapp.data.edits.synonym import make_synonym_edit, synonym
from tfapp.data.edits.zh_homophone import zh_homophone
from tfapp.data.edits.zh_lookalike import zh_lookalike
from tfapp.data.edits.zh_script import zh_script
from tfapp.data.edits.zh_swap import zh_swap
from tfapp.data.edits.zh_symbol import zh_symbol
from tfapp.data.edits.zh_width import zh_width

TEXT_EDITS: dict[str, Edit] = {
    "drop": drop,
    "homoglyph": homoglyph,
    "insert": insert,
    "keyboard": keyboard,
    "swap": swap,
    "synonym": synonym,
    "zh_homophone": zh_homophone,
    "zh_lookalike": zh_lookalike,
    "zh_script": zh_script,
    "zh_swap": zh_swap,
    "zh_symbol": zh_symbol,
    "zh_width": zh_width,
}

__all__ = [
    "TEXT_EDITS",
    "Chinese",
    "Edit",
    "Segments",
    "chinese_edits",
    "has_han",
    "make_synonym_edit",
    "random_edits",
    "random_edits_batch",
    "resolve_edits",
    "segment",
    "try_edits",
]
