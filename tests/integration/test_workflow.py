"""The whole workflow on a tiny backbone: what it leaves behind, what it skips, and how it goes on."""

from __future__ import annotations

import json
import logging
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from workplaces import WORDS, WORKFLOW, make_workplace, write_articles

from tfapp.config import load_config
from tfapp.errors import ConfigError, OutputError, ReleaseRefused
from tfapp.runs import open_run
from tfapp.training.inference import predict_logits
from tfapp.workflow import open_trained, run_workflow


@pytest.fixture(scope="module")
def workplace(tmp_path_factory, tiny_vocab) -> Path:
    return make_workplace(tmp_path_factory.mktemp("workplace"), tiny_vocab)


@pytest.fixture(scope="module")
def released(workplace, tmp_path_factory):
    """The result of one whole run, and the folder that it wrote to."""
    output = tmp_path_factory.mktemp("output")
    return run_workflow(load_config(workplace / "workflow.toml"), output=output), output


def epochs_in(history: Path) -> int:
    return max(0, len(history.read_text().splitlines()) - 1) if history.exists() else 0


def test_a_run_ends_in_a_release_that_learned_something(released):
    result, output = released
    assert result.skipped == ()
    assert result.release.path == output / "saved_models" / "tiny" / "1"
    manifest = json.loads((result.release.path / "manifest.json").read_text())
    assert manifest["release"]["verdict"] == "released"
    assert {artifact["variant"] for artifact in manifest["artifacts"]} == {"float32", "text"}
    assert min(artifact["accuracy"] for artifact in manifest["artifacts"]) >= 0.95
    assert manifest["seed"] == 3
    assert manifest["config"]["data"]["train"] == "articles.csv"  # as written: no path of this machine


def test_each_stage_leaves_its_record(released):
    result, _ = released
    for stage in ("prepare", "transfer", "evaluate", "export"):
        assert json.loads((result.run_directory / stage / "stage.json").read_text())["finished"]
    assert epochs_in(result.run_directory / "transfer" / "history.csv") == 5
    assert (result.run_directory / "evaluate" / "metrics.json").is_file()


def test_the_table_has_a_row_for_each_artifact(released):
    result, _ = released
    assert [row["artifact"] for row in result.release.table()] == ["float32", "text"]


def test_nothing_is_done_again_when_nothing_changed(released, workplace):
    first, output = released
    again = run_workflow(load_config(workplace / "workflow.toml"), output=output)
    assert again.skipped == ("prepare", "transfer", "evaluate", "export")
    assert again.release.path == first.release.path
    assert again.metrics == first.metrics


def test_a_broken_budget_refuses_and_only_export_is_done_again(released, workplace):
    _, output = released
    short = "export.variants=['float32']"
    config = load_config(workplace / "workflow.toml", [short, "verify.max_abs_difference=0.0"])
    before = (output / "runs" / "tiny" / "transfer" / "stage.json").stat().st_mtime_ns
    with pytest.raises(ReleaseRefused) as refused:
        run_workflow(config, output=output)
    assert any("a probability differs" in reason for reason in refused.value.reasons)
    assert refused.value.directory.name.startswith("refused-")
    assert (output / "runs" / "tiny" / "transfer" / "stage.json").stat().st_mtime_ns == before
    assert [path.name for path in (output / "saved_models" / "tiny").iterdir() if path.name.isdigit()] == [
        "1"
    ]
    # The next run with the old budget exports again, into the next version.
    again = run_workflow(load_config(workplace / "workflow.toml", [short]), output=output)
    assert again.skipped == ("prepare", "transfer", "evaluate")
    assert str(again.release.version) == "2"


@pytest.mark.slow
def test_a_damaged_release_is_exported_again(workplace, tmp_path, caplog):
    config = load_config(workplace / "workflow.toml")
    first = run_workflow(config, output=tmp_path).release
    (first.path / "edge" / "model-text.tflite").write_bytes(b"damaged")
    with caplog.at_level(logging.WARNING, logger="tfapp"):
        again = run_workflow(config, output=tmp_path)
    assert "edge/model-text.tflite is damaged" in caplog.text
    assert again.skipped == ("prepare", "transfer", "evaluate")
    assert again.release.version == 2
    assert run_workflow(config, output=tmp_path).skipped == ("prepare", "transfer", "evaluate", "export")
    # Whole, but with another manifest than the one that the run has released.
    manifest = again.release.path / "manifest.json"
    manifest.write_text(manifest.read_text() + "\n")
    with caplog.at_level(logging.WARNING, logger="tfapp"):
        assert run_workflow(config, output=tmp_path).release.version == 3
    assert "not the manifest that is meant" in caplog.text


def test_a_variant_that_the_model_cannot_be_is_refused_before_training(workplace, tmp_path, monkeypatch):
    from tfapp.models import Classifier

    monkeypatch.setattr(Classifier, "cannot_export", {"text": "its tokenizer has no kernels"})
    with pytest.raises(ConfigError, match="variant 'text' cannot be made of this model: its tokenizer"):
        run_workflow(load_config(workplace / "workflow.toml"), output=tmp_path)
    assert epochs_in(tmp_path / "runs" / "tiny" / "transfer" / "history.csv") == 0
    assert not (tmp_path / "saved_models" / "tiny").exists()


def start(workplace: Path, output: Path) -> subprocess.Popen[str]:
    command = [
        sys.executable,
        "-m",
        "tfapp",
        "run",
        str(workplace / "workflow.toml"),
        "--output",
        str(output),
    ]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for_epoch(process: subprocess.Popen[str], output: Path, epochs: int) -> None:
    while (
        process.poll() is None and epochs_in(output / "runs" / "tiny" / "transfer" / "history.csv") < epochs
    ):
        time.sleep(0.02)


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGKILL, marks=pytest.mark.slow)])
def test_a_run_that_is_ended_goes_on_at_its_epoch_and_ends_as_an_unbroken_one(
    released, workplace, tmp_path, number
):
    first, _ = released
    process = start(workplace, tmp_path)
    wait_for_epoch(process, tmp_path, 3)
    process.send_signal(number)
    _, errors = process.communicate()
    if number == signal.SIGTERM:
        assert process.returncode == 3, errors
        assert "Run the same command again" in errors
        assert "Traceback" not in errors
    history = tmp_path / "runs" / "tiny" / "transfer" / "history.csv"
    assert epochs_in(history) >= 3, errors
    rows = history.read_text().splitlines()[:3]
    config = load_config(workplace / "workflow.toml", ["export.variants=['float32']"])
    result = run_workflow(config, output=tmp_path)
    assert result.skipped[:1] == ("prepare",)
    # With their seconds: the first epochs were not run again. The third may have had no checkpoint yet.
    assert history.read_text().splitlines()[:3] == rows
    assert epochs_in(history) == 5
    assert result.metrics == first.metrics


def test_the_example_of_the_readme_runs(workplace, tmp_path, monkeypatch, capsys):
    readme = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    example = re.search(r"```python\n(.*?)```", readme, flags=re.DOTALL)[1]
    # The tiny random backbone stands in for MiniLM; it learns from scratch, so it needs larger steps.
    for old, new in (('"minilm-l6"', repr(str(workplace / "backbone"))), ("5e-5", "5e-3")):
        assert old in example
        example = example.replace(old, new)
    write_articles(tmp_path / "reviews.csv", "review,stars", rows=600)
    monkeypatch.chdir(tmp_path)
    exec(compile(example, "README.md", "exec"), {})
    assert (tmp_path / "saved_models" / "reviews" / "1" / "saved_model.pb").is_file()
    printed = capsys.readouterr().out
    assert "accuracy" in printed
    assert "Prediction(label=" in printed


def test_two_runs_of_one_name_do_not_mix(workplace, tmp_path):
    with (
        open_run(tmp_path / "runs" / "tiny"),
        pytest.raises(OutputError, match="another run is writing here"),
    ):
        run_workflow(load_config(workplace / "workflow.toml"), output=tmp_path)
    assert not (tmp_path / "runs" / "tiny" / "prepare").exists()


def test_an_output_that_cannot_be_a_folder_is_refused_at_once(workplace, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="file"):
        run_workflow(load_config(workplace / "workflow.toml"), output=tmp_path / "file" / "below")


SOURCE = """
[transfer.source]
train = "moods.csv"
alpha = [0.2, 1]
source_share = 0.5
"""


@pytest.mark.slow
def test_a_source_task_and_a_ledger_are_stages_of_their_own(workplace, tmp_path, caplog):
    caplog.set_level("INFO", "tfapp")
    lines = [
        f"{mood} film {word},{mood}" for mood in ("good", "bad") for word in " ".join(WORDS.values()).split()
    ]
    (workplace / "moods.csv").write_text("text,label\n" + "\n".join(lines) + "\n")
    (workplace / "joint.toml").write_text(WORKFLOW + SOURCE)
    settings = ["export.variants=['float32']", "verify.max_accuracy_drop=1.0", "verify.min_agreement=0.0"]
    plain = run_workflow(load_config(workplace / "joint.toml", settings), output=tmp_path)
    assert plain.skipped == ()
    result = run_workflow(
        load_config(workplace / "joint.toml", [*settings, "evaluate.ledger=true"]), output=tmp_path
    )
    # The ledger is one more stage, on which nothing else depends.
    assert result.skipped == ("prepare", "prepare-source", "transfer", "evaluate", "export")
    ledger = json.loads((result.run_directory / "ledger" / "ledger.json").read_text())
    assert [row["way"] for row in ledger["rows"]] == ["from scratch", "frozen", "fine-tuned", "joint"]
    assert ledger["rows"][3]["alphas"][0] in (0.2, 1.0)
    assert "ledger: joint, seed 3" in caplog.text
    assert not list(result.run_directory.rglob("checkpoints"))
    assert not list(result.run_directory.rglob("features*"))
    changed = load_config(workplace / "joint.toml", [*settings, "transfer.source.alpha=0.2"])
    assert run_workflow(changed, output=tmp_path).skipped == ("prepare", "prepare-source")


def test_a_hardened_run_releases_the_hardened_model(workplace, released, tmp_path):
    """The stage goes on from the transferred model, and is skipped when nothing changed."""
    settings = ["harden.objective=fgm", "harden.epsilon=0.2", "transfer.phases.1.epochs=1"]
    settings.append('export.variants=["saved_model"]')
    phases = 'harden.phases=[{train = "all", epochs = 2, learning_rate = 3e-3}]'
    config = load_config(workplace / "workflow.toml", [*settings, phases])
    first = run_workflow(config, output=tmp_path)
    stages = tmp_path / "runs" / "tiny"
    assert epochs_in(stages / "harden" / "history.csv") == 2
    moved = [(stages / stage / "model.weights.h5").read_bytes() for stage in ("transfer", "harden")]
    assert moved[0] != moved[1]
    manifest = json.loads((first.release.path / "manifest.json").read_text())
    assert manifest["config"]["harden"]["epsilon"] == 0.2
    texts = ["The match was won by the coach of the team.", "A new phone with fast software."]
    served = tf.saved_model.load(str(first.release.path)).signatures["serving_default"](tf.constant(texts))
    model = open_trained(config, output=tmp_path).model
    np.testing.assert_allclose(served["logits"], predict_logits(model, texts), atol=1e-4)
    model.load_weights(stages / "transfer" / "model.weights.h5")
    assert np.abs(served["logits"] - predict_logits(model, texts)).max() > 1e-3
    again = run_workflow(config, output=tmp_path)
    assert "harden" in again.skipped


def test_a_setting_that_an_objective_does_not_have_is_refused_before_the_work(workplace, tmp_path):
    settings = ["harden.objective=fgm", "harden.beta=2.0"]
    with pytest.raises(ConfigError, match="'fgm' has no setting 'beta'"):
        run_workflow(load_config(workplace / "workflow.toml", settings), output=tmp_path)
