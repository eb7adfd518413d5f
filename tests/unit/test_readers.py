"""What every reader reads, cell for cell."""

from __future__ import annotations

import codecs
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tfapp.data.readers import READERS, read_source
from tfapp.data.readers.table import Columns

ROWS = [("a good film", "pos"), ("a bad film", "neg"), ("naïve, “quoted”\nand 酒店", "pos")]


def read(source, **options):
    columns = Columns(options.pop("text", "text"), options.pop("label", "label"))
    defaults = {"name": "source", "format": None, "encoding": "utf-8"}
    return read_source(source, columns, **(defaults | options))


def pairs(table):
    return list(zip(table.texts.tolist(), table.labels.tolist(), strict=True))


def frame():
    return pd.DataFrame(ROWS, columns=["text", "label"])


def write(kind: str, path: Path, encoding: str = "utf-8") -> Path:
    if kind in ("csv", "tsv"):
        frame().to_csv(path, index=False, sep="\t" if kind == "tsv" else ",", encoding=encoding)
    elif kind == "jsonl":
        frame().to_json(path, orient="records", lines=True, force_ascii=False)
        path.write_text(path.read_text("utf-8"), encoding)
    elif kind == "parquet":
        frame().to_parquet(path)
    else:
        for number, (text, label) in enumerate(ROWS):
            (path / label).mkdir(parents=True, exist_ok=True)
            (path / label / f"{number}.txt").write_text(text, encoding)
    return path


@pytest.mark.parametrize("kind", READERS)
def test_every_format_gives_the_same_rows(kind, tmp_path):
    suffix = "" if kind == "folder" else f".{kind}"
    assert sorted(pairs(read(write(kind, tmp_path / f"data{suffix}")))) == sorted(ROWS)


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl", "folder"])
@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "gb18030"])
def test_encodings_by_name(kind, encoding, tmp_path):
    path = write(kind, tmp_path / f"data.{kind}", encoding)
    assert sorted(pairs(read(path, format=kind, encoding=encoding))) == sorted(ROWS)


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl", "folder"])
def test_a_byte_order_mark_is_no_part_of_the_data(kind, tmp_path):
    path = write(kind, tmp_path / f"data.{kind}")
    for file in [path] if path.is_file() else path.rglob("*.txt"):
        file.write_bytes(codecs.BOM_UTF8 + file.read_bytes())
    assert sorted(pairs(read(path, format=kind))) == sorted(ROWS)


@pytest.mark.parametrize(
    "cell", ["NA", "null", "nan", "1.0", "001", "1e5", "True", "2024-01-01", " a ", 'a "b" c', "a,b"]
)
@pytest.mark.parametrize("kind", ["csv", "tsv"])
def test_cells_are_kept_as_they_stand(cell, kind, tmp_path):
    path = tmp_path / f"data.{kind}"
    pd.DataFrame({"text": [cell], "label": [cell]}).to_csv(
        path, index=False, sep="\t" if kind == "tsv" else ","
    )
    assert pairs(read(path)) == [(cell, cell)]


def test_csv_rows_are_numbered_as_a_spreadsheet_does(tmp_path):
    path = tmp_path / "data.csv"
    path.write_text('\ntext,label\n"one\ncell",a\n\nlast,b\n\n')
    table = read(path)
    assert pairs(table) == [("one\ncell", "a"), ("", ""), ("last", "b")]
    assert table.places([0, 2]) == (f"{path}, row 3", f"{path}, row 5")


@pytest.mark.parametrize("delimiter", [";", "\t", "|"])
def test_csv_with_another_delimiter(delimiter, tmp_path):
    path = tmp_path / "data.csv"
    frame().to_csv(path, index=False, sep=delimiter)
    assert pairs(read(path)) == ROWS


def test_csv_with_windows_line_ends_and_other_columns(tmp_path):
    path = tmp_path / "data.csv"
    path.write_bytes(b"id,stars,review\r\n1,5,good\r\n2,1,bad\r\n")
    assert pairs(read(path, text="review", label="stars")) == [("good", "5"), ("bad", "1")]


def test_tsv_with_raw_quotation_marks_loses_no_rows(tmp_path):
    path = tmp_path / "data.tsv"
    path.write_text('text\tlabel\n"Great" he said\t1\nplain\t0\n"never closed\t1\n')
    assert [text for text, _ in pairs(read(path))] == ['"Great" he said', "plain", '"never closed']


def test_jsonl_keeps_types_and_numbers_lines(tmp_path):
    path = tmp_path / "data.jsonl"
    rows = [
        {"text": "a\u2028b", "label": 1},
        {"label": True, "text": "2024-01-01"},
        {"text": None, "label": None},
    ]
    path.write_text("\n\n".join(json.dumps(row, ensure_ascii=False) for row in rows) + "\n")
    table = read(path)
    assert pairs(table) == [("a\u2028b", 1), ("2024-01-01", True), (None, None)]
    assert table.place(1) == f"{path}, line 3"


def test_parquet_bytes_categories_and_missing_labels(tmp_path):
    path = tmp_path / "data.parquet"
    pd.DataFrame({"text": [b"a", "é".encode()], "label": pd.Categorical(["x", None])}).to_parquet(path)
    assert pairs(read(path)) == [("a", "x"), ("é", None)]


def test_folder_leaves_out_hidden_files_and_names_the_file(tmp_path):
    write("folder", tmp_path)
    (tmp_path / "pos" / ".DS_Store").write_bytes(b"\0")
    (tmp_path / "README.md").write_text("about")
    table = read(tmp_path)
    assert len(table) == len(ROWS)
    assert table.place(0) == str(tmp_path / "neg" / "1.txt")


def test_shards_are_read_in_the_order_of_their_names(tmp_path):
    for name, rows in (("b-2.csv", "z,1\n"), ("b-1.csv", "x,0\ny,1\n")):
        (tmp_path / name).write_text("text,label\n" + rows)
    table = read(str(tmp_path / "b-*.csv"))
    assert pairs(table) == [("x", "0"), ("y", "1"), ("z", "1")]
    assert table.place(2) == f"{tmp_path / 'b-2.csv'}, row 2"


def test_a_path_with_pattern_signs_that_exists_is_that_file(tmp_path):
    path = tmp_path / "data[1].csv"
    path.write_text("text,label\na,b\n")
    assert pairs(read(path)) == [("a", "b")]


@pytest.mark.parametrize(
    "source",
    [
        ROWS,
        [list(row) for row in ROWS],
        ([text for text, _ in ROWS], [label for _, label in ROWS]),
        (np.array([text for text, _ in ROWS]), pd.Series([label for _, label in ROWS])),
        [(text.encode(), label) for text, label in ROWS],
        frame(),
        frame().astype("category"),
        frame().set_index(pd.Index([7, 7, 7])),
    ],
    ids=["pairs", "lists", "two lists", "arrays", "bytes", "frame", "categories", "frame with an index"],
)
def test_data_in_memory(source):
    table = read(source)
    assert pairs(table) == ROWS
    assert table.place(2) == "source, index 2"


def test_frame_with_numbers_as_column_names():
    assert pairs(read(pd.DataFrame([("a", 1)]), text="0", label="1")) == [("a", 1)]


@pytest.mark.parametrize("batch_size", [None, 2])
@pytest.mark.parametrize("as_dict", [False, True])
def test_tensorflow_datasets(batch_size, as_dict):
    import tensorflow as tf

    texts, labels = [text for text, _ in ROWS], [1, 0, 1]
    dataset = tf.data.Dataset.from_tensor_slices(
        {"text": texts, "label": labels} if as_dict else (texts, labels)
    )
    table = read(dataset.batch(batch_size) if batch_size else dataset)
    assert pairs(table) == list(zip(texts, labels, strict=True))


def test_reading_does_not_change_the_callers_data():
    texts = np.array([b"a", b"b"], dtype=object)
    read((texts, [0, 1]))
    assert texts.tolist() == [b"a", b"b"]
