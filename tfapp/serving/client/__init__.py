"""Clients of TF Serving and ``tfapp serve``: REST or gRPC, blocking or asynchronous, without TensorFlow."""

from tfapp.serving.client.clients import AsyncClient, Client

__all__ = ["AsyncClient", "Client"]
