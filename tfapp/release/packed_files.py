"""The labels and the vocabulary inside .tflite files, compared with those beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from tfapp.exporters import LABELS, TFLITE_VARIANTS, unpack
from tfapp.release.layout import artifact_path


def check_packed(directory: Path, variants: Sequence[str], files: Mapping[str, bytes]) -> list[str]:
    """Looks into every .tflite file for what it says of its classes and its words.

    Args:
        directory: A release's folder.
        variants: Its variants; others than TFLite files are passed over, as are those that are not there.
        files: What the files must hold, by name: `LABELS`, and the vocabulary where there is one. ``text``
            has it in its graph.

    Returns:
        What is wrong, a sentence each.
    """
    reasons = []
    for variant in (name for name in variants if name in TFLITE_VARIANTS):
        path = directory / artifact_path(variant)
        if not path.is_file():
            continue
        try:
            packed = unpack(path.read_bytes())
        except ValueError as error:
            reasons.append(f"{variant}: its labels cannot be read from the file: {error}. Export it again")
            continue
        for name, content in files.items():
            if variant == "text" and name != LABELS:
                continue
            inside = packed.labels_name if name == LABELS else packed.vocabulary_name
            if inside is None:
                reasons.append(f"{variant}: its metadata name no {name}. Export it again")
            elif packed.files.get(inside) != content:
                reasons.append(f"{variant}: {inside} inside the file is another than edge/{name}")
    return reasons
