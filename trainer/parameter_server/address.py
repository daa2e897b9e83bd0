"""Where a service is, what its callers have to show, and what it needs to listen there."""

from __future__ import annotations

import errno
import ipaddress
import secrets
import socket
from dataclasses import dataclass, field

from trainer.errors import TrainerError


@dataclass(frozen=True)
class Address:
    """Where a service is, and the secret of its run.

    Attributes:
        host: Name or IP address.
        port: TCP port.
        token: Every call must show it.
        certificate: Of the service, as PEM: the only one that a client accepts. None: calls are
            not encrypted.
        client_certificate: Of those who may call, as PEM: the only one that the service accepts.
        client_key: Its private key, as PEM.
    """

    host: str
    port: int
    token: str = field(repr=False)
    certificate: bytes | None = field(default=None, repr=False)
    client_certificate: bytes = field(default=b"", repr=False)
    client_key: bytes = field(default=b"", repr=False)

    @property
    def location(self) -> str:
        """The address as Flight writes it."""
        scheme = "grpc+tcp" if self.certificate is None else "grpc+tls"
        return f"{scheme}://{self}"

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


def is_encrypted(setting: str, host: str) -> bool:
    """Return whether a service on `host` speaks TLS.

    Args:
        setting: "on", "off", or "auto": on, unless the service listens on the loopback.
        host: Name or IP address.
    """
    return setting == "on" or (setting == "auto" and not _is_loopback(host))


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


@dataclass(frozen=True)
class Endpoint:
    """What a service needs to listen.

    Attributes:
        address: Where, with 0 for any free port; and what to show to clients and to ask of them.
        key: Private key of the certificate, as PEM; empty without one.
    """

    address: Address
    key: bytes = field(default=b"", repr=False)


def make_endpoint(host: str, port: int, *, encrypted: bool) -> Endpoint:
    """Return an endpoint with a new token and, if encrypted, a new certificate; see `serving`."""
    host = host.strip("[]")  # of an IPv6 address
    token = secrets.token_urlsafe(32)
    if not encrypted:
        return Endpoint(Address(host, port, token))
    try:
        # Workers, which import this module too, need no such library.
        from trainer.parameter_server.certificates import client_identity, service_identity
    except ImportError as error:
        raise TrainerError(
            f"encryption needs the library cryptography ({error}): pip install 'torrefy[spark]', "
            "or set encryption to off if the network is trusted"
        ) from error
    own, clients = service_identity(host), client_identity()
    address = Address(host, port, token, own.certificate, clients.certificate, clients.key)
    return Endpoint(address, own.key)


def check_bindable(host: str, port: int) -> None:
    """Refuse an address for the reason that the system gives; Flight would not tell it."""
    try:
        family, kind, *_, where = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(where)
    except OSError as error:
        is_port = error.errno in (errno.EADDRINUSE, errno.EACCES)
        remedy = (
            "choose another port, or 0 for any free one"
            if is_port
            else "set SPARK_LOCAL_IP to an address of this machine that the workers reach"
        )
        raise TrainerError(
            f"the service cannot listen on {host}:{port} ({error.strerror}): {remedy}"
        ) from error
