"""The hand-described protocol buffers are TF Serving's own, byte for byte."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import descriptor_pool, text_format
from tensorflow.core.protobuf import meta_graph_pb2
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_service_pb2,
    predict_pb2,
    prediction_log_pb2,
    prediction_service_pb2,
)
from tensorflow_serving.config import model_server_config_pb2

from tfapp.serving.client.channel import _METHODS
from tfapp.wire import configs, messages
from tfapp.wire.tensors import example, read_tensor, string_tensor

REAL = descriptor_pool.Default()
# TF Serving's Python package has no modules for these two files.
NOT_PACKAGED = {
    "tensorflow.serving.BatchingParameters",
    "tensorflow.serving.PrometheusConfig",
    "tensorflow.serving.MonitoringConfig",
}
MADE = {**messages._MADE, **configs._MADE}
# Made for the messages inside it alone.
ONLY_A_PLACE = {"tensorflow.serving.FileSystemStoragePathSourceConfig"}
MODELS = """
model_config_list {
  config {
    name: "reviews"
    base_path: "/models/reviews"
    model_type: TENSORFLOW
    model_platform: "tensorflow"
    model_version_policy { specific { versions: 1 versions: 2 } }
    version_labels { key: "stable" value: 1 }
    logging_config {
      log_collector_config { type: "files" filename_prefix: "/logs" }
      sampling_config {
        sampling_rate: 0.5
        attributes: 3
        per_task_sampling_configs { dc: "here" task_index: 0 sampling_rate: 1.0 }
      }
      custom_logging_config { type_url: "type.googleapis.com/some.Config" value: "\\010\\001" }
    }
  }
}
"""


def shape_of(field):
    """What of a field decides its bytes; enumerations and int32 are written alike."""
    kinds = {field.TYPE_ENUM: field.TYPE_INT32}
    message = field.message_type
    if message is not None and message.GetOptions().map_entry:
        return field.number, "map", [shape_of(part) for part in message.fields]
    inner = message.full_name if message is not None else None
    return field.number, kinds.get(field.type, field.type), field.is_repeated, inner


@pytest.mark.parametrize("name", sorted(set(MADE) - NOT_PACKAGED))
def test_every_field_is_that_of_the_real_message(name):
    real = REAL.FindMessageTypeByName(name)
    for field in MADE[name].DESCRIPTOR.fields:
        assert shape_of(field) == shape_of(real.fields_by_name[field.name])


@pytest.mark.parametrize("name", sorted(set(configs._MADE) - NOT_PACKAGED - ONLY_A_PLACE))
def test_no_field_of_a_configuration_is_left_out(name):
    real, ours = REAL.FindMessageTypeByName(name), MADE[name].DESCRIPTOR
    assert {(field.name, field.has_presence) for field in ours.fields} == {
        (field.name, field.has_presence) for field in real.fields
    }


def test_only_what_the_package_lacks_is_not_compared():
    for name in NOT_PACKAGED:
        with pytest.raises(KeyError):
            REAL.FindMessageTypeByName(name)


def test_methods_are_those_of_the_real_services():
    services = {
        **prediction_service_pb2.DESCRIPTOR.services_by_name,
        **model_service_pb2.DESCRIPTOR.services_by_name,
    }
    real = {
        f"/{service.full_name}/{method.name}" for service in services.values() for method in service.methods
    }
    assert set(_METHODS.values()) <= real


def test_states_of_versions_have_their_real_numbers():
    real = get_model_status_pb2.ModelVersionStatus.State
    assert {number: name for name, number in real.items()} == messages.VERSION_STATES


def test_a_request_means_the_same_to_the_real_message():
    ours = messages.PredictRequest(output_filter=["label"])
    ours.model_spec.name, ours.model_spec.version_label = "reviews", "stable"
    ours.inputs["text"].CopyFrom(string_tensor(["zwölf".encode(), b""]))
    real = predict_pb2.PredictRequest.FromString(ours.SerializeToString())
    assert (real.model_spec.name, real.model_spec.version_label) == ("reviews", "stable")
    assert tf.make_ndarray(real.inputs["text"]).tolist() == ["zwölf".encode(), b""]
    again = messages.PredictRequest.FromString(real.SerializeToString())
    assert again == ours


def test_a_warmup_record_means_the_same_to_the_real_message():
    ours = messages.PredictionLog()
    ours.predict_log.request.inputs["text"].CopyFrom(string_tensor([b"good film"]))
    real = prediction_log_pb2.PredictionLog.FromString(ours.SerializeToString())
    assert real.WhichOneof("log_type") == "predict_log"
    assert real.predict_log.request.inputs["text"].string_val == [b"good film"]


def test_signatures_are_found_in_the_real_metadata():
    real = get_model_metadata_pb2.SignatureDefMap()
    real.signature_def["serving_default"].CopyFrom(
        meta_graph_pb2.SignatureDef(
            inputs={"text": meta_graph_pb2.TensorInfo(dtype=tf.string.as_datatype_enum)}
        )
    )
    response = get_model_metadata_pb2.GetModelMetadataResponse()
    response.metadata["signature_def"].Pack(real)
    packed = messages.GetModelMetadataResponse.FromString(response.SerializeToString())
    ours = messages.SignatureDefMap.FromString(packed.metadata["signature_def"].value)
    assert list(ours.signature_def["serving_default"].inputs) == ["text"]


def test_examples_are_tensorflows():
    found = tf.io.parse_single_example(
        example("text", b"\xff film"), {"text": tf.io.FixedLenFeature([], tf.string)}
    )
    assert found["text"].numpy() == b"\xff film"


@pytest.mark.parametrize(
    "values",
    [
        np.arange(6, dtype=np.float32).reshape(2, 3) / 7,
        np.array([[0.5, 0.25]], np.float64),
        np.array([-1, 2**40]),
        np.array([3, 4], np.int32),
        np.array([b"a", b"", b"\xff"], object),
        np.zeros((0, 3), np.float32),
        np.array([b"one"] * 4, object),
    ],
)
@pytest.mark.parametrize("as_content", [False, True])
def test_tensors_of_tensorflow_are_read(values, as_content):
    tensor = tf.make_tensor_proto(values)
    if not as_content and tensor.tensor_content:
        numbers = {
            tf.float32: "float_val",
            tf.float64: "double_val",
            tf.int32: "int_val",
            tf.int64: "int64_val",
        }
        getattr(tensor, numbers[tf.as_dtype(tensor.dtype)]).extend(values.ravel().tolist())
        tensor.tensor_content = b""
    found = read_tensor(messages.TensorProto.FromString(tensor.SerializeToString()))
    assert found.shape == values.shape
    assert found.tolist() == values.tolist()


def test_equal_values_that_are_written_once_are_read_in_full():
    tensor = messages.TensorProto(dtype=1, float_val=[0.5, 0.25])
    tensor.tensor_shape.dim.add(size=4)
    assert read_tensor(tensor).tolist() == [0.5, 0.25, 0.25, 0.25]
    with pytest.raises(ValueError, match="type 14"):
        read_tensor(messages.TensorProto(dtype=14))
    with pytest.raises(ValueError, match="reshape"):
        read_tensor(messages.TensorProto(dtype=1, float_val=[0.5, 0.25]))


def test_a_real_models_config_is_read_and_written_alike():
    real = text_format.Parse(MODELS, model_server_config_pb2.ModelServerConfig())
    ours = text_format.Parse(MODELS, configs.ModelServerConfig())
    assert ours == configs.ModelServerConfig.FromString(real.SerializeToString())
    assert text_format.MessageToString(ours) == text_format.MessageToString(real)
    assert ours.SerializeToString(deterministic=True) == real.SerializeToString(deterministic=True)
