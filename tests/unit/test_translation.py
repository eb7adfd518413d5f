"""README.zh.md says what README.md says: the same sections, commands, tables and links."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


class Document:
    """The parts of a Markdown page that a translation keeps."""

    def __init__(self, content: str) -> None:
        self.headings: list[int] = []
        self.blocks: list[list[str]] = []
        self.tables: list[tuple[int, int]] = []
        self.links = [link for link in re.findall(r"\]\(([^)]+)\)", content) if not link.startswith("README")]
        self.sections: list[str] = []
        fenced = indented = False
        table: list[int] = []
        before = ""
        for line in [*content.splitlines(), ""]:
            if line.startswith("```"):
                fenced = not fenced
                if fenced:
                    self.blocks.append([line])
            elif fenced:
                self.blocks[-1].append(_without_words(line))
            elif line.startswith("    ") and (indented or not before.strip()):
                if not indented:
                    self.blocks.append([])
                self.blocks[-1].append(_without_words(line))
                indented = True
            else:
                indented = False
                if heading := re.match(r"(#+) (.*)", line):
                    self.headings.append(len(heading[1]))
                    self.sections.append(heading[2])
            if line.startswith("|") and not fenced:
                table.append(len(re.findall(r"(?<!\\)\|", line)) - 1)
            elif table:
                assert len(set(table)) == 1, f"a table above {line!r} has rows of different lengths"
                self.tables.append((len(table), table[0]))
                table = []
            before = line

    @classmethod
    def read(cls, name: str) -> Document:
        return cls((ROOT / name).read_text("utf-8"))


def _without_words(line: str) -> str:
    """Leaves of a line of code what is no comment, and of a plan of folders the names."""
    names = re.match(r"(?:saved_models/|  )\S*(?:  ?\S+)*?(?= {3,})", line)
    if names and not line.startswith("    ") and "#" not in line:
        return names[0]
    return re.sub(r"(^|\s+)#\s.*$", "", line).rstrip()


@pytest.fixture(scope="module")
def pages():
    return Document.read("README.md"), Document.read("README.zh.md")


def test_the_sections_are_the_same(pages):
    english, chinese = pages
    pairs = list(zip(english.headings, chinese.headings, strict=False))
    wrong = next((at for at, (one, two) in enumerate(pairs) if one != two), len(pairs))
    assert english.headings == chinese.headings, (
        f"README.zh.md is out of step at the section {(*english.sections, 'the end')[wrong]!r} of README.md"
    )


def test_code_and_commands_are_the_same_but_for_comments(pages):
    english, chinese = pages
    for number, (block, translated) in enumerate(zip(english.blocks, chinese.blocks, strict=False), 1):
        assert block == translated, f"the {number}th block of code of README.zh.md is out of step"
    assert len(english.blocks) == len(chinese.blocks)


def test_the_tables_have_the_same_rows_and_columns(pages):
    english, chinese = pages
    assert chinese.tables == english.tables


def test_the_links_are_the_same(pages):
    english, chinese = pages
    assert chinese.links == english.links


def test_every_name_in_code_is_kept():
    def names(file):
        text = re.sub(r"```.*?```", "", (ROOT / file).read_text("utf-8"), flags=re.DOTALL)
        return set(re.findall(r"`([^`\n]+)`", re.sub(r"^    .*$", "", text, flags=re.MULTILINE)))

    assert sorted(names("README.md") - names("README.zh.md")) == []


def test_the_text_is_chinese():
    text = re.sub(r"```.*?```|`[^`]*`", "", (ROOT / "README.zh.md").read_text("utf-8"), flags=re.DOTALL)
    prose = [part for part in re.split(r"\n\s*\n", text) if not part.startswith(("    ", "#"))]
    for part in prose:
        assert re.search(r"[\u4e00-\u9fff]", part) or not part.strip("|- \n"), part
