"""The benchmark of a release: what is reported, what is refused, and the script that keeps the time."""

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from tfapp.errors import ConfigError
from tfapp.release import bench, runner, runtimes, stopwatch
from tfapp.release.bench_report import ArtifactBench, BenchReport, Timing, best_front
from tfapp.release.probe import Probe

MACHINE = {"processor": "Some Processor", "cores": 2, "system": "Linux", "load_before": 0.1}
REASON = "it takes 1 row at a time"


def artifact(variant, accuracy, p50, *, batches=True, **fields):
    def timed(threads, batch):
        if batch > 1 and not batches:
            return Timing(threads, batch, reason=REASON)
        return Timing(threads, batch, 200, batch * p50, batch * p50 * 1.5, batch * p50 * 2, 30_000_000)

    given = {
        "path": f"edge/model-{variant}.tflite",
        "bytes": 2_500_000,
        "takes": "token ids",
        "takes_features": False,
        "start_s": 0.25,
        "timings": tuple(timed(threads, batch) for threads in (1, 2) for batch in (1, 8)),
    }
    return ArtifactBench(variant=variant, accuracy=accuracy, **{**given, **fields})


@pytest.fixture
def report():
    artifacts = (
        artifact("saved_model", 0.9, 8.0, takes="text", takes_features=True),
        artifact("float32", 0.9, 4.0, batches=False),
        artifact("dynamic", 0.88, 2.0, batches=False),
        artifact("onnx", 0.9, 5.0),
    )
    return BenchReport("tiny", 3, "0.1.0", MACHINE, "50 golden vectors", "60 rows", artifacts)


@pytest.mark.parametrize(
    ("points", "best"),
    [
        ({}, ()),
        ({"a": (0.9, 5.0)}, ("a",)),
        ({"a": (0.9, 5.0), "b": (0.9, 4.0), "c": (0.8, 4.5)}, ("b",)),
        ({"a": (0.9, 5.0), "b": (0.8, 1.0), "c": (0.85, 2.0)}, ("b", "c", "a")),
        ({"a": (0.9, 5.0), "b": (0.9, 5.0)}, ("a", "b")),
        ({"a": (0.9, 5.0), "b": (0.8, 5.0)}, ("a",)),
    ],
)
def test_the_front_is_what_nothing_beats(points, best):
    assert best_front(points) == best


def test_tables_say_what_was_asked_and_why_something_was_not(report):
    assert {row["artifact"]: (row["asked with"], row["p50 ms"], row["best"]) for row in report.summary()} == {
        "saved_model": ("text", "8.00", ""),
        "float32": ("token ids", "4.00", "*"),
        "dynamic": ("token ids", "2.00", "*"),
        "onnx": ("token ids", "5.00", ""),
    }
    rows = [row for row in report.latencies() if row["artifact"] in ("float32", "onnx")]
    assert [(row["rows"], row["threads"], row["p50 ms"], row["rows/s"], row[""]) for row in rows] == [
        ("1", "1", "4.00", "250", ""),
        ("1", "2", "4.00", "250", ""),
        ("8", "1, 2", "-", "-", REASON),
        ("1", "1", "5.00", "200", ""),
        ("1", "2", "5.00", "200", ""),
        ("8", "1", "40.00", "200", ""),
        ("8", "2", "40.00", "200", ""),
    ]
    assert "what makes token ids of texts is then not in them" in report.notes()[1]


def test_an_artifact_that_failed_has_its_reason_and_no_figures(report):
    failed = artifact("text", 0.9, 1.0, error="cannot be run: RuntimeError", timings=(), start_s=None)
    changed = replace(report, artifacts=(*report.artifacts, failed))
    assert changed.errors == ["text: cannot be run: RuntimeError"]
    row = changed.summary()[-1]
    assert (row["asked with"], row["p50 ms"], row["start s"], row["best"]) == ("-", "-", "-", "")
    assert "text" not in changed.best


def test_json_holds_everything_and_the_pictures_lie_beside_it(report, tmp_path):
    path, *pictures = report.save(tmp_path / "bench")
    assert [picture.name for picture in pictures] == ["accuracy-latency.png", "accuracy-latency.svg"]
    content = json.loads(path.read_text())
    assert content["machine"] == MACHINE
    assert {row["variant"]: row["best"] for row in content["artifacts"]} == {
        "saved_model": False,
        "float32": True,
        "dynamic": True,
        "onnx": False,
    }
    timing = content["artifacts"][1]["timings"][1]
    assert (timing["batch"], timing["p50"], timing["reason"]) == (8, None, REASON)
    assert (tmp_path / "bench" / "accuracy-latency.png").read_bytes()[1:4] == b"PNG"
    assert (tmp_path / "bench" / "accuracy-latency.svg").read_text().count("<svg") == 1
    report.save(tmp_path / "again")
    assert (tmp_path / "again" / "accuracy-latency.png").read_bytes() == (
        tmp_path / "bench" / "accuracy-latency.png"
    ).read_bytes()


@pytest.mark.parametrize("accuracy", [0.9, None])
def test_equal_points_and_missing_accuracies_can_be_drawn(report, tmp_path, accuracy):
    artifacts = tuple(artifact(f"copy{number}", accuracy, 3.0) for number in range(5))
    report.save(tmp_path)
    written = replace(report, artifacts=artifacts).save(tmp_path)
    # Pictures of an earlier benchmark do not stay beside the figures of this one.
    assert sorted(written) == sorted(tmp_path.iterdir())
    assert len(written) == (1 if accuracy is None else 3)


def test_what_proves_no_origin_is_noted(report):
    assert report.notes()[-1] == "tiny 3: self-consistent, origin not proven."
    assert not any("origin" in line for line in replace(report, origin_proven=True).notes())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"threads": [0]}, "threads = .0.: numbers of 1 or more"),
        ({"threads": [1, 4096]}, "threads = .1, 4096.: this process may use"),
        ({"batches": []}, "batches = ..: numbers of 1 or more"),
        ({"calls": 0}, "calls = .0.: numbers of 1 or more"),
    ],
)
def test_settings_out_of_range_are_refused_before_anything_is_read(tmp_path, options, message):
    with pytest.raises(ConfigError, match=message):
        bench(tmp_path, **options)


class Runtime:
    """Stands for an artifact: it answers with the parity of the first token."""

    takes_features, most_rows = False, 4

    def __init__(self, request, threads):
        self.asked = request["asked"]

    def call(self, inputs, rows):
        self.asked.append(rows)
        if len(rows) == 3:
            raise RuntimeError("three are\ntoo many")
        return np.eye(2)[inputs.tensors["token_ids"][rows, 0] % 2]


@pytest.fixture
def timed(tmp_path, monkeypatch, capsys):
    """Runs the stopwatch in this process on a runtime of the test."""
    ids = np.arange(10, dtype=np.int32).reshape(5, 2)
    Probe([b"-"] * 5, {"token_ids": ids}).save(tmp_path / "inputs")
    real = stopwatch._runtimes()
    asked = []

    def run(**options):
        def make(request, threads):
            return Runtime({"asked": asked}, threads)

        fake = SimpleNamespace(RUNTIMES={"mine": make}, Inputs=real.Inputs, check_alone=real.check_alone)
        monkeypatch.setattr(stopwatch, "_runtimes", lambda: fake)
        request = {
            "runtime": "mine",
            "threads": 1,
            "paths": [],
            "inputs": str(tmp_path / "inputs"),
            "classes": ["even", "odd"],
            "forbidden": [],
            "batches": [1, 2, 8],
            "calls": 12,
            "seconds": 60.0,
        }
        (tmp_path / "request.json").write_text(json.dumps({**request, **options}))
        status = stopwatch.main(tmp_path)
        return status, json.loads((tmp_path / "result.json").read_text()), asked

    return run


def test_the_stopwatch_times_every_number_of_rows_that_the_artifact_takes(timed, capsys):
    status, facts, asked = timed()
    assert status == 0
    assert capsys.readouterr().out == f"{stopwatch.FIRST_ANSWER}\n"
    one, two, eight = facts["cases"]
    assert (one["batch"], one["calls"], two["batch"], two["calls"]) == (1, 12, 2, 12)
    assert 0 < one["p50"] <= one["p95"] <= one["p99"]
    assert one["peak_bytes"] is None or 10_000_000 < one["peak_bytes"] <= two["peak_bytes"]
    assert eight == {"batch": 8, "reason": "it takes 4 rows at a time"}
    singles = [rows for rows in asked[1:] if len(rows) == 1]
    assert len(singles) > 12  # the first ones to warm up
    assert {row for (row,) in singles} == set(range(5))
    assert [0, 1] in asked
    assert [4, 0] in asked


class Asked:
    """An artifact without a runtime: it answers each row with what it was given, and notes the row."""

    def __init__(self, answers):
        self.answers, self.rows = answers, []

    def _one(self, inputs, row):
        return self._answer(inputs.row(row))

    def _answer(self, tensors):
        numbers = tensors["token_ids"][:, 0].tolist()
        self.rows += numbers
        return self.answers[numbers]


@pytest.mark.parametrize("runtime", ["litert", "keras", "onnx"])
def test_a_call_answers_all_windows_of_a_text(tmp_path, runtime):
    ids = np.arange(6, dtype=np.int32).reshape(6, 1)
    answers = np.array([[0.9, 0.1], [0.4, 0.6], [0.4, 0.6], [0.01, 0.99], [0.2, 0.8], [0.6, 0.4]])
    Probe([b"-"] * 3, {"token_ids": ids}, np.array([0, 0, 0, 1, 2, 2])).save(tmp_path / "inputs")
    inputs = runtimes.Inputs(str(tmp_path / "inputs"))
    artifact = type("Artifact", (Asked, runtimes.RUNTIMES[runtime]), {})(answers)
    # Two of the first text's windows say the second class, but not as surely as the other says the first.
    assert artifact.call(inputs, [0]).argmax(axis=1).tolist() == [0]
    assert artifact.call(inputs, [1]).argmax(axis=1).tolist() == [1]
    assert artifact.rows == [0, 1, 2, 3]
    if runtime != "litert":
        assert artifact.call(inputs, [2, 0]).argmax(axis=1).tolist() == [1, 0]
        assert artifact.rows[4:] == [4, 5, 0, 1, 2]


def test_the_latency_in_the_manifest_is_of_whole_texts_spread_over_all(tmp_path):
    ids = np.arange(40, dtype=np.int32).reshape(40, 1)
    Probe([b"-"] * 4, {"token_ids": ids}, np.repeat(np.arange(4), 10)).save(tmp_path / "inputs")
    inputs = runtimes.Inputs(str(tmp_path / "inputs"))
    artifact = type("Artifact", (Asked, runtimes.RUNTIMES["litert"]), {})(np.full((40, 2), 0.5))
    assert runner._latency(artifact, inputs, {"latency_calls": 2})["batch"] == 1
    texts = [*range(10), *range(20, 30)]
    assert artifact.rows == texts + texts  # the first calls are to warm up


def test_a_slow_artifact_is_asked_ten_times(timed):
    _, facts, _ = timed(seconds=0.0, batches=[1], calls=200)
    assert facts["cases"][0]["calls"] == 10


def test_what_a_runtime_raises_becomes_the_reason(timed):
    status, facts, _ = timed(batches=[3])
    assert status == 1
    assert facts == {"error": "RuntimeError: three are too many"}


def test_a_module_that_must_not_be_loaded_is_told(timed):
    status, facts, _ = timed(forbidden=["numpy"])
    assert status == 1
    assert facts["error"].endswith("this runtime must do without numpy, but has loaded it")
