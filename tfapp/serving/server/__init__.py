"""A server of releases that speaks TensorFlow Serving's REST and gRPC, for machines without containers."""

from tfapp.serving.server.lifecycle import Server, serve
from tfapp.serving.server.settings import Batching, Limits, ServerSettings

__all__ = ["Batching", "Limits", "Server", "ServerSettings", "serve"]
