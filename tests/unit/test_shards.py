"""Shards: what is written, that it is always the same, what is left out, and what is refused."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

from tfapp.data.image import load_image_data
from tfapp.data.readers.delimited import read_csv, read_tsv
from tfapp.data.readers.table import Columns
from tfapp.data.shards import blocks, sharding, spilling, writing
from tfapp.data.shards.blocks import text_blocks
from tfapp.data.shards.manifest import load_shards
from tfapp.data.shards.parts import text_parts
from tfapp.data.shards.sharding import write_shards
from tfapp.data.shards.streamed import load_sharded_data
from tfapp.data.text import load_text_data
from tfapp.errors import DataError, OutputError

LABELS = ("good", "bad", "so-so")


def write_csv(path: Path, rows: int = 300) -> Path:
    draw = random.Random(1)
    frame = pd.DataFrame(
        {
            "text": [f'row {number}, "{draw.random():.9f}"\nsecond line' for number in range(rows)],
            "label": [LABELS[number % 3] for number in range(rows)],
        }
    )
    frame.to_csv(path, index=False)
    return path


def read_all(folder: Path, split: str) -> list[tuple[bytes, bytes]]:
    records = tf.data.TFRecordDataset(load_shards(folder).paths(split))
    found = []
    for record in records.as_numpy_iterator():
        features = tf.train.Example.FromString(record).features.feature
        found.append((features["text"].bytes_list.value[0], features["label"].bytes_list.value[0]))
    return found


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """300 rows in three shards a split, and their source."""
    folder = tmp_path_factory.mktemp("shards")
    source = write_csv(folder / "rows.csv")
    write_shards(source, folder / "out", split="hash", shards=3, seed=5)
    return source, folder / "out"


@pytest.mark.parametrize("mode", ["exact", "hash"])
def test_every_row_is_in_one_split_with_its_label(tmp_path, mode):
    source = write_csv(tmp_path / "rows.csv")
    shards = write_shards(source, tmp_path / "out", split=mode, shards=2)
    rows = {split: read_all(tmp_path / "out", split) for split in ("train", "validation", "test")}
    frame = pd.read_csv(source)
    expected = sorted(
        (text.encode(), label.encode()) for text, label in frame.itertuples(index=False, name=None)
    )
    assert sorted(row for part in rows.values() for row in part) == expected
    assert {split: len(part) for split, part in rows.items()} == shards.manifest.rows
    assert shards.classes == ("bad", "good", "so-so")
    assert sum(shard.rows for shard in shards.manifest.shards) == 300
    assert not (tmp_path / "out" / ".work").exists()


def test_splits_that_fit_into_memory_are_those_of_the_reader(tmp_path):
    source = write_csv(tmp_path / "rows.csv")
    write_shards(source, tmp_path / "out", seed=3)
    data = load_text_data(source, seed=3)
    for split in ("train", "validation", "test"):
        texts = sorted(text.decode() for text, _ in read_all(tmp_path / "out", split))
        assert texts == sorted(data.splits[split].texts)


def test_the_bytes_are_decided_by_seed_and_rows_and_not_by_their_order(tmp_path, written):
    source, folder = written
    again = write_shards(source, tmp_path / "again", split="hash", shards=3, seed=5)
    assert contents(tmp_path / "again") == contents(folder)
    other = write_shards(source, tmp_path / "other", split="hash", shards=3, seed=6)
    assert other.sha256("train") != again.sha256("train")
    frame = pd.read_csv(source).sample(frac=1.0, random_state=0)
    frame.to_csv(tmp_path / "shuffled.csv", index=False)
    shuffled = write_shards(tmp_path / "shuffled.csv", tmp_path / "third", split="hash", shards=3, seed=5)
    assert shuffled.manifest.shards == again.manifest.shards


def test_formats_give_the_same_shards(tmp_path, written):
    frame = pd.read_csv(written[0])
    frame["text"] = frame["text"].str.replace("\n", " ")
    frame.to_parquet(tmp_path / "rows.parquet", row_group_size=70)
    frame.to_json(tmp_path / "rows.jsonl", orient="records", lines=True)
    frame.to_csv(tmp_path / "rows.csv", index=False)
    for label, rows in frame.groupby("label"):
        (tmp_path / "folder" / label).mkdir(parents=True)
        for number, text in enumerate(rows["text"]):
            (tmp_path / "folder" / label / f"{number}.txt").write_text(text)
    found = [
        write_shards(tmp_path / name, tmp_path / f"out-{name}", split="hash", shards=2).manifest.shards
        for name in ("rows.parquet", "rows.jsonl", "rows.csv", "folder")
    ]
    assert found[0] == found[1] == found[2] == found[3]


def test_copies_conflicts_and_leaks_are_left_out_and_named(tmp_path):
    rows = [(f"text {number}", LABELS[number % 2]) for number in range(200)]
    rows += [("text 3", "bad"), ("  text   5 ", "bad"), ("text 7", "good"), ("", "good"), ("x", "")]
    pd.DataFrame(rows, columns=["text", "label"]).to_csv(tmp_path / "train.csv", index=False)
    held_out = pd.DataFrame(
        [("text 11", "bad"), ("new", "good"), ("newer", "bad")], columns=["text", "label"]
    )
    held_out.to_csv(tmp_path / "test.csv", index=False)
    shards = write_shards(
        tmp_path / "train.csv",
        tmp_path / "out",
        test=tmp_path / "test.csv",
        split="hash",
        validation_fraction=0.2,
    )
    left_out = {(entry.split, entry.reason): entry for entry in shards.report.dropped}
    assert {key: entry.rows for key, entry in left_out.items()} == {
        ("train", "duplicate"): 2,
        ("train", "conflicting labels"): 2,
        ("train", "empty text"): 1,
        ("train", "missing label"): 1,
        ("train", "also in test"): 1,
    }
    assert left_out["train", "also in test"].examples == (f"{tmp_path / 'train.csv'}, row 13",)
    assert left_out["train", "missing label"].examples == (f"{tmp_path / 'train.csv'}, row 206",)
    texts = {split: {text for text, _ in read_all(tmp_path / "out", split)} for split in shards.manifest.rows}
    assert texts["test"] == {b"text 11", b"new", b"newer"}
    assert not texts["train"] & texts["validation"]
    assert shards.manifest.rows_read == {"train": 205, "test": 3}


@pytest.mark.parametrize("stop", ["spill_part", "write_bucket"])
def test_an_interrupted_call_goes_on_and_ends_with_the_same_bytes(tmp_path, written, monkeypatch, stop):
    source, folder = written
    module = spilling if stop == "spill_part" else writing
    real, calls = getattr(module, stop), []

    def stopping(*arguments):
        if len(calls) == (0 if stop == "spill_part" else 2):
            raise KeyboardInterrupt
        calls.append(arguments[1])
        real(*arguments)

    arguments = {"split": "hash", "shards": 3, "seed": 5}
    monkeypatch.setattr(sharding, stop, stopping)
    with pytest.raises(KeyboardInterrupt):
        write_shards(source, tmp_path / "out", **arguments)
    assert not (tmp_path / "out" / "shards.json").exists()
    again = []
    monkeypatch.setattr(sharding, stop, lambda *given: (again.append(given[1]), real(*given)))
    write_shards(source, tmp_path / "out", **arguments)
    assert sorted([*calls, *again]) == ([0] if stop == "spill_part" else [0, 1, 2])
    assert contents(tmp_path / "out") == contents(folder)


def test_only_a_damaged_or_missing_shard_is_written_again(tmp_path, written, monkeypatch):
    source, folder = written
    shutil.copytree(folder, tmp_path / "out")
    (tmp_path / "out" / "train-00001-of-00003.tfrecord").unlink()
    damaged = tmp_path / "out" / "test-00002-of-00003.tfrecord"
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"?")
    with pytest.raises(DataError, match=r"train-00001-of-00003\.tfrecord is missing"):
        load_shards(tmp_path / "out")
    with pytest.raises(DataError, match=r"missing; test-00002-of-00003\.tfrecord is damaged"):
        load_shards(tmp_path / "out", verify=True)
    buckets, real = [], writing.write_bucket
    monkeypatch.setattr(sharding, "write_bucket", lambda *given: (buckets.append(given[1]), real(*given)))
    arguments = {"split": "hash", "shards": 3, "seed": 5}
    write_shards(source, tmp_path / "out", **arguments)
    assert buckets == [1, 2]
    assert contents(tmp_path / "out") == contents(folder)
    write_shards(source, tmp_path / "out", **arguments)
    assert buckets == [1, 2]


def test_a_folder_of_something_else_is_refused_with_the_cure(tmp_path, written):
    source, folder = written
    with pytest.raises(OutputError, match=r"seed = 5 there and 4 here.*name another folder"):
        write_shards(source, folder, split="hash", shards=3, seed=4)
    (tmp_path / "letters.txt").write_text("mine")
    with pytest.raises(OutputError, match=r"holds .letters\.txt. and no shards"):
        write_shards(source, tmp_path, split="hash")
    source = write_csv(tmp_path / "rows.csv", rows=30)
    write_shards(source, tmp_path / "out", split="exact")
    write_csv(source, rows=40)
    with pytest.raises(OutputError, match="the source's files have changed"):
        write_shards(source, tmp_path / "out", split="exact")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "text,label\na,b\nc\n", r"a\.csv, row 3 has 1 cell where the header has 2"),
        (
            "a.jsonl",
            '{"text": "a", "label": 1}\n\n{"text": 3, "label": 1}\n',
            r"a\.jsonl, line 3: 'text' is 3",
        ),
        ("a.csv", "text,label\na,b\n\0,b\n", r"a\.csv, line 3 holds a NUL byte"),
        ("a.csv", "text,labels\na,b\n", r"has no column 'label'"),
        ("a.csv", "\n\n", r"a\.csv is empty"),
        ("a.csv", "text,label\n,b\n,c\n", r"2 of 2 rows of train were left out: empty text"),
        ("a.csv", "text,label\na,b\nc,b\nd,b\n", r"no rows are left for"),
    ],
)
def test_bad_rows_are_named(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=message):
        write_shards(tmp_path / name, tmp_path / "out", split="hash")
    assert not (tmp_path / "out" / "shards.json").exists()


def test_rows_in_later_blocks_have_their_own_numbers(tmp_path, monkeypatch):
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 200)
    source = write_csv(tmp_path / "rows.csv", rows=50)
    pieces = list(text_blocks(source, "utf-8", quoted=","))
    assert len(pieces) > 5
    assert b"".join(piece.data for piece in pieces) == source.read_bytes()
    assert [piece.first for piece in pieces] == [1, *(1 + np.cumsum([p.rows for p in pieces])[:-1]).tolist()]
    source.write_bytes(source.read_bytes() + b"only one cell\n")
    with pytest.raises(DataError, match="row 52 has 1 cell"):
        write_shards(source, tmp_path / "out", split="hash")
    latin = tmp_path / "latin.csv"
    latin.write_bytes(b"text,label\n" + b"plain,b\n" * 40 + "gr\xfcn,b\n".encode("latin-1"))
    with pytest.raises(DataError, match=r"line 42 is not utf-8: byte 0xfc at byte offset 333"):
        write_shards(latin, tmp_path / "out2", split="hash")


def parts_of(path):
    columns = Columns("text", "label")
    parts = text_parts(path, columns, split="train", name="train", format=None, encoding="utf-8")
    return [(text, label) for part in parts for text, label in zip(*rows_of(part.read()), strict=True)]


def rows_of(table):
    return list(table.texts), list(table.labels)


def test_stray_quotes_and_quoted_line_breaks_are_read_as_in_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 64)
    draw = np.random.default_rng(0)
    cells = [
        'a 5" disk',
        '"a, b\nc"',
        '"she said ""no""\n\nand left"',
        '"x" y" z',
        "plain",
        'two "" marks',
        '""',
    ]
    lines = [
        f"{cells[number]},{'ab'[row % 2]}\n" for row, number in enumerate(draw.integers(len(cells), size=300))
    ]
    path = tmp_path / "rows.csv"
    path.write_text("text,label\n" + "".join(lines))
    whole = rows_of(read_csv(path, Columns("text", "label"), encoding="utf-8"))
    assert len(whole[0]) == 300
    assert parts_of(path) == list(zip(*whole, strict=True))
    assert sum(1 for _ in text_blocks(path, "utf-8", quoted=",")) > 50


@pytest.mark.parametrize("last", ["", '"raw and never closed\tb\n', '"of two\nlines"\tb\n'])
def test_all_rows_of_a_tsv_decide_how_its_quotation_marks_are_meant(tmp_path, monkeypatch, last):
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 64)
    path = tmp_path / "rows.tsv"
    path.write_text("text\tlabel\n" + '"in marks"\ta\nplain\tb\n' * 30 + last)
    whole = rows_of(read_tsv(path, Columns("text", "label"), encoding="utf-8"))
    assert whole[0][0] == ('"in marks"' if "raw" in last else "in marks")
    assert parts_of(path) == list(zip(*whole, strict=True))


def test_a_file_of_one_endless_line_is_refused_with_the_cure(tmp_path, monkeypatch):
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 64)
    monkeypatch.setattr(blocks, "_LONGEST_ROW", 200)
    path = tmp_path / "rows.csv"
    path.write_bytes(b"text,label\r" + b"a film,b\r" * 60)
    with pytest.raises(DataError, match="carriage returns alone; save it with line feeds"):
        parts_of(path)


def test_a_full_disk_is_told_and_the_call_can_be_repeated(tmp_path, written, monkeypatch):
    source, folder = written

    def full(*_arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(sharding, "write_bucket", full)
    with pytest.raises(OutputError, match="the disk is full"):
        write_shards(source, tmp_path / "out", split="hash", shards=3, seed=5)
    monkeypatch.undo()
    write_shards(source, tmp_path / "out", split="hash", shards=3, seed=5)
    assert contents(tmp_path / "out") == contents(folder)


def test_a_damaged_manifest_is_one_clear_error(tmp_path, written):
    shutil.copytree(written[1], tmp_path / "out")
    path = tmp_path / "out" / "shards.json"
    values = json.loads(path.read_text())
    for change, message in (
        ({"rows": "many"}, r"shards\.json is damaged .*rows"),
        ({"shards": [{**values["shards"][0], "file": "../../etc/passwd"}]}, r"shards\.0\.file"),
    ):
        path.write_text(json.dumps({**values, **change}))
        with pytest.raises(DataError, match=message):
            load_shards(tmp_path / "out")
    path.unlink()
    with pytest.raises(DataError, match="holds no finished shards"):
        load_sharded_data(tmp_path / "out")


def write_photos(folder: Path, count: int = 24) -> Path:
    draw = np.random.default_rng(0)
    for number in range(count):
        pixels = draw.integers(0, 256, (20 + number % 3, 24, 3), np.uint8)
        path = folder / LABELS[number % 2] / f"{number:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(tf.io.encode_png(pixels).numpy())
    return folder


@pytest.mark.parametrize("mode", ["exact", "hash"])
def test_images_are_checked_and_their_bytes_kept(tmp_path, mode):
    photos = write_photos(tmp_path / "photos")
    (photos / "good" / "broken.png").write_bytes(b"no image")
    (photos / "good" / "copy.png").write_bytes((photos / "good" / "000.png").read_bytes())
    shards = write_shards(photos, tmp_path / "out", kind="image", split=mode, shards=2)
    dropped = {entry.reason.partition(":")[0]: entry.rows for entry in shards.report.dropped}
    assert dropped == {"unreadable": 1, "duplicate": 1}
    facts = shards.report.images
    assert (facts.formats, facts.smallest, facts.largest) == ({"PNG": 25}, (24, 20), (24, 22))
    data = load_sharded_data(tmp_path / "out")
    stored = {image for split in (data.train.sample, data.validation, data.test) for image in split.images}
    assert stored == {path.read_bytes() for path in photos.rglob("[0-9]*.png")}
    again = load_image_data(f"{tmp_path / 'out'}/train-*.tfrecord", validation_fraction=0.2)
    assert again.classes == shards.classes
    with pytest.raises(DataError, match=r"broken\.png"):
        write_shards(photos, tmp_path / "third", kind="image", split=mode, unreadable="refuse")
