"""The rehearsal in costume: what a service does while nobody asks it for anything, over real sockets and threads.

Its loops pass, its signs of life are written and told over HTTP, its status socket is asked, it writes a log line.
What is done for the first time fills caches that lie all over the memory; done here, children find them filled.
"""

import asyncio
import functools
import logging
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from cumulet.core import clock, heartbeat, log, run, status
from cumulet.core.client import Controller
from cumulet.core.controller import ControllerEnv
from cumulet.core.errors import Retry, Terminal
from cumulet.core.heartbeat import Heartbeat
from cumulet.core.http import App
from cumulet.core.metrics import FAILING, PASSES
from cumulet.core.reconcile import Loop
from cumulet.core.service import Service

ROUNDS = 10
"""Once fills most caches; some things are only remembered when they are done again."""
BEATS = "/hosts/{host}/heartbeat/"
SIGN = Heartbeat("", {"failing": {}})


def rehearse_life(made: Service, env: ControllerEnv, host: str, token: str) -> None:
    """What ``made`` does by itself, and what the agents of ``host`` ask it for."""
    loops = [Loop(reconciler) for reconciler in made.loops]
    for _ in range(ROUNDS):
        for loop in loops:
            loop.resync()
            loop.run_once()
    PASSES.clear()
    FAILING.clear()
    if isinstance(made.app, App) and any(route.path.startswith(BEATS) for route in made.app.routes):
        with _served(made.app) as port:
            _live_as_agents(Controller("rehearsal", [f"http://127.0.0.1:{port}"], host, token), made.app, host)
        made.app.rest()


def rehearse_signs(env: ControllerEnv, host: str, scratch: str) -> None:
    """Signs of life, to the database, the log and whoever asks at the status socket."""
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    log.setup("rehearsal", Path(scratch))
    logging.disable(logging.NOTSET)
    try:
        for _ in range(ROUNDS):
            run.LOG.info("%s started", "rehearsal")
            with env.db.transaction() as tx:
                heartbeat.beat(tx, "rehearsal", host, Heartbeat(clock.now(), SIGN.details))
            _ask_for_status()
    finally:
        logging.disable(logging.CRITICAL)
        root.handlers[0].close()
        root.handlers[:] = before
        root.setLevel(level)


def _ask_for_status() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.sendall(b"GET /healthcheck HTTP/1.1\r\nHost: localhost\r\n\r\n")
        status.exchange(theirs, lambda path: status.answer(path, ()))


def _live_as_agents(controller: Controller, app: App, host: str) -> None:
    """Each document that this host's agents read, again and again, and a sign of life."""
    paths = [route.path.replace("{host}", host) for route in app.routes if route.method == "GET"]
    asked = [path for path in paths if path.startswith(f"/hosts/{host}/") and "{" not in path]
    for _ in range(ROUNDS):
        for path in asked:
            with suppress(Retry, Terminal, ValueError):  # it may want more than that
                controller.get(path, object)
        with suppress(Terminal):
            controller.post(f"/hosts/{host}/heartbeat/rehearsal", SIGN)


@contextmanager
def _served(app: App) -> Iterator[int]:
    """The app behind a listening socket of its own, in a thread; its port."""
    done: list[Callable[[], object]] = []
    ready = threading.Event()

    async def serve(listener: socket.socket) -> None:
        end = asyncio.Event()
        done.append(functools.partial(asyncio.get_running_loop().call_soon_threadsafe, end.set))
        ready.set()
        await run.answer(Service(app), [listener], end, run.Ending(()))

    def work(listener: socket.socket) -> None:
        with asyncio.Runner(loop_factory=run.event_loop) as runner:
            runner.run(serve(listener))

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=work, args=(listener,))
        thread.start()
        ready.wait()
        try:
            yield listener.getsockname()[1]
        finally:
            done[0]()
            thread.join()
