"""``cumulet node``: the parent of a node's services.

It loads the code once, opens the listening sockets and forks one process per service, so that thirty cost
little more than one.  What dies is started again with back-off; because the parent holds the sockets, callers
wait in the queue meanwhile instead of being refused.  libvirtd and Open vSwitch are its supervised children
too; they outlive it (and each other's death) and are found again by their pid files.  At SIGTERM the services
end and the switch, the guests and libvirtd go on: upgrading a node cuts no wire.  Ending those is ``down``.

If the parent is killed its services end by themselves (the kernel sends them SIGTERM); the next parent ends
those that do not, before it starts any: no service runs twice.  At SIGHUP it exchanges them for those of another
version (``succession``).
"""

import contextlib
import fcntl
import importlib
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from types import FrameType
from typing import IO

from cumulet.cli import child, keeper, memory, parts, prepare, record, sockets, succession, supervision
from cumulet.cli.record import TITLE
from cumulet.cli.supervision import Supervised
from cumulet.core import db, log
from cumulet.core.config import Config
from cumulet.core.run import preload
from cumulet.host import process
from cumulet.services import Named

LOG = logging.getLogger(__name__)
STOP_SECONDS = 20.0


def run(config: Config, names: list[str]) -> int:
    """Run this node's services (those of its configuration, or of these the named ones) until SIGTERM."""
    import setproctitle

    os.umask(0o022)
    os.chdir("/")
    setproctitle.setproctitle(TITLE)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _leave)
    prepare.directories(config)
    log.setup(TITLE, config.logs)
    try:
        _run(config, names)
    except SystemExit as end:
        if end.code:
            LOG.error("%s", end.code)
        raise
    except Exception as error:
        LOG.exception("%s cannot run: %s", TITLE, error)
        raise
    return 0


def _run(config: Config, names: list[str]) -> None:
    legacy = succession.take()
    with _alone(config, legacy) as held:
        parts.become_subreaper()
        parts.allow_many_files()
        parts.allow_long_queues()
        prepare.after_reboot(config)
        record.write_parent(config)
        services = [service for service in config.services if not names or service.name in names]
        _load(config, services)
        if config.controls:
            _start_database(config)
            prepare.database(config)
        opened = {service.name: _open(service, config, legacy) for service in services}
        built = _build(config, services)
        supervised = [*parts.supervised(config, services), *(_service(s, config, opened, built) for s in services)]
        memory.settle()
        told: list[int] = []
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, lambda number, _: told.append(number))
        signal.signal(signal.SIGCHLD, lambda *_: None)
        tell = partial(record.write_state, config)
        if legacy:
            state = record.read_state(config)
            own = [one for one in supervised if not one.part]
            succession.exchange(own, state.members if state else [], STOP_SECONDS, tell)
        supervision.supervise(supervised, lambda: bool(told), tell)
        if set(told) == {signal.SIGHUP}:
            succession.hand_over(held.fileno(), opened)
        supervision.stop([one for one in supervised if not one.part and one.pid], STOP_SECONDS)
        record.forget(config)


def _open(service: Named, config: Config, legacy: succession.Legacy | None) -> list[socket.socket]:
    """What a service listens on, from the former parent if it had that."""
    return sockets.open_all(service, config, legacy.sockets_of(service.name) if legacy else ())


def _start_database(config: Config) -> None:
    """A private one has to be there before the first service; supervision finds it running."""
    if not config.database.private:
        return
    try:
        parts.ensure(config, "mariadbd")
    except process.ProcessError as error:
        raise SystemExit(f"the database cannot be started: {error}") from error


def _load(config: Config, services: Sequence[Named]) -> None:
    """Load the code of these services and let them rehearse: once, here, so that they share what they need."""
    for service in services:
        child.load(service)
    preload()
    if config.broker.url:
        importlib.import_module("cumulet.core.amqp_bus")
    if not all(service.agent for service in services):
        child.identity(config.node.user)
        db.prepare(config.database_url)
        rehearsal = importlib.import_module("cumulet.cli.rehearsal")  # agents alone do without the database
        try:
            rehearsal.rehearse(config, services)
        except Exception:
            LOG.exception("services start without a rehearsal")


def _build(config: Config, services: Sequence[Named]) -> dict[str, child.Built]:
    """The controller services, ready to run; one that cannot be built says so itself when it is started.

    Where there is a broker each makes its way to it itself: that is nothing to be shared.
    """
    built = {}
    for service in services:
        if not service.agent and not config.broker.url:
            with contextlib.suppress(Exception):
                built[service.name] = child.build(service, config)
    return built


def end_former(config: Config) -> None:
    """End the services that a killed parent left; most have ended by themselves."""
    state = record.read_state(config)
    left = [one for one in state.members if not one.part and record.lives(one)] if state else []
    if left:
        LOG.warning("ending services of a former parent: %s", ", ".join(one.name for one in left))
        keeper.end([process.Process(one.pid, one.ticks) for one in left], STOP_SECONDS)


@contextlib.contextmanager
def _alone(config: Config, legacy: succession.Legacy | None) -> Iterator[IO[str]]:
    """Only one parent per run directory.  The lock is its children's too: a dead parent's service keeps it."""
    if legacy:
        with os.fdopen(legacy.lock, "w") as lock:
            yield lock
        return
    with (config.run / "node.lock").open("w") as lock:
        if not _locked(lock):
            other = record.find_parent(config)
            if other:
                raise SystemExit(f"another cumulet node (pid {other.pid}) runs in {config.run}")
            end_former(config)
            deadline = time.monotonic() + STOP_SECONDS
            while not _locked(lock):
                if time.monotonic() > deadline:
                    raise SystemExit(f"a process of a former cumulet node holds {config.run}/node.lock")
                time.sleep(0.05)
        yield lock


def _locked(lock: IO[str]) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _service(
    service: Named, config: Config, opened: Mapping[str, Sequence[socket.socket]], built: dict[str, child.Built]
) -> Supervised:
    """A service as a forked child; its sockets outlive it, and those of the others it lets go of.

    What was built is for its first start only: one that is started again reads its files again.
    """
    status, *api = opened[service.name]
    parent = os.getpid()

    def start() -> int:
        made = built.pop(service.name, None)
        pid = os.fork()
        if pid:
            return pid
        code = 1
        try:
            _restore_signals()
            sockets.close_others(opened, service.name)
            child.run_service(service, config, status, api, parent=parent, built=made)
            code = 0
        except BaseException as error:
            logging.getLogger(service.name).exception("%s cannot run: %s", service.name, error)
        finally:
            logging.shutdown()
            os._exit(code)

    return Supervised(service.name, start)


def _leave(number: int, frame: FrameType | None) -> None:
    """An orderly end before there is anything to stop."""
    sys.exit(0)


def _restore_signals() -> None:
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
