"""``cumulet node``: the parent of a node's services.

It loads the code once, opens the listening sockets and forks one process per service, so that thirty cost
little more than one.  What dies is started again with back-off; because the parent holds the sockets, callers
wait in the queue meanwhile instead of being refused.  libvirtd and Open vSwitch are its supervised children
too; they outlive it (and each other's death) and are found again by their pid files.  At SIGTERM the services
end and the switch, the guests and libvirtd go on: upgrading a node cuts no wire.  Ending those is ``down``.
"""

import contextlib
import fcntl
import gc
import logging
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from cumulet.cli import child, parts, prepare
from cumulet.core import clock, log
from cumulet.core.config import Config
from cumulet.services import SERVICES, Named

LOG = logging.getLogger(__name__)
FIRST_DELAY, LONGEST_DELAY, CALM_SECONDS = 0.1, 10.0, 15.0
STOP_SECONDS = 20.0
BIND_SECONDS = 20.0


class Member(msgspec.Struct):
    """What ``node.json`` says of one supervised process."""

    name: str
    pid: int
    started_at: str
    starts: int
    part: bool  # libvirtd and Open vSwitch, as opposed to a service of the map


@dataclass
class Supervised:
    """One child, and when it may be started again."""

    name: str
    start: Callable[[], int]  # returns the pid
    part: bool = False
    pid: int = 0
    pidfd: int = -1
    started_at: str = ""
    starts: int = 0
    delay: float = FIRST_DELAY
    due: float = 0.0
    born: float = field(default_factory=time.monotonic)

    def launch(self) -> None:
        self.pid = self.start()
        self.pidfd = os.pidfd_open(self.pid)
        self.started_at, self.born = clock.now(), time.monotonic()
        self.starts += 1

    def bury(self) -> None:
        """It ended: note when it may start again."""
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.pid, os.WNOHANG)
        os.close(self.pidfd)
        calm = time.monotonic() - self.born > CALM_SECONDS
        self.delay = FIRST_DELAY if calm else min(self.delay * 2, LONGEST_DELAY)
        LOG.warning("%s (pid %d) ended; again in %.1f s", self.name, self.pid, self.delay)
        self.pid, self.pidfd, self.due = 0, -1, time.monotonic() + self.delay


def run(config: Config, names: list[str]) -> int:
    """Run this node's services (all, or the named ones) until SIGTERM."""
    import setproctitle

    prepare.directories(config)
    log.setup("cumulet-node", config.logs)
    setproctitle.setproctitle("cumulet-node")
    with _alone(config.run):
        parts.become_subreaper()
        parts.allow_many_files()
        prepare.after_reboot(config)
        services = [service for service in SERVICES if not names or service.name in names]
        for service in services:
            child.builder(service)
        gc.collect()
        gc.freeze()
        prepare.database(config)
        supervised = [*parts.supervised(config, services), *(_service(s, config) for s in services)]
        _supervise(config, supervised)
    return 0


def node_file(config: Config) -> Path:
    """Where the parent says what runs; rewritten whenever that changes."""
    return config.run / "node.json"


def status_socket(config: Config, name: str) -> Path:
    return config.run / "status" / f"{name}.sock"


@contextlib.contextmanager
def _alone(run_dir: Path) -> Iterator[None]:
    """Only one parent per run directory."""
    with (run_dir / "node.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SystemExit(f"another cumulet node runs in {run_dir}") from None
        yield


def _service(service: Named, config: Config) -> Supervised:
    """A service as a forked child; its sockets are opened here, once, and outlive it."""
    status = listen_status(config, service.name)
    api = [listen(*child.api_address(service, config))] if service.port else []

    def start() -> int:
        pid = os.fork()
        if pid:
            return pid
        code = 1
        try:
            parts.die_with_parent()
            _restore_signals()
            child.run_service(service, config, status, api)
            code = 0
        except BaseException:
            logging.getLogger(service.name).exception("%s cannot run", service.name)
        finally:
            logging.shutdown()
            os._exit(code)

    return Supervised(service.name, start)


def _supervise(config: Config, all_supervised: list[Supervised]) -> None:
    """Start what is due, wait for an end or a signal, and so on until SIGTERM."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    stopping: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _: stopping.append(number))
    signal.signal(signal.SIGCHLD, lambda *_: None)
    while not stopping:
        now = time.monotonic()
        changed = False
        for one in all_supervised:
            if not one.pid and one.due <= now:
                one.launch()
                changed = True
        if changed:
            _write_state(config, all_supervised)
        _wait(all_supervised, reader)
        _reap_strangers(all_supervised)
        for one in [one for one in all_supervised if one.pid and _ended(one.pidfd)]:
            one.bury()
    _stop([one for one in all_supervised if not one.part and one.pid])
    node_file(config).unlink(missing_ok=True)


def _wait(all_supervised: list[Supervised], reader: int) -> None:
    poller = select.poll()
    poller.register(reader, select.POLLIN)
    for one in all_supervised:
        if one.pid:
            poller.register(one.pidfd, select.POLLIN)
    due = [one.due for one in all_supervised if not one.pid]
    timeout = max(0.0, min(due) - time.monotonic()) * 1000 if due else None
    for descriptor, _ in poller.poll(timeout):
        if descriptor == reader:
            os.read(reader, 4096)


def _ended(pidfd: int) -> bool:
    poller = select.poll()
    poller.register(pidfd, select.POLLIN)
    return bool(poller.poll(0))


def _reap_strangers(all_supervised: list[Supervised]) -> None:
    """Collect orphans that came to this subreaper: QEMU, dnsmasq, children of dead services."""
    own = {one.pid for one in all_supervised if one.pid}
    while True:
        try:
            found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return
        if found is None or found.si_pid in own:
            return
        with contextlib.suppress(ChildProcessError):
            os.waitpid(found.si_pid, os.WNOHANG)


def _stop(running: list[Supervised]) -> None:
    """SIGTERM to all at once, SIGKILL to those that do not end."""
    for one in running:
        signal.pidfd_send_signal(one.pidfd, signal.SIGTERM)
    deadline = time.monotonic() + STOP_SECONDS
    for one in running:
        poller = select.poll()
        poller.register(one.pidfd, select.POLLIN)
        if not poller.poll(max(0.0, deadline - time.monotonic()) * 1000):
            LOG.warning("%s does not end; killed", one.name)
            signal.pidfd_send_signal(one.pidfd, signal.SIGKILL)


def _write_state(config: Config, all_supervised: list[Supervised]) -> None:
    members = [Member(o.name, o.pid, o.started_at, o.starts, o.part) for o in all_supervised if o.pid]
    temporary = node_file(config).with_suffix(".new")
    temporary.write_bytes(msgspec.json.encode({"pid": os.getpid(), "members": members}))
    temporary.rename(node_file(config))


def listen_status(config: Config, name: str) -> socket.socket:
    path = status_socket(config, name)
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(path))
    os.chmod(path, 0o660)
    os.chown(path, -1, path.parent.stat().st_gid)
    listener.listen(64)
    listener.setblocking(False)
    return listener


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; waits a while for a former parent's children to let go of the port."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    deadline = time.monotonic() + BIND_SECONDS
    while True:
        try:
            listener.bind((host, port))
            break
        except OSError as error:
            if time.monotonic() > deadline:
                sys.exit(f"port {port} on {host} is taken: {error.strerror}")
            time.sleep(0.1)
    listener.listen(1024)
    listener.setblocking(False)
    return listener


def _restore_signals() -> None:
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
