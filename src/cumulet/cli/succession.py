"""How a node's parent makes room for another version of itself, and nobody who calls the node is refused.

At SIGHUP it executes its own command anew.  The process stays the same, so its services stay its children, and the
lock and the listening sockets go on to what is executed; callers wait in their queues.  The new parent loads the
new code and then exchanges the services one by one: the former one finishes the requests that it has, the new one
takes those that wait.  Meanwhile services of both versions run side by side, on the newest schema.
"""

import os
import signal
import socket
import sys
from collections.abc import Callable, Mapping, Sequence

import msgspec

from cumulet.cli import keeper
from cumulet.cli.record import Member, lives
from cumulet.cli.supervision import Supervised
from cumulet.host import process

VARIABLE = "CUMULET_SUCCESSION"


class Legacy(msgspec.Struct):
    """Descriptors: of the lock, and by service of what it listens on."""

    lock: int
    sockets: dict[str, list[int]]

    def sockets_of(self, service: str) -> list[socket.socket]:
        return [socket.socket(fileno=descriptor) for descriptor in self.sockets.pop(service, [])]


def hand_over(lock: int, opened: Mapping[str, Sequence[socket.socket]]) -> None:
    """Execute this process's command anew; does not return."""
    legacy = Legacy(lock, {name: [one.fileno() for one in listeners] for name, listeners in opened.items()})
    for descriptor in _descriptors(legacy):
        os.set_inheritable(descriptor, True)
    os.environ[VARIABLE] = msgspec.json.encode(legacy).decode()
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # until the new one listens for it
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def take() -> Legacy | None:
    """What the former parent handed over, if this process was one."""
    words = os.environ.pop(VARIABLE, "")
    if not words:
        return None
    legacy = msgspec.json.decode(words, type=Legacy)
    for descriptor in _descriptors(legacy):
        os.set_inheritable(descriptor, False)
    return legacy


def exchange(
    services: Sequence[Supervised], former: Sequence[Member], seconds: float, tell: Callable[[list[Member]], None]
) -> None:
    """End each former service and start its successor; then end those that have none."""
    left = {one.name: one for one in former if not one.part and lives(one)}
    for service in services:
        if old := left.pop(service.name, None):
            keeper.end([process.Process(old.pid, old.ticks)], seconds)
        service.launch()
        tell([*(one.member() for one in services if one.pid), *left.values(), *(one for one in former if one.part)])
    keeper.end([process.Process(one.pid, one.ticks) for one in left.values()], seconds)


def _descriptors(legacy: Legacy) -> list[int]:
    return [legacy.lock, *(one for listeners in legacy.sockets.values() for one in listeners)]
