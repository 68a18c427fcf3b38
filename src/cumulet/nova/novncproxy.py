"""nova-novncproxy: takes a browser to a server's VNC console.

It serves a page with noVNC, and a websocket that carries the VNC protocol between that page and the nova-compute of
the server's host.  It connects only to what nova-consoleauth names for a token that it takes, which is good once;
and it passes nothing on before the host has proved that it has its token.  A page of somebody else's cannot use a
token, wherever it found it: the browser says which page asks (Origin), and only our own may.  What the request says
of our own name (Host) counts for nothing, since whoever serves a hostile page can choose it.

The connection ends when the server's QEMU does.  Nothing is kept: after a crash one asks for a new URL.
"""

import asyncio
import logging
import ssl
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake

from cumulet.core import certificates
from cumulet.core.config import Config
from cumulet.core.controller import ControllerEnv
from cumulet.core.errors import Unavailable
from cumulet.core.run import LONGEST_MESSAGE
from cumulet.core.secrets import same
from cumulet.core.service import Service
from cumulet.nova import console_pipes
from cumulet.nova.console_tickets import PROOF, TICKET
from cumulet.nova.console_tokens import CONSOLE_PORT, PROXY, ConsoleTokens, Screen, reach

LOG = logging.getLogger(__name__)
CONNECT_SECONDS = 5.0
MOST_SCREENS = 500
"""Connections at once; a user with many tokens must not use up the memory."""
PAGE = Path(__file__).parent / "console_page"
NOVNC_PLACES = (Path(sys.prefix) / "share" / "novnc", Path("/usr/share/novnc"))
SUBPROTOCOL = "binary"
"""What older clients of websockify want to hear."""
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src data:; base-uri 'none'; form-action 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
_KINDS = {".html": "text/html", ".js": "text/javascript", ".css": "text/css"}


@dataclass
class Proxy:
    """``console_port``: a seam for tests."""

    tokens: ConsoleTokens
    origin: str
    console_port: int = CONSOLE_PORT
    trust: ssl.SSLContext | None = None  # by what hosts are known
    screens: set[asyncio.Task[Any] | None] = field(default_factory=set)

    async def show(self, socket: WebSocket) -> None:
        """One browser from its first word to its last.  A refusal has no body: clients look for none."""
        task = asyncio.current_task()
        self.screens.add(task)
        try:
            await self._show(socket)
        except (Unavailable, OSError, TimeoutError, UnicodeError, InvalidHandshake) as trouble:
            LOG.warning("a console cannot be reached: %s", trouble)
            await console_pipes.close(socket)
        finally:
            self.screens.discard(task)

    async def _show(self, socket: WebSocket) -> None:
        screen = await self._admit(socket)
        if screen is None:
            await console_pipes.close(socket)
            return
        secured: dict[str, Any] = {"ssl": self.trust, "server_hostname": screen.host} if self.trust else {}
        opening = connect(
            f"{'wss' if self.trust else 'ws'}://nova-compute{screen.path}",
            host=screen.address.strip("[]"), port=self.console_port, **secured,
            additional_headers={TICKET: screen.ticket}, compression=None, proxy=None, user_agent_header=None,
            open_timeout=CONNECT_SECONDS, close_timeout=CONNECT_SECONDS, max_size=LONGEST_MESSAGE,
        )  # fmt: skip
        async with opening as host:
            proof = host.response.headers.get(PROOF, "") if host.response else ""
            if not same(proof, screen.proof):
                LOG.error("what answers at the address of server %s's host is not that host", screen.server_id)
                await console_pipes.close(socket)
                return
            LOG.info("server %s is shown to %s", screen.server_id, socket.client.host if socket.client else "?")
            await socket.accept(SUBPROTOCOL if SUBPROTOCOL in socket.scope["subprotocols"] else None)
            await console_pipes.first_of(_up(socket, host), _down(host, socket))
            await console_pipes.close(socket)

    async def _admit(self, socket: WebSocket) -> Screen | None:
        """Takes the token only once everything else is right."""
        origin, token = socket.headers.get("origin"), socket.query_params.get("token", "")
        if origin is not None and origin != self.origin:
            LOG.warning("a page of %s may not show consoles, only %s may ([console] url)", origin, self.origin)
            return None
        if len(self.screens) > MOST_SCREENS:
            LOG.warning("no more than %d consoles at once", MOST_SCREENS)
            return None
        screen = await run_in_threadpool(self.tokens.take, token) if token else None
        if screen is None or not screen.address:
            LOG.info("no console: the token is unknown, used or too old, or the server is off")
            return None
        return screen


async def _up(socket: WebSocket, host: ClientConnection) -> None:
    try:
        while data := await console_pipes.receive(socket):
            await host.send(data)
    except ConnectionClosed:
        return


async def _down(host: ClientConnection, socket: WebSocket) -> None:
    try:
        async for data in host:
            await socket.send_bytes(data if isinstance(data, bytes) else data.encode())
    except ConnectionClosed:
        return


def origin_of(url: str) -> str:
    """As browsers say it of a page there: the scheme, the host, and the port if it is not the scheme's own."""
    parts = urlsplit(url)
    usual = {"http": 80, "https": 443}.get(parts.scheme)
    port = f":{parts.port}" if parts.port not in (None, usual) else ""
    return f"{parts.scheme}://{_netloc(parts.hostname or '')}{port}"


def _netloc(host: str) -> str:
    return f"[{host}]" if ":" in host and not host.startswith("[") else host


def list_files(novnc: Path | None) -> Mapping[str, Path]:
    """All that is served, by URL; nothing else on the disk can be asked for."""
    found = {f"/{path.name}": path for path in PAGE.iterdir() if path.suffix in _KINDS}
    found["/vnc_auto.html"] = found["/vnc_lite.html"]
    for part in ("core", "vendor") if novnc else ():
        assert novnc is not None
        found |= {f"/novnc/{path.relative_to(novnc)}": path for path in (novnc / part).rglob("*.js")}
    return found


def find_novnc() -> Path | None:
    """Where noVNC is, if it is installed."""
    return next((place for place in NOVNC_PLACES if (place / "core" / "rfb.js").exists()), None)


def _server_of(files: Mapping[str, Path]) -> Callable[[Request], Response]:
    def show_file(request: Request) -> Response:
        path = files.get(request.url.path)
        if path is None:
            return PlainTextResponse("There is no such page.", 404)
        return Response(path.read_bytes(), media_type=_KINDS[path.suffix], headers=_HEADERS)

    return show_file


def show_health(request: Request) -> Response:
    return PlainTextResponse("OK")


def build_app(config: Config, tokens: ConsoleTokens, console_port: int = CONSOLE_PORT) -> Starlette:
    proxy = Proxy(tokens, origin_of(config.console_url), console_port, certificates.trust(config))
    show_file = _server_of(list_files(find_novnc()))
    return Starlette(
        routes=[
            Route("/healthcheck", show_health),
            WebSocketRoute("/", proxy.show),
            WebSocketRoute("/websockify", proxy.show),
            Route("/{file:path}", show_file),
        ]
    )


def build(env: ControllerEnv) -> Service:
    return Service(
        app=build_app(env.config, reach(env.config, env.secrets.host_secret, PROXY)),
        websockets=True,
    )
