"""Tables as CSV that a spreadsheet shows as it was written, and never runs."""

from __future__ import annotations

import csv
import io
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Any

# A cell that begins with one of these is a formula to some program, also after blanks and in full width.
_FORMULA = ("=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20")
_BLANK_START = ("\t", "\r", "\n")


def csv_text(header: Sequence[str], rows: Iterable[Sequence[Any]], *, bom: bool = False) -> str:
    """Writes rows as CSV; a text that a spreadsheet would take for a formula gets an apostrophe before it.

    Numbers are numbers: a negative one stays as it is.

    Args:
        header: Names of the columns.
        rows: The cells of each row: texts, numbers or None.
        bom: Whether a byte order mark comes first, by which Excel takes the file for UTF-8; without it Excel
            shows Chinese and accented letters as others.

    Returns:
        A line for each row, after that of the names.
    """
    return ("\ufeff" if bom else "") + "".join(f"{_line(cells)}\n" for cells in (header, *rows))


def _line(cells: Iterable[Any]) -> str:
    # The writer puts only the signs of its own line ends between quotes, and readers know both.
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\r\n").writerow([_safe(cell) for cell in cells])
    return buffer.getvalue().removesuffix("\r\n")


def _safe(cell: Any) -> Any:
    if isinstance(cell, str) and (cell.startswith(_BLANK_START) or _first_seen(cell) in _FORMULA):
        return f"'{cell}"
    return cell


def _first_seen(cell: str) -> str:
    """The first character that takes room: programs pass over blanks, byte order marks and the like."""
    hidden = ("Cc", "Cf")
    seen = (letter for letter in cell if not letter.isspace() and unicodedata.category(letter) not in hidden)
    return next(seen, "")
