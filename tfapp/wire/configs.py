"""Configuration files of TF Serving, which are protocol buffers written as text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from google.protobuf import text_format

from tfapp.errors import ReleaseError
from tfapp.wire.schema import make_messages

_POLICY = "tensorflow.serving.FileSystemStoragePathSourceConfig.ServableVersionPolicy"

_MADE: dict[str, Any] = make_messages(
    "configs",
    {
        "tensorflow.serving.FileSystemStoragePathSourceConfig": "",
        _POLICY: f"""
            100 {_POLICY}.Latest latest
            101 {_POLICY}.All all
            102 {_POLICY}.Specific specific
        """,
        f"{_POLICY}.Latest": "1 uint32 num_versions",
        f"{_POLICY}.All": "",
        f"{_POLICY}.Specific": "1 repeated int64 versions",
        "tensorflow.serving.LogCollectorConfig": """
            1 string type
            2 string filename_prefix
        """,
        "tensorflow.serving.PerTaskSamplingConfig": """
            1 string dc
            2 optional int32 task_index
            3 double sampling_rate
        """,
        "tensorflow.serving.SamplingConfig": """
            1 double sampling_rate
            2 int32 attributes
            3 repeated tensorflow.serving.PerTaskSamplingConfig per_task_sampling_configs
        """,
        "tensorflow.serving.LoggingConfig": """
            1 tensorflow.serving.LogCollectorConfig log_collector_config
            2 tensorflow.serving.SamplingConfig sampling_config
            3 google.protobuf.Any custom_logging_config
        """,
        "tensorflow.serving.ModelConfig": f"""
            1 string name
            2 string base_path
            3 enum<MODEL_TYPE_UNSPECIFIED,TENSORFLOW,OTHER> model_type
            4 string model_platform
            6 tensorflow.serving.LoggingConfig logging_config
            7 {_POLICY} model_version_policy
            8 map<string,int64> version_labels
        """,
        "tensorflow.serving.ModelConfigList": "1 repeated tensorflow.serving.ModelConfig config",
        "tensorflow.serving.ModelServerConfig": """
            1 tensorflow.serving.ModelConfigList model_config_list
            2 google.protobuf.Any custom_model_config
        """,
        "tensorflow.serving.BatchingParameters": """
            1 google.protobuf.Int64Value max_batch_size
            2 google.protobuf.Int64Value batch_timeout_micros
            3 google.protobuf.Int64Value max_enqueued_batches
            4 google.protobuf.Int64Value num_batch_threads
            5 google.protobuf.StringValue thread_pool_name
            6 repeated int64 allowed_batch_sizes
            7 bool pad_variable_length_inputs
            8 google.protobuf.BoolValue enable_large_batch_splitting
            9 google.protobuf.Int64Value max_execution_batch_size
        """,
        "tensorflow.serving.PrometheusConfig": """
            1 bool enable
            2 string path
        """,
        "tensorflow.serving.MonitoringConfig": "1 tensorflow.serving.PrometheusConfig prometheus_config",
    },
)

ModelConfig = _MADE["tensorflow.serving.ModelConfig"]
ModelServerConfig = _MADE["tensorflow.serving.ModelServerConfig"]
BatchingParameters = _MADE["tensorflow.serving.BatchingParameters"]
MonitoringConfig = _MADE["tensorflow.serving.MonitoringConfig"]


def read_config(path: Path, message: Any) -> Any:
    """Reads a configuration file.

    Args:
        path: A text file in the format of protocol buffers.
        message: An empty message of its kind, which is filled.

    Returns:
        The message.

    Raises:
        ReleaseError: When the file cannot be read.
    """
    try:
        return text_format.Parse(path.read_text(encoding="utf-8"), message)
    except (OSError, ValueError, text_format.ParseError) as error:
        raise ReleaseError(
            f"{path} cannot be read ({error}); mend it, or delete it to have it written anew."
        ) from error
