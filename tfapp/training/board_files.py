"""Event files of a board that are cut back to where a resumed run goes on."""

from __future__ import annotations

import os
from pathlib import Path

import tensorflow as tf

FILE_ENDING = ".tfapp"
"""What names of event files end in, so that others in the folder are left alone."""


def cut_back(directory: Path, *, last_step: int) -> None:
    """Removes what a run has written of steps that it will do again.

    Args:
        directory: Folder of event files, without those below it.
        last_step: The last step to keep; -1 keeps none.

    Raises:
        OSError: When a file cannot be written.
    """
    for path in sorted(directory.glob(f"events.out.tfevents.*{FILE_ENDING}")):
        records, kept = _records(path), []
        for record, step in records:
            if step is None or step <= last_step:
                kept.append((record, step))
        if all(step is None for _, step in kept):
            path.unlink()
        elif len(kept) < len(records):
            staging = path.with_name(f".{path.name}.{os.getpid()}")
            with tf.io.TFRecordWriter(str(staging)) as writer:
                for record, _ in kept:
                    writer.write(record)
            os.replace(staging, path)


def _records(path: Path) -> list[tuple[bytes, int | None]]:
    """Each record with its step, None where it is no summary; what was half written is left out."""
    from tensorboard.compat.proto.event_pb2 import Event

    found: list[tuple[bytes, int | None]] = []
    try:
        for record in tf.data.TFRecordDataset([str(path)]).as_numpy_iterator():
            event = Event.FromString(record)
            found.append((record, event.step if event.HasField("summary") else None))
    except tf.errors.DataLossError:
        pass  # the process was killed while it wrote
    return found
