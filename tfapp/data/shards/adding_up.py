"""What all processes have written, added up: the manifest of the shards."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, cast

from tfapp.data.readers.table import counted, quoted
from tfapp.data.report import MOST_NAMED, UNREADABLE
from tfapp.data.shards.manifest import Manifest, Shard, joined_dropped
from tfapp.data.shards.sources import Source
from tfapp.data.shards.spilling import Plan
from tfapp.data.shards.writing import finished_bucket
from tfapp.data.split_data import SPLITS
from tfapp.errors import DataError, OutputError

_MOST_UNUSABLE = 0.5


def make_manifest(
    plan: Plan,
    source: Source,
    abouts: Sequence[Mapping[str, Any]],
    report: dict[str, Any] | None,
    class_of: Mapping[str, str],
    *,
    key: str,
    settings: dict[str, Any],
) -> Manifest:
    """Adds up what all processes have recorded, and refuses what no model can be trained on.

    Args:
        plan: What was written; all of its buckets are finished.
        source: What was read.
        abouts: What was recorded of each part.
        report: The report of rows that were read whole; None where a hash decided their splits.
        class_of: The class of each label, in the order of the classes.
        key: Checksum of settings and source.
        settings: What `write_shards` was called with.

    Returns:
        The manifest.

    Raises:
        DataError: When a split or a class is empty, or most rows could not be used.
        OutputError: When a shard that was written is not there any more.
    """
    records = [finished_bucket(plan, bucket) for bucket in range(plan.buckets)]
    found = [record for record in records if record is not None]
    if len(found) < len(records):
        raise OutputError(
            f"{plan.directory}: {len(records) - len(found)} shards are no longer as they were written. Run "
            "the same `tfapp data shard` again: it makes only what is missing."
        )
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
