"""The packaged data sets and their readers."""

from collections import Counter

import pytest

from tfapp.assets import is_cached
from tfapp.data.datasets import DATASETS
from tfapp.data.datasets.bbc_news import read_bbc_news
from tfapp.errors import AssetError


def test_the_reader_falls_back_to_latin_1_and_keeps_a_fixed_order(tmp_path):
    for topic, name, content in [
        ("tech", "002.txt", "Caf\xe9 opens\n".encode("latin-1")),
        ("tech", "001.txt", "Caf\xe9 opens\n".encode()),
        ("arts", "009.txt", b"A film\n\nis shown.\n"),
    ]:
        (tmp_path / topic).mkdir(exist_ok=True)
        (tmp_path / topic / name).write_bytes(content)
    (tmp_path / "asset.json").write_text("{}")
    texts, labels = read_bbc_news(tmp_path)
    assert texts == ["A film\n\nis shown.", "Caf\xe9 opens", "Caf\xe9 opens"]
    assert labels == ["arts", "tech", "tech"]


def test_bbc_news_has_its_published_size():
    bbc_news = DATASETS["bbc-news"]
    try:
        texts, labels = bbc_news.read()
    except AssetError as error:
        if is_cached(bbc_news.asset):
            raise
        pytest.skip(f"the packaged data set cannot be fetched: {error}")
    assert Counter(labels) == {
        "business": 510,
        "entertainment": 386,
        "politics": 417,
        "sports": 511,
        "tech": 401,
    }
    assert all(texts)
    assert not any("\ufffd" in text for text in texts)


def test_each_data_set_states_its_terms():
    for name, dataset in DATASETS.items():
        assert dataset.name == name
        assert dataset.licence
