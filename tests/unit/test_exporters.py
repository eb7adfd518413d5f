import importlib
import pkgutil
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf

from tfapp import exporters
from tfapp.errors import ConfigError, WeightsError
from tfapp.exporters import EXPORTERS, export_keras, export_tflite, in_float32, tflite
from tfapp.exporters._graph import InferenceGraph
from tfapp.exporters._operators import check_operators, operators


def convert(function, spec):
    """Converts a function, leaving what TFLite lacks as custom operators."""
    traced = tf.function(function, input_signature=[spec], autograph=False).get_concrete_function()
    converter = tf.lite.TFLiteConverter.from_concrete_functions([traced])
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
    converter.allow_custom_ops = True
    return converter.convert()


def test_every_exporter_is_in_the_dict():
    modules = [module.name for module in pkgutil.iter_modules(exporters.__path__)]
    public = {f"tfapp.exporters.{name}" for name in modules if not name.startswith("_")}
    assert {exporter.__module__ for exporter in EXPORTERS.values()} == public
    assert all(importlib.import_module(name).__doc__ for name in public)


def test_operators_are_read_from_the_file():
    content = convert(lambda x: tf.nn.softmax(tf.matmul(x, x)), tf.TensorSpec([3, 3], tf.float32))
    assert operators(content)[0] & {"SOFTMAX", "BATCH_MATMUL", "FULLY_CONNECTED"} >= {"SOFTMAX"}
    assert operators(content)[1] == set()
    check_operators(content)


def test_a_foreign_operator_is_refused_by_name():
    content = convert(tf.strings.lower, tf.TensorSpec([1], tf.string))
    with pytest.raises(WeightsError, match="StringLower"):
        check_operators(content)
    check_operators(content, allowed_custom=frozenset({"StringLower"}))


def test_unfrozen_weights_are_refused():
    from ai_edge_litert import schema_py_generated as schema

    code = schema.OperatorCodeT()
    code.builtinCode = schema.BuiltinOperator.VAR_HANDLE
    code.deprecatedBuiltinCode = 127
    model = schema.ModelT()
    model.operatorCodes = [code]
    import flatbuffers

    builder = flatbuffers.Builder(64)
    builder.Finish(model.Pack(builder))
    with pytest.raises(WeightsError, match="empty variables"):
        check_operators(bytes(builder.Output()))


def test_an_unknown_variant_names_the_choices(tiny_classifier, tmp_path):
    with pytest.raises(ConfigError, match="did you mean 'float16'"):
        export_tflite(tiny_classifier, tmp_path, variant="flaot16")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["two\nlines", "", "line\u2028separator", "ends\u2028"])
def test_a_class_name_must_fit_a_line(name):
    model = SimpleNamespace(classes=("good", name))
    with pytest.raises(ConfigError, match="line break"):
        InferenceGraph(model)


def test_of_an_integer_file_that_cannot_be_run_no_report_is_left(tmp_path, monkeypatch):
    preprocessor = SimpleNamespace(variants=("int8",), asset_files=dict)
    model = SimpleNamespace(preprocessor=preprocessor, classes=("cat", "dog"))
    monkeypatch.setattr(tflite, "_integers", lambda *given: (b"content", {"layers": []}))

    def refuse(content, **options):
        raise WeightsError("foreign operators")

    monkeypatch.setattr(tflite, "check_operators", refuse)
    with pytest.raises(WeightsError, match="foreign"):
        export_tflite(model, tmp_path, variant="int8", calibration=[b"image"], min_agreement=0.9)
    assert list((tmp_path / "edge").iterdir()) == []


def test_a_float32_model_is_not_copied(tiny_classifier):
    assert in_float32(tiny_classifier) is tiny_classifier


def test_specs_follow_the_declared_inputs(tiny_classifier):
    graph = InferenceGraph(tiny_classifier)
    assert {name: spec.shape.as_list() for name, spec in graph.specs(batch=1, length=32).items()} == {
        "token_ids": [1, 32],
        "padding_mask": [1, 32],
        "segment_ids": [1, 32],
    }
    assert {tuple(spec.shape.as_list()) for spec in graph.specs(None, None).values()} == {(None, None)}


def test_outputs_use_the_temperature_and_the_class_names(tiny_classifier):
    tiny_classifier.temperature = 3.0
    inputs = tiny_classifier.preprocessor(tf.constant(["good film", "bad share"]))
    graph = InferenceGraph(tiny_classifier)
    outputs = graph.outputs(graph.logits(inputs))
    logits = tiny_classifier(inputs, training=False).numpy()
    np.testing.assert_allclose(outputs["logits"], logits, atol=1e-6)
    np.testing.assert_allclose(outputs["probabilities"], tf.nn.softmax(logits / 3.0), atol=1e-6)
    assert [name.decode() for name in outputs["label"].numpy()] == [
        tiny_classifier.classes[index] for index in logits.argmax(axis=1)
    ]


def test_one_variant_alone_leaves_no_intermediate_files(tiny_classifier, tmp_path):
    from ai_edge_litert.interpreter import Interpreter

    path = export_tflite(tiny_classifier, tmp_path, variant="dynamic")
    assert path == tmp_path / "edge" / "model-dynamic.tflite"
    names = {"labels.txt", "model-dynamic.tflite", "vocab.txt"}
    assert {item.name for item in path.parent.iterdir()} == names
    texts = ["good film"]
    (answer,) = Interpreter(model_path=str(path)).get_signature_runner()(
        **tiny_classifier.preprocessor.fixed(texts)[0]
    )["probabilities"]
    logits = tiny_classifier(tiny_classifier.preprocessor(texts), training=False)
    np.testing.assert_allclose(answer, tf.nn.softmax(logits)[0], atol=0.01)


def test_the_keras_file_needs_no_class_of_tfapp(tiny_classifier, tmp_path):
    import json
    import zipfile

    path = export_keras(tiny_classifier, tmp_path)
    with zipfile.ZipFile(path) as archive:
        config = archive.read("config.json").decode()
    assert "tfapp" not in config
    assert json.loads(config)["class_name"] == "Functional"
