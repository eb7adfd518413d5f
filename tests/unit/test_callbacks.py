"""Which epoch is the best."""

import math

import pytest

from tfapp.training.callbacks import Selection


@pytest.mark.parametrize(
    ("monitor", "values", "best"),
    [
        ("val_accuracy", [0.5, 0.7, 0.7, 0.6], 1),
        ("val_loss", [0.5, 0.7, 0.4, 0.4], 2),
        ("val_loss", [math.nan, 0.7, math.nan, 0.6], 3),
        ("val_loss", [0.7, math.nan], 0),
        ("val_loss", [math.inf, 0.7], 1),
    ],
)
def test_the_first_of_the_best_epochs_is_kept_whatever_is_no_number(monitor, values, best):
    selection, chosen, before = Selection(monitor), None, None
    for epoch, value in enumerate(values):
        if selection.improved(value, before):
            chosen, before = epoch, value
    assert chosen == best
