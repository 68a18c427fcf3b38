"""A machine of the test's own: a namespace in which a private Open vSwitch forwards everything like a plain switch.

The test's thread stands in the namespace, so that devices, taps and daemons are made there and not on the machine.
Guests are namespaces beside it, on a port of the same switch.
"""

import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

from cumulet.core.config import Config, Node
from cumulet.host import netns, openvswitch
from cumulet.host.netlink import Netlink, Route, checksum_off
from cumulet.host.openflow import OpenFlow
from cumulet.host.ovsdb import Ovsdb, OvsdbError


def until(seen: Callable[[], object], what: str, seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not seen():
        assert time.monotonic() < deadline, f"not seen in time: {what}"
        time.sleep(0.02)


class PrivateNode:
    """``config`` is what an agent on this machine would get."""

    def __init__(self, directory: Path, tag: str) -> None:
        self.tag = tag
        self.config = Config(node=Node(name="node1", state_dir=f"{directory}/s", run_dir=f"{directory}/r"))
        self.ovsdb = Ovsdb(openvswitch.database_socket(f"{directory}/r/openvswitch"))
        self._state, self._run = f"{directory}/s/openvswitch", f"{directory}/r/openvswitch"
        self._children: list[subprocess.Popen[bytes]] = []
        self._guests: list[str] = []

    def start(self) -> None:
        openvswitch.prepare(self._state, self._run, system_id="test")
        for command in (
            openvswitch.ovsdb_server(self._state, self._run),
            openvswitch.ovs_vswitchd(self._state, self._run),
        ):
            self._children.append(subprocess.Popen(command.argv, env={**os.environ, **command.env}))
            until(lambda: self._look() is not None, "the database")
        until(self._look, "ovs-vswitchd")
        with self.ovsdb.change() as change:
            change.ensure_bridge("br-int", datapath_type=openvswitch.datapath_type())
        self.ovsdb.settle(20)
        OpenFlow(self._run).sync_flows("br-int", ["table=0,priority=0,actions=NORMAL"])

    def _look(self) -> str | None:
        """Which ovs-vswitchd runs, "" if none; None while the database does not answer."""
        try:
            return self.ovsdb.look().vswitchd
        except OvsdbError:
            return None

    def end_switch(self) -> None:
        """As a killed Open vSwitch leaves it."""
        self.ovsdb.close()
        while self._children:
            child = self._children.pop()
            child.kill()
            child.wait()

    def stop(self) -> None:
        self.end_switch()
        for name in self._guests:
            netns.delete(name)

    def guest(self, name: str, tag: int, mac: str, addresses: set[str] = frozenset(), via: str = "") -> str:  # type: ignore[assignment]
        """A namespace with ``eth0`` on the network of a VLAN tag; its name."""
        space = f"cumtest-{self.tag}-{name}"
        netns.create(space)
        self._guests.append(space)
        with Netlink() as link:
            link.ensure_veth(f"g-{name}", "eth0", space, 1450, peer_mac=mac)
            link.set_up(f"g-{name}")
        with netns.enter(space), Netlink() as link:
            checksum_off("eth0")
            link.ensure_addresses("eth0", addresses)
            link.set_up("eth0")
            if via:
                link.ensure_route(Route("0.0.0.0/0", "eth0", via))
        with self.ovsdb.change() as change:
            change.ensure_port("br-int", f"g-{name}", tag=tag)
        return space

    def tag_port(self, port_id: str, tag: int) -> None:
        """What the L2 agent would do: put a port on its network."""
        with self.ovsdb.change() as change:
            change.ensure_tag(f"tap{port_id[:11]}", tag)

    def ports(self) -> set[str]:
        return {name for name in self.ovsdb.ports("br-int") if name.startswith("tap")}


@contextlib.contextmanager
def private_node() -> Iterator[PrivateNode]:
    tag = uuid.uuid4().hex[:6]
    directory = Path(tempfile.mkdtemp(prefix="cum-"))  # unix sockets have short paths
    directory.chmod(0o755)
    space = f"cumtest-{tag}"
    netns.create(space)
    try:
        with netns.enter(space):
            node = PrivateNode(directory, tag)
            try:
                node.start()
                yield node
            finally:
                node.stop()
    finally:
        netns.delete(space)
        shutil.rmtree(directory, ignore_errors=True)


class Talk:
    """A TCP server that tells each caller by which address it came."""

    def __init__(self, space: str, address: str, port: int) -> None:
        self._listener = netns.listen_tcp(space, address, port)
        self._listener.setblocking(True)
        self._listener.settimeout(5)

    def __enter__(self) -> "Talk":
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()

    def caller(self, space: str, address: str, port: int, seconds: float = 2.0) -> str:
        """Call ``address`` from ``space``; as whom the server saw it, "" if the call did not come through."""
        try:
            client = dial(space, address, port, seconds)
        except OSError:
            return ""
        with client:
            server, peer = self._listener.accept()
            with server:
                return str(peer[0])

    def accept(self) -> socket.socket:
        return self._listener.accept()[0]


def dial(space: str, address: str, port: int, seconds: float = 2.0) -> socket.socket:
    """A connected socket from inside a namespace."""
    with netns.enter(space):
        client = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
    client.settimeout(seconds)
    try:
        client.connect((address, port))
    except OSError:
        client.close()
        raise
    return client
