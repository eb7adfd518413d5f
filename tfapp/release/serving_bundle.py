"""``saved_models/<name>/serving/``: what a stock TF Serving container needs to serve a release's versions.

``models.config`` is brought up to date at every release. The others are written once and are the user's.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

from google.protobuf import text_format

from tfapp.disk import locked, remove_unfinished, replace_file, writing
from tfapp.release.golden import Golden
from tfapp.release.layout import GOLDEN_FILE
from tfapp.release.manifest import read_manifest
from tfapp.release.serving_files import (
    BATCHING_FILE,
    FOLDER,
    IMAGE,
    MODELS_FILE,
    MONITORING_FILE,
    batching_config,
    compose_file,
    image_of,
    monitoring_config,
)
from tfapp.release.versions import versions_in
from tfapp.wire.configs import ModelServerConfig, read_config

_logger = logging.getLogger("tfapp")

COMPOSE_FILE = "docker-compose.yml"
CANARY, STABLE = "canary", "stable"
_AHEAD = 2

_HEADER = f"""\
# Which versions TF Serving loads, and their labels. Every release brings this file up to date: the newest
# version becomes {CANARY}; {STABLE} stays where it is until you move it, by changing its number here, which
# the server notices while it runs. Listed are the versions that have a label: give one to a version that is
# to stay loaded. What else you add stays, but for comments.
#
# The next {_AHEAD} versions are listed before they exist, so that they are loaded when they are released: a
# server takes no label for a version that it has not loaded. It warns that it does not find them, rightly.
"""


def write_serving_bundle(directory: str | Path) -> Path | None:
    """Writes the configuration of TF Serving beside the versions of a model, or brings it up to date.

    `export` does so at every release. Several processes may at the same time: the newest version on disk
    becomes the canary, whoever comes last.

    Args:
        directory: ``saved_models/<name>``.

    Returns:
        The folder ``serving``, or None when no version has a SavedModel.

    Raises:
        OutputError: When the folder cannot be written.
        ReleaseError: When ``models.config`` or the newest version cannot be read; the file is left as it is.
    """
    directory = Path(directory).expanduser().absolute()
    folder, name = directory / FOLDER, directory.name
    with writing(folder), locked(directory):
        versions = versions_in(directory)
        servable = [number for number, path in versions.items() if (path / "saved_model.pb").is_file()]
        if not servable:
            return None
        newest = versions[servable[-1]]
        image = image_of(read_manifest(newest)["libraries"].get("tensorflow", ""))
        folder.mkdir(exist_ok=True)
        remove_unfinished(folder, (MODELS_FILE, BATCHING_FILE, MONITORING_FILE, COMPOSE_FILE))
        path, config = folder / MODELS_FILE, ModelServerConfig()
        if path.exists():
            read_config(path, config)
        _update(config, name, servable, upcoming=range(max(versions) + 1, max(versions) + 1 + _AHEAD))
        replace_file(path, _HEADER + text_format.MessageToString(config))
        # One image file that cannot be decoded would fail all requests of its batch.
        joins = Golden.load(newest / GOLDEN_FILE).feature == "text"
        once = {
            BATCHING_FILE: batching_config(),
            MONITORING_FILE: monitoring_config(),
            COMPOSE_FILE: compose_file(name, image=image, joins=joins),
        }
        for file, content in once.items():
            if not (folder / file).exists():
                replace_file(folder / file, content)
        _warn_of_other_image(folder / COMPOSE_FILE, image)
    return folder


def _update(config: Any, name: str, servable: Collection[int], *, upcoming: Iterable[int]) -> None:
    """Moves the canary's label to the newest version, and lists the versions that labels need."""
    models = config.model_config_list.config
    model = next((each for each in models if each.name == name), None)
    if model is None:
        model = models.add(name=name, base_path=f"/models/{name}", model_platform="tensorflow")
    labels, newest = model.version_labels, max(servable)
    for label, version in list(labels.items()):
        if version not in servable:
            _logger.warning("serving: the label %s of version %d is gone with it", label, version)
            del labels[label]
    labels[CANARY] = newest
    if STABLE not in labels:
        labels[STABLE] = newest
    policy = model.model_version_policy
    if policy.HasField("latest") or policy.HasField("all"):
        return
    policy.specific.versions[:] = sorted({*labels.values(), *upcoming})


def _warn_of_other_image(path: Path, image: str) -> None:
    found = re.search(
        rf"^\s*image:\s*['\"]?({re.escape(IMAGE)}:[\w.-]+)", path.read_text("utf-8"), re.MULTILINE
    )
    if found is not None and found[1] != image:
        _logger.warning(
            "serving: %s runs %s, but the newest version was measured with the TensorFlow of %s",
            path,
            found[1],
            image,
        )
