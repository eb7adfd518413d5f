"""Half an hour at 70 % of saturation, with another version of the model every minute.

    python scripts/benchmarks/serving_soak.py RELEASE [--minutes 30] [--quick]

Versions are copies of RELEASE that appear in a scratch folder as releases do, the oldest of them going; every
fifth is spoiled and must never be served. Requests are golden vectors, and every answer is compared with what
the release answered. Exit status 1 when a request failed, was answered wrong, memory grew, or a version was
not served that should have been, or the other way round.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import json
import math
import os
import re
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import uvloop
from reporting import about_run, markdown_table, report, save, versions
from servers import RunningServer, tfapp_server

from tfapp.release.golden import Golden
from tfapp.release.versions import version_folder
from tfapp.serving.load import Load, drive, post

_SPOILED = 5
_SETTLE_SECONDS = 120
_GROWTH = 0.15
"""More of the memory of the first third than that, in the last third, is growth."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("release", type=Path, help="a version folder, or saved_models/<name>")
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--swap-seconds", type=float, default=60)
    parser.add_argument("--share", type=float, default=0.7, help="of saturation")
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--quick", action="store_true", help="1.5 minutes, a version every 15 seconds")
    parser.add_argument("--output", type=Path, default=Path("runs/benchmarks"))
    options = parser.parse_args()
    if options.quick:
        options.minutes, options.swap_seconds = 1.5, 15.0
    source = version_folder(options.release)
    about = about_run(versions("uvicorn", "tensorflow-serving-api"))
    with tempfile.TemporaryDirectory(prefix="tfapp-soak-", dir=source.parent.parent) as scratch:
        folder = Path(scratch) / "soak"
        add_version(source, folder, 1, spoiled=False)
        with tfapp_server(folder, "--no-grpc", "--poll-seconds", "1") as server:
            result = uvloop.run(soak(server, source, folder, options))
            said = server.said()
    problems = unexpected(said, result["versions"])
    third = max(1, len(result["megabytes"]) // 3)
    first, last = (
        float(np.mean(part)) for part in (result["megabytes"][:third], result["megabytes"][-third:])
    )
    result |= {"first_megabytes": first, "last_megabytes": last}
    rows = [
        ["minutes", f"{options.minutes:g}"],
        ["requests", f"{result['requests']:,}"],
        ["failed or wrong", f"{sum(result['failures'].values())} {result['failures'] or ''}"],
        ["a second", f"{result['rate']:.0f} of {result['saturation']:.0f}"],
        ["p50, p99", f"{result['p50']:.0f} ms, {result['p99']:.0f} ms"],
        ["versions served", str(len(told(said, "served")))],
        ["spoiled versions refused", str(len(told(said, "not served")))],
        ["memory, first and last third", f"{first:.0f} MB, {last:.0f} MB"],
    ]
    report("A soak with swaps", about, markdown_table(("", ""), rows), problems)
    save(options.output, "serving-soak", about, result)
    if problems or result["failures"] or last > (1 + _GROWTH) * first:
        print(said[-3000:], file=sys.stderr)
        sys.exit(1)


async def soak(
    server: RunningServer, source: Path, folder: Path, options: argparse.Namespace
) -> dict[str, Any]:
    """Loads the server while versions change."""
    golden = Golden.load(source / "edge" / "golden.json")
    path = f"/v1/models/{folder.name}:predict"
    values = [{"b64": base64.b64encode(value).decode()} for value in golden.probe().features]
    requests = [post(path, {"instances": [value]}) for value in values]
    tolerance = golden.tolerance["saved_model"]

    def right(place: int, body: bytes) -> bool:
        found = json.loads(body)["predictions"][0]["probabilities"]
        return bool(np.allclose(found, golden.probabilities[place], atol=tolerance))

    async def load(seconds: float, rate: float | None = None) -> Load:
        connections = options.connections * (1 if rate is None else 8)
        return await drive(
            "127.0.0.1",
            server.port,
            requests,
            connections=connections,
            seconds=seconds,
            rate=rate,
            check=right,
        )

    await load(5)
    saturation = (await load(10)).rate
    megabytes: list[float] = []
    seconds = 60 * options.minutes
    last = math.ceil(seconds / options.swap_seconds)
    # Without the versions that it is about, the load is of no use: whichever fails ends both.
    async with asyncio.TaskGroup() as both:
        both.create_task(watch(server, source, folder, megabytes, last, options.swap_seconds))
        loading = both.create_task(load(seconds, options.share * saturation))
    made = loading.result()
    await settled(server, last)
    return {
        "versions": last,
        "saturation": saturation,
        "requests": len(made.latencies) + sum(made.failures.values()),
        "rate": made.rate,
        "failures": dict(made.failures),
        "p50": made.milliseconds(50),
        "p99": made.milliseconds(99),
        "megabytes": megabytes,
    }


async def watch(
    server: RunningServer, source: Path, folder: Path, megabytes: list[float], last: int, seconds: float
) -> None:
    """Adds the versions from 2 to the last in their time, and notes memory when each has settled."""
    started = time.monotonic()
    for number in range(2, last + 1):
        await asyncio.sleep(max(0.0, started + (number - 1) * seconds - time.monotonic()))
        megabytes.append(server.megabytes())
        await asyncio.to_thread(add_version, source, folder, number, spoiled=number % _SPOILED == 0)
        await asyncio.to_thread(shutil.rmtree, folder / str(number - 3), True)


async def settled(server: RunningServer, last: int) -> None:
    """Waits a while until the server has said what became of the last version."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_SETTLE_SECONDS):
            while last not in told(server.said(), "served") | told(server.said(), "not served"):
                await asyncio.sleep(0.5)


def told(said: str, what: str) -> set[int]:
    """Finds the versions of which the server said that they are ``served`` or ``not served``."""
    return {int(number) for number in re.findall(rf"version (\d+) of \S+ is {what}", said)}


def unexpected(said: str, last: int) -> list[str]:
    """Compares what the server said of the versions up to the last with what was right."""
    spoiled = {number for number in range(1, last + 1) if number % _SPOILED == 0}
    sound = set(range(1, last + 1)) - spoiled
    found = {"served": told(said, "served"), "refused": told(said, "not served")}
    return [
        f"versions {sorted(found[what])} were {what} instead of {sorted(right)}"
        for what, right in (("served", sound), ("refused", spoiled))
        if found[what] != right
    ]


def add_version(source: Path, folder: Path, number: int, *, spoiled: bool) -> None:
    """Lets a version appear as a release does: at once and whole."""
    staged = folder / f".staging-{number}"
    shutil.copytree(source, staged, copy_function=os.link)
    if spoiled:
        weights = staged / "variables" / "variables.data-00000-of-00001"
        content = weights.read_bytes()
        weights.unlink()
        weights.write_bytes(content[: len(content) // 2])
    staged.rename(folder / str(number))


if __name__ == "__main__":
    main()
