"""The real switch under the real agent, with packets: what a port may say and hear, and what it may not.

Everything happens in namespaces of its own, with a private Open vSwitch.
"""

import os
import shutil
import socket
import struct
import time
from collections.abc import Callable, Iterator

import pytest

from cumulet.neutron.model import Rule
from tests.host.l2_rig import (
    ARP,
    BROADCAST,
    IPV4,
    IPV6,
    Guest,
    L2Node,
    arp,
    frame,
    icmp6,
    ipv4,
    ipv6,
    l2_node,
    octets,
    packed,
    talks,
    udp,
    until,
)
from tests.neutron.l2_controller import ANY4, ANY6

pytestmark = [
    pytest.mark.host,
    pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("ovs-vswitchd"), reason="needs root and Open vSwitch"),
]
MARK = b"a-mark-that-nobody-else-sends"
OPEN = (ANY4, ANY6, Rule("ingress", 4), Rule("ingress", 6))
IN_TCP_80, IN_ICMP = Rule("ingress", 4, 6, 80, 80), Rule("ingress", 4, 1)


@pytest.fixture
def node() -> Iterator[L2Node]:
    with l2_node() as made:
        yield made


def pair(node: L2Node, *rules: Rule, groups: tuple[str, ...] = ("g",)) -> tuple[Guest, Guest]:
    """Two guests of one network, in group g, which has these rules; and an open group."""
    node.controller.rules |= {"g": rules, "open": OPEN}
    net = node.network("n1", 5001)
    a = node.guest("a", net, "10.0.0.1", "fd00::1", security_groups=groups)
    b = node.guest("b", net, "10.0.0.2", "fd00::2", security_groups=groups)
    assert node.reconcile() == {}
    return a, b


def test_groups_and_states(node: L2Node) -> None:
    a, b = pair(node, ANY4, ANY6, IN_TCP_80, Rule("ingress", 6, 58), Rule("ingress", 4, 17, 5000, 5010))
    assert a.dials(b, 80)
    assert not a.dials(b, 81)
    assert not a.ping("10.0.0.2")
    assert a.ping("fd00::2")
    assert not a.dials(b, 80, "fd00::2")
    assert says(a, b, 5010)
    assert not says(a, b, 5011)
    c = node.guest("c", "n1", "10.0.0.3", security_groups=("open",))
    d = node.guest("d", "n1", "10.0.0.4", security_groups=())
    assert node.reconcile() == {}
    assert b.ping("10.0.0.3")  # echo replies belong to the connection
    with c.opened(socket.SOCK_DGRAM) as closed, b.opened(socket.SOCK_DGRAM) as asking:
        closed.bind(("10.0.0.3", 0))
        port = closed.getsockname()[1]
        closed.close()
        asking.connect(("10.0.0.3", port))
        asking.send(b"anybody?")
        with pytest.raises(ConnectionRefusedError):  # so does the ICMP error, which no rule of b lets in
            asking.recv(10)
    assert not d.ping("10.0.0.3")
    assert not c.ping("10.0.0.4")
    node.controller.rules["out"] = (Rule("egress", 4, 6, 80, 81),)
    node.controller.change(a.port.id, security_groups=("out",))
    assert node.reconcile() == {}
    assert a.dials(c, 81)
    assert not a.dials(c, 82)
    assert not says(a, c, 80)


def test_remote_groups_and_prefixes(node: L2Node) -> None:
    a, b = pair(node, ANY4, ANY6, Rule("ingress", 4, remote_group="g"), Rule("ingress", 6, 6, remote_group="g"))
    node.controller.rules["p"] = (ANY4, Rule("ingress", 4, 6, 100, 200, remote_prefix="10.0.0.2/31"))
    c = node.guest("c", "n1", "10.0.0.3", "fd00::3", security_groups=("p",))
    assert node.reconcile() == {}
    assert not a.ping("10.0.0.2")  # nobody is a member as yet: nobody is let in
    node.controller.members["g"] = ("10.0.0.1", "10.0.0.2", "fd00::1", "fd00::2")
    assert node.reconcile() == {}
    assert a.ping("10.0.0.2")
    assert a.dials(b, 8080, "fd00::2")
    assert not a.ping("fd00::2")
    assert not c.ping("10.0.0.2")
    assert b.dials(c, 150)
    assert not a.dials(c, 150)
    assert not b.dials(c, 201)
    node.controller.members["g"] = ("10.0.0.1", "fd00::1")
    assert node.reconcile() == {}
    assert a.dials(b, 80)
    assert not b.dials(a, 80)


def test_a_removed_rule_ends_its_connections(node: L2Node) -> None:
    a, b = pair(node, ANY4, IN_TCP_80, Rule("ingress", 4, 17))
    opened = a.connect(b, 80)
    assert opened
    client, server = opened
    with client, server, a.opened(socket.SOCK_DGRAM) as ask, b.opened(socket.SOCK_DGRAM) as answer:
        ask.bind(("10.0.0.1", 123))
        answer.bind(("10.0.0.2", 123))
        ask.connect(("10.0.0.2", 123))
        answer.connect(("10.0.0.1", 123))
        assert talks(ask, answer)
        node.controller.rules["g"] = (ANY4,)
        begun = time.monotonic()
        assert node.reconcile() == {}
        until(lambda: not talks(client, server), "the end of the TCP connection", 2)
        until(lambda: not talks(ask, answer), "the end of the UDP association", 2)
        assert time.monotonic() - begun < 4.5  # each failed word takes a second to be missed
        server.settimeout(1.0)
        assert not talks(server, client)  # and the other side does not reach out either
        node.controller.rules["g"] = (ANY4, IN_TCP_80)
        assert node.reconcile() == {}
        until(lambda: talks(client, server), "the connection, let through again")
        node.controller.rules["g"] = (ANY4, Rule("ingress", 4, 17))
        assert node.reconcile() == {}
        until(lambda: talks(ask, answer), "the association, let through again")
        node.controller.rules["g"] = (Rule("ingress", 4, 17),)
        assert node.reconcile() == {}
        until(lambda: not talks(ask, answer), "the end, by the sender's rules", 2)


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


def test_fragments_are_judged_as_wholes(node: L2Node) -> None:
    a, b = pair(node, ANY4, ANY6, Rule("ingress", 4, 17, 5000, 5000), Rule("ingress", 6, 17, 5000, 5000), IN_ICMP)
    for address in ("10.0.0.2", "fd00::2"):
        assert says(a, b, 5000, 4000, address)
        assert says(a, b, 5000, 4000, address)
        assert not says(a, b, 5001, 4000, address)
    assert a.ping("10.0.0.2", size=3000)
    datagram = udp("10.0.0.1", "10.0.0.2", 5000, 5001, MARK + bytes(1400 - len(MARK)) + MARK + bytes(100))
    first = ipv4("10.0.0.1", "10.0.0.2", 17, datagram[:1400], 0x2000)
    last = ipv4("10.0.0.1", "10.0.0.2", 17, datagram[1400:], 1400 // 8)
    with b.hearing() as ear:
        a.send(*(frame(b.mac, a.mac, IPV4, one) for one in (first, last, last)))
        a.send(frame(b.mac, a.mac, IPV4, ipv4("10.0.0.1", "10.0.0.2", 17, MARK * 8, 1400 // 8, ident=9)))
        assert ear.frames(1.0, MARK) == []


# ── lies (NET-1) ─────────────────────────────────────────────────────────────────────────────────────────────

GATEWAY, GATEWAY_MAC = "10.0.0.254", "fa:16:3e:ff:ff:fe"
EVERYBODY6, EVERYBODY6_MAC = "ff02::1", "33:33:00:00:00:01"


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
    truth = frame(b.mac, a.mac, IPV4, ipv4(a.ip, b.ip, 17, udp(a.ip, b.ip, 5000, 5000, MARK)))
    hearers = {"b": b, "trusted": trusted, "plain": plain}
    for name, lie in lies(a, b).items():
        with b.hearing() as one, trusted.hearing() as two, plain.hearing() as three:
            a.send(lie, truth)
            assert one.hears(MARK), name  # the truth, which came after
            heard = {who: ear.frames(0.05, MARK) for who, ear in zip(hearers, (one, two, three), strict=True)}
            assert heard == {"b": [], "trusted": [], "plain": []}, name
    with b.hearing() as ear:  # fragments that hide what they are
        hide = udp(a.ip, "255.255.255.255", 67, 68, MARK)
        for at, part, more in ((0, hide[:8], 0x2000), (1, hide[8:], 0)):
            a.send(frame(BROADCAST, a.mac, IPV4, ipv4(a.ip, "255.255.255.255", 17, part + bytes(-len(part) % 8 * (more > 0)), at | more)))
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
