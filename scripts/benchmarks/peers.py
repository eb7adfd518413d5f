"""Makes the environments that the benchmarks' peers run in: one venv a peer, pinned, made once.

python scripts/benchmarks/peers.py                 # make all, print the interpreters
python scripts/benchmarks/peers.py transformers    # make one
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import venv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tfapp.assets import cache_dir

HERE = Path(__file__).resolve().parent

PEERS: dict[str, tuple[str, ...]] = {
    "transformers": (
        "torch==2.13.0",
        "transformers==5.23.0",
        "tokenizers==0.23.3",
        "safetensors==0.8.0",
        "accelerate==1.15.0",
        "onnx==1.23.2",
        "onnxruntime==1.31.1",
        "numpy==2.4.6",
        "pandas==3.1.1",
    ),
    "textattack": (
        "torch==2.13.0",
        "transformers==5.23.0",
        "tokenizers==0.23.3",
        "safetensors==0.8.0",
        "numpy==2.4.6",
        "pandas==3.1.1",
        "scipy==1.17.1",
        "nltk==3.10.4",
        "lru-dict==1.4.1",
        "more-itertools==11.2.1",
        "terminaltables==3.1.10",
        "requests==2.34.2",
        "filelock==4.2.11",
        "tqdm==4.70.1",
        "platformdirs==4.14.7",
    ),
    "kserve": ("tensorflow==2.21.0", "tensorflow-text==2.21.1", "kserve==0.21.0"),
    "mlserver": (
        "tensorflow==2.21.0",
        "tensorflow-text==2.21.1",
        "mlserver==1.7.1",
        "uvloop==0.21.0",  # later ones have no event loop in the processes that MLServer forks
    ),
    "schemathesis": ("schemathesis==4.32.5",),
    "torchattacks": (
        "torch==2.13.0",
        "torchattacks==3.5.1",
        "torchvision==0.28.0",
        "scipy==1.17.1",
        "numpy==2.4.6",
    ),
}
# Installed last and alone: TextAttack asks for some thirty packages more, of which the attack uses none.
WITHOUT_DEPENDENCIES: dict[str, tuple[str, ...]] = {"textattack": ("textattack==0.3.11",)}


class PeerError(Exception):
    """A peer could not be set up or did not answer."""


def peer_python(name: str, *, env_dir: Path | None = None) -> Path:
    """Returns the interpreter of a peer's environment, making it when it is absent or its pins have changed.

    Args:
        name: a key of `PEERS`.
        env_dir: folder of the environments; the default is `peers` in the cache of tfapp (`TFAPP_CACHE`).
    """
    folder = (env_dir or cache_dir() / "peers") / name
    python = folder / ("Scripts" if os.name == "nt" else "bin") / "python"
    alone = WITHOUT_DEPENDENCIES.get(name, ())
    pins = "\n".join((*PEERS[name], *alone)) + "\n"
    finished = folder / "finished.txt"
    if finished.is_file() and finished.read_text() == pins:
        return python
    print(f"making the environment of peer {name} in {folder}", file=sys.stderr)
    shutil.rmtree(folder, ignore_errors=True)
    venv.create(folder, with_pip=True)
    # torch first: a plain dependency on it, resolved together with the others, may choose another build.
    groups = [PEERS[name][:1], PEERS[name], *([("--no-deps", *alone)] if alone else [])]
    for group in groups:
        command = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *group]
        installed = subprocess.run(command, capture_output=True, text=True, check=False)
        if installed.returncode:
            raise PeerError(f"peer {name}: pip failed\n{installed.stderr[-2000:]}")
    finished.write_text(pins)
    return python


def run_json(python: Path | str, script: str, arguments: Sequence[object]) -> dict[str, Any]:
    """Runs a script of this folder in a process of its own; returns the JSON object that it prints last."""
    environment = os.environ | {
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "PYTHONWARNINGS": "ignore",
    }
    command = [str(python), str(HERE / script), *map(str, arguments)]
    ended = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    lines = ended.stdout.strip().splitlines()
    if ended.returncode or not lines:
        raise PeerError(f"{' '.join(command)}\nended with {ended.returncode}:\n{ended.stderr[-3000:]}")
    answer: dict[str, Any] = json.loads(lines[-1])
    return answer


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(PEERS)}; default: all")
    parser.add_argument("--env-dir", type=Path, help="folder for the environments; default: the cache")
    options = parser.parse_args()
    unknown = [name for name in options.names if name not in PEERS]
    if unknown:
        parser.error(f"unknown peer {unknown[0]!r}; choices: {', '.join(PEERS)}")
    try:
        for name in options.names or PEERS:
            print(name, peer_python(name, env_dir=options.env_dir))
    except PeerError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
