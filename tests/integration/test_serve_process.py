"""`tfapp serve` as a process of its own: over sockets, under load, while versions change, and as it ends."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import shutil
import signal
import ssl
import subprocess
import sys
import threading
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import grpc
import numpy as np
import pytest
import tensorflow as tf
from grpc_health.v1 import health_pb2, health_pb2_grpc
from running_server import running_server
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_status_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

from tfapp.cli import main
from tfapp.errors import ReleaseError
from tfapp.serving import tuning
from tfapp.serving.load import drive, post
from tfapp.serving.server import Batching
from tfapp.serving.server.loaded import LoadedModel
from tfapp.serving.server.model_files import read_batching

pytestmark = pytest.mark.server

_SECONDS = 300
PREDICT = "/v1/models/tiny:predict"


class Process:
    """A running `tfapp serve`."""

    def __init__(self, folder, *options, environment=None):
        command = [sys.executable, "-m", "tfapp", "serve", folder, "--port", 0, "--grpc-port", 0, *options]
        self.popen = subprocess.Popen(
            list(map(str, command)), stderr=subprocess.PIPE, text=True, env=environment
        )
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read)
        self._reader.start()
        said = self.line("Serving version")
        self.port = int(said.split("/v1/")[0].rsplit(":", 1)[1])
        self.grpc_port = int(said.rsplit(" ", 1)[1])

    def _read(self):
        self.lines.extend(iter(self.popen.stderr.readline, ""))

    def line(self, words):
        """Waits until the server says something."""
        deadline = time.monotonic() + _SECONDS
        while time.monotonic() < deadline:
            found = [line for line in self.lines if words in line]
            if found:
                return found[-1].strip()
            if self.popen.poll() is not None:
                break
            time.sleep(0.05)
        raise AssertionError(f"the server never said {words!r}:\n{''.join(self.lines)}")

    def end(self):
        self.popen.send_signal(signal.SIGTERM)
        status = self.popen.wait(timeout=120)
        self._reader.join()
        return status


@contextlib.contextmanager
def serving(folder, *options, **settings):
    process = Process(folder, *options, **settings)
    try:
        yield process
    finally:
        if process.popen.poll() is None:
            process.end()


@pytest.fixture
def folder(release, tmp_path):
    shutil.copytree(release.path, tmp_path / "tiny" / "1")
    return tmp_path / "tiny"


def ask(process, path, payload=None, **options):
    url = f"{options.pop('scheme', 'http')}://127.0.0.1:{process.port}{path}"
    data = None if payload is None else json.dumps(payload).encode()
    request = urllib.request.Request(url, data, headers=options.pop("headers", {}))
    with urllib.request.urlopen(request, timeout=60, **options) as answer:
        return json.loads(answer.read())


def golden_rows(folder):
    return json.loads((folder / "1" / "edge" / "golden.json").read_text())["inputs"]


def predict_message(texts):
    message = predict_pb2.PredictRequest()
    message.model_spec.name = "tiny"
    message.inputs["text"].CopyFrom(tf.make_tensor_proto(texts))
    return message


def test_clients_of_tensorflow_serving_are_answered(release, tmp_path):
    rows = golden_rows(release.path.parent)
    texts, expected = [row["text"] for row in rows], [row["probabilities"] for row in rows]
    with running_server(release.path.parent, tmp_path) as server:
        body = json.dumps({"instances": texts}).encode()
        with urllib.request.urlopen(f"{server.rest}{PREDICT}", body, timeout=60) as answer:
            found = [row["probabilities"] for row in json.loads(answer.read())["predictions"]]
        np.testing.assert_allclose(found, expected, atol=1e-4)
        with grpc.insecure_channel(server.grpc.removeprefix("grpc://")) as channel:
            stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
            outputs = stub.Predict(predict_message(texts), 60).outputs
            np.testing.assert_allclose(tf.make_ndarray(outputs["probabilities"]), expected, atol=1e-4)
            classify = classification_pb2.ClassificationRequest(model_spec={"name": "tiny"})
            with pytest.raises(grpc.RpcError, match="Expected one or two output Tensors, found 3"):
                stub.Classify(classify, 60)
            classify.model_spec.signature_name = "classify"
            for text in texts:
                features = classify.input.example_list.examples.add().features
                features.feature["text"].bytes_list.value.append(text.encode())
            answers = stub.Classify(classify, 60).result.classifications
            scores = [[each.score for each in answer.classes] for answer in answers]
            np.testing.assert_allclose(scores, expected, atol=1e-4)
            models = model_service_pb2_grpc.ModelServiceStub(channel)
            asked = get_model_status_pb2.GetModelStatusRequest(model_spec={"name": "tiny"})
            assert models.GetModelStatus(asked, 60).model_version_status[0].state == 30  # AVAILABLE


def test_health_is_told_by_grpc(folder):
    with serving(folder) as process, grpc.insecure_channel(f"127.0.0.1:{process.grpc_port}") as channel:
        health = health_pb2_grpc.HealthStub(channel)
        for service in ("", "tensorflow.serving.PredictionService"):
            check = health.Check(health_pb2.HealthCheckRequest(service=service), timeout=60)
            assert check.status == health_pb2.HealthCheckResponse.SERVING


def test_versions_are_swapped_under_load_without_a_failed_request(folder):
    """A good version, a spoiled one and another good one appear while requests go on."""
    rows = golden_rows(folder)
    requests = [post(PREDICT, {"instances": [row["text"]]}) for row in rows]

    def right(place, body):
        found = json.loads(body)["predictions"][0]["probabilities"]
        return np.allclose(found, rows[place]["probabilities"], atol=1e-4)

    def change(process):
        for number, spoil in ((2, False), (3, True), (4, False)):
            staged = folder / f".staging-{number}"
            shutil.copytree(folder / "1", staged)
            if spoil:
                weights = staged / "variables" / "variables.data-00000-of-00001"
                weights.write_bytes(weights.read_bytes()[:-10])
            staged.rename(folder / str(number))
            process.line(f"version {number} of tiny is {'not ' if spoil else ''}served")

    with serving(folder, "--poll-seconds", 0.2) as process, ThreadPoolExecutor(1) as pool:
        changing = pool.submit(change, process)

        async def until_changed():
            loads = []
            while not changing.done():
                loads.append(
                    await drive("127.0.0.1", process.port, requests, connections=8, seconds=1, check=right)
                )
            return loads

        loads = asyncio.run(until_changed())
        changing.result()
        process.line("version 2 of tiny was let go")
        status = ask(process, "/v1/models/tiny")["model_version_status"]
    assert sum(len(load.latencies) for load in loads) > 100
    assert [dict(load.failures) for load in loads if load.failures] == []
    assert {each["version"]: each["state"] for each in status} == {
        "4": "AVAILABLE",
        "3": "END",
        "2": "END",
        "1": "END",
    }


def test_requests_in_flight_are_answered_before_the_end(folder):
    """The batch waits for two seconds, and the server is told to end meanwhile."""
    (folder / "serving").mkdir()
    config = "max_batch_size { value: 4 }\nbatch_timeout_micros { value: 2000000 }\n"
    (folder / "serving" / "batching.config").write_text(config)
    with serving(folder) as process, ThreadPoolExecutor(2) as pool:
        by_rest = pool.submit(ask, process, PREDICT, {"instances": ["a good film"]})
        with grpc.insecure_channel(f"127.0.0.1:{process.grpc_port}") as channel:
            stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
            by_grpc = stub.Predict.future(predict_message(["a bad film"]), 60)
            time.sleep(0.7)
            assert process.end() == 0
            assert len(by_grpc.result().outputs["label"].string_val) == 1
        assert len(by_rest.result()["predictions"]) == 1


def test_tls_and_token_are_asked_for_by_both_protocols(folder, tmp_path, monkeypatch):
    if shutil.which("openssl") is None:
        pytest.skip("there is no openssl to make a certificate with")
    key, certificate, token = (tmp_path / name for name in ("key.pem", "certificate.pem", "token"))
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    make = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *subject]
    subprocess.run([*make, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    token.write_text("secret\n")
    options = ("--tls-cert", certificate, "--tls-key", key, "--token-file", token)
    with serving(folder, *options) as process:
        trusted = {"scheme": "https", "context": ssl.create_default_context(cafile=str(certificate))}
        payload = {"instances": ["a good film"]}
        with pytest.raises(urllib.error.HTTPError, match="401"):
            ask(process, PREDICT, payload, **trusted)
        bearer = {"Authorization": "Bearer secret"}
        assert ask(process, PREDICT, payload, headers=bearer, **trusted)["predictions"]
        credentials = grpc.ssl_channel_credentials(certificate.read_bytes())
        with grpc.secure_channel(f"localhost:{process.grpc_port}", credentials) as channel:
            stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
            with pytest.raises(grpc.RpcError) as refused:
                stub.Predict(predict_message(["x"]), 60)
            assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED
            assert stub.Predict(predict_message(["x"]), 60, metadata=[("authorization", "Bearer secret")])


def test_the_batches_of_a_release_are_tuned_from_the_command_line(folder, tmp_path, monkeypatch):
    """With real servers, but fewer settings and connections than anybody would measure by."""
    few = functools.partial(tuning.tune_serving, sizes=(1, 4), timeouts=(0,), connections=(1, 4))
    monkeypatch.setattr(tuning, "tune_serving", few)
    texts = tmp_path / "texts.txt"
    texts.write_text("a good film\n\na bad share price\n")
    with pytest.raises(SystemExit) as ended:
        main(["tune-serving", str(folder), "--file", str(texts), "--seconds", "0.3"])
    assert not ended.value.code
    rows = json.loads((folder / "serving" / "tuning.json").read_text())
    assert [(row["max_batch_size"], row["connections"]) for row in rows] == [(1, 1), (1, 4), (4, 1), (4, 4)]
    assert all(row["failures"] == 0 and 0 < row["p50_ms"] <= row["p99_ms"] for row in rows)
    found = read_batching(folder / "serving" / "batching.config")
    assert (found.max_batch_size in (1, 4), found.batch_timeout_micros) == (True, 0)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda folder: shutil.rmtree(folder / "1"), "has no released version"),
        (lambda folder: (folder / "1" / "saved_model.pb").unlink(), "saved_model.pb is missing"),
        (lambda folder: (folder / "1" / "extra").write_text("x"), "extra is not listed"),
    ],
)
def test_nothing_but_a_whole_release_is_served(folder, spoil, words):
    spoil(folder)
    command = [sys.executable, "-m", "tfapp", "serve", str(folder), "--port", "0", "--grpc-port", "0"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS)
    assert ended.returncode == 2
    assert words in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_version_is_served_only_with_the_manifest_that_is_meant(release, folder):
    checksum = release.manifest_sha256
    with serving(folder / "1", "--manifest-sha256", checksum) as process:
        assert process.line("version 1 of tiny is served").endswith(f"sha256 {checksum}")
    other = checksum[:-1] + ("0" if checksum[-1] != "0" else "1")
    command = [sys.executable, "-m", "tfapp", "serve", str(folder / "1"), "--port", "0", "--no-grpc"]
    ended = subprocess.run(
        [*command, "--manifest-sha256", other], capture_output=True, text=True, timeout=_SECONDS
    )
    assert ended.returncode == 2
    assert "is not the manifest that is meant" in ended.stderr


def test_a_version_that_changes_while_it_is_loaded_is_not_served(folder, monkeypatch):
    warm_up = LoadedModel._warm_up

    def change(self):
        warm_up(self)
        (self.directory / "edge" / "labels.txt").write_text("changed")

    monkeypatch.setattr(LoadedModel, "_warm_up", change)
    with pytest.raises(ReleaseError, match=r"edge/labels\.txt is damaged"):
        LoadedModel(folder / "1", 1, batching=Batching())


def test_a_taken_port_is_named(folder):
    with serving(folder) as process:
        command = [sys.executable, "-m", "tfapp", "serve", str(folder), "--port", str(process.port)]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS)
    assert ended.returncode == 2
    assert f"127.0.0.1:{process.port}" in ended.stderr
    assert "choose another" in ended.stderr


def test_a_model_that_answers_otherwise_is_not_served(release, tmp_path, monkeypatch):
    shutil.copytree(release.path, tmp_path / "1")
    measured = LoadedModel.golden_gap
    monkeypatch.setattr(LoadedModel, "golden_gap", lambda self: measured(self) + 0.5)
    with pytest.raises(ReleaseError, match="this machine does not compute what was released"):
        LoadedModel(tmp_path / "1", 1, batching=Batching())
