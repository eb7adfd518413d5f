"""The files of ``serving/``: their names, and what is written once (batching, monitoring, a container)."""

from __future__ import annotations

FOLDER = "serving"
"""Where they lie, beside the versions."""

MODELS_FILE, BATCHING_FILE, MONITORING_FILE = "models.config", "batching.config", "monitoring.config"

IMAGE = "tensorflow/serving"
_TAGS = {"2.20": "2.20.0", "2.21": "2.21.0"}
"""For each TensorFlow that tfapp takes, the server of the same one."""

POLL_SECONDS = 10
METRICS_PATH = "/monitoring/prometheus/metrics"


def image_of(tensorflow: str) -> str:
    """Chooses the container image whose server has the TensorFlow that a release was measured with.

    Args:
        tensorflow: Its version.

    Returns:
        The image with its tag; that of the newest known TensorFlow for one that is not known.
    """
    minor = ".".join(tensorflow.split(".")[:2])
    return f"{IMAGE}:{_TAGS.get(minor, list(_TAGS.values())[-1])}"


def server_arguments(folder: str, *, joins: bool) -> list[str]:
    """Gives the server's arguments.

    Args:
        folder: Where it finds ``serving/``.
        joins: Whether requests are joined into batches.

    Returns:
        The arguments, beside those of the image.
    """
    arguments = [
        f"--model_config_file={folder}/{MODELS_FILE}",
        f"--model_config_file_poll_wait_seconds={POLL_SECONDS}",
        f"--file_system_poll_wait_seconds={POLL_SECONDS}",
        # Labels of versions that are still being loaded when the server starts.
        "--allow_version_labels_for_unavailable_models=true",
        f"--monitoring_config_file={folder}/{MONITORING_FILE}",
    ]
    if joins:
        arguments += ["--enable_batching=true", f"--batching_parameters_file={folder}/{BATCHING_FILE}"]
    return arguments


def batching_config() -> str:
    """Writes how requests are joined: a start for `tfapp tune-serving`, which measures."""
    return """\
# How requests are joined into batches. Written once by tfapp: change it, or let `tfapp tune-serving` measure.
# A request of more rows than max_batch_size is refused. Requests of serve_ids are joined only if their texts
# are padded to one length; strings may have any.
max_batch_size { value: 32 }
batch_timeout_micros { value: 0 }
max_enqueued_batches { value: 100 }
"""


def monitoring_config() -> str:
    """Writes where Prometheus finds the server's metrics, on the port of REST."""
    return f"""\
# Written once by tfapp.
prometheus_config {{
  enable: true
  path: "{METRICS_PATH}"
}}
"""


def compose_file(name: str, *, image: str, joins: bool) -> str:
    """Writes what `docker compose up` runs: the stock image, with the versions mounted read-only.

    Args:
        name: The model's name.
        image: The image with its tag.
        joins: Whether requests are joined into batches.
    """
    folder = f"/models/{name}/serving"
    arguments = "\n".join(f"      - {each}" for each in server_arguments(folder, joins=joins))
    alone = """\
    # Without --enable_batching: of requests joined into a batch, one image that cannot be decoded fails all.
"""
    return f"""\
# TF Serving with every version that models.config lists. Written once by tfapp: change it as you like.
#   docker compose up -d          in this folder; then http://localhost:8501 (REST), localhost:8500 (gRPC)
services:
  {name}:
    image: {image}
{"" if joins else alone}    command:
{arguments}
    ports:
      - "127.0.0.1:8500:8500"
      - "127.0.0.1:8501:8501"
    volumes:
      - ..:/models/{name}:ro
    healthcheck:
      test:
        - CMD
        - bash
        - -c
        - >-
          exec 3<>/dev/tcp/127.0.0.1/8501 &&
          printf 'GET /v1/models/{name} HTTP/1.0\\r\\n\\r\\n' >&3 && grep -q AVAILABLE <&3
      interval: 10s
      timeout: 5s
      start_period: 120s
    read_only: true
    cap_drop: [ALL]
    security_opt: ["no-new-privileges:true"]
    restart: unless-stopped
"""
