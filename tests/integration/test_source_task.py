"""Training with a source task beside the target: its weights, its resumption, its search, its refusals."""

import random

import numpy as np
import pytest
from helpers import StopAfter, Stopped, tiny_text_classifier

from tfapp.data.text import TextData, TextSplit, load_text_data
from tfapp.errors import ConfigError, DataError, TrainingError
from tfapp.evaluation import evaluate
from tfapp.objectives.joint import Joint
from tfapp.objectives.standard import Standard
from tfapp.training import Phase, SourceTask, predict_logits, train

TOPICS = {"sport": ["team", "goal", "match"], "tech": ["computer", "network", "phone"]}
MOODS = {"good": ["great", "fine", "best"], "bad": ["awful", "poor", "worst"], "plain": ["long", "short"]}
PHASES = [Phase("head", epochs=1, learning_rate=0.02)]


def make_data(words, rows, seed):
    draw = random.Random(seed)
    names = list(words)
    report = load_text_data((["a", "b", "c", "d", "e", "f", "g", "h"] * 3, ["x", "y"] * 12), seed=0).report

    def split(name, count):
        texts = [
            " ".join(
                draw.choice(words[names[row % len(names)]] + ["the", "a"]) for _ in range(draw.choice([4, 7]))
            )
            for row in range(count)
        ]
        labels = np.arange(count, dtype=np.int32) % len(names)
        return TextSplit(name, tuple(texts), labels, tuple(names))

    splits = [split("train", rows), split("validation", 12), split("test", 12)]
    return TextData(*splits, tuple(names), report, 5)


@pytest.fixture(scope="module")
def target():
    return make_data(TOPICS, 18, 1)


@pytest.fixture(scope="module")
def moods():
    return make_data(MOODS, 15, 2)


@pytest.fixture(scope="module")
def make_model(tiny_vocab):
    def make(dropout=0.1):
        return tiny_text_classifier(tiny_vocab, TOPICS, dropout=dropout, dropout_rate=dropout)

    return make


def run(model, data, **options):
    options = {"phases": PHASES, "batch_size": 8, "precision": "float32", "verbose": False, **options}
    return train(model, data, **options)


def assert_equal_models(one, other):
    for first, second in zip(one.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(first, second)


def test_a_stopped_run_with_a_source_goes_on_as_if_it_had_never_stopped(
    make_model, target, moods, tmp_path, monkeypatch
):
    monkeypatch.setattr("tfapp.training.run.fused_parts", lambda *_, **__: None)
    options = {
        "source": SourceTask(moods, alpha=0.5, alpha_schedule="cosine"),
        "phases": [Phase("head", epochs=2, learning_rate=0.02)],
    }
    unbroken, resumed = make_model(), make_model()
    whole = run(unbroken, target, **options)
    with pytest.raises(Stopped):
        run(resumed, target, run_dir=tmp_path, callbacks=[StopAfter(1)], **options)
    history = run(make_model(), target, run_dir=tmp_path, **options)
    assert [row["loss"] for row in history.epochs] == [row["loss"] for row in whole.epochs]
    assert_equal_models(history.source_model, whole.source_model)
    assert whole.source_model.classes == tuple(MOODS)
    assert unbroken.classes == tuple(TOPICS)


@pytest.mark.slow
def test_both_tasks_are_learned(make_model, target, moods):
    model = make_model()
    phases = [Phase("all", epochs=12, learning_rate=0.01)]
    history = run(model, target, source=SourceTask(moods), phases=phases, keep_best=False)
    assert history.alpha == 1.0
    assert evaluate(model, target.train, num_bootstrap=1).accuracy.value > 0.8
    assert evaluate(history.source_model, moods.train, num_bootstrap=1).accuracy.value > 0.8
    assert history.source_model.backbone is model.backbone


@pytest.mark.slow
@pytest.mark.parametrize("train", ["head", 1, "all"])
def test_both_ways_of_computing_learn_the_same(make_model, target, moods, monkeypatch, train):
    phases = [Phase(train, epochs=1, learning_rate=0.005)]
    fused, plain = make_model(dropout=0.0), make_model(dropout=0.0)
    first = run(fused, target, source=SourceTask(moods), phases=phases)
    monkeypatch.setattr("tfapp.training.run.fused_parts", lambda *_, **__: None)
    second = run(plain, target, source=SourceTask(moods), phases=phases)
    assert first.epochs[0]["loss"] == pytest.approx(second.epochs[0]["loss"], abs=1e-5)
    # Adam turns a gradient's sign into a step: near 0 a rounding can turn it, hence no tighter bound.
    for one, other in zip(first.source_model.weights, second.source_model.weights, strict=True):
        assert np.abs(one.numpy() - other.numpy()).mean() < 1e-4


def test_without_weight_the_target_learns_as_if_alone(make_model, target, moods):
    """The head phase without dropout: the same batches of the target, the same updates."""
    alone, beside = make_model(dropout=0.0), make_model(dropout=0.0)
    options = {"keep_best": False, "clip_norm": None}
    first = run(alone, target, **options)
    second = run(beside, target, source=SourceTask(moods, alpha=0.0), **options)
    assert_equal_models(alone, beside)
    assert first.epochs[0]["accuracy"] == second.epochs[0]["accuracy"]


def test_the_best_of_several_weights_is_kept(make_model, target, moods, tmp_path):
    options = {"monitor": "val_loss", "run_dir": tmp_path}
    model = make_model()
    history = run(model, target, source=SourceTask(moods, alpha=[2.0, 0.0]), **options)
    assert [tried.alpha for tried in history.alphas] == [0.0, 2.0]
    best = min(history.alphas, key=lambda tried: tried.score)
    assert history.alpha == best.alpha
    assert history.epochs[0]["val_loss"] == best.score
    again = make_model()
    run(again, target, source=SourceTask(moods, alpha=best.alpha), monitor="val_loss")
    assert_equal_models(model, again)
    # A finished search is read back, not run again.
    resumed = make_model()
    second = run(resumed, target, source=SourceTask(moods, alpha=[2.0, 0.0]), **options)
    assert second.alphas == history.alphas
    assert_equal_models(resumed, model)


def test_a_search_without_a_score_that_is_a_number_is_one_clear_error(make_model, target, moods, monkeypatch):
    monkeypatch.setattr("tfapp.training.alpha_search._score", lambda _run: float("nan"))
    monkeypatch.setattr("tfapp.training.alpha_search.complete_run", lambda _run: None)
    with pytest.raises(
        TrainingError, match=r"none of the alphas \[0.0, 2.0\] led to a val_loss that is a number"
    ):
        run(make_model(), target, source=SourceTask(moods, alpha=[2.0, 0.0]), monitor="val_loss")


def test_rows_that_the_target_holds_out_are_not_learned(make_model, target, moods, caplog):
    caplog.set_level("INFO", "tfapp")
    texts = (*moods.train.texts, *target.test.texts, *target.validation.texts[:3])
    labels = np.zeros(len(texts), np.int32)
    leaking = TextData(
        TextSplit("train", texts, labels, moods.classes),
        moods.validation,
        moods.test,
        moods.classes,
        moods.report,
        0,
    )
    model = make_model()
    run(model, target, source=SourceTask(leaking, source_share=0.5), class_weight="balanced")
    assert "15 rows of the source are left out" in caplog.text
    assert np.isfinite(predict_logits(model, target.test.texts)).all()
    only = TextData(target.test, moods.validation, moods.test, target.classes, moods.report, 0)
    with pytest.raises(DataError, match="held out by the target"):
        run(make_model(), target, source=SourceTask(only))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"alpha": []}, "alpha = \\[\\]"),
        ({"alpha": [1.0, 1.0]}, "that all differ"),
        ({"alpha": -0.1}, "alpha = -0.1"),
        ({"alpha_schedule": "square"}, "unknown alpha_schedule 'square'"),
        ({"source_share": 0.0}, "source_share = 0.0"),
    ],
)
def test_impossible_sources_are_refused(moods, options, message):
    with pytest.raises(ConfigError, match=message):
        SourceTask(moods, **options)


class Twice(Standard):
    """An objective of a user's own."""

    def step(self, model, inputs, labels, sample_weight):
        return super().step(model, inputs, labels, 2 * sample_weight)


def test_what_does_not_go_with_a_source_is_refused(make_model, target, moods, monkeypatch):
    model = make_model()
    with pytest.raises(ConfigError, match="give the second one with source="):
        run(model, target, objective="joint")
    for objective in (Joint(0.5), Twice()):
        with pytest.raises(
            ConfigError,
            match=r"objective = (Joint|Twice)\(\.\.\.\) cannot .* beside a source task.*Leave one",
        ):
            run(model, target, source=SourceTask(moods), objective=objective)
    searched = SourceTask(moods, alpha=[0.1, 1.0])
    with pytest.raises(ConfigError, match="compared on the target's validation rows"):
        run(model, target, source=searched, monitor="loss")

    class Strategy:
        num_replicas_in_sync = 2

    monkeypatch.setattr("tensorflow.distribute.get_strategy", Strategy)
    with pytest.raises(ConfigError, match="learned on one device"):
        run(model, target, source=SourceTask(moods))
