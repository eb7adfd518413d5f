"""The files of a release's folder: listed, whole, plain, and nothing beside them."""

import os
import shutil
import socket
import stat
from pathlib import Path

import pytest
from manifests import make_artifact, make_manifest

from tfapp.errors import ReleaseError
from tfapp.release.integrity import (
    check_files,
    check_release,
    find_damage,
    hash_files,
    linked_files,
    listing,
    sha256,
)
from tfapp.release.manifest import manifest_checksum, write_manifest


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "edge").mkdir()
    (tmp_path / "saved_model.pb").write_bytes(b"graph")
    (tmp_path / "edge" / "labels.txt").write_bytes(b"cat\n")
    (tmp_path / "manifest.json").write_text("{}")
    return tmp_path


def manifest(files):
    return make_manifest(files=files, artifacts=[make_artifact("saved_model", path=".")])


def test_checksums_are_those_of_sha256sum(folder):
    assert hash_files(folder) == {
        "edge/labels.txt": "175cc6f362b2f75acd08a373e000144fdb8d14a833d4b70fd743f16a7039103f",
        "saved_model.pb": "eef93e1d14482804277fca0172464032d1a4fdbcc338524059fa1e861454ad4d",
    }
    assert sha256(folder / "saved_model.pb") == hash_files(folder)["saved_model.pb"]


def test_untouched_files_pass(folder):
    assert check_files(folder, hash_files(folder)) == []


def test_missing_unlisted_and_damaged_files_are_named(folder):
    hashes = hash_files(folder)
    (folder / "edge" / "labels.txt").unlink()
    (folder / "saved_model.pb").write_bytes(b"grapH")
    (folder / "extra.bin").write_bytes(b"")
    reasons = check_files(folder, hashes)
    assert [reason.split(" is ")[0] for reason in reasons] == [
        "edge/labels.txt",
        "extra.bin",
        "saved_model.pb",
    ]
    for word, reason in zip(("missing", "not listed", "damaged"), reasons, strict=True):
        assert word in reason


def test_the_name_of_one_file_hides_no_damage_of_another(folder):
    hashes = hash_files(folder)
    (folder / "edge" / "labels.txt").write_bytes(b"dog\n")
    (folder / "edge" / "labels.txt is right").write_bytes(b"")
    assert check_files(folder, hashes) == [
        "edge/labels.txt is right is not listed in the manifest",
        "edge/labels.txt is damaged: its sha256 is not the manifest's",
    ]


def test_a_cut_file_and_two_that_changed_places_are_damaged(folder):
    hashes = hash_files(folder)
    (folder / "saved_model.pb").write_bytes(b"grap")
    assert check_files(folder, hashes) == ["saved_model.pb is damaged: its sha256 is not the manifest's"]
    (folder / "saved_model.pb").write_bytes(b"cat\n")
    (folder / "edge" / "labels.txt").write_bytes(b"graph")
    assert len(check_files(folder, hashes)) == 2


def link_file(path, outside):
    shutil.copy(path, outside)
    path.unlink()
    path.symlink_to(outside)


def link_folder(path, outside):
    shutil.copytree(path.parent, outside)
    shutil.rmtree(path.parent)
    path.parent.symlink_to(outside)


def pipe(path, outside):
    path.unlink()
    os.mkfifo(path)


def listener(path, outside):
    path.unlink()
    here = Path.cwd()
    os.chdir(path.parent)  # the path of a socket may be no longer than 100 bytes
    try:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(path.name)
    finally:
        os.chdir(here)


def loop(path, outside):
    path.unlink()
    path.symlink_to(path)


@pytest.mark.parametrize("change", [link_file, link_folder, pipe, listener, loop])
def test_what_is_no_plain_file_is_refused_and_never_opened(folder, tmp_path_factory, change):
    hashes = hash_files(folder)
    change(folder / "edge" / "labels.txt", tmp_path_factory.mktemp("outside") / "labels.txt")
    reasons = check_files(folder, hashes)
    assert any("instead of a plain file" in reason for reason in reasons)
    with pytest.raises(ReleaseError, match="plain files in plain folders"):
        hash_files(folder)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a device")
def test_a_device_is_not_read(folder):
    hashes = hash_files(folder)
    (folder / "saved_model.pb").unlink()
    try:
        os.mknod(folder / "saved_model.pb", stat.S_IFCHR | 0o600, os.makedev(1, 5))  # /dev/zero has no end
    except PermissionError:
        pytest.skip("this system lets nobody make a device")
    assert check_files(folder, hashes) == [
        "saved_model.pb is a device instead of a plain file inside the release"
    ]


def test_a_link_beside_the_files_is_refused_too(folder):
    hashes = hash_files(folder)
    (folder / "more").symlink_to("/")
    assert [reason.split(" is ")[1][:6] for reason in check_files(folder, hashes)] == ["not li", "a link"]


def test_a_folder_without_listed_files_is_refused_but_for_the_empty_assets_of_a_saved_model(folder):
    hashes = hash_files(folder)
    (folder / "assets").mkdir()
    assert check_files(folder, hashes) == []
    (folder / "edge" / "more" / "still").mkdir(parents=True)
    assert check_files(folder, hashes) == [
        "edge/more/ is a folder that no listed file is in",
        "edge/more/still/ is a folder that no listed file is in",
    ]


def test_a_name_in_another_case_is_another_file(folder):
    hashes = hash_files(folder)
    (folder / "edge").rename(folder / "Edge")
    assert sorted(check_files(folder, hashes)) == [
        "Edge/ is a folder that no listed file is in",
        "Edge/labels.txt is not listed in the manifest",
        "edge/labels.txt is missing",
    ]


def test_a_name_that_is_no_text_is_told_without_breaking_the_report(folder):
    hashes = hash_files(folder)
    Path(os.fsdecode(os.fsencode(folder) + b"/\xff")).write_bytes(b"")
    first, second = check_files(folder, hashes)
    assert "not listed" in first
    assert "not written in UTF-8" in second
    assert (first + second).isprintable()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_cannot_be_read_may_hide_anything(folder):
    hashes = hash_files(folder)
    (folder / "edge").chmod(0)
    try:
        assert "cannot be read" in check_files(folder, hashes)[0]
    finally:
        (folder / "edge").chmod(0o755)


def test_second_names_of_files_are_found(folder, tmp_path_factory):
    assert linked_files(folder) == []
    os.link(folder / "edge" / "labels.txt", tmp_path_factory.mktemp("outside") / "labels.txt")
    assert linked_files(folder) == ["edge/labels.txt"]


def test_damage_is_told_also_where_there_is_no_manifest(folder):
    (folder / "manifest.json").unlink()
    assert "not a release" in find_damage(folder)[0]
    write_manifest(folder, manifest(hash_files(folder)))
    assert find_damage(folder) == []
    (folder / "saved_model.pb").write_bytes(b"grapH")
    assert find_damage(folder) == ["saved_model.pb is damaged: its sha256 is not the manifest's"]


def test_a_release_that_is_not_whole_or_not_the_one_that_is_meant_is_refused(folder):
    content = manifest(hash_files(folder))
    checksum = write_manifest(folder, content)
    assert checksum == manifest_checksum(folder)
    assert check_release(folder, manifest_sha256=checksum) == content
    assert find_damage(folder, manifest_sha256=checksum) == []
    (folder / "edge" / "labels.txt").write_bytes(b"dog\n")
    with pytest.raises(ReleaseError, match=r"labels\.txt is damaged"):
        check_release(folder)
    # Whoever changes a file can change the manifest with it; only its checksum tells.
    write_manifest(folder, manifest(hash_files(folder)))
    assert check_release(folder)
    with pytest.raises(ReleaseError, match="not the manifest that is meant"):
        check_release(folder, manifest_sha256=checksum)
    assert "not the manifest that is meant" in find_damage(folder, manifest_sha256=checksum)[0]


def test_listing_leaves_out_the_manifest_of_the_release_only(folder):
    (folder / "edge" / "manifest.json").write_text("{}")
    assert listing(folder) == ["edge/labels.txt", "edge/manifest.json", "saved_model.pb"]
