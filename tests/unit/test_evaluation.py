import json
import logging
import subprocess
import sys
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import pytest

from tfapp.data.text import TextSplit
from tfapp.errors import ConfigError, DataError, OutputError
from tfapp.evaluation import evaluate, evaluate_logits, fit_temperature
from tfapp.evaluation.figures import _most_confused, draw_confusion
from tfapp.training.inference import predict_logits

CLASSES = ("negative", "neutral", "positive")
SECRET = "a private sentence"


@dataclass
class Model:
    """What evaluation needs of a classifier; its logits are looked up by text."""

    logits: dict[str, np.ndarray]
    classes: tuple[str, ...] = CLASSES
    task: str = "single_label"
    temperature: float = 1.0


@dataclass
class Split:
    name: str
    features: tuple[str, ...]
    labels: np.ndarray
    classes: tuple[str, ...] = field(default=CLASSES)

    def __len__(self):
        return len(self.features)


def make_split(name: str, rows: int, seed: int) -> tuple[Split, dict[str, np.ndarray]]:
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, 3, rows)
    logits = 4 * (generator.normal(size=(rows, 3)) + 1.5 * np.eye(3)[labels])
    features = tuple(f"{SECRET} {name} {row}" for row in range(rows))
    return Split(name, features, labels.astype(np.int32)), dict(zip(features, logits, strict=True))


@pytest.fixture
def setting(monkeypatch):
    """A model, a validation and a test split, and inference that looks the logits up."""
    validation, first = make_split("validation", 300, 0)
    test, second = make_split("test", 200, 1)

    class Inference:
        @staticmethod
        def predict_logits(model, features, *, batch_size=128):
            return np.array([model.logits[text] for text in features], np.float32)

    monkeypatch.setitem(sys.modules, "tfapp.training.inference", Inference)
    return Model(first | second), validation, test


def some_evaluation(num_classes=3, rows=60, **options):
    generator = np.random.default_rng(0)
    labels = generator.integers(0, num_classes, rows)
    logits = generator.normal(size=(rows, num_classes)) + 2 * np.eye(num_classes)[labels]
    classes = [f"class {index}" for index in range(num_classes)]
    return evaluate_logits(logits, labels, classes, num_bootstrap=50, **options)


def test_calibrating_sets_the_models_temperature_from_validation_alone(setting):
    model, validation, test = setting
    evaluation = evaluate(model, test, calibrate_with=validation, num_bootstrap=100)
    expected = fit_temperature(
        np.array([model.logits[text] for text in validation.features]), validation.labels
    )
    assert model.temperature == evaluation.temperature == pytest.approx(expected, rel=1e-5)
    assert evaluation.calibrated_on == "validation"
    assert evaluation.log_loss_calibrated.value < evaluation.log_loss.value
    assert evaluation.ece_calibrated.value < evaluation.ece.value


def test_without_calibration_the_model_keeps_its_temperature(setting):
    model, _, test = setting
    model.temperature = 2.0
    evaluation = evaluate(model, test, num_bootstrap=100)
    assert model.temperature == evaluation.temperature == 2.0
    assert evaluation.calibrated_on is None


def test_a_task_without_metrics_is_refused_by_name(setting):
    model, _, test = setting
    model.task = "regression"
    with pytest.raises(ConfigError, match=r"'regression'.*single_label"):
        evaluate(model, test)


def test_another_label_order_is_refused(setting):
    model, validation, test = setting
    test.classes = tuple(reversed(CLASSES))
    with pytest.raises(DataError, match="same order"):
        evaluate(model, test, calibrate_with=validation)
    assert model.temperature == 1.0


def test_an_empty_split_is_refused(setting):
    model, _, _ = setting
    with pytest.raises(DataError, match="'empty' has no rows"):
        evaluate(model, Split("empty", (), np.zeros(0, np.int32)))


def test_calibrating_on_the_evaluated_rows_is_warned_about(setting, caplog):
    model, _, test = setting
    with caplog.at_level(logging.WARNING, logger="tfapp"):
        evaluate(model, test, calibrate_with=test, num_bootstrap=10)
    assert "the very rows that are evaluated" in caplog.text


def test_the_number_of_classes_must_fit_the_logits():
    with pytest.raises(DataError, match="2 columns, but there are 3 classes"):
        evaluate_logits(np.zeros((4, 2)), np.zeros(4, int), CLASSES)


def test_confusion_counts_true_classes_down_and_predicted_across():
    logits = np.eye(3)[[0, 1, 1, 2]]
    evaluation = evaluate_logits(logits, np.array([0, 0, 0, 2]), CLASSES, num_bootstrap=10)
    assert evaluation.confusion.tolist() == [[1, 2, 0], [0, 0, 0], [0, 0, 1]]


def test_dict_is_json_and_holds_every_score():
    evaluation = evaluate_logits(np.eye(4)[[0, 1]], np.array([0, 0]), "abcd", num_bootstrap=10)
    told = json.loads(json.dumps(evaluation.to_dict(), allow_nan=False))
    assert told["task"] == "single_label"
    assert told["rows"] == 2
    assert set(told["accuracy"]) == {"value", "low", "high"}
    assert told["per_class"][3] == {"name": "d", "precision": None, "recall": None, "f1": None, "support": 0}
    assert np.sum(told["confusion"]) == 2


def test_lines_are_readable_and_aligned():
    evaluation = evaluate_logits(
        np.eye(3)[[0, 1, 1]], np.array([0, 1, 0]), ("财经", "b", "unseen"), split="dev"
    )
    text = str(evaluation)
    assert text.splitlines()[0] == "dev: 3 rows, 3 classes"
    assert "macro F1" in text
    assert "1 x  财经 -> b" in text
    assert "1 of 3 classes have no row in this split: unseen" in text
    rows = evaluation.lines()
    start = next(index for index, line in enumerate(rows) if line.startswith("class"))
    wide = rows[start + 2]
    assert len(wide) + 2 == len(rows[start])  # the two wide letters take two columns each


def test_many_classes_show_the_worst_only():
    lines = some_evaluation(num_classes=77, rows=400).lines()
    assert any("10 lowest F1 of 77" in line for line in lines)
    assert len(lines) < 40


@pytest.mark.parametrize("num_classes", [2, 31])
def test_save_writes_readable_files_and_no_text(tmp_path, num_classes):
    evaluation = some_evaluation(num_classes, split="test", temperature=1.5)
    folder = evaluation.save(tmp_path / "deep" / "report")
    names = {"metrics.json", "predictions.parquet", "confusion_matrix.png", "reliability.png"}
    assert {path.name for path in folder.iterdir()} == names
    assert json.loads((folder / "metrics.json").read_text(encoding="utf-8")) == evaluation.to_dict()
    for picture in ("confusion_matrix.png", "reliability.png"):
        assert (folder / picture).read_bytes().startswith(b"\x89PNG")
    rows = pd.read_parquet(folder / "predictions.parquet")
    assert list(rows.columns) == ["row", "label", "predicted", "confidence"]
    assert (rows["label"] == rows["predicted"]).mean() == pytest.approx(evaluation.accuracy.value)


def test_no_text_of_the_data_is_written(setting, tmp_path):
    model, _, test = setting
    folder = evaluate(model, test, num_bootstrap=10).save(tmp_path)
    for path in folder.iterdir():
        assert SECRET.encode() not in path.read_bytes()


def test_class_names_that_look_like_formulas_or_lack_a_font_are_drawn(tmp_path, recwarn):
    names = ("$\\broken$", "财经" * 40)
    evaluate_logits(np.eye(2), np.array([0, 1]), names, num_bootstrap=5).save(tmp_path)
    assert not [warning for warning in recwarn if "Glyph" in str(warning.message)]


def test_saving_where_a_file_stands_is_refused_and_leaves_nothing(tmp_path):
    (tmp_path / "taken").write_text("mine")
    with pytest.raises(OutputError, match="taken"):
        some_evaluation().save(tmp_path / "taken")
    assert (tmp_path / "taken").read_text() == "mine"


def test_a_failed_write_leaves_the_old_file_and_no_temporary_one(tmp_path, monkeypatch):
    folder = some_evaluation(split="old").save(tmp_path)
    before = (folder / "reliability.png").read_bytes()

    def full_disk(evaluation, path):
        path.write_bytes(b"half a pict")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tfapp.evaluation.figures.draw_reliability", full_disk)
    with pytest.raises(OutputError, match="No space left"):
        some_evaluation(split="new").save(tmp_path)
    assert (folder / "reliability.png").read_bytes() == before
    assert len(list(folder.iterdir())) == 4


def test_scores_load_neither_tensorflow_nor_matplotlib():
    code = (
        "import sys, numpy as np; from tfapp.evaluation import evaluate_logits;"
        "evaluate_logits(np.eye(2), np.array([0, 1]), 'ab', num_bootstrap=5);"
        "print(sorted({'tensorflow', 'keras', 'matplotlib'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_real_classifier_is_measured_on_its_own_logits(tiny_classifier, tiny_vocab):
    classes = tiny_classifier.classes
    words = [piece for piece in tiny_vocab if piece.isalpha()]
    features = tuple(" ".join(words[start : start + 1 + start % 9]) for start in range(30))
    logits = predict_logits(tiny_classifier, features)
    labels = logits.argmax(axis=1).astype(np.int32)
    labels[:6] = (labels[:6] + 1) % len(classes)
    split = TextSplit("test", features, labels, classes)
    evaluation = evaluate(tiny_classifier, split, calibrate_with=split, num_bootstrap=20)
    assert evaluation.accuracy.value == pytest.approx(24 / 30)
    assert tiny_classifier.temperature == pytest.approx(fit_temperature(logits, labels), rel=1e-3)


def test_a_picture_of_many_classes_stays_bounded(tmp_path):
    evaluation = some_evaluation(num_classes=400, rows=1200)
    draw_confusion(evaluation, tmp_path / "confusion.png")
    header = (tmp_path / "confusion.png").read_bytes()[16:24]
    width, height = int.from_bytes(header[:4], "big"), int.from_bytes(header[4:], "big")
    assert 2000 < width < 4000
    assert 2000 < height < 4000


def test_of_many_classes_the_most_confused_are_drawn():
    confusion = 10 * np.eye(400, dtype=np.int64)
    confusion[399, 7] = 5
    confusion[200, 399] = 1
    shown = _most_confused(confusion)
    assert len(shown) == 150
    assert {7, 200, 399} <= set(shown.tolist())
    assert _most_confused(confusion[:150, :150]).tolist() == list(range(150))
