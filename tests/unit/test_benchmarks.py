"""The benchmarks: what they import is there, and their bookkeeping, which runs a log already holds."""

from __future__ import annotations

import ast
import asyncio
import base64
import importlib
import json
import random
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from tfapp.serving.load import Load

BENCHMARKS = Path(__file__).parents[2] / "scripts" / "benchmarks"


def imported(path):
    """Names that a script imports, by the module that they are imported from."""
    nodes = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ImportFrom)]
    return {(node.module, alias.name) for node in nodes for alias in node.names}


def defined(path):
    """Names that a script defines or imports at its top."""
    names = set()
    for node in ast.parse(path.read_text()).body:
        names |= {
            getattr(node, "name", None),
            *(alias.asname or alias.name for alias in getattr(node, "names", [])),
        }
        targets = [*getattr(node, "targets", []), getattr(node, "target", None)]
        names |= {
            inner.id
            for target in targets
            if target
            for inner in ast.walk(target)
            if isinstance(inner, ast.Name)
        }
    return names


@pytest.mark.parametrize("script", sorted(path.stem for path in BENCHMARKS.glob("*.py")))
def test_what_a_benchmark_imports_of_this_repository_is_there(script):
    for module, name in imported(BENCHMARKS / f"{script}.py"):
        if module.partition(".")[0] == "tfapp":
            assert hasattr(importlib.import_module(module), name), f"{module} has no {name}"
        elif (BENCHMARKS / f"{module}.py").is_file():
            assert name in defined(BENCHMARKS / f"{module}.py"), f"{module}.py has no {name}"


@pytest.fixture
def soak(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("serving_soak")


def test_a_soak_sees_versions_that_were_not_served_and_spoiled_ones_that_were(soak):
    lines = [f"version {number} of soak is {'not ' * (number == 5)}served: x\n" for number in range(1, 7)]
    assert soak.unexpected("".join(lines), 6) == []
    assert soak.unexpected("".join(lines * 2), 6) == []  # a refused version is tried again
    assert len(soak.unexpected("".join(lines[:-1]), 6)) == 1
    assert len(soak.unexpected("".join([*lines[:4], lines[5]]), 6)) == 1
    assert len(soak.unexpected("".join([*lines, "version 5 of soak is served"]), 6)) == 1


def test_a_soak_whose_versions_cannot_be_added_fails(soak, monkeypatch, tmp_path):
    async def drive(*_arguments, rate=None, **_options):
        await asyncio.sleep(0 if rate is None else 600)
        return Load(seconds=1.0, latencies=[0.1])

    def full(*_arguments, **_options):
        raise OSError("the disk is full")

    probe = SimpleNamespace(features=[b"x"])
    golden = SimpleNamespace(probe=lambda: probe, tolerance={"saved_model": 0}, probabilities=[[1.0]])
    monkeypatch.setattr(soak, "drive", drive)
    monkeypatch.setattr(soak, "add_version", full)
    monkeypatch.setattr(soak.Golden, "load", lambda _path: golden)
    options = SimpleNamespace(connections=1, minutes=1.0, swap_seconds=0.01, share=0.7)
    server = SimpleNamespace(port=1, megabytes=lambda: 1.0)
    with pytest.raises(ExceptionGroup) as failed:
        asyncio.run(soak.soak(server, tmp_path, tmp_path, options))
    assert failed.group_contains(OSError, match="the disk is full")


def test_without_schemathesis_the_fuzzing_fails_unless_that_was_asked_for(monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    fuzz = importlib.import_module("serving_fuzz")

    def missing(_name):
        raise fuzz.PeerError("no network")

    monkeypatch.setattr(fuzz, "peer_python", missing)
    monkeypatch.setattr(sys, "argv", ["serving_fuzz.py", "release"])
    with pytest.raises(SystemExit) as ended:
        fuzz.main()
    assert ended.value.code == 2
    assert "no network" in capsys.readouterr().err


def test_fuzzing_damages_images_themselves_and_not_all(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    fuzz = importlib.import_module("serving_fuzz")
    image = bytes(range(256))
    probe = SimpleNamespace(features=[image])
    golden = SimpleNamespace(probe=lambda: probe, feature="image_bytes")
    monkeypatch.setattr(fuzz, "mutated", lambda data, _draw, tokens: data if tokens is fuzz._TOKENS else b"!")
    sent = "".join(body.decode() for body in fuzz.bodies(golden, random.Random(0), 50))
    values = {base64.b64decode(value) for value in re.findall(r'"b64": "([^"]*)"', sent)}
    assert image in values
    assert b"!" in values
    assert b"!" + image[64:] in values


@pytest.fixture
def accuracy(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import accuracy

    monkeypatch.setattr(accuracy, "data_file", lambda *parts: Path(*parts))
    monkeypatch.setattr(accuracy, "BEST", {})
    return accuracy


@pytest.fixture
def measure(accuracy, monkeypatch, tmp_path):
    """Calls the script with runs that only note themselves; returns those runs and the printed table."""

    def call(*words: str) -> tuple[list[tuple[str, int]], str]:
        runs, tables = [], []

        def run_one(who, data_set, seed, options):
            runs.append((who, seed))
            rows = accuracy.QUICK_ROWS if options.quick else 6920
            return {"accuracy": 0.5 if options.quick else 0.9, "rows": rows, "versions": {}}

        monkeypatch.setattr(accuracy, "run_one", run_one)
        monkeypatch.setattr(accuracy, "about_run", lambda: {"versions": {}})
        monkeypatch.setattr(accuracy, "report", lambda title, about, table, notes: tables.append(table))
        log = ["--log", str(tmp_path / "log.jsonl")]
        monkeypatch.setattr(sys, "argv", ["accuracy.py", *log, "--data-sets", "sst2", *words])
        accuracy.main()
        return runs, tables[0]

    return call


def test_a_full_run_after_a_quick_one_measures_every_seed(measure):
    quick, _ = measure("--quick")
    assert sorted(quick) == [("tfapp", 0), ("tfapp", 1), ("transformers", 0), ("transformers", 1)]
    full, table = measure("--seeds", "3")
    assert sorted(full) == [(who, seed) for who in ("tfapp", "transformers") for seed in range(3)]
    assert "0.5000" not in table
    assert measure("--seeds", "3") == ([], table)


@pytest.mark.parametrize(
    ("option", "again"),
    [
        (["--precision", "float32"], "tfapp"),
        (["--peer-precision", "float32"], "transformers"),
        (["--no-peer-group-by-length"], "transformers"),
    ],
)
def test_changed_settings_are_measured_again(measure, option, again):
    measure("--seeds", "1")
    runs, _ = measure("--seeds", "1", *option)
    assert runs == [(again, 0)]


def test_a_changed_recipe_is_measured_again(measure, accuracy, monkeypatch):
    measure("--seeds", "1")
    monkeypatch.setitem(accuracy.PHASES, "sst2", accuracy.PHASES["sst2"] | {"epochs": 2})
    runs, _ = measure("--seeds", "1")
    assert sorted(runs) == [("tfapp", 0), ("transformers", 0)]


def test_lines_of_earlier_logs_count_when_their_settings_are_the_same(measure, tmp_path):
    line = {"who": "transformers", "data_set": "sst2", "seed": 0, "recipe": "bfloat16-grouped", "rows": 6920}
    line |= {"precision": "bfloat16", "group_by_length": True, "accuracy": 0.8, "versions": {}}
    quick = line | {"seed": 1, "rows": 256}
    other = line | {"seed": 2, "precision": "float32", "recipe": "float32-grouped"}
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(it) + "\n" for it in (line, quick, other)))
    runs, table = measure("--seeds", "3", "--who", "transformers")
    assert runs == [("transformers", 1), ("transformers", 2)]
    assert "0.8000, 0.9000, 0.9000" in table


@pytest.mark.parametrize("measured", [0, 1, 2, 3, 4, 8, 10])
def test_the_report_of_a_run_that_broke_has_what_was_measured(monkeypatch, capsys, measured):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import training_speed

    speed = {"examples_per_second": 90.0, "padding_share": 0.1, "gflops_per_second": 100.0}
    speed |= {"parameters": 10_620_000, "tokens_per_example": 25.0, "seconds": 77.0}
    head = {"seconds": 9.0, "epochs": 10}
    names = ["peak float32", "peak bfloat16", "tfapp float32", "transformers float32", "tfapp bfloat16"]
    rows = [{"participant": name, **speed} for name in names[:2]]
    for row in rows:
        del row["examples_per_second"], row["padding_share"]
    rows += [{"participant": name, **speed} for name in names[2:]]
    rows += [{"participant": f"{mode} float32", **head} for mode in ("head", "frozen")]
    rows += [{"participant": f"{mode} bfloat16", **head} for mode in ("head", "frozen")]
    about = {"versions": {}, "command": "x", "date": "x", "machine": "x", "load": 0.0, "python": "x"}
    if measured < 3:
        with pytest.raises(SystemExit, match="broke before"):
            training_speed.print_report(about, rows[:measured])
        return
    training_speed.print_report(about, rows[:measured])
    printed = capsys.readouterr().out
    assert ("| tfapp bfloat16 |" in printed) == (measured > 4)
    assert ("The head phase was not measured" in printed) == (measured < 7)
    assert printed.count("1.0x") == max(0, (measured - 5) // 2)
