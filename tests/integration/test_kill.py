"""Kill -9 at random moments of export and release: a version is whole and verified, or it is not there."""

import json
import os
import random
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from google.protobuf import text_format

from tfapp.release.integrity import find_damage
from tfapp.release.manifest import manifest_checksum, read_manifest
from tfapp.release.verifying import verify
from tfapp.wire.configs import ModelServerConfig

SERVER = Path(__file__).with_name("killed_exports.py")
KILLED = -9
SEED = int(os.environ.get("TFAPP_KILL_SEED", "3"))
SPANS = ((1, 22), (23, 52), (53, 64))
# What an export has left, the latest first: a file or folder of its hidden folder, and what was going on.
STAGES = (
    ("release/manifest.json", "publishing: manifest written"),
    ("release/report.html", "publishing: report written"),
    ("release/model_card.md", "model card written"),
    ("release/edge/golden.json", "golden vectors written"),
    ("scratch/float32/result.json", "artifact has answered"),
    ("scratch/float32", "artifact is asked"),
    ("release/edge/vocab.txt", "artifact written"),
    ("release/edge/model-float32.tflite", "writing the artifact"),
    ("release/edge", "converting the model"),
    ("scratch/inputs", "handing rows over"),
    ("scratch/tensors", "preparing rows"),
    ("", "staging"),
)


class Exports:
    """The process that forks exports, and the folder that they export to."""

    def __init__(self, folder, vocabulary):
        (folder / "vocabulary.json").write_text(json.dumps(vocabulary))
        self.directory = folder / "tiny"
        self.errors = (folder / "stderr.txt").open("w+")
        self.process = subprocess.Popen(
            [sys.executable, str(SERVER), str(self.directory), str(folder / "vocabulary.json")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "TF_CPP_MIN_LOG_LEVEL": "3"},
        )

    def ask(self, **moment):
        self.process.stdin.write(json.dumps(moment) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        assert answer, self.errors.seek(0) or self.errors.read()[-3000:]
        return json.loads(answer)

    def close(self):
        self.process.stdin.close()
        assert self.process.wait(60) == 0
        self.errors.close()

    def versions(self):
        return {int(path.name): path for path in self.directory.glob("*") if path.name.isdecimal()}

    def stage(self, published):
        hidden = list(self.directory.glob(".staging-*"))
        if published:
            return "published, cleaning up" if hidden else "published, done"
        if not hidden:
            return "before staging"
        assert len(hidden) == 1  # an export removes what the killed ones before it left
        return next(said for path, said in STAGES if (hidden[0] / path).exists())


@pytest.fixture
def exports(tmp_path, tiny_vocab):
    made = Exports(tmp_path, tiny_vocab)
    yield made
    if made.process.poll() is None:
        made.close()


def running(directory):
    """The processes whose command line names the directory."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes()
        except OSError:
            continue
        if os.fsencode(directory) in words and b"killed_exports" not in words:
            found.append(words)
    return found


def kill_many(exports, moments):
    """Kills an export at each of the moments; counts the stages, and looks at all versions after each."""
    stages, checksums = Counter(), {}
    for moment in moments:
        before = set(exports.versions())
        answer = exports.ask(**moment)
        # The moment may come too late, and the export has then ended well.
        assert answer["status"] in (KILLED, 0), answer
        for version, path in exports.versions().items():
            assert find_damage(path, manifest_sha256=checksums.get(version)) == []
            manifest = read_manifest(path)
            assert (manifest["version"], manifest["release"]["verdict"]) == (version, "released")
            checksums.setdefault(version, manifest_checksum(path))
        models = exports.directory / "serving" / "models.config"
        if models.exists():
            text_format.Parse(models.read_text(), ModelServerConfig())
        new = set(exports.versions()) - before
        assert len(new) <= 1
        stages["not killed" if answer["status"] == 0 else exports.stage(new)] += 1
    lines = "".join(f"  {count:4d}  {'#' * count}  {stage}\n" for stage, count in stages.most_common())
    sys.stdout.write(f"\nwhere {len(moments)} exports were killed:\n{lines}")
    return stages, checksums


def check_afterwards(exports, checksums):
    """Nothing of the killed exports is left after the next one, and what was published answers."""
    assert exports.ask()["status"] == 0
    versions = exports.versions()
    left = {path.name for path in exports.directory.iterdir()} - {"serving"}
    assert left == {str(number) for number in versions}
    first = min(versions)
    report = verify(versions[first], manifest_sha256=checksums.get(first))
    assert report.ok, report.reasons
    exports.close()
    deadline = time.monotonic() + 120
    while running(exports.directory) and time.monotonic() < deadline:
        time.sleep(0.5)
    assert running(exports.directory) == []


def test_an_export_that_is_killed_publishes_a_whole_version_or_none(exports, capsys):
    draw = random.Random(SEED)
    # An export has about 60 events; those before the artifact is written, and those of publishing.
    moments = [{"event": draw.randint(first, last)} for first, last in SPANS]
    with capsys.disabled():
        stages, checksums = kill_many(exports, moments)
    assert len(stages) >= 2
    check_afterwards(exports, checksums)


@pytest.mark.slow
def test_exports_that_are_killed_200_times_publish_whole_versions_or_none(exports, capsys):
    whole, draw = exports.ask(), random.Random(SEED)
    assert whole["status"] == 0
    shares = [(number + draw.random()) / 200 for number in range(200)]
    moments = [
        {"seconds": share * whole["seconds"]} if number % 2 else {"event": 1 + int(share * whole["events"])}
        for number, share in enumerate(shares)
    ]
    draw.shuffle(moments)
    with capsys.disabled():
        stages, checksums = kill_many(exports, moments)
    assert len(stages) >= 10
    # Just before the version gets its name, and just after.
    assert stages["publishing: manifest written"] >= 3
    assert stages["published, cleaning up"] >= 1
    check_afterwards(exports, checksums)


@pytest.mark.slow
def test_exports_for_servers_that_are_killed_publish_whole_versions_or_none(exports, capsys):
    variants = ["saved_model", "float32"]
    whole, draw = exports.ask(variants=variants), random.Random(SEED)
    assert whole["status"] == 0
    events = [1 + int((number + draw.random()) / 20 * whole["events"]) for number in range(20)]
    with capsys.disabled():
        stages, checksums = kill_many(exports, [{"event": event, "variants": variants} for event in events])
    assert len(stages) >= 5
    check_afterwards(exports, checksums)
