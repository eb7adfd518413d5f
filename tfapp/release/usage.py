"""How a release is checked, loaded and served, in commands that can be copied."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tfapp.release.serving_files import image_of

_SERVED = {
    "text": '{"instances": ["a text"]}',
    "image_bytes": '{"instances": [{"image_bytes": {"b64": "..."}}]}',
}
_GIVEN = {"text": '"a text"', "image_bytes": '"photo.jpg"'}


@dataclass(frozen=True)
class Use:
    """One thing to do with a release.

    Attributes:
        title: What it is.
        words: What to know about it.
        code: Commands.
    """

    title: str
    words: str
    code: str


def usage(manifest: Mapping[str, Any], feature: str) -> list[Use]:
    """Words how a release is used.

    Args:
        manifest: Its manifest.
        feature: What it classifies: ``"text"`` or ``"image_bytes"``.

    Returns:
        What can be done with the artifacts that it has; nothing with those of a refused release.
    """
    if manifest["release"]["verdict"] == "refused":
        return []
    name = manifest["name"]
    folder = f"saved_models/{name}/{manifest['version']}"
    variants = {row["variant"] for row in manifest["artifacts"]}
    uses = [
        Use(
            "Verify",
            "The sha256 of manifest.json stands for every file below. It was printed at the release; keep it "
            "where nobody who can change the folder can change it, for a release that was replaced as a "
            "whole agrees with itself.",
            f"tfapp verify {folder} --manifest-sha256 <printed at the release>",
        )
    ]
    if "saved_model" in variants:
        image = image_of(manifest["libraries"].get("tensorflow", ""))
        uses += [
            Use(
                "Load in Python",
                "Every file is compared with its checksum first. A SavedModel is a program: load and serve "
                "only releases that you trust.",
                "from tfapp import load_release\n\n"
                f'model = load_release("{folder}", manifest_sha256="<printed at the release>")\n'
                f"print(model.predict([{_GIVEN[feature]}]))",
            ),
            Use(
                "Serve",
                "With tfapp's own server, or with TensorFlow Serving; both answer the same requests.",
                f"tfapp serve {folder} --manifest-sha256 <printed at the release>\n\n"
                "docker run --rm -p 8501:8501 \\\n"
                f'  -v "$PWD/saved_models/{name}:/models/{name}:ro" \\\n'
                f"  -e MODEL_NAME={name} {image}\n\n"
                f"curl -d '{_SERVED[feature]}' http://localhost:8501/v1/models/{name}:predict",
            ),
        ]
    files = [row["path"] for row in manifest["artifacts"] if row["path"].endswith(".tflite")]
    if files:
        uses.append(
            Use(
                "On a device",
                "Run a TensorFlow Lite file with LiteRT or MediaPipe, and compare its answers with those of "
                "golden.json.",
                "\n".join([*files, "edge/labels.txt", "edge/golden.json"]),
            )
        )
    return uses
