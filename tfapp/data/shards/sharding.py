"""Writing shards: in two passes, by several processes, and after an interruption only what is missing."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from tfapp.data.image_limits import MAX_PIXELS
from tfapp.data.labels import order_classes
from tfapp.data.readers.table import Columns, counted, quoted
from tfapp.data.shards.adding_up import make_manifest
from tfapp.data.shards.manifest import (
    MANIFEST,
    Shards,
    fault,
    load_shards,
    read_manifest,
    write_manifest,
)
from tfapp.data.shards.sources import Source, open_source
from tfapp.data.shards.spilling import Plan, spill_part
from tfapp.data.shards.workers import run_tasks
from tfapp.data.shards.writing import finished_bucket, write_bucket
from tfapp.data.splits import check_fractions
from tfapp.disk import held, replace_file, writing
from tfapp.errors import ConfigError, OutputError
from tfapp.machine import usable_cores

_LOG = logging.getLogger("tfapp")
_SHARD_BYTES = 1 << 25
_SMALL = 1 << 24
_MOST_SHARDS = 99_999


def write_shards(
    source: Any,
    directory: str | Path,
    *,
    kind: Literal["text", "image"] = "text",
    text: str = "text",
    image: str = "path",
    label: str = "label",
    group: str | None = None,
    validation: Any = None,
    test: Any = None,
    format: str | None = None,
    encoding: str = "utf-8",
    validation_fraction: float = 0.1,
    test_fraction: float = 0.2,
    split: Literal["auto", "exact", "hash"] = "auto",
    unreadable: Literal["skip", "refuse"] = "skip",
    near_duplicates: Literal["group", "keep"] = "group",
    max_pixels: int = MAX_PIXELS,
    shards: int | None = None,
    seed: int = 0,
    processes: int | None = None,
) -> Shards:
    """Writes texts or images with labels as TFRecord shards, shuffled, split and without copies.

    A record is a ``tf.train.Example`` with the feature ``text`` or ``image_bytes``, as the signature
    ``serve_examples`` of a release takes it, and ``label``, the name of the class. The shards are the same
    bytes whatever the number of processes and however often the call was interrupted; called again, it
    writes only what is missing or damaged. Several processes are started anew, so a script that calls this
    needs the usual ``if __name__ == "__main__":``.

    With ``split="hash"`` a row's content and the seed alone decide its split, so that memory does not grow
    with the data, and no copy of a training row is held out: the splits have their shares only nearly, and
    near duplicates of images are not looked for. With ``"exact"`` all rows are read and split as
    `load_text_data` and `load_image_data` do.

    Args:
        source: What `load_text_data` or `load_image_data` takes; for ``"hash"`` files or folders.
        directory: The folder of the shards and of ``shards.json``.
        kind: What the rows are.
        text: The column or key of the texts.
        image: The column or key of the paths of images.
        label: The column or key of the labels.
        group: As in `load_image_data`; goes with ``"exact"``.
        validation: A source of the validation rows; drawn from ``source`` when None.
        test: A source of the test rows; drawn from ``source`` when None.
        format: As in `load_text_data` and `load_image_data`; by the suffix when None.
        encoding: The encoding of text files.
        validation_fraction: Share of the rows of ``source`` to draw for validation, between 0 and 1.
        test_fraction: Share of the rows of ``source`` to draw for test, between 0 and 1.
        split: How splits are drawn; ``"auto"`` reads texts up to 256 MiB and up to 20,000 images whole.
        unreadable: As in `load_image_data`.
        near_duplicates: As in `load_image_data`; goes with ``"exact"``.
        max_pixels: Most pixels that an image may have.
        shards: Into how many files each split is cut; about 32 MiB each when None.
        seed: Decides splits and order.
        processes: How many processes work; by the size of the source and the processors when None.

    Returns:
        The shards.

    Raises:
        DataError: If a row or file cannot be used; the message names it.
        OutputError: If the folder cannot be written, is in use, or holds something else.
        ConfigError: If a number is out of range.
    """
    for name, value in (("shards", shards), ("processes", processes)):
        if value is not None and not 1 <= value <= _MOST_SHARDS:
            raise ConfigError(f"{name} = {value}: it must be from 1 to {_MOST_SHARDS:,}.")
    columns = Columns(text if kind == "text" else image, label, group, keyword=kind)
    options: dict[str, Any] = {
        "format": format,
        "encoding": encoding,
        "validation_fraction": validation_fraction,
        "test_fraction": test_fraction,
        "unreadable": unreadable,
        "near_duplicates": near_duplicates,
        "max_pixels": max_pixels,
        "seed": seed,
    }
    given = {"train": source, "validation": validation, "test": test}
    opened = open_source(given, columns, mode=split, options=options)
    check_fractions(opened.drawn)
    size = opened.bytes
    buckets = shards or min(_MOST_SHARDS, max(1, -(-size // _SHARD_BYTES)))
    settings = {
        **options,
        "kind": kind,
        "content": columns.content,
        "label": label,
        "group": group,
        "split": opened.mode,
        "shards": buckets,
        "sources": opened.words,
    }
    directory = Path(directory).expanduser().absolute()
    plan = Plan(kind, seed, buckets, opened.drawn, unreadable == "refuse", max_pixels, directory)
    if processes is None:
        processes = 1 if size < _SMALL else usable_cores()
    with _reporting(directory), writing(directory):
        return _write(plan, opened, settings, processes)


def _write(plan: Plan, source: Source, settings: dict[str, Any], processes: int) -> Shards:
    key = _key(settings, source)
    damaged = _damaged(plan, key, settings)
    if damaged is not None and not damaged:
        _LOG.info("%s: all shards are there already", plan.directory)
        if plan.work.exists():  # of a run that was killed at its very end
            with held(plan.work, cure="choose another folder"):
                shutil.rmtree(plan.work)
        return load_shards(plan.directory)
    _check_free(plan, key, settings)
    plan.directory.mkdir(parents=True, exist_ok=True)
    with held(plan.work, cure="choose another folder"):
        replace_file(plan.work / "plan.json", json.dumps({"key": key, "settings": settings}))
        parts, report = _first_pass(plan, source, processes)
        abouts = [
            json.loads(plan.spill(number).with_suffix(".json").read_text(encoding="utf-8"))
            for number in range(parts)
        ]
        class_of = order_classes({name for about in abouts for name in about["labels"]})
        wanted = range(plan.buckets) if damaged is None else damaged
        missing = [bucket for bucket in wanted if finished_bucket(plan, bucket) is None]
        _LOG.info("writing %s of %d", counted(len(missing), "bucket"), plan.buckets)
        tasks = ((plan, bucket, parts, class_of) for bucket in missing)
        run_tasks(write_bucket, tasks, processes=min(processes, max(1, len(missing))))
        if damaged is None:
            manifest = make_manifest(plan, source, abouts, report, class_of, key=key, settings=settings)
            write_manifest(plan.directory, manifest)
    written = load_shards(plan.directory, verify=damaged is not None)
    shutil.rmtree(plan.work)
    return written


def _first_pass(plan: Plan, source: Source, processes: int) -> tuple[int, dict[str, Any] | None]:
    """Reads all parts, and returns how many there are, with the report of rows that were read whole."""
    record = plan.work / "parts.json"
    with contextlib.suppress(OSError, ValueError):
        about = json.loads(record.read_text(encoding="utf-8"))
        return int(about["parts"]), about["report"]
    numbers = 0

    def tasks() -> Iterator[tuple[Any, ...]]:
        nonlocal numbers
        for part in source.parts():
            if not plan.spill(numbers).with_suffix(".json").exists():
                yield plan, numbers, part
            numbers += 1

    _LOG.info("reading %s", ", ".join(source.words.values()))
    run_tasks(spill_part, tasks(), processes=processes, tensorflow=plan.kind == "image")
    report = None if source.report is None else source.report.to_dict()
    replace_file(record, json.dumps({"parts": numbers, "report": report}))
    return numbers, report


def _key(settings: Mapping[str, Any], source: Source) -> str:
    about = {"shards": 1, "source": source.fingerprint(), **settings}
    return hashlib.sha256(json.dumps(about, sort_keys=True, default=str).encode()).hexdigest()


def _damaged(plan: Plan, key: str, settings: Mapping[str, Any]) -> list[int] | None:
    """The buckets of finished shards that are not whole; None where the shards are not finished."""
    if not (plan.directory / MANIFEST).exists():
        return None
    manifest = read_manifest(plan.directory)
    if manifest.key != key:
        raise _other(plan.directory, manifest.settings, settings)
    bad = [shard.file for shard in manifest.shards if fault(plan.directory, shard, verify=True)]
    return sorted({int(name.split("-")[1]) for name in bad})


def _check_free(plan: Plan, key: str, settings: Mapping[str, Any]) -> None:
    """Refuses a folder that holds something else."""
    if not plan.directory.exists() or (plan.directory / MANIFEST).exists():
        return
    begun = plan.work / "plan.json"
    try:
        record = json.loads(begun.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        strangers = [path.name for path in plan.directory.iterdir() if path != plan.work]
        if strangers:
            raise OutputError(
                f"{plan.directory} holds {quoted(sorted(strangers), 3)} and no shards; name another folder."
            ) from None
        return
    if record["key"] != key:
        raise _other(plan.directory, record["settings"], settings)


def _other(directory: Path, there: Mapping[str, Any], here: Mapping[str, Any]) -> OutputError:
    differing = [
        f"{name} = {there.get(name)!r} there and {value!r} here"
        for name, value in here.items()
        if there.get(name) != value
    ]
    why = "; ".join(differing[:3]) or "the source's files have changed"
    return OutputError(
        f"{directory} holds shards of other settings ({why}): repeat the call as it was, name another "
        "folder, or remove this one."
    )


@contextlib.contextmanager
def _reporting(directory: Path) -> Iterator[None]:
    """Says of all else that went wrong with the disk where it did."""
    try:
        yield
    except OSError as error:
        raise OutputError(
            f"{error.filename or directory}: {error.strerror or error}; shards that are finished are kept, "
            "run the same again."
        ) from error
