"""The frame of a report: one HTML page that needs no other file, runs nothing and believes no data.

Text becomes HTML through `element` alone, which escapes whatever is not `Markup` already.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence

from tfapp import __version__

# What a browser would not show, and a terminal might obey, as the signs that stand for it.
_CONTROLS = {code: 0x2400 + code for code in range(32) if chr(code) not in "\n\t"} | {127: 0x2421}
_LANGUAGES = {
    "ja": (("\u3041", "\u30ff"),),
    "ko": (("\uac00", "\ud7a3"),),
    "zh": (("\u3400", "\u4dbf"), ("\u4e00", "\u9fff"), ("\uf900", "\ufaff"), ("\U00020000", "\U0003ffff")),
}
_EMPTY = ("br", "img", "meta")
_STYLE = """
:root { color-scheme: light dark; --ink: #1c2430; --soft: #4c5a6b; --paper: #fff; --line: #dfe4ea;
        --card: #f6f8fa; --accent: #1f5d94; --good: #2f7d4a; --good-back: #edf7f1; --bad: #b5302a;
        --bad-back: #fdf1f0; --went: #fbdcd9; --came: #d7f0dd; --bar: 31, 93, 148; --wrong: 190, 60, 40; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e4e8ee; --soft: #a3afbd; --paper: #14181e; --line: #2d3540; --card: #1c222a;
          --accent: #7db4e8; --good: #6cc28b; --good-back: #17281e; --bad: #f08a80; --bad-back: #2e1a19;
          --went: #5a2522; --came: #1f4a2c; --bar: 96, 160, 220; --wrong: 225, 100, 80; }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body { font: 16px/1.5 system-ui, "PingFang SC", "Microsoft YaHei", "Noto Sans CJK SC", sans-serif;
       color: var(--ink); background: var(--paper); max-width: 62rem; margin: 2rem auto; padding: 0 1.2rem; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0 0 .2rem; overflow-wrap: anywhere; }
h2 { font-size: 1.2rem; margin: 2.4rem 0 .6rem; overflow-wrap: anywhere; }
h3 { font-size: 1rem; margin: 1.4rem 0 .4rem; }
p { overflow-wrap: anywhere; }
ul { padding-left: 1.2rem; overflow-wrap: anywhere; }
.settings { color: var(--soft); margin: .2rem 0; overflow-wrap: anywhere; }
.figures { display: flex; flex-wrap: wrap; gap: .8rem; margin: 1rem 0; }
.figure { border: 1px solid var(--line); border-radius: 8px; padding: .7rem 1.1rem; flex: 1 1 9.5rem;
          max-width: 22rem; color: var(--soft); font-size: .9rem; }
.figure b { display: block; font-size: 1.7rem; line-height: 1.3; color: var(--ink); }
.alarm, .calm { border-left: 5px solid var(--bad); background: var(--bad-back); padding: .6rem .9rem;
                margin: .6rem 0; overflow-wrap: anywhere; }
.calm { border-left-color: var(--good); background: var(--good-back); }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { text-align: right; white-space: nowrap; padding: .3rem 1.1rem .3rem 0;
         border-bottom: 1px solid var(--line); }
th { color: var(--soft); font-weight: 600; vertical-align: bottom; }
th:first-child, td:first-child, th.words, td.words { text-align: left; }
td:first-child { white-space: normal; overflow-wrap: break-word; max-width: 18rem; }
td.words { white-space: normal; min-width: 16rem; font-size: .9rem; color: var(--soft); }
code, pre { font: .85rem/1.5 ui-monospace, "DejaVu Sans Mono", "Noto Sans Mono CJK SC", monospace; }
code { overflow-wrap: anywhere; }
pre { background: var(--card); border: 1px solid var(--line); border-radius: 8px; padding: .7rem .9rem;
      overflow-x: auto; margin: .5rem 0; }
details { margin: .6rem 0; }
summary { cursor: pointer; color: var(--accent); }
img.curve { max-width: 100%; height: auto; background: #fff; border-radius: 8px; }
"""


class Markup(str):
    """HTML that may stand in a page as it is."""

    __slots__ = ()


def text(content: str) -> Markup:
    """Escapes a text, so that a browser shows it letter by letter.

    Args:
        content: Any text.

    Returns:
        HTML; signs that control a screen are shown as signs.
    """
    return Markup(html.escape(content.translate(_CONTROLS)))


def element(tag: str, *children: str, **attributes: str | None) -> Markup:
    """Writes an element.

    Args:
        tag: Its name.
        *children: What it holds; a text that is no `Markup` is escaped.
        **attributes: Its attributes, with ``_`` for ``-`` and ``class_`` for ``class``; None leaves one out.

    Returns:
        HTML.
    """
    named = {name.rstrip("_").replace("_", "-"): value for name, value in attributes.items()}
    marks = "".join(f' {name}="{text(value)}"' for name, value in named.items() if value is not None)
    if tag in _EMPTY:
        return Markup(f"<{tag}{marks}>")
    return Markup(f"<{tag}{marks}>{join(children)}</{tag}>")


def join(parts: Iterable[str], between: str = "") -> Markup:
    """Puts parts together, each escaped unless it is `Markup`.

    Args:
        parts: The parts.
        between: What stands between them; it is escaped, too.

    Returns:
        HTML.
    """
    safe = (part if isinstance(part, Markup) else text(part) for part in parts)
    return Markup(text(between).join(safe))


def name(content: str) -> Markup:
    """Writes a name that comes from data, such as that of a class.

    Args:
        content: The name.

    Returns:
        HTML in which the name cannot turn the direction of what stands beside it, and whose Chinese
        characters are drawn as Chinese ones.
    """
    return element("bdi", content, lang=language(content))


def language(content: str) -> str | None:
    """Tells the language of a text where its characters do: browsers choose the forms of characters by it.

    Args:
        content: Any text.

    Returns:
        ``"ja"`` for a text with kana, ``"ko"`` with Hangul, else ``"zh"`` with Han characters; None without.
    """
    for code, marks in _LANGUAGES.items():
        if any(low <= letter <= high for low, high in marks for letter in content):
            return code
    return None


def _language_of(part: str) -> str | None:
    return None if isinstance(part, Markup) else language(part)


def page(title: str, parts: Iterable[str], *, style: str = "") -> str:
    """Writes the page around its parts.

    Args:
        title: Its title.
        parts: What it shows, each `Markup`, or a text, which is escaped.
        style: Rules of this page, after those that all share.

    Returns:
        HTML. It says to the browser, too, that nothing is to be loaded or run.
    """
    made = element("p", f"Made by tfapp {__version__}.", class_="settings")
    # The rules are this package's own, and end with no tag of theirs.
    rules = Markup(f"<style>{_STYLE}{style}</style>")
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    head = [
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", http_equiv="Content-Security-Policy", content=policy),
        element("title", title),
        rules,
    ]
    top = element("head", join(head, "\n"))
    body = element("body", join([*parts, made], "\n"))
    return f"<!doctype html>\n{element('html', top, body, lang='en')}\n"


def paragraphs(sentences: Iterable[str]) -> list[Markup]:
    """Writes a paragraph for each of some texts, in the tone of what explains.

    Args:
        sentences: The texts.
    """
    return [element("p", sentence, class_="settings") for sentence in sentences]


def items(entries: Iterable[str]) -> Markup:
    """Writes a list.

    Args:
        entries: Its entries.
    """
    return element("ul", *(element("li", entry) for entry in entries))


def figure(label: str, value: str, note: str = "") -> Markup:
    """Writes a figure that the eye should meet first.

    Args:
        label: What it is.
        value: The figure.
        note: What it depends on.
    """
    return element("div", label, element("b", value), note, class_="figure")


def figures(shown: Iterable[str]) -> Markup:
    """Writes figures side by side.

    Args:
        shown: What `figure` returned.
    """
    return element("div", *shown, class_="figures")


def box(*children: str, good: bool) -> Markup:
    """Writes a box that cannot be overlooked.

    Args:
        *children: What it holds.
        good: Whether it is good news.
    """
    return element("div", *children, class_="calm" if good else "alarm")


def table(header: Sequence[str], rows: Iterable[Sequence[str]], *, words: int | None = None) -> Markup:
    """Writes a table that scrolls by itself where the screen is narrow.

    Args:
        header: Names of the columns.
        rows: The cells of each row.
        words: The column that holds sentences.
    """

    def line(cells: Sequence[str], tag: str) -> Markup:
        marks = ("words" if place == words else None for place in range(len(cells)))
        filled = zip(cells, marks, strict=True)
        return element(
            "tr", *(element(tag, cell, class_=mark, lang=_language_of(cell)) for cell, mark in filled)
        )

    head = element("thead", line(header, "th"))
    body = element("tbody", *(line(row, "td") for row in rows))
    return element("div", element("table", head, body), class_="scroll", tabindex="0")


def records(rows: Sequence[Mapping[str, str]], *, words: int | None = None) -> Markup:
    """Writes a table of rows that all have the same columns.

    Args:
        rows: Cells by the names of their columns.
        words: The column that holds sentences.
    """
    return table(list(rows[0]), [list(row.values()) for row in rows], words=words)
