"""What an attack changed in a text, marked for people."""

from __future__ import annotations

import difflib
import re

from tfapp.evaluation.page_frame import Markup, element, join, text

# Words of letters and digits, runs of white space, and any other sign by itself; Chinese has no spaces, so
# each of its characters stands by itself.
_PIECES = re.compile(r"[^\W\u2e80-\u9fff\uf900-\ufaff]+|\s+|.", re.DOTALL)


def changed_words(original: str, adversarial: str) -> list[tuple[str, str]]:
    """Compares two texts piece by piece.

    Args:
        original: The text before.
        adversarial: The text after.

    Returns:
        Pairs of what stood there and what stands there now; the same twice where nothing changed, and an
        empty string where something was put in or left out. All firsts together are the original, all
        seconds the adversarial text.
    """
    before, after = _PIECES.findall(original), _PIECES.findall(adversarial)
    matcher = difflib.SequenceMatcher(a=before, b=after, autojunk=False)
    return [
        ("".join(before[start:end]), "".join(after[first:last]))
        for _, start, end, first, last in matcher.get_opcodes()
    ]


def marked_html(original: str, adversarial: str) -> tuple[Markup, Markup]:
    """Writes both texts as HTML with the changed words marked; everything in them is escaped.

    Args:
        original: The text before.
        adversarial: The text after.

    Returns:
        Both as HTML, with ``<del>`` around what went and ``<ins>`` around what came.
    """
    pairs = changed_words(original, adversarial)
    return (
        join(_marked(one, "del", changed=one != other) for one, other in pairs),
        join(_marked(other, "ins", changed=one != other) for one, other in pairs),
    )


def _marked(words: str, tag: str, *, changed: bool) -> Markup:
    return element(tag, words) if changed and words else text(words)
