"""Data that cannot be used: one error each, naming the place and the cure."""

from __future__ import annotations

import errno
import json
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from tfapp.data.text import TextData, load_text_data
from tfapp.errors import DataError, OutputError

ROWS = [(f"text number {number}", ("neg", "pos")[number % 2]) for number in range(12)]
CSV = "text,label\n" + "".join(f"{text},{label}\n" for text, label in ROWS)
JSONL = "".join(json.dumps({"text": text, "label": label}) + "\n" for text, label in ROWS)


def refusal(source, **options) -> str:
    with pytest.raises(DataError) as caught:
        load_text_data(source, **options)
    return str(caught.value)


@pytest.fixture
def write(tmp_path):
    def write_file(name: str, content: str | bytes) -> Path:
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write_file


def test_missing_file_names_the_one_beside_it(write, tmp_path):
    write("reviews.csv", CSV)
    assert (
        refusal(tmp_path / "review.csv")
        == f"{tmp_path / 'review.csv'} does not exist. Did you mean 'reviews.csv'?"
    )


def test_missing_folder(tmp_path):
    assert f"there is no folder {tmp_path / 'none'}" in refusal(tmp_path / "none" / "data.csv")


def test_missing_test_file_is_found_before_training(write, tmp_path):
    assert "tset.csv does not exist" in refusal(write("a.csv", CSV), test=tmp_path / "tset.csv")


@pytest.mark.parametrize("content", ["", "\n \n", "\ufeff"])
@pytest.mark.parametrize("name", ["data.csv", "data.tsv", "data.jsonl"])
def test_empty_file(name, content, write):
    message = refusal(write(name, content))
    assert name in message
    assert "is empty" in message or "no column 'text'" in message


def test_header_without_rows(write):
    path = write("data.csv", "text,label\n")
    assert refusal(path) == f"{path} holds no rows below its header."


@pytest.mark.parametrize(
    "source", [[], ([], []), pd.DataFrame({"text": [], "label": []})], ids=["pairs", "lists", "frame"]
)
def test_nothing_in_memory(source):
    assert refusal(source) == "source holds no rows."


def test_wrong_column_lists_the_columns_and_the_nearest(write):
    path = write("data.csv", CSV)
    message = refusal(path, label="labels")
    assert message.startswith(
        f"{path} has no column 'labels'; its columns are 'text', 'label'. Did you mean 'label'?"
    )
    assert "label=..." in message


def test_missing_column_in_every_format(write, tmp_path):
    frame = pd.DataFrame(ROWS, columns=["text", "label"])
    frame.to_parquet(tmp_path / "data.parquet")
    for source in (write("a.tsv", "text\tlabel\na\tb\n"), tmp_path / "data.parquet", frame):
        assert "has no column 'review'; its columns are 'text', 'label'" in refusal(source, text="review")


def test_missing_key_names_the_line(write):
    path = write("data.jsonl", JSONL + '{"text": "x", "lable": "neg"}\n')
    assert refusal(path).startswith(
        f"{path}, line 13 has no key 'label'; its keys are 'text', 'lable'. Did you mean 'lable'?"
    )


def test_file_without_a_header(write):
    assert "first row of the file must name the columns" in refusal(write("data.csv", CSV.split("\n", 1)[1]))


def test_one_column_for_both(write):
    assert "name the same column" in refusal(write("data.csv", CSV), label="text")


def test_repeated_column(write):
    assert "has the column 'text' more than once" in refusal(write("data.csv", "text,label,text\na,b,c\n"))


@pytest.mark.parametrize(
    ("label", "said"),
    [
        ("two\nlines", "the label 'two\\nlines' holds a line break"),
        ("two\u2028lines", "the label 'two\\u2028lines' holds a line break"),
        ("half \ud83d", "the label holds half a surrogate pair ('\\ud83d')"),
        ("a\0b", "the label holds NUL"),
    ],
)
@pytest.mark.parametrize("split", ["train", "test"])
def test_a_class_name_that_files_cannot_hold_is_refused_with_its_place(write, label, said, split):
    path = write("data.jsonl", JSONL + json.dumps({"text": "x", "label": label}) + "\n")
    message = refusal(path) if split == "train" else refusal(ROWS, test=path)
    assert message.startswith(f"{path}, line 13: {said}")


def test_one_class_only(write):
    path = write("data.csv", "text,label\na,pos\nb,pos\nc,pos\n")
    message = refusal(path)
    assert message.startswith(
        f"{path}: the usable rows hold only the class 'pos'; a classifier needs at least two."
    )


def test_class_with_fewer_rows_than_the_split_needs():
    message = refusal([*ROWS, ("x", "rare"), ("y", "rare"), ("z", "odd")])
    assert (
        "2 classes with fewer than 3 rows, one each for train, test, validation: 'odd' (1), 'rare' (2)."
        in message
    )
    assert "merge or remove these classes" in message


def test_class_that_cleaning_made_too_small_says_so():
    message = refusal([*ROWS, ("x", "rare"), ("x", "rare"), (" x", "rare")])
    assert "'rare' (1). Cleaning left out 2 rows (duplicate)." in message


def test_training_rows_that_all_stand_in_test():
    assert "Cleaning left out 12 rows (also in test)." in refusal(ROWS, test=ROWS)


def test_split_that_cleaning_empties():
    message = refusal(ROWS, validation=[("x", "neg")], test=[("x", "pos")])
    assert message.startswith("no rows are left for validation: 1 row (also in test).")


def test_empty_texts(write):
    path = write("data.csv", "text,label\n,neg\n  ,pos\n\u3000,neg\nx,pos\n")
    message = refusal(path)
    assert message.startswith(f"3 of 4 rows of train have empty text (the first: {path}, row 2)")
    assert "text=..." in message


def test_labels_mostly_missing(write):
    path = write("data.csv", "text,label,class\na,,x\nb,,y\nc,neg,x\n")
    assert f"2 of 3 rows of train have missing label (the first: {path}, row 2)" in refusal(path)


@pytest.mark.parametrize(
    ("encoding", "line", "offset"), [("latin-1", 14, len(CSV) + 3), ("gb18030", 14, len(CSV) + 3)]
)
def test_undecodable_bytes(encoding, line, offset, write):
    path = write("data.csv", (CSV + "caf\u00e9 ol\u00e9,pos\n").encode(encoding))
    message = refusal(path)
    assert message.startswith(f"{path}, line {line} is not utf-8: byte 0x")
    assert f"at byte offset {offset}." in message
    assert "encoding='" in message
    assert len(load_text_data(path, encoding=encoding).train) > 0


def test_undecodable_bytes_after_a_byte_order_mark_and_a_chunk(write, monkeypatch):
    monkeypatch.setattr("tfapp.data.readers.decoding._LARGE_CHUNK", 16)
    content = b"\xef\xbb\xbf" + CSV.replace("number", "n\u00famero").encode()
    assert len(load_text_data(write("good.csv", content)).classes) == 2
    assert f"line 14 is not utf-8: byte 0xff at byte offset {len(content)}" in refusal(
        write("data.csv", content + b"\xff,neg\n")
    )


def test_encoding_that_suits_is_suggested(write):
    content = "text,label\n" + "".join(f"酒店很好 {i},{i % 2}\n" for i in range(9))
    assert "encoding='gb18030'" in refusal(write("data.csv", content.encode("gbk")))


def test_utf16_is_recognised(write):
    path = write("data.csv", CSV.encode("utf-16"))
    assert refusal(path) == f"{path} begins with the byte order mark of UTF-16; pass encoding='utf-16'."
    assert load_text_data(path, encoding="utf-16").classes == ("neg", "pos")


@pytest.mark.parametrize("encoding", ["utf-88", "base64", ""])
def test_unknown_encoding(encoding, write):
    assert f"encoding={encoding!r} is unknown." in refusal(write("data.csv", CSV), encoding=encoding)


def test_nul_bytes(write):
    path = write("data.csv", CSV + "a\0b,neg\n")
    assert refusal(path).startswith(f"{path}, line 14 holds a NUL byte (byte offset {len(CSV) + 1})")


@pytest.mark.parametrize(("escape", "fault"), [("\\u0000", "NUL"), ("\\ud83d", "half a surrogate pair")])
def test_characters_that_cannot_be_written(escape, fault, write):
    path = write("data.jsonl", JSONL + f'{{"text": "a{escape}", "label": "neg"}}\n')
    assert refusal(path).startswith(f"{path}, line 13: the text holds {fault}")


@pytest.mark.parametrize("nan", [float("nan"), float("inf"), np.float32("nan")])
def test_nan_labels_in_memory(nan):
    texts = [text for text, _ in ROWS]
    assert "source, index 11: the label is" in refusal((texts, [0.0, 1.0] * 5 + [0.0, nan]))
    assert "source, index 11: the label is" in refusal((texts, np.array([0.0, 1.0] * 5 + [0.0, nan])))


def test_nan_labels_in_a_frame():
    frame = pd.DataFrame(ROWS, columns=["text", "label"])
    frame.loc[[3, 5], "label"] = None
    message = refusal(frame)
    assert message.startswith(
        "source, index 3 has a missing label (NaN or None in 'label'; 2 such rows in all)."
    )
    assert "frame.dropna(subset=['label'])" in message


@pytest.mark.parametrize(
    ("name", "content", "place"),
    [
        ("data.csv", "text,label\na,1\nb,0\nc,nan\nd,1\n", "row 4"),
        ("data.jsonl", JSONL + '{"text": "x", "label": NaN}\n', "line 13"),
    ],
)
def test_nan_labels_in_files(name, content, place, write):
    path = write(name, content)
    assert refusal(path) == f"{path}, {place}: the label is nan, no class; label or remove such rows."


def test_nan_labels_in_parquet(tmp_path):
    path = tmp_path / "data.parquet"
    pd.DataFrame({"text": ["a", "b"], "label": pd.array([1.0, float("nan")])}).to_parquet(path)
    table = pq.read_table(path).set_column(1, "label", [[1.0, float("nan")]])
    pq.write_table(table, path)
    assert refusal(path) == f"{path}, row 2: the label is nan, no class; label or remove such rows."


@pytest.mark.parametrize("label", [["a"], {"a": 1}])
def test_labels_of_several_values(label, write):
    path = write("data.jsonl", JSONL + json.dumps({"text": "x", "label": label}) + "\n")
    assert refusal(path) == f"{path}, line 13: the label is {label!r}; every row needs one single value."


def test_one_hot_labels():
    assert "labels.argmax(-1)" in refusal((["a", "b"], np.eye(2)))


@pytest.mark.parametrize(("row", "cells"), [("a,neg,1", "3 cells"), ("a", "1 cell")])
@pytest.mark.parametrize("name", ["data.csv", "data.tsv"])
def test_ragged_rows(name, row, cells, write):
    content = CSV + row + "\nlast,neg\n"
    path = write(name, content.replace(",", "\t") if name.endswith("tsv") else content)
    message = refusal(path)
    assert message.startswith(f"{path}, row 14 has {cells} where the header has 2")
    assert "Quote cells" in message


def test_ragged_rows_are_counted(write):
    assert "(3 such rows in all)" in refusal(write("data.csv", CSV + "a\nb\nc,d,e\n"))


def test_quote_that_is_never_closed(write):
    path = write("data.csv", CSV + '"never closed,neg\nlast,pos\n')
    message = refusal(path)
    assert message.startswith(f"{path}, row 14 has 1 cell where the header has 2")
    assert "quotation mark in it is never closed" in message


@pytest.mark.parametrize(
    "line", ['{"text": "a", "label"', "not json", '{"text": "a"} {"b": 1}', "[" * 100_000]
)
def test_malformed_json_line(line, write):
    path = write("data.jsonl", JSONL + line + "\n")
    assert refusal(path).startswith(f"{path}, line 13 is not valid JSON: ")


def test_json_that_is_one_array(write):
    assert "write one object a line" in refusal(
        write("data.json", json.dumps([{"text": "a", "label": "b"}], indent=1))
    )
    assert "write one object a line" in refusal(write("data.json", json.dumps([{"text": "a", "label": "b"}])))


def test_json_text_that_is_no_string(write):
    assert "line 13: 'text' is 3, not a string" in refusal(
        write("a.jsonl", JSONL + '{"text": 3, "label": "neg"}\n')
    )


@pytest.mark.parametrize("split", ["validation", "test"])
def test_unknown_class_in_a_held_out_split(split, write):
    path = write("other.csv", "text,label\nx,neg\ny,posi\nz,new\n")
    message = refusal(ROWS, **{split: path})
    assert message.startswith(
        f"{path}, row 3: the label 'posi' of {split} does not occur in the training rows"
    )
    assert "whose classes are 'neg', 'pos'. Did you mean 'pos'? Neither do 'new'." in message
    assert f"Correct 2 rows of {split}" in message


@pytest.mark.parametrize("content", [b"PAR1 cut", CSV.encode(), b""])
def test_damaged_parquet(content, write):
    path = write("data.parquet", content)
    assert refusal(path).startswith(f"{path} is damaged or no Parquet file: ")


def test_parquet_cut_in_the_middle(tmp_path):
    path = tmp_path / "data.parquet"
    pd.DataFrame(ROWS, columns=["text", "label"]).to_parquet(path)
    path.write_bytes(path.read_bytes()[:-40])
    assert "is damaged" in refusal(path)


def test_parquet_texts_that_are_numbers(tmp_path):
    path = tmp_path / "data.parquet"
    pd.DataFrame({"text": [1, 2], "label": [0, 1]}).to_parquet(path)
    assert refusal(path) == f"{path}: the column 'text' holds int64, not texts; name another with text=..."


def test_pattern_that_matches_nothing(tmp_path):
    pattern = str(tmp_path / "part-*.csv")
    assert (
        refusal(pattern) == f"source={pattern!r} matches no files; check the pattern and the current folder."
    )


def test_shard_with_other_columns_is_named(write, tmp_path):
    write("a-1.csv", CSV)
    path = write("a-2.csv", "text,stars\nx,1\n")
    assert refusal(str(tmp_path / "a-*.csv")).startswith(f"{path} has no column 'label'")


def test_shards_of_several_formats(write, tmp_path):
    write("a.csv", CSV)
    write("a.jsonl", JSONL)
    assert "matches files of several formats" in refusal(str(tmp_path / "a.*"))


def test_unknown_packaged_data_set():
    message = refusal("bbc-new")
    assert message.startswith("source='bbc-new' is no file or folder here and no packaged data set;")
    assert "'bbc-news'" in message


def test_unsupported_suffix_and_format(write):
    path = write("data.xlsx", CSV)
    assert "has the suffix '.xlsx', which names no format; pass format=..., one of csv, tsv" in refusal(path)
    assert "format='cvs' is unknown; did you mean 'csv'?" in refusal(path, format="cvs")
    assert load_text_data(path, format="csv").classes == ("neg", "pos")


@pytest.mark.parametrize("fraction", [0, 1, -0.1, 1.5, float("nan"), "0.1", True, None])
@pytest.mark.parametrize("split", ["validation", "test"])
def test_bad_fraction(split, fraction):
    message = refusal(ROWS, **{f"{split}_fraction": fraction})
    assert message.startswith(f"{split}_fraction={fraction!r} must lie between 0 and 1")


def test_fractions_that_leave_nothing_to_train_on():
    assert "test_fraction + validation_fraction is 1 and leaves no rows" in refusal(
        ROWS, test_fraction=0.7, validation_fraction=0.3
    )


def test_fractions_that_are_not_used_are_not_judged():
    assert len(load_text_data(ROWS, test=[("x", "neg")], test_fraction=0).test) == 1


def test_folder_without_class_folders(write, tmp_path):
    write("part-1.csv", CSV)
    message = refusal(tmp_path)
    assert message.startswith(
        f"{tmp_path} has no sub-folders; a folder of texts needs one sub-folder per class."
    )
    assert str(tmp_path / "*.csv") in message


def test_class_folder_without_texts(tmp_path):
    (tmp_path / "neg").mkdir()
    assert "the class folder" in refusal(tmp_path)
    (tmp_path / "neg" / "a.pdf").write_bytes(b"%PDF")
    assert f"{tmp_path / 'neg'} holds no .txt files (only 'a.pdf')" in refusal(tmp_path)


def test_nested_folders(tmp_path):
    (tmp_path / "train" / "neg").mkdir(parents=True)
    message = refusal(tmp_path)
    assert f"the class folder {tmp_path / 'train'} holds folders ('neg')" in message
    assert f"as '{tmp_path / 'train'}'" in message


def test_undecodable_file_in_a_folder(tmp_path):
    for name in ("neg", "pos"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.txt").write_bytes("caf\u00e9".encode("latin-1") if name == "pos" else b"x")
    assert refusal(tmp_path).startswith(
        f"{tmp_path / 'pos' / '1.txt'}, line 1 is not utf-8: byte 0xe9 at byte offset 3."
    )


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (3, "source is a int; give a path"),
        (None, "source is a NoneType; give a path"),
        ("", "source is an empty path"),
        (("a", 1), "source is one (text, label) pair"),
        ((["a"], [1, 2]), "source has 1 texts and 2 labels"),
        (["ab", "cd"], "source, index 0 is 'ab', not a (text, label) pair"),
        ([("a", 1), (2, 1)], "source, index 1: the text is 2 (int), not a string"),
        ([(b"\xff", 1)], "source, index 0 is not UTF-8 (byte offset 0)"),
        (
            pd.DataFrame({"text": [1, 2], "label": [0, 1]}),
            "source, index 0: the text is 1 (int), not a string",
        ),
    ],
)
def test_objects_that_are_no_data(source, said):
    assert refusal(source).startswith(said)


class Dataset:
    """Looks like a tf.data.Dataset."""

    def __init__(self, elements, cardinality):
        self.elements, self.size = elements, cardinality

    def cardinality(self):
        return self.size

    def as_numpy_iterator(self):
        return iter(self.elements)


@pytest.mark.parametrize(
    ("elements", "cardinality", "said"),
    [
        ([], -1, "source is an infinite dataset; take a part of it with .take(n)"),
        ([b"a"], -2, "source, element 0 is no (text, label) pair"),
        ([(b"a", np.array([0, 1]))], 1, "source, element 0 has texts of shape () and labels of shape (2,)"),
        ([{"review": b"a", "label": 0}], 1, "source, element 0 has no key 'text'"),
        ([(b"\xff", 0)], 1, "source, index 0 is not UTF-8"),
    ],
)
def test_datasets_that_cannot_be_read(elements, cardinality, said):
    assert refusal(Dataset(elements, cardinality)).startswith(said)


def test_saving_where_nothing_may_be_written(tmp_path):
    (tmp_path / "file").write_text("in the way")
    data = load_text_data(ROWS)
    with pytest.raises(OutputError, match=r"cannot be written \(Not a directory\); choose a folder"):
        data.save(tmp_path / "file" / "data")


def test_saving_into_a_folder_whose_name_is_too_long(tmp_path):
    with pytest.raises(OutputError, match=r"cannot be written \(File name too long\); choose a folder"):
        load_text_data(ROWS).save(tmp_path / ("x" * 300))


@pytest.mark.parametrize("name", ["thesis.txt", "train.parquet"])
def test_saving_over_something_else(tmp_path, name):
    (tmp_path / name).write_text("three years")
    with pytest.raises(OutputError, match="exists and holds no saved data"):
        load_text_data(ROWS).save(tmp_path)
    assert [entry.name for entry in tmp_path.iterdir()] == [name]


def test_a_full_disk_leaves_what_was_there(tmp_path, monkeypatch):
    first = load_text_data(ROWS)
    first.save(tmp_path / "data")
    write_table = pq.write_table

    def write_half(table, where, **options):
        write_table(table, where, **options)
        if Path(where).name.startswith("test-"):
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("tfapp.data.storage.pq.write_table", write_half)
    with pytest.raises(
        OutputError, match=r"data: the disk is full, \d+ MB are free; free some space; nothing was"
    ):
        load_text_data(ROWS, seed=2).save(tmp_path / "data")
    assert len(list((tmp_path / "data").iterdir())) == 4
    assert TextData.load(tmp_path / "data").fingerprint == first.fingerprint


def test_a_broken_disk_is_named(tmp_path, monkeypatch):
    def fail(table, where, **options):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr("tfapp.data.storage.pq.write_table", fail)
    with pytest.raises(OutputError, match=r"data: cannot be written \(Input/output error\); nothing was"):
        load_text_data(ROWS).save(tmp_path / "data")


def test_a_full_disk_leaves_no_new_folder(tmp_path, monkeypatch):
    def write_nothing(table, where, **options):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("tfapp.data.storage.pq.write_table", write_nothing)
    with pytest.raises(OutputError, match="the disk is full"):
        load_text_data(ROWS).save(tmp_path / "data")
    assert list(tmp_path.iterdir()) == []


KILLED_SAVE = """
import os, signal, sys
from tfapp.data.text import load_text_data
rows = [(f"text number {number}", ("neg", "pos")[number % 2]) for number in range(12)]
data = load_text_data(rows, seed=2)
real, calls = os.replace, iter(range(100))
def replace(source, target):
    if next(calls) == int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)
    real(source, target)
os.replace = replace
data.save(sys.argv[1])
"""


@pytest.mark.parametrize("step", range(4))
@pytest.mark.parametrize("before", [True, False])
def test_a_killed_save_leaves_the_old_data_and_its_leftovers_go_with_the_next(tmp_path, before, step):
    folder, first = tmp_path / "data", load_text_data(ROWS)
    if before:
        first.save(folder)
    killed = subprocess.run([sys.executable, "-c", KILLED_SAVE, str(folder), str(step)])
    assert killed.returncode == -signal.SIGKILL
    if before:
        assert TextData.load(folder).fingerprint == first.fingerprint
    third = load_text_data(ROWS, seed=3)
    third.save(folder)
    assert TextData.load(folder).fingerprint == third.fingerprint
    assert len(list(folder.iterdir())) == 4
    assert [entry.name for entry in tmp_path.iterdir()] == ["data"]


def test_loading_what_was_never_saved(tmp_path):
    with pytest.raises(DataError, match="holds no saved data"):
        TextData.load(tmp_path)


@pytest.mark.parametrize("damage", ["cut", "remove", "change", "report"])
def test_loading_damaged_data(damage, tmp_path):
    folder = load_text_data(ROWS).save(tmp_path / "data")
    (file,) = folder.glob("train-*.parquet")
    (other,) = folder.glob("test-*.parquet")
    if damage == "cut":
        file.write_bytes(file.read_bytes()[:-20])
    elif damage == "remove":
        file.unlink()
    elif damage == "change":
        file.write_bytes(other.read_bytes())
    else:
        (folder / "report.json").write_text("{}")
    with pytest.raises(DataError, match=r"damaged|not what was saved"):
        TextData.load(folder)
