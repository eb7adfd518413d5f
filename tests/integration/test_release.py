import json
import shutil
import subprocess
import sys
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import jsonschema
import keras
import numpy as np
import pytest
import tensorflow as tf

from tfapp.data.text import TextSplit
from tfapp.data.tokenizers import WordPieceTokenizer
from tfapp.errors import ConfigError, DataError, OutputError, ReleaseError, ReleaseRefused
from tfapp.exporters._operators import operators
from tfapp.release import Budget, Release, export, exporting, verify
from tfapp.release.integrity import listing, sha256
from tfapp.serving import load_release
from tfapp.training.inference import predict_logits
from tfapp.wire.tensors import example

VARIANTS = WordPieceTokenizer.variants
SERVE = """
import json, sys
import tensorflow as tf, tensorflow_text
loaded = tf.saved_model.load(sys.argv[1])
answers = loaded.serve(tf.constant(["good film", ""]))
loaded = sorted(set(sys.modules) & {"tfapp", "keras_hub"})
print(json.dumps([loaded, answers["probabilities"].numpy().tolist()]))
"""
ON_THE_EDGE = """
import json, sys
sys.path.extend(json.loads(sys.argv[2]))
import numpy as np
import onnxruntime
session = onnxruntime.InferenceSession(sys.argv[1] + "/onnx/model.onnx")
gaps = []
for row in json.load(open(sys.argv[1] + "/edge/golden.json"))["inputs"]:
    ids = np.array(row["token_ids"], np.int32)
    given = {"token_ids": ids, "padding_mask": np.ones_like(ids), "segment_ids": np.zeros_like(ids)}
    (found,) = session.run(["probabilities"], given)
    gaps.append(float(np.abs(found[0] - row["probabilities"]).max()))
loaded = sorted(set(sys.modules) & {"tfapp", "tensorflow", "keras"})
print(json.dumps([loaded, len(gaps), max(gaps)]))
"""


def probabilities(model, texts):
    scaled = predict_logits(model, texts) / model.temperature
    powers = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def test_a_release_has_the_files_of_the_contract(release):
    assert release.path.name == "1"
    assert {name for name in listing(release.path) if not name.startswith("variables/")} == {
        "saved_model.pb",
        "fingerprint.pb",
        "keras/model.keras",
        "edge/model-float32.tflite",
        "edge/model-float16.tflite",
        "edge/model-dynamic.tflite",
        "edge/model-text.tflite",
        "edge/labels.txt",
        "edge/vocab.txt",
        "edge/golden.json",
        "onnx/model.onnx",
        "assets.extra/tf_serving_warmup_requests",
        "model_card.md",
        "report.html",
    }
    assert {path.name for path in release.path.parent.iterdir()} == {"1", "serving"}
    assert (release.path / "edge" / "labels.txt").read_text() == "business\nsport\ntech\n"


def test_the_manifest_keeps_its_schema_and_measures_everything(release, test_split):
    schema = json.loads(files("tfapp.release").joinpath("manifest.schema.json").read_text())
    manifest = json.loads((release.path / "manifest.json").read_text())
    jsonschema.validate(manifest, schema)
    assert set(manifest["files"]) == set(listing(release.path))
    assert (manifest["name"], manifest["version"], manifest["seed"]) == ("tiny", 1, 5)
    assert manifest["data"] == {"test": {"rows": 60, "sha256": test_split.sha256}}
    runtimes = {"tensorflow", "tensorflow-text", "keras", "keras-hub", "ai-edge-litert", "onnxruntime"}
    assert runtimes == set(manifest["libraries"])
    assert [row["variant"] for row in manifest["artifacts"]] == list(VARIANTS)
    for row in manifest["artifacts"]:
        assert row["examples"] == 60
        assert row["agreement"] >= 0.99
        assert row["accuracy"] == pytest.approx(0.9, abs=0.02)
        assert row["bytes"] > 10_000
        assert 0 < row["latency_ms"]["p50"] <= row["latency_ms"]["p95"]
        assert row["latency_ms"]["threads"] == row["latency_ms"]["batch"] == 1


def test_float32_artifacts_answer_as_the_model_and_quantised_ones_nearly(release):
    gaps = {row["variant"]: row["max_abs_difference"] for row in release.manifest["artifacts"]}
    # float32 rounding of a two-block model; 11 and 8 bits of weights move a steep head visibly.
    assert max(gaps["saved_model"], gaps["keras"], gaps["float32"], gaps["onnx"]) < 1e-5
    assert gaps["float16"] < 0.01
    assert 1e-5 < gaps["dynamic"] < 0.2


def test_the_weights_are_written_once(release, decided_classifier):
    weights = 4 * decided_classifier.count_params()
    data = release.path / "variables" / "variables.data-00000-of-00001"
    assert data.stat().st_size < 1.1 * weights + 10_000


def test_no_text_of_the_data_is_in_the_release(release, test_split):
    content = b"".join((release.path / name).read_bytes() for name in listing(release.path))
    assert not [text for text in test_split.texts if len(text.split()) > 3 and text.encode() in content]


def test_tflite_files_have_one_signature_and_no_foreign_operator(release):
    from ai_edge_litert.interpreter import Interpreter

    for variant in ("float32", "float16", "dynamic"):
        path = release.path / "edge" / f"model-{variant}.tflite"
        assert operators(path.read_bytes())[1] == set()
        interpreter = Interpreter(model_path=str(path))
        assert interpreter.get_signature_list() == {
            "serving_default": {
                "inputs": ["padding_mask", "segment_ids", "token_ids"],
                "outputs": ["probabilities"],
            }
        }
        details = interpreter.get_signature_runner("serving_default").get_input_details()
        assert {tuple(detail["shape"]) for detail in details.values()} == {(1, 24)}
        assert {detail["dtype"] for detail in details.values()} == {np.int32}
    custom = operators((release.path / "edge" / "model-text.tflite").read_bytes())[1]
    assert custom == {"FastBertNormalize", "FastWordpieceTokenizeWithOffsets"}


def test_the_saved_model_has_the_endpoints_of_the_contract(release, decided_classifier):
    loaded = tf.saved_model.load(str(release.path))
    signatures = loaded.signatures
    assert set(signatures) == {"serving_default", "serve", "serve_ids", "serve_examples", "classify"}
    texts = ["good film", "bad share price " * 20]
    answers = signatures["serving_default"](text=tf.constant(texts))
    assert set(answers) == {"logits", "probabilities", "label"}
    np.testing.assert_allclose(answers["logits"], predict_logits(decided_classifier, texts), atol=1e-4)
    np.testing.assert_allclose(answers["probabilities"], probabilities(decided_classifier, texts), atol=1e-5)
    expected = [
        decided_classifier.classes[index] for index in answers["probabilities"].numpy().argmax(axis=1)
    ]
    assert [label.decode() for label in answers["label"].numpy()] == expected
    ids = decided_classifier.preprocessor(tf.constant(texts))
    np.testing.assert_allclose(signatures["serve_ids"](**ids)["logits"], answers["logits"], atol=1e-4)
    scored = signatures["classify"](inputs=tf.constant([example("text", text.encode()) for text in texts]))
    assert [[name.decode() for name in row] for row in scored["classes"].numpy()] == [
        list(decided_classifier.classes)
    ] * 2
    np.testing.assert_allclose(scored["scores"], answers["probabilities"], atol=1e-6)


@pytest.mark.slow
def test_windows_are_averaged_in_every_artifact(decided_classifier, test_split, tmp_path):
    model = type(decided_classifier).from_config(decided_classifier.get_config())
    model.set_weights(decided_classifier.get_weights())
    model.preprocessor.max_length, model.preprocessor.long_texts = 8, "windows"
    texts = [" ".join(test_split.texts[row : row + 1 + row % 4]) for row in range(40)]
    labels = predict_logits(model, texts).argmax(axis=1).astype(np.int32)
    assert len(model.preprocessor.encode(texts)) > 60
    split = TextSplit("test", texts, labels, model.classes)
    release = export(model, tmp_path / "windows", check_with=split)
    gaps = {row["variant"]: row["max_abs_difference"] for row in release.manifest["artifacts"]}
    assert set(gaps) == set(VARIANTS)
    assert max(gaps["saved_model"], gaps["keras"], gaps["float32"], gaps["onnx"]) < 1e-5
    assert max(gaps["float16"], gaps["dynamic"], gaps["text"]) < 0.2
    golden = json.loads((release.path / "edge" / "golden.json").read_text())
    assert golden["preprocessor"]["long_texts"] == "windows"
    assert max(len(row["token_ids"]) for row in golden["inputs"]) > 1
    report = verify(release.path)
    assert report.ok, report.reasons
    answer = load_release(release.path).predict(texts)
    expected = probabilities(model, texts)
    np.testing.assert_allclose([[*row.probabilities.values()] for row in answer], expected, atol=1e-5)


@pytest.mark.slow
def test_an_encoder_without_segments_is_released_as_every_variant(tiny_vocab, test_split, tmp_path):
    import keras_hub

    from tfapp.models import build_text_classifier

    keras.utils.set_random_seed(3)
    backbone = keras_hub.models.DistilBertBackbone(
        vocabulary_size=len(tiny_vocab),
        num_layers=2,
        num_heads=2,
        hidden_dim=32,
        intermediate_dim=64,
        max_sequence_length=64,
    )
    tokenizer = WordPieceTokenizer(tiny_vocab, max_length=24)
    model = build_text_classifier(
        backbone, classes=test_split.classes, pooling="mean", tokenizer=tokenizer, dropout_rate=0.0
    )
    kernel, bias = model.layers[-1].get_weights()
    model.layers[-1].set_weights([kernel * 40, bias])
    labels = predict_logits(model, test_split.texts).argmax(axis=1).astype(np.int32)
    split = TextSplit("test", test_split.texts, labels, model.classes)
    budget = Budget(min_agreement=0.95, max_accuracy_drop=0.05)  # One or two of 60 random rows may tie.
    done = export(model, tmp_path / "distil", check_with=split, budget=budget)
    assert [row["variant"] for row in done.manifest["artifacts"]] == list(VARIANTS)
    gaps = {row["variant"]: row["max_abs_difference"] for row in done.manifest["artifacts"]}
    assert max(gaps["saved_model"], gaps["keras"], gaps["float32"], gaps["onnx"]) < 1e-5
    golden = json.loads((done.path / "edge" / "golden.json").read_text())
    assert golden["tensors"] == ["token_ids", "padding_mask"]
    signature = tf.saved_model.load(str(done.path)).signatures["serve_ids"]
    assert set(signature.structured_input_signature[1]) == {"token_ids", "padding_mask"}
    report = verify(done.path)
    assert report.ok, report.reasons
    answers = load_release(done.path).predict(list(split.texts))
    expected = probabilities(model, split.texts)
    np.testing.assert_allclose([[*row.probabilities.values()] for row in answers], expected, atol=1e-5)


def test_the_saved_model_serves_without_tfapp(release, decided_classifier):
    command = [sys.executable, "-I", "-c", SERVE, str(release.path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    loaded, answers = json.loads(done.stdout.splitlines()[-1])
    assert loaded == []
    np.testing.assert_allclose(answers, probabilities(decided_classifier, ["good film", ""]), atol=1e-5)


def test_the_onnx_file_needs_onnx_runtime_alone(release):
    paths = json.dumps([path for path in sys.path if path])
    command = [sys.executable, "-I", "-c", ON_THE_EDGE, str(release.path), paths]
    answered = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    loaded, count, gap = json.loads(answered)
    assert loaded == []
    assert count == 50
    assert gap < 1e-5  # six decimals of the golden vectors, and another batch


def test_verify_finds_nothing_wrong(release):
    report = verify(release.path)
    assert report.reasons == []
    assert report.ok
    assert report.summary == "self-consistent, origin not proven"
    assert [row["part"] for row in report.table()] == [
        "origin",
        "manifest",
        "files",
        "labels.txt",
        "vocab.txt",
        "metadata",
        *VARIANTS,
    ]
    assert len(report.lines()) == len(report.rows)


def test_a_release_that_changes_while_it_is_loaded_is_refused(release, tmp_path, monkeypatch):
    folder, load = tmp_path / "tiny" / "1", tf.saved_model.load
    shutil.copytree(release.path, folder)

    def change(path, **options):
        loaded = load(path, **options)
        (folder / "edge" / "labels.txt").write_text("changed")
        return loaded

    monkeypatch.setattr(tf.saved_model, "load", change)
    with pytest.raises(ReleaseError, match=r"edge/labels\.txt is damaged"):
        load_release(folder)


def test_a_release_predicts_as_the_model(release, decided_classifier, test_split):
    predictor = load_release(release.path.parent)
    assert predictor.directory == release.path
    texts = list(test_split.texts)
    predictions = predictor.predict(texts, batch_size=7)
    found = np.array([[row.probabilities[name] for name in predictor.classes] for row in predictions])
    expected = probabilities(decided_classifier, texts)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert [row.label for row in predictions] == [predictor.classes[i] for i in expected.argmax(axis=1)]
    assert predictor.predict([]) == []


def test_predict_takes_lists_of_strings_only(release):
    predictor = load_release(release.path)
    with pytest.raises(DataError, match="list"):
        predictor.predict("one text")
    with pytest.raises(DataError, match="text 1 is int"):
        predictor.predict(["a", 2])
    with pytest.raises(DataError, match=r"text 1 .*half a surrogate pair"):
        predictor.predict(["a", "b \ud83d"])


def test_the_model_card_has_the_figures_of_the_manifest(release):
    card = (release.path / "model_card.md").read_text()
    for row in release.table():
        assert f"| {row['artifact']} | {row['path']} | {row['MB']} |" in card
    assert "released" in card
    assert str(Path.home()) not in card


def test_the_report_is_a_file_of_the_release_with_the_checksums_of_all_others(release):
    page = (release.path / "report.html").read_text()
    files = release.manifest["files"]
    assert files["report.html"] == sha256(release.path / "report.html")
    assert listing(release.path) == sorted(files)
    assert "<title>tiny 1</title>" in page
    for name, checksum in files.items():
        assert (checksum in page) == (name != "report.html")
    for row in release.table():
        assert f"<td>{row['artifact']}</td><td>{row['MB']}</td>" in page
    assert str(Path.home()) not in page
    assert release.manifest_sha256 == sha256(release.path / "manifest.json")


def test_names_of_classes_that_are_programs_elsewhere_are_only_names_here(tiny_vocab, tmp_path):
    from helpers import tiny_text_classifier

    classes = ("<script>alert(1)</script>", "=HYPERLINK(1)", "</title><img src=x onerror=alert(1)>")
    model = tiny_text_classifier(tiny_vocab, classes)
    split = TextSplit("test", ("good film", "bad share", "the game"), np.array([0, 1, 2]), classes)
    lenient = Budget(min_agreement=0.0, max_accuracy_drop=1.0, max_scale_error=1.0, max_golden_difference=1.0)
    done = export(model, tmp_path / "tiny", check_with=split, variants=["float32"], budget=lenient)
    page = (done.path / "report.html").read_text()
    assert "<script" not in page
    assert "<img" not in page
    assert page.count("&lt;script&gt;alert(1)&lt;/script&gt;") >= 3
    assert (done.path / "edge" / "labels.txt").read_text().splitlines() == list(classes)
    assert verify(done.path, manifest_sha256=done.manifest_sha256).ok


def test_with_many_cores_calls_are_still_timed_on_one_thread(release, tmp_path, monkeypatch):
    import os

    from tfapp.release.golden import Golden
    from tfapp.release.processes import ArtifactRunner

    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)))
    golden = Golden.load(release.path / "edge" / "golden.json")
    with ArtifactRunner.of_release(tmp_path, golden, time_calls=True) as runner:
        runner.start("float32", release.path / "edge" / "model-float32.tflite")
        answers = runner.answers()["float32"]
    assert answers.error is None
    assert json.loads((tmp_path / "float32" / "request.json").read_text())["threads"] == 4
    assert answers.latency_ms["threads"] == 1
    assert answers.latency_ms["p50"] > 0
    np.testing.assert_allclose(answers.probabilities, golden.probabilities, atol=1e-4)


@pytest.mark.slow
def test_the_real_encoder_keeps_its_sizes_and_answers(minilm, tmp_path):
    from tfapp.models import build_text_classifier
    from tfapp.release.golden_texts import make_golden_texts

    keras.utils.set_random_seed(0)
    model = build_text_classifier(str(minilm), classes=("a", "b", "c"), max_length=64)
    kernel, bias = model.layers[-1].get_weights()
    model.layers[-1].set_weights([kernel * 20, bias])
    texts = tuple(make_golden_texts(model.preprocessor.vocabulary, max_length=64, count=100, seed=3))
    labels = predict_logits(model, texts).argmax(axis=1).astype(np.int32)
    split = TextSplit("test", texts, labels, model.classes)
    budget = Budget(min_agreement=0.9, max_accuracy_drop=0.1)  # Random words lie near the borders.
    done = export(model, tmp_path / "minilm", check_with=split, budget=budget)
    megabytes = {row["variant"]: row["bytes"] / 1e6 for row in done.manifest["artifacts"]}
    assert max(megabytes["saved_model"], megabytes["keras"], megabytes["float32"]) < 96
    assert megabytes["float16"] < 48
    assert max(megabytes["dynamic"], megabytes["text"]) < 28
    gaps = {row["variant"]: row["max_abs_difference"] for row in done.manifest["artifacts"]}
    assert max(gaps["saved_model"], gaps["keras"], gaps["float32"]) < 1e-4
    assert verify(done.path).ok


def test_the_release_loads_again(release):
    again = Release.load(release.path)
    assert again == release
    assert [row["artifact"] for row in again.table()] == list(VARIANTS)


def test_a_broken_budget_refuses_with_everything_beside_the_versions(
    decided_classifier, test_split, tmp_path
):
    with pytest.raises(ReleaseRefused) as refused:
        export(
            decided_classifier,
            tmp_path / "tiny",
            check_with=test_split,
            variants=["dynamic"],
            budget=Budget(max_abs_difference=1e-9),
        )
    assert refused.value.exit_code == 1
    assert f"in {refused.value.directory}, which no server scans; delete it" in str(refused.value)
    assert "max_abs_difference" in refused.value.reasons[0]
    (folder,) = (tmp_path / "tiny").iterdir()
    assert folder == refused.value.directory
    assert folder.name.startswith("refused-")
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["release"]["verdict"] == "refused"
    assert manifest["release"]["reasons"] == refused.value.reasons
    assert manifest["release"]["budget"]["max_abs_difference"] == 1e-9
    assert manifest["version"] is None
    assert manifest["artifacts"][0]["verdict"] == "refused"
    assert not verify(folder).ok
    with pytest.raises(ReleaseError, match="refused"):
        load_release(folder)
    with pytest.raises(ReleaseError, match="no released version"):
        load_release(tmp_path / "tiny")


def test_a_variant_that_nobody_named_is_left_out_when_it_is_beyond_the_budget(
    decided_classifier, test_split, tmp_path, monkeypatch, caplog
):
    monkeypatch.setattr(WordPieceTokenizer, "variants", ("float32", "dynamic"))
    offered = []
    monkeypatch.setattr(exporting, "page_runtime", lambda *_arguments: tmp_path)
    monkeypatch.setattr(
        exporting, "export_web_page", lambda *_arguments, variants, **_: offered.extend(variants)
    )
    budget = Budget(max_abs_difference=1e-5)
    done = export(decided_classifier, tmp_path / "tiny", check_with=test_split, budget=budget)
    assert offered == ["float32"]
    assert [row["variant"] for row in done.manifest["artifacts"]] == ["float32"]
    (left_out,) = done.manifest["left_out"]
    (reason,) = left_out["reasons"]
    assert left_out["variant"] == "dynamic"
    assert "more than 0.0000 (max_abs_difference)" in reason
    assert "export: dynamic is left out of the release: a probability differs" in caplog.text
    assert [name for name in listing(done.path) if name.endswith(".tflite")] == ["edge/model-float32.tflite"]
    golden = json.loads((done.path / "edge" / "golden.json").read_text())
    assert (list(golden["answers"]), list(golden["tolerance"])) == ([], ["float32"])
    for page in ("model_card.md", "report.html"):
        assert reason in (done.path / page).read_text()
    report = verify(done.path)
    assert report.ok, report.reasons


def test_damage_is_not_left_out_though_nobody_named_the_variant(
    decided_classifier, test_split, tmp_path, monkeypatch
):
    from tfapp import exporters

    real = exporters.EXPORTERS["tflite"]

    def write(model, directory, *, variant, **options):
        path = real(model, directory, variant=variant, **options)
        if variant == "dynamic":
            path.write_bytes(path.read_bytes()[:1000])

    monkeypatch.setitem(exporters.EXPORTERS, "tflite", write)
    monkeypatch.setattr(WordPieceTokenizer, "variants", ("float32", "dynamic"))
    with pytest.raises(ReleaseRefused) as refused:
        export(decided_classifier, tmp_path / "tiny", check_with=test_split, web=False)
    assert refused.value.reasons[0].startswith("dynamic: ")
    manifest = json.loads((refused.value.directory / "manifest.json").read_text())
    assert (len(manifest["artifacts"]), manifest["left_out"]) == (2, [])


def test_a_half_precision_model_is_exported_in_float32(tiny_vocab, tmp_path):
    import keras_hub

    from tfapp.data.text import TextSplit
    from tfapp.models import build_text_classifier

    backbone = keras_hub.models.BertBackbone(
        vocabulary_size=len(tiny_vocab),
        num_layers=1,
        num_heads=2,
        hidden_dim=16,
        intermediate_dim=32,
        max_sequence_length=16,
        dtype="mixed_bfloat16",
    )
    tokenizer = WordPieceTokenizer(tiny_vocab, max_length=12)
    model = build_text_classifier(backbone, classes=("a", "b"), pooling="mean", tokenizer=tokenizer)
    split = TextSplit("test", ("good film", "bad share", "the game"), np.array([0, 1, 1]), ("a", "b"))
    done = export(model, tmp_path / "half", check_with=split, variants=("keras", "float32"))
    assert max(row["max_abs_difference"] for row in done.manifest["artifacts"]) < 1e-5
    loaded = keras.saving.load_model(done.path / "keras" / "model.keras")
    assert {layer.compute_dtype for layer in loaded.layers} <= {"float32", "int32"}


def test_a_model_that_does_not_convert_is_refused_with_the_reason(
    decided_classifier, test_split, tmp_path, monkeypatch
):
    from tfapp import exporters

    def fail(model, directory, **options):
        (Path(directory) / "keras").mkdir()  # an exporter may fail after it has begun
        raise RuntimeError("no kernel for\nthis layer")

    monkeypatch.setitem(exporters.EXPORTERS, "keras", fail)
    with pytest.raises(ReleaseRefused) as refused:
        export(decided_classifier, tmp_path / "tiny", check_with=test_split, variants=["keras"])
    assert (
        "cannot be made from this model: RuntimeError: no kernel for this layer" in refused.value.reasons[0]
    )


def test_bad_arguments_are_refused_before_any_work(decided_classifier, test_split, tmp_path):

    with pytest.raises(ConfigError, match="did you mean 'dynamic'"):
        export(decided_classifier, tmp_path / "tiny", check_with=test_split, variants=["dynamik"])
    with pytest.raises(ConfigError, match="variants is empty"):
        export(decided_classifier, tmp_path / "tiny", check_with=test_split, variants=[])
    with pytest.raises(OutputError, match="release name"):
        export(decided_classifier, tmp_path / "Tiny News", check_with=test_split)
    empty = replace(test_split, texts=(), labels=np.zeros(0, np.int32))
    with pytest.raises(DataError, match="no rows"):
        export(decided_classifier, tmp_path / "tiny", check_with=empty)
    others = replace(test_split, classes=("sport", "business", "tech"))
    with pytest.raises(DataError, match="classes"):
        export(decided_classifier, tmp_path / "tiny", check_with=others)
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_fills_up_while_exporting_leaves_nothing(
    decided_classifier, test_split, tmp_path, monkeypatch
):
    import errno

    from tfapp import exporters

    def fill(model, directory, **options):
        (Path(directory) / "half").write_bytes(b"x" * 1000)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setitem(exporters.EXPORTERS, "tflite", fill)
    with pytest.raises(OutputError, match="full"):
        export(decided_classifier, tmp_path / "tiny", check_with=test_split, variants=["float32"])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("name", "message"), [("absent", "not a folder"), ("", "no released version")])
def test_what_is_no_release_says_what_to_give(tmp_path, name, message):
    with pytest.raises(ReleaseError, match=message):
        load_release(tmp_path / name)


def test_an_evaluation_of_another_model_is_refused_before_any_work(decided_classifier, test_split, tmp_path):
    from tfapp.evaluation import evaluate

    evaluation = evaluate(decided_classifier, test_split, num_bootstrap=5)
    scores = evaluation.to_dict()
    for wrong, word in (
        ({**scores, "temperature": 1.0}, "made at temperature 1, but the model's is now 1.7"),
        ({**scores, "classes": ["a", "b", "c"]}, "evaluation is of the classes"),
        (replace(evaluation, temperature=2.5), "called after the last training and calibration"),
    ):
        with pytest.raises(ConfigError, match=word):
            export(decided_classifier, tmp_path / "tiny", check_with=test_split, evaluation=wrong)
    assert list(tmp_path.iterdir()) == []


def test_the_manifest_has_the_scores_that_were_given_and_the_measured_temperature(
    decided_classifier, test_split, tmp_path
):
    done = export(
        decided_classifier,
        tmp_path / "tiny",
        check_with=test_split,
        variants=["float32"],
        evaluation={"accuracy": {"value": 0.9, "low": 0.8, "high": 0.95}, "macro_f1": 0.8},
    )
    assert done.manifest["metrics"] == {
        "accuracy": {"value": 0.9, "low": 0.8, "high": 0.95},
        "macro_f1": 0.8,
        "temperature": 1.7,
    }
    assert "macro_f1: 0.8000" in (done.path / "model_card.md").read_text()
