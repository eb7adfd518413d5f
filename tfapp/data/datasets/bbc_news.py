"""BBC News: 2,225 articles of 2004 and 2005 in five topics.

The texts are copyright of the BBC and were published for research; they are read from the package that
carries them and are not redistributed.

Reference: D. Greene and P. Cunningham, "Practical Solutions to the Problem of Diagonal Dominance in Kernel
Document Clustering", ICML 2006.
"""

from __future__ import annotations

from pathlib import Path

from tfapp.assets import ASSETS
from tfapp.data.datasets._dataset import PackagedDataset


def read_bbc_news(folder: Path) -> tuple[list[str], list[str]]:
    """Reads the articles of a folder that has one sub-folder of text files for each topic.

    The articles are UTF-8 but for one, which is read as Latin-1. Nothing is removed: about a hundred
    articles stand there twice.

    Args:
        folder: The unpacked ``bbc-news`` asset.

    Returns:
        The texts and their topics, ordered by topic and file name.
    """
    texts, labels = [], []
    for path in sorted(folder.glob("*/*.txt")):
        content = path.read_bytes()
        try:
            text = content.decode("utf-8")
        except UnicodeDecodeError:
            text = content.decode("latin-1")
        texts.append(text.strip())
        labels.append(path.parent.name)
    return texts, labels


bbc_news = PackagedDataset(
    name="bbc-news",
    asset=ASSETS["bbc-news"],
    reader=read_bbc_news,
)
