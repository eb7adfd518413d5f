"""The devices that a workflow trains on, and what its workers agree on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tfapp.config import WorkflowConfig

if TYPE_CHECKING:
    import tensorflow as tf

    from tfapp.training.workers import Workers


@dataclass(frozen=True)
class Devices:
    """The devices of a run.

    Attributes:
        strategy: The strategy that models are built and trained under.
        workers: The processes that train together.
    """

    strategy: tf.distribute.Strategy
    workers: Workers

    @property
    def plain(self) -> bool:
        """Whether a model that was built in the strategy's scope is like any other."""
        return bool(self.strategy.num_replicas_in_sync == 1)

    def run_folder(self, output: Path, name: str) -> Path:
        """The folder of this worker's run; each has its own, so that they may share a disk.

        Args:
            output: Where runs are kept.
            name: The workflow's name.

        Returns:
            The folder.
        """
        own = name if self.workers.chief else f"{name}.worker-{self.workers.index}"
        return output / "runs" / own


def open_devices(config: WorkflowConfig) -> Devices:
    """Makes the strategy that a workflow asks for; to be called before TensorFlow computes.

    Args:
        config: The workflow.

    Returns:
        The devices.

    Raises:
        ConfigError: When the environment does not have what the strategy needs.
    """
    from tfapp.training.strategy import make_strategy
    from tfapp.training.workers import Workers

    strategy = make_strategy(**config.hardware.model_dump())
    return Devices(strategy, Workers(strategy))
