"""Runs MediaPipe Tasks on the files of a release and compares its answers with golden.json.

    pip install mediapipe
    python check_release.py saved_models/<name>/<version>

It does what the samples for Android and iOS do, on this machine, and needs neither TensorFlow nor tfapp. For
each TFLite file it says how many golden vectors could be compared, and how far the answers are apart at most;
it ends with status 1 when one is beyond the tolerance that golden.json states.

A text is prepared first, as MediaPipe only lower-cases ASCII: see `prepared`. A text that the release splits
into windows is left out, as MediaPipe reads the first one only. An image counts when MediaPipe's own decoding
and resizing give the very pixels of the release; of the others the largest difference is shown.
"""

from __future__ import annotations

import base64
import hashlib
import json
import sys
import tempfile
import unicodedata
from pathlib import Path
from typing import Any

import mediapipe
import numpy as np
from mediapipe.tasks.python.text import TextClassifier
from mediapipe.tasks.python.vision import ImageClassifier


def prepared(text: str) -> str:
    """Folds case, resolves compatibility forms, and takes off accents and invisible characters."""
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    kept = []
    for letter in unicodedata.normalize("NFD", folded):
        category = unicodedata.category(letter)
        if category in ("Cc", "Zs", "Zl", "Zp"):
            kept.append(" ")
        elif category not in ("Mn", "Cf"):
            kept.append(letter)
    return "".join(kept)


def gap(result: Any, classes: list[str], expected: list[float]) -> float:
    """The largest difference of a probability."""
    scores = {category.category_name: category.score for category in result.classifications[0].categories}
    return max(abs(scores[name] - value) for name, value in zip(classes, expected, strict=True))


def decoded(row: dict[str, Any]) -> tuple[mediapipe.Image, bool]:
    """An image as MediaPipe decodes it, and whether its pixels are those of the release."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(base64.b64decode(row["image_bytes"]))
        file.flush()
        image = mediapipe.Image.create_from_file(file.name)
    read = image.numpy_view()  # gone with the image; grey has one channel, transparency is the fourth
    pixels = np.ascontiguousarray(np.broadcast_to(read[..., :3], (*read.shape[:2], 3)))
    same = hashlib.sha256(pixels.data).hexdigest() == row["pixels_sha256"]
    return mediapipe.Image(image_format=mediapipe.ImageFormat.SRGB, data=pixels), same


def check(path: Path, golden: dict[str, Any]) -> dict[str, Any]:
    """Compares one file's answers with the golden vectors."""
    variant = path.stem.removeprefix("model-")
    recorded = golden["answers"].get(variant, [row["probabilities"] for row in golden["inputs"]])
    compared, others, classes = [], [], golden["classes"]
    if golden["feature"] == "text":
        with TextClassifier.create_from_model_path(str(path)) as texts:
            for row, expected in zip(golden["inputs"], recorded, strict=True):
                if len(row["token_ids"]) == 1:
                    compared.append(gap(texts.classify(prepared(row["text"])), classes, expected))
    else:
        with ImageClassifier.create_from_model_path(str(path)) as images:
            for row, expected in zip(golden["inputs"], recorded, strict=True):
                image, same = decoded(row)
                (compared if same else others).append(gap(images.classify(image), classes, expected))
    return {
        "file": path.name,
        "compared": len(compared),
        "largest": max(compared, default=0.0),
        "tolerance": golden["tolerance"][variant],
        "others": len(others),
        "largest_of_others": max(others, default=0.0),
    }


def main(release: Path) -> int:
    golden = json.loads((release / "edge" / "golden.json").read_text(encoding="utf-8"))
    if not golden["preprocessor"].get("lowercase", True):
        print("MediaPipe lower-cases every text, and this model tells cases apart: tokenize in the app.")
        return 1
    wrong = 0
    for path in sorted((release / "edge").glob("model-*.tflite")):
        if path.stem == "model-text":
            continue  # needs the operators of TF.Text, which MediaPipe does not have
        found = check(path, golden)
        wrong += found["largest"] > found["tolerance"] or not found["compared"]
        print(json.dumps(found))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
