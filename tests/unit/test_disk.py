"""Locks of folders, and the one wording of what cannot be written."""

import errno
import os
from unittest.mock import Mock

import pytest

from tfapp.disk import held, locked, remove_unfinished, replace_file, try_lock, writing
from tfapp.errors import OutputError


def test_a_folder_is_locked_once_and_free_again(tmp_path):
    descriptor = try_lock(tmp_path)
    assert descriptor is not None
    assert try_lock(tmp_path) is None
    os.close(descriptor)
    with locked(tmp_path):
        assert try_lock(tmp_path) is None
    os.close(try_lock(tmp_path))


def test_readers_share_a_folder_and_keep_writers_out(tmp_path):
    with locked(tmp_path, shared=True), locked(tmp_path, shared=True):
        assert try_lock(tmp_path) is None


def test_only_what_nobody_writes_any_more_is_removed(tmp_path, monkeypatch):
    def killed(*_):
        (temporary,) = tmp_path.iterdir()
        temporaries.append(temporary.name)
        raise KeyboardInterrupt

    temporaries = []
    with monkeypatch.context() as patch:
        patch.setattr("pathlib.Path.replace", killed)
        patch.setattr("pathlib.Path.unlink", lambda *_, **__: None)
        with pytest.raises(KeyboardInterrupt):
            replace_file(tmp_path / "a[b].json", "{}")
    for name in (".a[b].json-user.txt", ".c.json-0123abcd", "a[b].json", ".a[b].json-old"):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (0, 0))
    before = {path.name for path in tmp_path.iterdir()}
    remove_unfinished(tmp_path, ["a[b].json"])
    assert {path.name for path in tmp_path.iterdir()} == before
    os.utime(tmp_path / temporaries[0], (0, 0))
    remove_unfinished(tmp_path, ["a[b].json"])
    assert {path.name for path in tmp_path.iterdir()} == before - set(temporaries)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            OSError(errno.ENOSPC, "No space left on device"),
            r"x: the disk is full, \d+ MB are free; buy one\.",
        ),
        (OSError(errno.EROFS, "Read-only", "/y"), r"^/y: cannot be written \(Read-only\); move\.$"),
        (OSError(errno.EROFS, "Read-only"), r"x: cannot be written \(Read-only\); move\.$"),
    ],
)
def test_errors_of_writing_tell_place_and_cure(tmp_path, error, message):
    with pytest.raises(OutputError, match=message), writing(tmp_path / "x", full="buy one", denied="move"):
        raise error


def test_a_held_folder_is_refused_with_who_holds_it(tmp_path):
    with (
        held(tmp_path / "new", cure="go"),
        pytest.raises(OutputError, match=rf"process {os.getpid()} on .*or go"),
    ):
        held(tmp_path / "new", cure="go").__enter__()
    with held(tmp_path / "new", cure="go"):
        pass


def test_a_file_system_without_locks_holds_no_one_up(tmp_path, monkeypatch):
    monkeypatch.setattr("fcntl.flock", Mock(side_effect=OSError(errno.ENOLCK, "no locks available")))
    with held(tmp_path, cure="go"):
        pass
