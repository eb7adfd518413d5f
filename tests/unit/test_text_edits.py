"""Edits of words, and cutting texts into words."""

from __future__ import annotations

import importlib
import pkgutil
import sys
import unicodedata
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfapp.data import edits
from tfapp.data.augment import TextAugmentation
from tfapp.data.edits import TEXT_EDITS, random_edits, random_edits_batch, segment, try_edits
from tfapp.data.edits._chinese import common_characters
from tfapp.data.edits.homoglyph import HOMOGLYPHS
from tfapp.data.edits.keyboard import neighbours
from tfapp.data.edits.zh_lookalike import lookalikes
from tfapp.errors import ConfigError

_LETTERS = ["drop", "homoglyph", "insert", "keyboard", "swap"]
_OFFLINE = [*_LETTERS, "zh_lookalike", "zh_symbol", "zh_width"]


def _rng() -> np.random.Generator:
    return np.random.default_rng(7)


def test_every_edit_has_a_file_of_its_name() -> None:
    files = {module.name for module in pkgutil.iter_modules(edits.__path__)}
    assert {name for name in files if not name.startswith("_")} == set(TEXT_EDITS)


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet=st.characters(), max_size=40))
def test_words_and_separators_give_any_text_back(text: str) -> None:
    found = segment(text, chinese="characters")
    assert found.join() == text
    assert len(found.separators) == len(found.words) + 1
    assert all(found.words)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", []),
        ("  !? ", []),
        ("don't re-imagine 'it' 3D_x", ["don't", "re", "imagine", "it", "3D", "x"]),
        ("cafe\u0301 नमस्ते مَرحبا שלום", ["cafe\u0301", "नमस्ते", "مَرحبا", "שלום"]),
        ("ok \ud800 ok\U0001f44d\U0001f3fd", ["ok", "ok"]),
        ("看3D电影ok", ["看", "3D", "电", "影", "ok"]),
    ],
)
def test_words_of_many_scripts(text: str, words: list[str]) -> None:
    assert list(segment(text, chinese="characters").words) == words


@pytest.mark.parametrize("name", _OFFLINE)
@settings(max_examples=60, deadline=None)
@given(word=st.text(min_size=1, max_size=12))
def test_candidates_differ_from_the_word_and_from_each_other(name: str, word: str) -> None:
    candidates = TEXT_EDITS[name](word, _rng())
    assert word not in candidates
    assert len(set(candidates)) == len(candidates)


def test_letters_move_vanish_and_appear_only_inside_a_word() -> None:
    assert TEXT_EDITS["swap"]("abcde", _rng()) == ["acbde", "abdce"]
    assert TEXT_EDITS["drop"]("abcde", _rng()) == ["acde", "abde", "abce"]
    for candidate in TEXT_EDITS["insert"]("abcde", _rng()):
        assert len(candidate) == 6
        assert not Counter("abcde") - Counter(candidate)
        assert (candidate[0], candidate[-1]) == ("a", "e")
    for name in ("swap", "drop", "insert", "keyboard"):
        assert TEXT_EDITS[name]("the", _rng()) == []
        assert TEXT_EDITS[name]("电影院里", _rng()) == []


def test_wrong_keys_lie_beside_the_right_ones() -> None:
    assert sorted(neighbours()["g"]) == sorted("fhtyvb")
    assert sorted(neighbours()["q"]) == sorted("wa")
    assert sorted(neighbours()["z"]) == sorted("asx")
    for key, others in neighbours().items():
        assert all(key in neighbours()[other] for other in others), "touching is mutual"
    for candidate in TEXT_EDITS["keyboard"]("WonDer", _rng()):
        (at,) = (at for at in range(6) if candidate[at] != "WonDer"[at])
        assert candidate[at].lower() in neighbours()["WonDer"[at].lower()]
        assert candidate[at].isupper() == "WonDer"[at].isupper()


def test_homoglyphs_belong_to_another_script() -> None:
    for letter, double in HOMOGLYPHS.items():
        assert unicodedata.name(letter).startswith("LATIN")
        assert not unicodedata.name(double).startswith("LATIN")
        assert letter.isupper() == double.isupper()


def test_chinese_edits_that_need_no_package() -> None:
    assert len(common_characters()) == 3755
    assert all(double != character for character, doubles in lookalikes().items() for double in doubles)
    assert TEXT_EDITS["zh_lookalike"]("未来", _rng()) == ["末来"]
    assert TEXT_EDITS["zh_width"]("abc3", _rng()) == ["\uff41\uff42\uff43\uff13"]
    assert TEXT_EDITS["zh_width"]("\uff41\uff42", _rng()) == ["ab"]
    for candidate in TEXT_EDITS["zh_symbol"]("电影院", _rng()):
        assert [c for c in candidate if c in "电影院"] == list("电影院")
        assert len(candidate) == 4


def test_chinese_edits_with_their_packages() -> None:
    pypinyin = pytest.importorskip("pypinyin")
    pytest.importorskip("opencc")
    pytest.importorskip("jieba")
    assert segment("这部电影非常好看").words == ("这部", "电影", "非常", "好看")
    assert TEXT_EDITS["zh_script"]("电影", _rng()) == ["電影"]
    assert TEXT_EDITS["zh_script"]("電影", _rng()) == ["电影"]
    assert TEXT_EDITS["zh_script"]("大人", _rng()) == []
    candidates = TEXT_EDITS["zh_homophone"]("银行", _rng())
    assert len(candidates) > 3
    for candidate in candidates:
        (at,) = (at for at in range(2) if candidate[at] != "银行"[at])
        assert pypinyin.lazy_pinyin(candidate[at])[0] == pypinyin.lazy_pinyin("银行")[at]
    # Reversed, a bee is honey and a story an accident: other words, which must not be offered.
    assert TEXT_EDITS["zh_swap"]("蜜蜂", _rng()) == []
    assert TEXT_EDITS["zh_swap"]("电影", _rng()) == ["影电"]
    assert TEXT_EDITS["zh_swap"]("故事", _rng()) == []


@pytest.mark.parametrize(("name", "package"), [("zh_homophone", "pypinyin"), ("zh_script", "opencc")])
def test_a_missing_package_is_named_with_its_extra(
    name: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    importlib.import_module("tfapp.data.edits.zh_script")._converter.cache_clear()
    with pytest.raises(ConfigError, match=rf'{package}.*pip install "tfapp\[zh\]"'):
        TEXT_EDITS[name]("电影", _rng())


@pytest.mark.parametrize(
    ("name", "package"), [("zh_homophone", "pypinyin"), ("zh_script", "opencc"), ("zh_swap", "jieba")]
)
def test_trying_edits_finds_a_missing_package_though_no_text_is_chinese(
    name: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    importlib.import_module("tfapp.data.edits.zh_script")._converter.cache_clear()
    importlib.import_module("tfapp.data.edits._chinese")._jieba.cache_clear()
    for attempt in (try_edits, lambda edits: TextAugmentation(edits=edits)):
        with pytest.raises(ConfigError, match=rf'{package}.*pip install "tfapp\[zh\]"'):
            attempt(["swap", name])


def test_edits_of_ones_own_are_tried_on_words_of_both_writings() -> None:
    words: list[str] = []

    def noting(word: str, rng: np.random.Generator) -> list[str]:
        words.append(word)
        return []

    try_edits([noting, "swap"])
    assert words == ["电影院", "wonderful"]


def test_random_edits_change_the_share_of_words_that_was_asked_for() -> None:
    text = " ".join(["wonderful"] * 50) + "!"
    for share in (0.0, 0.1, 0.25, 1.0):
        changed = []
        for seed in range(40):
            found = random_edits(text, np.random.default_rng(seed), share, _LETTERS)
            words = segment(found).words
            assert segment(found).separators == segment(text).separators
            changed.append(sum(word != "wonderful" for word in words))
        # Never a whole word more or less; the mean of 40 roundings lies within 0.4 of the share.
        assert all(abs(count - 50 * share) < 1 for count in changed)
        assert np.mean(changed) == pytest.approx(50 * share, abs=0.4)


def test_a_texts_edits_do_not_depend_on_its_batch() -> None:
    texts = ["a stirring and funny film", "", "🙂", "nothing works here today", "a stirring and funny film"]
    edited = random_edits_batch(texts, seed=3, share=0.5, edits=_LETTERS)
    assert edited == random_edits_batch(texts, seed=3, share=0.5, edits=_LETTERS)
    assert edited[::-1] == random_edits_batch(texts[::-1], seed=3, share=0.5, edits=_LETTERS)
    assert edited[3:4] == random_edits_batch(texts[3:4], seed=3, share=0.5, edits=_LETTERS)
    assert edited != random_edits_batch(texts, seed=4, share=0.5, edits=_LETTERS)
    assert edited[1:3] == ["", "🙂"]


def test_wrong_settings_are_refused_with_the_choices() -> None:
    with pytest.raises(ConfigError, match="did you mean 'swap'"):
        random_edits("text", _rng(), 0.1, ["swaps"])
    with pytest.raises(ConfigError, match=r"share = 1\.5"):
        random_edits("text", _rng(), 1.5, ["swap"])
    with pytest.raises(ConfigError, match="a list of one or more"):
        random_edits("text", _rng(), 0.1, "swap")
    with pytest.raises(ConfigError, match=r"edit 3: give one of drop.*or a function of a word"):
        random_edits("text", _rng(), 0.1, [3])  # type: ignore[list-item]
