"""The robustness of what ships: every artifact answers the model's adversarial examples, and is attacked."""

import json
from importlib.resources import files

import jsonschema
import keras
import numpy as np
import pytest

from tfapp.data.image import ImageSplit, load_image_data
from tfapp.data.image_store import ArrayImages
from tfapp.errors import ConfigError, ReleaseRefused
from tfapp.evaluation import evaluate_robustness
from tfapp.models import build_image_classifier
from tfapp.release import Budget, export, measure, verify

SIZE, ROWS, EPSILON = 8, 40, 12 / 255
CLASSES = ("lying", "standing")
STRIPES = np.where(np.arange(SIZE) % 2, 1.0, -1.0)
BLOCKS = np.where(np.arange(SIZE) // 2 % 2, 1.0, -1.0)
LABELS = np.arange(ROWS) % 2
# A perturbation of 12 grey levels turns the weaker stripes over, not the stronger ones.
AMPLITUDES = np.where(np.arange(ROWS) < ROWS // 2, 40, 10)


def templates(wave):
    return np.stack([np.tile(wave[:, None, None], (1, SIZE, 3)), np.tile(wave[None, :, None], (SIZE, 1, 3))])


def linear_classifier(wave, scale):
    pixels = keras.Input((SIZE, SIZE, 3), name="pixels")
    hidden = keras.layers.Flatten()(keras.layers.Rescaling(1.0, -128.0)(pixels))
    model = build_image_classifier(keras.Model(pixels, hidden), classes=CLASSES, image_size=SIZE)
    kernel = templates(wave).reshape(2, -1).T * scale / (SIZE * SIZE * 3)
    # Golden images with as much of one as of the other must not stand on the border.
    model.layers[-1].set_weights([kernel, np.array([0.01, -0.01])])
    return model


@pytest.fixture(scope="module")
def model():
    """Looks at stripes of 40 or 10 grey levels."""
    return linear_classifier(STRIPES, 0.1)


@pytest.fixture(scope="module")
def fragile():
    """Answers clean images alike, by blocks of a tenth of that."""
    return linear_classifier(BLOCKS, 1.0)


@pytest.fixture(scope="module")
def split():
    amplitudes = AMPLITUDES[:, None, None, None]
    images = 128 + amplitudes * templates(STRIPES)[LABELS] + amplitudes // 10 * templates(BLOCKS)[LABELS]
    store = ArrayImages(images.astype(np.uint8), np.arange(ROWS))
    digests = tuple(f"{row:064d}" for row in range(ROWS))
    return ImageSplit("test", store, LABELS.astype(np.int32), CLASSES, digests)


@pytest.fixture(scope="module")
def release(model, split, tmp_path_factory):
    return export(
        model,
        tmp_path_factory.mktemp("saved_models") / "stripes",
        check_with=split,
        variants=["saved_model", "float32", "dynamic"],
        attack={"attack": "pgd", "epsilon": EPSILON, "num_steps": 5, "seed": 3},
        black_box_queries=60,
        black_box_examples=10,
    )


def test_the_manifest_says_how_robust_each_artifact_is_and_how_that_was_measured(release):
    manifest = json.loads((release.path / "manifest.json").read_text())
    schema = json.loads(files("tfapp.release").joinpath("manifest.schema.json").read_text())
    jsonschema.validate(manifest, schema)
    for row in manifest["artifacts"]:
        found = row["robustness"]
        assert row["robust_accuracy"] == 0.5
        assert found["model_robust_accuracy"] == found["transfer_accuracy"] == 0.5
        assert found["robust_accuracy_drop"] == 0.0
        assert (found["attack"], found["norm"], found["epsilon"]) == ("pgd", "linf", EPSILON)
        assert (found["num_steps"], found["num_restarts"], found["seed"]) == (5, 1, 3)
        assert (found["split"], found["examples"]) == ("test", ROWS)
        low, high = found["interval95"]
        assert low < 0.5 < high
        if row["variant"] in ("float32", "dynamic"):
            expected = {"attack": "square", "num_queries": 60, "examples": 10, "fooled": 0}
            assert found["black_box"] == expected
        else:
            assert found["black_box"] is None
    assert manifest["metrics"]["robustness"]["robust_accuracy"] == 0.5
    assert manifest["release"]["budget"]["max_robust_accuracy_drop"] == 0.02
    assert [row["robust"] for row in release.table()] == ["0.5000"] * 3


def test_the_model_card_states_robust_accuracy_with_its_settings(release):
    card = (release.path / "model_card.md").read_text()
    assert "robust accuracy: 0.5000 (95 % interval" in card
    settings = "attack pgd, norm linf, epsilon 12/255, steps 5, restarts 1, 40 examples of test, seed 3"
    assert settings in card
    assert "whole grey levels" in card
    manifest = json.loads((release.path / "manifest.json").read_text())
    low, high = manifest["artifacts"][0]["robustness"]["interval95"]
    assert f"| {low:.4f} to {high:.4f} |" in card


def test_a_release_with_an_attack_is_verified_again(release):
    assert verify(release.path).ok


def forge(monkeypatch, fragile, variant):
    """Lets one variant be written from the fragile model."""
    write = measure.write_artifact

    def forged(model, written, directory, scratch, **options):
        if written != variant:
            return write(model, written, directory, scratch, **options)
        (scratch / "forged").mkdir()  # the other variants' graph is kept in scratch
        return write(fragile, written, directory, scratch / "forged", **options)

    monkeypatch.setattr(measure, "write_artifact", forged)


def test_an_artifact_that_lost_its_robustness_is_refused_though_its_clean_answers_are_right(
    monkeypatch, model, fragile, split, tmp_path
):
    forge(monkeypatch, fragile, "dynamic")
    robustness = evaluate_robustness(
        model, split, attack="pgd", epsilon=EPSILON, num_steps=5, alarms=False, seed=3
    )
    with pytest.raises(ReleaseRefused) as refused:
        export(
            model,
            tmp_path / "stripes",
            check_with=split,
            variants=["float32", "dynamic"],
            budget=Budget(max_golden_difference=1.0),
            attack=robustness,
            black_box_queries=200,
            black_box_examples=10,
        )
    (reason,) = refused.value.reasons
    assert reason.startswith("dynamic: loses ")
    assert "max_robust_accuracy_drop" in reason
    assert "attack pgd, norm linf, epsilon 12/255" in reason
    manifest = json.loads((refused.value.directory / "manifest.json").read_text())
    float32, dynamic = manifest["artifacts"]
    assert (float32["verdict"], dynamic["verdict"]) == ("released", "refused")
    assert dynamic["agreement"] == 1.0
    # The examples of the model mean nothing to it: what finds it out is the attack on the file itself.
    assert dynamic["robustness"]["transfer_accuracy"] == 1.0
    assert dynamic["robustness"]["model_robust_accuracy"] == 0.5
    assert dynamic["robustness"]["black_box"]["fooled"] > 5
    assert dynamic["robust_accuracy"] < 0.4


def test_a_least_robust_accuracy_refuses_all_that_are_below(model, split, tmp_path):
    with pytest.raises(ReleaseRefused, match=r"float32: robust accuracy is 50\.00% on 40 rows, less than 60"):
        export(
            model,
            tmp_path / "stripes",
            check_with=split,
            variants=["float32"],
            budget=Budget(min_robust_accuracy=0.6),
            attack={"attack": "fgsm", "epsilon": EPSILON},
            black_box_queries=0,
        )


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"budget": Budget(min_robust_accuracy=0.6)}, "min_robust_accuracy = 0.6: it is measured under"),
        ({"attack": {"attak": "pgd"}}, "an unknown key; there are attack, epsilon"),
        ({"attack": {"attack": "fgsm", "epsilon": 0.5 / 255}}, "less than one grey level"),
        ({"black_box_queries": -1}, "black_box_queries = -1"),
    ],
)
def test_what_cannot_be_measured_is_refused_before_anything_is_written(model, split, tmp_path, options, said):
    with pytest.raises(ConfigError, match=said):
        export(model, tmp_path / "stripes", check_with=split, variants=["float32"], **options)
    assert not (tmp_path / "stripes").exists()


def test_examples_of_other_rows_are_refused(model, split, tmp_path):
    robustness = evaluate_robustness(model, split, attack="fgsm", examples=8, alarms=False)
    rows = np.arange(ROWS)[::-1]
    other = ImageSplit(
        "validation",
        split.images.take(rows),
        split.labels[rows],
        CLASSES,
        tuple(split.digests[row] for row in rows),
    )
    with pytest.raises(ConfigError, match="not in the split 'validation'"):
        export(model, tmp_path / "stripes", check_with=other, variants=["float32"], attack=robustness)


def test_examples_of_another_model_are_refused(model, split, tmp_path):
    other = evaluate_robustness(
        linear_classifier(STRIPES, -0.1), split, attack="fgsm", epsilon=EPSILON, alarms=False
    )
    with pytest.raises(ConfigError, match=r"another model: this one answers 100\.0% of its rows otherwise"):
        export(model, tmp_path / "stripes", check_with=split, variants=["float32"], attack=other)


def test_an_integer_file_is_sent_grey_levels_and_keeps_what_the_model_has(model, tmp_path):
    generator = np.random.default_rng(0)
    amplitudes = AMPLITUDES[:, None, None, None]
    images = 128 + amplitudes * templates(STRIPES)[LABELS] + generator.normal(0, 2, (ROWS, SIZE, SIZE, 3))
    data = load_image_data(
        (np.round(images).astype(np.uint8), np.array(CLASSES)[LABELS]),
        near_duplicates="keep",
        validation_fraction=0.1,
        test_fraction=0.6,
    )
    release = export(
        model,
        tmp_path / "stripes",
        check_with=data.test,
        data=data,
        variants=["int8"],
        budget=Budget(max_golden_difference=1.0),
        attack={"attack": "pgd", "epsilon": 12.7 / 255},
        black_box_queries=20,
        black_box_examples=5,
    )
    (row,) = release.manifest["artifacts"]
    assert 0.0 < row["robust_accuracy"] < 1.0
    assert abs(row["robustness"]["robust_accuracy_drop"]) <= 0.02


def test_files_of_texts_are_attacked_by_their_letters(decided_classifier, test_split, tmp_path):
    release = export(
        decided_classifier,
        tmp_path / "tiny",
        check_with=test_split,
        variants=["onnx", "text"],
        budget=Budget(max_robust_accuracy_drop=0.1),
        attack={"attack": "character_edits", "epsilon": 0.5, "examples": 30},
        black_box_queries=15,
        black_box_examples=5,
    )
    for row in release.manifest["artifacts"]:
        found = row["robustness"]
        assert 0.0 < row["robust_accuracy"] <= found["transfer_accuracy"] < row["accuracy"]
        assert found["norm"] == "words"
        assert found["black_box"]["attack"] == "character_edits"
        assert found["black_box"]["examples"] == 5
        assert abs(found["robust_accuracy_drop"]) <= 0.1
