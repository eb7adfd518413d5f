"""Data sets that Python packages carry, by name."""

from tfapp.data.datasets._dataset import PackagedDataset
from tfapp.data.datasets.bbc_news import bbc_news
from tfapp.data.datasets.elpv import elpv

DATASETS: dict[str, PackagedDataset] = {bbc_news.name: bbc_news, elpv.name: elpv}

__all__ = ["DATASETS", "PackagedDataset", "bbc_news", "elpv"]
