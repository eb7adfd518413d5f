"""Rounds in which every participant has its turn, and what is made of their answers."""

from __future__ import annotations

import os
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

Run = Callable[[int], dict[str, Any]]
RATES = ("examples_per_second", "images_per_second", "gflops_per_second", "seconds")


def run_rounds(
    runs: dict[str, Run], rounds: int, results: list[dict[str, Any]], keep: Callable[[], Path]
) -> None:
    """Runs every participant once a round, in turn, and saves all answers after each."""
    for number in range(rounds):
        for name, run in runs.items():
            answer = run(number)
            results.append({"participant": name, "round": number, "load": os.getloadavg()[0], **answer})
            figure = next(answer[rate] for rate in RATES if answer.get(rate))
            print(f"round {number + 1}/{rounds}  {name}: {figure:.2f}", file=sys.stderr, flush=True)
            keep()


def values_of(results: list[dict[str, Any]], key: str) -> dict[str, list[float]]:
    """Collects a figure of every participant over the rounds."""
    collected: dict[str, list[float]] = {}
    for row in results:
        if row.get(key) is not None:
            collected.setdefault(row["participant"], []).append(row[key])
    return collected


def medians(results: list[dict[str, Any]], key: str) -> dict[str, float]:
    """The median of a figure of every participant over the rounds."""
    return {name: statistics.median(values) for name, values in values_of(results, key).items()}
