"""Letters are drawn with a font that has them, or not at all: never as boxes."""

from __future__ import annotations

import logging

import pytest
from matplotlib import font_manager

from tfapp import fonts

CHINESE = ("Noto Sans CJK SC", "Noto Sans SC", "WenQuanYi Zen Hei", "WenQuanYi Micro Hei")


@pytest.fixture
def fresh(monkeypatch):
    """What was found before is forgotten, and what a test finds, too."""
    cached = (fonts._chosen, fonts._charmap, fonts._find_new_fonts, fonts._warn)
    for function in cached:
        function.cache_clear()
    yield
    for function in cached:
        function.cache_clear()


@pytest.fixture
def no_other_font(fresh, monkeypatch):
    kept = [font for font in font_manager.fontManager.ttflist if font.name.startswith("DejaVu")]
    monkeypatch.setattr(font_manager.fontManager, "ttflist", kept)
    monkeypatch.setattr(font_manager, "findSystemFonts", list)


def test_western_letters_need_no_other_font(fresh):
    assert fonts.families_for(["naïve, Ωμέγα", ""]) == (["DejaVu Sans"], frozenset())


def test_letters_that_no_font_has_are_told_once(no_other_font, caplog):
    with caplog.at_level(logging.WARNING, logger="tfapp"):
        for _ in range(2):
            families, missing = fonts.families_for(["a财经"])
    assert families == ["DejaVu Sans"]
    assert missing == frozenset("财经")
    assert caplog.text.count("fonts-noto-cjk") == 1


def test_a_font_that_was_installed_since_is_found(no_other_font, monkeypatch):
    newest = font_manager.findfont("DejaVu Sans Mono")
    monkeypatch.setattr(font_manager, "findSystemFonts", lambda: [newest])
    asked = []
    monkeypatch.setattr(font_manager.fontManager, "addfont", asked.append)
    listed = [font for font in font_manager.fontManager.ttflist if font.fname != newest]
    monkeypatch.setattr(font_manager.fontManager, "ttflist", listed)
    fonts.families_for(["财"])
    assert asked == [newest]


def test_chinese_letters_get_a_chinese_font_where_there_is_one(fresh):
    installed = {font.name for font in font_manager.fontManager.ttflist}
    if not installed & set(CHINESE):
        pytest.skip("this machine has none of the fonts: apt-get install fonts-noto-cjk")
    families, missing = fonts.families_for(["科技 tech"])
    assert not missing
    assert families[0] == "DejaVu Sans"
    assert families[1] in CHINESE
