"""When data is read again: what the workflow notices of its files."""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path

import pytest

from tfapp import workflow_training
from tfapp.config import load_config
from tfapp.errors import ConfigError
from tfapp.runs import open_run
from tfapp.workflow import run_workflow
from tfapp.workflow_calls import build_classifier
from tfapp.workflow_checks import check_stages
from tfapp.workflow_files import backbone_files, source_files

ROWS = "text,label\n" + "".join(f"text number {number},{number % 2}\n" for number in range(20))


def write_workflow(folder: Path, train: str) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / "workflow.toml"
    path.write_text(f'name = "reviews"\n[data]\ntrain = "{train}"\n')
    return path


def prepare(workflow: Path, output: Path) -> tuple[list[str], int]:
    """Runs the first stage; returns the stages that it skipped, and how many rows it read."""
    with open_run(output) as run:
        config = load_config(workflow)
        data = workflow_training.prepare(config, run, config.data)
        return run.skipped, sum(data.report.rows_read.values())


@pytest.mark.parametrize(
    ("folder", "train", "changed"),
    [
        ("plain", "reviews.csv", "reviews.csv"),
        ("plain", "reviews[1].csv", "reviews[1].csv"),
        ("plain", "reviews-*.csv", "reviews-1.csv"),
        ("my[1] texts", "reviews.csv", "reviews.csv"),
        ("my[1] texts", "reviews-*.csv", "reviews-1.csv"),
        ("my[1] texts", "reviews-*.csv", "reviews-2.csv"),
    ],
)
def test_a_changed_file_is_read_again_and_an_unchanged_one_is_not(tmp_path, folder, train, changed):
    workflow = write_workflow(tmp_path / folder, train)
    first = changed.replace("-2", "-1")
    (workflow.parent / first).write_text(ROWS)
    assert prepare(workflow, tmp_path / "run") == ([], 20)
    assert prepare(workflow, tmp_path / "run") == (["prepare"], 20)
    more = ROWS + "one more,1\n" if changed == first else "text,label\none more,1\n"
    (workflow.parent / changed).write_text(more)
    assert prepare(workflow, tmp_path / "run") == ([], 21)


def test_a_folder_of_class_folders_whose_name_looks_like_a_pattern(tmp_path):
    workflow = write_workflow(tmp_path / "place", "set[a]")
    for label in ("neg", "pos"):
        (workflow.parent / "set[a]" / label).mkdir(parents=True)
        for number in range(5):
            (workflow.parent / "set[a]" / label / f"{number}.txt").write_text(f"{label} {number}")
    assert prepare(workflow, tmp_path / "run") == ([], 10)
    (workflow.parent / "set[a]" / "pos" / "more.txt").write_text("one more")
    assert prepare(workflow, tmp_path / "run") == ([], 11)
    assert prepare(workflow, tmp_path / "run") == (["prepare"], 11)


def test_a_folder_of_the_same_name_does_not_hide_a_packaged_set(tmp_path, monkeypatch):
    from tfapp.data.datasets import DATASETS
    from tfapp.data.readers.images import _folder

    monkeypatch.chdir(tmp_path)
    for name in DATASETS:
        (tmp_path / name).mkdir()
        assert _folder(name, "source", None) is None
    assert _folder("./elpv", "source", None) == Path("elpv")


@pytest.fixture
def image_workflow(tmp_path) -> Path:
    path = tmp_path / "workflow.toml"
    path.write_text(
        'name = "photos"\n[data]\nkind = "image"\ntrain = "photos"\n'
        '[model]\nimage_size = 32\nweights = "own.weights.h5"\n'
    )
    return path


def test_missing_weights_are_refused_before_the_work(tmp_path, image_workflow):
    with pytest.raises(ConfigError, match=r"model\.weights = 'own\.weights\.h5': there is no file"):
        run_workflow(load_config(image_workflow), output=tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("kind", "overrides", "message"),
    [
        (
            "image",
            ["evaluate.attack.attack=fgsm", "evaluate.attack.num_steps=3"],
            "num_steps = 3: the attack 'fgsm'",
        ),
        ("image", ["evaluate.attack.num_restarts=2"], "num_restarts = 2: the attack 'standard'"),
        ("text", ["evaluate.attack.num_steps=3"], r"num_steps = 3: .* has no such setting"),
        ("text", ["evaluate.attack.epsilon=1.5"], "epsilon = 1.5: for words it is the share"),
        (
            "image",
            ["data.augment.adversarial.attack=fgsm", "data.augment.adversarial.num_steps=3"],
            "'fgsm' has one step",
        ),
        ("image", ["harden.objective=trades", "harden.replays=2"], "'trades' has no setting 'replays'"),
        ("text", ["data.augment.edits=['zh_script']"], r'pip install "tfapp\[zh\]"'),
    ],
)
def test_what_a_late_stage_refuses_is_refused_before_the_work(
    tmp_path, monkeypatch, kind, overrides, message
):
    monkeypatch.setitem(sys.modules, "opencc", None)
    importlib.import_module("tfapp.data.edits.zh_script")._converter.cache_clear()
    workflow = write_workflow(tmp_path / "place", "rows")
    config = load_config(workflow, [f"data.kind={kind}", *overrides])
    with pytest.raises(ConfigError, match=message):
        run_workflow(config, output=tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("kind", "overrides"),
    [
        (
            "image",
            ["evaluate.attack.attack=pgd", "evaluate.attack.num_steps=3", "evaluate.attack.num_restarts=2"],
        ),
        ("image", ["evaluate.attack.norm=l2", "evaluate.attack.num_steps=3", "evaluate.attack.epsilon=1.5"]),
        ("image", ["data.augment=light", "harden.objective=free", "harden.replays=2"]),
        ("image", ["data.augment.adversarial.attack=pgd", "data.augment.adversarial.num_steps=3"]),
        (
            "text",
            ["evaluate.attack.epsilon=1", "data.augment.edits=['swap']", "harden.objective=word_augmented"],
        ),
        ("text", ["evaluate.attack.attack=character_edits", "data.augment=none"]),
    ],
)
def test_what_the_stages_can_do_passes(tmp_path, kind, overrides):
    check_stages(load_config(write_workflow(tmp_path, "rows"), [f"data.kind={kind}", *overrides]))


def test_an_artifact_whose_packages_are_missing_is_refused_before_the_work(tmp_path, monkeypatch):
    from tfapp import exporters

    config = load_config(write_workflow(tmp_path, "rows"), ["export.variants=['keras', 'onnx']"])
    check_stages(config)
    monkeypatch.setattr(exporters, "onnx_obstacle", lambda: "it needs tf2onnx: run `pip install`")
    with pytest.raises(ConfigError, match="'onnx' cannot be made: it needs tf2onnx: run `pip install`, or"):
        run_workflow(config, output=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_weights_that_cannot_be_read_are_refused_before_the_work(tmp_path, image_workflow):
    (tmp_path / "own.weights.h5").mkdir()
    with pytest.raises(ConfigError, match=r"own\.weights\.h5 cannot be read \(Is a directory\); name a file"):
        run_workflow(load_config(image_workflow), output=tmp_path / "out")


def test_names_that_no_file_can_have_are_left_to_the_reader(tmp_path):
    workflow = write_workflow(tmp_path / "place", "list.csv")
    workflow.write_text(f'{workflow.read_text()}kind = "image"\n')
    (workflow.parent / "list.csv").write_text(f"path,label\n{'x' * 300}.png,a\n")
    config = load_config(workflow)
    found = source_files(config, config.data, {"train": str(workflow.parent / "list.csv")})
    assert found["images"]["train"] == []


def test_a_file_of_weights_is_loaded_and_noticed_when_its_content_changes(tmp_path, image_workflow):
    import keras
    import numpy as np

    from tfapp.models.image_presets import load_image_backbone

    network = load_image_backbone("mobilenet-v2", image_size=32, weights=None, seed=3).backbone
    (inner,) = [layer for layer in network.layers if isinstance(layer, keras.Model)] or [network]
    file = tmp_path / "own.weights.h5"
    inner.save_weights(file)
    config = load_config(image_workflow)
    built = build_classifier(config, ("cat", "dog")).backbone
    for found, expected in zip(built.weights, network.weights, strict=True):
        np.testing.assert_array_equal(found, expected)

    before, times = backbone_files(config), file.stat()
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert backbone_files(config) != before


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_images_that_a_table_names_are_read_again_when_they_change(tmp_path, kind):
    from photographs import photograph

    from tfapp.data.image_store import bmp_file

    images = [tmp_path / "elsewhere" / f"{number}.bmp" for number in range(13)]
    images[0].parent.mkdir()
    for number, image in enumerate(images[:12]):
        image.write_bytes(bmp_file(photograph(number, 8, 8)))
    workflow = write_workflow(tmp_path / "place", f"list.{kind}")
    workflow.write_text(f'{workflow.read_text()}kind = "image"\n')
    rows = [(f"../elsewhere/{image.name}", f"class {number % 2}") for number, image in enumerate(images)]
    lines = {
        "csv": ["path,label", *(f"{path},{label}" for path, label in rows)],
        "jsonl": [f'{{"path": "{path}", "label": "{label}"}}' for path, label in rows],
    }
    (workflow.parent / f"list.{kind}").write_text("\n".join(lines[kind]))

    def prepared() -> tuple[list[str], set[str]]:
        with open_run(tmp_path / "run") as run:
            config = load_config(workflow)
            data = workflow_training.prepare(config, run, config.data)
        return run.skipped, {digest for split in data.splits.values() for digest in split.digests}

    skipped, first = prepared()
    assert (skipped, len(first)) == ([], 12)
    assert prepared() == (["prepare"], first)
    images[3].write_bytes(bmp_file(photograph(99, 8, 8)))  # of the same size
    skipped, second = prepared()
    assert (skipped, len(first - second)) == ([], 1)
    images[12].write_bytes(bmp_file(photograph(12, 8, 8)))
    skipped, third = prepared()
    assert (skipped, len(third)) == ([], 13)
    assert prepared() == (["prepare"], third)


def test_a_source_is_prepared_apart_from_its_target_and_again_when_that_changes(tmp_path):
    from photographs import write_classes

    write_classes(tmp_path / "photos", {"cat": 9, "dog": 9})
    write_classes(tmp_path / "others", {"fox": 9, "owl": 9}, first=9)  # the foxes are the dogs
    workflow = tmp_path / "workflow.toml"
    workflow.write_text(
        'name = "photos"\n[data]\nkind = "image"\ntrain = "photos"\n[transfer.source]\ntrain = "others"\n'
    )

    def prepared(*overrides: str) -> tuple[list[str], set[str]]:
        with open_run(tmp_path / "run") as run:
            config = load_config(workflow, overrides)
            data = workflow_training.prepare(config, run, config.data)
            source = workflow_training.prepare_source(config, run, data).data
        learned = {digest for split in source.splits.values() for digest in split.digests}
        dogs = sum((split.labels == 1).sum() for split in (data.validation, data.test))
        assert not learned & {*data.validation.digests, *data.test.digests}
        assert len(learned) == 18 - dogs < 18
        return run.skipped, learned

    skipped, learned = prepared()
    assert skipped == []
    assert prepared() == (["prepare", "prepare-source"], learned)
    skipped, others = prepared("data.validation_fraction=0.3")
    assert skipped == []
    assert others < learned
