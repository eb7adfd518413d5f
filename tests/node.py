"""Runs the scripts of the web page under Node."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

import tfapp.exporters

SCRIPTS = Path(tfapp.exporters.__file__).with_name("web")


def run_script(folder: Path, script: str, given: Any) -> Any:
    """Runs JavaScript that may import the page's modules; it reads ``given`` and calls ``answer(value)``."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("there is no node on the PATH to run the page's scripts with")
    shutil.copytree(SCRIPTS, folder, dirs_exist_ok=True)
    (folder / "package.json").write_text('{"type": "module"}')
    (folder / "given.json").write_text(json.dumps(given))
    head = (
        'import { readFileSync, writeFileSync } from "node:fs";\n'
        'const given = JSON.parse(readFileSync("given.json", "utf8"));\n'
        'const answer = (value) => writeFileSync("answer.json", JSON.stringify(value));\n'
    )
    (folder / "test.js").write_text(head + script)
    done = subprocess.run([node, "test.js"], cwd=folder, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return json.loads((folder / "answer.json").read_text())
