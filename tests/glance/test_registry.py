"""glance-registry: whom it serves, that a lost race is repeated, and what users see while it is away."""

import base64
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import msgspec
import pytest

from cumulet.core.context import Context
from cumulet.core.errors import BadRequest, Conflict, NotFound, Retry, Unauthorized, Unavailable
from cumulet.core.http import App
from cumulet.core.secrets import sign
from cumulet.glance.model import Claim, Stored
from cumulet.glance.registry_client import (
    ENVELOPE_SECONDS,
    SERVICE,
    HttpTransport,
    RegistryClient,
    _Envelope,
    seal,
    unseal,
)
from tests.glance.rig import CALLERS, SECRETS, Glance

PUBLIC = {"/healthcheck", "/openapi.json"}
SECRET = SECRETS.registry_secret
STORED = Stored(size=1, virtual_size=1, checksum="0" * 32, sha512="0" * 128)


def test_every_route_wants_an_envelope(glance: Glance) -> None:
    for route in glance.registry.routes:
        path = route.path.replace("{", "").replace("}", "")
        for token in ("", "admin", "gAAAAAB", seal("another secret", SERVICE), "e30.x"):
            status, _, _ = glance.registry.call(route.method, path, {}, {"X-Auth-Token": token})
            assert status == (200 if path in PUBLIC else 401), (route.path, token)
    headers = {"X-Cumulet-Host": "c1", "X-Cumulet-Host-Token": "x", "X-Auth-Token": ""}
    assert glance.registry.call("GET", "/images", headers=headers)[0] == 401


def test_an_envelope(glance: Glance) -> None:
    alice = CALLERS["alice"]
    assert unseal(SECRET, seal(SECRET, alice)) == alice
    good = seal(SECRET, alice)
    payload, _, signature = good.partition(".")
    forged = base64.urlsafe_b64encode(msgspec.json.encode(_Envelope(CALLERS["admin"], time.time()))).decode()
    with pytest.raises(Unauthorized):
        unseal(SECRET, f"{forged}.{signature}")
    for age in (ENVELOPE_SECONDS + 5, -ENVELOPE_SECONDS - 5):
        old = base64.urlsafe_b64encode(msgspec.json.encode(_Envelope(alice, time.time() - age))).decode()
        with pytest.raises(Unauthorized, match="out of date"):
            unseal(SECRET, f"{old}.{sign(SECRET, f'registry:{old}')}")
    for text in ("!!!", base64.urlsafe_b64encode(b"[]").decode()):
        with pytest.raises(Unauthorized):
            unseal(SECRET, f"{text}.{sign(SECRET, f'registry:{text}')}")
    assert payload


def test_visibility_is_the_registrys_too(glance: Glance) -> None:
    image = glance.create("alice", visibility="private")
    bob = CALLERS["bob"]
    with pytest.raises(NotFound):
        glance.client.get_image(bob, image["id"])
    record = glance.client.get_image(CALLERS["alice"], image["id"])
    with pytest.raises(NotFound):
        glance.client.change_image(bob, record, {"name": "x"})
    with pytest.raises(NotFound):
        glance.client.delete_image(bob, record)
    with pytest.raises(NotFound):
        glance.client.claim(bob, image["id"], Claim("a", "n", "raw"))
    assert glance.client.list_images(bob, []).images == []
    assert glance.client.get_image(SERVICE, image["id"]) == record


def test_a_change_is_a_compare_and_set(glance: Glance) -> None:
    alice = CALLERS["alice"]
    image = glance.create("alice")
    record = glance.client.get_image(alice, image["id"])
    glance.client.change_image(alice, record, {"name": "first"})
    with pytest.raises(Retry):
        glance.client.change_image(alice, record, {"name": "second"})
    with pytest.raises(Retry):
        glance.client.delete_image(alice, record)
    with pytest.raises(BadRequest):
        glance.client.change_image(alice, record, {"nonsense": 1})
    assert glance.show(image["id"])["name"] == "first"


def test_a_lost_race_is_run_again(glance: Glance) -> None:
    """Between glance-api's look and its change somebody else adds a tag: both changes are there."""
    image = glance.create("alice")
    transport, rival = glance.transport, CALLERS["alice"]
    call, raced = transport.call, False

    def racing(method: str, path: str, body: bytes, headers: Mapping[str, str]) -> tuple[int, bytes]:
        nonlocal raced
        if method == "PATCH" and not raced:
            raced = True
            record = glance.client.get_image(rival, image["id"])
            glance.client.change_image(rival, record, {"tags": ["rival"]})
        return call(method, path, body, headers)

    transport.call = racing  # type: ignore[method-assign]
    assert glance.call("alice", "PUT", f"{image['self']}/tags/mine")[0] == 204
    assert raced
    assert glance.show(image["id"])["tags"] == ["mine", "rival"]


def test_claims(glance: Glance) -> None:
    alice, image = CALLERS["alice"], glance.create("alice")
    client, image_id = glance.client, image["id"]
    with pytest.raises(Conflict):
        client.claim(alice, image_id, Claim("one", "n", "qcow2"))  # not the format that the image has
    client.claim(alice, image_id, Claim("one", "n", "raw"))
    client.claim(alice, image_id, Claim("one", "n", "raw"))
    with pytest.raises(Conflict):
        client.claim(alice, image_id, Claim("two", "n", "raw"))
    assert glance.show(image_id)["status"] == "saving"
    with pytest.raises(Conflict):
        client.activate(alice, image_id, "two", STORED)
    with pytest.raises(Conflict):
        client.renew(alice, image_id, "two")
    client.release(alice, image_id, "two")
    assert glance.show(image_id)["status"] == "saving"
    client.renew(alice, image_id, "one")
    client.release(alice, image_id, "one")
    assert glance.show(image_id)["status"] == "queued"
    client.claim(alice, image_id, Claim("two", "n", "raw"))
    client.activate(alice, image_id, "two", STORED)
    client.activate(alice, image_id, "two", STORED)
    with pytest.raises(Conflict):
        client.release(alice, image_id, "two")
    with pytest.raises(Conflict):
        client.claim(alice, image_id, Claim("three", "n", "raw"))
    assert glance.show(image_id)["status"] == "active"


def test_while_the_registry_is_away(glance: Glance) -> None:
    image = glance.active()
    glance.transport.down = True
    for method, url in (("GET", "/v2/images"), ("GET", image["self"]), ("DELETE", image["self"])):
        status, page = glance.call("alice", method, url)
        assert status == 503
        assert "glance-registry does not answer" in page
    assert glance.download("alice", image["id"]).status == 503
    glance.clean()
    assert "does not answer" in glance.loop.read_failure
    assert len(glance.files()) == 1
    glance.transport.down = False
    assert glance.download("alice", image["id"]).status == 200
    assert glance.call("alice", "GET", "/v2/images")[0] == 200


def test_the_registry_goes_away_during_an_upload(glance: Glance) -> None:
    image = glance.create()

    def body() -> Iterator[bytes]:
        yield b"x" * (1 << 20)
        glance.transport.down = True
        yield b"x" * (1 << 20)

    assert glance.upload("alice", image["id"], body()).status == 503
    glance.transport.down = False
    assert glance.show(image["id"])["status"] == "saving"
    glance.clean()
    glance.clean()
    assert glance.show(image["id"])["status"] == "queued"
    assert glance.files() == []
    assert glance.upload("alice", image["id"], b"again").status == 204


@contextmanager
def served(app: App, port: int = 0) -> Iterator[tuple[int, list[int]]]:
    """The registry behind a real HTTP server; the ports of the connections it got."""
    connections: list[int] = []
    sockets: list[socket.socket] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do(self) -> None:
            connections.append(self.client_address[1])
            sockets.append(self.connection)
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            status, data, _ = app.call(self.command, self.path, body, dict(self.headers))
            raw = b"" if data == b"" else msgspec.json.encode(data)
            self.send_response(status)
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)
            if self.headers.get("X-Close"):
                self.close_connection = True

        do_GET = do_POST = do_PATCH = do_DELETE = do_PUT = do

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server.server_address[1], connections
    finally:
        server.shutdown()
        server.server_close()
        for sock in sockets:
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        thread.join()


def test_over_real_http(glance: Glance) -> None:
    with served(glance.registry) as (port, connections):
        transport = HttpTransport("127.0.0.1", port)
        client = RegistryClient(transport, SECRET)
        record = client.create_image(
            CALLERS["alice"],
            {
                "id": "5c0b1f7c-13c4-4e5e-9d86-5c1d0e3b6f00", "owner": "blue", "name": "ü/&?",
                "visibility": "private", "protected": False, "os_hidden": False,
                "disk_format": "raw", "container_format": "bare",
                "min_disk": 0, "min_ram": 0, "properties": {}, "tags": [],
            },
        )  # fmt: skip
        assert client.list_images(CALLERS["alice"], [("name", "ü/&?")]).images == [record]
        with pytest.raises(NotFound):
            client.get_image(CALLERS["bob"], record.id)
        with pytest.raises(NotFound):
            client.get_image(CALLERS["alice"], "a/b?c")
        assert len(set(connections)) == 1
        # a connection that the registry has closed is opened anew, even for what may not be repeated
        transport.call("GET", "/healthcheck", b"", {"X-Close": "1"})
        deadline = time.monotonic() + 5
        while not _closed(transport) and time.monotonic() < deadline:
            threading.Event().wait(0.005)
        client.change_image(CALLERS["alice"], record, {"name": "new"})
        assert len(set(connections)) == 2
    with pytest.raises(Unavailable, match="glance-registry does not answer"):
        client.list_images(CALLERS["alice"], [])
    with served(glance.registry, port):
        assert client.get_image(Context(roles=frozenset({"admin"})), record.id).name == "new"


def _closed(transport: HttpTransport) -> bool:
    from cumulet.glance.registry_client import _readable

    sock = transport._connection().sock
    return sock is None or _readable(sock)
