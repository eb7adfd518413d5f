"""What the robustness of an artifact is reckoned from, and when it refuses a release."""

import numpy as np
import pytest

from tfapp.evaluation.robustness import Robustness
from tfapp.evaluation.robustness.intervals import wilson_interval
from tfapp.release.attack_report import Attacked, AttackReport
from tfapp.release.black_box import BlackBoxFound
from tfapp.release.gate import Budget

ROWS = 200


def robustness():
    zeros = np.zeros(ROWS, int)
    return Robustness(
        split="test",
        classes=("a", "b"),
        domain="pixels",
        attack="apgd",
        norm="linf",
        epsilon=8 / 255,
        settings={"num_steps": 100},
        examples=ROWS,
        seed=0,
        clean_accuracy=1.0,
        clean_interval95=(0.98, 1.0),
        robust_accuracy=0.5,
        interval95=(0.43, 0.57),
        labels=zeros,
        clean_predicted=zeros,
        predicted=zeros,
        per_attack=(),
        queries=0,
        seconds=0.0,
    )


def attacked(standing, fooled=None, tried=50):
    """The first rows stand; of the first that were tried, these are fooled."""
    box = None
    if fooled is not None:
        rows = np.arange(tried)
        box = BlackBoxFound("square", 100, rows, np.isin(rows, fooled))
    return Attacked(standing / ROWS, np.arange(ROWS) < standing, box)


def reasons(model, artifact, **budget):
    report = AttackReport(robustness(), model, {"int8": artifact})
    return report.reasons("int8", Budget(**budget))


def test_what_the_black_box_fools_is_reckoned_over_all_rows():
    found = attacked(100, fooled=range(10))
    assert found.robust_accuracy == pytest.approx(0.5 * 0.8)
    low, high = found.interval95
    plain = wilson_interval(80, ROWS)
    assert low < plain[0] < 0.4 < plain[1] < high
    assert attacked(100, fooled=range(20), tried=100).interval95 == plain
    assert attacked(100).interval95 == wilson_interval(100, ROWS)


def test_rows_lost_to_the_models_examples_count_one_by_one():
    model = attacked(100)
    assert reasons(model, attacked(96)) == []
    (reason,) = reasons(model, attacked(95))
    assert reason.startswith("int8: loses 2.50% robust accuracy on 200 rows against the model's 50.00%")
    assert "attack apgd, norm linf, epsilon 8/255, steps 100" in reason
    assert reasons(model, attacked(95), max_robust_accuracy_drop=0.03) == []


def test_a_few_rows_of_the_black_box_more_or_less_are_chance():
    model = attacked(100, fooled=[0, 1, 2, 3, 4])
    assert reasons(model, attacked(100, fooled=[1, 2, 3, 4, 10, 11, 12])) == []
    (reason,) = reasons(model, attacked(100, fooled=range(50)))
    assert "loses 45.00% robust accuracy" in reason
    assert reasons(model, attacked(100, fooled=range(25)))


def test_a_black_box_that_fools_the_model_as_often_is_no_drop():
    model = attacked(100, fooled=range(30))
    assert reasons(model, attacked(100, fooled=range(30))) == []
    assert reasons(model, attacked(100, fooled=[])) == []


def test_the_least_robust_accuracy_is_a_limit_of_its_own():
    found = attacked(100, fooled=range(10))
    assert reasons(found, found, min_robust_accuracy=0.4) == []
    (reason,) = reasons(found, found, min_robust_accuracy=0.41)
    assert "40.00% on 200 rows, less than 41.00% (min_robust_accuracy" in reason


def test_an_artifact_that_could_not_be_asked_is_judged_elsewhere():
    report = AttackReport(robustness(), attacked(100), {})
    assert report.reasons("int8", Budget(min_robust_accuracy=1.0)) == []
    assert report.entry("int8") is None
    assert [entry["variant"] for entry in report.entries()] == ["model"]
