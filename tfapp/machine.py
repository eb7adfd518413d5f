"""The machine that tfapp runs on: its processor, and how much of it this process may use."""

from __future__ import annotations

import os
import platform
import re
import resource
import sys
from pathlib import Path


def usable_cores() -> int:
    """Counts the processor's cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def processor_name() -> str:
    """Names the processor; its architecture where the system does not tell."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return platform.processor() or platform.machine()
    found = re.search(r"^model name\s*:\s*(.*)$", text, flags=re.MULTILINE)
    return found[1].strip() if found else platform.machine()


def available_memory() -> int | None:
    """Measures how many bytes of memory this process may still take; None where the system does not tell.

    What a container or a control group allows counts as well as what is free.
    """
    system, groups = Path("/proc/meminfo"), Path("/sys/fs/cgroup")
    try:
        found = re.search(
            r"^MemAvailable:\s*(\d+) kB$", system.read_text(encoding="ascii"), flags=re.MULTILINE
        )
    except OSError:
        return None
    left = [] if found is None else [int(found[1]) * 1024]
    for folder in _control_groups(groups):
        for limit, used, cached in (
            ("memory.max", "memory.current", "inactive_file"),
            ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
        ):
            most, taken = _number(folder / limit), _number(folder / used)
            if most is not None and taken is not None:
                left.append(max(0, most - taken + _entry(folder / "memory.stat", cached)))
    return min(left, default=None)


def _control_groups(root: Path) -> list[Path]:
    """The folders of the control groups that this process is in, and of those around them."""
    try:
        lines = Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    folders = {root, root / "memory"}
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers or "memory" in controllers.split(","):
            top = root / "memory" if controllers else root
            inner = Path(path.strip("/"))
            folders |= {top / part for part in (inner, *inner.parents)}
    return sorted(folders)


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text(encoding="ascii"))
    except (OSError, ValueError):  # "max" is no limit
        return None


def _entry(path: Path, name: str) -> int:
    """A number of a file with one name and number a line; 0 where it is missing."""
    try:
        found = re.search(rf"^{name} (\d+)$", path.read_text(encoding="ascii"), flags=re.MULTILINE)
    except OSError:
        return 0
    return int(found[1]) if found else 0


def process_memory() -> int:
    """Bytes of memory that this process holds; where the system does not tell, the most that it has held."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
