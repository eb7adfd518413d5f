"""What a comparison of releases says: figures that can be reckoned by hand, and lists that run nothing."""

import csv
import json

import numpy as np
import pytest
from scipy.stats import binom

from tfapp.errors import DataError, OutputError
from tfapp.evaluation.paired_rows import paired_accuracy
from tfapp.release.comparison_report import ChangedExample, ReleaseComparison, differing


def answers(right, rows):
    """Labels 0, and predictions that are right in the given rows."""
    return np.where(np.isin(np.arange(rows), list(right)), 0, 1)


def test_mcnemar_counts_the_rows_that_only_one_has_right():
    labels = np.zeros(100, np.int64)
    before, after = answers(range(80), 100), answers(range(10, 96), 100)
    found = paired_accuracy(before, after, labels)
    assert (found.only_before, found.only_after) == (10, 16)
    assert found.p_value == pytest.approx(2 * binom.cdf(10, 26, 0.5), rel=1e-9)
    assert found.before.value == pytest.approx(0.80)
    assert found.after.value == pytest.approx(0.86)
    assert found.difference.value == pytest.approx(0.06)
    assert found.difference.low < 0 < 0.06 < found.difference.high


def test_the_interval_of_the_difference_is_paired():
    labels, draw = np.zeros(400, np.int64), np.random.default_rng(0)
    before = draw.integers(0, 2, 400)
    after = before.copy()
    after[np.flatnonzero(before == 1)[:8]] = 0
    found = paired_accuracy(before, after, labels)
    # Eight rows of 400 were repaired and none broken: 2 points, sure to be above 0.
    assert found.difference.value == pytest.approx(0.02)
    assert 0 < found.difference.low < 0.02 < found.difference.high < 0.04
    assert found.p_value == pytest.approx(2 / 2**8)
    # Each accuracy by itself is far less sure.
    assert found.after.high - found.after.low > 2 * (found.difference.high - found.difference.low)


def test_the_same_answers_do_not_differ():
    found = paired_accuracy(np.array([0, 1, 1]), np.array([0, 1, 1]), np.array([0, 0, 1]))
    assert found.p_value == 1.0
    assert (found.difference.value, found.difference.low, found.difference.high) == (0.0, 0.0, 0.0)


@pytest.mark.parametrize("rows", [0, 2])
def test_answers_to_other_rows_are_not_compared(rows):
    with pytest.raises(DataError, match="do not fit"):
        paired_accuracy(np.zeros(rows, int), np.zeros(3, int), np.zeros(rows, int))


def test_settings_are_compared_by_their_dotted_names():
    before = {"train": {"epochs": 1, "rate": 0.1}, "old": True, "same": [1, 2], "empty": {}}
    after = {"train": {"epochs": 2, "rate": 0.1}, "new": None, "same": [1, 2], "empty": {}}
    assert differing(before, after) == {"train.epochs": (1, 2), "old": (True, None)}
    assert differing(before, before) == {}


def comparison(changed=(), accuracy=None, **changes):
    about = {"title": "reviews 1", "directory": "/r/1", "name": "reviews", "version": 1}
    return ReleaseComparison(
        **{
            "before": about,
            "after": {**about, "title": "reviews 2"},
            "variant": "saved_model",
            "source": "100 rows",
            "rows": 100,
            "accuracy": accuracy,
            "changed": tuple(changed),
            "settings": {"config": {"train.epochs": (1, 2)}, "data": {}, "libraries": {}},
            "artifacts": [
                {
                    "variant": "dynamic",
                    "bytes": [23_000_000, 25_000_000],
                    "accuracy": [0.9, 0.9],
                    "robust_accuracy": [None, 0.5],
                    "p50_ms": [1.0, None],
                }
            ],
            **changes,
        }
    )


def example(feature="a text", label="good", before="good", after="bad"):
    return ChangedExample(3, feature, label, before, after, 0.6, 0.7)


@pytest.mark.parametrize(
    ("label", "outcome"), [("good", "broken"), ("bad", "repaired"), ("other", "still wrong"), (None, "")]
)
def test_a_changed_label_was_broken_or_repaired(label, outcome):
    assert example(label=label).outcome == outcome


def test_the_verdict_says_whether_the_difference_is_more_than_chance():
    labels = np.zeros(100, np.int64)
    moved = paired_accuracy(answers(range(60), 100), answers(range(90), 100), labels)
    same = paired_accuracy(answers(range(60), 100), answers(range(1, 62), 100), labels)
    assert "accuracy moved by +30.00 points" in comparison(accuracy=moved).verdict
    assert "no difference in accuracy shows" in comparison(accuracy=same).verdict
    assert comparison([example()]).verdict == "1 of 100 labels changed."


def test_tables_have_what_differs_and_no_more():
    tables = dict(comparison([example()]).tables())
    assert tables["changed labels"] == [
        {"row": "3", "": "broken", "before": "good 0.60", "after": "bad 0.70", "example": "a text"}
    ]
    assert tables["artifacts, before -> after"] == [
        {"artifact": "dynamic", "MB": "23.0 -> 25.0", "accuracy": "0.9000", "robust": "- -> 0.5000"}
        | {"p50 ms": "1.00 -> -"}
    ]
    assert tables["made from"] == [{"": "config.train.epochs", "before": "1", "after": "2"}]
    assert "changed labels" not in dict(comparison().tables())


def test_the_list_of_changed_examples_is_whole_and_runs_in_no_spreadsheet(tmp_path):
    evil = '=HYPERLINK("http://evil","a")'
    changed = [example(f"text {number}", label=None) for number in range(30)]
    changed.append(example(evil, label="@good", before="-bad", after="+more"))
    folder = comparison(changed).save(tmp_path / "new" / "diff")
    rows = list(csv.DictReader((folder / "changed.csv").open(newline="")))
    assert [row["example"] for row in rows[:30]] == [f"text {number}" for number in range(30)]
    assert rows[30]["example"] == f"'{evil}"
    assert (rows[30]["label"], rows[30]["before"], rows[30]["after"]) == ("'@good", "'-bad", "'+more")
    assert rows[30]["before_probability"] == "0.6"
    told = json.loads((folder / "diff.json").read_text())
    assert told["changed"] == 31
    # JSON is no spreadsheet: there it stands as it is.
    assert told["changed_examples"][30]["feature"] == evil
    assert told["differences"]["config"]["train.epochs"] == {"before": 1, "after": 2}


def test_a_folder_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match="cannot be written"):
        comparison().save(tmp_path / "file")
