"""Where a server is, which model is meant, and who asks."""

from __future__ import annotations

import logging
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from tfapp.errors import ConfigError, nearest

_logger = logging.getLogger("tfapp")

_SCHEMES = {"http": False, "https": True, "grpc": False, "grpcs": True}
_GRPC_PORT = 8500
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True)
class Target:
    """A model on a server.

    Attributes:
        url: The server's address as the user gave it.
        protocol: How it is spoken to.
        address: ``http(s)://host:port/prefix`` for REST, ``host:port`` for gRPC.
        tls: Whether the connection is encrypted.
        loopback: Whether the server is on this machine.
        model: The model's name there.
        version: A version's number, a version's label, or None for the server's newest.
        token: The bearer token, or None.
        ca_file: Certificates that servers are checked by, in PEM; None for those of the system.
        cert_file: This client's certificate in PEM, or None.
        key_file: The certificate's key in PEM, or None.
    """

    url: str
    protocol: Literal["rest", "grpc"]
    address: str
    tls: bool
    loopback: bool
    model: str
    version: int | str | None
    token: str | None
    ca_file: Path | None
    cert_file: Path | None
    key_file: Path | None

    @property
    def what(self) -> str:
        """The model and its version in words."""
        if self.version is None:
            return f"model {self.model!r}"
        kind = "version" if isinstance(self.version, int) else "label"
        return f"model {self.model!r}, {kind} {self.version!r}"

    def headers(self) -> dict[str, str]:
        """What goes with every request to tell who asks."""
        return {} if self.token is None else {"authorization": f"Bearer {self.token}"}

    def ssl_context(self) -> ssl.SSLContext:
        """Makes the settings of TLS.

        Raises:
            ConfigError: When a certificate cannot be read.
        """
        try:
            context = ssl.create_default_context(cafile=self.ca_file)
            if self.cert_file is not None:
                context.load_cert_chain(self.cert_file, self.key_file)
        except OSError as error:
            raise self._certificate_error(error) from error
        return context

    def certificates(self) -> list[bytes | None]:
        """Reads the certificates that servers are checked by, this client's key, and its certificate.

        Raises:
            ConfigError: When one cannot be read.
        """
        try:
            paths = (self.ca_file, self.key_file, self.cert_file)
            return [None if path is None else path.read_bytes() for path in paths]
        except OSError as error:
            raise self._certificate_error(error) from error

    def _certificate_error(self, error: OSError) -> ConfigError:
        files = [str(path) for path in (self.ca_file, self.cert_file, self.key_file) if path is not None]
        return ConfigError(
            f"{' or '.join(files)} cannot be used ({error.strerror or error}); give certificates and keys as "
            "PEM files."
        )


def make_target(
    url: str,
    model: str,
    *,
    version: int | str | None,
    token: str | None,
    ca_file: str | Path | None,
    cert_file: str | Path | None,
    key_file: str | Path | None,
) -> Target:
    """Understands an address.

    Args:
        url: ``http://host:port``, ``https://...``, ``grpc://host:port`` or ``grpcs://...``.
        model: The model's name.
        version: A number, a label, or None.
        token: A bearer token, or None.
        ca_file: Certificates that servers are checked by, or None.
        cert_file: This client's certificate, or None.
        key_file: Its key, or None.

    Returns:
        The target.

    Raises:
        ConfigError: When the address is none, or certificates are given without TLS.
    """
    parts = urlsplit(url)
    if parts.scheme not in _SCHEMES or not parts.hostname:
        hint = nearest(parts.scheme, _SCHEMES) if parts.scheme not in _SCHEMES else "the host is missing"
        raise ConfigError(
            f"{url!r} is no address of a server ({hint}); give one such as 'http://localhost:8501' or "
            "'grpc://localhost:8500'."
        )
    try:
        port = parts.port
    except ValueError as error:
        raise ConfigError(f"{url!r}: {error}; give a port such as 8501.") from error
    if not model:
        raise ConfigError("model is empty; it is the name of the release's folder.")
    tls = _SCHEMES[parts.scheme]
    files = [None if path is None else Path(path).expanduser() for path in (ca_file, cert_file, key_file)]
    if not tls and any(files):
        raise ConfigError(
            f"{url!r} is not encrypted, so that certificates are of no use; use https or grpcs."
        )
    if (files[1] is None) != (files[2] is None):
        raise ConfigError("cert_file and key_file go together: give both or none.")
    loopback = parts.hostname in _LOOPBACK
    if token is not None and not tls and not loopback:
        _logger.warning("client: the token is sent to %s unencrypted; use https or grpcs", parts.hostname)
    grpc = parts.scheme.startswith("grpc")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    if grpc:
        address = f"{host}:{port or _GRPC_PORT}"
    else:
        address = f"{parts.scheme}://{host}{'' if port is None else f':{port}'}{parts.path.rstrip('/')}"
    return Target(url, "grpc" if grpc else "rest", address, tls, loopback, model, version, token, *files)
