"""Which runs a transfer ledger makes, told by stand-ins that learn nothing."""

from types import SimpleNamespace

import numpy as np
import pytest

from tfapp.errors import ConfigError, DataError
from tfapp.evaluation import transfer_ledger
from tfapp.training import Phase

PHASES = [Phase("head", epochs=2, learning_rate=0.02), Phase(1, epochs=3, learning_rate=0.01)]
TARGET = np.arange(30) % 3
SOURCE = np.arange(20) % 2


class Head:
    weights = ("untrained",)

    def get_weights(self):
        return self.weights

    def set_weights(self, weights):
        self.weights = tuple(weights)


class Model:
    """Answers as it was trained: so many rows wrong."""

    def __init__(self, state, head=None):
        self.state, self.head_layers = state, (None, head or Head())
        self.preprocessor = SimpleNamespace(max_length=11)

    def with_classes(self, classes, *, seed):
        return Model(self.state)


def data_of(labels):
    split = SimpleNamespace(features=labels, labels=labels, name="test")
    sized = type("Split", (SimpleNamespace,), {"__len__": lambda self: len(self.labels)})(**vars(split))
    return SimpleNamespace(test=sized, classes=tuple(map(str, set(labels))), kind="text")


@pytest.fixture
def calls(monkeypatch):
    """The calls of `train`; the source's answers depend on the head that they are given by."""
    calls = []

    def train(model, data, **options):
        calls.append((data, options))
        model.trained = options["run_dir"].name if options["run_dir"] else ""
        source_model = None
        if data is not SOURCE_DATA:
            joint = options.get("source") is not None
            model.wrong = {"from-scratch": 12, "frozen": 6, "fine-tuned": 3, "joint": 0}[way_of(options)]
            source_model = Model("joint", Head()) if joint else None
            if joint:
                source_model.head_layers[1].set_weights(["joint"])
        else:
            model.head_layers[1].set_weights(["probe"])
        return SimpleNamespace(source_model=source_model, alpha=0.5 if source_model else None)

    def way_of(options):
        return options["run_dir"].name.rsplit("-", 1)[0]

    def predict_logits(model, features):
        labels = np.array(features)
        wrong = (
            model.wrong
            if len(labels) == len(TARGET)
            else {"probe": 4, "joint": 1}[model.head_layers[1].weights[0]]
        )
        classes = labels.max() + 1
        answers = labels.copy()
        answers[:wrong] = (answers[:wrong] + 1) % classes
        return np.eye(classes)[answers]

    monkeypatch.setattr("tfapp.training.train", train)
    monkeypatch.setattr("tfapp.training.predict_logits", predict_logits)
    return calls


TARGET_DATA, SOURCE_DATA = data_of(TARGET), data_of(SOURCE)


def test_the_runs_and_what_they_are_given(calls, tmp_path):
    built = []

    def build(weights, seed):
        built.append((weights, seed))
        return Model(weights)

    ledger = transfer_ledger(
        build,
        TARGET_DATA,
        source=SimpleNamespace(data=SOURCE_DATA),
        phases=PHASES,
        seeds=(4, 5),
        num_bootstrap=200,
        run_dir=tmp_path,
        class_weight={"0": 2.0},
        layer_decay=0.9,
    )
    assert built == [(weights, seed) for seed in (4, 5) for weights in (None, *["pretrained"] * 3)]
    scratch, frozen, probe, tuned, joint = calls[:5]
    assert [call[1]["run_dir"].name for call in calls[:5]] == [
        "from-scratch-4",
        "frozen-4",
        "source-probe-4",
        "fine-tuned-4",
        "joint-4",
    ]
    assert scratch[1]["phases"] == (Phase("all", epochs=5, learning_rate=5e-4),)
    assert scratch[1]["layer_decay"] == 1.0
    assert frozen[1]["phases"] == probe[1]["phases"] == (Phase("head", epochs=5, learning_rate=0.02),)
    assert tuned[1]["phases"] == joint[1]["phases"] == tuple(PHASES)
    assert (probe[0], probe[1]["class_weight"], probe[1]["max_length"]) == (SOURCE_DATA, None, 11)
    assert (tuned[1]["class_weight"], tuned[1]["layer_decay"]) == ({"0": 2.0}, 0.9)
    assert probe[1]["feature_dir"] != frozen[1]["feature_dir"] == tuned[1]["feature_dir"]
    assert [call[1].get("source") is not None for call in calls[:5]] == [False] * 4 + [True]
    assert [row.accuracy.value for row in ledger.rows] == pytest.approx([0.6, 0.8, 0.9, 1.0])
    assert ledger.verdict("joint") == "helped"
    assert ledger.rows[3].source_before.value == 0.8
    assert ledger.rows[3].source_after.value == 0.95
    assert ledger.rows[3].forgot.value == pytest.approx(-0.15)
    assert ledger.rows[3].alphas == (0.5, 0.5)


def test_without_a_source_nothing_is_joint(calls, tmp_path):
    ledger = transfer_ledger(lambda weights, seed: Model(weights), TARGET_DATA, run_dir=tmp_path)
    assert [row.way for row in ledger.rows] == ["from scratch", "frozen", "fine-tuned"]
    assert ledger.source_rows == 0
    assert len(calls) == 3


def test_only_chosen_ways_are_trained(calls, tmp_path):
    ledger = transfer_ledger(
        lambda weights, seed: Model(weights),
        TARGET_DATA,
        source=SimpleNamespace(data=SOURCE_DATA),
        ways=["joint", "fine-tuned"],
        run_dir=tmp_path,
    )
    assert [row.way for row in ledger.rows] == ["fine-tuned", "joint"]
    assert [row.source_after for row in ledger.rows] == [None, None]  # without frozen nothing is known before
    assert ledger.verdict("joint", "fine-tuned")
    assert len(calls) == 2


def test_impossible_ledgers_are_refused(calls):
    with pytest.raises(ConfigError, match="'tuned' is unknown"):
        transfer_ledger(Model, TARGET_DATA, ways=["frozen", "tuned"])
    with pytest.raises(ConfigError, match="'joint' needs source="):
        transfer_ledger(Model, TARGET_DATA, ways=["frozen", "joint"])
    with pytest.raises(ConfigError, match="name at least one"):
        transfer_ledger(Model, TARGET_DATA, ways=[])
    with pytest.raises(ConfigError, match="all different"):
        transfer_ledger(Model, TARGET_DATA, seeds=(1, 1))
    with pytest.raises(ConfigError, match="num_bootstrap = 0"):
        transfer_ledger(Model, TARGET_DATA, num_bootstrap=0)
    with pytest.raises(DataError, match="the source has no test rows"):
        transfer_ledger(Model, TARGET_DATA, source=SimpleNamespace(data=data_of(np.zeros(0, np.int64))))
    assert not calls
