"""The ONNX file: what it promises to its reader, and what keeps it from being made."""

import json
import logging
import math
import os
from types import SimpleNamespace

import keras
import numpy as np
import onnx
import onnxruntime
import pytest
import tensorflow as tf
from helpers import tiny_text_classifier

from tfapp.errors import ConfigError, WeightsError
from tfapp.exporters import export_onnx, onnx_obstacle
from tfapp.exporters import onnx as exporter
from tfapp.exporters._graph import InferenceGraph
from tfapp.models import build_image_classifier
from tfapp.release.artifacts import choose_variants


def sizes(tensor):
    return [size.dim_param or size.dim_value for size in tensor.type.tensor_type.shape.dim]


@pytest.fixture(scope="module")
def classifier(tiny_vocab):
    model = tiny_text_classifier(tiny_vocab, ("business", "sport", "tech"), width=32)
    model.temperature = 1.7
    return model


@pytest.fixture(scope="module")
def written(classifier, tmp_path_factory):
    directory = tmp_path_factory.mktemp("onnx")
    path = export_onnx(classifier, directory)
    assert path == directory / "onnx" / "model.onnx"
    assert [item.name for item in path.parent.iterdir()] == ["model.onnx"]
    return path


def image_classifier():
    """A network of convolutions with batch normalisation whose moving averages are not those of a new one."""
    keras.utils.set_random_seed(3)
    inputs = keras.Input((16, 12, 3))
    tensors = inputs
    for width in (8, 160):
        tensors = keras.layers.Conv2D(width, 3, padding="same", strides=2, use_bias=False)(tensors)
        tensors = keras.layers.BatchNormalization()(tensors)
        tensors = keras.layers.ReLU()(tensors)
    wide = keras.layers.Conv2D(420, 1)(tensors)  # its kernel is large enough to be kept from the converter
    backbone = keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(wide))
    generator = np.random.default_rng(3)
    for layer in backbone.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.set_weights([generator.uniform(0.5, 2.0, each.shape) for each in layer.get_weights()])
    return build_image_classifier(backbone, classes=("cat", "dog"), image_size=(16, 12))


def test_inputs_and_outputs_are_those_of_the_contract(written):
    proto = onnx.load(written)
    names = {"token_ids", "padding_mask", "segment_ids"}
    assert {given.name for given in proto.graph.input} == names
    assert all(sizes(given) == ["batch", "length"] for given in proto.graph.input)
    assert {given.type.tensor_type.elem_type for given in proto.graph.input} == {onnx.TensorProto.INT32}
    (made,) = proto.graph.output
    assert (made.name, sizes(made)) == ("probabilities", ["batch", 3])
    assert [(each.domain, each.version) for each in proto.opset_import] == [("", exporter.OPSET)]
    assert {node.domain for node in proto.graph.node} == {""}


def test_it_answers_as_the_model_for_any_number_of_rows_of_any_length(written, classifier):
    session = onnxruntime.InferenceSession(written, providers=["CPUExecutionProvider"])
    graph = InferenceGraph(classifier)
    generator = np.random.default_rng(0)
    for rows, length in ((1, 3), (5, 17), (2, 32)):
        mask = (np.arange(length) < generator.integers(2, length + 1, (rows, 1))).astype(np.int32)
        ids = generator.integers(5, 200, (rows, length)).astype(np.int32) * mask
        tensors = {"token_ids": ids, "padding_mask": mask, "segment_ids": np.zeros_like(ids)}
        (found,) = session.run(["probabilities"], tensors)
        expected = graph.probabilities({name: tf.constant(values) for name, values in tensors.items()})
        np.testing.assert_allclose(found, expected, atol=1e-6)


def test_the_metadata_is_enough_to_tokenize_and_to_name_classes(written, classifier):
    found = onnxruntime.InferenceSession(written).get_modelmeta().custom_metadata_map
    assert found["labels.txt"] == "business\nsport\ntech\n"
    assert found["vocab.txt"].encode() == classifier.preprocessor.asset_files()["vocab.txt"]
    assert json.loads(found["preprocessor"]) == {
        "tokenizer": "wordpiece",
        "lowercase": True,
        "max_length": 32,
        "long_texts": "truncate",
    }


def test_images_become_convolutions_alone_and_weights_are_there_once(tmp_path):
    model = image_classifier()
    path = export_onnx(model, tmp_path)
    proto = onnx.load(path)
    (given,) = proto.graph.input
    assert (given.name, sizes(given)) == ("pixels", ["batch", 16, 12, 3])
    assert given.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    operators = [node.op_type for node in proto.graph.node]
    assert operators.count("Conv") == 3
    assert "BatchNormalization" not in operators
    weights = sum(4 * math.prod(variable.shape) for variable in model.variables)
    assert path.stat().st_size < weights + 20_000
    pixels = np.random.default_rng(1).uniform(0, 255, (3, 16, 12, 3)).astype(np.float32)
    (found,) = onnxruntime.InferenceSession(path).run(["probabilities"], {"pixels": pixels})
    expected = InferenceGraph(model).probabilities({"pixels": tf.constant(pixels)})
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert np.ptp(found[:, 0]) > 1e-4


def test_an_operator_that_onnx_lacks_is_named(tmp_path):
    class Bessel(keras.layers.Layer):
        def call(self, inputs):
            return tf.math.bessel_i0e(inputs)

    inputs = keras.Input((8, 8, 3))
    backbone = keras.Model(inputs, Bessel()(keras.layers.GlobalAveragePooling2D()(inputs)))
    model = build_image_classifier(backbone, classes=("cat", "dog"), image_size=8)
    with pytest.raises(WeightsError, match="the model needs BesselI0e, which ONNX does not have"):
        export_onnx(model, tmp_path)
    assert list(tmp_path.rglob("*.onnx")) == []


def test_what_the_converter_sets_for_the_process_is_taken_back(classifier, tmp_path, monkeypatch):
    logger = logging.getLogger("tf2onnx")
    for before in ("2", None):
        if before is None:
            monkeypatch.delenv("TF_CPP_MIN_LOG_LEVEL", raising=False)
        else:
            monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", before)
        level = logger.level
        with exporter._tf2onnx():
            os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
        assert os.environ.get("TF_CPP_MIN_LOG_LEVEL") == before
        assert logger.level == level


def test_weights_beyond_what_the_format_holds_are_refused(classifier, tmp_path, monkeypatch):
    monkeypatch.setattr(exporter, "_MOST_BYTES", 50_000)
    with pytest.raises(WeightsError, match=r"the weights take 0\.00 GB, and an ONNX file holds 2\.1 GB"):
        export_onnx(classifier, tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def without_packages(monkeypatch):
    """As if the converter and the runtime were not installed."""
    find = exporter.importlib.util.find_spec

    def find_others(name, *arguments):
        return None if name in ("tf2onnx", "onnxruntime") else find(name, *arguments)

    monkeypatch.setattr(exporter, "importlib", SimpleNamespace(util=SimpleNamespace(find_spec=find_others)))


def test_without_the_extra_it_is_left_out_and_the_cure_is_told(classifier, caplog, without_packages):
    with caplog.at_level(logging.INFO, logger="tfapp"):
        chosen = choose_variants(classifier, None)
    assert chosen == ("saved_model", "keras", "float32", "float16", "dynamic", "text")
    assert (
        "onnx is left out: it needs tf2onnx, onnxruntime, not installed here: run "
        '`pip install "tfapp[onnx]"`' in caplog.text
    )


def test_asking_for_it_without_the_extra_is_refused(classifier, tmp_path, without_packages):
    with pytest.raises(ConfigError, match=r'needs tf2onnx, onnxruntime.*pip install "tfapp\[onnx\]"'):
        choose_variants(classifier, ["onnx"])
    with pytest.raises(ConfigError, match=r'pip install "tfapp\[onnx\]"'):
        export_onnx(classifier, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_with_the_extra_nothing_stands_in_the_way(classifier):
    assert onnx_obstacle() is None
    assert choose_variants(classifier, None)[-1] == "onnx"
