"""A node's ways out, with packets: tunnels to other nodes, and the uplink to the public network and the host."""

import os
import shutil
import socket
import struct
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from cumulet.core.errors import Retry
from cumulet.host import netns
from cumulet.host.netlink import Netlink, Route
from cumulet.host.nft import Nft
from cumulet.neutron.l2.flows import EX, INT, PHY, TUN
from cumulet.neutron.l2.uplink import HOST_END, remove_all
from cumulet.neutron.model import Segment
from tests.host.l2_frames import ARP, BROADCAST, IPV4, MARK, arp, frame, ipv4, udp
from tests.host.l2_rig import OPEN, Guest, L2Node, l2_node, until

pytestmark = [
    pytest.mark.host,
    pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("ovs-vswitchd"), reason="needs root and Open vSwitch"),
]


RARP = 0x8035


def ping(space: str, address: str) -> bool:
    with netns.enter(space):
        return subprocess.run(["ping", "-nqc1", "-W1", address], capture_output=True, check=False).returncode == 0


# ── tunnels ──────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def nodes() -> Iterator[tuple[L2Node, L2Node]]:
    """Two nodes, joined by a cable between their tun0."""

    def wire(space: str) -> None:
        with netns.enter(space), Netlink() as link:
            if len(spaces) == 1:
                link.ensure_veth("tun0", "tun0", peer_netns=spaces[0])
                with netns.enter(spaces[0]), Netlink() as other:
                    for one, number in ((other, 1), (link, 2)):
                        one.ensure_addresses("tun0", {f"10.20.0.{number}/24"})
                        one.set_up("tun0")
                    other.ensure_route(Route("10.99.0.0/16", "tun0", "10.20.0.2"))
        spaces.append(space)

    spaces: list[str] = []
    with (
        l2_node(before=wire, later=True, tunnel_address="10.20.0.1", public_cidr="") as one,
        l2_node(before=wire, tunnel_address="10.20.0.2", public_cidr="") as two,
    ):
        one.reconcile()
        yield one, two


def member(node: L2Node, name: str, net: str, ip: str, **fields: Any) -> Guest:
    node.controller.rules["open"] = OPEN
    return node.guest(name, net, ip, security_groups=("open",), **fields)


def test_tunnels(nodes: tuple[L2Node, L2Node]) -> None:
    one, two = nodes
    assert ping(one.space, "10.20.0.2")  # the hosts themselves, through br-phy
    one.network("n1", 5001)
    two.network("n1", 5001)
    a = member(one, "a", "n1", "10.0.0.1")
    assert one.reconcile() == {}
    assert [name for name in one.ovsdb.ports(TUN) if name.startswith("vxlan")] == []  # nobody to reach
    one.network("n1", 5001, "10.20.0.2")
    two.network("n1", 5001, "10.20.0.1")
    two.network("n2", 5002, "10.20.0.1")
    b = member(two, "bb", "n1", "10.0.0.2")
    same = member(two, "ccc", "n2", "10.0.0.2")
    assert one.reconcile() == two.reconcile() == {}
    assert list(one.ovsdb.ports(TUN)).count("vxlan-0a140002") == 1
    until(lambda: a.ping("10.0.0.2"), "the other node")
    assert a.dials(b, 80)
    assert not b.dials(a, 80, "10.0.0.9")
    with same.hearing() as ear, b.hearing() as heard:
        a.send(frame(BROADCAST, a.mac, ARP, arp(1, a.mac, a.ip, BROADCAST, "10.0.0.2") + MARK))
        stranger = frame(
            "fa:16:3e:77:77:77", a.mac, IPV4, ipv4(a.ip, "10.0.0.7", 17, udp(a.ip, "10.0.0.7", 1, 2, MARK))
        )
        a.send(stranger)
        assert heard.hears(MARK)
        assert len(heard.frames(0.3, MARK)) == 1  # the broadcast, not what is for nobody
        assert ear.frames(0.1, MARK) == []
    one.kill_vswitchd()
    with one.running():
        one.start_vswitchd()
        seconds = until(lambda: a.ping("10.0.0.2", 0.1), "the tunnel again", 4)
        print(f"tunnel repaired after {seconds:.2f} s")
    assert ping(one.space, "10.20.0.2")
    b.unplug()
    c = member(one, "c", "n1", "10.0.0.2", mac=b.mac)  # the same station, moved to this node
    assert one.reconcile() == {}
    assert list(two.reconcile()) == [b.port.id]
    until(lambda: a.ping("10.0.0.2"), "the station that moved here", 3)
    c.unplug()
    del one.controller.ports[c.port.id]
    b.plug()
    assert one.reconcile() == two.reconcile() == {}
    until(lambda: a.ping("10.0.0.2"), "the station that moved back", 3)
    one.network("n1", 5001)
    assert one.reconcile() == {}
    assert "vxlan-0a140002" not in one.ovsdb.ports(TUN)


def rarp(mac: str, about: str = "") -> bytes:
    """What QEMU says for a guest that has come in."""
    nobody = "0.0.0.0"
    return frame(BROADCAST, mac, RARP, arp(3, about or mac, nobody, about or mac, nobody) + MARK)


def test_a_station_that_comes_as_it_runs(nodes: tuple[L2Node, L2Node]) -> None:
    """Its port is wired where it goes to; its neighbours there reach it where it is, until it speaks there."""
    one, two = nodes
    one.network("n1", 5001, "10.20.0.2")
    two.network("n1", 5001, "10.20.0.1")
    near = member(one, "near", "n1", "10.0.0.1")
    before = member(one, "before", "n1", "10.0.0.2")
    neighbour = member(two, "neighbour", "n1", "10.0.0.3")
    after = member(two, "after", "n1", "10.0.0.2", mac=before.mac, active=False)
    assert one.reconcile() == two.reconcile() == {}
    until(lambda: neighbour.ping("10.0.0.2") and near.ping("10.0.0.2"), "the station where it is")
    with near.hearing() as ear, neighbour.hearing() as heard:
        after.send(rarp("fa:16:3e:77:77:77"), rarp(after.mac, about="fa:16:3e:77:77:77"))
        assert neighbour.ping("10.0.0.2")
        assert near.ping("10.0.0.2")
        assert ear.frames(0.1, MARK) == heard.frames(0.1, MARK) == []
        before.unplug()
        after.send(rarp(after.mac))
        assert neighbour.ping("10.0.0.2"), "it has come"
        assert ear.frames(0.1, MARK) == heard.frames(0.1, MARK) == [], "guests need not know"
    del one.controller.ports[before.port.id]
    one.reconcile()
    assert near.ping("10.0.0.2"), "the other host's switch has heard it"
    two.controller.add(replace(after.port, active=True))
    assert two.reconcile() == {}
    assert near.ping("10.0.0.2")
    assert neighbour.ping("10.0.0.2")


def test_the_underlay_is_given_back(nodes: tuple[L2Node, L2Node]) -> None:
    one, two = nodes
    with netns.enter(one.space):
        with Netlink() as link:
            assert "10.20.0.1/24" not in link.addresses("tun0")
            assert "10.20.0.1/24" in link.addresses(PHY)
            assert Route("10.99.0.0/16", PHY, "10.20.0.2") in link.routes()
        remove_all(one.config)
        remove_all(one.config)
        with Netlink() as link, Nft() as nft:
            assert {address for address in link.addresses("tun0") if address[0] == "1"} == {"10.20.0.1/24"}
            assert Route("10.99.0.0/16", "tun0", "10.20.0.2") in link.routes()
            assert nft.tables() == set()
    assert one.ovsdb.bridges() == {}
    assert ping(one.space, "10.20.0.2")
    assert ping(two.space, "10.20.0.1")


def test_a_tunnel_address_that_nobody_has() -> None:
    words = r"no device of this host has network\.tunnel_address 10\.20\.0\.9"
    with l2_node(later=True, tunnel_address="10.20.0.9", public_cidr="") as node, pytest.raises(Retry, match=words):
        node.reconcile()


# ── the uplink ───────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def world() -> Iterator[tuple[L2Node, str]]:
    """A node whose default route leads to another namespace."""
    space = f"cumtest-{uuid.uuid4().hex[:6]}-world"
    netns.create(space)

    def wire(node: str) -> None:
        with netns.enter(node), Netlink() as link:
            link.ensure_veth("eth0", "eth0", peer_netns=space)
            link.ensure_addresses("eth0", {"198.51.100.2/24"})
            link.set_up("eth0")
            with netns.enter(space), Netlink() as other:
                other.ensure_addresses("eth0", {"198.51.100.1/24"})
                other.set_up("eth0")
            link.ensure_route(Route("0.0.0.0/0", "eth0", "198.51.100.1"))

    try:
        with l2_node(before=wire) as node:
            yield node, space
    finally:
        netns.delete(space)


def listening(space: str, address: str) -> socket.socket:
    listener = netns.listen_tcp(space, address, 8080)
    listener.settimeout(1.0)
    return listener


def reaches(guest: Guest, listener: socket.socket, address: str) -> str:
    """By which address the listener sees the guest, "" if it does not."""
    with guest.opened(socket.SOCK_STREAM) as client:
        client.settimeout(0.5)
        try:
            client.connect((address, 8080))
            server, peer = listener.accept()
        except OSError:
            return ""
        server.close()
        return str(peer[0])


def test_uplink(world: tuple[L2Node, str]) -> None:
    node, outside = world
    node.controller.segments["public"] = Segment("public", "flat", 1500, 0, "public")
    router = node.guest("router", "public", "172.24.4.10", device_owner="network:router_gateway")
    elsewhere = node.guest("elsewhere", node.network("n1", 5001), "172.24.4.11", device_owner="network:dhcp")
    assert node.reconcile() == {}
    router.route("172.24.4.1")
    until(lambda: ping(node.space, "172.24.4.10"), "the router")
    assert not ping(node.space, "172.24.4.11")
    assert not elsewhere.ping("172.24.4.1", 0.5)
    assert router.ping("172.24.4.1")
    with listening(node.space, "0.0.0.0") as own:
        assert reaches(router, own, "172.24.4.1") == ""
        assert reaches(router, own, "198.51.100.2") == ""
        with netns.enter(outside), socket.socket() as client:
            client.connect(("198.51.100.2", 8080))  # others reach the host as before
            assert own.accept()
    with listening(outside, "0.0.0.0") as far:
        assert reaches(router, far, "198.51.100.1") == "198.51.100.2"
    with listening(router.space, "0.0.0.0") as inside, netns.enter(node.space), socket.socket() as client:
        client.connect(("172.24.4.10", 8080))
        assert inside.accept()[1][0] == "172.24.4.1"
    flows = node.flows(), node.flows(EX)
    with node.running():
        node.kill_vswitchd()
        node.start_vswitchd()
        until(lambda: ping(node.space, "172.24.4.10"), "the router again", 3)
    assert node.reconcile() == {}
    assert (node.flows(), node.flows(EX)) == flows


def test_uplink_is_mended_and_taken_away(world: tuple[L2Node, str]) -> None:
    node, _ = world
    forward = Path("/proc/sys/net/ipv4/ip_forward")
    node.controller.segments["public"] = Segment("public", "flat", 1500, 0, "public")
    router = node.guest("router", "public", "172.24.4.10", device_owner="network:router_gateway")
    assert node.reconcile() == {}
    until(lambda: ping(node.space, "172.24.4.10"), "the router")
    with netns.enter(node.space), Netlink() as link, Nft() as nft:
        assert forward.read_text() == "1\n"
        link.delete_link(HOST_END)
        nft.delete_table("inet", "cumulet")
    assert node.reconcile() == {}
    until(lambda: ping(node.space, "172.24.4.10"), "the router behind a new cable")
    assert router.ping("172.24.4.1")
    with netns.enter(node.space):
        remove_all(node.config)
        remove_all(node.config)
        with Netlink() as link, Nft() as nft:
            assert forward.read_text() == "0\n"
            assert nft.tables() == set()
            assert not [name for name in link.links() if name.startswith(("cumulet", "br-"))]
    assert node.ovsdb.bridges() == {}


def test_vlans(world: tuple[L2Node, str]) -> None:
    """A provider network with a VLAN: tagged on the physical network, and only there."""
    node, _ = world
    node.controller.segments["v"] = Segment("v", "vlan", 1500, 77, "public")
    node.controller.segments["other"] = Segment("other", "flat", 1500, 0, "elsewhere")
    a = node.guest("a", "v", "10.0.0.1", device_owner="network:dhcp")
    lost = node.guest("lost", "other", "10.0.0.2")
    assert node.reconcile() == {
        lost.port.id: "its network other cannot be wired: physical network 'elsewhere' does not reach this host"
    }
    with netns.enter(node.space), socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as wire:
        wire.bind((HOST_END, 3))
        wire.settimeout(2)
        wire.setsockopt(263, 8, 1)  # SOL_PACKET, PACKET_AUXDATA: the kernel takes the tag out of the frame
        hello = arp(1, a.mac, a.ip, BROADCAST, "10.0.0.9") + MARK
        a.send(frame(BROADCAST, a.mac, ARP, hello))
        while MARK not in (seen := wire.recvmsg(2000, 200))[0]:
            pass
        assert struct.unpack_from("=H", seen[1][0][2], 16)[0] == 77
        with a.hearing() as ear:
            wire.send(frame(a.mac, "fa:16:3e:00:00:77", ARP, hello, tag=78))
            wire.send(frame(a.mac, "fa:16:3e:00:00:77", ARP, hello))
            assert ear.frames(0.3, MARK) == []
            wire.send(frame(a.mac, "fa:16:3e:00:00:77", ARP, hello, tag=77))
            assert ear.hears(MARK)
            assert ear.heard[-1][12:14] == b"\x08\x06"
    assert INT in node.ovsdb.bridges()
