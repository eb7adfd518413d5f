"""``tfapp bench`` on a release with two artifacts: real processes, real figures."""

import json
import shutil

import pytest

from tfapp import cli, terminal
from tfapp.errors import ReleaseError
from tfapp.machine import usable_cores
from tfapp.release import bench
from tfapp.release.integrity import hash_files

pytestmark = pytest.mark.usefixtures("logger_as_before")


@pytest.fixture(scope="module")
def two_artifacts(release, tmp_path_factory):
    """A copy of the release that has a file for phones and one for ONNX Runtime only."""
    folder = tmp_path_factory.mktemp("bench") / "tiny" / "1"
    kept = ("onnx/model.onnx", "edge/model-dynamic.tflite", "edge/golden.json", "edge/vocab.txt")
    for name in kept:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(release.path / name, folder / name)
    manifest = dict(release.manifest)
    manifest["artifacts"] = [row for row in manifest["artifacts"] if row["variant"] in ("dynamic", "onnx")]
    manifest["files"] = hash_files(folder)
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def test_the_command_measures_prints_and_writes(two_artifacts, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(terminal, "load_tensorflow", lambda: None)
    arguments = ["bench", str(two_artifacts.parent), "--batches", "1, 4", "--calls", "12"]
    with pytest.raises(SystemExit) as ended:
        cli.main([*arguments, "--output", str(tmp_path / "out")])
    assert ended.value.code == 0
    printed = capsys.readouterr().out
    assert "benchmark of tiny 1" in printed
    assert "it takes 1 row at a time" in printed
    assert "the release's 50 golden vectors; accuracy on 60 rows, as in the manifest" in printed
    content = json.loads((tmp_path / "out" / "bench.json").read_text())
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "bench.json",
        "accuracy-latency.png",
        "accuracy-latency.svg",
    }
    noted = {
        row["variant"]: row for row in json.loads((two_artifacts / "manifest.json").read_text())["artifacts"]
    }
    for row in content["artifacts"]:
        assert row["error"] is None
        assert row["accuracy"] == noted[row["variant"]]["accuracy"]
        assert row["bytes"] == noted[row["variant"]]["bytes"]
        assert row["takes"] == "token ids"
        one, four, *more = row["timings"]
        assert [each["threads"] for each in (one, four, *more)] == [1, 1, 2, 2][: 2 * usable_cores()]
        assert all(each["p50"] > 0 for each in more if each["reason"] is None)
        assert one["calls"] == 12
        assert 0 < one["p50"] <= one["p99"]
        # From the start of the process: an interpreter alone takes longer than a call.
        assert row["start_s"] > one["p50"] / 1e3
        if row["variant"] == "onnx":
            assert four["p50"] > 0
        else:
            assert four["reason"] == "it takes 1 row at a time"
    assert any(row["best"] for row in content["artifacts"])


def test_another_release_than_is_meant_is_not_run(two_artifacts, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(terminal, "load_tensorflow", lambda: None)
    with pytest.raises(SystemExit) as ended:
        cli.main(["bench", str(two_artifacts), "--manifest-sha256", "0" * 64])
    assert ended.value.code == ReleaseError.exit_code
    assert "not the manifest that is meant" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_rows_of_the_user_are_asked_about_and_counted(two_artifacts, test_split, tmp_path):
    wrong = {"business": "sport", "sport": "tech", "tech": "business"}
    names = [test_split.classes[label] for label in test_split.labels.tolist()]
    lines = [f"{text},{wrong[name]}" for text, name in zip(test_split.texts, names, strict=True)]
    source = tmp_path / "rows.csv"
    source.write_text("\n".join(["words,kind", *lines]) + "\n")
    report = bench(
        two_artifacts, source, feature_column="words", label_column="kind", threads=[1], batches=[1], calls=3
    )
    assert report.errors == []
    assert "rows.csv, which are not those that the release was checked with" in report.asked
    # Nine rows in ten were labelled as the model answers, and are now labelled otherwise.
    assert all(each.accuracy < 0.15 for each in report.artifacts)
    assert [each.timings[0].calls for each in report.artifacts] == [3, 3]


def test_an_artifact_that_cannot_be_run_is_told_and_the_others_are_measured(two_artifacts, tmp_path):
    folder = tmp_path / "1"
    shutil.copytree(two_artifacts, folder)
    (folder / "onnx" / "model.onnx").write_bytes(b"no graph")
    with pytest.raises(ReleaseError, match=r"model\.onnx is damaged"):
        bench(folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**manifest, "files": hash_files(folder)}))
    report = bench(folder, threads=[1], batches=[1], calls=3)
    (error,) = report.errors
    assert error.startswith("onnx: cannot be run: InvalidProtobuf")
    assert report.best == ("dynamic",)


@pytest.mark.slow
def test_every_artifact_is_measured_with_its_own_runtime(release):
    report = bench(release.path, threads=[1], batches=[1, 2], calls=10)
    assert report.errors == []
    assert {each.variant: each.takes for each in report.artifacts} == {
        "saved_model": "text",
        "keras": "token ids",
        "float32": "token ids",
        "float16": "token ids",
        "dynamic": "token ids",
        "text": "text",
        "onnx": "token ids",
    }
    batched = {each.variant for each in report.artifacts if each.timings[1].reason is None}
    assert batched == {"saved_model", "keras", "onnx"}
    memory = {each.variant: each.single.peak_bytes for each in report.artifacts}
    # TensorFlow's libraries alone take more than LiteRT or ONNX Runtime with a tiny model.
    assert min(memory["saved_model"], memory["keras"]) > 2 * max(memory["onnx"], memory["float32"])
