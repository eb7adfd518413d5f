"""The transfer ledger's intervals, verdicts and words, on answers made up for them."""

import json

import numpy as np
import pytest

from tfapp.errors import DataError, OutputError
from tfapp.evaluation.ledger import Outcome, make_ledger
from tfapp.evaluation.metrics import score
from tfapp.evaluation.paired import resampled_accuracy

ROWS = 400
GENERATOR = np.random.default_rng(0)
LABELS = GENERATOR.integers(0, 3, ROWS)


def answers(wrong, *, seeds=1, start=0):
    """Right answers but for ``wrong`` rows from ``start`` on, the same with each seed."""
    predicted = LABELS.copy()
    predicted[start : start + wrong] = (predicted[start : start + wrong] + 1) % 3
    return np.tile(predicted, (seeds, 1))


def ledger(scratch, tuned, joint, **options):
    outcomes = [
        Outcome("from scratch", "all x 3", scratch),
        Outcome("fine-tuned", "head x 1, all x 2", tuned),
        Outcome("joint", "head x 1, all x 2", joint, alphas=(0.5,)),
    ]
    return make_ledger(outcomes, LABELS, **options)


def test_verdicts():
    made = ledger(answers(80), answers(30), answers(60))
    assert made.verdict("fine-tuned") == "helped"
    assert made.verdict("joint", "fine-tuned") == "hurt"
    assert ledger(answers(80), answers(78), answers(30)).verdict("joint", "fine-tuned") == "helped"
    same = ledger(answers(80), answers(80), answers(80, start=100))
    assert same.verdict("fine-tuned") == "did not"
    assert same.verdict("joint") == "did not"
    difference = same.comparisons[0].difference
    assert (difference.low, difference.value, difference.high) == (0.0, 0.0, 0.0)


def test_a_difference_on_the_same_rows_is_seen_before_one_of_single_intervals():
    """Ten rows more right and none more wrong: the intervals overlap, the paired difference is clear."""
    made = ledger(answers(100), answers(90), answers(90))
    worse, better = made.rows[0].accuracy, made.rows[1].accuracy
    assert better.low < worse.high
    assert made.verdict("fine-tuned") == "helped"
    # The same difference among rows that differ otherwise is none that counts.
    assert ledger(answers(100), answers(90, start=150), answers(90)).verdict("fine-tuned") == "did not"


def test_scores_and_intervals_are_those_of_an_evaluation():
    accuracy, balanced = resampled_accuracy(answers(50), LABELS, 1000)
    expected = score(np.eye(3)[answers(50)[0]] * 5, LABELS)
    for ours, name in ((accuracy, "accuracy"), (balanced, "balanced_accuracy")):
        assert ours.interval(0.0, 1.0) == pytest.approx(expected[name])


def test_seeds_that_disagree_widen_the_interval():
    steady = np.tile(answers(60)[0], (3, 1))
    torn = np.concatenate([answers(20), answers(60), answers(100)])
    widths = [
        np.ptp([score.low, score.high])
        for score in (
            resampled_accuracy(given, LABELS, 1000)[0].interval(0.0, 1.0) for given in (steady, torn)
        )
    ]
    assert widths[1] > 1.5 * widths[0]
    made = ledger(answers(60, seeds=3), torn, torn, seeds=(0, 1, 2))
    assert made.rows[1].accuracy.value == pytest.approx(0.85)
    assert made.verdict("fine-tuned") == "did not"


def test_what_the_source_forgot():
    labels = np.zeros(100, np.int64)
    after = np.zeros((1, 100), np.int64)
    after[0, :30] = 1
    before = np.zeros((1, 100), np.int64)
    outcomes = [
        Outcome("from scratch", "all x 3", answers(80)),
        Outcome("fine-tuned", "all x 3", answers(30), before, after),
    ]
    made = make_ledger(outcomes, LABELS, source_labels=labels)
    scratch, tuned = made.rows
    assert (scratch.source_before, scratch.forgot) == (None, None)
    assert (tuned.source_before.value, tuned.source_after.value) == (1.0, 0.7)
    assert tuned.forgot.value == pytest.approx(0.3)
    assert 0.2 < tuned.forgot.low < 0.3 < tuned.forgot.high < 0.4
    assert "+0.3000" in str(made)
    assert "source before" in made.lines()[2]


def test_words_table_and_files(tmp_path):
    made = ledger(answers(80), answers(30), answers(60))
    lines = "\n".join(made.lines())
    assert "joint against fine-tuned: hurt, -0.0750" in lines
    assert "400 test rows, seeds 0" in lines
    assert "source" not in made.lines()[2]
    assert made.table().count("\n") == 4
    folder = made.save(tmp_path / "ledger")
    read = json.loads((folder / "ledger.json").read_text(encoding="utf-8"))
    assert read == made.to_dict()
    assert [item["verdict"] for item in read["comparisons"]] == ["helped", "helped", "hurt"]
    assert read["rows"][2]["alphas"] == [0.5]
    assert "| joint |" in (folder / "ledger.md").read_text(encoding="utf-8")
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        made.save(tmp_path / "file")


def test_what_was_not_compared_has_no_verdict():
    with pytest.raises(DataError, match="does not compare 'frozen'"):
        ledger(answers(1), answers(2), answers(3)).verdict("frozen")
