"""Running one service in this process: its API, its loops, its heartbeat and its status socket.

SIGTERM: stop taking requests, finish those under way, let each loop finish the key it is at, end.  A service
that is killed loses nothing: whatever it was doing is found again by the next pass.
"""

import asyncio
import contextlib
import importlib
import logging
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import uvicorn
from prometheus_client import generate_latest
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from cumulet.core import clock, schema
from cumulet.core.bounded import BoundedHttp
from cumulet.core.bus import Bus
from cumulet.core.heartbeat import Heartbeat
from cumulet.core.metrics import REGISTRY
from cumulet.core.reconcile import Loop, Reconciler
from cumulet.core.service import Service

LOG = logging.getLogger(__name__)
GRACE_SECONDS = 10
LONGEST_MESSAGE = 1 << 20  # of a websocket
LOADED_LATER = (
    "cumulet.core.websocket",
    "encodings.idna",
    "setproctitle",
    "uvicorn.lifespan.off",
    "uvicorn.protocols.http.httptools_impl",
    "uvloop",
)
"""What several services load only while they start."""


class _Server(uvicorn.Server):
    """One of several servers in a process: signals are the process's business.  It sleeps until it has to end.

    uvicorn's own loop wakes ten times a second, to see whether it should end and to write the date.
    """

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._ending = asyncio.Event()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def main_loop(self) -> None:
        await self._ending.wait()

    def end(self) -> None:
        """Take no more requests, finish those under way."""
        self._ending.set()


def preload() -> None:
    """Load what ``serve`` will need: before a fork, so that children share it.  Opens nothing, starts nothing."""
    for name in LOADED_LATER:
        importlib.import_module(name)


def serve(
    name: str,
    service: Service,
    bus: Bus,
    *,
    status_socket: socket.socket | None = None,
    api_sockets: Sequence[socket.socket] = (),
    beat: Callable[[Heartbeat], None] | None = None,
    heartbeat_seconds: float = 10.0,
) -> None:
    """Run ``service`` until SIGTERM or SIGINT.  ``beat`` tells the controller that it lives."""
    started_at = clock.now()
    loops: list[Loop[Any]] = [Loop(reconciler) for reconciler in service.loops]
    woken = [loop for loop in loops if loop.reconciler.events]
    if beat:
        loops.append(Loop(_heartbeat(beat, service, loops, started_at, heartbeat_seconds)))
    for loop in loops:
        loop.listen(bus)

    def wake(key: str) -> None:
        for loop in woken:  # not the heartbeat: a sign of life is no part of a pass
            loop.wake(key)

    if service.start:
        service.start(wake)
    threads = [threading.Thread(target=loop.run, name=loop.reconciler.name) for loop in loops]
    for thread in threads:
        thread.start()
    LOG.info("%s started", name)
    try:
        with asyncio.Runner(loop_factory=_event_loop) as runner:
            runner.run(_serve(service, loops, status_socket, api_sockets))
    finally:
        for loop in loops:
            loop.stop()
        for thread in threads:
            thread.join(GRACE_SECONDS)
        if service.stop:
            service.stop()
        LOG.info("%s stopped", name)


def _event_loop() -> asyncio.AbstractEventLoop:
    import uvloop

    return uvloop.new_event_loop()


async def _serve(
    service: Service,
    loops: Sequence[Loop[Any]],
    status_socket: socket.socket | None,
    api_sockets: Sequence[socket.socket],
) -> None:
    servers: list[tuple[_Server, list[socket.socket]]] = []
    if status_socket:
        servers.append((_server(_status_app(loops)), [status_socket]))
    if service.app and api_sockets:
        servers.append((_server(service.app, service.websockets), list(api_sockets)))
    done = asyncio.Event()
    running = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        running.add_signal_handler(number, done.set)
    tasks = [running.create_task(server.serve(sockets)) for server, sockets in servers]
    await done.wait()
    for server, _ in servers:
        server.end()
    await asyncio.gather(*tasks)


def _server(app: Any, websockets: bool = False) -> _Server:
    return _Server(
        uvicorn.Config(
            app,
            http=BoundedHttp,
            ws="cumulet.core.websocket:BoundedWebsocket" if websockets else "none",
            ws_max_size=LONGEST_MESSAGE,
            ws_per_message_deflate=False,
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            date_header=False,  # ``core.asgi`` writes it
            proxy_headers=False,  # who calls is who is connected
            timeout_graceful_shutdown=GRACE_SECONDS,
        )
    )


def _status_app(loops: Sequence[Loop[Any]]) -> Any:
    """``/healthcheck``, ``/loops``, ``/metrics`` and ``POST /resync`` on the service's own socket."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        path = Request(scope).url.path
        if path == "/metrics":
            response = Response(generate_latest(REGISTRY), media_type="text/plain; version=0.0.4")
        elif path == "/loops":
            response = Response(schema.encode([loop.status() for loop in loops]), media_type="application/json")
        elif path == "/resync":
            for loop in loops:
                loop.resync()
            response = Response(status_code=204)
        elif path == "/healthcheck":
            bad = [f"{loop.reconciler.name}: {loop.read_failure}" for loop in loops if loop.read_failure]
            response = Response("; ".join(bad) or "OK", 503 if bad else 200)
        else:
            response = Response(status_code=404)
        await response(scope, receive, send)

    return app


def _heartbeat(
    beat: Callable[[Heartbeat], None],
    service: Service,
    loops: Sequence[Loop[Any]],
    started_at: str,
    seconds: float,
) -> Reconciler[str]:
    watched = list(loops)

    def tell(_: str) -> None:
        failing = {
            loop.reconciler.name: dict(list(loop.status()["failing"].items())[:50])
            for loop in watched
            if loop.failures
        }
        beat(Heartbeat(started_at, {**service.details(), "failing": failing}))

    return Reconciler("heartbeat", lambda: {"me": "me"}, tell, resync_seconds=seconds)
