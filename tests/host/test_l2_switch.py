"""The real switch under the real agent, with packets: what a port may say and hear, and what it may not.

Everything happens in namespaces of its own, with a private Open vSwitch.
"""

import os
import shutil
import socket
import time
from collections.abc import Iterator

import pytest

from cumulet.neutron.model import Rule
from tests.host.l2_frames import ARP, BROADCAST, IPV4, MARK, arp, frame, ipv4, udp
from tests.host.l2_rig import OPEN, Ear, Guest, L2Node, l2_node, pair, says, talks, until
from tests.neutron.l2_controller import ANY4, ANY6

pytestmark = [
    pytest.mark.host,
    pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("ovs-vswitchd"), reason="needs root and Open vSwitch"),
]
IN_TCP_80 = Rule("ingress", 4, 6, 80, 80)


@pytest.fixture
def node() -> Iterator[L2Node]:
    with l2_node() as made:
        yield made


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
    until(lambda: not says(a, c, 80), "the new rules")
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
    until(lambda: a.ping("10.0.0.2"), "a member")  # what the datapath remembers lasts half a second
    assert a.dials(b, 8080, "fd00::2")
    assert not a.ping("fd00::2")
    assert not c.ping("10.0.0.2")
    assert b.dials(c, 150)
    assert not a.dials(c, 150)
    assert not b.dials(c, 201)
    node.controller.members["g"] = ("10.0.0.1", "fd00::1")
    assert node.reconcile() == {}
    until(lambda: not b.dials(a, 80), "the end of a membership", 4)
    assert a.dials(b, 80)


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


# ── networks apart ───────────────────────────────────────────────────────────────────────────────────────────


def test_networks_are_apart_and_strangers_frames_unseen(node: L2Node) -> None:
    """The same addresses on two networks; nobody sees what is for somebody else (NET-14)."""
    node.controller.rules["open"] = OPEN
    guests = {}
    for net, vni in (("n1", 5001), ("n2", 5002)):
        node.network(net, vni)
        for number in (1, 2, 3):
            name = f"{net}-{number}"
            mac = f"fa:16:3e:00:00:0{number}"
            guests[name] = node.guest(name, net, f"10.0.0.{number}", mac=mac, security_groups=("open",))
    dhcp = node.guest("dhcp", "n2", "10.0.0.9", device_owner="network:dhcp")
    plain = node.guest("plain", "n2", "10.0.0.8", port_security=False)
    assert node.reconcile() == {}
    a, b, c = (guests[f"n1-{number}"] for number in (1, 2, 3))
    others = [guests[f"n2-{number}"] for number in (1, 2, 3)] + [dhcp, plain]

    def heard(*sent: bytes) -> list[bool]:
        with b.hearing() as one, c.hearing() as two:
            ears = [other.hearing() for other in others]
            opened = [ear.__enter__() for ear in ears]
            a.send(*sent)
            found = [bool(one.frames(0.2, MARK)), bool(two.frames(0.05, MARK))]
            found.append(any(ear.frames(0.05, MARK) for ear in opened))
            for ear in ears:
                ear.__exit__(None, None, None)
        return found

    def datagram(to: str, mac: str) -> bytes:
        return frame(mac, a.mac, IPV4, ipv4(a.ip, to, 17, udp(a.ip, to, 5000, 5000, MARK)))

    assert heard(datagram(b.ip, b.mac)) == [True, False, False]
    assert heard(datagram("10.0.0.55", "fa:16:3e:55:55:55")) == [False, False, False]  # nobody's address
    assert heard(datagram("255.255.255.255", BROADCAST)) == [True, True, False]
    assert heard(datagram("224.0.0.5", "01:00:5e:00:00:05")) == [True, True, False]
    assert heard(frame(BROADCAST, a.mac, ARP, arp(1, a.mac, a.ip, BROADCAST, "10.0.0.9") + MARK)) == [
        True,
        True,
        False,
    ]
    assert not a.ping("10.0.0.9")
    assert a.dials(b, 80)
    assert others[0].ping("10.0.0.9")


def reach(guest: Guest, sent: bytes, ear: Ear) -> bool:
    guest.send(sent)
    return ear.hears(MARK, 0.2)


def test_stations_behind_an_open_port_are_found(node: L2Node) -> None:
    """A nested machine behind a port without port security answers; when it moves, so do its frames."""
    net = node.network("n1", 5001)
    node.controller.rules["open"] = OPEN
    a = node.guest("a", net, "10.0.0.1", security_groups=("open",))
    one, two = (node.guest(name, net, f"10.0.0.{n}", port_security=False) for n, name in ((2, "one"), (3, "two")))
    assert node.reconcile() == {}
    nested = "fa:16:3e:99:00:01"
    to_nested = frame(nested, a.mac, IPV4, ipv4(a.ip, "10.0.0.7", 17, udp(a.ip, "10.0.0.7", 1, 2, MARK)))
    for here, there in ((one, two), (two, one)):
        with here.hearing() as ear, there.hearing() as other:
            a.send(to_nested)
            assert not ear.hears(MARK, 0.2) or here is two
            here.send(frame(BROADCAST, nested, ARP, arp(1, nested, "10.0.0.7", BROADCAST, "10.0.0.7")))

            until(lambda ear=ear: reach(a, to_nested, ear), "the nested station", 5)  # type: ignore[misc]
            other.frames(0.1)
            other.heard.clear()
            a.send(to_nested)
            assert not other.hears(MARK, 0.2)


def test_allowed_pairs(node: L2Node) -> None:
    """An address that two ports share, with a hardware address of its own (VRRP)."""
    net, virtual = node.network("n1", 5001), "00:00:5e:00:01:07"
    node.controller.rules["open"] = OPEN
    pairs = ((virtual, "10.0.0.100/32"), ("", "10.9.0.0/16"))
    a, b = (
        node.guest(name, net, f"10.0.0.{n}", allowed_pairs=pairs, security_groups=("open",))
        for n, name in ((1, "a"), (2, "b"))
    )
    c = node.guest("c", net, "10.0.0.3", security_groups=("open",))
    assert node.reconcile() == {}
    for source, ip, passes in (
        (virtual, "10.0.0.100", True),
        (virtual, "10.0.0.1", False),
        (a.mac, "10.9.7.7", True),
        (a.mac, "10.0.0.100", False),
        (a.mac, "10.8.0.1", False),
    ):
        with c.hearing() as ear:
            a.send(frame(c.mac, source, IPV4, ipv4(ip, c.ip, 17, udp(ip, c.ip, 1, 2, MARK))))
            assert ear.hears(MARK, 0.5) == passes, (source, ip)
    with a.hearing() as one, b.hearing() as two:
        c.send(frame(virtual, c.mac, IPV4, ipv4(c.ip, "10.0.0.100", 17, udp(c.ip, "10.0.0.100", 1, 2, MARK))))
        assert one.hears(MARK)
        assert two.hears(MARK)
