"""Frequent words of languages, as the package wordfreq lists them."""

from __future__ import annotations

import gzip
import zlib
from itertools import chain, islice
from pathlib import Path

from tfapp.errors import DataError


def read_words(folder: Path, language: str, *, count: int) -> list[str]:
    """Reads the most frequent words of a language.

    Args:
        folder: The unpacked lists: ``large_en.msgpack.gz``, ``small_da.msgpack.gz`` and so on.
        language: The language's code.
        count: How many words are wanted, 1 or more.

    Returns:
        The words in lower case, the most frequent first; fewer where the list is shorter.

    Raises:
        DataError: If there is no list of the language, or it is damaged.
    """
    import msgpack  # needed by who cuts a vocabulary to languages, and by nobody else

    paths = [folder / f"{size}_{language}.msgpack.gz" for size in ("large", "small")]
    found = next((path for path in paths if path.is_file()), None)
    if found is None:
        raise DataError(f"{folder} has no list of words of the language {language!r}.")
    try:
        with gzip.open(found) as file:
            # Behind the header stands one list of words for each hundredth of a factor of ten in frequency.
            header, *steps = msgpack.load(file)
        if header != {"format": "cB", "version": 1}:
            raise ValueError(f"its header is {header}")
        return [str(word) for word in islice(chain.from_iterable(steps), count)]
    except (OSError, EOFError, zlib.error, ValueError, TypeError, msgpack.UnpackException) as error:
        raise DataError(f"{found} is damaged ({type(error).__name__}: {error}); fetch it again.") from error
