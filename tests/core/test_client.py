"""An agent's way to several controllers: the next one is asked when one does not answer."""

import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from cumulet.core.client import Controller
from cumulet.core.errors import Retry


class Server:
    """A controller that says who it is, and closes what it is told to forget."""

    def __init__(self, name: str) -> None:
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                body = f'"{name}"'.encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        class Http(ThreadingHTTPServer):
            daemon_threads = True
            connections: list[socket.socket] = []

            def process_request(self, request: socket.socket, address: object) -> None:  # type: ignore[override]
                self.connections.append(request)
                super().process_request(request, address)

        Http.connections = []
        self._http = Http(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._http.server_port}"
        threading.Thread(target=self._http.serve_forever, args=(0.01,), daemon=True).start()

    def end(self) -> None:
        self._http.shutdown()
        self._http.server_close()
        for one in self._http.connections:
            try:
                one.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue


@pytest.fixture
def servers() -> Iterator[list[Server]]:
    found = [Server("a"), Server("b")]
    yield found
    for one in found:
        one.end()


def test_the_first_is_asked_and_kept_to(servers: list[Server]) -> None:
    client = Controller("nova-conductor", [one.url for one in servers], "h1", "token")
    assert [client.get("/who", str) for _ in range(3)] == ["a"] * 3


def test_the_next_is_asked_when_one_has_gone_and_is_kept_to(servers: list[Server]) -> None:
    client = Controller("nova-conductor", [one.url for one in servers], "h1", "token")
    assert client.get("/who", str) == "a"
    servers[0].end()
    assert [client.get("/who", str) for _ in range(3)] == ["b"] * 3
    assert client.address[1] == int(servers[1].url.rpartition(":")[2])
    assert [port for _, port in client.addresses] == [int(one.url.rpartition(":")[2]) for one in servers[::-1]]
    parts: list[bytes] = []
    client.download("/who", parts.append)
    assert parts == [b'"b"']


def test_it_comes_back_to_the_first_when_the_second_has_gone() -> None:
    one, two = Server("a"), Server("b")
    port = int(one.url.rpartition(":")[2])
    one.end()
    client = Controller("nova-conductor", [f"http://127.0.0.1:{port}", two.url], "h1", "token")
    assert client.get("/who", str) == "b"
    two.end()
    with pytest.raises(Retry, match="nova-conductor does not answer"):
        client.get("/who", str)


def test_one_that_answers_nobody_is_left_for_the_next() -> None:
    """It takes connections and says nothing but the end: the exchange fails, not the connection."""
    with socket.socket() as mute:
        mute.bind(("127.0.0.1", 0))
        mute.listen()
        threading.Thread(target=_hang_up, args=(mute,), daemon=True).start()
        other = Server("b")
        client = Controller("nova-conductor", [f"http://127.0.0.1:{mute.getsockname()[1]}", other.url], "h1", "t")
        assert client.get("/who", str) == "b"
        other.end()


def _hang_up(mute: socket.socket) -> None:
    while True:
        try:
            mute.accept()[0].close()
        except OSError:
            return
