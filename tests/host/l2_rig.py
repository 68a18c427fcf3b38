"""Nodes of the test's own, each with a private Open vSwitch and the real L2 agent, and guests that send raw frames.

A node is a network namespace in which the test's thread stands while it works there; a guest is another one, with
a veth whose outer end is the port's device.  Frames are made by hand, so that a guest can lie.
"""

import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from cumulet.core.config import Config, Network, Node
from cumulet.core.reconcile import Loop
from cumulet.host import netns, openvswitch
from cumulet.host.netlink import Netlink, Route, checksum_off
from cumulet.host.openflow import OpenFlow
from cumulet.host.ovsdb import Ovsdb
from cumulet.neutron.l2.agent import SWITCH, L2Agent, Wanted
from cumulet.neutron.l2.switch import OvsSwitch
from cumulet.neutron.model import Rule, Segment, WirePort, device_name
from tests.neutron.l2_controller import ANY4, ANY6, FakeController, a_port

OPEN = (ANY4, ANY6, Rule("ingress", 4), Rule("ingress", 6))

PACKET_OUTGOING = 4


def until(seen: Callable[[], bool], what: str, seconds: float = 20.0) -> float:
    """Wait for a level; how long it took."""
    begun = time.monotonic()
    while not seen():
        assert time.monotonic() - begun < seconds, f"not seen in time: {what}"
        time.sleep(0.02)
    return time.monotonic() - begun


class L2Node:
    """A node with its switch and its agent; ``loop`` runs only while ``running``."""

    def __init__(self, directory: Path, space: str, **network: Any) -> None:
        self.space = space
        self.config = Config(
            node=Node(name=space, state_dir=f"{directory}/s", run_dir=f"{directory}/r"), network=Network(**network)
        )
        self.run_dir = f"{directory}/r/openvswitch"
        self._state = f"{directory}/s/openvswitch"
        self.children: dict[str, subprocess.Popen[bytes]] = {}
        self.guests: dict[str, Guest] = {}
        self.controller = FakeController()
        openvswitch.prepare(self._state, self.run_dir, system_id=space)
        self.start(openvswitch.ovsdb_server(self._state, self.run_dir))
        self.ovsdb = Ovsdb(openvswitch.database_socket(self.run_dir))
        until(lambda: os.path.exists(self.ovsdb.path), "the database's socket")
        self.start_vswitchd()
        self.ovsdb.settle(20)
        self.openflow = OpenFlow(self.run_dir)
        self.renew()

    def renew(self) -> None:
        """A new agent, which knows nothing."""
        with netns.enter(self.space):
            self.switch = OvsSwitch(self.config)
            self.agent = L2Agent(self.controller, "node1", self.switch, self.config)

    def start(self, command: openvswitch.Command) -> None:
        with netns.enter(self.space):
            self.children[command.argv[0]] = subprocess.Popen(command.argv, env={**os.environ, **command.env})

    def start_vswitchd(self) -> None:
        self.start(openvswitch.ovs_vswitchd(self._state, self.run_dir))

    def kill_vswitchd(self) -> None:
        self.children["ovs-vswitchd"].kill()
        self.children.pop("ovs-vswitchd").wait()

    def stop(self) -> None:
        self.ovsdb.close()
        for child in reversed(self.children.values()):
            child.kill()
            child.wait()
        for guest in self.guests.values():
            guest.close()

    def reconcile(self) -> dict[str, str]:
        """One pass; the reasons of ports that are not right."""
        with netns.enter(self.space):
            outcomes = self.agent.reconcile_all(self.agent.read())
        return {key: str(outcome) for key, outcome in outcomes.items()}

    @contextlib.contextmanager
    def running(self) -> Iterator[Loop[Wanted]]:
        """The agent's loop in a thread, woken by the switch's watch."""
        loop: Loop[Wanted] = Loop(self.agent.reconciler())

        def run() -> None:
            with netns.enter(self.space):
                loop.run()

        stop = self.switch.watch(lambda: loop.wake(SWITCH))
        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield loop
        finally:
            stop()
            loop.stop()
            thread.join()

    def network(self, network_id: str, vni: int, *peers: str) -> str:
        self.controller.segments[network_id] = Segment(network_id, "vxlan", 1450, vni, peers=peers)
        return network_id

    def guest(self, name: str, network_id: str, *ips: str, plug: bool = True, **fields: Any) -> "Guest":
        """A port and a namespace on it; its hardware address comes from its name."""
        mac = fields.pop(
            "mac", f"fa:16:3e:{sum(name.encode()) % 256:02x}:{len(name):02x}:{len(self.guests) + 1:02x}"
        )
        port = a_port(str(uuid.uuid4()), network_id, mac, *ips, **fields)
        guest = self.guests[name] = Guest(self, port)
        self.controller.add(port)
        if plug:
            guest.plug()
        return guest

    def control(self, *words: str) -> str:
        """What ovs-vswitchd answers to ovs-appctl."""
        argv = ["ovs-appctl", "-t", f"{self.run_dir}/ovs-vswitchd.ctl", *words]
        return subprocess.run(argv, capture_output=True, text=True, check=True).stdout

    def flows(self, bridge: str = "br-int") -> set[int]:
        return self.openflow.list_cookies(bridge)


class Guest:
    """What is behind a port."""

    def __init__(self, node: L2Node, port: WirePort) -> None:
        self.node, self.port, self.mac, self.device = node, port, port.mac, device_name(port.id)
        self.space = f"{node.space}-{port.id[:8]}"
        netns.create(self.space)

    @property
    def ip(self) -> str:
        return self.port.ips[0]

    def plug(self) -> None:
        """What nova-compute or the DHCP agent does."""
        with netns.enter(self.node.space), Netlink() as link:
            link.ensure_veth(self.device, "eth0", self.space, 1450, peer_mac=self.mac)
            link.set_up(self.device)
        with netns.enter(self.space), Netlink() as link:
            checksum_off("eth0")
            link.ensure_addresses("eth0", {f"{ip}/{64 if ':' in ip else 24}" for ip in self.port.ips})
            link.set_up("eth0")
        with self.node.ovsdb.change() as change:
            change.ensure_port("br-int", self.device, external_ids={"iface-id": self.port.id, "owner": "cumulet"})

    def unplug(self) -> None:
        with self.node.ovsdb.change() as change:
            change.delete_port(self.device)
        with netns.enter(self.node.space), Netlink() as link:
            link.delete_link(self.device)

    def route(self, via: str) -> None:
        with netns.enter(self.space), Netlink() as link:
            link.ensure_route(Route("0.0.0.0/0", "eth0", via))

    def close(self) -> None:
        netns.delete(self.space)

    def send(self, *frames: bytes) -> None:
        with netns.enter(self.space), socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as raw:
            raw.bind(("eth0", 0))
            for one in frames:
                raw.send(one)

    @contextlib.contextmanager
    def hearing(self) -> Iterator["Ear"]:
        with netns.enter(self.space):
            raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
            raw.bind(("eth0", 3))
        with raw:
            raw.settimeout(0.02)
            yield Ear(raw)

    def ping(self, address: str, seconds: float = 1.0, size: int = 56) -> bool:
        words = ["ping", "-n", "-c1", f"-s{size}", f"-W{seconds:g}", address]
        return self.run(*words).returncode == 0

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        with netns.enter(self.space):
            return subprocess.run(words, capture_output=True, text=True, check=False)

    def opened(self, kind: socket.SocketKind, family: int = socket.AF_INET) -> socket.socket:
        with netns.enter(self.space):
            made = socket.socket(family, kind)
        made.settimeout(1.0)
        return made

    def dials(self, other: "Guest", port: int, address: str = "") -> bool:
        """Whether a TCP connection to a listener on the other comes through, with data both ways."""
        connection = self.connect(other, port, address)
        if connection:
            connection[0].close()
            connection[1].close()
        return connection is not None

    def connect(self, other: "Guest", port: int, address: str = "") -> tuple[socket.socket, socket.socket] | None:
        address = address or other.ip
        with netns.listen_tcp(other.space, address, port) as listener:
            listener.settimeout(1.0)
            client = self.opened(socket.SOCK_STREAM, listener.family)
            try:
                client.connect((address, port))
                server = listener.accept()[0]
                server.settimeout(1.0)
                if talks(client, server):
                    return client, server
            except OSError:
                pass
            client.close()
        return None


def talks(client: socket.socket, server: socket.socket) -> bool:
    """Whether data goes both ways on an open connection."""
    try:
        client.sendall(b"?")
        if server.recv(100)[-1:] != b"?":
            return False
        server.sendall(b"!")
        return client.recv(100)[-1:] == b"!"
    except TimeoutError:
        return False


class Ear:
    """Frames that arrive at a guest; what it sends itself is passed over."""

    def __init__(self, raw: socket.socket) -> None:
        self._raw = raw
        self.heard: list[bytes] = []

    def frames(self, seconds: float = 0.5, mark: bytes = b"") -> list[bytes]:
        """All that has arrived, and arrives within the time, with the mark."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self._take()
        return [one for one in self.heard if mark in one]

    def hears(self, mark: bytes, seconds: float = 2.0) -> bool:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and not any(mark in one for one in self.heard):
            self._take()
        return any(mark in one for one in self.heard)

    def _take(self) -> None:
        with contextlib.suppress(TimeoutError):
            one, sender = self._raw.recvfrom(1 << 16)
            if sender[2] != PACKET_OUTGOING:
                self.heard.append(one)


@contextlib.contextmanager
def l2_node(
    before: Callable[[str], None] = lambda space: None, later: bool = False, **network: Any
) -> Iterator[L2Node]:
    """A node; ``before`` is called with its namespace first, and ``later`` leaves the first pass to the caller."""
    directory = Path(tempfile.mkdtemp(prefix="cum-"))  # unix sockets have short paths
    space = f"cumtest-{uuid.uuid4().hex[:6]}"
    netns.create(space)
    try:
        before(space)
        node = L2Node(directory, space, **network)
        try:
            if not later:
                node.reconcile()  # the bridges, on which guests are then plugged
            yield node
        finally:
            node.stop()
    finally:
        netns.delete(space)
        shutil.rmtree(directory, ignore_errors=True)


def pair(node: L2Node, *rules: Rule, groups: tuple[str, ...] = ("g",)) -> tuple[Guest, Guest]:
    """Two guests of one network, in group g, which has these rules; and an open group."""
    node.controller.rules |= {"g": rules, "open": OPEN}
    net = node.network("n1", 5001)
    a = node.guest("a", net, "10.0.0.1", "fd00::1", security_groups=groups)
    b = node.guest("b", net, "10.0.0.2", "fd00::2", security_groups=groups)
    assert node.reconcile() == {}
    return a, b


def says(a: Guest, b: Guest, port: int, size: int = 10, address: str = "") -> bool:
    """Whether a datagram arrives."""
    address = address or b.ip
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with b.opened(socket.SOCK_DGRAM, family) as hearer, a.opened(socket.SOCK_DGRAM, family) as speaker:
        hearer.bind((address, port))
        hearer.settimeout(0.5)
        speaker.sendto(b"x" * size, (address, port))
        try:
            return len(hearer.recv(1 << 16)) == size
        except TimeoutError:
            return False
