import copy
import json
from importlib.resources import files

import jsonschema
import numpy as np
import pytest

from tfapp.errors import ReleaseError
from tfapp.release.manifest import (
    check_files,
    find_damage,
    hash_files,
    json_schema,
    listing,
    plain,
    read_manifest,
    version_folder,
    write_manifest,
)

SCHEMA = json.loads(files("tfapp.release").joinpath("manifest.schema.json").read_text())
BUDGET = {
    "min_agreement": 0.99,
    "max_accuracy_drop": 0.01,
    "max_abs_difference": None,
    "max_exact_difference": 0.01,
    "max_scale_error": 0.1,
    "max_golden_difference": 0.5,
}


@pytest.fixture
def content():
    return {
        "schema_version": 1,
        "name": "reviews",
        "version": 3,
        "tfapp_version": "0.1.0",
        "libraries": {"tensorflow": "2.21.0"},
        "seed": 7,
        "config": {"train": {"batch_size": 32}},
        "data": {"test": {"rows": 430, "sha256": "0" * 64}},
        "metrics": {"accuracy": {"value": 0.98, "low": 0.97, "high": 0.99}},
        "release": {"verdict": "released", "reasons": [], "budget": BUDGET},
        "files": {"edge/model-float32.tflite": "a" * 64},
        "artifacts": [
            {
                "variant": "float32",
                "path": "edge/model-float32.tflite",
                "bytes": 123,
                "examples": 430,
                "agreement": 1.0,
                "max_abs_difference": 1e-6,
                "accuracy": 0.98,
                "accuracy_drop": 0.0,
                "scale": 1.0,
                "scale_rows": 430,
                "robust_accuracy": None,
                "latency_ms": {"p50": 1.5, "p95": 2.0, "threads": 1, "batch": 1},
                "verdict": "released",
                "reasons": [],
            }
        ],
    }


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
    (("artifacts",), []),
    (("artifacts", 0, "variant"), "int4"),
    (("artifacts", 0, "agreement"), 1.5),
    (("artifacts", 0, "scale_rows"), -1),
    (("artifacts", 0, "verdict"), "refused"),
    (("artifacts", 0, "latency_ms", "p50"), -1.0),
    (("artifacts", 0, "reasons"), ...),
]


def test_the_schema_file_is_the_schema_that_is_checked():
    assert json_schema() == SCHEMA
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


def test_a_manifest_reads_back_as_written(tmp_path, content):
    assert write_manifest(tmp_path, content) == content
    assert read_manifest(tmp_path) == content
    jsonschema.validate(content, SCHEMA)


def test_a_refused_manifest_may_lack_measures_and_version(tmp_path, content):
    content = changed(content, ("version",), None)
    for name in ("agreement", "max_abs_difference", "accuracy", "accuracy_drop", "scale", "latency_ms"):
        content = changed(content, ("artifacts", 0, name), None)
    refused = {"verdict": "refused", "reasons": ["float32: crashed"], "budget": BUDGET}
    content = changed(content, ("release",), refused)
    jsonschema.validate(write_manifest(tmp_path, content), SCHEMA)


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


def test_plain_holds_only_json_and_no_nan(tmp_path):
    values = {1: np.float32(0.5), "matrix": np.eye(2, dtype=int), "nan": float("nan"), "path": tmp_path}
    assert plain(values) == {"1": 0.5, "matrix": [[1, 0], [0, 1]], "nan": None, "path": str(tmp_path)}
    assert plain((True, None, float("inf"))) == [True, None, None]


@pytest.fixture
def release(tmp_path):
    (tmp_path / "edge").mkdir()
    (tmp_path / "saved_model.pb").write_bytes(b"graph")
    (tmp_path / "edge" / "labels.txt").write_bytes(b"cat\n")
    (tmp_path / "manifest.json").write_text("{}")
    return tmp_path


def test_checksums_are_those_of_sha256sum(release):
    assert hash_files(release) == {
        "edge/labels.txt": "175cc6f362b2f75acd08a373e000144fdb8d14a833d4b70fd743f16a7039103f",
        "saved_model.pb": "eef93e1d14482804277fca0172464032d1a4fdbcc338524059fa1e861454ad4d",
    }


def test_untouched_files_pass(release):
    assert check_files(release, hash_files(release), present=listing(release)) == []


def test_missing_unlisted_and_damaged_files_are_named(release):
    hashes = hash_files(release)
    (release / "edge" / "labels.txt").unlink()
    (release / "saved_model.pb").write_bytes(b"grapH")
    (release / "extra.bin").write_bytes(b"")
    reasons = check_files(release, hashes, present=listing(release))
    assert [reason.split(" is ")[0] for reason in reasons] == [
        "edge/labels.txt",
        "extra.bin",
        "saved_model.pb",
    ]
    for word, reason in zip(("missing", "not listed", "damaged"), reasons, strict=True):
        assert word in reason


def test_a_link_out_of_the_release_is_refused(release, tmp_path_factory):
    hashes = hash_files(release)
    outside = tmp_path_factory.mktemp("outside") / "labels.txt"
    outside.write_bytes(b"cat\n")
    (release / "edge" / "labels.txt").unlink()
    (release / "edge" / "labels.txt").symlink_to(outside)
    (reason,) = check_files(release, hashes, present=listing(release))
    assert "not a plain file" in reason


def test_damage_is_told_also_where_there_is_no_manifest(tmp_path, content):
    (tmp_path / "saved_model.pb").write_bytes(b"graph")
    assert "not a release" in find_damage(tmp_path)[0]
    write_manifest(tmp_path, {**content, "files": hash_files(tmp_path)})
    assert find_damage(tmp_path) == []
    (tmp_path / "saved_model.pb").write_bytes(b"grapH")
    assert find_damage(tmp_path) == ["saved_model.pb is damaged: its sha256 is not the manifest's"]


@pytest.mark.parametrize("name", ["reviews", "2024"])
def test_the_newest_version_is_found_below_any_name(tmp_path, name):
    directory = tmp_path / name
    for child in ("9", "10", "refused-20260101T000000Z"):
        (directory / child).mkdir(parents=True)
        (directory / child / "manifest.json").write_text("{}")
    (directory / "11").write_text("a file")
    assert version_folder(directory) == directory / "10"
    assert version_folder(str(directory / "9")) == directory / "9"


def test_what_holds_no_version_says_what_to_give(tmp_path):
    with pytest.raises(ReleaseError, match=r"no released version.*manifest\.json"):
        version_folder(tmp_path)
    with pytest.raises(ReleaseError, match="not a folder; give a release"):
        version_folder(tmp_path / "absent")
