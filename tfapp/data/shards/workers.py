"""Tasks in processes: a bounded number at a time, none of which outlives the process that started them."""

from __future__ import annotations

import importlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from tfapp.errors import OutputError


def run_tasks(
    function: Callable[..., None],
    tasks: Iterable[tuple[Any, ...]],
    *,
    processes: int,
    tensorflow: bool = True,
) -> None:
    """Calls a function for each task; the tasks are made one by one, as processes become free.

    Args:
        function: A function of a module.
        tasks: Its arguments.
        processes: How many processes; with 1 the calls are made in this one.
        tensorflow: Whether the function needs TensorFlow.

    Raises:
        OutputError: When a process was killed from outside.
        Exception: What a call raised first.
    """
    if processes == 1:
        for task in tasks:
            function(*task)
        return
    executor = ProcessPoolExecutor(
        processes,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_begin,
        initargs=(tensorflow,),
    )
    running: set[Future[None]] = set()
    try:
        for task in tasks:
            running.add(executor.submit(function, *task))
            if len(running) > 2 * processes:
                running = _finished(running)
        while running:
            running = _finished(running)
    except BrokenProcessPool as error:
        raise OutputError(
            "a process that writes shards was killed, perhaps for memory; run the same again with fewer "
            "processes."
        ) from error
    finally:
        executor.shutdown(wait=True, cancel_futures=True)


def _finished(running: set[Future[None]]) -> set[Future[None]]:
    done, left = wait(running, return_when=FIRST_COMPLETED)
    for future in done:
        future.result()
    return left


def _begin(tensorflow: bool) -> None:
    """Leaves Ctrl-C to the process that started this one, and ends with it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if tensorflow:
        load_tensorflow_quietly()


def load_tensorflow_quietly() -> None:
    """Imports TensorFlow in a process whose standard error is somebody's terminal."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    kept = os.dup(2)
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 2)
    try:
        importlib.import_module("tensorflow")
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nothing)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
