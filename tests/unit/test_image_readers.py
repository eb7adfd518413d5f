"""Sources of images: what is found in them, and what is said when they cannot be used."""

from __future__ import annotations

import bz2
import errno
import gzip
import io
import json
import lzma
import os
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from photographs import photograph, write_classes, write_image

from tfapp.data.readers.image_table import DAMAGED
from tfapp.data.readers.images import read_image_sources
from tfapp.data.readers.table import Columns
from tfapp.errors import DataError

COLUMNS = Columns("path", "label", keyword="image")


def read(source, columns=COLUMNS, **given):
    format = given.pop("format", None)
    given = {"train": source, "validation": None, "test": None, **given}
    return read_image_sources(given, columns, format=format)


def refusal(source, columns=COLUMNS, **given) -> str:
    with pytest.raises(DataError) as caught:
        read(source, columns, **given)
    return str(caught.value)


def listed(found):
    return [
        (Path(found.images.name(row)).name, label) for row, label in enumerate(found.table.labels.tolist())
    ]


@pytest.fixture(scope="module")
def classes(tmp_path_factory):
    return write_classes(tmp_path_factory.mktemp("images") / "pets", {"cat": 2, "dog": 3})


EXPECTED = [(f"{number:03}.png", "cat") for number in range(2)] + [
    (f"{number:03}.png", "dog") for number in range(3)
]


def test_a_folder_per_class(classes, caplog):
    (classes / ".DS_Store").write_bytes(b"")
    (classes / "cat" / ".hidden.png").write_bytes(b"")
    (classes / "cat" / "notes.txt").write_text("mine")
    found = read(classes)["train"]
    assert listed(found) == EXPECTED
    assert found.images[0] == (classes / "cat" / "000.png").read_bytes()
    assert "1 file with no suffix of images left out (the first: " in caplog.text
    (classes / "cat" / "notes.txt").unlink()


@pytest.mark.parametrize(
    "names", [("train", "validation", "test"), ("train", "valid"), ("Train", "val", "test")]
)
def test_folders_of_splits_above_the_classes(tmp_path, names):
    for number, name in enumerate(names):
        write_classes(tmp_path / name, {"cat": 1, "dog": 1 + number})
    found = read(tmp_path)
    assert {split: len(part) for split, part in found.items()} == dict(
        zip(("train", "validation", "test"), (2, 3, 4)[: len(names)], strict=False)
    )
    assert found["train"].origin == f"{tmp_path}, {names[0]}"


def test_folders_of_splits_that_are_not_clear(tmp_path):
    write_classes(tmp_path / "train", {"cat": 1})
    write_classes(tmp_path / "val", {"cat": 1})
    assert "holds a folder 'val', and validation=... gives that split too" in refusal(
        tmp_path, validation=tmp_path / "val"
    )
    write_classes(tmp_path / "valid", {"cat": 1})
    assert "holds the validation images twice, in 'val' and 'valid'" in refusal(tmp_path)
    write_classes(tmp_path / "bird", {"x": 1})
    assert "holds folders of splits ('train', 'val', 'valid') and other folders ('bird')" in refusal(tmp_path)


def test_classes_may_be_named_as_splits(tmp_path):
    write_classes(tmp_path, {"train": 1, "tram": 1})
    assert [label for _, label in listed(read(tmp_path)["train"])] == ["train", "tram"]


def test_folders_that_hold_no_classes(tmp_path):
    assert "has no sub-folders; a folder of images needs one sub-folder per class" in refusal(tmp_path)
    (tmp_path / "cat").mkdir()
    assert "holds no images (no files at all)" in refusal(tmp_path)
    (tmp_path / "cat" / "notes.txt").write_text("x")
    assert "holds no images (only 'notes.txt')" in refusal(tmp_path)
    (tmp_path / "cat" / "young").mkdir()
    assert "holds folders ('young'), not only images" in refusal(tmp_path)


def write_list(kind: str, folder: Path) -> Path:
    rows = pd.DataFrame(
        [(f"pets/{label}/{name}", label, f"box {name[2]}") for name, label in EXPECTED],
        columns=["path", "label", "box"],
    )
    path = folder / f"list.{kind}"
    if kind == "parquet":
        rows.to_parquet(path)
    elif kind == "jsonl":
        rows.to_json(path, orient="records", lines=True)
    else:
        rows.to_csv(path, index=False, sep="\t" if kind == "tsv" else ",")
    return path


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl", "parquet"])
def test_lists_of_paths_beside_the_list_with_groups(kind, classes, monkeypatch):
    monkeypatch.chdir("/")
    found = read(write_list(kind, classes.parent), Columns("path", "label", "box", "image"))["train"]
    assert listed(found) == EXPECTED
    assert found.images[1] == (classes / "cat" / "001.png").read_bytes()
    assert found.table.groups.tolist() == ["box 0", "box 1", "box 0", "box 1", "box 2"]


def test_rows_in_memory(classes, monkeypatch):
    monkeypatch.chdir(classes.parent)
    paths = [f"pets/{label}/{name}" for name, label in EXPECTED]
    labels = [label for _, label in EXPECTED]
    frame = pd.DataFrame({"path": paths, "label": labels, "box": [1, 1, None, 2, ""]})
    grouped = read(frame, Columns("path", "label", "box", "image"))["train"]
    assert grouped.table.groups.tolist() in (["1.0", "1.0", None, "2.0", None], ["1", "1", None, "2", None])
    for source in (
        frame,
        (paths, labels),
        ([Path(path) for path in paths], labels),
        list(zip(paths, labels, strict=True)),
    ):
        assert listed(read(source)["train"]) == EXPECTED


def test_lists_that_lack_a_column_or_a_path(classes):
    path = write_list("csv", classes.parent)
    message = refusal(path, Columns("image", "label", keyword="image"))
    assert "has no column 'image'; its columns are 'path', 'label', 'box'" in message
    assert "Name the right one with image=..." in message
    message = refusal(path, Columns("path", "label", "object", "image"))
    assert "has no column 'object'" in message
    assert "Name the right one with group=..." in message
    assert "label='box' and group='box' name the same column" in refusal(
        path, Columns("path", "box", "box", "image")
    )
    path.write_text("path,label\n,cat\nnone.png,dog\n")
    found = read(path)["train"]
    assert found.table.place(0) == f"{path}, row 2"
    assert found.table.place(1) == str(classes.parent / "none.png")
    assert found.images.lengths.tolist() == [-1, -1]


def example(**features) -> bytes:
    made = {}
    for name, value in features.items():
        name = name.replace("__", "/")
        if isinstance(value, bytes):
            made[name] = tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))
        elif isinstance(value, list):
            made[name] = tf.train.Feature(int64_list=tf.train.Int64List(value=value))
        elif isinstance(value, float):
            made[name] = tf.train.Feature(float_list=tf.train.FloatList(value=[value]))
        else:
            made[name] = tf.train.Feature(int64_list=tf.train.Int64List(value=[value]))
    return tf.train.Example(features=tf.train.Features(feature=made)).SerializeToString()


def write_shard(path: Path, records: list[bytes]) -> Path:
    with tf.io.TFRecordWriter(str(path)) as writer:
        for record in records:
            writer.write(record)
    return path


def test_tfrecord_shards_give_ranges_of_their_files(tmp_path):
    contents = [bytes([number]) * (200 + number) for number in range(6)]
    for shard in range(2):
        write_shard(
            tmp_path / f"train-{shard}.tfrecord",
            [
                example(image_bytes=contents[3 * shard + row], label=row - 1, tile=b"t%d" % row, width=3.5)
                for row in range(3)
            ],
        )
    columns = Columns("path", "label", "tile", "image")
    found = read(str(tmp_path / "train-*.tfrecord"), columns)["train"]
    assert list(found.images) == contents
    assert found.table.labels.tolist() == [-1, 0, 1] * 2
    assert found.table.groups.tolist() == ["t0", "t1", "t2"] * 2
    assert found.images.name(4) == f"{tmp_path / 'train-1.tfrecord'}, record 1"
    assert found.table.place(4) == found.images.name(4)


@pytest.mark.parametrize(
    "features",
    [
        {"image__encoded": b"pixels", "image__class__text": b"cat", "image__class__label": 4},
        {"image": b"pixels", "label": b"cat"},
        {"path": b"pixels", "label": b"cat", "image_bytes": b"other"},
    ],
)
def test_tfrecord_features_of_several_makers(tmp_path, features):
    found = read(write_shard(tmp_path / "a.tfrecords-00000-of-00001", [example(**features)]))["train"]
    assert (list(found.images), found.table.labels.tolist()) == ([b"pixels"], [b"cat"])


def test_the_first_record_chooses_the_features_of_all(tmp_path):
    first = example(image_bytes=b"one", image=b"other", label=b"cat", tile=b"a")
    path = write_shard(tmp_path / "a.tfrecord", [first, example(image=b"two", label=b"dog")])
    assert "a.tfrecord, record 1 has no feature 'image_bytes'; its features are" in refusal(path)
    assert list(read(path, Columns("image", "label", keyword="image"))["train"].images) == [b"other", b"two"]
    write_shard(tmp_path / "b.tfrecord", [example(image_bytes=b"one", image__class__label=1)])
    write_shard(path, [first])
    message = refusal(str(tmp_path / "*.tfrecord"))
    assert "b.tfrecord, record 0 has no feature 'label'" in message


@pytest.mark.parametrize(("image", "label"), [("pixels", "label"), ("path", "kind")])
def test_a_feature_that_is_named_is_required(tmp_path, image, label):
    path = write_shard(tmp_path / "a.tfrecord", [example(image_bytes=b"one", label=b"cat")])
    message = refusal(path, Columns(image, label, keyword="image"))
    named = image if image != "path" else label
    assert f"record 0 has no feature {named!r}; its features are '" in message


def test_a_record_whose_data_is_damaged_has_no_image_and_no_label(tmp_path):
    path = tmp_path / "a.tfrecord"
    write_shard(path, [example(image_bytes=bytes([n]) * 50, label=n, tile=b"t%d" % n) for n in range(4)])
    content = bytearray(path.read_bytes())
    content[content.index(bytes([2]) * 50) + 7] ^= 1
    path.write_bytes(content)
    found = read(path, Columns("path", "label", "tile", "image"))["train"]
    assert found.images.lengths.tolist() == [50, 50, DAMAGED, 50]
    assert found.table.labels.tolist() == [0, 1, None, 3]
    assert found.table.groups.tolist() == ["t0", "t1", None, "t3"]
    assert [found.images[row] for row in (0, 1, 3)] == [bytes([row]) * 50 for row in (0, 1, 3)]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ([b"no example \xff\xff\xff\xff\xff\xff"], "record 0 is no serialized tf.train.Example"),
        ([example(label=1)], "record 0 has no feature 'path'; its features are 'label'"),
        ([example(image_bytes=b"x", label=[1, 2])], "record 0: 'label' holds 2 values"),
        ([example(image_bytes=1, label=1)], "'image_bytes' holds no single image file"),
        (b"\x1f\x8b and so on", "is compressed"),
        (b"these are no records at all", "is no TFRecord file"),
        (b"short", "ends in the middle of record 0"),
        (b"", "holds no images"),
    ],
)
def test_shards_that_cannot_be_used(tmp_path, content, said):
    path = tmp_path / "a.tfrecord"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        write_shard(path, content)
    assert said in refusal(path)


@pytest.mark.parametrize(
    ("damage", "said"), [(-20, "ends in the middle of record 1"), (45, "damaged at record")]
)
def test_damaged_shards_name_the_record(tmp_path, damage, said):
    path = write_shard(tmp_path / "a.tfrecord", [example(image_bytes=b"12", label=1)] * 2)
    content = bytearray(path.read_bytes())
    if damage < 0:
        content = content[:damage]
    else:
        content[len(content) // 2] ^= 255  # in the length of the second record
    path.write_bytes(content)
    assert said in refusal(path)


@pytest.mark.parametrize(
    ("pixels", "said"),
    [
        (np.random.default_rng(0).random((2, 4, 4, 3)), "of type float64"),
        (np.ones((2, 4, 4), np.float32), "use (images * 255).round().astype('uint8')"),
        (np.full((2, 4, 4), 200.0), "use images.astype('uint8')"),
        (np.zeros((2, 4, 4), np.int64), "of type int64"),
        (np.zeros((2, 3, 4, 5), np.uint8), "use images.transpose(0, 2, 3, 1)"),
        (np.zeros((2, 16), np.uint8), "of shape (2, 16)"),
        (np.zeros((2, 0, 4), np.uint8), "of shape (2, 0, 4)"),
        (np.zeros((3, 4, 4), np.uint8), "has 3 images and 2 labels"),
    ],
)
def test_arrays_that_cannot_be_used(pixels, said):
    assert said in refusal((pixels, ["a", "b"]))


def test_arrays_and_tensors():
    pixels = np.stack([photograph(seed, 8, 8) for seed in range(3)])
    for source in ((pixels, np.array([0, 1, 1])), (tf.constant(pixels), [0, 1, 1])):
        found = read(source)["train"]
        assert len(found.images) == 3
        assert found.table.labels.tolist() == [0, 1, 1]
        np.testing.assert_array_equal(tf.io.decode_bmp(found.images[2]), pixels[2])


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (np.zeros((2, 4, 4), np.uint8), "source is an array of images without labels"),
        (7, "source is a int; give a folder of class folders"),
        ("", "source is an empty path"),
        ("bbc-news", "is a packaged data set of texts, read by load_text_data"),
        ("elpw", "no packaged data set; did you mean 'elpv'?"),
        ("none.tfrecord", "none.tfrecord does not exist"),
        ("list.xml", "does not exist"),
    ],
)
def test_other_things(source, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert said in refusal(source)
    assert "format='pickle' is unknown" in refusal(source, format="pickle")


def archive_of(folder: Path, path: Path) -> Path:
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            for file in sorted(folder.rglob("*.png")):
                archive.write(file, file.relative_to(folder.parent))
    else:
        with tarfile.open(path, "w:gz" if path.suffix != ".tar" else "w") as archive:
            archive.add(folder, folder.name)
    return path


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TFAPP_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "archives"


@pytest.mark.parametrize("name", ["pets.tar", "pets.tar.gz", "pets.tgz", "pets.zip"])
def test_archives_are_unpacked_once(name, classes, tmp_path, cache):
    path = archive_of(classes, tmp_path / name)
    found = read(path)["train"]
    assert listed(found) == EXPECTED
    assert found.origin == str(path)
    (folder,) = (entry for entry in cache.iterdir() if entry.is_dir())
    before = folder.stat().st_mtime_ns
    read(path)
    assert folder.stat().st_mtime_ns == before


def test_an_archive_is_meant_by_its_format_or_by_a_pattern_that_matches_one(classes, tmp_path, cache):
    path = archive_of(classes, tmp_path / "pets-1.tar")
    assert listed(read(str(tmp_path / "pets-*.tar"))["train"]) == EXPECTED
    unnamed = path.rename(tmp_path / "pets")
    assert listed(read(unnamed, format="archive")["train"]) == EXPECTED
    for number in range(2):
        archive_of(classes, tmp_path / f"pets-{number}.tar")
    for format in (None, "archive"):
        message = refusal(str(tmp_path / "pets-*.tar"), format=format)
        assert "matches 2 archives; give one of them, or unpack them into one folder" in message
    assert "is no folder, but format='folder'" in refusal(tmp_path / "pets-0.tar", format="folder")
    assert "is a folder, but format='archive'; leave format out" in refusal(classes, format="archive")
    assert "does not exist. Did you mean 'pets-" in refusal(tmp_path / "pets-3.tar")


def hostile(path: Path, name: str, kind: bytes) -> Path:
    with tarfile.open(path, "w") as archive:
        member = tarfile.TarInfo(name)
        member.type, member.linkname = kind, "/etc/passwd"
        member.size = 4 if kind == tarfile.REGTYPE else 0
        archive.addfile(member, io.BytesIO(b"data"))
    return path


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("../outside.png", tarfile.REGTYPE),
        ("/absolute.png", tarfile.REGTYPE),
        ("a/../../x.png", tarfile.REGTYPE),
        ("c:\\x.png", tarfile.REGTYPE),
        ("link.png", tarfile.SYMTYPE),
        ("hard.png", tarfile.LNKTYPE),
        ("pipe.png", tarfile.FIFOTYPE),
    ],
)
def test_archives_that_lead_elsewhere_are_not_unpacked(name, kind, tmp_path, cache):
    path = hostile(tmp_path / "bad.tar", name, kind)
    assert "a path that leads elsewhere; it was not unpacked" in refusal(path)
    assert [entry.suffix for entry in cache.iterdir()] == [".lock"]
    assert not (tmp_path / "outside.png").exists()


def test_zip_links_are_not_unpacked(tmp_path, cache):
    with zipfile.ZipFile(tmp_path / "bad.zip", "w") as archive:
        info = zipfile.ZipInfo("link.png")
        info.external_attr = 0o120777 << 16
        archive.writestr(info, "/etc/passwd")
    assert "it was not unpacked" in refusal(tmp_path / "bad.zip")


def test_encrypted_archives(classes, tmp_path, cache):
    path = archive_of(classes, tmp_path / "pets.zip")
    content = bytearray(path.read_bytes())
    for signature, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(signature) + flags] |= 1
    path.write_bytes(content)
    assert "pets.zip is encrypted: unpack it first, and pass the folder" in refusal(path)


@pytest.mark.parametrize("name", ["bad.tar", "bad.tar.gz", "bad.zip", "cut.tar.gz", "cut.tar", "cut.zip"])
def test_damaged_archives(name, classes, tmp_path, cache):
    path = tmp_path / name
    if name.startswith("bad"):
        path.write_bytes(b"this is no archive" * 100)
    else:
        content = archive_of(classes, path).read_bytes()
        path.write_bytes(content[: len(content) // 2])
    assert "is damaged or no such archive" in refusal(path)
    assert [entry.suffix for entry in cache.iterdir()] == [".lock"]


def test_archives_that_grow_too_much(tmp_path, cache, monkeypatch):
    monkeypatch.setattr("tfapp.data.archives._ALWAYS_ALLOWED", 10_000)
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/b.png", b"\0" * 10_000_000)
    assert "holds far more than its size lets expect" in refusal(tmp_path / "bomb.zip")


def refused_tar(path: Path, members: list[tuple[tarfile.TarInfo, bytes]], mode: str = "w") -> str:
    with tarfile.open(path, mode, format=tarfile.PAX_FORMAT) as archive:
        for member, content in members:
            archive.addfile(member, io.BytesIO(content))
    message = refusal(path)
    assert message.startswith(f"{path} ")
    return message


def member(name: str, content: bytes = b"", **fields) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for field, value in fields.items():
        setattr(info, field, value)
    return info, content


def test_archives_of_too_many_members(tmp_path, cache, monkeypatch):
    monkeypatch.setattr("tfapp.data.archive_members._MOST_MEMBERS", 50)
    empty = [member(f"a/{number}.png") for number in range(51)]
    folders = [member(f"a/{number}", type=tarfile.DIRTYPE) for number in range(51)]
    for members in (empty, folders):
        said = refused_tar(tmp_path / "many.tar", members)
        assert "holds more than 50 members; it was not unpacked" in said
    with zipfile.ZipFile(tmp_path / "many.zip", "w") as archive:
        for number in range(51):
            archive.writestr(f"a/{number}.png", b"")
    assert "holds more than 50 members" in refusal(tmp_path / "many.zip")


@pytest.mark.parametrize("suffix", ["tar", "tar.gz"])
def test_headers_that_would_fill_the_memory(tmp_path, cache, suffix):
    path, mode = tmp_path / f"bad.{suffix}", "w:gz" if suffix != "tar" else "w"
    comment = member("a/1.png", b"x", pax_headers={"comment": "x" * 3_000_000})
    assert "holds a header of more than 1 MB" in refused_tar(path, [member("a/0.png", b"x"), comment], mode)
    long = member("a" * 3_000_000, b"x")
    assert "holds a header of more than 1 MB" in refused_tar(path, [long], mode)


def test_many_small_headers_are_no_long_one(classes, tmp_path, cache):
    with tarfile.open(tmp_path / "pets.tar.xz", "w:xz") as archive:
        for number in range(3000):  # each takes 512 bytes
            archive.addfile(*member(f"pets/cat/{number}.tmp")[:1])
        archive.add(classes, "pets")
    assert listed(read(tmp_path / "pets.tar.xz", format="archive")["train"]) == EXPECTED


@pytest.mark.parametrize("names", [["a/b.png", "a/b.png/c.png"], ["a/" + "x" * 300 + ".png"]])
def test_members_that_cannot_be_files(tmp_path, cache, names):
    said = refused_tar(tmp_path / "bad.tar", [member(name, b"x") for name in names])
    assert f"holds {names[-1][:200]!r}, which cannot be a file here (" in said
    assert "rename it, or unpack the archive yourself and pass the folder" in said


def test_an_archive_or_a_cache_that_cannot_be_used(classes, tmp_path, monkeypatch):
    path = archive_of(classes, tmp_path / "pets.tar")
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("TFAPP_CACHE", str(tmp_path / "file"))
    message = refusal(path)
    assert f"{path} cannot be unpacked into the cache {tmp_path / 'file'}: " in message
    assert "make the cache writable, set TFAPP_CACHE to another folder" in message


def test_an_archive_on_a_broken_disk(classes, tmp_path, cache, monkeypatch):
    def fail(*_):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr("hashlib.file_digest", fail)
    path = archive_of(classes, tmp_path / "pets.tar")
    assert refusal(path) == (
        f"the archive {path} cannot be read: Input/output error; make it readable, or copy it again."
    )


@pytest.mark.parametrize("opener", [bz2.compress, lzma.compress])
def test_damage_within_a_compressed_archive(classes, tmp_path, cache, opener):
    path = tmp_path / "pets"
    content = bytearray(opener(archive_of(classes, tmp_path / "pets.tar").read_bytes()))
    content[len(content) // 2] ^= 255
    path.write_bytes(content)
    assert "is damaged or no such archive" in refusal(path, format="archive")


def test_a_damaged_header_is_not_the_end_of_an_archive(classes, tmp_path, cache):
    path = archive_of(classes, tmp_path / "pets.tar")
    with tarfile.open(path) as archive:
        header = archive.getmembers()[2].offset
    whole = path.read_bytes()
    path.write_bytes(whole[: header + 9] + b"?" + whole[header + 10 :])
    assert "is damaged or no such archive" in refusal(path)
    path.write_bytes(whole[: header + 100])
    assert "is damaged or no such archive" in refusal(path)


def test_the_checksum_behind_a_compressed_archive_is_verified(classes, tmp_path, cache):
    content = bytearray(gzip.compress(archive_of(classes, tmp_path / "pets.tar").read_bytes()))
    content[-8] ^= 1
    path = tmp_path / "pets.tar.gz"
    path.write_bytes(content)
    assert "is damaged or no such archive: CRC check failed" in refusal(path)


def test_json_lines_name_the_line_of_a_bad_path(tmp_path):
    write_image(tmp_path / "a.png", photograph(1))
    path = tmp_path / "list.jsonl"
    path.write_text(json.dumps({"path": 3, "label": "x"}))
    message = refusal(path)
    assert (
        message == f"{path}, line 1: 'path' is 3, not a string; quote it, or name another key with image=..."
    )
