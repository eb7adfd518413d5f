"""From shards to a release: killed sharding, training that reads shards, the command and its service."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import pytest
from helpers import StopAfter, Stopped, tiny_text_classifier

from tfapp.config import load_config
from tfapp.data.shards.service import running_services
from tfapp.data.shards.sharding import write_shards
from tfapp.data.shards.streamed import load_sharded_data
from tfapp.errors import ConfigError, DataError, TrainingError
from tfapp.training import Phase, SourceTask, train
from tfapp.workflow import run_workflow
from tfapp.workflow_checks import check_stages

WORDS = {
    "business": "market bank price share stock trade profit loss money sale",
    "sport": "team game goal match player coach win score season cup",
    "tech": "phone computer software internet network mobile site data system user",
}
WORKFLOW = """
name = "tiny"
seed = 3
[data]
train = "shards"
max_length = 24
[model]
backbone = "backbone"
pooling = "mean"
[[transfer.phases]]
train = "head"
epochs = 2
learning_rate = 1e-2
[[transfer.phases]]
train = "all"
epochs = 3
learning_rate = 3e-3
[train]
precision = "float32"
class_weight = "balanced"
[evaluate]
num_bootstrap = 50
[export]
variants = ["float32"]
"""
PHASES = (Phase("head", epochs=1, learning_rate=1e-2), Phase("all", epochs=2, learning_rate=1e-3))
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "TF_CPP_MIN_LOG_LEVEL": "3"}


def write_articles(path: Path, *, rows: int) -> Path:
    draw = np.random.default_rng(0)
    lines = []
    for number in range(rows):
        label = sorted(WORDS)[number % 3]
        words = [*draw.choice(WORDS[label].split(), 5), *draw.choice(["the", "a", "of", "new", "old"], 5)]
        draw.shuffle(words)
        lines.append((" ".join(words), label))
    pd.DataFrame(lines, columns=["text", "label"]).to_csv(path, index=False)
    return path


@pytest.fixture(scope="module")
def workplace(tmp_path_factory, tiny_vocab) -> Path:
    """A folder with a workflow file, shards of 360 texts, and a tiny random backbone."""
    import keras_hub
    from helpers import tiny_bert

    folder = tmp_path_factory.mktemp("workplace")
    write_articles(folder / "articles.csv", rows=360)
    write_shards(folder / "articles.csv", folder / "shards", shards=2, split="hash")
    (folder / "workflow.toml").write_text(WORKFLOW)
    keras.utils.set_random_seed(1)
    tiny_bert(tiny_vocab, width=32).save_to_preset(str(folder / "backbone"))
    tokenizer = keras_hub.tokenizers.BertTokenizer(list(tiny_vocab), lowercase=True)
    tokenizer.save_to_preset(str(folder / "backbone"))
    return folder


def trained_weights(vocabulary, data, *, phases=PHASES, **options):
    model = tiny_text_classifier(vocabulary, data.classes)
    history = train(model, data, phases=phases, batch_size=16, precision="float32", seed=4, **options)
    return model.get_weights(), history


def test_a_workflow_learns_from_shards_and_releases(workplace, tmp_path, caplog):
    result = run_workflow(load_config(workplace / "workflow.toml"), output=tmp_path)
    manifest = json.loads((result.release.path / "manifest.json").read_text())
    assert manifest["release"]["verdict"] == "released"
    assert min(artifact["accuracy"] for artifact in manifest["artifacts"]) >= 0.9
    shards = load_sharded_data(workplace / "shards")
    assert {
        split: about["rows"] for split, about in manifest["data"].items()
    } == shards.train.shards.manifest.rows
    assert manifest["data"]["train"]["sha256"] == shards.train.sha256
    assert not list(result.run_directory.rglob("*.npy"))
    again = run_workflow(load_config(workplace / "workflow.toml"), output=tmp_path)
    assert set(again.skipped) == {"prepare", "transfer", "evaluate", "export"}


def test_a_resumed_run_on_shards_ends_with_the_weights_of_an_unbroken_one(
    workplace, tiny_vocab, tmp_path, monkeypatch
):
    # Keras's pass, which compiles no kernels, serves where batches are what matters.
    monkeypatch.setattr("tfapp.training.run.fused_parts", lambda *_, **__: None)
    data = load_sharded_data(workplace / "shards")
    phases = PHASES[1:]
    whole, history = trained_weights(tiny_vocab, data, phases=phases)
    assert len(history.epochs) == 2
    with pytest.raises(Stopped):
        trained_weights(tiny_vocab, data, phases=phases, run_dir=tmp_path / "run", callbacks=[StopAfter(1)])
    resumed, _ = trained_weights(tiny_vocab, data, phases=phases, run_dir=tmp_path / "run")
    assert all(np.array_equal(one, other) for one, other in zip(whole, resumed, strict=True))


@pytest.mark.server
def test_training_through_a_service_ends_with_the_same_weights(workplace, tiny_vocab):
    alone, _ = trained_weights(tiny_vocab, load_sharded_data(workplace / "shards"))
    with running_services([0, 0]) as services:
        data = load_sharded_data(workplace / "shards", service=services.addresses)
        served, _ = trained_weights(tiny_vocab, data)
    assert all(np.array_equal(one, other) for one, other in zip(alone, served, strict=True))
    with pytest.raises(ConfigError, match="nothing answers there"):
        trained_weights(tiny_vocab, data)


class Killing(keras.callbacks.Callback):
    """Kills a process after the first epoch."""

    def __init__(self, process):
        super().__init__()
        self.process = process

    def on_epoch_end(self, epoch, logs=None):
        self.process.kill()


@pytest.mark.server
def test_the_loss_of_a_service_ends_training_with_an_error_and_not_never(workplace, tiny_vocab, tmp_path):
    phases = [Phase("all", epochs=300, learning_rate=1e-4)]
    with running_services([0]) as services:
        data = load_sharded_data(workplace / "shards", service=services.addresses)
        killing = Killing(services.processes[0])
        with pytest.raises(TrainingError, match=r"service at grpc://127\.0\.0\.1:\d+ no longer answers"):
            trained_weights(tiny_vocab, data, phases=phases, run_dir=tmp_path, callbacks=[killing])
    assert list((tmp_path / "checkpoints").iterdir())


def test_what_needs_all_rows_in_memory_is_refused(workplace, tiny_vocab):
    data = load_sharded_data(workplace / "shards")
    model = tiny_text_classifier(tiny_vocab, data.classes)
    for options, message in (
        ({"sampling": "balanced"}, "class_weight='balanced'"),
        ({"source": SourceTask(data)}, "leave the source out"),
    ):
        with pytest.raises(ConfigError, match=message):
            train(model, data, phases=PHASES, **options)
    windows = tiny_text_classifier(tiny_vocab, data.classes)
    windows.preprocessor.long_texts = "windows"
    with pytest.raises(ConfigError, match="long_texts='truncate'"):
        train(windows, data, phases=PHASES)
    with pytest.raises(DataError, match="the training rows stay in"):
        data.save(workplace / "copy")


def test_settings_that_do_not_go_with_shards_are_refused(workplace, tmp_path):
    for overrides, message in (
        (["data.test=articles.csv"], "data.test: the shards in shards decide that"),
        (["data.train=articles.csv", "data.service=grpc://127.0.0.1:5050"], "makes batches from shards"),
        (["transfer.source.train=shards"], "are read for `data` only"),
        (["data.service=127.0.0.1:5050"], "data.service"),
    ):
        with pytest.raises(ConfigError, match=message):
            run_workflow(load_config(workplace / "workflow.toml", overrides), output=tmp_path)
    (workplace / "images.toml").write_text('name = "photos"\n[data]\ntrain = "shards"\nkind = "image"\n')
    with pytest.raises(ConfigError, match=r"shards of texts, but the rows are images: set data\.kind"):
        run_workflow(load_config(workplace / "images.toml"), output=tmp_path)


@pytest.mark.slow
def test_sharding_that_is_killed_goes_on_and_ends_with_the_same_bytes(tmp_path):
    source = write_articles(tmp_path / "articles.csv", rows=600)
    write_shards(source, tmp_path / "whole", shards=40, split="hash")
    command = [sys.executable, "-m", "tfapp", "data", "shard", str(source), str(tmp_path / "out")]
    command += ["--shards", "40", "--split", "hash", "--processes", "2"]
    work = tmp_path / "out" / ".work"
    kept: dict[str, int] = {}
    for wanted in (1, 12):
        process = subprocess.Popen(
            command, env=ENVIRONMENT, stdout=subprocess.DEVNULL, start_new_session=True
        )
        deadline = time.monotonic() + 120
        while len(list(work.glob("bucket-*.json"))) < wanted and process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.005)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        for name, changed in kept.items():
            assert (tmp_path / "out" / name).stat().st_mtime_ns == changed
        records = [json.loads(path.read_text()) for path in work.glob("bucket-*.json")]
        names = [shard["file"] for record in records for shard in record["shards"]]
        kept = {name: (tmp_path / "out" / name).stat().st_mtime_ns for name in names}
    subprocess.run(command, env=ENVIRONMENT, stdout=subprocess.DEVNULL, check=True, timeout=240)
    ends = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    assert ends == {path.name: path.read_bytes() for path in (tmp_path / "whole").iterdir()}
    for name, changed in kept.items():
        assert (tmp_path / "out" / name).stat().st_mtime_ns == changed


@pytest.mark.server
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_command_of_the_service_ends_cleanly(number):
    command = [sys.executable, "-m", "tfapp", "data", "serve", "--port", "0"]
    process = subprocess.Popen(
        command, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    line = process.stdout.readline()
    assert line.startswith('service = ["grpc://127.0.0.1:')
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors.strip().splitlines()[-1]) == (0, "Stopped.")


def test_the_stages_are_checked_before_they_begin(workplace):
    check_stages(load_config(workplace / "workflow.toml"))


@pytest.mark.slow
def test_images_are_learned_from_shards_with_augmentation_and_class_weights(tmp_path):
    import tensorflow as tf

    from tfapp.models import build_image_classifier

    draw = np.random.default_rng(0)
    for number in range(60):
        pixels = draw.integers(0, 90, (16, 16, 3), np.uint8) + np.uint8(150 * (number % 2))
        path = tmp_path / "photos" / ("dark", "light")[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(tf.io.encode_png(pixels).numpy())
    write_shards(tmp_path / "photos", tmp_path / "out", kind="image", near_duplicates="keep", shards=2)
    data = load_sharded_data(tmp_path / "out")
    keras.utils.set_random_seed(0)
    image = keras.Input((16, 16, 3))
    hidden = keras.layers.Rescaling(1 / 255)(image)
    hidden = keras.layers.Conv2D(4, 3, activation="relu")(hidden)
    network = keras.Model(image, hidden)
    model = build_image_classifier(network, classes=data.classes, image_size=16)
    history = train(
        model,
        data,
        phases=[Phase("head", epochs=2, learning_rate=3e-2), Phase("all", epochs=2, learning_rate=3e-2)],
        batch_size=8,
        augment={"horizontal_flip": True, "brightness": 0.1},
        class_weight="balanced",
        precision="float32",
    )
    assert history.epochs[-1]["val_accuracy"] == 1.0
