"""Accuracy and balanced accuracy during training, beside Keras and scikit-learn."""

import keras
import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score

from tfapp.objectives import make_objective
from tfapp.training.losses import make_loss
from tfapp.training.metrics import Accuracy, BalancedAccuracy
from tfapp.training.trainer import TrainingModel

GENERATOR = np.random.default_rng(0)
LABELS = GENERATOR.choice(4, 90, p=[0.7, 0.2, 0.1, 0.0]).astype(np.int32)  # no row of the last class
LOGITS = (GENERATOR.normal(size=(90, 4)) + 1.5 * np.eye(4)[LABELS]).astype(np.float32)
MIXED = (0.7 * np.eye(4)[LABELS] + 0.3 * np.eye(4)[(LABELS + 1) % 4]).astype(np.float32)
FORMS = {"indices": LABELS, "column": LABELS[:, None], "one-hot": np.eye(4)[LABELS], "mixed": MIXED}


def measured(metric, labels, weights=None):
    for part in range(0, 90, 40):
        rows = slice(part, part + 40)
        metric.update_state(labels[rows], LOGITS[rows], None if weights is None else weights[rows])
    return float(metric.result())


@pytest.mark.parametrize("form", FORMS)
def test_labels_of_all_forms_give_the_same_scores(form):
    right = LOGITS.argmax(axis=1) == LABELS
    assert measured(Accuracy(), FORMS[form]) == pytest.approx(right.mean(), rel=1e-6)
    expected = balanced_accuracy_score(LABELS, LOGITS.argmax(axis=1))
    assert measured(BalancedAccuracy(4), FORMS[form]) == pytest.approx(expected, rel=1e-6)


def test_weights_of_rows_count():
    weights = GENERATOR.uniform(size=90).astype(np.float32)
    theirs = keras.metrics.SparseCategoricalAccuracy()
    assert measured(Accuracy(), LABELS, weights) == pytest.approx(measured(theirs, LABELS, weights), rel=1e-6)
    expected = balanced_accuracy_score(LABELS, LOGITS.argmax(axis=1), sample_weight=weights)
    assert measured(BalancedAccuracy(4), LABELS, weights) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("metric", [Accuracy(), BalancedAccuracy(4)], ids=lambda metric: metric.name)
def test_metrics_start_anew_and_can_be_rebuilt(metric):
    assert float(metric.result()) == 0.0
    first = measured(metric, LABELS)
    metric.reset_state()
    assert float(metric.result()) == 0.0
    twin = keras.metrics.deserialize(keras.metrics.serialize(metric))
    assert (type(twin), twin.name) == (type(metric), metric.name)
    assert measured(twin, LABELS) == first


def test_training_on_mixed_labels_is_validated_on_indices():
    keras.utils.set_random_seed(0)
    inputs = keras.Input([4])
    network = keras.Model(inputs, keras.layers.Dense(4)(inputs))
    model = TrainingModel(network, objective=make_objective("standard"))
    model.compile(
        optimizer=keras.optimizers.SGD(0.1),
        loss=make_loss("focal", label_smoothing=0.1),
        metrics=[Accuracy(), BalancedAccuracy(4)],
        jit_compile=False,
    )
    history = model.fit(
        LOGITS,
        MIXED,
        sample_weight=MIXED @ np.arange(4, dtype=np.float32),
        validation_data=(LOGITS, LABELS),
        epochs=2,
        batch_size=45,
        verbose=0,
    ).history
    found = network(LOGITS).numpy().argmax(axis=1)
    assert history["val_accuracy"][-1] == pytest.approx((found == LABELS).mean(), rel=1e-6)
    expected = balanced_accuracy_score(LABELS, found)
    assert history["val_balanced_accuracy"][-1] == pytest.approx(expected, rel=1e-6)
    assert history["loss"][1] < history["loss"][0]
