"""The services between a browser and a screen, on ports of loopback, and a browser made of a library."""

import asyncio
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import parse_qs, urlsplit

from websockets.sync.client import ClientConnection, connect

from cumulet.core import run
from cumulet.core.http import App
from cumulet.core.secrets import service_token
from cumulet.nova.console_tokens import ConsoleTokens
from cumulet.sim.in_process import InProcess

HOST_SECRET = "host secret"


def to_consoleauth(app: App, service: str, secret: str = HOST_SECRET) -> ConsoleTokens:
    return ConsoleTokens(InProcess(app, service, service_token(secret, service)))


@contextmanager
def serving(app: Any) -> Iterator[int]:
    """The app on a port of loopback, as the runner serves it."""
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setblocking(False)
    server = run._server(app, websockets=True)
    started = threading.Event()
    loops: list[asyncio.AbstractEventLoop] = []

    async def serve() -> None:
        loops.append(asyncio.get_running_loop())
        started.set()
        await server.serve([listener])

    def work() -> None:
        with asyncio.Runner(loop_factory=run.event_loop) as runner:
            runner.run(serve())

    thread = threading.Thread(target=work)
    thread.start()
    started.wait()
    try:
        yield listener.getsockname()[1]
    finally:
        loops[0].call_soon_threadsafe(server.end)
        thread.join()


def token_of(url: str) -> str:
    """The token in a console's URL."""
    (path,) = parse_qs(urlsplit(url).query)["path"]
    return path.removeprefix("?token=")


def open_console(port: int, token: str, **options: Any) -> ClientConnection:
    console: ClientConnection = connect(
        f"ws://127.0.0.1:{port}/?token={token}", compression=None, proxy=None, **options
    )
    return console


def greet(console: ClientConnection) -> tuple[int, int, str]:
    """Come in as a VNC client does: the screen's width, height and name."""
    hear = _hearer(console)
    assert hear(12) == b"RFB 003.008\n"
    console.send(b"RFB 003.008\n")
    assert 1 in hear(hear(1)[0])  # a kind of security: none
    console.send(b"\x01")
    assert hear(4) == bytes(4)
    console.send(b"\x01")
    width, height = struct.unpack(">HH", hear(4))
    hear(16)
    return width, height, hear(struct.unpack(">I", hear(4))[0]).decode()


def _hearer(console: ClientConnection) -> Callable[[int], bytes]:
    kept = bytearray()

    def hear(length: int) -> bytes:
        while len(kept) < length:
            kept.extend(console.recv(10))  # type: ignore[arg-type]
        found = bytes(kept[:length])
        del kept[:length]
        return found

    return hear
