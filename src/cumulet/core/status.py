"""A service's own status socket: ``/healthcheck``, ``/loops``, ``/metrics`` and ``POST /resync``.

Only this node's programs may connect, so a thread that answers one after another will do, and services without an
API need no HTTP server.  Who is slow is cut off: the next one waits.
"""

import logging
import select
import socket
import threading
from collections.abc import Callable, Sequence
from http import HTTPStatus
from typing import Any, NamedTuple

from prometheus_client import generate_latest

from cumulet.core import schema
from cumulet.core.metrics import REGISTRY
from cumulet.core.reconcile import Loop

LOG = logging.getLogger(__name__)
PATIENCE_SECONDS = 2.0
LONGEST_HEAD = 8192


class Answer(NamedTuple):
    status: int = 200
    body: bytes = b""
    kind: str = "text/plain; charset=utf-8"


def serve(listener: socket.socket, loops: Sequence[Loop[Any]]) -> None:
    """Answer on ``listener`` for as long as this process lives, beside whatever else it does."""
    threading.Thread(
        target=_serve, args=(listener, lambda path: answer(path, loops)), name="status", daemon=True
    ).start()


def answer(path: str, loops: Sequence[Loop[Any]]) -> Answer:
    if path == "/metrics":
        return Answer(200, generate_latest(REGISTRY), "text/plain; version=0.0.4; charset=utf-8")
    if path == "/loops":
        return Answer(200, schema.encode([loop.status() for loop in loops]), "application/json")
    if path == "/resync":
        for loop in loops:
            loop.resync()
        return Answer(204)
    if path == "/healthcheck":
        bad = [f"{loop.reconciler.name}: {loop.read_failure}" for loop in loops if loop.read_failure]
        return Answer(503 if bad else 200, "; ".join(bad).encode() or b"OK")
    return Answer(404)


def _serve(listener: socket.socket, look: Callable[[str], Answer]) -> None:
    poller = select.poll()
    poller.register(listener, select.POLLIN)  # it does not block: a former process of the service may have it, too
    while True:
        poller.poll()
        try:
            connection, _ = listener.accept()
        except OSError as error:
            LOG.debug("a connection to the status socket is gone: %s", error)
            continue
        with connection:
            try:
                exchange(connection, look)
            except OSError as error:
                LOG.debug("an answer of the status socket is not wanted: %s", error)
            except Exception:
                LOG.exception("the status socket has no answer")


def exchange(connection: socket.socket, look: Callable[[str], Answer]) -> None:
    """Read one request and answer it."""
    connection.settimeout(PATIENCE_SECONDS)
    head = b""
    while b"\r\n\r\n" not in head and len(head) < LONGEST_HEAD:
        received = connection.recv(LONGEST_HEAD)
        if not received:
            return
        head += received
    words = head.split(b"\r\n", 1)[0].split(b" ")
    found = look(words[1].decode("latin-1")) if len(words) == 3 else Answer(400)
    lines = [
        f"HTTP/1.1 {found.status} {HTTPStatus(found.status).phrase}",
        f"Content-Length: {len(found.body)}",
        f"Content-Type: {found.kind}",
        "Connection: close",
    ]
    connection.sendall("\r\n".join(lines).encode() + b"\r\n\r\n" + found.body)
