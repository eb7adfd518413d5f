"""What the robustness of an artifact is reckoned from, and when it refuses a release."""

import logging
from dataclasses import replace

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfapp.data.drawing import draw_numbers
from tfapp.data.image import ImageSplit
from tfapp.data.image_store import ArrayImages
from tfapp.errors import ConfigError
from tfapp.evaluation.robustness import AttackSettings, Robustness, evaluate_robustness
from tfapp.evaluation.robustness.intervals import wilson_interval
from tfapp.models import build_image_classifier
from tfapp.release import attacked as attacking
from tfapp.release.attack_report import Attacked, AttackReport
from tfapp.release.attacked import attack_artifacts, attack_model, check_attack, check_sendable
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


def attacked(standing, fooled=None, tried=50, model=None):
    """The first rows stand; of the first that were tried, these are fooled."""
    box = None
    if fooled is not None:
        rows = np.arange(tried)
        box = BlackBoxFound("square", 100, rows, np.isin(rows, fooled))
    return Attacked(standing / ROWS, np.arange(ROWS) < standing, box, model)


def reasons(model, artifact, **budget):
    artifact = replace(artifact, model=model)
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
    # Other rows, as often: both searches draw at random.
    assert reasons(model, attacked(100, fooled=range(20, 50))) == []


def test_what_the_model_loses_to_its_black_box_is_lost_for_every_artifact():
    model = attacked(100, fooled=range(10))
    silent = attacked(100, model=model)
    assert silent.robust_accuracy == model.robust_accuracy == pytest.approx(0.4)
    assert silent.interval95 == model.interval95
    assert attacked(100, fooled=[], model=model).robust_accuracy == pytest.approx(0.4)
    assert attacked(100, fooled=range(5, 15), model=model).robust_accuracy == pytest.approx(0.5 * 35 / 50)
    report = AttackReport(robustness(), model, {"keras": silent})
    assert report.entry("keras")["black_box"] is None
    assert report.entry("keras")["robust_accuracy_drop"] == 0.0


def test_an_artifact_that_lost_a_fooled_row_is_not_the_more_robust():
    """Reckoned from the tried rows that still stand alone it would be: 95 / 200 of which it keeps all."""
    model = attacked(100, fooled=range(5))
    lost = Attacked(0.475, (np.arange(ROWS) >= 5) & (np.arange(ROWS) < 100), None, model)
    assert 0.475 > model.robust_accuracy == pytest.approx(0.45)
    assert lost.robust_accuracy == model.robust_accuracy
    low, high = lost.interval95
    assert low <= lost.robust_accuracy <= high


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


SIZE, IMAGES, AMPLITUDE = 8, 40, 10
CLASSES = ("lying", "standing")
LABELS = np.arange(IMAGES) * 2 // IMAGES  # sorted by class, as splits often are
BLOCKS = np.where(np.arange(SIZE) // 4 % 2, 1.0, -1.0)
TEMPLATES = np.stack(
    [np.tile(BLOCKS[:, None, None], (1, SIZE, 3)), np.tile(BLOCKS[None, :, None], (SIZE, 1, 3))]
)


@pytest.fixture(scope="module")
def model():
    """Looks at blocks of 4 by 8 pixels, which squares of more than 10 grey levels turn over."""
    pixels = keras.Input((SIZE, SIZE, 3), name="pixels")
    hidden = keras.layers.Flatten()(keras.layers.Rescaling(1.0, -128.0)(pixels))
    model = build_image_classifier(keras.Model(pixels, hidden), classes=CLASSES, image_size=SIZE)
    kernel = TEMPLATES.reshape(2, -1).T / (SIZE * SIZE * 3)
    model.layers[-1].set_weights([kernel, np.array([0.01, -0.01])])
    return model


@pytest.fixture(scope="module")
def split():
    return blocks_split(AMPLITUDE * TEMPLATES[LABELS])


def blocks_split(waves):
    store = ArrayImages((128 + waves).astype(np.uint8), np.arange(IMAGES))
    digests = tuple(f"{row + int(waves[0].max()):064d}" for row in range(IMAGES))
    return ImageSplit("test", store, LABELS.astype(np.int32), CLASSES, digests)


def stand_still(model_fn, images, labels, *, epsilon, norm, bounds, seed):
    return tf.identity(images)


@pytest.fixture(scope="module")
def harmless(model, split):
    """An attack that finds nothing, within a budget in which there is something."""
    return evaluate_robustness(model, split, attack=stand_still, epsilon=14 / 255, alarms=False, seed=5)


class Runner:
    """Two artifacts that answer as the model does."""

    def __init__(self, model):
        self.model = model

    def ready(self):
        return ["keras", "float32"]

    def ask(self, variant, probe):
        return tf.nn.softmax(self.model({"pixels": probe.tensors["pixels"]}, training=False)).numpy()


def report_of(model, robustness, split, queries=200):
    return attack_artifacts(
        model, robustness, split, Runner(model), black_box_queries=queries, black_box_examples=10
    )


def test_artifacts_are_no_more_robust_than_a_model_whose_black_box_succeeds(model, split, harmless):
    report = report_of(model, harmless, split)
    fooled = int(report.model.black_box.fooled.sum())
    assert fooled > 5
    assert report.model.robust_accuracy == pytest.approx(1 - fooled / 10)
    for variant in ("keras", "float32"):
        entry = report.entry(variant)
        assert report.artifacts[variant].robust_accuracy == report.model.robust_accuracy
        assert entry["robust_accuracy_drop"] == 0.0
        assert entry["transfer_accuracy"] == 1.0
        assert (entry["black_box"] is None) == (variant == "keras")


def test_the_black_box_tries_rows_of_all_classes_of_a_sorted_split(model, split, harmless):
    found = report_of(model, harmless, split, queries=2).model
    rows = found.black_box.rows
    assert set(LABELS[rows]) == {0, 1}
    np.testing.assert_array_equal(rows, draw_numbers(np.flatnonzero(found.standing), 10, seed=5))


def test_rows_that_rounding_revives_are_told(model, split, harmless, caplog):
    revived = evaluate_robustness(model, split, attack="pgd", epsilon=10.7 / 255, alarms=False)
    assert revived.robust_accuracy == 0.0
    with caplog.at_level(logging.WARNING, logger="tfapp"):
        found = report_of(model, revived, split, queries=0)
    assert found.model.transfer_accuracy > 0.3
    assert "rounding to whole grey levels revives rows" in caplog.text
    caplog.clear()
    report_of(model, harmless, split, queries=0)
    assert "revives" not in caplog.text


def test_two_rows_that_are_answered_otherwise_are_chance(model, split, harmless):
    def otherwise(count):
        return replace(harmless, clean_predicted=np.where(np.arange(IMAGES) < count, 1, LABELS))

    report_of(model, otherwise(2), split, queries=0)
    with pytest.raises(ConfigError, match=r"this one answers 7\.5% of its rows otherwise"):
        report_of(model, otherwise(3), split, queries=0)


def test_examples_of_other_rows_are_refused_though_the_labels_are_the_same(model, split, harmless, tmp_path):
    check_sendable(harmless, split)
    check_sendable(Robustness.load(harmless.save(tmp_path)), split)
    check_sendable(replace(harmless, split_sha256=None, rows=None), split)
    other = blocks_split((AMPLITUDE + 1) * TEMPLATES[LABELS])
    assert list(other.labels) == list(split.labels)
    for robustness in (harmless, Robustness.load(tmp_path)):
        with pytest.raises(ConfigError, match="not in the split 'test'"):
            check_sendable(robustness, other)
    with pytest.raises(ConfigError, match="not in the split 'test'"):
        check_sendable(replace(harmless, rows=harmless.rows[::-1]), split)


def test_what_could_not_be_sent_is_refused_before_the_attack(model, split, tiny_classifier, monkeypatch):
    monkeypatch.setattr(attacking, "evaluate_robustness", lambda *_, **__: pytest.fail("it was attacked"))
    for norm in ("linf", "l2"):
        with pytest.raises(ConfigError, match="less than one grey level"):
            attack_model(model, split, {"epsilon": 0.5 / 255, "norm": norm})
    with pytest.raises(ConfigError, match="perturbs embeddings, which no artifact takes"):
        attack_model(tiny_classifier, split, {"attack": "embedding_pgd"})
    check_attack(AttackSettings(epsilon=1 / 255), model)
    check_attack(AttackSettings(epsilon=1e-3), tiny_classifier)
