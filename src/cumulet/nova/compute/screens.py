"""nova-compute's end of a VNC console: a websocket to a server's screen, for nova-novncproxy.

``WS /servers/{id}/screen`` with a ticket for this server of this host (``nova.console_tickets``).  The hypervisor
opens the screen; no address, port or path is in the request.  When QEMU ends, so does the connection.
"""

import asyncio
import logging
import socket
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from starlette.concurrency import run_in_threadpool
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket

from cumulet.core.errors import Retry, Terminal
from cumulet.nova import console_pipes
from cumulet.nova.console_tickets import PROOF, TICKET, Sign, is_valid, make_proof

LOG = logging.getLogger(__name__)
CHUNK = 64 * 1024
MOST_SCREENS = 10
"""Connections at once to one server's screen."""


@dataclass
class Screens:
    """``sign`` is an HMAC with the host's token, ``open_screen`` the hypervisor's."""

    sign: Sign
    open_screen: Callable[[str], socket.socket]
    shown: Counter[str] = field(default_factory=Counter)

    def route(self) -> WebSocketRoute:
        return WebSocketRoute("/servers/{id}/screen", self.show)

    async def show(self, caller: WebSocket) -> None:
        server_id, ticket = caller.path_params["id"], caller.headers.get(TICKET, "")
        if not is_valid(self.sign, ticket, server_id, time.time()):
            LOG.warning("somebody without a ticket wants to see the screen of a server")
            await console_pipes.close(caller)
            return
        self.shown[server_id] += 1
        try:
            await self._show(caller, server_id, make_proof(self.sign, ticket))
        except (Retry, Terminal) as reason:
            LOG.warning("the screen of server %s cannot be shown: %s", server_id, reason)
            await console_pipes.close(caller)
        finally:
            self.shown[server_id] -= 1
            self.shown += Counter()  # forgets what is at zero

    async def _show(self, caller: WebSocket, server_id: str, proof: str) -> None:
        if self.shown[server_id] > MOST_SCREENS:
            raise Terminal(f"{MOST_SCREENS} look at it already")
        screen = await run_in_threadpool(self.open_screen, server_id)
        reader, writer = await asyncio.open_unix_connection(sock=screen)
        try:
            await caller.accept(headers=[(PROOF.lower().encode(), proof.encode())])
            await console_pipes.first_of(_down(reader, caller), _up(caller, writer))
            await console_pipes.close(caller)
        finally:
            writer.close()


async def _down(reader: asyncio.StreamReader, caller: WebSocket) -> None:
    while data := await reader.read(CHUNK):
        await caller.send_bytes(data)


async def _up(caller: WebSocket, writer: asyncio.StreamWriter) -> None:
    while data := await console_pipes.receive(caller):
        writer.write(data)
        await writer.drain()
