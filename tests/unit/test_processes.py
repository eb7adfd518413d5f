"""Artifacts that crash, hang or write nonsense: a reason each, never a traceback."""

import json
import os
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from tfapp.errors import OutputError
from tfapp.release import processes, runner, runtimes
from tfapp.release.probe import Probe

START = """
import json, os, signal, sys, time
from pathlib import Path
import numpy as np
folder = Path(sys.argv[1])
request = json.loads((folder / "request.json").read_text())
def write(facts, **outputs):
    np.savez(folder / "outputs.npz", **outputs)
    (folder / "result.json").write_text(json.dumps(facts))
def answered():
    print("tfapp-runner: answered", flush=True)
    sys.stdin.readline()
GOOD = {"libraries": {"numpy": np.__version__}, "latency_ms": None}
"""


@pytest.fixture
def probe():
    return Probe((b"one", "zwölf".encode()), {"token_ids": np.arange(6, dtype=np.int32).reshape(2, 3)})


@pytest.fixture
def run(tmp_path, probe, monkeypatch):
    """Runs a script in place of the runner and returns what is made of it."""

    def run(script, variant="float32"):
        runner_file = tmp_path / "fake_runner.py"
        runner_file.write_text(START + script)
        monkeypatch.setattr(processes, "_RUNNER", runner_file)
        with processes.ArtifactRunner(
            tmp_path, probe, feature="text", tensor_endpoint="serve_ids", temperature=1.0
        ) as runner:
            runner.start(variant, tmp_path / "model")
            return runner.answers()[variant]

    return run


def test_answers_come_back(run):
    answers = run(
        "answered()\n"
        "facts = {**GOOD, 'labels': ['a', 'b']}\n"
        "facts.update(endpoints={'serve': 0.5}, endpoint_labels={'serve': 3})\n"
        "facts.update(step=0.25, inputs={'pixels': ['uint8', 1.0, 0.0]})\n"
        "write(facts, probabilities=np.eye(2), logits=np.eye(2))\n"
    )
    assert answers.error is None
    np.testing.assert_array_equal(answers.probabilities, np.eye(2))
    assert answers.labels == ("a", "b")
    assert answers.endpoints == {"serve": 0.5}
    assert answers.endpoint_labels == {"serve": 3}
    assert answers.step == 0.25
    assert answers.inputs == {"pixels": ("uint8", 1.0, 0.0)}
    assert set(answers.libraries) == {"numpy"}


def test_the_process_sees_the_rows_and_no_more_of_this_one(run, probe):
    answers = run(
        "assert sys.flags.isolated and 'tfapp' not in sys.modules\n"
        "index = json.loads((Path(request['inputs']) / 'index.json').read_text())\n"
        "features, ids = index['features'], index['tensors']['token_ids']\n"
        "text = Path(features['path']).read_bytes()[features['splits'][1]:].decode()\n"
        "assert text == 'zwölf' and os.environ['CUDA_VISIBLE_DEVICES'] == '-1'\n"
        "answered()\n"
        "values = np.memmap(ids['path'], ids['dtype'], 'r', shape=tuple(ids['shape']))\n"
        "write(GOOD, probabilities=values)\n"
    )
    assert answers.error is None
    np.testing.assert_array_equal(answers.probabilities, probe.tensors["token_ids"])


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("os.kill(os.getpid(), signal.SIGSEGV)", "ended by SIGSEGV"),
        ("answered(); os.kill(os.getpid(), signal.SIGABRT)", "ended by SIGABRT"),
        ("sys.exit(3)", "ended with status 3"),
        ("sys.exit(0)", "ended with status 0"),
        ("sys.stderr.write('first\\nout of memory\\n'); sys.exit(4)", r"status 4 \(out of memory\)"),
        ("write({'error': 'ValueError: no such op'}); sys.exit(1)", "cannot be run: ValueError: no such op"),
        ("answered(); (folder / 'result.json').write_text(json.dumps(GOOD))", "answers cannot be read"),
        (
            "write(GOOD); (folder / 'outputs.npz').write_bytes(b'PK nonsense'); answered()",
            "answers cannot be read",
        ),
        ("(folder / 'result.json').write_text('{'); answered()", "ended with status 0"),
        ("write(GOOD, logits=np.eye(2)); answered()", "answers cannot be read"),
    ],
)
def test_a_process_that_fails_is_a_reason(run, script, reason):
    with pytest.raises(AssertionError, match=reason):
        raise AssertionError(run(script).error)


@pytest.mark.parametrize("script", ["time.sleep(600)", "answered(); time.sleep(600)"])
def test_a_process_that_hangs_is_ended(run, monkeypatch, script):
    monkeypatch.setattr(processes, "_SECONDS_TO_START", 2.0)
    monkeypatch.setattr(processes, "_SECONDS_A_ROW", 0.0)
    assert run(script).error == "did not answer within 2 s"


def test_leaving_early_ends_the_processes(tmp_path, probe, monkeypatch):
    runner_file = tmp_path / "fake_runner.py"
    runner_file.write_text(START + "(folder / 'pid').write_text(str(os.getpid())); time.sleep(600)")
    monkeypatch.setattr(processes, "_RUNNER", runner_file)
    with processes.ArtifactRunner(
        tmp_path, probe, feature="text", tensor_endpoint="serve_ids", temperature=1.0
    ) as runner:
        for variant in ("float32", "float16", "dynamic"):
            runner.start(variant, tmp_path / "model")
        deadline = time.monotonic() + 60
        while not (pids := read_pids(tmp_path)) and time.monotonic() < deadline:
            time.sleep(0.02)
        for pid in pids:
            os.kill(pid, 0)  # it lives
    assert pids
    for pid in read_pids(tmp_path):
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def read_pids(folder):
    return [int(text) for path in folder.glob("*/pid") if (text := path.read_text())]


def test_a_missing_file_is_reported_by_the_real_runner(tmp_path, probe):
    with processes.ArtifactRunner(
        tmp_path, probe, feature="text", tensor_endpoint="serve_ids", temperature=1.0
    ) as runner:
        runner.start("float32", tmp_path / "absent.tflite")
        error = runner.answers()["float32"].error
    assert error.startswith("cannot be run: ValueError")
    assert json.loads((tmp_path / "float32" / "request.json").read_text())["runtime"] == "litert"


def test_a_process_that_fills_the_disk_is_not_the_artifacts_fault(run):
    with pytest.raises(OutputError, match="MB are free"):
        run("sys.exit(28)")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the disk that is always full is Linux's")
def test_the_real_runner_says_so_when_the_disk_is_full(tmp_path, probe, monkeypatch):
    class Artifact:
        def __init__(self, request, threads):
            pass

        def answer(self, inputs):
            return {"probabilities": np.eye(2)}, {}

    fake = SimpleNamespace(RUNTIMES={"litert": Artifact}, Inputs=runtimes.Inputs)
    monkeypatch.setattr(runner, "_runtimes", lambda: fake)
    probe.save(tmp_path / "inputs")
    request = {"runtime": "litert", "inputs": str(tmp_path / "inputs"), "paths": [], "threads": 1}
    (tmp_path / "request.json").write_text(json.dumps(request))
    (tmp_path / "outputs.npz").symlink_to("/dev/full")
    assert runner.main(tmp_path, only_latency=False) == runner.DISK_FULL


@pytest.mark.parametrize("near_tie", [False, True])
def test_class_names_of_other_endpoints_are_compared_where_no_two_classes_tie(tmp_path, near_tie):
    tensors = {"token_ids": np.zeros((3, 4), np.int32)}
    Probe((b"long", b"short"), tensors, np.array([0, 0, 1])).save(tmp_path / "inputs")
    served = np.array([[0.5, 0.5], [0.5, 0.5]]) if near_tie else np.array([[0.9, 0.1], [0.2, 0.8]])
    windows = served[[0, 0, 1]]
    answers = {
        "serve": {"probabilities": served, "label": [b"a", b"b"]},
        "serve_examples": {"probabilities": served, "label": [b"b", b"a"]},
        # The first text has two windows, which are labelled by themselves; the second has one.
        "serve_ids": {"probabilities": windows, "label": [b"b", b"b", b"a"]},
        "classify": {"scores": served, "classes": np.array([[b"a", b"b"], [b"b", b"a"]])},
    }
    saved_model = runtimes._SavedModel.__new__(runtimes._SavedModel)
    saved_model._request = {"feature": "text", "tensor_endpoint": "serve_ids"}
    saved_model._signatures = set(answers)
    saved_model._serve = lambda endpoint, **inputs: answers[endpoint]
    saved_model._example = lambda feature, value: value
    inputs = runtimes.Inputs(str(tmp_path / "inputs"))
    found = saved_model._compare_endpoints(inputs, served, ["a", "b"])
    wrong = (0, 0, 0, 0) if near_tie else (0, 2, 1, 1)
    assert found["endpoint_labels"] == dict(zip(answers, wrong, strict=True))
    assert max(found["endpoints"].values()) == pytest.approx(0.0, abs=1e-9)


def test_another_build_of_a_library_tells_its_version_too(monkeypatch):
    monkeypatch.setitem(sys.modules, "known_to_nobody", SimpleNamespace(__version__="2.20.0"))
    assert runner._version("known-to-nobody") == "2.20.0"
    assert runner._version("numpy") == np.__version__
