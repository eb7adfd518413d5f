"""Where TF-Hub models lie on disk: the cache that TensorFlow Hub shares, and how it is filled."""

from __future__ import annotations

import hashlib
import logging
import os
import re
import shutil
import tarfile
import tempfile
import urllib.request
from pathlib import Path

import kagglehub  # type: ignore[import-untyped]

from tfapp.errors import WeightsError

_logger = logging.getLogger("tfapp")
_KAGGLE = re.compile(
    r"(?:kaggle://|https://(?:www\.)?kaggle\.com/models/)([^/]+/[^/]+/tensorflow2/.+)", re.IGNORECASE
)
_PREPROCESS_VERSIONS = (3, 2, 1)


def is_hub_handle(name: str) -> bool:
    """Tells whether a name is the handle of a TF-Hub model.

    Args:
        name: A backbone's name.

    Returns:
        True for ``https://`` addresses, and for Kaggle's handles of TensorFlow 2 models.
    """
    return name.startswith("https://") or bool(_KAGGLE.match(name))


def resolve_handle(name: str) -> Path:
    """Returns the folder of a TF-Hub model, downloading it on first use.

    Args:
        name: A folder with ``saved_model.pb``, or a handle.

    Returns:
        The folder, which holds ``saved_model.pb``.

    Raises:
        WeightsError: If the model is neither there nor can be downloaded.
    """
    folder = _cached(name) if is_hub_handle(name) else Path(name).expanduser()
    if (folder / "saved_model.pb").is_file():
        return folder
    if not is_hub_handle(name):
        raise WeightsError(f"{folder} holds no saved_model.pb: it is no TF-Hub model.")
    _logger.info("downloading %s", name)
    folder.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f"{folder.name}.partial-", dir=folder.parent))
    try:
        _download(name, work / "model")
        if not (work / "model" / "saved_model.pb").is_file():
            raise WeightsError(f"{name} answers with files among which is no saved_model.pb.")
        if not folder.exists():  # Another process may have been faster.
            os.replace(work / "model", folder)
    except WeightsError:
        raise
    except Exception as error:
        # Besides OSError and tarfile's own, Kaggle's client raises what its HTTP library does.
        raise WeightsError(
            f"cannot download {name!r}: {type(error).__name__}: {error}. Without network, unpack the model "
            f"(saved_model.pb, variables/, assets/) into {folder}, or anywhere else and give that path."
        ) from error
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return folder


def _download(name: str, folder: Path) -> None:
    if kaggle := _KAGGLE.fullmatch(name):
        shutil.copytree(kagglehub.model_download(kaggle[1]), folder)
        return
    with (
        urllib.request.urlopen(f"{name}?tf-hub-format=compressed", timeout=60) as answer,
        tarfile.open(fileobj=answer, mode="r|gz") as archive,
    ):
        archive.extractall(folder, filter="data")


def vocabulary_folder(name: str, folder: Path) -> Path:
    """Finds the folder with the ``vocab.txt`` of a TF-Hub BERT.

    Args:
        name: Handle or folder by which the model was asked for.
        folder: Where the model lies.

    Returns:
        The model's own ``assets``, or those of its preprocessing model: beside it, or in the cache.

    Raises:
        WeightsError: If there is none, or several lie beside the model and none has its name.
    """
    stem = name.rstrip("/").split("_L-")[0]
    versions = _PREPROCESS_VERSIONS if is_hub_handle(name) else ()
    handles = [f"{stem}_preprocess/{version}" for version in versions]
    for candidate in [folder, *(_cached(handle) for handle in handles)]:
        if _has_vocabulary(candidate):
            return candidate / "assets"
    if not handles and (beside := _preprocessor_beside(folder.absolute())):
        return beside / "assets"
    elsewhere = f", or the model {handles[0]!r} into {_cached(handles[0])}" if handles else ""
    raise WeightsError(
        f"{name!r} comes without its vocabulary: put vocab.txt into {folder / 'assets'}{elsewhere}, "
        "or pass tokenizer=."
    )


def _preprocessor_beside(folder: Path) -> Path | None:
    """Finds the preprocessing model beside a model: the one that is named after it, else the only one."""
    candidates = [path for path in sorted(folder.parent.glob("*preprocess*")) if _has_vocabulary(path)]
    stem = folder.name.split("_L-")[0]
    named = [path for path in candidates if path.name == f"{stem}_preprocess"]
    if not named and len(candidates) > 1:
        raise WeightsError(
            f"{folder} comes without its vocabulary, and several preprocessing models lie beside it: "
            f"{', '.join(path.name for path in candidates)}. Copy vocab.txt of the right one into "
            f"{folder / 'assets'}, rename that one to {stem}_preprocess, or pass tokenizer=."
        )
    return next(iter(named or candidates), None)


def _has_vocabulary(folder: Path) -> bool:
    return (folder / "assets" / "vocab.txt").is_file()


def _cached(handle: str) -> Path:
    cache = os.environ.get("TFHUB_CACHE_DIR") or os.path.join(tempfile.gettempdir(), "tfhub_modules")
    return Path(cache).expanduser() / hashlib.sha1(handle.encode("utf-8"), usedforsecurity=False).hexdigest()
