"""The DHCP agent's real side: dnsmasq in a namespace on a private switch, and a guest that asks it."""

import os
import shutil
import socket
import struct
import subprocess
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from cumulet.core.errors import Retry
from cumulet.host import netns, process
from cumulet.host.netlink import Netlink
from cumulet.neutron.dhcp import driver
from cumulet.neutron.dhcp.driver import DnsmasqHost
from cumulet.neutron.model import DhcpIntent, Lease, Subnet
from tests.host.private_node import PrivateNode, private_node
from tests.machine import wait_for

pytestmark = [
    pytest.mark.host,
    pytest.mark.skipif(
        os.geteuid() != 0 or not all(shutil.which(tool) for tool in ("ovs-vswitchd", "dnsmasq", "busybox")),
        reason="needs root, Open vSwitch, dnsmasq and busybox",
    ),
]
TAG = 1
MAC, MAC2 = "fa:16:3e:00:00:05", "fa:16:3e:00:00:06"
SCRIPT = """#!/bin/sh
[ "$1" = bound ] && env > "$RESULT.new" && mv "$RESULT.new" "$RESULT"
exit 0
"""


class World:
    """A network with a DHCP server and one guest whose hardware address may change."""

    def __init__(self, node: PrivateNode, directory: Path) -> None:
        self.node, self.host = node, DnsmasqHost(node.config)
        self.guest = node.guest("g", TAG, MAC)
        self._script, self._result = directory / "script", directory / "result"
        self._script.write_text(SCRIPT)
        self._script.chmod(0o755)
        self.intent = DhcpIntent(
            network_id=str(uuid.uuid4()),
            generation=1,
            absent=False,
            port_id=str(uuid.uuid4()),
            mac="fa:16:3e:00:00:02",
            ips=("10.1.0.2/24",),
            mtu=1432,
            domain="cloud.example",
            subnets=(
                Subnet("s", "10.1.0.0/24", 4, True, "10.1.0.1", ("192.0.2.53",), (("10.9.0.0/16", "10.1.0.9"),)),
            ),
            leases=(Lease("p", MAC, ("10.1.0.5",), "vm"),),
        )

    @property
    def space(self) -> str:
        return f"qdhcp-{self.intent.network_id}"

    @property
    def directory(self) -> Path:
        return self.node.config.run / "dhcp" / self.intent.network_id

    def ensure(self, **changes: object) -> tuple[str, ...]:
        self.intent = msgspec.structs.replace(self.intent, **changes)
        self.host.look()
        refused = self.host.ensure(self.intent)
        self.node.tag_port(self.intent.port_id, TAG)
        return refused

    def remove(self) -> None:
        self.host.look()
        self.host.remove(self.intent.network_id)

    def pid(self) -> int:
        found = process.find(str(self.directory / "pid"), str(self.directory))
        assert found
        return found.pid

    def lease(self, seconds: int = 5, *options: str) -> dict[str, str]:
        """What the guest is given; empty if nothing."""
        self._result.unlink(missing_ok=True)
        words = ["busybox", "udhcpc", "-i", "eth0", "-f", "-q", "-n", "-T", "1", "-t", str(seconds), "-s"]
        asked = [option for one in ("121", "26", "43", "209", *options) for option in ("-O", one)]
        with netns.enter(self.guest):
            subprocess.run(
                [*words, str(self._script), *asked],
                env={**os.environ, "RESULT": str(self._result)},
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                check=False,
            )
        if not self._result.exists():
            return {}
        return dict(line.split("=", 1) for line in self._result.read_text().splitlines() if "=" in line)

    def resolve(self, name: str) -> str:
        """The address that the network's name server gives; "" if none."""
        query = struct.pack("!HHHHHH", 7, 0x0100, 1, 0, 0, 0)
        query += b"".join(bytes([len(part)]) + part.encode() for part in name.split(".")) + b"\0\0\1\0\1"
        with netns.enter(self.space):
            client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with client:
            client.settimeout(2)
            client.sendto(query, ("10.1.0.2", 53))
            answer = client.recv(512)
        return socket.inet_ntoa(answer[-4:]) if struct.unpack("!H", answer[6:8])[0] else ""


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with private_node() as node:
        made = World(node, tmp_path)
        yield made
        made.remove()


def test_a_guest_gets_what_it_should(world: World) -> None:
    started = time.perf_counter()
    assert world.ensure() == ()
    made = time.perf_counter()
    given = world.lease()
    print(
        f"network set up in {(made - started) * 1000:.0f} ms, lease in {(time.perf_counter() - made) * 1000:.0f} ms"
    )
    assert (given["ip"], given["mask"], given["router"]) == ("10.1.0.5", "24", "10.1.0.1")
    assert given["dns"] == "192.0.2.53"
    assert given["mtu"] == "1432"
    assert given["domain"] == "cloud.example"
    assert given["hostname"] == "vm"
    assert given["staticroutes"] == "169.254.169.254/32 10.1.0.2 10.9.0.0/16 10.1.0.9 0.0.0.0/0 10.1.0.1"
    assert world.resolve("vm.cloud.example") == "10.1.0.5"
    assert world.resolve("host.elsewhere") == ""


def test_ports_come_and_go_without_a_restart(world: World) -> None:
    world.ensure(leases=())
    pid = world.pid()
    assert world.lease(1) == {}
    world.ensure(leases=(Lease("p", MAC, ("10.1.0.6",), "two"),))
    assert world.lease()["ip"] == "10.1.0.6"
    assert world.resolve("two.cloud.example") == "10.1.0.6"
    world.ensure(leases=(Lease("p2", MAC2, ("10.1.0.6",), "two"),))
    assert world.lease(1) == {}
    assert world.pid() == pid
    world.ensure(mtu=1400)
    assert world.pid() != pid


def test_an_address_goes_to_its_next_holder_at_once(world: World) -> None:
    """The lease of a port that is gone would last a day, and keep the address from its new owner."""
    world.ensure(leases=(Lease("p", MAC, ("10.1.0.6",), "one"),))
    assert world.lease()["ip"] == "10.1.0.6"
    wait_for(lambda: "10.1.0.6" in (world.directory / "leases").read_text(), 10, "the lease to be written down")
    world.ensure(leases=(Lease("p2", MAC2, ("10.1.0.6",), "two"),))
    with netns.enter(world.guest), Netlink() as link:
        link.set_mac("eth0", MAC2)
    assert world.lease()["ip"] == "10.1.0.6"


def test_texts_of_users_spoil_nothing(world: World) -> None:
    options = (
        ("bootfile-name", '"', 4),
        ("no-such-option", "x", 4),
        ("209", "good # not a comment", 4),
        ("vendor-encap", "x\nport=5353", 4),
        ("router", "not an address", 4),
    )
    refused = world.ensure(
        leases=(Lease("p", MAC, ("10.1.0.5",), 'vm"\n', options), Lease("q", MAC2, ("10.1.0.6",), "q"))
    )
    assert len(refused) == 2
    given = world.lease()
    assert given["ip"] == "10.1.0.5"
    assert given["hostname"] == "host-10-1-0-5"
    assert given["router"] == "10.1.0.1"
    assert world.resolve("q.cloud.example") == "10.1.0.6"


def test_what_died_comes_back_and_what_lives_is_kept(world: World) -> None:
    world.ensure()
    pid = world.pid()
    before = world.node.ovsdb.look()
    world.ensure()
    assert world.pid() == pid
    assert world.node.ovsdb.look() == before
    dying = process.find(str(world.directory / "pid"), str(world.directory))
    assert dying
    os.kill(pid, 9)
    assert process.wait_ended(dying, 5)
    world.ensure()
    assert world.pid() != pid
    assert world.lease()["ip"] == "10.1.0.5"
    netns.delete(world.space)
    world.ensure()
    assert world.lease()["ip"] == "10.1.0.5"


def test_a_new_port_takes_the_place_of_the_old_one(world: World) -> None:
    world.ensure()
    old = f"tap{world.intent.port_id[:11]}"
    world.ensure(port_id=str(uuid.uuid4()), mac="fa:16:3e:00:00:12", ips=("10.1.0.3/24",))
    assert old not in world.node.ports()
    assert len(world.node.ports()) == 1
    assert world.lease()["serverid"] == "10.1.0.3"


def test_nothing_is_left(world: World) -> None:
    world.ensure()
    pid = world.pid()
    assert world.host.look() == {world.intent.network_id}
    world.remove()
    world.remove()
    assert world.host.look() == frozenset()
    assert world.node.ports() == set()
    assert not netns.exists(world.space)
    assert not world.directory.exists()
    assert not Path(f"/proc/{pid}").exists() or not Path(f"/proc/{pid}/cmdline").read_bytes()  # a zombie at most
    world.ensure()
    world.node.end_switch()
    with pytest.raises(Retry):
        world.host.look()
    driver.remove_all(world.node.config)
    assert not netns.exists(world.space)
    assert not world.directory.exists()
    world.node.start()
