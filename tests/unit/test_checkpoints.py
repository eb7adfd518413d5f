"""Checkpoints: all of a run comes back, and what is no checkpoint of this run is no checkpoint."""

import zipfile
from unittest.mock import Mock

import keras
import numpy as np
import pytest

from tfapp.errors import OutputError
from tfapp.training.checkpoints import (
    Checkpoint,
    CheckpointWriter,
    Progress,
    assign_values,
    read_values,
)


def make_checkpoint(key="key"):
    progress = Progress(
        key,
        phase=1,
        epochs_done=2,
        history=[{"phase": 1, "train": "head", "loss": 0.5, "val_loss": None}],
        best_value=0.75,
        stale_epochs=1,
        stopped=True,
    )
    generator = np.random.default_rng(0)
    variables = [generator.normal(size=(3, 2)).astype(np.float32), np.array([1, 2**32 - 1], np.uint32)]
    # Eleven arrays, so that an order by name would put number 10 before number 2.
    optimizer = [np.array(number, np.int64) for number in range(11)]
    return Checkpoint(progress, variables, optimizer, [np.ones((2, 2), np.float32)])


def test_everything_comes_back(tmp_path):
    checkpoint = make_checkpoint()
    checkpoint.metrics = [np.array([3.5, 4.0], np.float32)]
    checkpoint.save(tmp_path / "new" / "folder")
    loaded = Checkpoint.load(tmp_path / "new" / "folder", "key")
    assert loaded.progress == checkpoint.progress
    for name in ("variables", "optimizer", "metrics", "best"):
        saved, restored = getattr(checkpoint, name), getattr(loaded, name)
        assert [value.dtype for value in restored] == [value.dtype for value in saved]
        for before, after in zip(saved, restored, strict=True):
            np.testing.assert_array_equal(before, after)


def test_nothing_kept_is_nothing_restored(tmp_path):
    checkpoint = make_checkpoint()
    checkpoint.best = []
    checkpoint.save(tmp_path)
    assert Checkpoint.load(tmp_path, "key").best == []


def test_a_later_checkpoint_replaces_the_one_before(tmp_path):
    make_checkpoint().save(tmp_path)
    later = make_checkpoint()
    later.progress.epochs_done = 3
    later.save(tmp_path)
    later.progress.epochs_done = 4
    later.save(tmp_path)
    assert Checkpoint.load(tmp_path, "key").progress.epochs_done == 4
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("links", [True, False])
@pytest.mark.parametrize("damage", ["truncated", "gone"])
def test_the_one_before_a_damaged_checkpoint_is_taken(tmp_path, caplog, monkeypatch, links, damage):
    if not links:
        monkeypatch.setattr("os.link", Mock(side_effect=OSError))
    for epochs in (2, 3, 4):
        checkpoint = make_checkpoint()
        checkpoint.progress.epochs_done = epochs
        checkpoint.save(tmp_path)
    newest = tmp_path / "checkpoint.npz"
    if damage == "gone":
        newest.unlink()
    else:
        newest.write_bytes(newest.read_bytes()[:-100])
    assert Checkpoint.load(tmp_path, "key").progress.epochs_done == 3
    assert "going on from the one before" in caplog.text
    assert Checkpoint.load(tmp_path, "other") is None


def test_a_checkpoint_is_of_the_moment_that_it_was_asked_for(tmp_path):
    variable, writer = keras.Variable(np.zeros(3, np.float32)), CheckpointWriter(tmp_path)
    progress = Progress("key", epochs_done=1, history=[{"loss": 0.5}])
    writer.save(progress, variables=[variable], optimizer=[], metrics=[variable], best=[])
    variable.assign([1.0, 2.0, 3.0])
    progress.history.append({"loss": 0.4})
    writer.wait()
    writer.close()
    assert writer.seconds > 0.0
    found = Checkpoint.load(tmp_path, "key")
    assert found.progress.history == [{"loss": 0.5}]
    assert found.variables[0].tolist() == found.metrics[0].tolist() == [0.0, 0.0, 0.0]


def test_a_checkpoint_that_cannot_be_written_is_told_by_the_next_one(tmp_path):
    (tmp_path / "file").write_text("", encoding="utf-8")
    writer = CheckpointWriter(tmp_path / "file" / "checkpoints")
    nothing = {"variables": [], "optimizer": [], "metrics": [], "best": []}
    writer.save(Progress("key"), **nothing)
    with pytest.raises(OutputError, match=r"cannot write a checkpoint to .*the one before is kept"):
        writer.save(Progress("key"), **nothing)
    writer.close()


def test_without_a_file_there_is_none(tmp_path):
    assert Checkpoint.load(tmp_path, "key") is None
    assert Checkpoint.load(tmp_path / "missing", "key") is None


def test_the_checkpoint_of_another_run_is_none(tmp_path):
    make_checkpoint("other").save(tmp_path)
    assert Checkpoint.load(tmp_path, "key") is None


@pytest.mark.parametrize("kept", [0.0, 0.1, 0.5, 0.9, 0.999])
def test_a_truncated_file_is_none(tmp_path, kept):
    make_checkpoint().save(tmp_path)
    (file,) = tmp_path.iterdir()
    content = file.read_bytes()
    file.write_bytes(content[: int(len(content) * kept)])
    assert Checkpoint.load(tmp_path, "key") is None


@pytest.mark.parametrize("content", [b"no archive", b"PK\x03\x04", b"\x80\x04]."])
def test_a_foreign_file_is_none(tmp_path, content):
    make_checkpoint().save(tmp_path)
    (file,) = tmp_path.iterdir()
    file.write_bytes(content)
    assert Checkpoint.load(tmp_path, "key") is None


def test_flipped_bytes_are_none(tmp_path):
    make_checkpoint().save(tmp_path)
    (file,) = tmp_path.iterdir()
    content = bytearray(file.read_bytes())
    place = content.index(make_checkpoint().variables[0].tobytes())
    content[place] ^= 0xFF
    file.write_bytes(bytes(content))
    assert Checkpoint.load(tmp_path, "key") is None


@pytest.mark.parametrize(("offset", "bit"), [(6, 0x40), (8, 0x01), (8, 0x40), (10, 0x04)])
def test_a_flipped_bit_in_the_directory_of_the_archive_is_none(tmp_path, offset, bit):
    """The version, two flags and the method of the first entry, which the archive's reader refuses."""
    make_checkpoint().save(tmp_path)
    (file,) = tmp_path.iterdir()
    content = bytearray(file.read_bytes())
    content[content.index(b"PK\x01\x02") + offset] ^= bit
    file.write_bytes(bytes(content))
    assert Checkpoint.load(tmp_path, "key") is None


def test_an_array_in_its_place_is_none(tmp_path):
    make_checkpoint().save(tmp_path)
    (file,) = tmp_path.iterdir()
    with file.open("wb") as stream:
        np.save(stream, np.zeros(3))
    assert Checkpoint.load(tmp_path, "key") is None


def test_a_folder_that_cannot_be_written_is_an_output_error(tmp_path):
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(OutputError, match="cannot write a checkpoint to"):
        make_checkpoint().save(tmp_path / "file" / "checkpoints")


def test_a_full_disk_keeps_the_checkpoint_before(tmp_path):
    resource = pytest.importorskip("resource")
    make_checkpoint().save(tmp_path)
    large = make_checkpoint()
    large.variables = [np.zeros(1_000_000, np.float32)]
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, hard))
    try:
        with pytest.raises(OutputError, match="cannot write a checkpoint to"):
            large.save(tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert len(list(tmp_path.iterdir())) == 1
    assert len(Checkpoint.load(tmp_path, "key").variables) == 2


def test_values_are_copies():
    variable = keras.Variable(np.zeros(3, np.float32))
    values = read_values([variable])
    variable.assign([1.0, 2.0, 3.0])
    assert values[0].tolist() == [0.0, 0.0, 0.0]
    assign_values([variable], values)
    assert variable.numpy().tolist() == [0.0, 0.0, 0.0]


def test_an_interruption_while_an_archive_is_written_stays_one(tmp_path):
    """Closing the half-written archive fails too, and must not hide what happened."""

    def interrupted(file, **arrays):
        with zipfile.ZipFile(file, "w") as archive:
            archive.open("entry", "w", force_zip64=True)
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(np, "savez", interrupted)
        with pytest.raises(KeyboardInterrupt):
            Checkpoint(Progress("key"), [], [], []).save(tmp_path)
