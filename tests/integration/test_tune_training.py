"""Tuning the training of a tiny workflow: what is tried, and that nothing is left of it."""

from __future__ import annotations

import random

import pytest

from tfapp.config import load_config
from tfapp.errors import ConfigError
from tfapp.training import tuning
from tfapp.training.precision import choose_precision
from tfapp.training.tuning_choice import Way
from tfapp.workflow_tuning import tune_workflow

WORKFLOW = """
name = "tiny"
[data]
train = "texts.csv"
max_length = 16
[model]
backbone = "backbone"
pooling = "mean"
[[transfer.phases]]
train = "head"
epochs = 2
learning_rate = 1e-2
[[transfer.phases]]
train = "all"
epochs = 1
learning_rate = 1e-3
[train]
precision = "float32"
batch_size = 16
"""


@pytest.fixture(scope="module")
def workflow(tmp_path_factory, tiny_vocab):
    """A workflow on 240 texts and a tiny random backbone."""
    import keras_hub
    from helpers import tiny_bert

    folder = tmp_path_factory.mktemp("tuned")
    draw = random.Random(0)
    words = [piece for piece in tiny_vocab if piece.isalpha() and len(piece) > 2]
    rows = [f"{' '.join(draw.choices(words, k=8))},{'ab'[number % 2]}" for number in range(240)]
    (folder / "texts.csv").write_text("\n".join(["text,label", *rows]) + "\n")
    (folder / "workflow.toml").write_text(WORKFLOW)
    tiny_bert(tiny_vocab).save_to_preset(str(folder / "backbone"))
    tokenizer = keras_hub.tokenizers.BertTokenizer(list(tiny_vocab), lowercase=True)
    tokenizer.save_to_preset(str(folder / "backbone"))
    return folder / "workflow.toml"


def test_every_phase_is_measured_in_every_way_and_nothing_is_left_behind(workflow, monkeypatch):
    before = sorted(workflow.parent.rglob("*"))
    monkeypatch.chdir(workflow.parent)
    monkeypatch.setattr(tuning, "choose_precision", lambda _requested: "float32")
    tuned = tune_workflow(load_config(workflow), batch_sizes=(32,), seconds=0.1)
    head, everything = tuned.phases
    assert (head.title, everything.title) == ("transfer, head", "transfer, all")
    assert set(head.seconds) == {
        Way("float32", size, cached) for size, cached in ((16, True), (32, True), (16, False))
    }
    assert set(everything.seconds) == {Way("float32", 16), Way("float32", 32)}
    for phase in tuned.phases:
        assert phase.failed == {}
        assert all(len(taken) >= 3 and min(taken) > 0 for taken in phase.seconds.values())
        assert phase.rows >= phase.sample >= 64
    # 16 float32 numbers of each of the rows, perhaps with some bytes of description.
    numbers = 16 * 4 * (head.rows + 24) / 1e6
    assert numbers * 0.9 <= head.cache_megabytes < numbers + 0.01
    assert everything.cache_megabytes is None
    assert tuned.now.way(head) == Way("float32", 16, True)
    assert set(tuned.changes) <= {"precision", "batch_size", "feature_cache_megabytes"}
    assert sorted(workflow.parent.rglob("*")) == before


def test_batch_sizes_are_tried_on_request_and_augmented_rows_cached_as_they_are(workflow):
    phases = 'transfer.phases=[{train="head", epochs=1, learning_rate=1e-2}]'
    overrides = [phases, 'data.augment={edits=["swap"]}', "train.batch_size=8"]
    tuned = tune_workflow(load_config(workflow, overrides), seconds=0.1)
    (head,) = tuned.phases
    assert set(head.seconds) == {
        Way(precision, 8, True) for precision in ("float32", choose_precision("auto"))
    }
    assert head.cache_megabytes > 2 * 16 * 4 * head.rows / 1e6  # two views of each row


def test_what_a_run_would_refuse_is_refused_here_too(workflow):
    with pytest.raises(ConfigError, match="max_length"):
        tune_workflow(load_config(workflow, ["data.max_length=4000"]), seconds=0.1)
