"""TLS between agents and controllers: who is believed, for how long, and what a node is given of it."""

import asyncio
import contextlib
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from msgspec.structs import replace
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from cumulet.core import certificates, run, secrets
from cumulet.core.client import Controller, connect_host
from cumulet.core.config import Api, Broker, Config, Tls
from cumulet.core.errors import BadRequest, Retry

NOW = datetime.now(UTC)
NAMES = ("127.0.0.1", "localhost")
RSA_KEY = (
    rsa.generate_private_key(65537, 2048)
    .public_key()
    .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    .decode()
)


@pytest.fixture(scope="module")
def authority() -> str:
    return certificates.make_authority()


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    await Response(b'{"a": 1}')(scope, receive, send)


@contextmanager
def server(place: Path, pem: str) -> Iterator[str]:
    """A service as the cloud serves it, on loopback, by HTTPS with this certificate; its URL."""
    file = place / "server.pem"
    file.write_text(pem)
    found, loops = run._server(app, False, str(file)), list[asyncio.AbstractEventLoop]()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        async def serve() -> None:
            loops.append(asyncio.get_running_loop())
            await found.serve([listener])

        thread = threading.Thread(target=lambda: asyncio.run(serve()))
        thread.start()
        try:
            yield f"https://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            loops[0].call_soon_threadsafe(found.end)
            thread.join(20)


def ask(url: str, place: Path, authority: str) -> Any:
    file = place / f"{abs(hash(authority))}.pem"
    file.write_text(certificates.certificate_of(authority))
    trust = certificates.client_context(file)
    return Controller("nova-conductor", url, "h1", "token", trust).get("/x", dict[str, int])


def test_an_agent_speaks_to_a_controller_of_its_own_authority(tmp_path: Path, authority: str) -> None:
    with server(tmp_path, certificates.issue(authority, NAMES, NOW)) as url:
        assert ask(url, tmp_path, authority) == {"a": 1}


def test_another_authority_another_name_and_a_life_that_is_over_are_refused(tmp_path: Path, authority: str) -> None:
    other = certificates.make_authority()
    for pem, words in (
        (certificates.issue(other, NAMES, NOW), "CERTIFICATE_VERIFY_FAILED"),
        (certificates.issue(authority, ("10.0.0.1",), NOW), "IP address mismatch"),
        (certificates.issue(authority, NAMES, NOW - timedelta(days=30), days=29), "certificate has expired"),
        (certificates.issue(authority, NAMES, NOW + timedelta(days=2)), "not yet valid"),
    ):
        with server(tmp_path, pem) as url, pytest.raises(Retry, match=words):
            ask(url, tmp_path, authority)


def test_only_the_clouds_own_broker_is_checked_against_its_authority(tmp_path: Path, authority: str) -> None:
    def trust(url: str) -> ssl.SSLContext | None:
        config = Config(tls=Tls(on=True), broker=Broker(url), etc_dir=str(tmp_path))
        certificates.prepare(config, authority, None)
        return certificates.broker_trust(config)

    assert trust("amqp://10.0.0.1:5672") is None
    own, other = trust("amqps://10.0.0.1:5671"), trust("amqps://user:word@broker.example.org")
    assert own is not None
    assert other is not None
    assert [one["subject"] for one in own.get_ca_certs()] == [((("commonName", "Cumulet certificate authority"),),)]
    assert other.verify_mode == ssl.CERT_REQUIRED
    assert other.check_hostname


def test_a_controller_renews_its_certificate_when_it_must(authority: str) -> None:
    pem = certificates.issue(authority, NAMES, NOW)
    half = timedelta(days=certificates.SERVER_DAYS / 2)
    assert certificates.still_good(pem, authority, NAMES, NOW)
    assert certificates.still_good(pem, authority, NAMES, NOW + half - timedelta(days=1))
    assert not certificates.still_good(pem, authority, NAMES, NOW + half + timedelta(days=1))
    assert not certificates.still_good(pem, authority, (*NAMES, "cloud.example.org"), NOW)
    assert not certificates.still_good(pem, certificates.make_authority(), NAMES, NOW)
    for broken in ("", "nonsense", certificates.certificate_of(pem)[:200]):
        assert not certificates.still_good(broken, authority, NAMES, NOW)


def test_a_controllers_files_are_its_services_alone(tmp_path: Path, authority: str) -> None:
    config = Config(tls=Tls(on=True), api=Api(bind="10.1.1.1", public_host="cloud.example.org"))
    config.etc_dir = str(tmp_path)
    certificates.prepare(config, authority, 0)
    key, public = certificates.server_path(config), certificates.authority_path(config)
    assert (key.stat().st_mode & 0o777, public.stat().st_mode & 0o777) == (0o640, 0o644)
    assert "PRIVATE KEY" not in public.read_text()
    before = key.read_text()
    assert {"10.1.1.1", "cloud.example.org", "127.0.0.1"} <= set(certificates.names(config))
    certificates.prepare(config, authority, 0)
    assert key.read_text() == before
    certificates.prepare(replace(config, api=Api(bind="10.1.1.2")), authority, 0)
    assert key.read_text() != before


def test_a_host_gets_the_authoritys_certificate_and_no_key(tmp_path: Path) -> None:
    cloud = secrets.generate()
    secrets.write(tmp_path, secrets.host_secrets(cloud, "h1", metadata=False))
    own = secrets.load_host(tmp_path, "h1")
    assert own.authority == certificates.certificate_of(cloud.authority) != ""
    assert "PRIVATE" not in secrets.path(tmp_path).read_text()
    config = Config(tls=Tls(on=True))
    config.etc_dir = str(tmp_path)
    certificates.prepare(config, own.authority, None)
    assert not certificates.server_path(config).exists()


def test_a_host_is_known_by_its_name_wherever_it_is(tmp_path: Path, authority: str) -> None:
    key = certificates.make_key()
    pem = key + certificates.sign(authority, certificates.public_key(key), ["c1"], NOW, certificates.HOST_DAYS)
    (tmp_path / "ca.pem").write_text(certificates.certificate_of(authority))
    trust = certificates.client_context(tmp_path / "ca.pem")
    with server(tmp_path, pem) as url:
        port = int(url.rpartition(":")[2])
        connection = connect_host("c1", "127.0.0.1", port, trust, 5.0)
        connection.request("GET", "/x")
        assert connection.getresponse().read() == b'{"a": 1}'
        connection.close()
        with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
            connect_host("c2", "127.0.0.1", port, trust, 5.0).connect()


def test_a_certificate_is_exchanged_while_it_is_served_with(tmp_path: Path, authority: str) -> None:
    (tmp_path / "ca.pem").write_text(certificates.certificate_of(authority))
    trust = certificates.client_context(tmp_path / "ca.pem")
    nobodys = certificates.issue(certificates.make_authority(), ["c1"], NOW)
    with server(tmp_path, nobodys) as url:
        port = int(url.rpartition(":")[2])
        with pytest.raises(ssl.SSLCertVerificationError):
            connect_host("c1", "127.0.0.1", port, trust, 5.0).connect()
        (tmp_path / "server.pem").write_text(certificates.issue(authority, ["c1"], NOW))
        with contextlib.suppress(ssl.SSLCertVerificationError):  # whoever finds out may still be shown the old one
            connect_host("c1", "127.0.0.1", port, trust, 5.0).connect()
        connect_host("c1", "127.0.0.1", port, trust, 5.0).connect()


@pytest.mark.parametrize("wrong", ["", "no key", RSA_KEY])
def test_only_keys_of_one_kind_are_signed(authority: str, wrong: str) -> None:
    with pytest.raises(BadRequest, match="no public key"):
        certificates.sign(authority, wrong, ["c1"], NOW, 1)
