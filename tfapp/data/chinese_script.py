"""Which traditional Chinese characters are written how in simplified script."""

from __future__ import annotations

from functools import cache

from tfapp.data.edits._chinese import zh_package

# The blocks of Chinese characters that OpenCC's tables draw from.
_BLOCKS = ((0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0x20000, 0x323AF))


@cache
def simplified_characters() -> dict[str, str]:
    """Maps traditional characters to simplified ones, each to one, as OpenCC's table of characters has it.

    What a character becomes in a word of its own, as OpenCC's table of phrases tells, is not looked at: a
    tokenizer that reads character by character could not do the same.

    Returns:
        About 5,000 characters and what each is in simplified script.

    Raises:
        ConfigError: If OpenCC is not installed.
    """
    converter = zh_package("opencc", 'script = "simplified"').OpenCC("t2s")
    characters = [chr(point) for first, last in _BLOCKS for point in range(first, last + 1)]
    # A line each: OpenCC converts phrases, and no phrase goes over a line's end.
    found = converter.convert("\n".join(characters)).split("\n")
    pairs = zip(characters, found, strict=True)
    return {before: after for before, after in pairs if after != before and len(after) == 1}
