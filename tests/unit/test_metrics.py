import numpy as np
import pytest
from scipy.special import log_softmax
from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score, log_loss

from tfapp.errors import ConfigError, DataError
from tfapp.evaluation.calibration import fit_temperature, reliability
from tfapp.evaluation.metrics import class_scores, score


def noisy_logits(
    rows: int, num_classes: int, *, margin: float, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Logits whose true class is lifted by ``margin`` over unit noise, and their labels."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, num_classes, rows)
    logits = generator.normal(size=(rows, num_classes))
    logits[np.arange(rows), labels] += margin
    return logits, labels


def test_hand_computed_scores():
    logits = np.log([[0.6, 0.4], [0.9, 0.1], [0.2, 0.8], [0.7, 0.3]])
    labels = np.array([0, 0, 1, 1])
    scores = score(logits, labels, num_bootstrap=10)
    assert scores["accuracy"].value == pytest.approx(3 / 4)
    assert scores["balanced_accuracy"].value == pytest.approx((2 / 2 + 1 / 2) / 2)
    assert scores["macro_f1"].value == pytest.approx((4 / 5 + 2 / 3) / 2)
    assert scores["log_loss"].value == pytest.approx(-np.log([0.6, 0.9, 0.8, 0.3]).mean())
    # Four rows in four bins of width 1/15: each gap counts by a quarter.
    assert scores["ece"].value == pytest.approx((0.4 + 0.1 + 0.2 + 0.7) / 4)


@pytest.mark.parametrize("num_classes", [2, 5, 77, 150])
def test_values_agree_with_scikit_learn(num_classes):
    logits, labels = noisy_logits(600, num_classes, margin=2.0)
    scores = score(logits, labels, num_bootstrap=20)
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    expected = log_loss(labels, probabilities, labels=range(num_classes))
    assert scores["log_loss"].value == pytest.approx(expected, rel=1e-9)
    for interval in scores.values():
        assert interval.low <= interval.value <= interval.high


@pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true")
def test_intervals_equal_those_of_scikit_learn_looped_over_the_same_resamples():
    logits, labels = noisy_logits(40, 4, margin=1.0)
    predicted = logits.argmax(axis=1)
    scores = score(logits, labels, num_bootstrap=200, seed=3)
    resamples = np.random.default_rng(3).integers(0, 40, size=(40, 200)).T
    by_hand = {
        "accuracy": [accuracy_score(labels[rows], predicted[rows]) for rows in resamples],
        "balanced_accuracy": [balanced_accuracy_score(labels[rows], predicted[rows]) for rows in resamples],
        "macro_f1": [f1_score(labels[rows], predicted[rows], average="macro") for rows in resamples],
        "log_loss": [-log_softmax(logits, axis=1)[rows, labels[rows]].mean() for rows in resamples],
        "ece": [reliability(logits[rows], labels[rows]).ece for rows in resamples],
    }
    for name, samples in by_hand.items():
        low, high = np.percentile(samples, [2.5, 97.5]) - np.mean(samples) + scores[name].value
        assert scores[name].low == pytest.approx(max(low, 0)), name
        assert scores[name].high == pytest.approx(high), name


def test_the_accuracy_interval_matches_the_binomial_and_narrows_with_rows():
    few = score(*noisy_logits(200, 3, margin=1.5))["accuracy"]
    logits, labels = noisy_logits(5000, 3, margin=1.5)
    many = score(logits, labels)["accuracy"]
    deviation = np.sqrt(many.value * (1 - many.value) / 5000)
    # 1,000 resamples know a percentile to about 5 % of the interval's width.
    assert many.high - many.low == pytest.approx(2 * 1.96 * deviation, rel=0.15)
    assert few.high - few.low > 3 * (many.high - many.low)


def test_intervals_do_not_depend_on_how_resamples_are_chunked(monkeypatch):
    logits, labels = noisy_logits(50, 3, margin=1.0)
    whole = score(logits, labels, num_bootstrap=400)["accuracy"]
    monkeypatch.setattr("tfapp.evaluation.metrics._DRAWS_AT_ONCE", 1000)
    chunked = score(logits, labels, num_bootstrap=400)["accuracy"]
    # Other chunks draw the same rows in another order, so only the sampling error may differ.
    assert chunked.low == pytest.approx(whole.low, abs=0.03)
    assert chunked.high == pytest.approx(whole.high, abs=0.03)


def test_the_ece_interval_holds_the_value_of_a_calibrated_model():
    generator = np.random.default_rng(0)
    margins = generator.normal(0, 4, 1500)
    labels = (generator.random(1500) < 1 / (1 + np.exp(-margins))).astype(int)
    logits = np.stack([np.zeros(1500), margins], axis=1)
    interval = score(logits, labels)["ece"]
    assert interval.low <= interval.value <= interval.high


def test_same_seed_same_intervals():
    logits, labels = noisy_logits(100, 3, margin=1.0)
    assert score(logits, labels, seed=5) == score(logits, labels, seed=5)
    assert score(logits, labels, seed=5) != score(logits, labels, seed=6)


def test_classes_missing_from_the_split_are_undefined_not_zero():
    labels, predicted = np.array([0, 0, 1]), np.array([0, 2, 1])
    scores = class_scores(labels, predicted, ("a", "b", "c", "d"))
    assert [item.support for item in scores] == [2, 1, 0, 0]
    assert scores[2].recall is None
    assert scores[2].precision == 0.0
    assert (scores[3].precision, scores[3].recall, scores[3].f1) == (None, None, None)


def test_single_class_split():
    logits = np.array([[2.0, 0.0], [0.0, 1.0], [3.0, 0.0]])
    scores = score(logits, np.zeros(3, int), num_bootstrap=200)
    assert scores["accuracy"].value == scores["balanced_accuracy"].value == pytest.approx(2 / 3)
    assert scores["macro_f1"].value == pytest.approx(0.8 / 2)  # the wrongly predicted class counts with 0


def test_log_loss_stays_finite_where_probabilities_underflow():
    scores = score(np.array([[2000.0, 0.0], [2000.0, 0.0]]), np.array([0, 1]), num_bootstrap=10)
    assert scores["log_loss"].value == pytest.approx(1000.0)


@pytest.mark.parametrize(
    ("logits", "labels", "told"),
    [
        (np.zeros((0, 2)), np.zeros(0, int), "no rows"),
        (np.zeros((3, 1)), np.zeros(3, int), "num_classes >= 2"),
        (np.zeros((3, 2)), np.zeros(2, int), "3 rows"),
        (np.zeros((3, 2)), np.array([0, 1, 2]), "row 2: label 2 is outside 0..1"),
        (np.zeros((3, 2)), np.array([0.0, 1.0, 1.0]), "integers"),
        (np.array([[0, 1], [np.nan, 0]]), np.array([0, 1]), "row 1: a logit is not finite"),
    ],
)
def test_rows_that_cannot_be_scored_are_refused(logits, labels, told):
    for function in (score, fit_temperature, reliability):
        with pytest.raises(DataError, match=told):
            function(logits, labels)


@pytest.mark.parametrize("wrong", [{"num_bootstrap": 0}, {"temperature": 0.0}, {"temperature": np.nan}])
def test_arguments_out_of_range_are_refused(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        score(np.zeros((3, 2)), np.zeros(3, int), **wrong)


def test_the_interval_of_a_class_is_that_of_scikit_learns_f1():
    generator = np.random.default_rng(3)
    labels = generator.integers(0, 3, 60)
    predicted = np.where(generator.random(60) < 0.7, labels, generator.integers(0, 3, 60))
    scores = class_scores(labels, predicted, ("a", "b", "c"), num_bootstrap=400, seed=5)
    expected = f1_score(labels, predicted, average=None)
    draws = np.random.default_rng(11)
    samples = []
    for _ in range(400):
        rows = draws.integers(0, 60, 60)
        samples.append(f1_score(labels[rows], predicted[rows], average=None, labels=range(3)))
    ends = np.percentile(samples, [2.5, 97.5], axis=0) - (np.mean(samples, axis=0) - expected)
    for index, item in enumerate(scores):
        assert item.f1.value == pytest.approx(expected[index])
        assert item.f1.low < item.f1.value < item.f1.high
        assert [item.f1.low, item.f1.high] == pytest.approx(ends[:, index], abs=0.03)


def test_resamples_without_a_class_do_not_count_for_it():
    """One row of class b, rightly predicted: a third of the resamples lack it, and the rest have F1 1."""
    labels = np.array([0] * 9 + [1])
    (_, rare) = class_scores(labels, labels, ("a", "b"), num_bootstrap=200)
    assert (rare.f1.value, rare.f1.low, rare.f1.high) == (1.0, 1.0, 1.0)
