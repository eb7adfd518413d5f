"""Two releases asked the same: what changed is found, and what did not change is not."""

import csv
import json
import shutil

import pytest

from tfapp.commands.diff import diff
from tfapp.data.text import load_text_data
from tfapp.errors import ConfigError, DataError, ReleaseError
from tfapp.release import compare_releases
from tfapp.release.integrity import hash_files
from tfapp.release.manifest import manifest_checksum

ASKED = {"variant": "float32", "num_bootstrap": 50}


@pytest.fixture
def pair(release, tmp_path):
    """A release and a copy of it, in a ``saved_models`` folder without a run beside it."""
    for version in ("1", "2"):
        shutil.copytree(release.path, tmp_path / "saved_models" / "tiny" / version)
    return tmp_path / "saved_models" / "tiny" / "1", tmp_path / "saved_models" / "tiny" / "2"


def rewrite(directory, **changes):
    path = directory / "manifest.json"
    manifest = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({**manifest, "files": hash_files(directory)}))


def rename_classes(directory, classes):
    """Makes a release call its classes otherwise."""
    path = directory / "edge" / "golden.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "classes": classes}))
    rewrite(directory)


@pytest.fixture
def rows(test_split, tmp_path):
    """The labelled rows as a file."""
    path = tmp_path / "rows.jsonl"
    names = [test_split.classes[label] for label in test_split.labels.tolist()]
    lines = [
        json.dumps({"text": text, "label": name}) for text, name in zip(test_split.texts, names, strict=True)
    ]
    path.write_text("\n".join(lines))
    return path


def test_a_copy_answers_as_its_original(pair):
    found = compare_releases(*pair, **ASKED)
    assert found.source == "50 golden inputs of both releases"
    assert found.rows == 50
    assert found.changed == ()
    assert found.accuracy is None
    assert not any(found.settings.values())
    assert "Both are the same release." in found.notes
    assert any("Golden inputs are drawn at random" in note for note in found.notes)


def test_other_labels_are_found_row_by_row_with_the_accuracy_that_they_cost(pair, rows, release, test_split):
    rename_classes(pair[1], ["sport", "business", "tech"])
    rewrite(pair[1], config={"name": "tiny", "train": {"epochs": 3}}, seed=6, version=2)
    found = compare_releases(*pair, data=rows, **ASKED)
    before = {row["variant"]: row["accuracy"] for row in release.manifest["artifacts"]}["float32"]
    assert found.accuracy.before.value == pytest.approx(before)
    assert found.accuracy.before.value == pytest.approx(0.9)
    # A row is relabelled when its answer is one of the two exchanged classes.
    exchanged = {("business", "sport"), ("sport", "business")}
    assert {(row.before, row.after) for row in found.changed} == exchanged
    assert len(found.changed) == found.accuracy.only_before + sum(
        row.outcome in ("repaired", "still wrong") for row in found.changed
    )
    assert found.accuracy.only_after == sum(row.outcome == "repaired" for row in found.changed)
    assert found.accuracy.p_value < 1e-3
    assert found.accuracy.difference.high < 0
    for row in found.changed:
        assert row.feature == test_split.texts[row.row]
        assert row.before_probability == pytest.approx(row.after_probability)
    assert found.settings["config"] == {"seed": (5, 6), "train.epochs": (None, 3)}
    assert "accuracy moved by" in found.verdict


def test_another_release_than_is_meant_is_not_asked(pair):
    right, wrong = manifest_checksum(pair[0]), "0" * 64
    for before, after in ((wrong, right), (right, wrong)):
        with pytest.raises(ReleaseError, match="not the manifest that is meant"):
            compare_releases(*pair, **ASKED, before_manifest_sha256=before, after_manifest_sha256=after)
    found = compare_releases(*pair, **ASKED, after_manifest_sha256=right)
    assert [found.before["origin_proven"], found.after["origin_proven"]] == [False, True]
    assert [note for note in found.notes if "origin" in note] == [
        "tiny 1: self-consistent, origin not proven."
    ]


def test_the_rows_that_a_run_left_are_found(pair, rows):
    data = load_text_data(str(rows), seed=0)
    data.save(pair[0].parents[2] / "runs" / "tiny" / "prepare" / "data")
    found = compare_releases(*pair, **ASKED)
    assert found.rows == len(data.test) > 5
    assert found.source.endswith(f"sha256 {data.test.sha256[:16]}")
    assert found.accuracy.difference.value == 0.0
    # The release was made without that run.
    assert len([note for note in found.notes if "was checked with other rows than these" in note]) == 2
    rewrite(pair[0], data={"test": {"rows": len(data.test), "sha256": data.test.sha256}})
    found = compare_releases(*pair, **ASKED)
    assert len([note for note in found.notes if "was checked with other rows than these" in note]) == 1
    assert set(found.settings["data"]) == {"test.rows", "test.sha256"}


def test_a_class_that_only_one_release_knows_is_noted(pair):
    rename_classes(pair[1], ["business", "sport", "science"])
    found = compare_releases(*pair, **ASKED)
    assert {(row.before, row.after) for row in found.changed} == {("tech", "science")}
    assert any("gone ['tech'], new ['science']" in note for note in found.notes)


def test_a_damaged_release_is_not_asked(pair):
    (pair[1] / "edge" / "model-float32.tflite").write_bytes(b"other")
    with pytest.raises(ReleaseError, match="damaged"):
        compare_releases(*pair, **ASKED)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"variant": "int8"}, ConfigError, "not both releases have the variant 'int8'"),
        ({"num_bootstrap": 0}, ConfigError, "at least 1"),
        ({"data": "absent.csv"}, DataError, "absent"),
    ],
)
def test_bad_arguments_are_told_before_anything_is_asked(pair, options, error, message):
    with pytest.raises(error, match=message):
        compare_releases(*pair, **{**ASKED, **options})


def test_the_command_writes_its_list_beside_itself(pair, tmp_path, monkeypatch, capsys):
    rename_classes(pair[1], ["sport", "business", "tech"])
    monkeypatch.chdir(tmp_path)
    sums = ["--before-manifest-sha256", manifest_checksum(pair[0])]
    sums += ["--after-manifest-sha256", manifest_checksum(pair[1])]
    diff.main([*map(str, pair), *sums, "--variant", "float32"], standalone_mode=False)
    said = capsys.readouterr().out
    assert "of 50 labels changed" in said
    assert "origin not proven" not in said
    assert "Written: diff-tiny-1-tiny-1" in said
    folder = tmp_path / "diff-tiny-1-tiny-1"
    told = json.loads((folder / "diff.json").read_text())
    with (folder / "changed.csv").open(newline="") as file:
        assert len(list(csv.DictReader(file))) == told["changed"] > 0
    diff.main([str(path) for path in pair] + ["--variant", "float32", "--json"], standalone_mode=False)
    assert json.loads(capsys.readouterr().out)["variant"] == "float32"
