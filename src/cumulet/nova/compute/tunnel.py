"""The source's end of a live migration: sockets of this host that lead to the destination's.

Each connection that libvirtd or QEMU makes to one of them becomes a websocket to the destination's nova-compute,
which shows the ticket of this one move.  It lives as long as the job: ``close`` ends whatever is under way, and so
does the death of this process; the job then fails, and the guest stays.
"""

import contextlib
import logging
import os
import socket
import ssl
import threading
from http.client import HTTPException
from pathlib import Path

from websockets.exceptions import WebSocketException
from websockets.sync.client import ClientConnection, connect

from cumulet.nova.compute.passages import LIBVIRTD, TICKET, WAYS, Destination

LOG = logging.getLogger(__name__)
CHUNK = 256 * 1024
LONGEST_MESSAGE = 1 << 20
CONNECT_SECONDS = 10.0


class Tunnel:
    """``directory`` is there and empty.  QEMU's ``group`` may use the ways, but not the one to libvirtd."""

    def __init__(
        self, directory: Path, group: int, server_id: str, to: Destination, trust: ssl.SSLContext | None
    ) -> None:
        self._directory, self._group, self._server_id = directory, group, server_id
        self._to, self._trust = to, trust
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._closed = False

    def __enter__(self) -> "Tunnel":
        for way in WAYS:
            listener = socket.socket(socket.AF_UNIX)
            self._open.add(listener)
            path = self._directory / way
            listener.bind(str(path))
            os.chown(path, 0, self._group)
            path.chmod(0o600 if way == LIBVIRTD else 0o660)
            listener.listen()
            self._start(self._accept, way, listener)
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._closed = True
            for one in self._open:
                _shut(one)
        for thread in self._threads:
            thread.join()

    def _start(self, work: object, *words: object) -> None:
        thread = threading.Thread(target=work, args=words, name="tunnel", daemon=True)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _accept(self, way: str, listener: socket.socket) -> None:
        with listener:
            while True:
                try:
                    local = listener.accept()[0]
                except OSError:
                    return
                self._start(self._carry, way, local)

    def _carry(self, way: str, local: socket.socket) -> None:
        """One connection, until either side closes it."""
        with contextlib.ExitStack() as stack:
            stack.enter_context(local)
            try:
                reached = self._to.reach(self._trust, CONNECT_SECONDS)
                reached.connect()
                raw = stack.enter_context(reached.sock)
                if not (self._keep(local, stack) and self._keep(raw, stack)):
                    return
                remote = stack.enter_context(self._connect(way, raw))
                self._start(_send, local, remote)
                for piece in remote:
                    local.sendall(piece if isinstance(piece, bytes) else piece.encode())
            except (OSError, HTTPException, WebSocketException) as error:
                LOG.info("server %s, %s: the way to %s is closed: %s", self._server_id, way, self._to.host, error)
            _shut(local)

    def _connect(self, way: str, raw: socket.socket) -> ClientConnection:
        return connect(
            f"ws://nova-compute/servers/{self._server_id}/arrival/{way}", sock=raw,
            additional_headers={TICKET: self._to.ticket}, compression=None, proxy=None, user_agent_header=None,
            open_timeout=CONNECT_SECONDS, close_timeout=CONNECT_SECONDS, ping_interval=None,
            max_size=LONGEST_MESSAGE,
        )  # fmt: skip

    def _keep(self, one: socket.socket, stack: contextlib.ExitStack) -> bool:
        """Have it end with the tunnel; False if that has ended."""
        with self._lock:
            if self._closed:
                return False
            self._open.add(one)
        stack.callback(self._forget, one)
        return True

    def _forget(self, one: socket.socket) -> None:
        with self._lock:
            self._open.discard(one)


def _send(local: socket.socket, remote: ClientConnection) -> None:
    with contextlib.suppress(OSError, WebSocketException):
        while piece := local.recv(CHUNK):
            remote.send(piece)
    remote.close()


def _shut(one: socket.socket) -> None:
    with contextlib.suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)
