"""Pruning: the last versions stay, and all that a server is told to serve; a kill leaves no half version."""

import os
import re
import subprocess
import sys

import pytest

from tfapp.disk import try_lock
from tfapp.errors import ConfigError, OutputError
from tfapp.release.pruning import prune
from tfapp.release.publish import discard, publish, staging

KILLED = """
import os, sys
from pathlib import Path
from tfapp.release import pruning
seen = []

def end(event, arguments):
    if event == "os.remove" and arguments[0] in ("first", "second"):
        seen.append(arguments)
        if len(seen) == 2:
            os._exit(9)

sys.addaudithook(end)
pruning.prune(Path(sys.argv[1]), keep=1)
"""


@pytest.fixture
def models(tmp_path):
    """Versions 1 to 5 and a refused one, 1,000 bytes each."""
    directory = tmp_path / "reviews"
    for name in ("1", "2", "3", "4", "5", "refused-20260101T000000Z", "refused-20260101T000000Z-2"):
        (directory / name / "variables").mkdir(parents=True)
        (directory / name / "manifest.json").write_text("{}")
        (directory / name / "variables" / "first").write_bytes(b"." * 500)
        (directory / name / "variables" / "second").write_bytes(b"." * 498)
    return directory


def names(directory):
    return sorted(path.name for path in directory.iterdir())


REFUSED = ["refused-20260101T000000Z", "refused-20260101T000000Z-2"]


def test_the_last_versions_stay(models):
    report = prune(models)
    assert names(models) == ["3", "4", "5", *REFUSED]
    assert [folder.path.name for folder in report.folders if folder.removed] == ["1", "2"]
    assert report.freed == 2000
    assert report.to_dict()["folders"][0] == {
        "folder": "1",
        "removed": True,
        "would_go": True,
        "reason": "older than the last 3",
        "bytes": 1000,
    }


def test_a_dry_run_tells_the_same_and_removes_nothing(models):
    before = names(models)
    told = prune(models, keep=1, refused=True, dry_run=True)
    assert names(models) == before
    assert {row[""] for row in told.table()} == {"would go", "kept"}
    done = prune(models, keep=1, refused=True)
    assert [folder.path for folder in told.folders if folder.removed] == [
        folder.path for folder in done.folders if folder.removed
    ]
    assert told.freed == done.freed == 6000
    assert names(models) == ["5"]


def test_versions_are_ordered_as_numbers(models):
    (models / "5").rename(models / "10")
    prune(models, keep=2)
    assert names(models) == ["10", "4", *REFUSED]


@pytest.mark.parametrize(
    ("config", "left"),
    [
        ("model_version_policy { specific { versions: 1 versions: 3 } }", ["1", "3", "5"]),
        ("model_version_policy { specific { versions: [1,3] } }", ["1", "3", "5"]),
        ("version_labels { key: 'stable' value: 2 } version_labels { key: \"canary\" value: 5 }", ["2", "5"]),
        ("model_version_policy { latest { num_versions: 2 } }", ["4", "5"]),
        ("# versions: 1\nmodel_version_policy { specific { versions: 2 } }", ["2", "5"]),
        ("name: 'bert-4' base_path: \"/models/3/#4\" version_labels { key: 'a' value: 1 }", ["1", "5"]),
        ("model_version_policy { specific { versions: 0x2 } }", ["2", "5"]),
        ("model_version_policy { all {} }", None),
        ("", ["5"]),
    ],
)
def test_what_a_server_is_told_to_serve_stays(models, config, left):
    (models / "serving").mkdir()
    (models / "serving" / "models.config").write_text(f"model_config_list {{ config {{ {config} }} }}\n")
    before = [name for name in names(models) if name.isdecimal()]
    prune(models, keep=1, refused=True)
    assert names(models) == [*(before if left is None else left), "serving"]


def test_a_config_that_cannot_be_read_keeps_everything(models):
    (models / "serving").mkdir()
    (models / "serving" / "models.config").write_bytes(b"\xff\xfe")
    before = names(models)
    with pytest.raises(OutputError, match="nobody knows what is served"):
        prune(models, keep=1)
    assert names(models) == before


def test_a_numbered_folder_that_is_no_release_stays_and_is_not_counted(models):
    (models / "7").mkdir()
    (models / "8").symlink_to(models / "1")
    report = prune(models, keep=1)
    assert names(models) == ["5", "7", "8", *REFUSED]
    assert [folder.reason for folder in report.folders if "not a release" in folder.reason]


def test_a_living_export_keeps_its_staging_folder_and_a_dead_one_loses_it(models):
    (models / ".staging-1-dead").mkdir()
    (models / ".staging-1-dead" / "half").write_bytes(b"." * 10)
    with staging(models) as stage:
        # An export removes what dead ones left.
        assert not (models / ".staging-1-dead").exists()
        (models / ".staging-2-dead").mkdir()
        prune(models)
        assert stage.release.is_dir()
        assert not (models / ".staging-2-dead").exists()
        publish(stage, lambda number: (stage.release / "manifest.json").write_text("{}"))
    assert names(models) == ["3", "4", "5", "6", *REFUSED]


def test_a_killed_prune_leaves_no_half_version_and_the_next_one_finishes(models):
    command = [sys.executable, "-c", KILLED, str(models)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    assert subprocess.run(command, check=False, timeout=60, env=environment).returncode == 9
    visible = [path for path in models.iterdir() if not path.name.startswith(".")]
    assert all(len(list((path / "variables").iterdir())) == 2 for path in visible)
    (hidden,) = (path for path in models.iterdir() if path.name.startswith("."))
    assert hidden.name.startswith(".removed-")
    assert len(list((hidden / "variables").iterdir())) == 1
    report = prune(models, keep=1)
    assert ".removed-" in " ".join(row["folder"] for row in report.table())
    assert names(models) == ["5", *REFUSED]


def test_what_could_not_be_removed_is_told_and_not_counted_as_freed(models, monkeypatch):
    monkeypatch.setattr("tfapp.release.publish.shutil.rmtree", lambda path, **options: None)
    (models / "1" / "large").write_bytes(bytes(3_000_000))
    (models / "3").rename(models / ".staging-1-dead")
    (models / ".staging-file").write_text("no folder, and not of an export")
    with pytest.raises(OutputError, match=r"3\.0 MB could not be removed") as told:
        prune(models, keep=3)
    # What an export left and one version; the file is nobody's business.
    assert re.search(r"in \.removed-1-\w+, \.staging-1-dead\. Another user", str(told.value))
    assert names(models)[-5:] == ["2", "4", "5", *REFUSED]


def test_an_export_removes_what_a_killed_prune_left(models):
    (models / ".removed-1-abcd").mkdir()
    with staging(models):
        assert not (models / ".removed-1-abcd").exists()


def test_pruning_waits_for_whoever_is_publishing(models):
    script = "import sys; from tfapp.release.pruning import prune; prune(sys.argv[1], keep=1)"
    lock = try_lock(models)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen([sys.executable, "-c", script, str(models)], env=environment)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(2)
    assert len(names(models)) == 7
    os.close(lock)
    assert process.wait(60) == 0
    assert names(models) == ["5", *REFUSED]


def test_a_discarded_folder_is_gone_at_once(models):
    discard(models / "1")
    assert "1" not in names(models)
    assert not [name for name in names(models) if name.startswith(".")]


@pytest.mark.parametrize("keep", [0, -1])
def test_at_least_one_version_is_kept(models, keep):
    with pytest.raises(ConfigError, match="1 or more"):
        prune(models, keep=keep)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, "is not a folder"),
        (lambda path: path.mkdir(), "holds no version"),
        (lambda path: (path.mkdir(), (path / "manifest.json").write_text("{}")), "is one version"),
        (lambda path: path.write_text("a file"), "is not a folder"),
    ],
)
def test_what_is_no_folder_of_versions_says_what_to_give(tmp_path, make, message):
    make(tmp_path / "reviews")
    with pytest.raises(OutputError, match=message):
        prune(tmp_path / "reviews")


def test_a_home_folder_is_not_pruned_by_mistake(tmp_path):
    directory = tmp_path / "My Documents"
    (directory / "1").mkdir(parents=True)
    with pytest.raises(OutputError, match="release name"):
        prune(directory)


def test_pruning_loads_no_tensorflow():
    script = "import sys, tfapp.release; tfapp.release.prune; sys.exit('tensorflow' in sys.modules)"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    assert subprocess.run([sys.executable, "-c", script], check=False, env=environment).returncode == 0
