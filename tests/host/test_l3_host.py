"""The L3 agent's real side: routers in namespaces, on a private switch, with guests and an outside."""

import os
import shutil
import socket
import time
import uuid
from collections.abc import Iterator

import msgspec
import pytest

from cumulet.host import netns
from cumulet.host.conntrack import Conntrack
from cumulet.host.netlink import Netlink, Route
from cumulet.host.nft import Nft
from cumulet.neutron.l3 import driver
from cumulet.neutron.l3.driver import KernelRouters
from cumulet.neutron.model import FloatingIp, RouterIntent, RouterPort
from tests.host.private_node import PrivateNode, Talk, dial, private_node, until

pytestmark = [
    pytest.mark.host,
    pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("ovs-vswitchd"), reason="needs root and Open vSwitch"),
]
A, B, OUTSIDE = 1, 2, 9


@pytest.fixture
def node() -> Iterator[PrivateNode]:
    with private_node() as made:
        yield made


class World:
    """Two tenant networks, an outside with one host, and a router between them."""

    def __init__(self, node: PrivateNode) -> None:
        self.node, self.routers = node, KernelRouters(node.config)
        self.a = node.guest("a", A, "fa:16:3e:00:00:0a", {"10.1.0.5/24", "fd01::5/64"}, via="10.1.0.1")
        self.b = node.guest("b", B, "fa:16:3e:00:00:0b", {"10.2.0.5/24"}, via="10.2.0.1")
        self.out = node.guest("o", OUTSIDE, "fa:16:3e:00:00:0f", {"203.0.113.1/24", "fd09::1/64"})
        self.ports = [str(uuid.uuid4()) for _ in range(3)]
        self.intent = RouterIntent(
            id=str(uuid.uuid4()),
            generation=1,
            absent=False,
            external=RouterPort(
                self.ports[2],
                "ext",
                "fa:16:3e:01:00:09",
                ("203.0.113.10/24", "fd09::10/64"),
                1500,
                ("203.0.113.1",),
            ),
            interfaces=(
                RouterPort(self.ports[0], "a", "fa:16:3e:01:00:01", ("10.1.0.1/24", "fd01::1/64"), 1450),
                RouterPort(self.ports[1], "b", "fa:16:3e:01:00:02", ("10.2.0.1/24",), 1450),
            ),
            floating=(FloatingIp("f1", "203.0.113.20", "10.1.0.5"),),
        )

    @property
    def space(self) -> str:
        return f"qrouter-{self.intent.id}"

    def ensure(self, **changes: object) -> float:
        """Change the intent and let the host follow; the seconds to the next announcement."""
        self.intent = msgspec.structs.replace(self.intent, **changes)
        self.routers.look()
        placed = self.routers.ensure(self.intent)
        for port, tag in zip(self.ports, (A, B, OUTSIDE), strict=True):
            if f"tap{port[:11]}" in self.node.ports():
                self.node.tag_port(port, tag)
        assert placed.refused == ()
        return placed.again_seconds

    def remove(self) -> None:
        self.routers.look()
        self.routers.remove(self.intent.id)


@pytest.fixture
def world(node: PrivateNode) -> Iterator[World]:
    made = World(node)
    yield made
    made.remove()


def test_routes_and_translates(world: World) -> None:
    world.ensure()
    with Talk(world.b, "10.2.0.5", 80) as b, Talk(world.out, "203.0.113.1", 80) as out:
        until(lambda: b.caller(world.a, "10.2.0.5", 80) == "10.1.0.5", "the other network by its own address")
        assert out.caller(world.a, "203.0.113.1", 80) == "203.0.113.20"  # its floating IP
        assert out.caller(world.b, "203.0.113.1", 80) == "203.0.113.10"  # all others share the router's
        assert b.caller(world.out, "203.0.113.10", 80) == ""
    with Talk(world.a, "10.1.0.5", 80) as a:
        assert a.caller(world.out, "203.0.113.20", 80) == "203.0.113.1"
        assert a.caller(world.b, "203.0.113.20", 80) == "203.0.113.10"  # hairpin
        assert a.caller(world.a, "203.0.113.20", 80) == "203.0.113.20"  # to itself


def test_the_outside_does_not_reach_what_has_no_floating_ip(world: World) -> None:
    world.ensure()
    via_router(world, world.out)
    with Talk(world.b, "10.2.0.5", 80) as b, Talk(world.a, "fd01::5", 80) as a6:
        assert b.caller(world.out, "10.2.0.5", 80, 0.5) == ""
        assert a6.caller(world.out, "fd01::5", 80) == "fd09::1"  # no NAT in IPv6: security groups are the filter
        world.ensure(snat=False, generation=2)
        assert b.caller(world.out, "10.2.0.5", 80) == "203.0.113.1"
    with Talk(world.out, "203.0.113.1", 80) as out:
        assert out.caller(world.b, "203.0.113.1", 80) == "10.2.0.5"
        assert out.caller(world.a, "203.0.113.1", 80) == "203.0.113.20"


def test_address_scopes_keep_networks_apart(world: World) -> None:
    a, b = world.intent.interfaces
    of_out = msgspec.structs.replace(b, scope_v4="s")
    assert world.intent.external
    external = msgspec.structs.replace(world.intent.external, scope_v4="s")
    via_router(world, world.out)
    world.ensure(external=external, interfaces=(msgspec.structs.replace(a, scope_v4="t"), of_out))
    with Talk(world.b, "10.2.0.5", 80) as inner, Talk(world.out, "203.0.113.1", 80) as out:
        until(lambda: inner.caller(world.out, "10.2.0.5", 80) == "203.0.113.1", "in by its own address")
        assert out.caller(world.b, "203.0.113.1", 80) == "10.2.0.5"  # out, too
        assert out.caller(world.a, "203.0.113.1", 80) == "203.0.113.20"
        assert inner.caller(world.a, "10.2.0.5", 80, 0.5) == ""
        world.ensure(interfaces=(a, b), external=msgspec.structs.replace(external, scope_v4=""), generation=2)
        assert inner.caller(world.a, "10.2.0.5", 80) == "10.1.0.5"
        assert inner.caller(world.out, "10.2.0.5", 80, 0.5) == ""


def via_router(world: World, space: str) -> None:
    """The outside knows a way to the tenants' addresses."""
    with netns.enter(space), Netlink() as link:
        link.ensure_route(Route("10.0.0.0/8", "eth0", "203.0.113.10"))
        link.ensure_route(Route("fd01::/64", "eth0", "fd09::10"))
    with netns.enter(world.a), Netlink() as link:
        link.ensure_route(Route("::/0", "eth0", "fd01::1"))


def test_connections_end_with_their_floating_ip(world: World) -> None:
    world.ensure()
    with Talk(world.a, "10.1.0.5", 22) as a, Talk(world.out, "203.0.113.1", 80) as out:
        until(lambda: a.caller(world.out, "203.0.113.20", 22) == "203.0.113.1", "the floating IP")
        inward, outward = dial(world.out, "203.0.113.20", 22), dial(world.a, "203.0.113.1", 80)
        other = dial(world.b, "203.0.113.1", 80)
        with inward, outward, other, a.accept() as shell, out.accept() as one, out.accept() as two:
            assert alive(inward, shell)
            assert alive(outward, one)
            world.ensure(floating=(), generation=2)
            assert not alive(inward, shell)
            assert not alive(outward, one)
            assert alive(other, two)
            assert a.caller(world.out, "203.0.113.20", 22, 0.5) == ""
            assert out.caller(world.a, "203.0.113.1", 80) == "203.0.113.10"


def test_a_floating_ip_moves(world: World) -> None:
    world.ensure()
    with Talk(world.a, "10.1.0.5", 22) as a, Talk(world.b, "10.2.0.5", 22) as b:
        until(lambda: a.caller(world.out, "203.0.113.20", 22) == "203.0.113.1", "the floating IP")
        with dial(world.out, "203.0.113.20", 22) as inward, a.accept() as shell:
            world.ensure(floating=(FloatingIp("f1", "203.0.113.20", "10.2.0.5"),), generation=2)
            assert not alive(inward, shell)
            assert b.caller(world.out, "203.0.113.20", 22) == "203.0.113.1"


def alive(one: socket.socket, other: socket.socket) -> bool:
    """Whether a byte goes through within half a second."""
    other.settimeout(0.5)
    try:
        one.send(b"x")
        return other.recv(1) == b"x"
    except OSError:
        return False


def test_repeats_nothing_and_mends_what_is_broken(world: World) -> None:
    assert world.ensure() == driver.PAUSES[0]
    assert world.ensure() == driver.PAUSES[1]
    assert world.ensure() == 0.0
    assert world.ensure() == 0.0
    before = world.node.ovsdb.look()
    assert world.ensure() == 0.0
    assert world.node.ovsdb.look() == before
    with netns.enter(world.space), Netlink() as link, Nft() as nft:
        link.ensure_addresses(f"qg-{world.ports[2][:11]}", {"203.0.113.10/24"})
        assert link.delete_route(Route("0.0.0.0/0", f"qg-{world.ports[2][:11]}", "203.0.113.1"))
        nft.delete_table("inet", "cumulet")
    assert world.ensure() == driver.PAUSES[0]
    with Talk(world.out, "203.0.113.1", 80) as out:
        assert out.caller(world.a, "203.0.113.1", 80) == "203.0.113.20"
    netns.delete(world.space)
    world.ensure()
    with Talk(world.out, "203.0.113.1", 80) as out:
        until(lambda: out.caller(world.a, "203.0.113.1", 80) == "203.0.113.20", "the router again")


def test_addresses_are_announced(world: World) -> None:
    world.ensure()
    with Talk(world.a, "10.1.0.5", 80) as a:
        until(lambda: a.caller(world.out, "203.0.113.20", 80) != "", "the floating IP")
        world.remove()
        assert world.intent.external
        external = msgspec.structs.replace(world.intent.external, mac="fa:16:3e:01:00:77")
        world.ensure(external=external, generation=2)
        world.ensure()  # the second announcement: the port is wired now
        assert a.caller(world.out, "203.0.113.20", 80, 1.0) == "203.0.113.1"  # the outside had the old MAC


def test_extra_routes_and_switched_off(world: World) -> None:
    world.ensure(routes=(("10.77.0.0/16", "10.2.0.5"),))
    with netns.enter(world.b), Netlink() as link:
        link.ensure_addresses("lo", {"10.77.0.1/32"}, exact=False)
    with Talk(world.b, "10.77.0.1", 80) as b:
        until(lambda: b.caller(world.a, "10.77.0.1", 80) == "10.1.0.5", "the extra route")
        world.ensure(admin_up=False, generation=2)
        assert b.caller(world.a, "10.77.0.1", 80, 0.3) == ""
        world.ensure(admin_up=True, generation=3)
        assert b.caller(world.a, "10.77.0.1", 80) == "10.1.0.5"
        world.ensure(routes=(), generation=4)
        assert b.caller(world.a, "10.77.0.1", 80, 0.3) == ""


def test_interfaces_go_and_nothing_is_left(world: World) -> None:
    world.ensure()
    assert len(world.node.ports()) == 3
    world.ensure(external=None, floating=(), interfaces=world.intent.interfaces[:1], generation=2)
    assert world.node.ports() == {f"tap{world.ports[0][:11]}"}
    with netns.enter(world.space), Netlink() as link:
        assert link.routes() == set()
    other = msgspec.structs.replace(world.intent, id=str(uuid.uuid4()), interfaces=())
    world.routers.ensure(other)
    assert world.routers.look() == {world.intent.id, other.id}
    driver.remove_all(world.node.config)
    assert world.routers.look() == frozenset()
    assert world.node.ports() == set()
    assert not netns.exists(world.space)


def test_a_flow_is_ended_by_its_name(world: World) -> None:
    world.ensure()
    with Talk(world.out, "203.0.113.1", 80) as out:
        until(lambda: out.caller(world.a, "203.0.113.1", 80) != "", "the outside")
    with netns.enter(world.space), Conntrack() as conntrack:
        found = [one for one in conntrack.connections() if one.source == "10.1.0.5"]
        assert {(one.destination, one.reply_source, one.reply_destination) for one in found} == {
            ("203.0.113.1", "203.0.113.1", "203.0.113.20")
        }
        assert conntrack.end(found[0])
        assert not conntrack.end(found[0])
        assert len([one for one in conntrack.connections() if one.source == "10.1.0.5"]) == len(found) - 1


def test_time_to_set_up(world: World) -> None:
    started = time.perf_counter()
    world.routers.look()
    world.routers.ensure(world.intent)
    made = time.perf_counter() - started
    for _ in range(3):
        world.routers.ensure(world.intent)
    started = time.perf_counter()
    world.routers.look()
    world.routers.ensure(world.intent)
    print(
        f"router of three ports: made in {made * 1000:.1f} ms, seen to be right in "
        f"{(time.perf_counter() - started) * 1000:.1f} ms"
    )
