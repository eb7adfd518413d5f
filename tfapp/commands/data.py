"""``tfapp data``: data too large for memory."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import click

from tfapp import terminal
from tfapp.commands._options import debug_option
from tfapp.data.image_limits import MAX_PIXELS, MOST_MAX_PIXELS

_Source = click.Path(path_type=str)


@click.group(short_help="Write TFRecord shards, and make batches of them in processes of their own.")
def data() -> None:
    """Data too large for memory: TFRecord shards, and processes that make batches of them."""


@data.command(short_help="Write texts or images as TFRecord shards to train on.")
@click.argument("source", type=_Source)
@click.argument("directory", type=click.Path(path_type=Path))
@click.option("--kind", type=click.Choice(["text", "image"]), default="text", show_default=True)
@click.option("--text", default="text", show_default=True, help="Column of the texts.")
@click.option("--image", default="path", show_default=True, help="Column of the paths of images.")
@click.option("--label", default="label", show_default=True, help="Column of the labels.")
@click.option("--group", help="Column of groups of images, which stay in one split; with --split exact.")
@click.option("--validation", type=_Source, help="Source of the validation rows; drawn otherwise.")
@click.option("--test", type=_Source, help="Source of the test rows; drawn otherwise.")
@click.option("--format", help="Such as csv, jsonl or folder; by the suffix otherwise.")
@click.option("--encoding", default="utf-8", show_default=True, help="Of text files.")
@click.option("--validation-fraction", type=float, default=0.1, show_default=True)
@click.option("--test-fraction", type=float, default=0.2, show_default=True)
@click.option(
    "--split",
    type=click.Choice(["auto", "exact", "hash"]),
    default="auto",
    show_default=True,
    help="exact: stratified, in memory; hash: by each row's content, for data of any size.",
)
@click.option("--unreadable", type=click.Choice(["skip", "refuse"]), default="skip", show_default=True)
@click.option("--near-duplicates", type=click.Choice(["group", "keep"]), default="group", show_default=True)
@click.option("--max-pixels", type=click.IntRange(1, MOST_MAX_PIXELS), default=MAX_PIXELS, show_default=True)
@click.option("--shards", type=click.IntRange(1), help="Files of each split; about 32 MiB each otherwise.")
@click.option("--seed", type=int, default=0, show_default=True, help="Decides splits and order.")
@click.option("--processes", type=click.IntRange(1), help="All processors otherwise, for large sources.")
@debug_option
def shard(source: str, directory: Path, **options: Any) -> None:
    """Write the texts or images of SOURCE as TFRecord shards into DIRECTORY, shuffled and split.

    SOURCE is what data.train of a workflow may be: a file, a glob, a folder of class folders, a packaged set.
    Run the same command again after an interruption, or when a shard was damaged: it writes only what is
    missing, and ends with the same bytes. Then train with data.train = "DIRECTORY".

    Exit status: 0 written, 2 bad input or settings, 3 interrupted.
    """
    terminal.load_tensorflow()

    from tfapp.data.shards.sharding import write_shards

    written = write_shards(source, directory, **options)
    for line in written.report.lines():
        click.echo(line)
    rows = [
        {
            "split": split,
            "shards": f"{len(shards):,}",
            "rows": f"{sum(shard.rows for shard in shards):,}",
            "MB": f"{sum(shard.bytes for shard in shards) / 1e6:,.1f}",
        }
        for split in ("train", "validation", "test")
        if (shards := written.of(split))
    ]
    terminal.print_table(f"shards in {terminal.shorten(written.directory)}", rows)


@data.command(short_help="Make training batches in processes of their own (tf.data service).")
@click.option("--workers", type=click.IntRange(1, 64), default=1, show_default=True, help="Processes.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=5050,
    show_default=True,
    help="Of the first; the others get those behind it. 0 takes any that are free.",
)
@click.option(
    "--worker-port",
    type=click.IntRange(0, 65535),
    default=0,
    show_default=True,
    help="From which training reads the batches; counted on like --port. 0 takes any that are free.",
)
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    help="Name or address under which training reaches this machine.",
)
@debug_option
def serve(workers: int, port: int, worker_port: int, host: str) -> None:
    """Make training batches in processes of their own, until SIGTERM or SIGINT.

    Each process is a dispatcher of the tf.data service and its worker. Name the printed addresses as
    data.service in a workflow whose data.train is a folder of shards, which every process must see under the
    same path: batches and their order stay the same. TensorFlow listens at all addresses of the machine, at
    one further port for each process, which training must reach too (--worker-port), and asks nobody who he
    is: keep the machine closed to others.
    """
    # A shell that starts it in the background has it ignore SIGINT.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    terminal.load_tensorflow()

    from tfapp.data.shards.service import running_services

    numbers = range(workers)
    ports, worker_ports = ([first and first + number for number in numbers] for first in (port, worker_port))
    try:
        with running_services(ports, worker_ports=worker_ports, host=host) as services:
            click.echo(f"service = {list(services.addresses)}".replace("'", '"'))
            services.wait()
    except KeyboardInterrupt:
        click.echo("Stopped.", err=True)
