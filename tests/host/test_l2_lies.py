"""What a guest may not say, and what it must be able to say, on the real switch (NET-1)."""

import os
import shutil
import struct
import time
from collections.abc import Iterator

import pytest

from tests.host.l2_frames import (
    ARP,
    BROADCAST,
    EVERYBODY6,
    EVERYBODY6_MAC,
    IPV4,
    IPV6,
    MARK,
    arp,
    frame,
    icmp6,
    ipv4,
    ipv6,
    octets,
    packed,
    udp,
)
from tests.host.l2_rig import Guest, L2Node, l2_node, pair

pytestmark = [
    pytest.mark.host,
    pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("ovs-vswitchd"), reason="needs root and Open vSwitch"),
]
TRUTH = b"and-this-is-true"


@pytest.fixture
def node() -> Iterator[L2Node]:
    with l2_node() as made:
        yield made


GATEWAY, GATEWAY_MAC = "10.0.0.254", "fa:16:3e:ff:ff:fe"


def neighbour(kind: int, source: str, to: str, target: str, option: int, mac: str) -> bytes:
    flags = 0x20000000 if kind == 136 else 0
    body = struct.pack("!I", flags) + packed(target) + bytes((option, 1)) + octets(mac)
    return ipv6(source, to, 58, icmp6(source, to, kind, body))


def lies(a: Guest, b: Guest) -> dict[str, bytes]:
    """What a says to b and to everybody, as somebody that it is not."""
    ip, other, own6 = a.ip, "10.0.0.77", "fd00::1"
    own_ll = "fe80::" + ":".join(f"{word:x}" for word in struct.unpack("!4H", packed_ll(a.mac)))
    data = udp(ip, b.ip, 5000, 5000, MARK)
    datagram = ipv4(ip, b.ip, 17, data)
    advert = struct.pack("!BBHII", 64, 0, 1800, 0, 0) + MARK
    dhcp = ipv4(ip, "255.255.255.255", 17, udp(ip, "255.255.255.255", 67, 68, MARK))
    odd = ipv4(ip, "255.255.255.255", 17, udp(ip, "255.255.255.255", 1067, 68, MARK))
    dhcp6 = ipv6(own6, "fd00::2", 17, udp(own6, "fd00::2", 547, 546, MARK))
    v6 = ipv6("fd00::77", "fd00::2", 17, udp("fd00::77", "fd00::2", 1, 5000, MARK))
    mapped = ipv6("::ffff:10.0.0.1", "fd00::2", 17, udp("::ffff:10.0.0.1", "fd00::2", 1, 5000, MARK))
    stranger = ipv4(other, b.ip, 17, udp(other, b.ip, 5000, 5000, MARK))
    nothing = ipv4("0.0.0.0", b.ip, 17, udp("0.0.0.0", b.ip, 68, 67, MARK))
    router = ipv6(own_ll, EVERYBODY6, 58, icmp6(own_ll, EVERYBODY6, 134, advert))
    redirect = ipv6(own_ll, "fd00::2", 58, icmp6(own_ll, "fd00::2", 137, bytes(36) + MARK))
    hidden = struct.pack("!BBBBHH", 58, 0, 5, 2, 0, 0)
    return {
        "hardware address": frame(b.mac, "fa:16:3e:99:99:99", IPV4, datagram),
        "hardware address of the victim": frame(b.mac, b.mac, IPV4, datagram),
        "address": frame(b.mac, a.mac, IPV4, stranger),
        "no address, but not to everybody": frame(b.mac, a.mac, IPV4, nothing),
        "IPv6 address": frame(b.mac, a.mac, IPV6, v6),
        "IPv4-mapped address": frame(b.mac, a.mac, IPV6, mapped),
        "ARP sender's address": frame(b.mac, a.mac, ARP, arp(2, a.mac, other, b.mac, b.ip) + MARK),
        "ARP sender's hardware": frame(b.mac, a.mac, ARP, arp(2, GATEWAY_MAC, ip, b.mac, b.ip) + MARK),
        "gratuitous ARP for the gateway": frame(
            BROADCAST, a.mac, ARP, arp(1, a.mac, GATEWAY, BROADCAST, GATEWAY) + MARK
        ),
        "gratuitous ARP reply for the gateway": frame(
            BROADCAST, a.mac, ARP, arp(2, a.mac, GATEWAY, BROADCAST, GATEWAY) + MARK
        ),
        "probe for the victim's address": frame(
            BROADCAST, a.mac, ARP, arp(1, a.mac, "0.0.0.0", "00:00:00:00:00:00", b.ip) + MARK
        ),
        "DHCP server": frame(BROADCAST, a.mac, IPV4, dhcp),
        "DHCP server from an odd port": frame(BROADCAST, a.mac, IPV4, odd),
        "DHCPv6 server": frame(b.mac, a.mac, IPV6, dhcp6),
        "router": frame(EVERYBODY6_MAC, a.mac, IPV6, router),
        "router, behind an extension header": frame(
            EVERYBODY6_MAC, a.mac, IPV6, ipv6(own_ll, EVERYBODY6, 0, hidden + router[40:])
        ),
        "redirect": frame(b.mac, a.mac, IPV6, redirect),
        "neighbour": frame(b.mac, a.mac, IPV6, neighbour(136, own6, "fd00::2", "fd00::77", 2, a.mac) + MARK),
        "unsolicited neighbour": frame(
            EVERYBODY6_MAC, a.mac, IPV6, neighbour(136, own6, EVERYBODY6, "fd00::254", 2, a.mac) + MARK
        ),
        "soliciting neighbour": frame(
            b.mac, a.mac, IPV6, neighbour(135, "fd00::77", "fd00::2", "fd00::2", 1, a.mac) + MARK
        ),
        "detection of the victim's address": frame(
            EVERYBODY6_MAC, a.mac, IPV6, neighbour(135, "::", EVERYBODY6, "fd00::2", 1, a.mac) + MARK
        ),
        "tag": frame(b.mac, a.mac, IPV4, datagram, tag=1),
        "priority tag": frame(b.mac, a.mac, IPV4, datagram, tag=0),
        "two tags": frame(b.mac, a.mac, 0x88A8, struct.pack("!HHHH", 1, 0x8100, 2, IPV4) + datagram),
        "unknown kind of frame": frame(b.mac, a.mac, 0x88CC, MARK),
    }


def packed_ll(mac: str) -> bytes:
    six = octets(mac)
    return bytes((six[0] ^ 2, *six[1:3], 0xFF, 0xFE, *six[3:]))


def test_nobody_hears_lies(node: L2Node) -> None:
    a, b = pair(node, groups=("open",))
    trusted = node.guest("dhcp", "n1", "10.0.0.9", device_owner="network:dhcp")
    plain = node.guest("plain", "n1", "10.0.0.8", port_security=False)
    assert node.reconcile() == {}
    truth = frame(b.mac, a.mac, IPV4, ipv4(a.ip, b.ip, 17, udp(a.ip, b.ip, 5000, 5000, TRUTH)))
    hearers = {"b": b, "trusted": trusted, "plain": plain}
    for name, lie in lies(a, b).items():
        with b.hearing() as one, trusted.hearing() as two, plain.hearing() as three:
            a.send(lie, truth)
            assert one.hears(TRUTH), name
            heard = {who: ear.frames(0.05, MARK) for who, ear in zip(hearers, (one, two, three), strict=True)}
            assert heard == {"b": [], "trusted": [], "plain": []}, name
    with b.hearing() as ear:  # fragments that hide what they are
        hide = udp(a.ip, "255.255.255.255", 67, 68, MARK)
        for at, part, more in ((0, hide[:8], 0x2000), (1, hide[8:], 0)):
            a.send(
                frame(
                    BROADCAST,
                    a.mac,
                    IPV4,
                    ipv4(a.ip, "255.255.255.255", 17, part + bytes(-len(part) % 8 * (more > 0)), at | more),
                )
            )
        assert ear.frames(0.5, MARK) == []


def test_the_truth_is_heard(node: L2Node) -> None:
    """What an honest guest has to say before and besides its traffic."""
    a, _ = pair(node, groups=())
    dhcp = node.guest("dhcp", "n1", "10.0.0.9", device_owner="network:dhcp")
    assert node.reconcile() == {}
    discover = udp("0.0.0.0", "255.255.255.255", 68, 67, MARK)
    solicit = udp("fe80::1", "ff02::1:2", 546, 547, MARK)
    own = "fe80::" + ":".join(f"{word:x}" for word in struct.unpack("!4H", packed_ll(a.mac)))
    solicit = udp(own, "ff02::1:2", 546, 547, MARK)
    truths = {
        "discover": frame(BROADCAST, a.mac, IPV4, ipv4("0.0.0.0", "255.255.255.255", 17, discover)),
        "renew": frame(dhcp.mac, a.mac, IPV4, ipv4(a.ip, dhcp.ip, 17, udp(a.ip, dhcp.ip, 68, 67, MARK))),
        "solicit": frame("33:33:00:01:00:02", a.mac, IPV6, ipv6(own, "ff02::1:2", 17, solicit)),
        "probe": frame(BROADCAST, a.mac, ARP, arp(1, a.mac, "0.0.0.0", "00:00:00:00:00:00", a.ip) + MARK),
        "detection": frame(
            EVERYBODY6_MAC, a.mac, IPV6, neighbour(135, "::", EVERYBODY6, "fd00::1", 1, a.mac) + MARK
        ),
        "router solicitation": frame(
            EVERYBODY6_MAC, a.mac, IPV6, ipv6("::", "ff02::2", 58, icmp6("::", "ff02::2", 133, bytes(4) + MARK))
        ),
    }
    for name, truth in truths.items():
        with dhcp.hearing() as ear:
            a.send(truth)
            assert ear.hears(MARK), name
    offer = udp(dhcp.ip, a.ip, 67, 68, MARK)
    with a.hearing() as ear:
        dhcp.send(frame(a.mac, dhcp.mac, IPV4, ipv4(dhcp.ip, a.ip, 17, offer)))
        assert ear.hears(MARK)


def test_without_port_security_everything_is_heard(node: L2Node) -> None:
    """The lies are well told: between ports that are not filtered all of them arrive, but for tags."""
    net = node.network("n1", 5001)
    a = node.guest("a", net, "10.0.0.1", "fd00::1", port_security=False)
    b = node.guest("b", net, "10.0.0.2", "fd00::2", port_security=False)
    assert node.reconcile() == {}
    told = lies(a, b)
    for name, lie in told.items():
        with b.hearing() as ear:
            a.send(lie)
            assert ear.hears(MARK, 1.0) != ("tag" in name), name
            if name == "hardware address":
                assert a.dials(b, 80)


def test_no_fragment_passes(node: L2Node) -> None:
    """Not even in pieces of somebody else's traffic, when the tracker gives up on them (after 15 s)."""
    a, b = pair(node, groups=("open",))
    net = node.network("n2", 5002)
    c, d = (node.guest(name, net, f"10.0.0.{n}", security_groups=("open",)) for n, name in ((1, "c"), (2, "d")))
    assert node.reconcile() == {}
    assert a.ping("10.0.0.2")
    datagram = udp("10.0.0.1", "10.0.0.2", 5000, 5001, MARK + bytes(1400 - len(MARK)) + MARK + bytes(100))
    with b.hearing() as one, c.hearing() as two, d.hearing() as three:
        for ident in range(5):
            first = ipv4("10.0.0.1", "10.0.0.2", 17, datagram[:1400], 0x2000, ident)
            last = ipv4("10.0.0.1", "10.0.0.2", 17, datagram[1400:], 1400 // 8, ident)
            a.send(frame(b.mac, a.mac, IPV4, first), *[frame(b.mac, a.mac, IPV4, last)] * (ident % 2))
        until = time.monotonic() + 17
        while time.monotonic() < until:
            assert c.dials(d, 80)
            time.sleep(0.5)
        assert [ear.frames(0.2, MARK) for ear in (one, two, three)] == [[], [], []]
