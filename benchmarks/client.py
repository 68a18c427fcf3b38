"""A client that costs little: requests as bytes, kept connections, one thread.

It shares the machine with what it measures, so it does no more than it must: it reads a status line, the headers
up to the length of the body, and the body.
"""

import re
import selectors
import socket
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

_LENGTH = re.compile(rb"\r\ncontent-length: (\d+)\r\n", re.IGNORECASE)
_STATUS = re.compile(rb"HTTP/1\.1 (\d+)")
NOTHING = b""
KEPT_SECONDS = 3.0
"""Connections that rested longer are opened again: the service closes them some time."""


@dataclass(frozen=True)
class Answer:
    status: int
    head: bytes
    body: bytes

    def json(self) -> Any:
        return msgspec.json.decode(self.body)

    def header(self, name: str) -> str:
        match = re.search(rb"\r\n%s: ([^\r]*)\r\n" % name.encode(), self.head, re.IGNORECASE)
        return match.group(1).decode() if match else ""


def request(method: str, path: str, headers: Mapping[str, str], body: Any = None) -> bytes:
    """A request's bytes."""
    data = NOTHING if body is None else body if isinstance(body, bytes) else msgspec.json.encode(body)
    kind = "application/octet-stream" if isinstance(body, bytes) else "application/json"
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    if data or method in ("POST", "PUT", "PATCH"):
        lines += [f"Content-Type: {kind}", f"Content-Length: {len(data)}"]
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + data


class Connection:
    """One kept connection to ``port`` of this machine."""

    def __init__(self, port: int) -> None:
        self._port, self._used = port, 0.0
        self._connect()

    def _connect(self) -> None:
        self.socket = socket.create_connection(("127.0.0.1", self._port), timeout=300)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._read = bytearray()

    def ask(self, sent: bytes) -> Answer:
        """Send a request and read its answer; AssertionError if it is an error."""
        if time.monotonic() - self._used > KEPT_SECONDS:
            self.socket.close()
            self._connect()
        self.socket.sendall(sent)
        while True:
            answer = self.receive()
            if answer:
                self._used = time.monotonic()
                return checked(answer, sent)

    def receive(self) -> Answer | None:
        """Read what has come; the answer once it is whole."""
        data = self.socket.recv(1 << 18)
        assert data, "the service closed the connection"
        self._read += data
        end = self._read.find(b"\r\n\r\n")
        if end < 0:
            return None
        head = bytes(self._read[: end + 4])
        length = _LENGTH.search(head)
        total = end + 4 + (int(length.group(1)) if length else 0)
        if len(self._read) < total:
            return None
        status = _STATUS.match(head)
        assert status, head
        answer = Answer(int(status.group(1)), head, bytes(self._read[end + 4 : total]))
        self._read.clear()
        return answer

    def close(self) -> None:
        self.socket.close()


def checked(answer: Answer, sent: bytes) -> Answer:
    assert answer.status < 300, f"{sent.splitlines()[0].decode()}: {answer.status} {answer.body[:500].decode()}"
    return answer


def one_after_another(connection: Connection, requests: Iterable[bytes]) -> list[float]:
    """Seconds of each request."""
    took = []
    for sent in requests:
        started = time.perf_counter()
        connection.ask(sent)
        took.append(time.perf_counter() - started)
    return took


def side_by_side(port: int, requests: Sequence[bytes], connections: int = 16) -> list[float]:
    """Seconds of each request, that many being under way at any time."""
    waiting, took = list(reversed(requests)), []
    with selectors.DefaultSelector() as selector:
        for _ in range(min(connections, len(waiting))):
            connection = Connection(port)
            selector.register(connection.socket, selectors.EVENT_READ)
            _send(selector, connection, waiting.pop())
        under_way = len(selector.get_map())
        while under_way:
            for key, _ in selector.select():
                connection, sent, started = key.data
                answer = connection.receive()
                if not answer:
                    continue
                checked(answer, sent)
                took.append(time.perf_counter() - started)
                if waiting:
                    _send(selector, connection, waiting.pop())
                else:
                    selector.unregister(connection.socket)
                    connection.close()
                    under_way -= 1
    return took


def _send(selector: selectors.BaseSelector, connection: Connection, sent: bytes) -> None:
    selector.modify(connection.socket, selectors.EVENT_READ, (connection, sent, time.perf_counter()))
    connection.socket.sendall(sent)
