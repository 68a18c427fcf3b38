"""Running one service in this process: its API, its loops, its heartbeat and its status socket.

SIGTERM: stop taking requests, finish those under way, let each loop finish the key it is at, end.  A service
that is killed loses nothing: whatever it was doing is found again by the next pass.
"""

import asyncio
import contextlib
import importlib
import logging
import os
import select
import signal
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import uvicorn

from cumulet.core import clock, heartbeat, status
from cumulet.core.bounded import BoundedHttp
from cumulet.core.bus import Bus
from cumulet.core.heartbeat import Heartbeat
from cumulet.core.reconcile import Loop, Reconciler
from cumulet.core.service import Service

LOG = logging.getLogger(__name__)
GRACE_SECONDS = 10
KEEP_ALIVE_SECONDS = 75
"""Longer than clients pause between two looks at something: one that is cut off in between gives up."""
LAST_REQUEST_SECONDS = 0.2
"""For requests on connections that were taken just before the end: nobody else would answer them."""
ENDINGS = (signal.SIGTERM, signal.SIGINT)
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
        for server in self.servers:
            server.close()
        await asyncio.sleep(LAST_REQUEST_SECONDS)

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
    certificate: str = "",
) -> None:
    """Run ``service`` until SIGTERM or SIGINT.  ``beat`` tells the controller that it lives.

    ``certificate``: a file with key and certificate, to serve the API by HTTPS.
    """
    ended, told = _listen_for_the_end()
    started_at = clock.now()
    loops: list[Loop[Any]] = [Loop(reconciler) for reconciler in service.loops]
    woken = [loop for loop in loops if loop.reconciler.events]
    if beat:
        loops.append(Loop(signs_of_life(beat, service.details, loops, started_at, heartbeat_seconds)))
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
    if status_socket:
        status.serve(status_socket, loops)
    LOG.info("%s started", name)
    ending = Ending(loops)
    try:
        _until_the_end(service, api_sockets, ending, certificate, ended, told)
    finally:
        ending.begin()
        ending.wait(threads)
        if service.stop:
            service.stop()
        LOG.info("%s stopped", name)


class Ending:
    """The time that is left once a service is told to end: its requests and all its loops share it."""

    def __init__(self, loops: Sequence[Loop[Any]]) -> None:
        self._loops, self._deadline = loops, 0.0

    def begin(self) -> None:
        """No loop begins anything more; again is no harm."""
        self._deadline = self._deadline or time.monotonic() + GRACE_SECONDS
        for loop in self._loops:
            loop.stop()

    def wait(self, threads: Sequence[threading.Thread]) -> None:
        for thread in threads:
            thread.join(max(0.0, self._deadline - time.monotonic()))


def _until_the_end(
    service: Service,
    api_sockets: Sequence[socket.socket],
    ending: Ending,
    certificate: str,
    ended: Sequence[int],
    told: int,
) -> None:
    """What the main thread does: it serves the API, if there is one, as soon as somebody asks it."""
    if service.app and api_sockets:
        _wait_for_one_of(told, *api_sockets)
        if not ended:
            with asyncio.Runner(loop_factory=event_loop) as runner:
                runner.run(_serve(service, api_sockets, ending, certificate, ended))
    else:
        _wait_for_one_of(told)


def event_loop() -> asyncio.AbstractEventLoop:
    import uvloop

    return uvloop.new_event_loop()


async def _serve(
    service: Service,
    api_sockets: Sequence[socket.socket],
    ending: Ending,
    certificate: str,
    ended: Sequence[int],
) -> None:
    done = asyncio.Event()
    for number in ENDINGS:
        asyncio.get_running_loop().add_signal_handler(number, done.set)
    if ended:  # since the last look
        done.set()
    await answer(service, api_sockets, done, ending, certificate)


async def answer(
    service: Service,
    api_sockets: Sequence[socket.socket],
    done: asyncio.Event,
    ending: Ending,
    certificate: str = "",
) -> None:
    """Serve the API until ``done``, and finish the requests that are under way then."""
    server = _server(service.app, service.websockets, certificate)
    serving = asyncio.create_task(server.serve(list(api_sockets)))
    await done.wait()
    ending.begin()
    server.end()
    await serving


def _listen_for_the_end() -> tuple[list[int], int]:
    """The signals that say so, as they come, and a descriptor that is readable from the first one on."""
    ended: list[int] = []
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    for number in ENDINGS:
        signal.signal(number, lambda number, _: ended.append(number))
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    return ended, reader


def _wait_for_one_of(*descriptors: int | socket.socket) -> None:
    poller = select.poll()
    for descriptor in descriptors:
        poller.register(descriptor, select.POLLIN)
    poller.poll()


def _server(app: Any, websockets: bool, certificate: str = "") -> _Server:
    return _Server(
        _with_the_latest(
            certificate,
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
                timeout_keep_alive=KEEP_ALIVE_SECONDS,
                timeout_graceful_shutdown=GRACE_SECONDS,
                ssl_certfile=certificate or None,
            ),
        )
    )


def _with_the_latest(certificate: str, config: uvicorn.Config) -> uvicorn.Config:
    """A certificate may be exchanged while it is served with: whoever comes next is shown the new one."""
    if not certificate:
        return config
    config.load()
    assert config.ssl
    seen = os.stat(certificate).st_mtime_ns

    def look(connection: object, name: str | None, context: ssl.SSLContext) -> None:
        nonlocal seen
        now = os.stat(certificate).st_mtime_ns
        if now != seen:
            context.load_cert_chain(certificate)
            seen = now

    config.ssl.sni_callback = look  # called at every connection, with or without a name
    return config


def signs_of_life(
    beat: Callable[[Heartbeat], None],
    details: Callable[[], dict[str, Any]],
    loops: Sequence[Loop[Any]],
    started_at: str,
    seconds: float,
) -> Reconciler[str]:
    """What tells that a service lives, and how its loops are."""
    watched = list(loops)

    def tell(_: str) -> None:
        told = [loop.status(heartbeat.MOST_FAILING) for loop in watched]
        beat(Heartbeat(started_at, details(), told))

    return Reconciler("heartbeat", lambda: {"me": "me"}, tell, resync_seconds=seconds)
