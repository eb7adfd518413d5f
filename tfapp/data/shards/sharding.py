"""Writing shards: in two passes, by several processes, and after an interruption only what is missing."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, cast

from tfapp.data.image_limits import MAX_PIXELS
from tfapp.data.labels import order_classes
from tfapp.data.readers.table import Columns, counted, quoted
from tfapp.data.report import MOST_NAMED, UNREADABLE
from tfapp.data.shards.manifest import (
    MANIFEST,
    Manifest,
    Shard,
    Shards,
    fault,
    joined_dropped,
    load_shards,
    read_manifest,
    write_manifest,
)
from tfapp.data.shards.sources import Source, open_source
from tfapp.data.shards.spilling import Plan, spill_part
from tfapp.data.shards.workers import run_tasks
from tfapp.data.shards.writing import finished_bucket, write_bucket
from tfapp.data.split_data import SPLITS
from tfapp.data.splits import check_fractions
from tfapp.disk import held, replace_file, writing
from tfapp.errors import ConfigError, DataError, OutputError
from tfapp.machine import usable_cores

_LOG = logging.getLogger("tfapp")
_SHARD_BYTES = 1 << 25
_SMALL = 1 << 24
_MOST_SHARDS = 99_999
_MOST_UNUSABLE = 0.5


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
            manifest = _manifest(plan, key, settings, source, abouts, report, class_of)
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


def _manifest(
    plan: Plan,
    key: str,
    settings: dict[str, Any],
    source: Source,
    abouts: Sequence[Mapping[str, Any]],
    report: dict[str, Any] | None,
    class_of: Mapping[str, str],
) -> Manifest:
    """Adds up what all processes have recorded, and refuses what no model can be trained on."""
    records = [finished_bucket(plan, bucket) for bucket in range(plan.buckets)]
    found = [record for record in records if record is not None]
    counts: dict[str, Counter[str]] = {split: Counter() for split in SPLITS}
    for record in found:
        for split, of_split in record["class_counts"].items():
            counts[split].update(of_split)
    read: Counter[str] = Counter()
    for about in abouts:
        read[about["source"]] += about["rows"]
    left_out = [*(entry for about in abouts for entry in about["dropped"])]
    left_out += [entry for record in found for entry in record["dropped"]]
    dropped = joined_dropped(left_out, MOST_NAMED)
    rows_read = dict(read)
    if report is not None:
        dropped, rows_read = report["dropped"], report["rows_read"]
    else:
        _refuse_mostly(dropped, rows_read)
    classes = [name for name in dict.fromkeys(class_of.values()) if counts["train"][name]]
    _check_classes(counts, classes, dropped)
    images = None
    if plan.kind == "image":
        images = _summary(abouts) if report is None else report["images"]
    order = {split: number for number, split in enumerate(SPLITS)}
    shards = [Shard(**each) for record in found for each in record["shards"]]
    return Manifest(
        schema_version=1,
        kind=cast(Any, plan.kind),
        task="single_label",
        classes=classes,
        seed=plan.seed,
        key=key,
        settings=settings,
        sources={**source.words, "fingerprint": source.fingerprint()},
        rows_read=rows_read,
        rows=cast(Any, {split: sum(counts[split].values()) for split in SPLITS}),
        class_counts=cast(Any, {split: {name: counts[split][name] for name in classes} for split in SPLITS}),
        dropped=dropped,
        images=images,
        shards=sorted(shards, key=lambda shard: (order[shard.split], shard.file)),
    )


def _refuse_mostly(dropped: Sequence[Mapping[str, Any]], rows_read: Mapping[str, int]) -> None:
    """Refuses a source of which most rows cannot be used: the wrong column is more likely."""
    for entry in dropped:
        rows, reason = rows_read[entry["split"]], entry["reason"]
        unusable = reason in ("empty text", "missing label") or reason.startswith(UNREADABLE)
        if unusable and entry["rows"] > _MOST_UNUSABLE * rows:
            raise DataError(
                f"{entry['rows']:,} of {rows:,} rows of {entry['split']} were left out: {reason} (the first: "
                f"{entry['examples'][0]}); is it the right column, are these the right files?"
            )


def _check_classes(
    counts: Mapping[str, Counter[str]], classes: Sequence[str], dropped: Sequence[Mapping[str, Any]]
) -> None:
    left_out = ", ".join(f"{counted(entry['rows'], 'row')} ({entry['reason']})" for entry in dropped)
    because = f" Left out were {left_out}." if left_out else ""
    for split in SPLITS:
        if not counts[split]:
            raise DataError(
                f"no rows are left for {split}.{because} Give more rows, a source of its own, or use "
                "split='exact'."
            )
        unknown = sorted(set(counts[split]) - set(classes))
        if unknown:
            raise DataError(
                f"{split} has rows of {quoted(unknown, 5)}, of which no row is in training.{because} Give "
                "more rows of these classes, remove them, or use split='exact', which gives every split its "
                "share."
            )
    if len(classes) < 2:
        raise DataError(
            f"the usable rows hold {quoted(classes)} only; a classifier needs two classes.{because} Is "
            "label=... the column of the labels?"
        )


def _summary(abouts: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """What the images of all parts are like, as `ImageSummary` has it."""
    formats: Counter[str] = Counter()
    sizes: Counter[tuple[int, int]] = Counter()
    for about in abouts:
        for name, count in (about["images"] or {}).get("formats", []):
            formats[name] += count
        for (width, height), count in (about["images"] or {}).get("sizes", []):
            sizes[width, height] += count
    if not sizes:
        return None
    by_pixels = sorted(sizes, key=lambda size: (size[0] * size[1], size))
    return {
        "formats": dict(sorted(formats.items())),
        "smallest": list(by_pixels[0]),
        "median": [_median(sizes, side) for side in (0, 1)],
        "largest": list(by_pixels[-1]),
        "near_duplicates": [],
    }


def _median(sizes: Mapping[tuple[int, int], int], side: int) -> int:
    lengths: Counter[int] = Counter()
    for size, count in sizes.items():
        lengths[size[side]] += count
    half, seen = sum(lengths.values()) / 2, 0
    for length, count in sorted(lengths.items()):
        seen += count
        if seen >= half:
            return length
    return 0


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
