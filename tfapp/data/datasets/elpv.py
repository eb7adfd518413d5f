"""ELPV: 2,624 electroluminescence photographs of solar cells, 300 x 300 grey, from 44 modules.

Experts gave each cell a probability of being defective: 0, 1/3, 2/3 or 1. The task here is to tell the cells
that are surely intact (1,508) from those that are surely defective (715); those between are left out, and
monocrystalline and polycrystalline cells are kept alike.

Reference: S. Deitsch et al., "Automatic classification of defective photovoltaic module cells in
electroluminescence images", Solar Energy 185, 2019, arXiv:1807.02894; C. Buerhop-Lutz et al., "A Benchmark
for Visual Identification of Defective Solar Cells in Electroluminescence Imagery", EU PVSEC 2018.
"""

from __future__ import annotations

from pathlib import Path

from tfapp.assets import ASSETS
from tfapp.data.datasets._dataset import PackagedDataset

_CLASSES = {0.0: "intact", 1.0: "defective"}


def read_elpv(folder: Path) -> tuple[list[str], list[str]]:
    """Reads the list of photographs: path, probability of a defect, kind of cell.

    Args:
        folder: The unpacked ``elpv`` asset.

    Returns:
        The photographs of probability 0 and 1, and ``"intact"`` or ``"defective"``, in the order of the list.
    """
    paths, labels = [], []
    for line in (folder / "labels.csv").read_text("utf-8").splitlines():
        if line.strip():
            path, probability, _ = line.split()
            if float(probability) in _CLASSES:
                paths.append(str(folder / path))
                labels.append(_CLASSES[float(probability)])
    return paths, labels


elpv = PackagedDataset(
    name="elpv",
    asset=ASSETS["elpv"],
    reader=read_elpv,
    kind="image",
)
