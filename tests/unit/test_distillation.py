"""Distillation: where a student begins, what it minimises, and what it learns from whom."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from helpers import StopAfter, Stopped, tiny_text_classifier

from tfapp.data.text import TextData, load_text_data
from tfapp.errors import ConfigError, WeightsError
from tfapp.models.fused import fused_parts
from tfapp.models.hidden_pass import hidden_pass
from tfapp.models.student import StudentParts, build_student, choose_parts
from tfapp.objectives import make_objective
from tfapp.objectives.distilled import Distilled, soft_divergence, state_distance
from tfapp.training import Phase, distill, predict_logits, train
from tfapp.training.losses import make_loss
from tfapp.training.teaching import TaughtRows, TextTeacher
from tfapp.training.trainer import TrainingModel

WORDS = {"sport": "team goal match coach player league", "tech": "computer network phone software data site"}
OPTIONS = {"batch_size": 16, "precision": "float32", "verbose": False, "seed": 0}


def make_rows(count: int, *, seed: int) -> tuple[list[str], list[str]]:
    """Texts of two classes that differ in half of their words."""
    draw = np.random.default_rng(seed)
    labels = [sorted(WORDS)[row % 2] for row in range(count)]
    texts = [
        " ".join(
            draw.permutation(
                [*draw.choice(WORDS[label].split(), 2), *draw.choice(["the", "a", "new", "big", "of"], 5)]
            )
        )
        for label in labels
    ]
    return texts, labels


@pytest.fixture(scope="module")
def data() -> TextData:
    return load_text_data(make_rows(60, seed=1), seed=0)


@pytest.fixture(scope="module")
def teacher(tiny_vocab):
    """A tiny BERT that has learned the two classes from many rows."""
    model = tiny_text_classifier(tiny_vocab, sorted(WORDS), dropout=0.0, dropout_rate=0.0)
    many = load_text_data(make_rows(300, seed=2), seed=0)
    train(model, many, phases=[Phase("all", epochs=3, learning_rate=1e-2)], **OPTIONS)
    return model


@pytest.fixture(scope="module", autouse=True)
def keras_pass():
    """Training on Keras's own pass, whose kernels need no compiling, but where a test says otherwise."""
    with pytest.MonkeyPatch.context() as patch:
        for module in ("run", "teaching"):
            patch.setattr(f"tfapp.training.{module}.fused_parts", lambda *_, **__: None)
        yield


@pytest.fixture
def fused_pass(monkeypatch):
    for module in ("run", "teaching"):
        monkeypatch.setattr(f"tfapp.training.{module}.fused_parts", fused_parts)


def teaching(teacher, texts, parts, *, labelled=None, precision="float32"):
    return TextTeacher(
        teacher,
        texts,
        labelled=len(texts) if labelled is None else labelled,
        token_ids=parts.token_ids,
        layers=parts.layers,
        precision=precision,
        directory=None,
    )


def test_a_student_begins_as_a_part_of_its_teacher(teacher, data):
    parts = choose_parts(teacher, data.train.texts, layers=[2])
    begun = build_student(teacher, parts)
    kept = list(parts.token_ids)
    for name, index in (("token_embedding", kept), ("position_embedding", slice(begun.max_positions))):
        one, other = (getattr(each.backbone, name).get_weights()[0] for each in (begun, teacher))
        np.testing.assert_array_equal(one, other[index])
    (block,), blocks = begun.backbone.transformer_layers, teacher.backbone.transformer_layers
    for one, other in zip(block.get_weights(), blocks[1].get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(
        begun.head_layers[1].get_weights()[0], teacher.head_layers[1].get_weights()[0]
    )
    assert begun.preprocessor.max_length == begun.max_positions == teacher.preprocessor.max_length
    assert StudentParts.from_dict(parts.to_dict()) == parts


def test_a_student_with_all_blocks_answers_as_its_teacher_does(teacher, data):
    whole = build_student(teacher, choose_parts(teacher, data.train.texts, num_layers=2))
    assert len(whole.preprocessor.vocabulary) < len(teacher.preprocessor.vocabulary)
    one, other = (predict_logits(each, data.test.texts) for each in (whole, teacher))
    np.testing.assert_allclose(one, other, atol=1e-5)


@pytest.fixture(scope="module")
def made(teacher, data):
    """A distillation with texts without labels, and the teacher's weights before it."""
    before = teacher.get_weights()
    more = ["minister of the election", data.test.texts[0], "a budget"]
    return distill(teacher, data, unlabelled=more, epochs=1, layers=[1], **OPTIONS), before


def test_training_leaves_the_teacher_as_it_is_and_changes_all_of_the_student(teacher, made):
    found, before = made
    for one, other in zip(before, teacher.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    begun = build_student(teacher, found.parts)
    weights = zip(begun.get_weights(), found.student.get_weights(), strict=True)
    assert min(np.abs(one - other).max() for one, other in weights) > 0
    assert found.parts.layers == (1,)
    assert found.history.epochs[-1]["val_accuracy"] > 0.5


def test_texts_without_labels_decide_the_vocabulary_too(made):
    vocabulary = set(made[0].student.preprocessor.vocabulary)
    assert {"minister", "budget", "coach"} <= vocabulary
    assert "government" not in vocabulary


def test_the_divergence_is_that_of_softened_probabilities():
    draw = np.random.default_rng(0)
    one, other = draw.normal(size=(2, 4, 3)).astype(np.float32)

    def softened(logits):
        shares = np.exp(logits / 3.0)
        return shares / shares.sum(axis=1, keepdims=True)

    wanted, given = softened(one), softened(other)
    expected = 9.0 * (wanted * np.log(wanted / given)).sum(axis=1)
    np.testing.assert_allclose(soft_divergence(one, other, 3.0), expected, rtol=1e-4)


@pytest.mark.parametrize("kind", ["cosine", "mse"])
def test_the_distance_is_over_tokens_that_are_no_padding(kind):
    draw = np.random.default_rng(0)
    mask = np.array([[1, 1, 1], [1, 0, 0]])
    teacher, student = draw.normal(size=(2, 2, 2, 3, 5)).astype(np.float32)
    expected = []
    for row in range(2):
        found = []
        for one, other in zip(teacher[:, row], student[:, row], strict=True):
            for a, b in zip(one[mask[row] > 0], other[mask[row] > 0], strict=True):
                cosine = a @ b / np.linalg.norm(a) / np.linalg.norm(b)
                found.append(1 - cosine if kind == "cosine" else ((a - b) ** 2).mean())
        expected.append(np.mean(found))
    given = state_distance(list(teacher), list(student), mask, kind)
    np.testing.assert_allclose(given, expected, rtol=1e-5)


@pytest.mark.parametrize("fused", [pytest.param(True, marks=pytest.mark.slow), False])
def test_a_step_minimises_the_weighed_sum_of_three_losses(teacher, data, fused):
    texts, labels = data.train.texts[:6], data.train.labels[:6]
    parts = choose_parts(teacher, texts)
    pupil = build_student(teacher, parts)
    own = teaching(teacher, texts, parts, labelled=4)
    objective = Distilled(3.0, label_weight=0.7, logits_weight=0.4, hidden_weight=0.9, teacher=own)
    encoded = pupil.preprocessor.encode(texts)
    inputs = pupil.preprocessor.make_rows(encoded, inputs=tuple(pupil.input)).gather(tf.range(6))
    rows = TaughtRows(
        pupil.preprocessor.make_rows(encoded, inputs=tuple(pupil.input)),
        {"teacher_logits": own.logits, "labelled": np.array([1, 1, 1, 1, 0, 0], np.float32)},
    )
    faster = fused_parts(pupil, "all", precision="float32", generator=None) if fused else None
    trainer = TrainingModel(
        pupil,
        objective=objective,
        forward=faster.upper if faster else None,
        states=hidden_pass(pupil, faster),
    )
    trainer.compile(optimizer="sgd", loss=make_loss("cross_entropy"))
    trainer.optimizer.build(trainer.trainable_variables)
    result = objective.step(trainer, rows.gather(tf.range(6)), tf.constant(labels), None)

    wanted, given = predict_logits(teacher, texts), predict_logits(pupil, texts)
    entropy = -np.log(np.exp(given) / np.exp(given).sum(axis=1, keepdims=True))[np.arange(6), labels]
    soft = soft_divergence(wanted, given, 3.0).numpy()
    _, of_teacher = hidden_pass(teacher, None)(
        {**inputs, "token_ids": tf.gather(parts.token_ids, inputs["token_ids"])}
    )
    _, of_pupil = hidden_pass(pupil, None)(inputs)
    distance = state_distance(
        [of_teacher[0], of_teacher[2]], of_pupil, inputs["padding_mask"], "cosine"
    ).numpy()
    expected = (0.7 * entropy * [1, 1, 1, 1, 0, 0] + 0.4 * soft + 0.9 * distance).mean()
    assert float(result.loss) == pytest.approx(expected, rel=2e-4)
    assert all(gradient is not None for gradient in result.gradients)


def test_kept_hidden_states_are_those_of_a_step(teacher, data, tmp_path):
    texts = data.train.texts
    parts = choose_parts(teacher, texts)
    pupil = build_student(teacher, parts)
    own = teaching(teacher, texts, parts)
    encoded = pupil.preprocessor.encode(texts)
    rows = pupil.preprocessor.make_rows(encoded, inputs=tuple(pupil.input), pad_to=8)
    how = {"states": True, "directory": tmp_path, "pad_to": 8}
    kept = own.rows(rows, encoded, limit_megabytes=10.0, **how).gather(tf.range(7))
    live = own.rows(rows, encoded, limit_megabytes=0.0, **how).gather(tf.range(7))
    assert "teacher_states" in kept
    assert "teacher_states" not in live
    mask = live["padding_mask"].numpy()[..., np.newaxis]
    for one, other in zip(own.hidden_states(kept), own.hidden_states(live), strict=True):
        np.testing.assert_allclose(one * mask, other * mask, atol=1e-5)


def test_a_student_agrees_with_its_teacher_more_than_one_from_scratch(teacher, tiny_vocab, data):
    texts, _ = make_rows(300, seed=3)
    asked, _ = make_rows(200, seed=4)
    given = {"epochs": 4, "learning_rate": 3e-3}
    taught = distill(teacher, data, unlabelled=texts, **given, **OPTIONS).student
    scratch = tiny_text_classifier(tiny_vocab, data.classes, dropout=0.0)
    train(scratch, data, phases=[Phase("all", **given)], **OPTIONS)
    answers = predict_logits(teacher, asked).argmax(axis=1)
    agreed = [(predict_logits(each, asked).argmax(axis=1) == answers).mean() for each in (taught, scratch)]
    assert agreed[0] >= 0.97
    assert agreed[0] > agreed[1]


@pytest.mark.parametrize("cached", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_a_stopped_run_goes_on_to_the_same_weights(teacher, data, tmp_path, cached):
    options = {**OPTIONS, "epochs": 3, "feature_cache_megabytes": 100.0 if cached else 0.0}
    through = distill(teacher, data, run_dir=tmp_path / "through", **options)
    with pytest.raises(Stopped):
        distill(teacher, data, run_dir=tmp_path / "stopped", callbacks=[StopAfter(2)], **options)
    again = distill(teacher, data, run_dir=tmp_path / "stopped", **options)
    for one, other in zip(through.student.get_weights(), again.student.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    assert [row["epoch"] for row in again.history.epochs] == [1, 2, 3]


@pytest.mark.slow
def test_parts_of_batches_and_class_weights_go_with_it(teacher, data):
    options = {**OPTIONS, "epochs": 1, "class_weight": "balanced", "unlabelled": ["a new team", "big data"]}
    whole, parts = (distill(teacher, data, num_microbatches=count, **options) for count in (1, 3))
    for key in ("loss", "val_loss"):
        assert parts.history.epochs[0][key] == pytest.approx(whole.history.epochs[0][key], rel=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("limit", [0.0, 10.0])
def test_the_fused_pass_learns_what_keras_own_does(teacher, data, limit, request):
    options = {**OPTIONS, "epochs": 1, "hidden_loss": "mse", "feature_cache_megabytes": limit}
    plain = distill(teacher, data, **options).history.epochs[0]
    request.getfixturevalue("fused_pass")
    fused = distill(teacher, data, **options).history.epochs[0]
    half = distill(teacher, data, **{**options, "precision": "mixed_bfloat16"}).history.epochs[0]
    # The fused kernels round otherwise, and bfloat16 has 8 bits of a number's digits.
    assert fused["loss"] == pytest.approx(plain["loss"], rel=1e-2)
    assert half["loss"] == pytest.approx(plain["loss"], rel=5e-2)


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"temperature": 0.0}, ConfigError, "temperature = 0.0"),
        ({"label_weight": -1.0}, ConfigError, "label_weight = -1.0"),
        ({"label_weight": 0, "logits_weight": 0, "hidden_weight": 0}, ConfigError, "nothing is learned"),
        ({"hidden_loss": "cosin"}, ConfigError, "unknown hidden_loss 'cosin'"),
        ({"vocabulary": "text"}, ConfigError, "unknown vocabulary 'text'"),
        ({"vocabulary": "whole", "min_count": 2}, ConfigError, "leave one of the two out"),
        ({"num_layers": 3}, ConfigError, "num_layers = 3: the teacher has 2 blocks"),
        ({"num_layers": 1, "layers": [1]}, ConfigError, "leave one of them out"),
        ({"layers": [3]}, ConfigError, r"layers = \[3\]: give different numbers from 1 to 2"),
        ({"intermediate_dim": 99}, ConfigError, "intermediate_dim = 99: the backbone has 32"),
        ({"epochs": 0}, ConfigError, "epochs = 0"),
        ({"phases": [], "objective": "fgm"}, ConfigError, "decides objective, phases by itself"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_learned(teacher, data, given, error, message):
    with pytest.raises(error, match=message):
        distill(teacher, data, **{**OPTIONS, **given})


def test_other_classes_other_data_and_no_teacher_are_refused(teacher, tiny_vocab, data):
    other, own = (tiny_text_classifier(tiny_vocab, classes) for classes in (("x", "y"), data.classes))
    with pytest.raises(ConfigError, match="distil on data of the same classes"):
        distill(other, data, **OPTIONS)
    with pytest.raises(ConfigError, match="not from tuple"):
        distill(teacher, ((), ()), **OPTIONS)
    with pytest.raises(ConfigError, match=r"call tfapp\.distill"):
        train(own, data, objective="distilled", **OPTIONS)
    assert make_objective("distilled", temperature=4.0).temperature == 4.0


def test_a_teacher_of_another_family_is_refused(teacher, data, monkeypatch):
    monkeypatch.setattr(type(teacher), "backbone", property(lambda _: object()))
    with pytest.raises(WeightsError, match="fine-tune a BERT as the teacher"):
        distill(teacher, data, **OPTIONS)
