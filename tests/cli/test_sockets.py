"""The listening sockets of a node: opened by the parent, each held by its own service."""

import os
import socket
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from cumulet.cli import sockets
from cumulet.core.config import Config, Node
from cumulet.services import SERVICES, Named

OWN = ("keystone", "nova-scheduler", "glance-api")


@pytest.fixture
def config() -> Iterator[Config]:
    """In a place with a short name: a unix socket's path is bounded."""
    with tempfile.TemporaryDirectory() as place:
        (Path(place) / "status").mkdir()
        yield Config(node=Node(run_dir=place))


def unbound(service: Named) -> Named:
    """Any free port, for those that have one."""
    from dataclasses import replace

    return replace(service, port=0)


def listening() -> set[str]:
    """The names of this process's open listening sockets."""
    found = set()
    for name in os.listdir("/proc/self/fd"):
        try:
            mode = os.stat(f"/proc/self/fd/{name}").st_mode
        except FileNotFoundError:
            continue
        if stat.S_ISSOCK(mode):
            with socket.socket(fileno=os.dup(int(name))) as one:
                if one.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                    found.add(str(one.getsockname()))
    return found


def test_a_child_holds_only_its_own_sockets(config: Config) -> None:
    """Forked as the node's parent forks its services."""
    before = listening()
    opened = {one.name: sockets.open_all(unbound(one), config) for one in SERVICES if one.name in OWN}
    opened["keystone"].append(sockets.listen("127.0.0.1", 0))
    opened["glance-api"].append(sockets.listen("127.0.0.1", 0))
    mine = {str(listener.getsockname()) for listener in opened["keystone"]}
    assert len(listening() - before) == len(OWN) + 2
    readable, writable = os.pipe()
    child = os.fork()
    if child == 0:
        sockets.close_others(opened, "keystone")
        os.write(writable, repr(sorted(listening() - before)).encode())
        os._exit(0)
    os.close(writable)
    os.waitpid(child, 0)
    told = os.read(readable, 65536).decode()
    os.close(readable)
    for listener in (each for group in opened.values() for each in group):
        listener.close()
    assert told == repr(sorted(mine))
