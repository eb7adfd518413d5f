"""A lack of memory: telling it from other errors, and saying what needed it."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator

import tensorflow as tf

from tfapp.errors import TrainingError, writing_problem

_SHORT = re.compile(r"out[ _]of[ _]memory|_ALLOC_FAILED|RESOURCE_EXHAUSTED|failed to allocate", re.IGNORECASE)


class OutOfMemoryError(TrainingError):
    """A phase needs more memory than there is.

    Args:
        message: What needs it, and the cure.
        in_step: Whether it ran out while a batch was learned, which can be done in more parts.
    """

    def __init__(self, message: str, *, in_step: bool) -> None:
        super().__init__(message)
        self.in_step = in_step


def memory_ran_out(error: BaseException) -> bool:
    """Tells a lack of memory from what else ends an operation; a full disk is none.

    Args:
        error: What TensorFlow raised. Libraries of accelerators report some failed allocations as internal
            errors, known by their words alone.
    """
    if isinstance(error, tf.errors.ResourceExhaustedError):
        return writing_problem(error) is None
    unnamed = isinstance(error, tf.errors.InternalError | tf.errors.UnknownError)
    return unnamed and _SHORT.search(str(error)) is not None


def from_pipeline(error: tf.errors.OpError) -> bool:
    """Tells what ended a batch's making, in a function of the `tf.data` pipeline, from what ended a step."""
    return "Error in user-defined function passed to" in error.message


@contextlib.contextmanager
def telling_of_memory(what: str, cure: str) -> Iterator[None]:
    """Says what needs more memory than there is, where smaller parts of a batch would not help.

    Args:
        what: What needs it.
        cure: What to do.

    Raises:
        OutOfMemoryError: When memory runs out; other errors pass.
    """
    try:
        yield
    except tf.errors.OpError as error:
        if not memory_ran_out(error):
            raise
        raise OutOfMemoryError(f"{what} more memory than there is: {cure}.", in_step=False) from error
