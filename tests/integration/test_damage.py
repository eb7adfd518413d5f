"""Damaged, exchanged and missing parts: refused at export, found by `verify`, never served."""

import json
import os
import re
import shutil
import zipfile
from pathlib import Path

import pytest
import tensorflow as tf

from tfapp import exporters
from tfapp.data.tokenizers import WordPieceTokenizer
from tfapp.errors import ReleaseError, ReleaseRefused
from tfapp.release import Budget, export, verify
from tfapp.release.golden_texts import make_golden_texts
from tfapp.release.integrity import hash_files, listing
from tfapp.release.layout import artifact_file
from tfapp.release.released_model import load_released_model
from tfapp.serving import load_release


def flip(path, start, count=200_000):
    """Inverts bytes of a file from a position on, given as a share of its size."""
    content = bytearray(path.read_bytes())
    first = int(start * len(content))
    for index in range(first, min(first + count, len(content))):
        content[index] ^= 0xFF
    path.write_bytes(content)


@pytest.fixture
def refuses(release, decided_classifier, test_split, tmp_path, monkeypatch):
    """Exports one variant with a fault put in after it is written, and returns the reasons against it."""

    def copy(model, directory, *, variant, **options):
        shutil.copytree(release.path / "edge", Path(directory) / "edge", dirs_exist_ok=True)
        for path in (Path(directory) / "edge").glob("*.tflite"):
            if path.name != f"model-{variant}.tflite":
                path.unlink()
        (Path(directory) / "edge" / "golden.json").unlink()

    def copy_saved_model(model, directory):
        for name in ("saved_model.pb", "fingerprint.pb"):
            shutil.copy(release.path / name, directory)
        shutil.copytree(release.path / "variables", Path(directory) / "variables")

    def copy_onnx(model, directory):
        shutil.copytree(release.path / "onnx", Path(directory) / "onnx")

    writers = {"tflite": copy, "saved_model": copy_saved_model, "onnx": copy_onnx}

    def refuses(variant, damage):
        family = variant if variant in writers else "tflite"

        def write(model, directory, **options):
            writers[family](model, directory, **options)
            damage(Path(directory))

        monkeypatch.setitem(exporters.EXPORTERS, family, write)
        with pytest.raises(ReleaseRefused) as refused:
            export(decided_classifier, tmp_path / "tiny", check_with=test_split, variants=[variant])
        (folder,) = (tmp_path / "tiny").iterdir()
        assert folder == refused.value.directory
        assert folder.name.startswith("refused-")
        assert json.loads((folder / "manifest.json").read_text())["release"]["verdict"] == "refused"
        assert refused.value.exit_code == 1
        return refused.value.reasons

    return refuses


def test_an_undamaged_copy_is_released(release, decided_classifier, test_split, tmp_path, monkeypatch):
    def copy(model, directory, **options):
        others = shutil.ignore_patterns("model-[!f]*", "model-float16*")
        shutil.copytree(release.path / "edge", Path(directory) / "edge", ignore=others)

    monkeypatch.setitem(exporters.EXPORTERS, "tflite", copy)
    done = export(decided_classifier, tmp_path / "tiny", check_with=test_split, variants=["float32"])
    assert done.version == 1


def test_flipped_bytes_in_the_weights_of_a_tflite_file(refuses):
    reasons = refuses("float32", lambda folder: flip(folder / "edge/model-float32.tflite", 0.3, 8000))
    assert reasons[0].startswith("float32: ")


def test_flipped_bytes_in_the_structure_of_a_tflite_file(refuses):
    reasons = refuses("dynamic", lambda folder: flip(folder / "edge/model-dynamic.tflite", 0.0, 64))
    assert "cannot be run" in reasons[0] or "process" in reasons[0]


def flip_onnx(folder):
    flip(folder / "onnx/model.onnx", 0.3, 8000)


def cut_onnx(folder):
    path = folder / "onnx/model.onnx"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def rename_onnx(folder):
    path = folder / "onnx/model.onnx"
    content = path.read_bytes()
    assert content.count(b"business\nsport\ntech\n") == 1
    path.write_bytes(content.replace(b"business\nsport\ntech\n", b"sport\nbusiness\ntech\n"))


@pytest.mark.parametrize(
    ("damage", "reason"),
    [(flip_onnx, ""), (cut_onnx, "cannot be run: InvalidProtobuf"), (rename_onnx, "names .* rows wrongly")],
)
def test_a_damaged_onnx_file(refuses, damage, reason):
    assert re.match(f"onnx: .*{reason}", refuses("onnx", damage)[0])


@pytest.mark.parametrize("variant", ["float16", pytest.param("text", marks=pytest.mark.slow)])
def test_a_cut_tflite_file(refuses, variant):
    def cut(folder):
        path = folder / "edge" / f"model-{variant}.tflite"
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])

    reasons = refuses(variant, cut)
    assert reasons[0].startswith(f"{variant}: ")


def test_flipped_bytes_in_the_variables_of_the_saved_model(refuses):
    reasons = refuses(
        "saved_model", lambda folder: flip(folder / "variables/variables.data-00000-of-00001", 0.3, 8000)
    )
    assert reasons[0].startswith("saved_model: ")


def test_swapped_labels_beside_a_tflite_file(refuses):
    def swap(folder):
        (folder / "edge" / "labels.txt").write_text("sport\nbusiness\ntech\n")

    (reason,) = refuses("float32", swap)
    assert "labels.txt" in reason
    assert "order" in reason


def exchange_inside(path, **contents):
    """Exchanges files inside a .tflite file, with checksums that fit."""
    content = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
        start = min(entry.header_offset for entry in archive.infolist())
    path.write_bytes(content[:start])
    with zipfile.ZipFile(path, "a") as archive:
        for name, data in files.items():
            archive.writestr(name, contents.get(name.partition(".")[0], data))


@pytest.mark.parametrize("variant", ["float32", pytest.param("text", marks=pytest.mark.slow)])
def test_swapped_labels_inside_a_tflite_file(refuses, variant):
    def swap(folder):
        exchange_inside(folder / "edge" / f"model-{variant}.tflite", labels=b"sport\nbusiness\ntech\n")

    (reason,) = refuses(variant, swap)
    assert reason == f"{variant}: labels.txt inside the file is another than edge/labels.txt"


def test_a_wrong_vocabulary_inside_a_tflite_file(refuses, tiny_vocab):
    def exchange(folder):
        pieces = "\n".join(reversed(tiny_vocab)) + "\n"
        exchange_inside(folder / "edge" / "model-dynamic.tflite", vocab=pieces.encode())

    (reason,) = refuses("dynamic", exchange)
    assert reason == "dynamic: vocab.txt inside the file is another than edge/vocab.txt"


def test_a_tflite_file_without_its_metadata(refuses):
    def strip(folder):
        path = folder / "edge" / "model-float16.tflite"
        path.write_bytes(path.read_bytes().replace(b"TFLITE_METADATA", b"TFLITE_NOTHING!"))

    (reason,) = refuses("float16", strip)
    assert "there is no metadata in it" in reason


def test_a_wrong_vocabulary_beside_a_tflite_file(refuses, tiny_vocab):
    def exchange(folder):
        pieces = list(tiny_vocab)
        pieces[10:60] = reversed(pieces[10:60])
        (folder / "edge" / "vocab.txt").write_text("\n".join(pieces) + "\n")

    (reason,) = refuses("float32", exchange)
    assert "vocab.txt gives other token ids" in reason


def test_a_vocabulary_that_differs_where_no_text_shows_it(refuses):
    def append(folder):
        with (folder / "edge" / "vocab.txt").open("a") as file:
            file.write("neverseen\n")

    (reason,) = refuses("float32", append)
    assert "not the vocabulary" in reason


class Twin:
    """A model that lies about its classes, its preprocessor or its temperature."""

    def __init__(self, model, **changes):
        self._model = model
        self.__dict__.update(changes)

    def __getattr__(self, name):
        return getattr(self._model, name)

    def __call__(self, *args, **kwargs):
        return self._model(*args, **kwargs)


def export_lies(monkeypatch, family, fault):
    """Lets an exporter write a twin of the model that has the changes which ``fault(model)`` gives."""
    real = exporters.EXPORTERS[family]
    monkeypatch.setitem(
        exporters.EXPORTERS,
        family,
        lambda model, directory, **options: real(Twin(model, **fault(model)), directory, **options),
    )


@pytest.mark.parametrize(
    ("fault", "word"),
    [
        (lambda model: {"classes": model.classes[::-1]}, "class list"),
        (lambda model: {"temperature": model.temperature * 2}, "max_exact_difference"),
        (
            lambda model: {
                "preprocessor": WordPieceTokenizer(
                    [*model.preprocessor.vocabulary[:5], *reversed(model.preprocessor.vocabulary[5:])],
                    max_length=model.preprocessor.max_length,
                )
            },
            "min_agreement",
        ),
    ],
    ids=["classes", "temperature", "vocabulary"],
)
def test_a_saved_model_made_with_the_wrong_parts(
    decided_classifier, test_split, tmp_path, monkeypatch, fault, word
):
    export_lies(monkeypatch, "saved_model", fault)
    with pytest.raises(ReleaseRefused) as refused:
        export(decided_classifier, tmp_path / "tiny", check_with=test_split, variants=["saved_model"])
    assert word in " ".join(refused.value.reasons)
    assert not [path for path in (tmp_path / "tiny").iterdir() if path.name.isdecimal()]


@pytest.mark.parametrize(
    "variant", ["dynamic", *(pytest.param(name, marks=pytest.mark.slow) for name in ("float16", "text"))]
)
@pytest.mark.parametrize("factor", [pytest.param(0.8, marks=pytest.mark.slow), 2.0])
def test_a_tflite_file_made_with_the_wrong_temperature(
    decided_classifier, test_split, tmp_path, monkeypatch, variant, factor
):
    export_lies(monkeypatch, "tflite", lambda model: {"temperature": model.temperature * factor})
    with pytest.raises(ReleaseRefused) as refused:
        export(decided_classifier, tmp_path / "tiny", check_with=test_split, variants=[variant])
    assert f"its temperature is {factor:.1f}" in " ".join(refused.value.reasons)


class OtherTexts(WordPieceTokenizer):
    """A tokenizer that takes the empty text for another."""

    def rows(self, texts):
        return super().rows(tf.where(texts == "", "good film", texts))


class OtherDraw(WordPieceTokenizer):
    """A tokenizer that takes one text of the last draw for the empty one."""

    def rows(self, texts):
        drawn = make_golden_texts(self.vocabulary, max_length=self.max_length, seed=2)[9]
        return super().rows(tf.where(texts == drawn, "", texts))


@pytest.mark.parametrize(
    ("kind", "max_length", "word"),
    [
        (OtherTexts, 24, "the empty text"),
        pytest.param(OtherDraw, 24, "1 of 150 golden vectors", marks=pytest.mark.slow),
        pytest.param(WordPieceTokenizer, 40, "the text beyond max_length", marks=pytest.mark.slow),
    ],
)
def test_a_saved_model_that_is_wrong_only_on_one_kind_of_text(
    decided_classifier, test_split, tmp_path, monkeypatch, kind, max_length, word
):
    real = exporters.EXPORTERS["saved_model"]

    def write(model, directory):
        tokenizer = kind(model.preprocessor.vocabulary, max_length=max_length)
        return real(Twin(model, preprocessor=tokenizer), directory)

    monkeypatch.setitem(exporters.EXPORTERS, "saved_model", write)
    with pytest.raises(ReleaseRefused) as refused:
        export(decided_classifier, tmp_path / "tiny", check_with=test_split, variants=["saved_model"])
    (reason,) = refused.value.reasons
    assert word in reason


@pytest.mark.slow
def test_what_its_own_budget_allowed_verifies_too(decided_classifier, test_split, tmp_path, monkeypatch):
    real = exporters.EXPORTERS["saved_model"]
    monkeypatch.setitem(
        exporters.EXPORTERS,
        "saved_model",
        lambda model, directory: real(Twin(model, temperature=model.temperature * 1.08), directory),
    )
    options = {"check_with": test_split, "variants": ["saved_model"]}
    with pytest.raises(ReleaseRefused, match="max_exact_difference"):
        export(decided_classifier, tmp_path / "tiny", **options)
    budget = Budget(max_exact_difference=0.05)
    release = export(decided_classifier, tmp_path / "tiny", budget=budget, **options)
    assert release.manifest["artifacts"][0]["max_abs_difference"] > 0.01
    assert release.manifest["release"]["budget"]["max_exact_difference"] == 0.05
    report = verify(release.path)
    assert report.ok, report.reasons


@pytest.fixture
def copied(release, tmp_path):
    """A copy of the release, to be damaged."""
    directory = tmp_path / "saved_models" / "tiny" / "1"
    shutil.copytree(release.path, directory)
    return directory


def rewrite(directory, **changes):
    """Changes the manifest, and makes its checksums those of the files that are there."""
    path = directory / "manifest.json"
    manifest = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({**manifest, "files": hash_files(directory)}))


def keep_only(directory, variant):
    """Removes all artifacts but one, and returns its row."""
    rows = json.loads((directory / "manifest.json").read_text())["artifacts"]
    for name in (artifact_file(row["variant"]) for row in rows if row["variant"] != variant):
        (directory / name).unlink(missing_ok=True)
        if name.startswith(("keras", "onnx")):
            (directory / name).parent.rmdir()
    return [row for row in rows if row["variant"] == variant]


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (
            lambda folder: flip(folder / "edge/model-float32.tflite", 0.5, 1),
            "model-float32.tflite is damaged",
        ),
        (lambda folder: flip(folder / "variables/variables.data-00000-of-00001", 0.9, 1), "is damaged"),
        (lambda folder: (folder / "edge/labels.txt").unlink(), "edge/labels.txt is missing"),
        (lambda folder: (folder / "assets").mkdir(exist_ok=True), None),
        (lambda folder: (folder / "edge/more.bin").write_bytes(b""), "edge/more.bin is not listed"),
        (lambda folder: (folder / "edge/more").mkdir(), "edge/more/ is a folder that no listed file is in"),
    ],
)
def test_verify_compares_every_file(copied, monkeypatch, damage, reason):
    from tfapp.release import verifying

    monkeypatch.setattr(verifying, "_check_answers", lambda *arguments: None)
    damage(copied)
    report = verify(copied)
    assert report.ok == (reason is None)
    assert (reason or "") in " ".join(report.reasons)


@pytest.mark.parametrize("variant", ["float32", "dynamic"])
def test_verify_finds_other_answers_behind_fitting_checksums(copied, variant):
    flip(copied / "edge" / f"model-{variant}.tflite", 0.3, 8000)
    rewrite(copied, artifacts=keep_only(copied, variant))
    report = verify(copied)
    assert not report.ok
    assert report.reasons[0].startswith(f"{variant}: ")


def test_verify_finds_a_file_that_was_changed_after_it_was_hashed(copied, monkeypatch):
    from tfapp.release import verifying

    def change(directory, manifest, golden, report):
        (directory / "edge" / "model-float32.tflite").write_bytes(b"another")

    monkeypatch.setattr(verifying, "_check_answers", change)
    report = verify(copied)
    assert not report.ok
    assert report.rows[-1]["part"] == "files, after the answers"
    assert "model-float32.tflite is damaged" in report.rows[-1]["details"]


def test_verify_finds_exchanged_files_behind_fitting_checksums(copied):
    (copied / "edge" / "labels.txt").write_text("tech\nsport\nbusiness\n")
    pieces = (copied / "edge" / "vocab.txt").read_text().splitlines()
    (copied / "edge" / "vocab.txt").write_text("\n".join([*pieces[:5], *pieces[:4:-1]]) + "\n")
    rewrite(copied, artifacts=keep_only(copied, "float32"))
    report = verify(copied)
    assert [row["part"] for row in report.rows if row["verdict"] == "refused"] == [
        "labels.txt",
        "vocab.txt",
        "metadata",
    ]


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: exchange_inside(path, labels=b"tech\nsport\nbusiness\n"),
        lambda path: path.write_bytes(path.read_bytes().replace(b"\nsport\ntech\n", b"\ntech\nsport\n")),
        lambda path: path.write_bytes(path.read_bytes()[:-5]),
    ],
)
def test_verify_finds_other_labels_inside_a_file_behind_fitting_checksums(copied, damage):
    damage(copied / "edge" / "model-dynamic.tflite")
    rewrite(copied, artifacts=keep_only(copied, "dynamic"))
    report = verify(copied)
    assert [row["part"] for row in report.rows if row["verdict"] == "refused"] == ["metadata"]


@pytest.mark.parametrize("path", ["../../../outside.tflite", "edge/../../../../outside.tflite", "/outside"])
def test_verify_runs_nothing_outside_the_release(copied, tmp_path, path):
    (row,) = keep_only(copied, "float32")
    shutil.copy(copied / row["path"], tmp_path / "outside.tflite")
    rewrite(copied, artifacts=[{**row, "path": path}])
    with pytest.raises(ReleaseError, match=r"artifacts\.0\.path"):
        verify(copied)


def test_verify_needs_golden_vectors(copied):
    (copied / "edge" / "golden.json").write_text("{}")
    rewrite(copied, artifacts=keep_only(copied, "float32"))
    assert "golden.json cannot be read" in verify(copied).reasons[0]


def test_verify_of_something_else_says_so(tmp_path):
    with pytest.raises(ReleaseError, match="not a release"):
        verify(tmp_path)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda folder: flip(folder / "variables/variables.data-00000-of-00001", 0.5, 1), "damaged"),
        (lambda folder: flip(folder / "saved_model.pb", 0.5, 1), "saved_model.pb is damaged"),
        (lambda folder: (folder / "variables/variables.index").unlink(), "variables.index is missing"),
        (lambda folder: (folder / "assets/evil").write_bytes(b""), "assets/evil is not listed"),
        (lambda folder: (folder / "manifest.json").unlink(), "not a release"),
    ],
)
def test_a_damaged_release_is_not_served(copied, damage, reason):
    (copied / "assets").mkdir(exist_ok=True)
    damage(copied)
    with pytest.raises(ReleaseError, match=reason):
        load_release(copied)


def test_a_release_without_saved_model_is_not_served(copied):
    rewrite(copied, artifacts=keep_only(copied, "float32"))
    with pytest.raises(ReleaseError, match="no SavedModel"):
        load_release(copied)


def flipped(folder, path):
    flip(path, 0.5, 1)


def cut(folder, path):
    path.write_bytes(path.read_bytes()[:-1])


def swapped(folder, path):
    other = folder / ("edge/golden.json" if path.name != "golden.json" else "model_card.md")
    path.write_bytes(other.read_bytes())


def removed(folder, path):
    path.unlink()


def linked(folder, path):
    outside = folder.parent / "outside"
    shutil.copy(path, outside)
    path.unlink()
    path.symlink_to(outside)


@pytest.mark.parametrize("damage", [flipped, cut, swapped, removed, linked])
def test_every_kind_of_file_that_is_not_as_released_is_refused_everywhere(copied, damage):
    files = listing(copied)
    kinds = {"saved_model.pb", "variables/variables.index", "keras/model.keras", "model_card.md"}
    assert {*kinds, *(f"edge/{name}" for name in ("labels.txt", "vocab.txt", "golden.json"))} <= set(files)
    for name in files:
        path, content = copied / name, (copied / name).read_bytes()
        damage(copied, path)
        for refuse in (load_release, load_released_model):
            with pytest.raises(ReleaseError, match=re.escape(name)):
                refuse(copied)
        report = verify(copied)
        assert [row["part"] for row in report.rows if row["verdict"] == "refused"] == ["files"]
        assert all(name in reason for reason in report.reasons)
        path.unlink(missing_ok=True)
        path.write_bytes(content)
    assert verify(copied, files_only=True).ok


def test_a_manifest_that_is_not_the_one_that_is_meant_is_refused_before_it_is_read(copied, release):
    meant = release.manifest_sha256
    assert load_release(copied, manifest_sha256=meant).classes == ("business", "sport", "tech")
    report = verify(copied, manifest_sha256=meant, files_only=True)
    assert report.ok
    assert report.proven
    assert report.rows[0]["verdict"] == "ok"
    assert report.summary == "verified, and the release that is meant; its answers were not looked at"
    # The whole release made anew, with checksums that fit.
    (copied / "edge" / "labels.txt").write_text("tech\nsport\nbusiness\n")
    rewrite(copied)
    assert verify(copied, files_only=True).summary.startswith("self-consistent, origin not proven")
    (copied / "manifest.json").write_text((copied / "manifest.json").read_text() + " {")
    with pytest.raises(ReleaseError, match="not the manifest that is meant"):
        load_release(copied, manifest_sha256=meant)
    report = verify(copied, manifest_sha256=meant)
    assert [row["part"] for row in report.rows] == ["origin"]
    assert "it is another release" in report.reasons[0]
    assert not report.proven
    with pytest.raises(ReleaseError, match="cannot be read"):
        verify(copied)


def test_a_folder_with_another_number_and_files_with_a_second_name_are_noted(copied, tmp_path):
    assert verify(copied, files_only=True).notes == []
    moved = copied.rename(copied.parent / "7")
    for path in moved.rglob("*.tflite"):
        os.link(path, tmp_path / path.name)
    linked, called = verify(moved, files_only=True).notes
    count = len(list(moved.rglob("*.tflite")))
    assert linked.startswith(f"{count} of the files have a second name")
    assert called == "The folder is called 7, but was released as version 1."


def test_files_only_runs_nothing(copied, monkeypatch):
    from tfapp.release import verifying

    monkeypatch.setattr(verifying, "_check_answers", lambda *arguments: pytest.fail("it was run"))
    report = verify(copied, files_only=True)
    assert [row["part"] for row in report.rows] == ["origin", "manifest", "files"]
    assert report.to_dict()["origin_proven"] is False


def test_the_newest_version_is_served(copied):
    shutil.copytree(copied, copied.parent / "10")
    shutil.copytree(copied, copied.parent / "9")
    (copied.parent / "refused-20260101T000000Z").mkdir()
    assert load_release(copied.parent).directory.name == "10"


def test_a_release_may_have_a_number_for_a_name(copied):
    directory = copied.parent.rename(copied.parents[1] / "2024")
    rewrite(directory / "1", name="2024")
    assert load_release(directory).directory == directory / "1"


def test_verify_takes_the_newest_version_as_predict_does(copied, monkeypatch):
    from tfapp.release import verifying

    monkeypatch.setattr(verifying, "_check_answers", lambda *arguments: None)
    shutil.copytree(copied, copied.parent / "10")
    (copied / "edge" / "labels.txt").unlink()
    assert verify(copied.parent).ok
    assert not verify(copied).ok
