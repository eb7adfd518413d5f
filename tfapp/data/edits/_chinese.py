"""What the Chinese edits share: which characters are Chinese, which are common, and the packages for it."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import logging
import re
from collections.abc import Iterable
from functools import cache
from typing import Any

from tfapp.assets import cache_dir
from tfapp.errors import ConfigError

HAN = "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U000323af"
_HAN_CHARACTER = re.compile(f"[{HAN}]")
_HAN_WORD = re.compile(f"[{HAN}]+")
# The edits of words in Chinese characters, with the module that each needs.
_NEEDS = {
    "zh_homophone": "pypinyin",
    "zh_lookalike": None,
    "zh_script": "opencc",
    "zh_swap": "jieba",
    "zh_symbol": None,
}


def is_han(word: str) -> bool:
    """Tells whether a word is written in Chinese characters alone."""
    return _HAN_WORD.fullmatch(word) is not None


def has_han(texts: Iterable[str]) -> bool:
    """Tells whether any of the texts holds a Chinese character."""
    return any(_HAN_CHARACTER.search(text) for text in texts)


def chinese_edits() -> tuple[str, ...]:
    """Names the edits of words in Chinese characters whose packages are installed."""
    return tuple(name for name, module in _NEEDS.items() if module is None or _is_installed(module))


@cache
def common_characters() -> frozenset[str]:
    """The 3,755 characters of GB 2312's first level, which are the common ones of simplified Chinese."""
    cells = ((row, column) for row in range(0xB0, 0xD8) for column in range(0xA1, 0xFF))
    found = set()
    for cell in cells:
        with contextlib.suppress(UnicodeDecodeError):  # the last row is not full
            found.add(bytes(cell).decode("gb2312"))
    return frozenset(found)


def has_jieba() -> bool:
    """Tells whether jieba is installed."""
    return _is_installed("jieba")


def _is_installed(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def zh_package(name: str, needed_by: str) -> Any:
    """Imports a package of the extra ``zh``.

    Args:
        name: Name of the module.
        needed_by: What needs it, for the message.

    Returns:
        The module.

    Raises:
        ConfigError: If it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise ConfigError(
            f'{needed_by} needs {name}, which is not installed: run `pip install "tfapp[zh]"`.'
        ) from error


def jieba_words(text: str) -> list[str]:
    """Cuts a run of Chinese characters into words with jieba; together they are the run.

    Raises:
        ConfigError: If jieba is not installed.
    """
    words: list[str] = _jieba().lcut(text)
    return words


def is_jieba_word(word: str) -> bool:
    """Tells whether jieba's dictionary has a word.

    Raises:
        ConfigError: If jieba is not installed.
    """
    return len(_jieba().lcut(word, HMM=False)) == 1


@cache
def _jieba() -> Any:
    jieba = zh_package("jieba", "cutting Chinese texts into words")
    jieba.setLogLevel(logging.WARNING)
    tokenizer = jieba.Tokenizer()
    # Its own place for its cache is a file with a known name in a folder where everybody may write.
    folder = cache_dir() / "jieba"
    with contextlib.suppress(OSError):  # a cache that cannot be written costs half a second, no more
        folder.mkdir(parents=True, exist_ok=True)
        tokenizer.tmp_dir = str(folder)
    return tokenizer
