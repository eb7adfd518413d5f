import logging

import numpy as np
import pytest
from scipy.special import log_softmax, softmax

from tfapp.evaluation import fit_temperature
from tfapp.evaluation.calibration import TEMPERATURE_BOUNDS, bin_of, reliability


def honest_logits(rows: int, num_classes: int = 4, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Logits whose softmax is the distribution from which the labels are drawn."""
    generator = np.random.default_rng(seed)
    logits = generator.normal(0, 2, size=(rows, num_classes))
    noise = generator.gumbel(size=logits.shape)
    return logits, (logits + noise).argmax(axis=1)


@pytest.mark.parametrize("true_temperature", [0.3, 1.0, 4.0])
def test_the_temperature_that_distorted_honest_logits_is_found(true_temperature):
    logits, labels = honest_logits(20_000)
    # The estimate's standard error at 20,000 rows is about 1.3 %.
    assert fit_temperature(logits * true_temperature, labels) == pytest.approx(true_temperature, rel=0.05)


def test_no_other_temperature_has_a_lower_loss():
    logits, labels = honest_logits(300, num_classes=3)
    found = fit_temperature(logits * 2.5, labels)

    def loss(temperature):
        return -log_softmax(logits * 2.5 / temperature, axis=1)[np.arange(300), labels].mean()

    grid = np.geomspace(*TEMPERATURE_BOUNDS, 400)
    assert loss(found) <= min(loss(temperature) for temperature in grid) + 1e-9


def test_scaling_lowers_the_calibration_error_of_an_overconfident_model():
    logits, labels = honest_logits(4000)
    held_out, held_out_labels = honest_logits(2000, seed=1)
    temperature = fit_temperature(held_out * 3, held_out_labels)
    before = reliability(logits * 3, labels).ece
    after = reliability(logits * 3, labels, temperature=temperature).ece
    assert before > 0.1
    assert after < 0.03


def test_without_a_mistake_confidence_stays_within_what_the_rows_support(caplog):
    labels = np.array([0, 1] * 50)
    logits = np.where(np.arange(2) == labels[:, None], 1.0, -1.0)
    with caplog.at_level(logging.WARNING, logger="tfapp"):
        temperature = fit_temperature(logits, labels)
    assert "no best temperature" in caplog.text
    assert softmax(logits / temperature, axis=1).max() == pytest.approx(101 / 102)


def test_without_a_mistake_an_already_sure_model_keeps_its_temperature():
    labels = np.array([0, 1, 2] * 10)
    assert fit_temperature(50.0 * np.eye(3)[labels], labels) == 1.0


def test_a_fit_at_the_bound_says_so(caplog):
    labels = np.array([0, 1] * 10)
    logits = 5.0 * np.eye(2)[1 - labels]  # always wrong: only infinite doubt would fit
    with caplog.at_level(logging.WARNING, logger="tfapp"):
        assert fit_temperature(logits, labels) == pytest.approx(TEMPERATURE_BOUNDS[1], rel=1e-3)
    assert "bound" in caplog.text


def test_equal_logits_leave_the_temperature_at_one():
    assert fit_temperature(np.zeros((5, 3)), np.zeros(5, int)) == 1.0


def test_a_validation_split_of_one_class_gives_a_finite_temperature():
    logits, labels = honest_logits(200)
    rows = labels == 2
    assert TEMPERATURE_BOUNDS[0] <= fit_temperature(logits[rows], labels[rows]) <= TEMPERATURE_BOUNDS[1]


def test_bins_are_open_below_and_closed_above():
    assert bin_of(np.array([1e-9, 0.2, 0.2000001, 0.5, 1.0]), num_bins=5).tolist() == [0, 0, 1, 2, 4]


def test_bins_add_up_and_hand_computed_error():
    logits = np.log([[0.6, 0.4], [0.6, 0.4], [0.95, 0.05]])
    bins = reliability(logits, np.array([0, 1, 0]), num_bins=10)
    assert bins.rows.sum() == 3
    assert bins.rows[5] == 2
    assert bins.accuracy[5] == pytest.approx(0.5)
    assert bins.ece == pytest.approx(2 / 3 * 0.1 + 1 / 3 * 0.05)
