"""Loading text data: classes, cleaning, leaks, reports, fingerprints, saving."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfapp.data.report import DataReport
from tfapp.data.text import TextData, TextSplit, load_text_data


def rows(count=30, labels=("neg", "pos"), word="text"):
    return [(f"{word} number {number}", labels[number % len(labels)]) for number in range(count)]


def all_texts(data):
    return [text for split in data.splits.values() for text in split.texts]


def dropped(data):
    return {(entry.split, entry.reason): entry.rows for entry in data.report.dropped}


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        ((10, 9, 1), ("1", "9", "10")),
        (("10", "9", "1"), ("1", "9", "10")),
        ((1, -1), ("-1", "1")),
        ((1.0, 0.0), ("0", "1")),
        (("1.0", "0.0"), ("0", "1")),
        ((0.5, 2.0), ("0.5", "2")),
        ((1, 1.0, 1.5), ("1", "1.5")),
        (("1", "1.0", "1.5"), ("1", "1.5")),
        ((-0.0, 0, 0.5), ("0", "0.5")),
        (("v2", "v10", "é"), ("v10", "v2", "é")),
        ((True, False), ("False", "True")),
        (("NA", "null", "None"), ("NA", "None", "null")),
        (("01", "1"), ("01", "1")),
        ((b"b", b"a"), ("a", "b")),
        ((np.int8(3), np.int8(-2)), ("-2", "3")),
        ((" pos ", "neg"), ("neg", "pos")),
        (("caf\u00e9", "cafe\u0301", "x"), ("caf\u00e9", "x")),
    ],
)
def test_class_names_and_their_order(labels, classes):
    data = load_text_data(rows(labels=labels))
    assert data.classes == classes


def test_every_text_keeps_its_label():
    data = load_text_data(rows(labels=(10, 9, 1)))
    named = {
        text: data.classes[label]
        for split in data.splits.values()
        for text, label in zip(split.texts, split.labels, strict=True)
    }
    assert named == {text: str(label) for text, label in rows(labels=(10, 9, 1))}


@pytest.mark.parametrize(
    "dtype", ["int64", "int8", "Int64", "float32", "bool", "boolean", "str", "category", "object"]
)
def test_labels_of_any_column_type(dtype):
    frame = pd.DataFrame(
        {"text": [text for text, _ in rows()], "label": pd.Series([0, 1] * 15).astype(dtype)}
    )
    names = ("False", "True") if dtype.startswith("bool") else ("0", "1")
    assert load_text_data(frame).classes == names


def test_files_agree_on_classes_though_one_holds_floats(tmp_path):
    (tmp_path / "train.csv").write_text("text,label\na,1\nb,0\nc,1\nd,0\n")
    (tmp_path / "test.csv").write_text("text,label\ne,1.0\nf,0.0\n")
    data = load_text_data(tmp_path / "train.csv", test=tmp_path / "test.csv", validation=[("g", 1)])
    assert data.classes == ("0", "1")
    assert data.test.labels.tolist() == [1, 0]


def test_equal_texts_are_kept_once():
    twins = [
        ("caf\u00e9  is\tgood", "pos"),
        ("cafe\u0301 is good ", "pos"),
        ("caf\u00e9\u3000is good", "pos"),
        ("Caf\u00e9 is good", "pos"),
    ]
    data = load_text_data(rows() + twins)
    assert dropped(data) == {("train", "duplicate"): 2}
    assert {twins[0][0], twins[3][0]} <= set(all_texts(data))
    assert data.report.duplicates == 2
    assert data.report.dropped[0].examples == ("source, index 31", "source, index 32")


def test_a_text_under_several_labels_is_dropped_altogether():
    data = load_text_data([*rows(), ("unclear", "pos"), ("unclear", "neg"), ("unclear ", "pos")])
    assert dropped(data) == {("train", "conflicting labels"): 3}
    assert "unclear" not in all_texts(data)
    assert data.report.conflicts == 3


def test_leaks_stay_in_test_then_in_validation():
    train = [*rows(), ("in all", "pos"), ("in validation", "pos"), ("in test", "neg")]
    validation = [*rows(6, word="v"), ("in all", "pos"), ("in validation", "pos"), ("in both", "neg")]
    test = [*rows(6, word="t"), ("in all", "pos"), ("in test", "neg"), ("in both", "neg")]
    data = load_text_data(train, validation=validation, test=test)
    assert dropped(data) == {
        ("validation", "also in test"): 2,
        ("train", "also in test"): 2,
        ("train", "also in validation"): 1,
    }
    assert len(data.test) == 9
    assert data.report.leaks == 5
    assert len(all_texts(data)) == len(set(all_texts(data)))


def test_a_leak_under_another_label_leaves_the_test_row_alone():
    data = load_text_data([*rows(), ("shared", "pos")], test=[*rows(4, word="t"), ("shared", "neg")])
    assert data.test.texts[-1] == "shared"
    assert "shared" not in data.train.texts + data.validation.texts


def test_rows_without_text_or_label_are_dropped_and_counted(tmp_path):
    path = tmp_path / "data.csv"
    path.write_text(
        "text,label\n" + "".join(f"{a},{b}\n" for a, b in rows()) + " \u3000,pos\n\u200b,neg\nx,\ny, \n"
    )
    data = load_text_data(path)
    assert dropped(data) == {("train", "empty text"): 2, ("train", "missing label"): 2}
    assert data.report.dropped[1].examples == (f"{path}, row 34", f"{path}, row 35")
    assert data.report.rows_read == {"train": 34}


WORDS = st.sampled_from(["a", "b", " a", "a ", "c", "d\u00e9", "de\u0301", "", "e", "f", "g", "h"])


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(WORDS, st.sampled_from([0, 1, None])), max_size=40),
    st.lists(st.tuples(WORDS, st.sampled_from([0, 1])), max_size=20),
)
def test_every_row_is_kept_or_counted(extra, test):
    data = load_text_data([*rows(60, (0, 1)), *extra], test=[*rows(40, (0, 1), "t"), *test])
    report = data.report
    assert sum(report.rows_read.values()) == sum(report.rows.values()) + sum(
        entry.rows for entry in report.dropped
    )
    folded = [" ".join(text.replace("e\u0301", "\u00e9").split()) for text in all_texts(data)]
    assert len(folded) == len(set(folded))
    assert "" not in folded
    assert {name: sum(counts.values()) for name, counts in report.class_counts.items()} == report.rows


def test_the_same_call_gives_the_same_data_and_another_seed_another():
    first, again, other = (load_text_data(rows(90), seed=seed) for seed in (1, 1, 2))
    assert first.fingerprint == again.fingerprint
    assert first.train.texts == again.train.texts
    assert first.fingerprint != other.fingerprint


def test_rows_keep_their_order_within_a_split():
    data = load_text_data(rows(90))
    for split in data.splits.values():
        numbers = [int(text.split()[-1]) for text in split.texts]
        assert numbers == sorted(numbers)


@pytest.mark.parametrize(
    ("texts", "labels", "classes"),
    [
        (("ab", "d"), [0, 1], ("x", "y")),
        (("a", "bc"), [1, 1], ("x", "y")),
        (("a", "bc"), [0, 1], ("x", "z")),
        (("bc", "a"), [0, 1], ("x", "y")),
    ],
)
def test_sha256_depends_on_texts_labels_and_classes(texts, labels, classes):
    one = TextSplit("test", ("a", "bc"), np.array([0, 1]), ("x", "y"))
    assert TextSplit("test", texts, np.array(labels), classes).sha256 != one.sha256


def test_sha256_is_this_one_on_every_platform():
    split = TextSplit("test", ("a good film", "酒店很好"), np.array([0, 1]), ("neg", "pos"))
    assert split.sha256 == "80427cee47dbdac7bafb39c4e201dd5de9a7b3a14270d0d8557a3254466c58e8"


def test_labels_cannot_be_changed_by_accident():
    labels = load_text_data(rows()).train.labels
    assert labels.dtype == np.int32
    with pytest.raises(ValueError, match="read-only"):
        labels[0] = 1


def test_saved_data_comes_back_the_same(tmp_path):
    data = load_text_data([*rows(), ("naïve\n“酒店”", "pos"), ("text number 1", "pos")], seed=4)
    folder = data.save(tmp_path / "runs" / "data")
    loaded = TextData.load(folder)
    assert loaded.fingerprint == data.fingerprint
    assert loaded.report == data.report
    assert (loaded.classes, loaded.seed, loaded.task) == (data.classes, 4, "single_label")
    assert sorted(entry.name for entry in folder.parent.iterdir()) == ["data"]


def test_saving_again_replaces_what_was_saved(tmp_path):
    load_text_data(rows(), seed=1).save(tmp_path / "data")
    second = load_text_data(rows(), seed=2)
    second.save(tmp_path / "data")
    assert TextData.load(tmp_path / "data").fingerprint == second.fingerprint
    assert [entry.name for entry in tmp_path.iterdir()] == ["data"]


def test_report_as_json_and_back():
    report = load_text_data([*rows(), ("text number 1", "pos")]).report
    assert DataReport.from_dict(json.loads(json.dumps(report.to_dict()))) == report


def test_report_in_words():
    lines = load_text_data([*rows(), ("text number 1", "pos")]).report.lines()
    assert lines == [
        "read       31 rows from source",
        "train      21 rows: neg 10, pos 11",
        "validation 3 rows: neg 2, pos 1",
        "test       6 rows: neg 3, pos 3",
        "left out   1 row of train, duplicate (source, index 30)",
    ]


def test_report_of_many_classes_names_the_extremes():
    lines = load_text_data([*rows(120, tuple(range(12))), ("more", 7)]).report.lines()
    assert lines[1] == "train      85 rows: 12 classes, from 7 (0) to 8 (7) rows"


def test_reading_data_loads_no_tensorflow():
    code = (
        "import sys\nfrom tfapp.data.text import load_text_data\n"
        "load_text_data([(f't{i}', i % 2) for i in range(20)])\n"
        "assert not {'tensorflow', 'keras'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_sst2(tfapp_data):
    folder = tfapp_data / "sst2"
    data = load_text_data(
        folder / "train.csv", validation=folder / "validation.csv", test=folder / "test.csv"
    )
    assert data.classes == ("negative", "positive")
    assert data.report.rows_read == {"train": 6920, "validation": 872, "test": 1821}
    assert dropped(data) == {("train", "duplicate"): 9, ("train", "also in test"): 2}


def test_banking77(tfapp_data):
    folder = tfapp_data / "banking77"
    data = load_text_data(folder / "train.csv", test=folder / "test.csv")
    assert len(data.classes) == 77
    assert len(data.test) == 3079
    assert min(data.report.class_counts["validation"].values()) >= 1


def test_chnsenticorp(tfapp_data):
    folder = tfapp_data / "chnsenticorp"
    data = load_text_data(
        folder / "train.csv", validation=folder / "validation.csv", test=folder / "test.csv"
    )
    assert dict(data.report.rows) == {"train": 7566, "validation": 1132, "test": 1172}
    assert data.report.dropped == ()
