"""MediaPipe Tasks itself on exported files: it tokenizes, decodes and resizes by its own code.

Needs the extra `mediapipe`; run with ``-m mediapipe``.
"""

import json
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from scipy.special import softmax

from tfapp.data.tokenizers import WordPieceTokenizer
from tfapp.exporters import export_tflite, unpack
from tfapp.exporters._packing import input_names
from tfapp.models import build_image_classifier, build_text_classifier
from tfapp.release.golden import Golden
from tfapp.release.golden_images import make_golden_images
from tfapp.release.golden_texts import make_golden_texts
from tfapp.training.inference import predict_logits

pytestmark = pytest.mark.mediapipe
EXACT = 1e-3
QUANTISED = 2e-2
CHECK_RELEASE = Path(__file__).parents[2] / "scripts/deploy/mobile/check_release.py"


@pytest.fixture(scope="module", autouse=True)
def mediapipe():
    return pytest.importorskip("mediapipe", reason="MediaPipe is not installed: it is the extra `mediapipe`")


def probabilities(result, classes):
    (head,) = result.classifications
    scores = {category.category_name: category.score for category in head.categories}
    return [scores[name] for name in classes]


def classify_texts(path, texts, classes):
    from mediapipe.tasks.python.text import TextClassifier

    with TextClassifier.create_from_model_path(str(path)) as classifier:
        return np.array([probabilities(classifier.classify(text), classes) for text in texts])


def classify_images(path, images, classes):
    from mediapipe.tasks.python.vision import ImageClassifier

    with ImageClassifier.create_from_model_path(str(path)) as classifier:
        return np.array([probabilities(classifier.classify(image), classes) for image in images])


def answers(model, features):
    return softmax(predict_logits(model, features) / model.temperature, axis=1)


@pytest.fixture(scope="module")
def prepared(mediapipe):
    """What scripts/deploy/mobile tells apps to do with a text before MediaPipe gets it."""
    return runpy.run_path(str(CHECK_RELEASE))["prepared"]


@pytest.mark.parametrize(
    ("variant", "tolerance"), [("float32", EXACT), ("float16", EXACT), ("dynamic", QUANTISED)]
)
def test_texts_are_classified_as_by_the_model(release, prepared, variant, tolerance):
    golden = Golden.load(release.path / "edge" / "golden.json")
    texts = [prepared(text) for text in golden.inputs.texts]
    found = classify_texts(release.path / "edge" / f"model-{variant}.tflite", texts, golden.classes)
    expected = golden.reference(variant).probabilities
    assert (
        expected.argmax(axis=1).ptp() if hasattr(expected, "ptp") else len(set(expected.argmax(axis=1))) > 1
    )
    np.testing.assert_allclose(found, expected, atol=tolerance)


def test_plain_texts_need_no_preparation_and_others_do(release):
    golden = Golden.load(release.path / "edge" / "golden.json")
    texts = golden.inputs.texts
    found = classify_texts(release.path / "edge" / "model-float32.tflite", texts, golden.classes)
    gaps = np.abs(found - golden.probabilities).max(axis=1)
    plain = np.array([text.isascii() and text.isprintable() for text in texts])
    assert 40 <= plain.sum() < len(texts)
    assert gaps[plain].max() < EXACT
    assert gaps[~plain].max() > EXACT


def test_of_a_long_text_mediapipe_reads_the_first_window(tiny_vocab, tmp_path):
    from helpers import tiny_text_classifier

    tokenizer = WordPieceTokenizer(tiny_vocab, max_length=16, long_texts="windows")
    model = tiny_text_classifier(tiny_vocab, ("good", "bad"), width=32, tokenizer=tokenizer)
    kernel, bias = model.layers[-1].get_weights()
    model.layers[-1].set_weights([kernel * 20, bias])
    path = export_tflite(model, tmp_path, variant="float32")
    text = "good film " * 4 + "bad market " * 10
    short = " ".join(text.split()[:14])
    found = classify_texts(path, [text, short], model.classes)
    np.testing.assert_allclose(found, answers(model, [short, short]), atol=EXACT)
    assert np.abs(found[0] - answers(model, [text])[0]).max() > EXACT


def test_a_model_that_tells_cases_apart_is_refused_and_not_misread(tiny_vocab, tmp_path):
    from helpers import tiny_text_classifier

    tokenizer = WordPieceTokenizer(tiny_vocab, lowercase=False, max_length=16)
    model = tiny_text_classifier(tiny_vocab, ("good", "bad"), tokenizer=tokenizer)
    path = export_tflite(model, tmp_path, variant="float32")
    with pytest.raises((RuntimeError, ValueError), match="process unit"):
        classify_texts(path, ["Good film"], model.classes)


def test_the_real_encoder_is_classified_alike(minilm, prepared, tmp_path):
    keras.utils.set_random_seed(0)
    model = build_text_classifier(str(minilm), classes=("a", "b", "c"), max_length=64)
    kernel, bias = model.layers[-1].get_weights()
    model.layers[-1].set_weights([kernel * 20, bias])
    path = export_tflite(model, tmp_path, variant="float32")
    texts = make_golden_texts(model.preprocessor.vocabulary, max_length=64)
    found = classify_texts(path, [prepared(text) for text in texts], model.classes)
    expected = answers(model, texts)
    assert len(set(expected.argmax(axis=1))) == 3
    np.testing.assert_allclose(found, expected, atol=EXACT)


@pytest.fixture(scope="module")
def stripes(tmp_path_factory):
    """A random network for images of 40 x 57 pixels, its files, and golden images."""
    pixels = keras.Input((40, 57, 3), name="pixels")
    keras.utils.set_random_seed(0)
    hidden = keras.layers.Rescaling(1 / 127.5, -1.0)(pixels)
    for filters in (8, 16):
        hidden = keras.layers.Conv2D(filters, 3, strides=2, padding="same", activation="relu")(hidden)
    model = build_image_classifier(
        keras.Model(pixels, hidden), classes=("red", "green", "blue"), image_size=(40, 57)
    )
    images = make_golden_images((40, 57))
    kernel, _ = model.layers[-1].get_weights()
    model.layers[-1].set_weights([kernel * 20, np.zeros(3)])
    logits = predict_logits(model, images)
    model.layers[-1].set_weights([kernel * 20, -logits.mean(axis=0)])
    model.temperature = 1.4
    folder = tmp_path_factory.mktemp("stripes")
    paths = {
        variant: export_tflite(model, folder, variant=variant, calibration=images)
        for variant in ("float32", "dynamic", "int8")
    }
    return model, paths, images


@pytest.mark.parametrize(
    ("variant", "tolerance"), [("float32", EXACT), ("dynamic", QUANTISED), ("int8", 4e-2)]
)
def test_pixels_are_classified_as_by_the_model(mediapipe, stripes, variant, tolerance):
    model, paths, images = stripes
    pixels = model.preprocessor.fixed(images)[0]["pixels"]
    given = [mediapipe.Image(image_format=mediapipe.ImageFormat.SRGB, data=image) for image in pixels]
    found = classify_images(paths[variant], given, model.classes)
    expected = answers(model, images)
    assert len(set(expected.argmax(axis=1))) == 3
    np.testing.assert_allclose(found, expected, atol=tolerance)


def test_image_files_of_the_models_size_are_classified_as_by_the_model(mediapipe, stripes, tmp_path):
    model, paths, images = stripes
    exact = []
    for number in range(2, 50, 5):
        path = tmp_path / f"{number}.image"
        path.write_bytes(images[number])
        image = mediapipe.Image.create_from_file(str(path))
        read = image.numpy_view()[..., :3]
        if read.shape != (40, 57, 3):  # grey, or turned by EXIF
            continue
        found = classify_images(paths["float32"], [image], model.classes)
        logits = model({"pixels": read[np.newaxis].astype(np.float32)}, training=False)
        np.testing.assert_allclose(found, softmax(logits / model.temperature, axis=1), atol=EXACT)
        ours = model.preprocessor.fixed([images[number]])[0]["pixels"][0]
        # Decoders of JPEG round differently; all other formats have one right answer.
        jpeg = images[number].startswith(b"\xff\xd8")
        assert np.abs(read.astype(int) - ours).max() <= (2 if jpeg else 0)
        np.testing.assert_allclose(found, answers(model, [images[number]]), atol=1e-2 if jpeg else EXACT)
        exact.append(not jpeg)
    assert exact.count(True) >= 4
    assert exact.count(False) >= 2


def test_the_script_for_releases_says_what_differs(release, tmp_path):
    def run():
        command = [sys.executable, str(CHECK_RELEASE), str(tmp_path / "tiny")]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    shutil.copytree(release.path / "edge", tmp_path / "tiny" / "edge")
    done = run()
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["file"] for row in rows] == [
        "model-dynamic.tflite",
        "model-float16.tflite",
        "model-float32.tflite",
    ]
    assert {row["compared"] for row in rows} == {50}
    path = tmp_path / "tiny" / "edge" / "golden.json"
    golden = json.loads(path.read_text())
    first = golden["inputs"][3]["probabilities"]
    golden["inputs"][3]["probabilities"] = first[1:] + first[:1]
    path.write_text(json.dumps(golden))
    assert run().returncode == 1


def test_mediapipes_own_classes_read_what_is_written(stripes, release):
    from mediapipe.tasks.metadata import metadata_schema_py_generated as theirs

    text, image = release.path / "edge" / "model-dynamic.tflite", stripes[1]["int8"]
    for path in map(Path, (text, image)):
        content = path.read_bytes()
        start = content.index(b"M001") - 4
        found = theirs.ModelMetadataT.InitFromObj(theirs.ModelMetadata.GetRootAs(content[start:], 0))
        ours = unpack(content).metadata
        (graph,), (described,) = found.subgraphMetadata, ours["subgraph_metadata"]
        assert found.version.decode() == ours["version"]
        assert found.license is None or found.license.decode() == ours["license"]
        assert [tensor.name.decode() for tensor in graph.inputTensorMetadata] == [
            tensor["name"] for tensor in described["input_tensor_metadata"]
        ]
        (labels,) = graph.outputTensorMetadata[0].associatedFiles
        assert labels.type == theirs.AssociatedFileType.TENSOR_AXIS_LABELS
        assert len(graph.inputTensorMetadata) == len(input_names(content))
    (unit,) = graph.inputTensorMetadata[0].processUnits
    assert isinstance(unit.options, theirs.NormalizationOptionsT)
    assert (unit.options.mean.tolist(), unit.options.std.tolist()) == ([0.0], [1.0])
    size = graph.inputTensorMetadata[0].content.contentProperties.defaultSize
    assert (size.height, size.width) == (40, 57)
