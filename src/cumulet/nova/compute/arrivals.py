"""The destination's end of a live migration: who has the ticket may send one server's guest here.

``POST /servers/{id}/arrival`` says how large the server's disks are and has them made, empty; it answers where
they are.  ``WS /servers/{id}/arrival/{way}`` leads to this host's libvirtd, or to the sockets that QEMU receives
memory and disks on.  Both look into this host's own intent, each time, whether this guest may come in now and for
what ticket.

A connection is on the list before the ticket is looked at, and ``close`` ends all that are on the list: what the
intent forbids is never let in by an older one.
"""

import asyncio
import logging
import os
import socket
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from cumulet.core.errors import Retry, Terminal
from cumulet.core.secrets import same
from cumulet.nova import console_pipes
from cumulet.nova.compute import rpc_gate
from cumulet.nova.compute.passages import LIBVIRTD, TICKET, WAYS, Berth, read_sizes

LOG = logging.getLogger(__name__)
CHUNK = 64 * 1024
CONNECT_SECONDS = 5.0


@dataclass
class Arrivals:
    """``ticket_of``: for what ticket a server's guest is let in now, empty if for none.

    ``prepare`` makes disks of these sizes, once nothing of an earlier attempt is left; Terminal if all of the guest
    is here.  ``find_way``: the socket that a way leads to.  ``lock``: held while disks are made.
    """

    ticket_of: Callable[[str], str]
    prepare: Callable[[str, Mapping[str, int]], Berth]
    find_way: Callable[[str, str], Path]
    wake: Callable[[str], None] = lambda server_id: None
    lock: threading.Lock = field(default_factory=threading.Lock)
    _open: set[tuple[str, socket.socket]] = field(default_factory=set)
    _listed: threading.Lock = field(default_factory=threading.Lock)

    def routes(self) -> list[BaseRoute]:
        return [
            Route("/servers/{id}/arrival", self.let_in, methods=["POST"]),
            WebSocketRoute("/servers/{id}/arrival/{way}", self.carry),
        ]

    def let_in(self, request: Request) -> Response:
        server_id = request.path_params["id"]
        try:
            sizes = read_sizes(request.query_params)
            with self.lock:
                self._check(server_id, request.headers.get(TICKET, ""))
                self.close(server_id)
                return Response(msgspec.json.encode(self.prepare(server_id, sizes)), media_type="application/json")
        except PermissionError as reason:
            return PlainTextResponse(str(reason), 403)
        except msgspec.ValidationError as reason:
            return PlainTextResponse(str(reason), 400)
        except Terminal as reason:
            return PlainTextResponse(str(reason), 409)
        except Retry as reason:
            return PlainTextResponse(str(reason), 503)

    async def carry(self, caller: WebSocket) -> None:
        server_id, way = caller.path_params["id"], caller.path_params["way"]
        end = socket.socket(socket.AF_UNIX)
        entry = (server_id, socket.socket(fileno=os.dup(end.fileno())))  # stays valid when asyncio closes ``end``
        with self._listed:
            self._open.add(entry)
        try:
            await run_in_threadpool(self._admit, server_id, way, caller.headers.get(TICKET, ""), end)
            await _carry(caller, way, end)
        except (Retry, Terminal, OSError) as reason:
            LOG.warning("server %s does not come in by %s: %s", server_id, way, reason)
            await console_pipes.close(caller)
        finally:
            with self._listed:
                self._open.discard(entry)
            entry[1].close()
            end.close()
            if way == LIBVIRTD:
                self.wake(server_id)

    def close(self, server_id: str) -> None:
        """End all that brings this server in."""
        with self._listed:
            ended = [end for name, end in self._open if name == server_id]
            for end in ended:
                with suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)

    def _admit(self, server_id: str, way: str, ticket: str, end: socket.socket) -> None:
        self._check(server_id, ticket)
        if way not in WAYS:
            raise Terminal("there is no such way")
        end.settimeout(CONNECT_SECONDS)
        end.connect(str(self.find_way(server_id, way)))
        self._check(server_id, ticket)

    def _check(self, server_id: str, ticket: str) -> None:
        wanted = self.ticket_of(server_id)
        if not wanted or not same(ticket, wanted):
            raise PermissionError("nobody is let in for this ticket")


async def _carry(caller: WebSocket, way: str, end: socket.socket) -> None:
    end.setblocking(False)
    reader, writer = await asyncio.open_unix_connection(sock=end)
    try:
        await caller.accept()
        inward = _in(caller, writer, rpc_gate.Gate() if way == LIBVIRTD else None)
        await console_pipes.first_of(inward, _out(reader, caller))
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()  # all that was sent is written first
    await console_pipes.close(caller)


async def _in(caller: WebSocket, writer: asyncio.StreamWriter, gate: rpc_gate.Gate | None) -> None:
    while data := await console_pipes.receive(caller):
        if gate:
            gate.check(data)
        writer.write(data)
        await writer.drain()


async def _out(reader: asyncio.StreamReader, caller: WebSocket) -> None:
    with suppress(WebSocketDisconnect):
        while data := await reader.read(CHUNK):
            await caller.send_bytes(data)
