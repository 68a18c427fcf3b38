"""A service's own socket: what it answers, and that nobody on it can stop it."""

import http.client
import socket
from pathlib import Path

import msgspec
import pytest

from cumulet.cli.status import UnixConnection
from cumulet.core import status
from cumulet.core.errors import Retry
from cumulet.core.reconcile import Loop, Reconciler


def unreadable() -> dict[str, str]:
    raise Retry("nobody answers")


@pytest.fixture
def loop() -> Loop[str]:
    return Loop(Reconciler("things", lambda: {"a": "a"}, lambda key: None, resync_seconds=1e6))


@pytest.fixture
def place(tmp_path: Path, loop: Loop[str]) -> Path:
    path = tmp_path / "status"
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()
    listener.setblocking(False)
    status.serve(listener, [loop])
    return path


def ask(place: Path, path: str, method: str = "GET") -> tuple[int, bytes]:
    connection = UnixConnection(place)
    try:
        connection.request(method, path)
        response: http.client.HTTPResponse = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def test_it_tells_of_the_loops(place: Path, loop: Loop[str]) -> None:
    loop.run_once()
    assert ask(place, "/healthcheck") == (200, b"OK")
    code, body = ask(place, "/loops")
    assert (code, [each["name"] for each in msgspec.json.decode(body)]) == (200, ["things"])
    assert b"cumulet_loop_passes_total" in ask(place, "/metrics")[1]
    before = loop.last_pass
    loop.run_once()
    assert loop.last_pass == before, "nothing is due"
    assert ask(place, "/resync", "POST") == (204, b"")
    loop.run_once()
    assert loop.last_pass > before
    assert ask(place, "/elsewhere") == (404, b"")


def test_a_loop_that_cannot_read_is_no_health() -> None:
    loop = Loop(Reconciler("things", unreadable, lambda key: None))
    loop.run_once()
    assert status.answer("/healthcheck", [loop]) == status.Answer(503, b"things: nobody answers")


@pytest.mark.parametrize("sent", [b"", b"\r\n\r\n", b"GET\r\n\r\n", b"\xff \xfe \xfd\r\n\r\n", b"x" * 20_000])
def test_nonsense_harms_nobody(place: Path, sent: bytes) -> None:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(place))
        connection.sendall(sent)
    assert ask(place, "/healthcheck")[0] == 200
