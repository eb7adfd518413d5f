"""What every benchmark tells beside its figures: command, date, machine, versions; in markdown and JSON."""

from __future__ import annotations

import datetime
import json
import os
import platform
import shlex
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any


def data_file(*parts: str) -> Path:
    """Finds a file of the development data under `TFAPP_DATA`, or ends saying that it is not there."""
    root = os.environ.get("TFAPP_DATA")
    if not root:
        sys.exit("skipped: TFAPP_DATA is not set; it names the folder that holds sst2/ and banking77/")
    path = Path(root).joinpath(*parts)
    if not path.is_file():
        sys.exit(f"skipped: {path} does not exist")
    return path


def versions(*packages: str) -> dict[str, str]:
    """Looks up the installed versions of packages in this environment."""
    return {name: metadata.version(name) for name in packages}


def about_run(peers: dict[str, str] | None = None) -> dict[str, Any]:
    """Describes this run: its command, date, machine and the versions of our side and of the peers."""
    own = versions("tfapp", "tensorflow", "tensorflow-text", "keras", "keras-hub", "ai-edge-litert", "numpy")
    return {
        "command": shlex.join(
            ["python", *(os.path.relpath(word) if os.path.exists(word) else word for word in sys.argv)]
        ),
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "machine": f"{_processor()}, {os.cpu_count()} cores, {_memory_gib():.0f} GiB, {platform.system()}",
        "load": os.getloadavg()[0],
        "python": platform.python_version(),
        "versions": own | (peers or {}),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
        flags = next(line.split(":", 1)[1].split() for line in lines if line.startswith("flags"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
    matter = [
        flag
        for flag in ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8")
        if flag in flags
    ]
    return f"{name} ({' '.join(matter)})"


def _memory_gib() -> float:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Sets rows as a markdown table; all columns but the first are numbers."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def report(title: str, about: dict[str, Any], table: str, notes: Sequence[str]) -> None:
    """Prints a benchmark's result as a section of markdown."""
    print(f"\n### {title}\n\n{table}\n")
    for note in notes:
        print(f"- {note}")
    used = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    print(f"- `{about['command']}`, {about['date']}")
    print(f"- {about['machine']}; load {about['load']:.1f} at the start; Python {about['python']}; {used}")


def save(output: Path, name: str, about: dict[str, Any], result: dict[str, Any]) -> Path:
    """Writes the result as JSON into the results folder, beside those of earlier runs."""
    output.mkdir(parents=True, exist_ok=True)
    stamp = about["date"].removesuffix(" UTC").replace(" ", "-").replace(":", "")
    path = output / f"{name}-{stamp}.json"
    path.write_text(json.dumps(about | result, indent=1) + "\n", encoding="utf-8")
    return path
