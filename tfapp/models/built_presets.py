"""Presets that are built here: multilingual-e5-small, whole or with a vocabulary cut to languages or texts.

What is built is a folder as Hugging Face has them, beside a `RECORD` of how it was made. It appears whole or
not at all, and the same recipe always gives the same bytes.
"""

from __future__ import annotations

import functools
import hashlib
import json
import logging
import re
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tfapp.assets import ASSETS, cache_dir, fetch
from tfapp.data.corpus import digest_of_file, read_lines
from tfapp.data.languages import find_languages
from tfapp.data.recipes import BASE, PACKAGED, Recipe
from tfapp.data.sentencepiece_files import read_tokenizer_json
from tfapp.data.vocabulary_cut import WORDS, Coverage, measure_coverage
from tfapp.data.word_lists import read_words
from tfapp.disk import locked, rename_new, writing
from tfapp.errors import ConfigError, OutputError, WeightsError
from tfapp.models.built_files import RECORD, Ingredients, write_files
from tfapp.models.weight_files import read_json

_logger = logging.getLogger("tfapp")
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")


@dataclass(frozen=True)
class BuiltPreset:
    """A preset that lies built in a folder.

    Attributes:
        name: Its name.
        folder: The folder, which `load_backbone` takes.
        record: How it was made: `RECORD`.
        fresh: Whether it was built just now.
    """

    name: str
    folder: Path
    record: Mapping[str, Any]
    fresh: bool

    @property
    def sizes(self) -> list[dict[str, str]]:
        """Rows of a table: pieces, parameters and megabytes of the whole preset and of this one."""
        width, pieces, parameters = (self.record[key] for key in ("width", "pieces", "parameters"))
        whole = parameters + (self.record["base_pieces"] - pieces) * width
        rows = {self.record["base"]: (self.record["base_pieces"], whole), self.name: (pieces, parameters)}
        return [
            {
                "preset": name,
                "pieces": f"{count:,}",
                "parameters": f"{weights / 1e6:.1f} M",
                "float32 MB": f"{weights * 4 / 1e6:.0f}",
                "int8 MB (about)": f"{weights / 1e6:.0f}",
            }
            for name, (count, weights) in rows.items()
        ]


def build_preset(
    name: str,
    *,
    languages: tuple[str, ...] = (),
    corpus: Path | None = None,
    min_count: int = 1,
    output: Path | None = None,
) -> BuiltPreset:
    """Builds a preset, or finds it built by the same recipe.

    Args:
        name: The name that `load_backbone` will know it by; lower-case letters, digits, ``_`` and ``-``.
        languages: Languages that the vocabulary is cut to, by their codes.
        corpus: UTF-8 file with a text a line, whose pieces are kept beside those of the languages.
        min_count: How often a piece occurs in the corpus at least; 1 or more.
        output: A new folder to build into, loaded by its path; the cache when None.

    Returns:
        The preset.

    Raises:
        ConfigError: If the name or a language cannot be used, or nothing says what to keep.
        DataError: If the corpus cannot be read.
        AssetError: If the packaged weights, pieces or words cannot be fetched.
        OutputError: If another recipe has that name already, or the folder cannot be written.
    """
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"preset name {name!r}: use at most 64 of a-z, 0-9, _ and -, a letter or digit first."
        )
    if min_count < 1:
        raise ConfigError(f"min_count = {min_count}: 1 or more occurrences keep a piece.")
    find_languages(languages)
    recipe = Recipe(
        tuple(sorted(set(languages))), digest_of_file(corpus) if corpus else None, min_count if corpus else 1
    )
    packaged = PACKAGED.get(name)
    if packaged is not None and recipe == Recipe():
        recipe = packaged
    elif recipe == Recipe():
        raise ConfigError(f"preset {name!r}: say what to keep, by languages, a corpus, or both.")
    elif packaged is not None and recipe != packaged and output is None:
        keeps = ",".join(packaged.languages) or "all languages"
        raise ConfigError(f"{name} is a packaged preset that keeps {keeps}; give yours another name.")
    renewed = packaged is not None and output is None
    folder = _cached(name) if output is None else output.expanduser().absolute()
    found = _present(folder, recipe, renewed=renewed)
    if found is not None:
        return BuiltPreset(name, folder, found, fresh=False)
    ingredients = _gather(recipe, corpus)
    with writing(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with locked(folder.parent):
            found = _present(folder, recipe, renewed=renewed)
            if found is None:
                _logger.info("building the preset %s", name)
                record = _build(name, folder, recipe, ingredients)
                return BuiltPreset(name, folder, record, fresh=True)
    return BuiltPreset(name, folder, found, fresh=False)


def measure_preset(preset: BuiltPreset, texts: Path) -> Coverage:
    """Measures what the cut vocabulary of a preset does to texts.

    Args:
        preset: The preset.
        texts: UTF-8 file with a text a line.

    Returns:
        How many of them are split as before, and how much became ``<unk>``.

    Raises:
        DataError: If the file cannot be read.
    """
    whole = read_tokenizer_json(fetch(ASSETS["e5-small-tokenizer"]) / "tokenizer.json")
    cut = (preset.folder / "sentencepiece.model").read_bytes()
    return measure_coverage(whole, cut, read_lines(texts))


def find_built(name: str) -> Path | None:
    """Looks a preset up that a user has built in the cache.

    Args:
        name: Its name.

    Returns:
        Its folder, checked; None when there is none of that name.

    Raises:
        WeightsError: If it is damaged.
    """
    folder = _cached(name)
    if not _NAME.fullmatch(name) or not (folder / RECORD).is_file():
        return None
    damage = _damage(folder)
    if damage is not None:
        raise WeightsError(
            f"the preset {name!r} in {folder} is damaged ({damage}); delete the folder and build it again "
            "with `tfapp presets build`."
        )
    return folder


def read_record(name: str) -> dict[str, Any] | None:
    """Reads how a preset was made.

    Args:
        name: The name of a preset in the cache, or the path of one that lies elsewhere.

    Returns:
        The content of `RECORD`; None for anything that was not built.
    """
    folder = _cached(name) if _NAME.fullmatch(name) else Path(name).expanduser()
    return read_json(folder / RECORD) if name and (folder / RECORD).is_file() else None


def list_built() -> list[str]:
    """Names of the presets that lie built in the cache."""
    return sorted(path.parent.name for path in (cache_dir() / "presets").glob(f"[!.]*/{RECORD}"))


def _cached(name: str) -> Path:
    return cache_dir() / "presets" / name


def _present(folder: Path, recipe: Recipe, *, renewed: bool) -> Mapping[str, Any] | None:
    """Returns the record of a preset that needs no building; what has other content is refused."""
    if not folder.exists():
        return None
    damage = _damage(folder)
    if damage is None:
        record = read_json(folder / RECORD)
        if record["recipe"] == recipe.as_json() and record["sources"] == _sources(recipe):
            return record
        damage = "it was made by another recipe"
    if renewed:
        return None
    raise OutputError(f"{folder}: {damage}; choose another name, or delete that folder.")


def _build(name: str, folder: Path, recipe: Recipe, ingredients: Ingredients) -> Mapping[str, Any]:
    """Builds beside `folder`, then renames into place. Needs the lock of the parent folder."""
    prefix = f".partial-{folder.name}-"
    for leftover in folder.parent.glob(f"{prefix}*"):
        shutil.rmtree(leftover, ignore_errors=True)
    work = Path(tempfile.mkdtemp(prefix=prefix, dir=folder.parent))
    try:
        content = work / folder.name
        content.mkdir()
        record = write_files(
            content, name=name, base=BASE, recipe=recipe, ingredients=ingredients, sources=_sources(recipe)
        )
        if folder.exists():
            _logger.warning("%s was damaged or of another recipe, and was built again", folder)
            folder.rename(work / "before")
        if not rename_new(content, folder):
            raise OutputError(f"{folder} has appeared while it was built; choose another name.")
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return record


def _gather(recipe: Recipe, corpus: Path | None) -> Ingredients:
    weights, tokenizer = fetch(ASSETS["e5-small-q4"]), fetch(ASSETS["e5-small-tokenizer"])
    by_words = [language.code for language in find_languages(recipe.languages) if language.by_words]
    lists = fetch(ASSETS["word-lists"]) if by_words else None
    words = {code: read_words(lists, code, count=WORDS) for code in by_words} if lists else {}
    return Ingredients(
        weights=weights / "e5-small-q4.bin",
        model=read_tokenizer_json(tokenizer / "tokenizer.json"),
        notice=(tokenizer / "NOTICE").read_text(encoding="utf-8"),
        words=words,
        texts=read_lines(corpus) if corpus else None,
    )


def _sources(recipe: Recipe) -> dict[str, Any]:
    """What else than the recipe decides the content: packages, and how many words are taken."""
    names = ["e5-small-q4", "e5-small-tokenizer"]
    words = any(language.by_words for language in find_languages(recipe.languages))
    sources: dict[str, Any] = {name: ASSETS[name].sha256 for name in names}
    return sources | ({"word-lists": ASSETS["word-lists"].sha256, "words": WORDS} if words else {})


def _damage(folder: Path) -> str | None:
    try:
        files = json.loads((folder / RECORD).read_text(encoding="utf-8"))["files"]
        for name, checksum in files.items():
            status = (folder / name).stat()
            if _digest(folder / name, status.st_mtime_ns, status.st_size) != checksum:
                return f"{name} has another sha256 than recorded"
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return f"{type(error).__name__}: {error}"
    return None


@functools.lru_cache(maxsize=256)
def _digest(path: Path, modified: int, size: int) -> str:
    """Hashes a file, once in a process while it is not changed."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
