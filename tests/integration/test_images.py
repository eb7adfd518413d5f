"""Images on the same path as texts: train, evaluate, export, verify, predict, on a tiny network."""

import asyncio
import base64
import io
import json
import tarfile
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfapp.cli import main
from tfapp.data.archives import unpack
from tfapp.data.image import load_image_data
from tfapp.data.image_store import bmp_file, file_images
from tfapp.errors import ConfigError, DataError
from tfapp.evaluation import evaluate
from tfapp.exporters import unpack as unpack_file
from tfapp.models import build_image_classifier
from tfapp.release import Budget, export, verify
from tfapp.release.artifacts import write_artifact
from tfapp.release.golden import Golden
from tfapp.release.processes import ArtifactRunner
from tfapp.serving import load_release
from tfapp.training import Phase, SourceTask, train
from tfapp.training.adversarial import make_adversarial

SIZE = 32


def tiny_network():
    """Two convolutions with batch normalisation, on raw pixels."""
    pixels = keras.Input((SIZE, SIZE, 3), name="pixels")
    hidden = keras.layers.Rescaling(1 / 127.5, -1.0)(pixels)
    for number, filters in enumerate((8, 16), 1):
        hidden = keras.layers.Conv2D(filters, 3, strides=2, padding="same", use_bias=False)(hidden)
        hidden = keras.layers.BatchNormalization(name=f"norm_{number}")(hidden)
        hidden = keras.layers.ReLU()(hidden)
    return keras.Model(pixels, hidden, name="tiny")


@pytest.fixture(scope="module")
def data():
    """Stripes that lie or stand, in noise."""
    generator = np.random.default_rng(0)
    labels = np.arange(240) % 2
    wave = np.where(np.arange(SIZE) // 4 % 2, 180, 70)[None, :, None]
    images = np.where(labels[:, None, None, None] == 0, wave[:, :, None], wave[:, None, :])
    images = np.clip(images + generator.normal(0, 25, (240, SIZE, SIZE, 3)), 0, 255).astype(np.uint8)
    names = np.array(["lying", "standing"])[labels]
    return load_image_data((images, names), validation_fraction=0.2, test_fraction=0.3, seed=1)


@pytest.fixture(scope="module")
def trained(data):
    keras.utils.set_random_seed(0)
    model = build_image_classifier(tiny_network(), classes=data.classes, image_size=SIZE)
    phases = [Phase("head", 3, 1e-2), Phase("all", 3, 1e-2)]
    history = train(model, data, phases=phases, augment="light", batch_size=16, verbose=False, seed=0)
    evaluation = evaluate(model, data.test, calibrate_with=data.validation, num_bootstrap=50)
    return model, history, evaluation


@pytest.fixture(scope="module")
def release(trained, data, tmp_path_factory):
    model, _, evaluation = trained
    folder = tmp_path_factory.mktemp("releases") / "stripes"
    return export(
        model,
        folder,
        check_with=data.test,
        data=data,
        evaluation=evaluation,
        budget=Budget(min_agreement=0.95, max_accuracy_drop=0.05),
    )


def test_a_network_learns_from_images(trained):
    _, history, evaluation = trained
    assert evaluation.accuracy.value > 0.9
    assert [row["train"] for row in history.epochs] == ["head"] * 3 + ["all"] * 3
    assert history.lengths is None
    assert history.padding_share == 0.0


def test_cached_images_of_a_source_are_augmented_too(data, tmp_path):
    model = build_image_classifier(tiny_network(), classes=data.classes, image_size=SIZE)
    kept = np.arange(len(data.train)) % 3 == 0
    split = data.train
    parts = split.images.take(kept), split.labels[kept], tuple(np.array(split.digests)[kept])
    source = replace(data, train=replace(split, images=parts[0], labels=parts[1], digests=parts[2]))
    train(
        model,
        data,
        phases=[Phase("head", 1, 1e-2)],
        augment="light",
        views=3,
        source=SourceTask(source),
        precision="float32",
        run_dir=tmp_path,
        verbose=False,
    )
    (cache,) = (tmp_path / "features").glob("*-source")
    features = np.fromfile(cache / "features.bin", np.float32).reshape(3, kept.sum(), -1)
    for first, second in ((0, 1), (1, 2)):
        assert np.abs(features[first] - features[second]).max(axis=1).min() > 1e-4


def test_a_release_can_be_attacked_where_its_classes_are_those_of_the_data(release, data):
    attacked = make_adversarial({"refresh": "never", "model": release.path})
    network = attacked.loaded()
    assert attacked.classes(network) == data.classes
    assert network.output.shape[1] == len(data.classes)


def test_every_variant_is_measured_on_the_whole_test_split(release, data):
    rows = {row["variant"]: row for row in release.manifest["artifacts"]}
    assert list(rows) == ["saved_model", "keras", "float32", "float16", "dynamic", "int8", "onnx"]
    assert {row["examples"] for row in rows.values()} == {len(data.test)}
    for variant in ("saved_model", "keras", "float32", "onnx"):
        assert rows[variant]["max_abs_difference"] < 1e-4
    assert rows["int8"]["agreement"] >= 0.95
    assert rows["int8"]["bytes"] < rows["float32"]["bytes"]


def test_the_gate_learns_that_the_integer_file_takes_raw_pixels(release, tmp_path):
    golden = Golden.load(release.path / "edge" / "golden.json")
    with ArtifactRunner.of_release(tmp_path, golden) as runner:
        runner.start("int8", release.path / "edge" / "model-int8.tflite")
        (answers,) = runner.answers().values()
    assert answers.inputs == {"pixels": ("uint8", 1.0, 0.0)}
    assert answers.step == pytest.approx(1 / 256)


def test_files_say_how_their_pixels_are_made(release):
    for variant in ("float32", "int8"):
        packed = unpack_file((release.path / "edge" / f"model-{variant}.tflite").read_bytes())
        assert packed.files == {"labels.txt": b"lying\nstanding\n"}
        assert packed.labels_name == "labels.txt"
        assert packed.vocabulary_name is None
        assert packed.metadata["name"] == "stripes"
        assert packed.metadata["min_parser_version"] == "1.0.0"
        assert "built by hand" in packed.metadata["license"]
        (subgraph,) = packed.metadata["subgraph_metadata"]
        (pixels,) = subgraph["input_tensor_metadata"]
        size = {"width": SIZE, "height": SIZE}
        image = {"ImageProperties": {"color_space": "RGB", "default_size": size}}
        assert pixels["content"] == {"content_properties": image}
        assert pixels["process_units"] == [
            {"options": {"NormalizationOptions": {"mean": [0.0], "std": [1.0]}}}
        ]
    versions = {
        unpack_file(path.read_bytes()).metadata["version"]
        for path in (release.path / "edge").glob("*.tflite")
    }
    assert len(versions) == 1


def test_golden_vectors_hold_images_and_the_checksums_of_their_pixels(release):
    golden = json.loads((release.path / "edge" / "golden.json").read_text())
    assert golden["feature"] == "image_bytes"
    assert golden["preprocessor"]["image_size"] == [SIZE, SIZE]
    assert {"image_bytes", "pixels_sha256", "probabilities"} == set(golden["inputs"][0])
    report = verify(release.path)
    assert report.ok
    assert "golden images" in [row["part"] for row in report.rows]


def test_a_decoder_that_makes_other_pixels_is_noticed(release):
    golden = Golden.load(release.path / "edge" / "golden.json")
    assert golden.inputs.changed() == 0
    other = replace(golden.inputs, preprocessor={**golden.inputs.preprocessor, "aspect": "crop"})
    assert other.changed() > 10
    formats = {image[:2] for image in golden.inputs.images}
    assert formats == {b"\x89P", b"\xff\xd8", b"BM", b"GI"}
    assert (release.path / "edge" / "golden.json").stat().st_size < 1_000_000


def test_an_image_that_was_damaged_since_is_named_when_exporting(trained, data, tmp_path):
    paths = [tmp_path / f"{row}.bmp" for row in range(3)]
    for row, path in enumerate(paths):
        path.write_bytes(data.train.images[row])
    sizes = np.array([path.stat().st_size for path in paths])
    paths[1].write_bytes(b"x" * sizes[1])
    images = file_images([str(path) for path in paths], sizes)
    with pytest.raises(DataError, match=r"1\.bmp: not an image"):
        write_artifact(trained[0], "int8", tmp_path, tmp_path / "scratch", images)
    split = replace(data.test, images=images, labels=data.test.labels[:3], digests=data.test.digests[:3])
    with pytest.raises(DataError, match=r"1\.bmp: not an image"):
        export(trained[0], tmp_path / "stripes", check_with=split, variants=["float32"])
    assert not (tmp_path / "stripes").exists()


def test_a_release_classifies_files_bytes_and_arrays(release, trained, data, tmp_path):
    predictor = load_release(release.path)
    image = data.test.images[0]
    (tmp_path / "one.bmp").write_bytes(image)
    by_path, by_bytes = predictor.predict([str(tmp_path / "one.bmp"), image])
    assert by_path == by_bytes
    assert by_path.label == data.classes[int(data.test.labels[0])]
    assert len(predictor.predict([np.zeros((5, 9, 3), np.uint8)])) == 1


def test_the_command_line_names_the_image_that_cannot_be_read_and_answers_the_others(
    release, data, tmp_path, capsys
):
    (tmp_path / "broken.jpg").write_bytes(b"no image at all")
    (tmp_path / "good.bmp").write_bytes(data.test.images[0])
    paths = [str(tmp_path / name) for name in ("broken.jpg", "good.bmp", "none.jpg")]
    with pytest.raises(SystemExit) as status:
        main(["predict", str(release.path), *paths])
    assert status.value.code == 2
    captured = capsys.readouterr()
    (answer,) = map(json.loads, captured.out.splitlines())
    assert (answer["image"], answer["label"]) == (paths[1], data.classes[int(data.test.labels[0])])
    assert "broken.jpg: " in captured.err
    assert "none.jpg cannot be read" in captured.err
    assert "2 of 3 images" in captured.err


def test_a_workflow_file_runs_on_a_folder_of_images(data, tmp_path, capsys):
    from tfapp.config import load_config
    from tfapp.workflow import run_workflow

    for split, name in ((data.train, "train"), (data.test, "test")):
        for row in range(24):
            folder = tmp_path / "photos" / name / split.classes[int(split.labels[row])]
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{row}.bmp").write_bytes(split.images[row])
    (tmp_path / "photos/train/lying/damaged.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    tiny_network().save(tmp_path / "tiny.keras")
    Path(tmp_path / "workflow.toml").write_text(
        """
name = "stripes"
[data]
kind = "image"
train = "photos"
[data.augment]
vertical_flip = true
corruptions = ["gaussian_noise"]
[data.augment.adversarial]
fraction = 0.25
[model]
backbone = "./tiny.keras"
[[transfer.phases]]
train = "head"
epochs = 1
learning_rate = 1e-3
[train]
sampling = "balanced"
monitor = "val_balanced_accuracy"
[evaluate]
num_bootstrap = 20
[export]
variants = ["float32"]
"""
    )
    config = load_config(tmp_path / "workflow.toml")
    result = run_workflow(config, output=tmp_path)
    assert result.release.version == 1
    assert run_workflow(config, output=tmp_path).skipped == ("prepare", "transfer", "evaluate", "export")


def test_images_beyond_the_models_limit_are_refused_before_training(data):
    model = build_image_classifier(
        tiny_network(), classes=data.classes, image_size=SIZE, max_pixels=SIZE * SIZE - 1
    )
    with pytest.raises(ConfigError, match=r"an image of 32 x 32 pixels, more than .* max_pixels = 1,023"):
        train(model, data, verbose=False)


def test_groups_that_no_source_has_are_refused(tmp_path):
    for label in ("cat", "dog"):
        (tmp_path / label).mkdir()
        for row in range(3):
            pixels = np.full((8, 8, 3), 40 * row + len(label), np.uint8)
            (tmp_path / label / f"{row}.bmp").write_bytes(bmp_file(pixels))
    with pytest.raises(DataError, match="no column 'object' of groups"):
        load_image_data(tmp_path, group="object")


def test_an_archive_that_lost_a_file_is_unpacked_again(tmp_path, monkeypatch):
    monkeypatch.setenv("TFAPP_CACHE", str(tmp_path / "cache"))
    with tarfile.open(tmp_path / "photos.tar", "w") as archive:
        for label in ("cat", "dog"):
            content = io.BytesIO(label.encode())
            member = tarfile.TarInfo(f"photos/{label}/1.bmp")
            member.size = len(label)
            archive.addfile(member, content)
    folder = unpack(tmp_path / "photos.tar")
    lost = next(folder.rglob("*.bmp"))
    lost.unlink()
    assert unpack(tmp_path / "photos.tar") == folder
    assert lost.read_bytes() in (b"cat", b"dog")


@pytest.mark.browser
def test_a_browser_classifies_pictures_as_the_model_does(browser, litertjs, trained, data, tmp_path):
    from browser import static_server
    from PIL import Image

    model, _, _ = trained
    budget = Budget(min_agreement=0.95, max_accuracy_drop=0.05)
    variants = ["float32", "int8"]
    released = export(
        model,
        tmp_path / "stripes",
        check_with=data.test,
        data=data,
        variants=variants,
        budget=budget,
        web=True,
    )
    ready = "document.documentElement.dataset.state === 'ready'"
    pictures = {}
    for number, name in enumerate(("lying.png", "standing.jpg", "lying.bmp")):
        wave = np.where(np.arange(90) // 11 % 2, 180, 70).astype(np.uint8)
        wave = np.broadcast_to(wave[:, None] if name.startswith("lying") else wave, (90, 90))
        pictures[name] = tmp_path / name
        Image.fromarray(np.stack([wave, wave + number, wave], axis=-1)).save(pictures[name])
    inputs, _ = model.preprocessor.fixed([path.read_bytes() for path in pictures.values()])
    scaled = np.asarray(model(inputs, training=False)) / model.temperature
    expected = np.exp(scaled) / np.exp(scaled).sum(axis=1, keepdims=True)
    with static_server(released.path / "edge") as address:
        page = browser.open(f"{address}web/?variant=float32")
        page.wait(ready)
        for name, probabilities in zip(pictures, expected, strict=True):
            page.run("document.getElementById('result').hidden = true")
            page.choose_file("#file", pictures[name])
            page.wait(f"!document.getElementById('result').hidden && {ready}")
            assert page.run("document.getElementById('answer').textContent") == name.split(".")[0]
            shown = page.run("document.querySelector('.bar .value').textContent")
            assert float(shown.removesuffix(" %")) == pytest.approx(100 * probabilities.max(), abs=0.06)
        assert not page.run("document.getElementById('preview').hidden")
        Image.open(pictures["standing.jpg"]).save(tmp_path / "dropped.png")
        dropped = base64.b64encode((tmp_path / "dropped.png").read_bytes()).decode()
        page.run("document.getElementById('result').hidden = true")
        page.run(
            f"const bytes = Uint8Array.from(atob('{dropped}'), (letter) => letter.charCodeAt(0));"
            "document.dispatchEvent(Object.assign(new Event('drop', { cancelable: true }), "
            "{ dataTransfer: { files: [new File([bytes], 'dropped.png')] } }))"
        )
        page.wait(f"!document.getElementById('result').hidden && {ready}")
        assert page.run("document.getElementById('answer').textContent") == "standing"
        assert "dropped.png" in page.run("document.getElementById('preview').alt")
        page.run(
            "document.dispatchEvent(Object.assign(new Event('drop', { cancelable: true }), "
            "{ dataTransfer: { files: [new File(['no picture'], 'x.png')] } }))"
        )
        page.wait("document.getElementById('status').textContent.includes('no picture that the browser can')")
        # Neither what is refused is shown, nor the answer to the one before it.
        for name in ("preview", "result"):
            assert page.run(f"document.getElementById('{name}').hidden")
        assert page.run("document.getElementById('repeat').disabled")
        for variant in variants:
            page = browser.open(f"{address}web/?variant={variant}", width=390, height=844)
            page.wait(ready)
            page.run("document.getElementById('check').click()")
            page.wait("document.getElementById('verdict').dataset.found")
            found = json.loads(page.run("document.getElementById('verdict').dataset.found"))
            assert (found["agree"] + found["ties"], found["total"]) == (50, 50)
            # JPEG files that are decoded at a fraction of their size come out a little different.
            assert found["same"] >= 40
            assert found["largest"] <= found["tolerance"]
            assert found["verdict"] == "good", found
            assert page.run("document.documentElement.scrollWidth") <= 390
            assert page.complaints() == []


@pytest.mark.qemu
def test_golden_images_are_answered_alike_on_another_processor(aarch64, release, tmp_path, monkeypatch):
    from aarch64 import check_answers_there

    variants = ("float32", "float16", "dynamic", "int8")
    check_answers_there(aarch64, release.path / "edge", variants, tmp_path, monkeypatch)


def test_a_server_answers_images_whatever_was_sent_beside_them(release):
    """One image that cannot be decoded spoils no request that it was joined with."""
    pytest.importorskip("uvicorn", reason="the extra 'serve' is not installed")
    from asgi import ask

    from tfapp.serving.server import Batching, Limits, ServerSettings
    from tfapp.serving.server.core import Core
    from tfapp.serving.server.loaded import LoadedModel
    from tfapp.serving.server.metrics import Metrics
    from tfapp.serving.server.rest import RestApp
    from tfapp.serving.server.versions import Versions

    golden = Golden.load(release.path / "edge" / "golden.json")
    images = list(golden.probe().features)[:12]
    large = tf.io.encode_png(np.zeros((200, 200, 3), np.uint8)).numpy()
    bad = [b"", b"no image", images[0][: len(images[0]) // 2], large, b"\xff\xd8\xff" + bytes(80)]
    batching = Batching(max_batch_size=16, batch_timeout_micros=20_000)
    versions = Versions(release.path, lambda path, number: LoadedModel(path, number, batching=batching))
    core = Core(
        versions, ServerSettings(release=release.path, limits=Limits(pixels=30_000)), Metrics("stripes")
    )

    async def all_at_once():
        await versions.refresh()
        rows = [{"image_bytes": {"b64": base64.b64encode(image).decode()}} for image in [*bad, *images]]
        path = "/v1/models/stripes:predict"
        answers = await asyncio.gather(
            *(ask(RestApp(core), "POST", path, {"instances": [row]}) for row in rows)
        )
        await versions.close()
        return answers

    answers = asyncio.run(all_at_once())
    core.close()
    assert [answer.status for answer in answers] == [400] * len(bad) + [200] * len(images)
    words = ["the file is empty", "not an image", "", "200 x 200 pixels, more than max_pixels = 30,000", ""]
    for answer, said in zip(answers, words, strict=False):
        assert said in answer.json["error"]
        assert "Graph execution error" not in answer.json["error"]
    rows = [answer.json["predictions"][0]["probabilities"] for answer in answers[len(bad) :]]
    np.testing.assert_allclose(rows, golden.probabilities[:12], atol=golden.tolerance["saved_model"])
