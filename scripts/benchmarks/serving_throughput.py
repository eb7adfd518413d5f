"""Texts a second at saturation, and latency at half of that, of `tfapp serve`, KServe and MLServer.

    TFAPP_DATA=/path/to/data python scripts/benchmarks/serving_throughput.py RELEASE [--quick]

All serve the same SavedModel of texts, one after another and round by round, to the same load generator on
the same machine: requests of one text of SST-2 each, over kept connections. KServe's Python server runs as it
comes; MLServer with adaptive batching. Saturation is as many connections as `--connections`, each with a
request in flight. Latency is measured at a fixed rate, half of the server's own saturation and half of the
slowest server's, from the moment that a request was due.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import json
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import uvloop
from peers import PeerError, peer_python
from reporting import about_run, data_file, markdown_table, report, save, versions
from servers import HERE, RunningServer, free_ports, running, tfapp_server

from tfapp.release.versions import version_folder
from tfapp.serving import load_release
from tfapp.serving.load import Load, drive, post

Start = Callable[[Path, argparse.Namespace], contextlib.AbstractContextManager[RunningServer]]


def tfapp(release: Path, _options: argparse.Namespace) -> Any:
    return tfapp_server(release, "--no-grpc")


def kserve(release: Path, _options: argparse.Namespace) -> Any:
    (port,) = free_ports(1)
    command = [peer_python("kserve"), HERE / "peer_kserve.py", release, "model", port]
    return running("KServe", command, port=port, ready="/v2/models/model/ready")


def mlserver(release: Path, options: argparse.Namespace) -> Any:
    ports = free_ports(3)
    settings = [options.mlserver_batch, options.mlserver_milliseconds, 1]
    command = [peer_python("mlserver"), HERE / "peer_mlserver.py", release, "model", *ports, *settings]
    return running("MLServer", command, port=ports[0], ready="/v2/models/model/ready")


SERVERS: dict[str, Start] = {"tfapp": tfapp, "KServe": kserve, "MLServer": mlserver}


def requests_of(who: str, release: Path, texts: list[str]) -> list[bytes]:
    """Writes the requests of a server's protocol."""
    if who == "MLServer":
        given = [{"name": "text", "shape": [1], "datatype": "BYTES", "data": [text]} for text in texts]
        return [post("/v2/models/model/infer", {"inputs": [each]}) for each in given]
    name = release.parent.name if who == "tfapp" else "model"
    return [post(f"/v1/models/{name}:predict", {"instances": [text]}) for text in texts]


def probabilities(who: str, body: bytes) -> list[float]:
    """Reads an answer."""
    answer = json.loads(body)
    if who == "MLServer":
        return list(answer["outputs"][0]["data"])
    return list(answer["predictions"][0]["probabilities"])


async def check(who: str, server: RunningServer, requests: list[bytes], expected: list[list[float]]) -> None:
    """Ends the benchmark when a server answers otherwise than the release."""

    def right(place: int, body: bytes) -> bool:
        return bool(np.allclose(probabilities(who, body), expected[place], atol=1e-3))

    load = await drive(
        "127.0.0.1", server.port, requests[: len(expected)], connections=8, seconds=6, check=right
    )
    if load.failures or not load.latencies:
        sys.exit(f"{who} answers wrong: {dict(load.failures)}\n{server.said()[-2000:]}")


async def one_round(
    who: str, server: RunningServer, requests: list[bytes], slowest: float | None, options: argparse.Namespace
) -> dict[str, Any]:
    """Measures one server once."""

    async def load(**settings: Any) -> Load:
        made = await drive("127.0.0.1", server.port, requests, seconds=options.seconds, **settings)
        if made.failures:
            print(f"{who}: failed {dict(made.failures)}", file=sys.stderr)
        return made

    before = server.cpu_seconds()
    full = await load(connections=options.connections)
    spent = (server.cpu_seconds() - before) / max(1, len(full.latencies))
    half = await load(connections=4 * options.connections, rate=max(1.0, full.rate / 2))
    same = await load(connections=4 * options.connections, rate=max(1.0, slowest / 2)) if slowest else half
    return {
        "rate": full.rate,
        "cpu_ms": spent * 1e3,
        "p50_half": half.milliseconds(50),
        "p99_half": half.milliseconds(99),
        "p99_same": same.milliseconds(99),
        "failures": sum(sum(each.failures.values()) for each in (full, half, same)),
        "megabytes": server.megabytes(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("release", type=Path, help="a version folder of texts, or saved_models/<name>")
    parser.add_argument("--servers", nargs="+", choices=SERVERS, default=list(SERVERS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=20, help="of each measurement")
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--mlserver-batch", type=int, default=32)
    parser.add_argument("--mlserver-milliseconds", type=float, default=10)
    parser.add_argument("--quick", action="store_true", help="one round of 6 seconds")
    parser.add_argument("--output", type=Path, default=Path("runs/benchmarks"))
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.seconds = 1, 6.0
    release = version_folder(options.release)
    with data_file("sst2", "test.csv").open(encoding="utf-8") as file:
        texts = [row["text"] for row in csv.DictReader(file)][:1024]
    predictor = load_release(release)
    expected = [list(answer.probabilities.values()) for answer in predictor.predict(texts[:32])]
    del predictor
    about = about_run(versions("uvicorn", "tensorflow-serving-api"))
    measured: dict[str, list[dict[str, Any]]] = {who: [] for who in options.servers}
    slowest: float | None = None
    for turn in range(options.rounds):
        # The slowest goes first, so that the others know its load from the first round on.
        for who in sorted(options.servers, key=["KServe", "MLServer", "tfapp"].index):
            requests = requests_of(who, release, texts)
            try:
                with SERVERS[who](release, options) as server:
                    uvloop.run(check(who, server, requests, expected))
                    figures = uvloop.run(one_round(who, server, requests, slowest, options))
            except PeerError as error:
                print(f"{who} is left out of this round: {error}", file=sys.stderr)
                continue
            measured[who].append(figures)
            slowest = min(slowest or figures["rate"], figures["rate"])
            print(f"round {turn + 1}, {who}: {figures}", file=sys.stderr)
    middle = {
        who: {key: median(row[key] for row in rows) for key in rows[0]}
        for who, rows in measured.items()
        if rows
    }
    header = ("server", "texts/s", "CPU ms/text", "p50 at half", "p99 at half", "p99 at same load", "MB")
    table = [
        [
            who,
            f"{row['rate']:.0f}",
            f"{row['cpu_ms']:.1f}",
            *(f"{row[key]:.0f} ms" for key in ("p50_half", "p99_half", "p99_same")),
            f"{row['megabytes']:.0f}",
        ]
        for who, row in middle.items()
    ]
    notes = [
        f"{middle['tfapp']['rate'] / row['rate']:.2f} times as many texts a second as {who}"
        for who, row in middle.items()
        if who != "tfapp" and "tfapp" in middle
    ]
    notes.append(f"median of {options.rounds} rounds; {options.connections} connections at saturation")
    report("Serving texts", about, markdown_table(header, table), notes)
    save(options.output, "serving-throughput", about, {"rounds": measured, "median": middle})


if __name__ == "__main__":
    main()
