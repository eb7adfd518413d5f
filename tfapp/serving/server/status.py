"""What a request can end with: the status codes that gRPC and TensorFlow Serving share."""

from __future__ import annotations

import enum

FAILED = "the server failed at this request; its log tells more"
"""All that a client is told of what is not its fault."""

_MOST_BYTES = 1000


class Code(enum.Enum):
    """A status code: its number on the wire of gRPC and its HTTP status, as TensorFlow Serving pairs them."""

    OK = (0, 200)
    CANCELLED = (1, 499)
    INVALID_ARGUMENT = (3, 400)
    DEADLINE_EXCEEDED = (4, 504)
    NOT_FOUND = (5, 404)
    RESOURCE_EXHAUSTED = (8, 429)
    FAILED_PRECONDITION = (9, 400)
    UNIMPLEMENTED = (12, 501)
    INTERNAL = (13, 500)
    UNAVAILABLE = (14, 503)
    UNAUTHENTICATED = (16, 401)

    @property
    def number(self) -> int:
        """The number in gRPC."""
        return self.value[0]

    @property
    def http(self) -> int:
        """The HTTP status."""
        return self.value[1]


class RequestError(Exception):
    """A request that cannot be answered.

    Attributes:
        code: Its status.
        message: What is wrong, in TensorFlow Serving's words where it has some; cut where names that the
            client sent make it too long for the metadata of gRPC.
        http: The HTTP status; that of the code unless REST has one that says more, such as 413.
    """

    def __init__(self, code: Code, message: str, *, http: int | None = None) -> None:
        self.message = message.encode("utf-8", "replace")[:_MOST_BYTES].decode("utf-8", "ignore")
        super().__init__(self.message)
        self.code = code
        self.http = http or code.http


def invalid(message: str) -> RequestError:
    """Makes the error of a request that is wrong in itself.

    Args:
        message: What is wrong with it.

    Returns:
        The error, to be raised.
    """
    return RequestError(Code.INVALID_ARGUMENT, message)
