"""Requests, answers and warm-up records of TF Serving."""

from __future__ import annotations

from typing import Any

from tfapp.wire.schema import make_messages

_APIS = "tensorflow.serving"

_MADE: dict[str, Any] = make_messages(
    "messages",
    {
        "tensorflow.TensorShapeProto": """
            2 repeated tensorflow.TensorShapeProto.Dim dim
            3 bool unknown_rank
        """,
        "tensorflow.TensorShapeProto.Dim": """
            1 int64 size
            2 string name
        """,
        "tensorflow.TensorProto": """
            1 int32 dtype
            2 tensorflow.TensorShapeProto tensor_shape
            4 bytes tensor_content
            5 repeated float float_val
            6 repeated double double_val
            7 repeated int32 int_val
            8 repeated bytes string_val
            10 repeated int64 int64_val
        """,
        "tensorflow.TensorInfo": """
            1 string name
            2 int32 dtype
            3 tensorflow.TensorShapeProto tensor_shape
        """,
        "tensorflow.SignatureDef": """
            1 map<string,tensorflow.TensorInfo> inputs
            2 map<string,tensorflow.TensorInfo> outputs
            3 string method_name
        """,
        "tensorflow.BytesList": "1 repeated bytes value",
        "tensorflow.Feature": "1 tensorflow.BytesList bytes_list",
        "tensorflow.Features": "1 map<string,tensorflow.Feature> feature",
        "tensorflow.Example": "1 tensorflow.Features features",
        f"{_APIS}.ModelSpec": """
            1 string name
            2 google.protobuf.Int64Value version
            3 string signature_name
            4 string version_label
        """,
        f"{_APIS}.PredictRequest": """
            1 tensorflow.serving.ModelSpec model_spec
            2 map<string,tensorflow.TensorProto> inputs
            3 repeated string output_filter
        """,
        f"{_APIS}.PredictResponse": """
            1 map<string,tensorflow.TensorProto> outputs
            2 tensorflow.serving.ModelSpec model_spec
        """,
        f"{_APIS}.GetModelMetadataRequest": """
            1 tensorflow.serving.ModelSpec model_spec
            2 repeated string metadata_field
        """,
        f"{_APIS}.GetModelMetadataResponse": """
            1 tensorflow.serving.ModelSpec model_spec
            2 map<string,google.protobuf.Any> metadata
        """,
        f"{_APIS}.SignatureDefMap": "1 map<string,tensorflow.SignatureDef> signature_def",
        f"{_APIS}.GetModelStatusRequest": "1 tensorflow.serving.ModelSpec model_spec",
        f"{_APIS}.StatusProto": """
            1 int32 error_code
            2 string error_message
        """,
        f"{_APIS}.ModelVersionStatus": """
            1 int64 version
            2 int32 state
            3 tensorflow.serving.StatusProto status
        """,
        f"{_APIS}.GetModelStatusResponse": """
            1 repeated tensorflow.serving.ModelVersionStatus model_version_status
        """,
        f"{_APIS}.PredictLog": """
            1 tensorflow.serving.PredictRequest request
            2 tensorflow.serving.PredictResponse response
        """,
        f"{_APIS}.PredictionLog": "6 tensorflow.serving.PredictLog predict_log",
    },
)

TensorProto = _MADE["tensorflow.TensorProto"]
Example = _MADE["tensorflow.Example"]
PredictRequest = _MADE["tensorflow.serving.PredictRequest"]
PredictResponse = _MADE["tensorflow.serving.PredictResponse"]
GetModelMetadataRequest = _MADE["tensorflow.serving.GetModelMetadataRequest"]
GetModelMetadataResponse = _MADE["tensorflow.serving.GetModelMetadataResponse"]
SignatureDefMap = _MADE["tensorflow.serving.SignatureDefMap"]
GetModelStatusRequest = _MADE["tensorflow.serving.GetModelStatusRequest"]
GetModelStatusResponse = _MADE["tensorflow.serving.GetModelStatusResponse"]
PredictionLog = _MADE["tensorflow.serving.PredictionLog"]

DEFAULT_SIGNATURE = "serving_default"
"""The signature that is run where a request names none."""

VERSION_STATES = {0: "UNKNOWN", 10: "START", 20: "LOADING", 30: "AVAILABLE", 40: "UNLOADING", 50: "END"}
"""Names of the states of a version, by their number in ``ModelVersionStatus``."""
