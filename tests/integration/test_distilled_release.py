"""A workflow that distils: the student is what is released, and its teacher stands beside it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from workplaces import WORKFLOW, make_workplace

from tfapp.config import load_config
from tfapp.errors import ConfigError, DataError, OutputError
from tfapp.training.inference import predict_logits
from tfapp.workflow import open_trained, run_workflow
from tfapp.workflow_checks import check_stages

SECTION = """
[distill]
layers = [2]
unlabelled = "more.txt"
epochs = 2
learning_rate = 3e-3
"""


@pytest.fixture(scope="module")
def workplace(tmp_path_factory, tiny_vocab) -> Path:
    folder = make_workplace(tmp_path_factory.mktemp("workplace"), tiny_vocab)
    (folder / "workflow.toml").write_text(WORKFLOW.replace("[evaluate]", f"{SECTION}[evaluate]"))
    (folder / "more.txt").write_text("the old bank of the city\nno score for the minister\n")
    return folder


@pytest.fixture(scope="module")
def released(workplace, tmp_path_factory):
    output = tmp_path_factory.mktemp("output")
    return run_workflow(load_config(workplace / "workflow.toml"), output=output), output


@pytest.mark.slow
def test_the_student_is_released_with_its_own_vocabulary(released, tiny_vocab):
    result, output = released
    vocabulary = (result.release.path / "edge" / "vocab.txt").read_text().splitlines()
    assert len(vocabulary) < len(tiny_vocab)
    assert {"minister", "city", "goal"} <= set(vocabulary)
    assert min(artifact["accuracy"] for artifact in result.release.manifest["artifacts"]) >= 0.9
    assert json.loads((output / "runs" / "tiny" / "distill" / "stage.json").read_text())["finished"]
    assert not (output / "runs" / "tiny" / "distill" / "features").exists()


@pytest.mark.slow
def test_what_the_student_lost_is_told(released):
    result, _ = released
    teacher = result.release.manifest["metrics"]["teacher"]
    assert teacher == result.metrics["teacher"]
    assert teacher["student_parameters"] < 0.7 * teacher["parameters"]
    assert teacher["agreement"] >= 0.9
    lost = result.metrics["accuracy"]["value"] - teacher["accuracy"]["value"]
    card = (result.release.path / "model_card.md").read_text()
    assert "## Beside its teacher" in card
    assert f"{lost:+.4f} |" in card
    assert f"{teacher['parameters']:,}" in card
    assert "Beside its teacher" in (result.release.path / "report.html").read_text()


@pytest.mark.slow
def test_nothing_is_done_again_until_the_texts_change(released, workplace, tmp_path):
    first, output = released
    config = load_config(workplace / "workflow.toml")
    again = run_workflow(config, output=output)
    stages = ("prepare", "transfer", "distill", "evaluate", "evaluate-teacher", "export")
    assert again.skipped == stages
    assert again.metrics == first.metrics
    opened = open_trained(config, output=output)
    assert opened.model.num_blocks == 1
    found = predict_logits(opened.model, opened.data.test.texts).argmax(axis=1)
    accuracy = float(np.mean(found == opened.data.test.labels))
    assert accuracy == pytest.approx(first.metrics["accuracy"]["value"])
    more = workplace / "more.txt"
    more.write_text(more.read_text() + "a new market\n")
    with pytest.raises(OutputError, match=r"stage 'distill' cannot be used: .*: unlabelled"):
        open_trained(config, output=output)


@pytest.mark.parametrize(
    ("override", "error", "message"),
    [
        ("distill.unlabelled=none.txt", DataError, "none.txt does not exist"),
        ("distill.num_layers=1", ConfigError, "leave one of them out"),
        ("distill.layers=[3]", ConfigError, "give different numbers from 1 to 2"),
        ("distill.vocabulary=whole", None, ""),
    ],
)
def test_what_cannot_be_distilled_is_refused_before_anything_is_trained(
    workplace, tmp_path, override, error, message
):
    config = load_config(workplace / "workflow.toml", [override])
    if error is None:
        return check_stages(config)
    with pytest.raises(error, match=message):
        run_workflow(config, output=tmp_path)
    assert not (tmp_path / "runs" / "tiny" / "transfer" / "history.csv").exists()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("distill.temperature=0", "distill.temperature"),
        ("distill.teacher=x", "distill.teacher"),
    ],
)
def test_a_section_that_cannot_be_is_refused_by_key(workplace, override, message):
    with pytest.raises(ConfigError, match=message):
        load_config(workplace / "workflow.toml", [override])


def start(workplace: Path, output: Path, *settings: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tfapp", "run", str(workplace / "workflow.toml")]
    command += ["--output", str(output), *(word for each in settings for word in ("--set", each))]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )


@pytest.mark.slow
@pytest.mark.parametrize("sign", [signal.SIGKILL, signal.SIGTERM])
def test_a_run_that_is_ended_goes_on_to_the_student_of_an_unbroken_one(workplace, tmp_path, sign):
    settings = ("distill.epochs=6", "train.checkpoint_steps=1")
    through = run_workflow(load_config(workplace / "workflow.toml", settings), output=tmp_path / "through")
    process = start(workplace, tmp_path / "ended", *settings)
    stage = tmp_path / "ended" / "runs" / "tiny" / "distill"
    history = stage / "history.csv"
    while process.poll() is None and not (history.exists() and len(history.read_text().splitlines()) > 2):
        time.sleep(0.01)
    process.send_signal(sign)
    _, errors = process.communicate()
    assert process.returncode == (3 if sign == signal.SIGTERM else -sign), errors
    assert not json.loads((stage / "stage.json").read_text())["finished"]
    rows = history.read_text().splitlines()[:2]
    again = run_workflow(load_config(workplace / "workflow.toml", settings), output=tmp_path / "ended")
    assert again.skipped == ("prepare", "transfer")
    assert history.read_text().splitlines()[:2] == rows
    assert again.metrics == through.metrics


@pytest.mark.slow
def test_a_student_is_trained_on_two_virtual_devices(workplace, tmp_path):
    process = start(workplace, tmp_path, "hardware.virtual_devices=2", "export.variants=['float32']")
    output, errors = process.communicate()
    assert process.returncode == 0, errors[-3000:]
    assert "student: blocks 2 of 2" in errors
    assert "Released: " in output


def test_images_cannot_be_distilled(tmp_path):
    path = tmp_path / "workflow.toml"
    path.write_text('name = "photos"\n[data]\nkind = "image"\ntrain = "photos"\n[distill]\n')
    with pytest.raises(ConfigError, match="`distill` goes with texts"):
        load_config(path)
