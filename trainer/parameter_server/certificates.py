"""The certificates of one run: made for it, trusted by its processes alone, never stored."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

# Clocks of the cluster may differ by so much.
_SKEW = timedelta(days=1)
# Workers connect again after a failure, so it has to outlast the run.
_VALIDITY = timedelta(days=90)


@dataclass(frozen=True)
class Identity:
    """A certificate and its key, as PEM.

    Attributes:
        certificate: What the other side has to trust.
        key: Its private key.
    """

    certificate: bytes
    key: bytes = field(repr=False)


def service_identity(host: str) -> Identity:
    """Return a new identity of a service.

    Args:
        host: The name or IP address by which clients reach it.
    """
    return _make(ExtendedKeyUsageOID.SERVER_AUTH, [_name_of(host)])


def client_identity() -> Identity:
    """Return a new identity of those who may call a service."""
    return _make(ExtendedKeyUsageOID.CLIENT_AUTH, [])


def _make(usage: x509.ObjectIdentifier, names: Sequence[x509.GeneralName]) -> Identity:
    """Return a new key on the curve P-256, and a certificate of it that is signed by itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "torrefy")])
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _SKEW)
        .not_valid_after(now + _VALIDITY)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return Identity(
        builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM),
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ),
    )


def _name_of(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)
