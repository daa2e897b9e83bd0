"""A service that speaks TLS: whom it lets in, and to whom a worker talks."""

import dataclasses
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
import torch
from cryptography import x509
from desks import SIZE, has_ipv6, make_desk

from trainer.errors import TrainerError
from trainer.links import Move, Place
from trainer.parameter_server.address import Address, is_encrypted
from trainer.parameter_server.certificates import client_identity, service_identity
from trainer.parameter_server.client import FlightLink
from trainer.parameter_server.service import serving

THERE = Place("there", 4711)


HOSTS = [
    "127.0.0.1",
    "localhost",
    pytest.param("::1", marks=pytest.mark.skipif(not has_ipv6(), reason="no IPv6 here")),
    pytest.param("[::1]", marks=pytest.mark.skipif(not has_ipv6(), reason="no IPv6 here")),
]


@pytest.fixture
def address() -> Iterator[Address]:
    with serving(make_desk(), "127.0.0.1", encrypted=True) as address:
        yield address


@pytest.fixture(autouse=True)
def without_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainer.parameter_server.flight_client._PAUSE_S", 0.0)


@pytest.mark.parametrize("encrypted", [False, True])
@pytest.mark.parametrize("host", HOSTS)
def test_worker_reaches_the_driver(host: str, encrypted: bool) -> None:
    desk = make_desk()
    with serving(desk, host, encrypted=encrypted) as address:
        assert address.location.startswith("grpc+tls://" if encrypted else "grpc+tcp://")
        link = FlightLink(address, 0, timeout_s=20)
        assert link.start(THERE).parameters.tolist() == list(range(SIZE))
        link.exchange(torch.ones(SIZE), Move("elastic", 1.0), 10)
        link.close()
    assert desk.center.copy().tolist() == [1] * SIZE


def test_a_proxy_of_the_environment_is_passed_by(
    address: Address, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "https_proxy", "grpc_proxy"):
        monkeypatch.setenv(name, "http://192.0.2.1:9")
    link = FlightLink(address, 0, timeout_s=20)
    assert link.start(THERE).attempt == 1
    link.close()


@pytest.mark.parametrize("certificate", [None, service_identity("127.0.0.1").certificate])
def test_worker_that_does_not_know_the_certificate_gets_nowhere(
    address: Address, certificate: bytes | None
) -> None:
    stranger = dataclasses.replace(address, certificate=certificate)
    link = FlightLink(stranger, 0, timeout_s=20)
    with pytest.raises(TrainerError, match="cannot be reached"):
        link.start(THERE)
    link.close()


@pytest.mark.parametrize("has_other", [False, True])
def test_caller_without_the_certificate_of_callers_gets_nowhere(
    address: Address, has_other: bool
) -> None:
    other = client_identity()
    shown = (other.certificate, other.key) if has_other else (b"", b"")
    stranger = dataclasses.replace(address, client_certificate=shown[0], client_key=shown[1])
    link = FlightLink(stranger, 0, timeout_s=20)
    with pytest.raises(TrainerError, match="cannot be reached"):
        link.start(THERE)
    link.close()


def test_worker_does_not_talk_to_a_service_without_the_certificate() -> None:
    desk = make_desk()
    with serving(desk, "127.0.0.1", encrypted=False) as address:
        wary = dataclasses.replace(address, certificate=service_identity("127.0.0.1").certificate)
        link = FlightLink(wary, 0, timeout_s=20)
        with pytest.raises(TrainerError, match="cannot be reached"):
            link.start(THERE)
        link.close()
    assert desk.center.register(0) == (1, 0)


def test_worker_does_not_talk_to_another_host_under_the_certificate(address: Address) -> None:
    elsewhere = dataclasses.replace(address, host="localhost")  # not what it was made for
    link = FlightLink(elsewhere, 0, timeout_s=20)
    with pytest.raises(TrainerError, match="cannot be reached"):
        link.start(THERE)
    link.close()


@pytest.mark.parametrize(
    ("host", "name"), [("192.0.2.7", "IPAddress"), ("2001:db8::1", "IPAddress"), ("a.b", "DNSName")]
)
def test_certificate_is_of_its_host_and_tolerates_a_clock_that_is_off(host: str, name: str) -> None:
    identity = service_identity(host)
    certificate = x509.load_pem_x509_certificate(identity.certificate)
    (alternative,) = certificate.extensions.get_extension_for_class(
        x509.SubjectAlternativeName
    ).value
    assert (type(alternative).__name__, str(alternative.value)) == (name, host)
    now, hour = datetime.now(UTC), timedelta(hours=1)
    assert certificate.not_valid_before_utc < now - hour
    assert now + 24 * hour < certificate.not_valid_after_utc < now + 24 * 366 * hour
    assert identity.key != service_identity(host).key
    assert "PRIVATE" not in repr(identity)


@pytest.mark.parametrize(
    ("setting", "host", "expected"),
    [
        ("on", "127.0.0.1", True),
        ("off", "192.0.2.7", False),
        ("auto", "127.0.0.1", False),
        ("auto", "127.9.8.7", False),
        ("auto", "::1", False),
        ("auto", "[::1]", False),
        ("auto", "localhost", False),
        ("auto", "192.0.2.7", True),
        ("auto", "2001:db8::1", True),
        ("auto", "localhost.example.org", True),
    ],
)
def test_encryption_is_on_by_itself_off_the_loopback(
    setting: str, host: str, expected: bool
) -> None:
    assert is_encrypted(setting, host) is expected
