import copy
import hashlib
import json
import os
from importlib.resources import files

import jsonschema
import numpy as np
import pytest
from manifests import BUDGET, make_artifact, make_manifest

from tfapp.errors import ConfigError, ReleaseError
from tfapp.release.manifest import manifest_checksum, plain, read_manifest, write_manifest
from tfapp.release.manifest_schema import json_schema
from tfapp.release.versions import version_folder

SCHEMA = json.loads(files("tfapp.release").joinpath("manifest.schema.json").read_text())


@pytest.fixture
def content():
    return make_manifest(
        version=3,
        libraries={"tensorflow": "2.21.0"},
        seed=7,
        config={"train": {"batch_size": 32}},
        data={"test": {"rows": 430, "sha256": "0" * 64}},
        metrics={"accuracy": {"value": 0.98, "low": 0.97, "high": 0.99}},
        files={"edge/model-float32.tflite": "a" * 64},
        artifacts=[
            make_artifact(
                "float32",
                path="edge/model-float32.tflite",
                latency_ms={"p50": 1.5, "p95": 2.0, "threads": 1, "batch": 1},
            )
        ],
    )


def changed(content, path, value):
    """A copy with one entry replaced, or removed when the value is ``...``."""
    result = copy.deepcopy(content)
    part = result
    for key in path[:-1]:
        part = part[key]
    if value is ...:
        del part[path[-1]]
    else:
        part[path[-1]] = value
    return result


BROKEN = [
    (("schema_version",), 2),
    (("schema_version",), ...),
    (("name",), "../evil"),
    (("name",), "Reviews"),
    (("version",), 0),
    (("version",), "3"),
    (("version",), None),
    (("unknown",), 1),
    (("release", "verdict"), "maybe"),
    (("release", "reasons"), ["float32: crashed"]),
    (("release", "budget", "min_agreement"), 1.5),
    (("release", "budget"), ...),
    (("data", "test", "sha256"), "zz"),
    (("files",), {}),
    (("files", "edge/model-float32.tflite"), "short"),
    (("files", "/etc/passwd"), "a" * 64),
    (("files", "../outside"), "a" * 64),
    (("files", "edge/../../outside"), "a" * 64),
    (("files", "edge//twice"), "a" * 64),
    (("files", "./here"), "a" * 64),
    (("files", "edge/"), "a" * 64),
    (("files", "edge\\labels.txt"), "a" * 64),
    (("files", "C:labels.txt"), "a" * 64),
    (("files", "two\nlines"), "a" * 64),
    (("files", "x" * 401), "a" * 64),
    (("artifacts", 0, "path"), "../outside.tflite"),
    (("artifacts", 0, "path"), "/outside.tflite"),
    (("artifacts",), []),
    (("artifacts", 0, "variant"), "int4"),
    (("artifacts", 0, "agreement"), 1.5),
    (("artifacts", 0, "scale_rows"), -1),
    (("artifacts", 0, "verdict"), "refused"),
    (("artifacts", 0, "latency_ms", "p50"), -1.0),
    (("artifacts", 0, "reasons"), ...),
    (("left_out",), [{"variant": "text", "reasons": []}]),
    (("left_out",), [{"variant": "saved_model", "reasons": ["saved_model: crashed"]}]),
]


def test_the_schema_file_is_the_schema_that_is_checked():
    assert json_schema() == SCHEMA
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


def test_a_manifest_reads_back_as_written(tmp_path, content):
    checksum = write_manifest(tmp_path, content)
    assert read_manifest(tmp_path, manifest_sha256=checksum) == content
    assert checksum == hashlib.sha256((tmp_path / "manifest.json").read_bytes()).hexdigest()
    jsonschema.validate(content, SCHEMA)


def test_a_variant_that_was_left_out_is_no_artifact(tmp_path, content):
    content["left_out"] = [{"variant": "dynamic", "reasons": ["dynamic: agrees on 98.85% (min_agreement)"]}]
    write_manifest(tmp_path, content)
    jsonschema.validate(read_manifest(tmp_path), SCHEMA)
    row = make_artifact("dynamic", path="edge/model-dynamic.tflite")
    files = {**content["files"], row["path"]: "b" * 64}
    both = {**content, "artifacts": [*content["artifacts"], row], "files": files}
    with pytest.raises(ReleaseError, match="left_out: 'dynamic' is one of the artifacts"):
        write_manifest(tmp_path, both)


def test_a_refused_manifest_may_lack_measures_and_version(tmp_path, content):
    content = changed(content, ("version",), None)
    for name in ("agreement", "max_abs_difference", "accuracy", "accuracy_drop", "scale", "latency_ms"):
        content = changed(content, ("artifacts", 0, name), None)
    refused = {"verdict": "refused", "reasons": ["float32: crashed"], "budget": BUDGET}
    content = changed(content, ("release",), refused)
    write_manifest(tmp_path, content)
    jsonschema.validate(read_manifest(tmp_path), SCHEMA)


@pytest.mark.parametrize(("path", "value"), BROKEN)
def test_broken_manifests_are_refused_by_the_schema_and_by_the_reader(tmp_path, content, path, value):
    broken = changed(content, path, value)
    (tmp_path / "manifest.json").write_text(json.dumps(broken))
    with pytest.raises(ReleaseError, match=f"{path[0]}|released"):
        read_manifest(tmp_path)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(broken, SCHEMA)
    with pytest.raises(ReleaseError):
        write_manifest(tmp_path, broken)


def test_a_folder_without_manifest_is_no_release(tmp_path):
    with pytest.raises(ReleaseError, match="not a release"):
        read_manifest(tmp_path)


def test_a_cut_manifest_is_named(tmp_path):
    (tmp_path / "manifest.json").write_text('{"schema_version": 1,')
    with pytest.raises(ReleaseError, match=r"manifest\.json cannot be read"):
        read_manifest(tmp_path)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ("EDGE/model-float32.tflite", "'EDGE/.*' and 'edge/.*' are one file on some systems"),
        ("Manifest.JSON", "one file on some systems"),
        ("edge/model-float32.tflite/inside", "cannot lie inside the file 'edge/model-float32.tflite'"),
        ("Edge/Model-float32.tflite/inside", "cannot lie inside the file"),
    ],
)
def test_files_that_cannot_lie_side_by_side_everywhere_are_refused(tmp_path, content, more, message):
    (tmp_path / "manifest.json").write_text(json.dumps(changed(content, ("files", more), "a" * 64)))
    with pytest.raises(ReleaseError, match=message):
        read_manifest(tmp_path)


def test_accents_written_in_two_ways_are_one_name(tmp_path, content):
    files = {**content["files"], "caf\u00e9": "a" * 64, "cafe\u0301": "a" * 64}
    (tmp_path / "manifest.json").write_text(json.dumps({**content, "files": files}))
    with pytest.raises(ReleaseError, match="one file on some systems"):
        read_manifest(tmp_path)


def test_a_released_artifact_is_one_of_the_files(tmp_path, content):
    for row in (make_artifact("int8", path="edge/model-int8.tflite"), make_artifact("saved_model", path=".")):
        with pytest.raises(ReleaseError, match=f"{row['path']}' is no file of the release"):
            write_manifest(tmp_path, {**content, "artifacts": [*content["artifacts"], row]})


@pytest.mark.parametrize("verdict", ["released", "refused"])
def test_an_artifact_stands_once_and_in_its_place(tmp_path, content, verdict):
    (row,) = content["artifacts"]
    content = changed(content, ("release", "verdict"), verdict)
    with pytest.raises(ReleaseError, match="'float32' stands twice"):
        write_manifest(tmp_path, {**content, "artifacts": [row, row]})
    moved = changed(content, ("artifacts", 0, "path"), "edge/model-int8.tflite")
    with pytest.raises(ReleaseError, match="'float32' lies in 'edge/model-int8"):
        write_manifest(tmp_path, {**moved, "files": {"edge/model-int8.tflite": "a" * 64}})


@pytest.mark.parametrize(
    "name",
    [
        "edge/model-int8.tflite",
        "edge/other.TFLITE",
        "saved_model.pb",
        "saved_model.pbtxt",
        "saved_model.cpb",
        "onnx/model.onnx",
        "a/b.keras",
    ],
)
def test_a_model_that_nobody_would_run_is_not_vouched_for(tmp_path, content, name):
    with pytest.raises(ReleaseError, match=f"'{name}' is a model that no artifact is"):
        write_manifest(tmp_path, changed(content, ("files", name), "a" * 64))


@pytest.mark.parametrize(
    "text",
    ['{"a": 1, "a": 2}', '{"schema_version": NaN}', "[" * 100_000, "\ufeff{}", '{"name": "\udc80"}'],
)
def test_what_readers_of_json_read_differently_is_no_manifest(tmp_path, text):
    (tmp_path / "manifest.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(ReleaseError, match=r"manifest\.json cannot be read"):
        read_manifest(tmp_path)


def test_a_manifest_is_taken_only_with_the_checksum_that_is_asked_for(tmp_path, content):
    write_manifest(tmp_path, content)
    checksum = manifest_checksum(tmp_path)
    assert checksum == hashlib.sha256((tmp_path / "manifest.json").read_bytes()).hexdigest()
    assert read_manifest(tmp_path, manifest_sha256=checksum) == content
    assert read_manifest(tmp_path, manifest_sha256=checksum.upper()) == content
    with (tmp_path / "manifest.json").open("a") as file:
        file.write(" ")
    assert read_manifest(tmp_path) == content
    with pytest.raises(ReleaseError, match="not the manifest that is meant"):
        read_manifest(tmp_path, manifest_sha256=checksum)


def test_of_another_manifest_nothing_is_read(tmp_path):
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(ReleaseError, match="not the manifest that is meant"):
        read_manifest(tmp_path, manifest_sha256="0" * 64)


@pytest.mark.parametrize("given", ["", "abc", "0" * 63, "g" * 64, "0" * 64 + "\n"])
def test_what_is_no_checksum_is_told(tmp_path, content, given):
    write_manifest(tmp_path, content)
    with pytest.raises(ConfigError, match="64 hexadecimal digits"):
        read_manifest(tmp_path, manifest_sha256=given)


def test_a_manifest_that_is_a_link_or_a_pipe_is_not_followed(tmp_path, content):
    (tmp_path / "real").mkdir()
    write_manifest(tmp_path / "real", content)
    (tmp_path / "manifest.json").symlink_to(tmp_path / "real" / "manifest.json")
    with pytest.raises(ReleaseError, match="cannot be read"):
        read_manifest(tmp_path)
    (tmp_path / "manifest.json").unlink()
    os.mkfifo(tmp_path / "manifest.json")
    with pytest.raises(ReleaseError, match="not a plain file"):
        read_manifest(tmp_path)


def test_plain_holds_only_json_and_no_nan(tmp_path):
    values = {1: np.float32(0.5), "matrix": np.eye(2, dtype=int), "nan": float("nan"), "path": tmp_path}
    assert plain(values) == {"1": 0.5, "matrix": [[1, 0], [0, 1]], "nan": None, "path": str(tmp_path)}
    assert plain((True, None, float("inf"))) == [True, None, None]


@pytest.mark.parametrize("name", ["reviews", "2024"])
def test_the_newest_version_is_found_below_any_name(tmp_path, name):
    directory = tmp_path / name
    for child in ("9", "10", "refused-20260101T000000Z"):
        (directory / child).mkdir(parents=True)
        (directory / child / "manifest.json").write_text("{}")
    (directory / "11").write_text("a file")
    (directory / "٣٣").mkdir()  # no server takes these digits for a version
    assert version_folder(directory) == directory / "10"
    assert version_folder(str(directory / "9")) == directory / "9"


def test_what_holds_no_version_says_what_to_give(tmp_path):
    with pytest.raises(ReleaseError, match=r"no released version.*manifest\.json"):
        version_folder(tmp_path)
    with pytest.raises(ReleaseError, match="not a folder; give a release"):
        version_folder(tmp_path / "absent")
