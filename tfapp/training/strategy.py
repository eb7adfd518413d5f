"""Which devices train: one, several of this machine, those of several machines, or a TPU."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping
from typing import Any, Literal, get_args

import tensorflow as tf

from tfapp.errors import ConfigError, nearest

_LOG = logging.getLogger("tfapp")

Name = Literal["auto", "one_device", "mirrored", "multi_worker", "tpu"]
STRATEGIES: tuple[str, ...] = get_args(Name)

_EXAMPLE = '{"cluster": {"worker": ["host-0:2222", "host-1:2222"]}, "task": {"type": "worker", "index": 0}}'


def make_strategy(strategy: Name = "auto", *, virtual_devices: int | None = None) -> tf.distribute.Strategy:
    """Makes the strategy that a model is built and trained under.

    To be called before TensorFlow has computed anything; models are built in its scope::

        strategy = make_strategy("mirrored")
        with strategy.scope():
            model = build_text_classifier("minilm-l6", classes=data.classes)
            train(model, data)

    The batch size stays the global one, whatever number of devices shares it.

    Args:
        strategy: ``"one_device"``; ``"mirrored"`` for all GPUs of this machine; ``"multi_worker"`` for the
            machines in the variable ``TF_CONFIG``, each of which runs the same program; ``"tpu"`` for the one
            named by ``TPU_NAME``; or ``"auto"``: the TPU where ``TPU_NAME`` is set, several machines where
            ``TF_CONFIG`` has several, all GPUs where there are several, else one device.
        virtual_devices: Splits the processor into so many devices, 2 or more, that ``"mirrored"`` then
            uses: to try out on any machine what several GPUs would do. None for the devices as they are.

    Returns:
        The strategy; TensorFlow's default one for one device, which costs nothing.

    Raises:
        ConfigError: When the environment does not have what the strategy needs.
    """
    if strategy not in STRATEGIES:
        raise ConfigError(f"unknown strategy {strategy!r}; {nearest(strategy, STRATEGIES)}")
    gpus = tf.config.list_physical_devices("GPU")
    chosen, reason = choose(strategy, os.environ, gpus=len(gpus), virtual_devices=virtual_devices)
    made: tf.distribute.Strategy
    if chosen == "tpu":
        made = _tpu()
    elif chosen == "multi_worker":
        made = _multi_worker()
    elif chosen == "mirrored":
        made = _mirrored(len(gpus), virtual_devices)
    else:
        made = tf.distribute.get_strategy()
    replicas = made.num_replicas_in_sync
    devices = "one device" if replicas == 1 else f"{replicas} devices share each batch"
    _LOG.info("strategy   %s: %s; %s", chosen, reason, devices)
    return made


def choose(
    strategy: str, environment: Mapping[str, str], *, gpus: int, virtual_devices: int | None
) -> tuple[str, str]:
    """Chooses a strategy by what there is.

    Args:
        strategy: What was asked for, one of `STRATEGIES`.
        environment: Variables of the environment.
        gpus: How many GPUs this process sees.
        virtual_devices: As in `make_strategy`.

    Returns:
        The strategy, never ``"auto"``, and why.

    Raises:
        ConfigError: When there is not what it needs.
    """
    if virtual_devices is not None:
        if virtual_devices < 2:
            raise ConfigError(f"virtual_devices = {virtual_devices}: it must be 2 or more, or left out.")
        if strategy not in ("auto", "mirrored"):
            raise ConfigError(f"virtual_devices goes with strategy 'mirrored', not with {strategy!r}.")
        return "mirrored", f"the processor is split into {virtual_devices} virtual devices"
    workers = workers_of(environment)
    tpu = environment.get("TPU_NAME", "")
    if strategy == "auto":
        if tpu:
            return "tpu", f"TPU_NAME is {tpu!r}"
        if workers > 1:
            return "multi_worker", f"TF_CONFIG names {workers} workers"
        if gpus > 1:
            return "mirrored", f"there are {gpus} GPUs"
        return "one_device", "there is " + ("one GPU" if gpus else "no GPU") + ", no TF_CONFIG, no TPU_NAME"
    if strategy == "tpu" and not tpu:
        raise ConfigError(
            "strategy = 'tpu' needs the variable TPU_NAME: the TPU's name, or 'local' on its own machine."
        )
    if strategy == "multi_worker" and workers < 2:
        raise ConfigError(
            f"strategy = 'multi_worker' needs the variable TF_CONFIG with two workers or more, such as "
            f"{_EXAMPLE}; `tfapp launch` sets it for several processes of one machine."
        )
    if strategy == "mirrored" and gpus < 2:
        raise ConfigError(
            f"strategy = 'mirrored' needs two GPUs or more, and TensorFlow sees {gpus}: `tfapp doctor` tells "
            "why, and virtual_devices = 2 tries it out on the processor."
        )
    return strategy, "as asked for"


def workers_of(environment: Mapping[str, str]) -> int:
    """Counts the workers in ``TF_CONFIG``.

    Args:
        environment: Variables of the environment.

    Returns:
        How many there are, the chief among them; 0 where the variable is not set.

    Raises:
        ConfigError: When it cannot be read.
    """
    text = environment.get("TF_CONFIG", "").strip()
    if not text:
        return 0
    try:
        content: Any = json.loads(text)
        cluster = content.get("cluster", {})
        tasks = {kind: len(cluster.get(kind, ())) for kind in ("chief", "worker")}
        task = content.get("task", {})
        kind, index = str(task.get("type", "worker")), int(task.get("index", 0))
        others = sorted(set(cluster) - {"chief", "worker"})
    except (ValueError, TypeError, AttributeError) as error:
        raise ConfigError(f"TF_CONFIG cannot be read ({error}): it must be like {_EXAMPLE}") from error
    if sum(tasks.values()) > 1:
        if others:
            raise ConfigError(f"TF_CONFIG names tasks {others}: only 'chief' and 'worker' train together.")
        if not 0 <= index < tasks.get(kind, 0):
            raise ConfigError(f"TF_CONFIG says that this is {kind} {index}, which its cluster does not have.")
    return sum(tasks.values())


def _mirrored(gpus: int, virtual_devices: int | None) -> tf.distribute.Strategy:
    if virtual_devices is None:
        return tf.distribute.MirroredStrategy([f"/gpu:{index}" for index in range(gpus)])
    processor = tf.config.list_physical_devices("CPU")[0]
    try:
        tf.config.set_logical_device_configuration(
            processor, [tf.config.LogicalDeviceConfiguration()] * virtual_devices
        )
    except (RuntimeError, ValueError) as error:
        if len(tf.config.list_logical_devices("CPU")) != virtual_devices:
            raise ConfigError(
                "virtual_devices comes too late: TensorFlow has computed already. Call make_strategy first."
            ) from error
    return tf.distribute.MirroredStrategy(
        [f"/cpu:{index}" for index in range(virtual_devices)],
        cross_device_ops=tf.distribute.HierarchicalCopyAllReduce(),
    )


def _multi_worker() -> tf.distribute.Strategy:
    task = json.loads(os.environ["TF_CONFIG"]).get("task", {})
    _LOG.info(
        "strategy   multi_worker: this is %s %s; waiting for the others",
        task.get("type", "worker"),
        task.get("index", 0),
    )
    try:
        return tf.distribute.MultiWorkerMirroredStrategy()
    except RuntimeError as error:
        raise ConfigError(
            f"the strategy 'multi_worker' cannot begin: {error}. Call make_strategy first."
        ) from error
    except tf.errors.OpError as error:
        raise ConfigError(
            f"the workers in TF_CONFIG do not come together: {error.message}. Every host and port must be "
            "reachable from every worker, free on its own, and started within some minutes."
        ) from error


def _tpu() -> tf.distribute.Strategy:
    name = os.environ["TPU_NAME"]
    try:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver(tpu=name)
        if name != "local":
            tf.config.experimental_connect_to_cluster(resolver)
        tf.tpu.experimental.initialize_tpu_system(resolver)
    except (ValueError, RuntimeError, OSError, tf.errors.OpError) as error:
        first = str(error).strip().splitlines()[0][:200]
        raise ConfigError(
            f"the TPU {name!r} cannot be used: {first}. It needs the package tensorflow-tpu in an "
            "environment without tensorflow, which scripts/deploy/tpu makes, on the TPU's own machine "
            "(TPU_NAME=local)."
        ) from error
    return tf.distribute.TPUStrategy(resolver)
