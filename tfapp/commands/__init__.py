"""The sub-commands of ``tfapp``, a file each: parse, call, print.

Heavy libraries are imported inside the commands, so that ``tfapp --help`` answers at once.
"""

from tfapp.commands.attack import attack
from tfapp.commands.bench import bench
from tfapp.commands.data import data
from tfapp.commands.diff import diff
from tfapp.commands.doctor import doctor
from tfapp.commands.launch import launch
from tfapp.commands.monitor import monitor
from tfapp.commands.predict import predict
from tfapp.commands.presets import presets
from tfapp.commands.prune import prune
from tfapp.commands.run import run
from tfapp.commands.serve import serve
from tfapp.commands.tune_serving import tune_serving
from tfapp.commands.tune_training import tune_training
from tfapp.commands.verify import verify

COMMANDS = {
    "run": run,
    "launch": launch,
    "monitor": monitor,
    "predict": predict,
    "presets": presets,
    "verify": verify,
    "diff": diff,
    "prune": prune,
    "attack": attack,
    "bench": bench,
    "data": data,
    "serve": serve,
    "tune-serving": tune_serving,
    "tune-training": tune_training,
    "doctor": doctor,
}

__all__ = ["COMMANDS"]
