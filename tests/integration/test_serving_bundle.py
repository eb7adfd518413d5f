"""What a release gives to TF Serving: configurations that follow the versions, and warm-up records."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import tensorflow as tf
import yaml
from google.protobuf import text_format
from tensorflow_serving.apis import prediction_log_pb2
from tensorflow_serving.config import model_server_config_pb2

from tfapp.data.image_decoding import ImageDecoder
from tfapp.errors import ConfigError, ReleaseError
from tfapp.release import export, verify, write_serving_bundle
from tfapp.release.golden_images import make_golden_images
from tfapp.release.serving_files import image_of, server_arguments
from tfapp.release.warmup import WARMUP_FILE, write_warmup
from tfapp.wire.configs import BatchingParameters, MonitoringConfig

DEPLOY = Path(__file__).parents[2] / "scripts" / "deploy"


@pytest.fixture
def versions(release, tmp_path):
    """Adds versions to a folder of releases, as light as a bundle needs them."""
    directory = tmp_path / "tiny"

    def add(*numbers, saved_model=True):
        for number in numbers:
            folder = directory / str(number)
            (folder / "edge").mkdir(parents=True)
            shutil.copy(release.path / "manifest.json", folder)
            shutil.copy(release.path / "edge" / "golden.json", folder / "edge")
            if saved_model:
                (folder / "saved_model.pb").touch()
        return directory

    return add


def models_config(directory):
    config = model_server_config_pb2.ModelServerConfig()
    text_format.Parse((directory / "serving" / "models.config").read_text(), config)
    return config


def state(directory):
    """Labels and versions of the model."""
    (model,) = models_config(directory).model_config_list.config
    return dict(model.version_labels), list(model.model_version_policy.specific.versions)


def edit(directory, old, new):
    path = directory / "serving" / "models.config"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def records(directory):
    """The texts or images of the warm-up records, after a look that TF Serving takes them."""
    values = []
    for record in tf.data.TFRecordDataset(str(directory / WARMUP_FILE)).as_numpy_iterator():
        log = prediction_log_pb2.PredictionLog.FromString(record)
        assert log.WhichOneof("log_type") == "predict_log"
        request = log.predict_log.request
        assert (request.model_spec.name, request.model_spec.signature_name) == ("tiny", "serving_default")
        ((feature, tensor),) = request.inputs.items()
        assert tf.make_ndarray(tensor).shape == (1,)
        values.append((feature, tensor.string_val[0]))
    assert 0 < len(values) <= 1000
    return values


def test_a_release_comes_with_all_that_a_server_reads(release):
    folder = release.path.parent / "serving"
    assert {path.name for path in folder.iterdir()} == {
        "models.config",
        "batching.config",
        "monitoring.config",
        "docker-compose.yml",
    }
    (model,) = models_config(release.path.parent).model_config_list.config
    assert (model.name, model.base_path, model.model_platform) == ("tiny", "/models/tiny", "tensorflow")
    assert state(release.path.parent) == ({"canary": 1, "stable": 1}, [1, 2, 3])
    batching = text_format.Parse((folder / "batching.config").read_text(), BatchingParameters())
    assert batching.max_batch_size.value == 32
    monitoring = text_format.Parse((folder / "monitoring.config").read_text(), MonitoringConfig())
    assert monitoring.prometheus_config.enable


def test_the_container_finds_its_files_and_is_of_the_tensorflow_that_measured(release):
    folder = release.path.parent / "serving"
    compose = yaml.safe_load((folder / "docker-compose.yml").read_text())
    (service,) = compose["services"].values()
    minor = ".".join(release.manifest["libraries"]["tensorflow"].split(".")[:2])
    assert service["image"] == f"tensorflow/serving:{minor}.0"
    assert service["volumes"] == ["..:/models/tiny:ro"]
    inside = [path for each in service["command"] for path in re.findall(r"=/models/tiny/(.*)", each)]
    assert len(inside) == 3
    assert all((release.path.parent / path).is_file() for path in inside)
    assert all(port.startswith("127.0.0.1:") for port in service["ports"])


@pytest.mark.skipif(shutil.which("bash") is None, reason="the container's health check is bash's")
@pytest.mark.parametrize(("state", "healthy"), [("AVAILABLE", True), ("LOADING", False)])
def test_the_health_check_sees_whether_a_version_is_served(release, state, healthy):
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps({"model_version_status": [{"state": state}]}).encode())

        def log_message(self, *arguments):
            pass

    compose = yaml.safe_load((release.path.parent / "serving" / "docker-compose.yml").read_text())
    kind, *command = compose["services"]["tiny"]["healthcheck"]["test"]
    assert kind == "CMD"
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        command = [part.replace("8501", str(server.server_port)) for part in command]
        done = subprocess.run(command, capture_output=True, timeout=60, check=False)
        server.shutdown()
    assert asked == ["/v1/models/tiny"]
    assert (done.returncode == 0) is healthy
    assert done.stderr == b""


def test_a_new_version_becomes_the_canary_and_stable_stays(versions):
    directory = versions(1)
    write_serving_bundle(directory)
    assert state(directory) == ({"canary": 1, "stable": 1}, [1, 2, 3])
    versions(2)
    write_serving_bundle(directory)
    assert state(directory) == ({"canary": 2, "stable": 1}, [1, 2, 3, 4])
    versions(3)
    write_serving_bundle(directory)
    assert state(directory) == ({"canary": 3, "stable": 1}, [1, 3, 4, 5])
    edit(directory, 'key: "stable"\n      value: 1', 'key: "stable"\n      value: 3')
    versions(4)
    write_serving_bundle(directory)
    assert state(directory) == ({"canary": 4, "stable": 3}, [3, 4, 5, 6])
    assert write_serving_bundle(directory) == directory / "serving"
    assert state(directory) == ({"canary": 4, "stable": 3}, [3, 4, 5, 6])


def test_a_release_of_one_skipped_number_is_served_too(versions):
    """Two exports that end at once: the second finds both on disk."""
    directory = versions(1)
    write_serving_bundle(directory)
    versions(2, 3)
    write_serving_bundle(directory)
    assert state(directory) == ({"canary": 3, "stable": 1}, [1, 3, 4, 5])


def test_what_users_add_stays(versions):
    directory = versions(1, 2, 3)
    write_serving_bundle(directory)
    edit(
        directory, "    version_labels {", '    version_labels { key: "old" value: 2 }\n    version_labels {'
    )
    edit(
        directory,
        "    model_platform",
        "    logging_config { sampling_config { sampling_rate: 0.5 } }\n    model_platform",
    )
    edit(directory, "  config {", '  config { name: "other" base_path: "/models/other" }\n  config {')
    folder = directory / "serving"
    for name in ("batching.config", "monitoring.config", "docker-compose.yml"):
        (folder / name).write_text(f"# mine: {name}\n")
    versions(4)
    write_serving_bundle(directory)
    other, model = models_config(directory).model_config_list.config
    assert other.name == "other"
    assert model.logging_config.sampling_config.sampling_rate == 0.5
    assert dict(model.version_labels) == {"canary": 4, "old": 2, "stable": 3}
    assert list(model.model_version_policy.specific.versions) == [2, 3, 4, 5, 6]
    assert (folder / "batching.config").read_text() == "# mine: batching.config\n"
    assert (folder / "docker-compose.yml").read_text() == "# mine: docker-compose.yml\n"


@pytest.mark.parametrize("policy", ["all { }", "latest { num_versions: 2 }"])
def test_another_policy_of_the_user_stays(versions, policy):
    directory = versions(1)
    write_serving_bundle(directory)
    path = directory / "serving" / "models.config"
    path.write_text(re.sub(r"specific \{[^}]*\}", policy, path.read_text()))
    versions(2)
    write_serving_bundle(directory)
    (model,) = models_config(directory).model_config_list.config
    assert model.model_version_policy.WhichOneof("policy_choice") == policy.split()[0]
    assert dict(model.version_labels) == {"canary": 2, "stable": 1}


def test_labels_of_versions_that_are_gone_are_taken_away(versions, caplog):
    directory = versions(1, 2)
    write_serving_bundle(directory)
    edit(directory, 'key: "stable"\n      value: 2', 'key: "stable"\n      value: 1')
    shutil.rmtree(directory / "1")
    write_serving_bundle(directory)
    assert state(directory) == ({"canary": 2, "stable": 2}, [2, 3, 4])
    assert "the label stable of version 1 is gone with it" in caplog.text


def test_versions_without_a_saved_model_are_not_served(versions):
    directory = versions(1, saved_model=False)
    assert write_serving_bundle(directory) is None
    assert not (directory / "serving").exists()
    versions(2)
    versions(3, saved_model=False)
    write_serving_bundle(directory)
    assert state(directory) == ({"canary": 2, "stable": 2}, [2, 4, 5])


def test_what_a_killed_export_left_half_written_is_removed(versions):
    directory = versions(1)
    names = {path.name for path in write_serving_bundle(directory).iterdir()}
    for name in names:
        left = directory / "serving" / f".{name}-0123abcd"
        left.write_text("model_config_list {")
        os.utime(left, (0, 0))
    versions(2)
    assert {path.name for path in write_serving_bundle(directory).iterdir()} == names


def test_a_file_that_cannot_be_read_is_left_and_named(versions):
    directory = versions(1)
    (directory / "serving").mkdir()
    path = directory / "serving" / "models.config"
    path.write_text("model_config_list { confg { } }")
    with pytest.raises(ReleaseError, match=r"models\.config cannot be read .*confg.*mend it, or delete it"):
        write_serving_bundle(directory)
    assert path.read_text() == "model_config_list { confg { } }"


def test_a_container_of_another_tensorflow_is_warned_of(versions, caplog):
    directory = versions(1)
    write_serving_bundle(directory)
    assert "measured with the TensorFlow of" not in caplog.text
    path = directory / "serving" / "docker-compose.yml"
    path.write_text(re.sub(r"serving:2[\d.]+", "serving:2.12.0", path.read_text()))
    write_serving_bundle(directory)
    assert "runs tensorflow/serving:2.12.0, but the newest version was measured with" in caplog.text


def test_many_writers_at_once_leave_the_newest_version_as_canary_and_never_half_a_file(versions):
    directory = versions(1)
    write_serving_bundle(directory)
    done = threading.Event()
    seen = []

    def read():
        while not done.is_set():
            seen.append(state(directory)[0]["canary"])

    def write(number):
        versions(number)
        write_serving_bundle(directory)

    with ThreadPoolExecutor(7) as pool:
        reader = pool.submit(read)
        for future in [pool.submit(write, number) for number in range(2, 14)]:
            future.result()
        done.set()
        reader.result()
    assert state(directory) == ({"canary": 13, "stable": 1}, [1, 13, 14, 15])
    assert seen == sorted(seen)
    assert {path.name for path in (directory / "serving").iterdir()} == {
        "models.config",
        "batching.config",
        "monitoring.config",
        "docker-compose.yml",
    }


def test_examples_for_clusters_tell_the_server_what_the_container_tells_it():
    arguments = server_arguments("/models/bbc-news/serving", joins=True)
    deployment, service = yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text())
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    assert container["args"] == arguments
    assert container["image"] == image_of(tf.__version__)
    assert {port["targetPort"] for port in service["spec"]["ports"]} == {
        port["name"] for port in container["ports"]
    }
    kserve = yaml.safe_load((DEPLOY / "kserve.yaml").read_text())["spec"]["predictor"]["model"]
    assert f"tensorflow/serving:{kserve['runtimeVersion']}" == image_of(tf.__version__)
    short = {each.replace("/models/bbc-news/", "/mnt/models/") for each in arguments}
    assert set(kserve["args"]) <= short


def texts_in(node):
    """The texts of a YAML document, other than keys."""
    if isinstance(node, dict | list):
        for child in node.values() if isinstance(node, dict) else node:
            yield from texts_in(child)
    elif isinstance(node, str):
        yield node


@pytest.mark.parametrize("name", ["kubernetes.yaml", "kserve.yaml"])
def test_examples_for_clusters_name_the_release_in_names_and_in_paths_alone(name):
    """As their first lines say: names take no _, where paths keep it."""
    documents = list(yaml.safe_load_all((DEPLOY / name).read_text()))
    found = {text for text in texts_in(documents) if "bbc-news" in text}
    paths = {text for text in found if re.search(r"(/models|pvc://saved-models)/bbc-news(/|$)", text)}
    assert found - paths == {"bbc-news"}
    assert paths
    assert all(document["metadata"]["name"] == "bbc-news" for document in documents)


def test_drawn_warm_up_records_are_as_long_as_held_out_texts_and_hold_none_of_them(
    release, decided_classifier, test_split
):
    values = records(release.path)
    assert {feature for feature, _ in values} == {"text"}
    texts = [value.decode() for _, value in values]
    assert not set(texts) & set(test_split.texts)
    encode = decided_classifier.preprocessor.encode
    by_length = sorted(test_split.texts, key=len)
    assert encode(texts).full_lengths[[0, -1]].tolist() == (
        encode([by_length[0], by_length[-1]]).full_lengths.tolist()
    )
    assert len(texts) == 32
    serve = tf.saved_model.load(str(release.path)).signatures["serving_default"]
    for text in texts:
        assert serve(text=tf.constant([text]))["label"].shape == (1,)
    assert WARMUP_FILE in release.manifest["files"]
    assert "holds copies of" not in (release.path / "model_card.md").read_text()


def test_damaged_warm_up_records_are_found(release, tmp_path):
    copy = tmp_path / "tiny" / "1"
    shutil.copytree(release.path, copy)
    with (copy / WARMUP_FILE).open("ab") as file:
        file.write(b"more")
    assert [reason for reason in verify(copy).reasons if WARMUP_FILE in reason]


def test_held_out_rows_are_copied_only_when_they_are_asked_for(decided_classifier, test_split, tmp_path):
    arguments = (decided_classifier.preprocessor, test_split.features, tmp_path)
    assert write_warmup(*arguments, name="tiny", kind="none") == 0
    assert list(tmp_path.iterdir()) == []
    assert write_warmup(*arguments, name="tiny", kind="held_out") == 32
    assert {value.decode() for _, value in records(tmp_path)} <= set(test_split.texts)
    with pytest.raises(ConfigError, match="warmup = 'heldout'; did you mean 'held_out'"):
        write_warmup(*arguments, name="tiny", kind="heldout")


def test_a_configuration_that_cannot_be_written_costs_no_release(
    decided_classifier, test_split, tmp_path, caplog
):
    (tmp_path / "tiny").mkdir()
    (tmp_path / "tiny" / "serving").write_text("in the way")
    options = {"check_with": test_split, "variants": ["saved_model"]}
    done = export(decided_classifier, tmp_path / "tiny", warmup="held_out", **options)
    assert done.version == 1
    assert WARMUP_FILE in done.manifest["files"]
    assert "the release holds copies of 32 rows of test" in caplog.text
    assert "**This release holds copies of 32 rows of the data**" in (done.path / "model_card.md").read_text()
    assert "The release is whole" in caplog.text


def test_drawn_images_have_the_formats_and_sizes_of_held_out_ones(tmp_path):
    decoder = ImageDecoder((24, 32))
    held_out = make_golden_images((24, 32), count=16)
    assert write_warmup(decoder, held_out, tmp_path, name="tiny", kind="drawn") == 16
    drawn = records(tmp_path)
    assert {feature for feature, _ in drawn} == {"image_bytes"}
    headers = [
        [decoder.header(tf.constant(image)) for image in images]
        for images in ([image for _, image in drawn], held_out)
    ]
    of_drawn, of_held_out = (
        {(int(each.format), int(each.height), int(each.width)) for each in some} for some in headers
    )
    assert of_drawn <= of_held_out
    assert {kind for kind, _, _ in of_drawn} == {1, 2, 3, 4}
    assert not {image for _, image in drawn} & set(held_out)
    assert decoder.rows(tf.constant([image for _, image in drawn]))[0]["pixels"].shape == (16, 24, 32, 3)


def test_arguments_need_no_quotes(release):
    compose = yaml.safe_load((release.path.parent / "serving" / "docker-compose.yml").read_text())
    command = compose["services"]["tiny"]["command"]
    assert shlex.split(" ".join(command)) == command
