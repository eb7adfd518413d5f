"""``tfapp serve``: answer requests as TensorFlow Serving does."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from tfapp import terminal
from tfapp.commands._options import debug_option, manifest_option
from tfapp.errors import ConfigError


@click.command(short_help="Serve a release over REST and gRPC, as TensorFlow Serving does.")
@click.argument("release", type=click.Path(path_type=Path))
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen at.")
@click.option("--port", type=click.IntRange(0, 65535), default=8501, show_default=True, help="Of REST.")
@click.option("--grpc-port", type=click.IntRange(0, 65535), default=8500, show_default=True, help="Of gRPC.")
@click.option("--no-grpc", is_flag=True, help="Serve REST alone.")
@click.option(
    "--token-file",
    type=click.Path(path_type=Path),
    help="File of the token that clients send as 'Authorization: Bearer ...'; $TFAPP_TOKEN otherwise.",
)
@click.option("--tls-cert", type=click.Path(path_type=Path), help="PEM file of the certificate chain.")
@click.option("--tls-key", type=click.Path(path_type=Path), help="PEM file of its key.")
@click.option("--threads", type=click.IntRange(1), help="Cores that a batch is computed on; all by default.")
@click.option("--max-batch-size", type=click.IntRange(1), help="Overrules that of batching.config.")
@click.option("--batch-timeout-micros", type=click.IntRange(0), help="Overrules that of batching.config.")
@click.option("--poll-seconds", type=click.FloatRange(0.1), default=2.0, show_default=True)
@click.option("--drain-seconds", type=click.FloatRange(0), default=30.0, show_default=True)
@click.option("--max-body-bytes", "body_bytes", type=click.IntRange(1), help="Of a request; 32 MiB.")
@click.option("--max-rows", "rows", type=click.IntRange(1), help="Texts or images of a request; 1024.")
@click.option("--max-text-bytes", "text_bytes", type=click.IntRange(1), help="Of a text; 256 KiB.")
@click.option("--max-pixels", "pixels", type=click.IntRange(1, 2**28), help="Of an image; 50 million.")
@click.option("--max-waiting-rows", "waiting_rows", type=click.IntRange(1), help="Then 429; 4096.")
@click.option("--request-seconds", "seconds", type=click.FloatRange(0.001), help="Then 504; 30.")
@click.option("--body-seconds", type=click.FloatRange(0.001), help="To send a request; 30.")
@manifest_option
@debug_option
def serve(
    release: Path,
    host: str,
    port: int,
    grpc_port: int,
    no_grpc: bool,
    token_file: Path | None,
    tls_cert: Path | None,
    tls_key: Path | None,
    threads: int | None,
    max_batch_size: int | None,
    batch_timeout_micros: int | None,
    poll_seconds: float,
    drain_seconds: float,
    manifest_sha256: str | None,
    **limits: Any,
) -> None:
    """Serve a release over REST and gRPC, as TensorFlow Serving does.

    RELEASE is saved_models/<name>, whose newest version is served and replaced as soon as a newer one is
    released; or one version folder, which is served alone, and with --manifest-sha256 only if it is the
    release that is meant. The model's name is the folder's. A release that is damaged, refused, or does not
    answer its golden vectors is never served.

    On SIGTERM and SIGINT requests in flight are answered before the process ends.
    """
    token = _token(token_file)
    terminal.load_tensorflow()

    try:
        from tfapp.serving.server import Limits, ServerSettings
        from tfapp.serving.server import serve as serve_release
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"serving needs the package {error.name}: install tfapp with its extra, 'tfapp[serve]'."
        ) from error
    batching = {"max_batch_size": max_batch_size, "batch_timeout_micros": batch_timeout_micros}
    settings = ServerSettings(
        release=release,
        manifest_sha256=manifest_sha256,
        host=host,
        port=port,
        grpc_port=None if no_grpc else grpc_port,
        token=token,
        tls_certificate=tls_cert,
        tls_key=tls_key,
        poll_seconds=poll_seconds,
        drain_seconds=drain_seconds,
        threads=threads,
        limits=Limits(**{name: value for name, value in limits.items() if value is not None}),
        batching={name: value for name, value in batching.items() if value is not None},
    )
    serve_release(settings, announce=lambda line: click.echo(line, err=True))


def _token(path: Path | None) -> str | None:
    if path is None:
        token = os.environ.get("TFAPP_TOKEN")
        if token is not None and not token.strip():
            raise ConfigError(
                "TFAPP_TOKEN is set but empty, and would ask nobody for a token; give it one, or unset it."
            )
        return token
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read ({error}); give a file that holds the token.") from error
