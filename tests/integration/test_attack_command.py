"""`tfapp attack` on a run, on its release, and on input that cannot be used."""

import json
from pathlib import Path

import keras
import numpy as np
import pytest

from tfapp.cli import main
from tfapp.config import load_config
from tfapp.data.image_store import bmp_file
from tfapp.errors import ReleaseError
from tfapp.training import CatastrophicOverfitting
from tfapp.training.overfitting_probe import Overfitting
from tfapp.workflow import open_trained

SIZE = 32
WORKFLOW = """
name = "stripes"
[data]
kind = "image"
train = "photos"
near_duplicates = "keep"
[model]
backbone = "./tiny.keras"
image_size = 32
[[transfer.phases]]
train = "all"
epochs = 4
learning_rate = 1e-2
[train]
batch_size = 8
[harden]
objective = "adversarial"
epsilon = 0.02
phases = [{ train = "all", epochs = 1, learning_rate = 1e-3 }]
[evaluate]
num_bootstrap = 20
[evaluate.attack]
attack = "fgsm"
epsilon = 0.08
examples = 10
[export]
variants = ["keras", "float32"]
black_box_queries = 20
black_box_examples = 3
[verify]
min_agreement = 0.9
max_golden_difference = 1.0
max_robust_accuracy_drop = 0.5
"""


FOUND = Overfitting(1, 4, 0.9, 0.1, 1, 2, 0.7, 0.6, "linf", 0.02, 10, 16)
OVERFITTED = "phase 1, epoch 4: accuracy under one step is 0.900 (0.700 in phase 1, epoch 2)"


def run_cli(*arguments):
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    return int(ended.value.code or 0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder in which a workflow has run."""
    folder = tmp_path_factory.mktemp("work")
    generator = np.random.default_rng(0)
    wave = np.where(np.arange(SIZE) // 4 % 2, 170, 80)
    for row in range(80):
        image = np.tile(wave[:, None, None] if row % 2 else wave[None, :, None], (1, 1, 3))
        image = np.broadcast_to(image, (SIZE, SIZE, 3)) + generator.normal(0, 25, (SIZE, SIZE, 3))
        place = folder / "photos" / ("lying", "standing <b>")[row % 2]
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{row}.bmp").write_bytes(bmp_file(np.clip(image, 0, 255).astype(np.uint8)))
    keras.utils.set_random_seed(0)
    pixels = keras.Input((SIZE, SIZE, 3), name="pixels")
    hidden = keras.layers.Rescaling(1 / 127.5, -1.0)(pixels)
    hidden = keras.layers.Conv2D(8, 5, strides=4, activation="relu")(hidden)
    keras.Model(pixels, hidden).save(folder / "tiny.keras")
    (folder / "workflow.toml").write_text(WORKFLOW)
    with pytest.MonkeyPatch.context() as patch:
        healthy = CatastrophicOverfitting.on_epoch_end

        def fall_ill(probe, epoch, logs=None):
            healthy(probe, epoch, logs)
            probe.found.append(FOUND)

        patch.setattr(CatastrophicOverfitting, "on_epoch_end", fall_ill)
        assert run_cli("run", folder / "workflow.toml", "--output", folder) == 0
    return folder


@pytest.fixture
def release(folder):
    return folder / "saved_models" / "stripes" / "1"


def test_a_run_attacks_its_model_and_hands_the_examples_to_the_artifacts(folder, release):
    stage = folder / "runs" / "stripes" / "attack"
    figures = json.loads((stage / "robustness.json").read_text())
    manifest = json.loads((release / "manifest.json").read_text())
    assert manifest["metrics"]["robustness"]["robust_accuracy"] == figures["robust_accuracy"]
    assert figures["attack"] == "fgsm"
    assert "standing &lt;b&gt;" in (stage / "report.html").read_text()
    for row in manifest["artifacts"]:
        assert row["robustness"]["epsilon"] == 0.08
        assert row["robustness"]["examples"] == 10
    assert manifest["config"]["evaluate"]["attack"]["attack"] == "fgsm"


def test_what_the_training_found_stands_beside_every_robust_accuracy(folder, release, capsys):
    """The alarm is known to the stage, which is skipped when only the attack is made again."""
    stage = folder / "runs" / "stripes" / "attack"
    card = " ".join((release / "model_card.md").read_text().split())
    assert "**catastrophic_overfitting** undermines the figure of fgsm: the training came" in card
    for text in (card, (stage / "report.html").read_text()):
        assert OVERFITTED in text
    options = ("--attack", "pgd", "--steps", 2, "--examples", 4, "--black-box-queries", 0)
    assert run_cli("attack", folder / "workflow.toml", "--output", folder, *options[:-2]) == 0
    assert run_cli("attack", release, "--output", folder / "again", *options) == 0
    said = capsys.readouterr().out
    assert said.count("ALARM catastrophic_overfitting (undermines the figure of pgd)") == 2
    assert said.count(OVERFITTED) == 2


def test_what_ships_has_the_hardened_weights(folder, release):
    model = open_trained(load_config(folder / "workflow.toml"), output=folder).model
    hardened = model.get_weights()
    shipped = keras.saving.load_model(release / "keras" / "model.keras", compile=False).get_weights()
    for one, other in zip(hardened, shipped, strict=True):
        np.testing.assert_array_equal(one, other)
    model.load_weights(folder / "runs" / "stripes" / "transfer" / "model.weights.h5")
    moved = [np.abs(one - other).max() for one, other in zip(model.get_weights(), shipped, strict=True)]
    assert max(moved) > 1e-4


def test_a_workflow_is_attacked_with_its_settings_unless_options_say_otherwise(folder, capsys):
    workflow = folder / "workflow.toml"
    assert run_cli("attack", workflow, "--output", folder, "--epsilon", "16/255") == 0
    captured = capsys.readouterr()
    expected = "attack fgsm, norm linf, epsilon 16/255, steps none, restarts none, 10 examples of test"
    assert expected in captured.out
    report = Path(captured.out.splitlines()[-1].removeprefix("Report: "))
    assert report.name == "report.html"
    content = json.loads(report.with_name("report.json").read_text())
    assert content["epsilon"] == pytest.approx(16 / 255)


def test_a_release_is_attacked_with_all_that_it_ships(folder, release, capsys):
    options = ("--attack", "pgd", "--steps", 3, "--examples", 8, "--seed", 2, "--black-box-queries", 10)
    assert run_cli("attack", release, *options, "--curve", "--output", folder / "out") == 0
    captured = capsys.readouterr().out
    assert "steps 3, restarts 1, 8 examples of test, seed 2" in captured
    assert "95 % interval" in captured
    content = json.loads((folder / "out" / "report.json").read_text())
    assert [row["artifact"] for row in content["artifacts"]] == ["model", "keras", "float32"]
    assert all(" to " in row["95 % interval"] for row in content["artifacts"])
    assert len(content["curve"]["points"]) == 5
    assert all(point["num_steps"] == 3 for point in content["curve"]["points"])
    assert "the test rows that the release was checked with" in content["notes"][0]
    page = (folder / "out" / "report.html").read_text()
    assert "Robustness of stripes 1" in page
    assert "<b>standing" not in page.replace("<b>standing &lt;b&gt;</b>", "")


def test_the_figures_of_the_model_are_kept_when_no_artifact_can_be_asked(
    folder, release, capsys, monkeypatch
):
    def fail(*_arguments, **_options):
        raise ReleaseError("the artifacts are gone")

    monkeypatch.setattr("tfapp.release.attack_release.attack_release_artifacts", fail)
    output = folder / "half"
    assert run_cli("attack", release, "--attack", "fgsm", "--examples", 8, "--output", output) == 2
    assert "the artifacts are gone" in capsys.readouterr().err
    content = json.loads((output / "report.json").read_text())
    assert content["examples"] == 8
    assert "artifacts" not in content
    assert (output / "report.html").is_file()


def test_other_rows_are_said_to_be_others(folder, release, capsys, tmp_path):
    source = tmp_path / "new"
    for number, label in enumerate(("lying", "standing <b>")):
        (source / label).mkdir(parents=True)
        picture = next((folder / "photos" / label).iterdir()).read_bytes()
        (source / label / f"{number}.bmp").write_bytes(picture)
    options = ("--attack", "fgsm", "--black-box-queries", 0, "--output", tmp_path / "out")
    assert run_cli("attack", release, "--data", source, *options) == 0
    assert "2 rows of" in (tmp_path / "out" / "report.html").read_text()
    (source / "leaning").mkdir()
    (source / "leaning" / "0.bmp").write_bytes(bmp_file(np.zeros((SIZE, SIZE, 3), np.uint8)))
    assert run_cli("attack", release, "--data", source, *options) == 2
    assert "'leaning'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["{release}", "--attack", "pdg"], "unknown attack on images 'pdg'; did you mean 'pgd'"),
        (["{release}", "--epsilon", "8/0"], "'8/0' is neither a number nor a fraction"),
        (["{release}", "--epsilon", "0"], "epsilon = 0.0: it must be a positive number"),
        (["{release}", "--norm", "l3"], "'l3' is not one of 'linf', 'l2'"),
        (["{release}/keras"], "is not a release"),
        (["{folder}/none"], "is not a folder; give a release"),
        (["{folder}/none.toml"], "no such workflow file"),
        (["{release}", "--attack", "pgd", "--epsilon", "0.5/255"], "less than one grey level"),
        (["{release}", "--column", "x"], "--column goes with --data"),
        (["{release}", "--label", "x"], "--label goes with --data"),
        (
            ["{folder}/workflow.toml", "--output", "{folder}", "--max-queries", "5"],
            "max_queries = 5: the attack 'fgsm' has no such setting",
        ),
        (["{release}", "--max-seconds", "0"], "0.0 is not in the range x>0"),
        (["{release}", "--epsilon", "8"], "a fraction of the pixel range: 8/255 = 0.0314"),
        (["{folder}/workflow.toml", "--data", "x"], "--data goes with a release"),
        (["{folder}/workflow.toml", "--black-box-queries", "200"], "--black-box-queries goes with a release"),
        (["{folder}/workflow.toml", "--black-box-examples", "5"], "--black-box-examples goes with a"),
        (["{folder}/workflow.toml", "--output", "{folder}/elsewhere"], "there is no such run"),
    ],
)
def test_bad_input_gives_one_clear_error(folder, release, capsys, arguments, said):
    given = [argument.format(release=release, folder=folder) for argument in arguments]
    assert run_cli("attack", *given) == 2
    error = capsys.readouterr().err
    assert said in error
    assert "Traceback" not in error
    assert not (folder / "elsewhere").exists()


def test_a_run_from_other_settings_is_left_alone(folder, capsys):
    changed = folder / "changed.toml"
    changed.write_text(WORKFLOW.replace("epochs = 4", "epochs = 5"))
    before = sorted(path for path in (folder / "runs").rglob("*") if "attack-report" not in str(path))
    assert run_cli("attack", changed, "--output", folder) == 2
    error = capsys.readouterr().err
    assert "stage 'transfer' cannot be used: changed since the earlier run: transfer.phases" in error
    assert sorted(path for path in (folder / "runs").rglob("*") if "attack-report" not in str(path)) == before


def test_a_release_without_its_run_asks_for_rows(folder, release, capsys):
    hidden = folder / "runs-elsewhere"
    (folder / "runs").rename(hidden)
    try:
        assert run_cli("attack", release) == 2
    finally:
        hidden.rename(folder / "runs")
    assert "Give labelled rows with --data" in capsys.readouterr().err


def test_a_damaged_release_is_not_attacked(release, capsys):
    path = release / "keras" / "model.keras"
    content = path.read_bytes()
    path.write_bytes(content[:-1])
    try:
        assert run_cli("attack", release, "--attack", "fgsm") == 2
    finally:
        path.write_bytes(content)
    assert "keras/model.keras is damaged" in capsys.readouterr().err
