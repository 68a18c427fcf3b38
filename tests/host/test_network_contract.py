"""What the DHCP and the L3 agent may rely on: the simulated hosts are held to what the kernel does."""

import os
import shutil
import uuid
from collections.abc import Iterator

import pytest
from msgspec.structs import replace

from cumulet.neutron.l3.plan import Hop
from cumulet.neutron.model import (
    Advertised,
    DhcpIntent,
    FloatingIp,
    Lease,
    RouterIntent,
    RouterPort,
    Subnet,
    device_name,
)
from tests.host.network_rig import DhcpRig, DnsmasqRig, KernelRouterRig, RouterRig, Seen, SimDhcpRig, SimRouterRig
from tests.host.private_node import PrivateNode, private_node

SHARED, METADATA = "fe80::a9fe:a9fe/64", "169.254.169.254/32"
real = pytest.param("real", marks=pytest.mark.host)


@pytest.fixture(scope="module")
def node() -> Iterator[PrivateNode]:
    if os.geteuid() != 0 or not all(shutil.which(tool) for tool in ("ovs-vswitchd", "dnsmasq")):
        pytest.skip("needs root, Open vSwitch and dnsmasq")
    with private_node() as made:
        yield made


@pytest.fixture(params=["sim", real])
def dhcp(request: pytest.FixtureRequest) -> Iterator[DhcpRig]:
    rig: DhcpRig = SimDhcpRig() if request.param == "sim" else DnsmasqRig(request.getfixturevalue("node"))
    yield rig
    rig.close()


@pytest.fixture(params=["sim", real])
def routers(request: pytest.FixtureRequest) -> Iterator[RouterRig]:
    rig: RouterRig = SimRouterRig() if request.param == "sim" else KernelRouterRig(request.getfixturevalue("node"))
    yield rig
    rig.close()


# ── DHCP ─────────────────────────────────────────────────────────────────────────────────────────────────────


def a_network(number: int = 1) -> DhcpIntent:
    return DhcpIntent(
        network_id=str(uuid.uuid4()),
        generation=1,
        absent=False,
        port_id=str(uuid.uuid4()),
        mac=f"fa:16:3e:00:{number:02x}:02",
        ips=(f"10.{number}.0.2/24",),
        mtu=1450,
        domain="cloud.example",
        subnets=(Subnet("s", f"10.{number}.0.0/24", 4, True, f"10.{number}.0.1"),),
        leases=(Lease("p", f"fa:16:3e:00:{number:02x}:05", (f"10.{number}.0.5",), "vm"),),
    )


def serve(rig: DhcpRig, intent: DhcpIntent, *refused: str) -> None:
    """Ensured, and again by another agent: what is seen is what is wanted, and the repeat changes nothing."""
    rig.host.look()
    assert rig.host.ensure(intent) == refused
    mark = rig.mark()
    rig.restart_agent()
    assert intent.network_id in rig.host.look()
    for _ in range(2):
        assert rig.host.ensure(intent) == refused
        assert rig.mark() == mark
    wanted = Seen(intent.mac, intent.mtu, frozenset({*intent.ips, METADATA, SHARED}), True)
    assert rig.devices(intent.network_id) == {device_name(intent.port_id): wanted}
    assert rig.argument(intent.network_id, "--dhcp-leasefile=")


def test_a_network_is_served_and_ended(dhcp: DhcpRig) -> None:
    intent = a_network()
    assert dhcp.host.look() == frozenset()
    assert dhcp.devices(intent.network_id) == {}
    serve(dhcp, intent)
    assert dhcp.on_switch() == {device_name(intent.port_id)}
    for _ in range(2):
        dhcp.host.remove(intent.network_id)
        assert dhcp.host.look() == frozenset()
        assert dhcp.devices(intent.network_id) == {}
        assert dhcp.on_switch() == set()
    serve(dhcp, intent)  # and back again


def test_leases_change_and_dnsmasq_reads_them(dhcp: DhcpRig) -> None:
    intent = a_network()
    serve(dhcp, intent)
    before = dhcp.argument(intent.network_id, "--")
    assert dhcp.files(intent.network_id)["hosts"] == "fa:16:3e:00:01:05,vm.cloud.example,10.1.0.5\n"
    more = Lease("q", "fa:16:3e:00:01:06", ("10.1.0.6",), "other", (("209", "x", 4),))
    serve(dhcp, replace(intent, leases=(more,), generation=2))
    files = dhcp.files(intent.network_id)
    assert files["hosts"] == "fa:16:3e:00:01:06,set:port-q,other.cloud.example,10.1.0.6\n"
    assert files["names"] == "10.1.0.6\tother.cloud.example other\n"
    assert "tag:port-q,209,x\n" in files["options"]
    assert dhcp.argument(intent.network_id, "--") == before
    serve(dhcp, replace(intent, leases=(), generation=3))
    assert dhcp.files(intent.network_id)["hosts"] == ""


def test_addresses_subnets_and_mtu_change(dhcp: DhcpRig) -> None:
    intent = a_network()
    serve(dhcp, intent)
    second = Subnet("t", "10.77.0.0/24", 4, True, "10.77.0.1")
    wider = replace(intent, ips=(*intent.ips, "10.77.0.2/24"), subnets=(*intent.subnets, second), mtu=1400)
    serve(dhcp, wider)
    assert len(dhcp.argument(intent.network_id, "--dhcp-range=")) == 2
    serve(dhcp, replace(wider, ips=("10.77.0.2/24",), subnets=(second,)))
    assert len(dhcp.argument(intent.network_id, "--dhcp-range=")) == 1


def test_a_new_port_takes_the_place_of_the_old(dhcp: DhcpRig) -> None:
    intent = a_network()
    serve(dhcp, intent)
    moved = replace(intent, port_id=str(uuid.uuid4()), mac="fa:16:3e:00:01:12", ips=("10.1.0.3/24",))
    serve(dhcp, moved)
    assert dhcp.on_switch() == {device_name(moved.port_id)}


def test_a_dead_server_comes_back(dhcp: DhcpRig) -> None:
    intent = a_network()
    serve(dhcp, intent)
    dhcp.kill(intent.network_id)
    assert dhcp.argument(intent.network_id, "--") == []
    assert intent.network_id in dhcp.host.look()
    serve(dhcp, intent)


def test_what_is_refused_spoils_nothing(dhcp: DhcpRig) -> None:
    intent = a_network()
    bad = Lease("q", "fa:16:3e:00:01:06", ("10.1.0.6",), "vm\nevil")
    serve(dhcp, replace(intent, leases=(*intent.leases, bad)), "port q: its name is not a host name")
    assert "evil" not in str(dhcp.files(intent.network_id))


def test_networks_do_not_touch_each_other_or_strangers(dhcp: DhcpRig) -> None:
    stranger = dhcp.make_stranger()
    one, other = a_network(1), a_network(2)
    serve(dhcp, one)
    serve(dhcp, other)
    assert dhcp.host.look() == {one.network_id, other.network_id}
    before = dhcp.devices(other.network_id), dhcp.files(other.network_id), dhcp.argument(other.network_id, "--")
    serve(dhcp, replace(one, leases=(), mtu=1300))
    for key in (one.network_id, str(uuid.uuid4()), str(uuid.uuid4())):
        dhcp.host.remove(key)
    after = dhcp.devices(other.network_id), dhcp.files(other.network_id), dhcp.argument(other.network_id, "--")
    assert after == before
    assert dhcp.host.look() == {other.network_id}
    assert dhcp.on_switch() == {stranger, device_name(other.port_id)}
    assert dhcp.is_whole(stranger)


# ── routers ──────────────────────────────────────────────────────────────────────────────────────────────────


def a_router(number: int = 1) -> RouterIntent:
    ids = [str(uuid.uuid4()) for _ in range(3)]
    inside = (f"10.{number}.0.1/24", f"fd{number:02}::1/64")
    outside = (f"203.0.{number}.10/24", f"fd09:{number}::10/64")
    return RouterIntent(
        id=str(uuid.uuid4()),
        generation=1,
        absent=False,
        external=RouterPort(ids[0], "o", f"fa:16:3e:01:{number:02x}:09", outside, 1500, (f"203.0.{number}.1",)),
        interfaces=(
            RouterPort(ids[1], "a", f"fa:16:3e:01:{number:02x}:01", inside, 1450),
            RouterPort(ids[2], "b", f"fa:16:3e:01:{number:02x}:02", (f"10.{number + 100}.0.1/24",), 1450),
        ),
        floating=(FloatingIp("f", f"203.0.{number}.20", f"10.{number}.0.5"),),
    )


def ports(intent: RouterIntent) -> list[RouterPort]:
    return [*intent.interfaces, *([intent.external] if intent.external else [])]


def route(rig: RouterRig, intent: RouterIntent) -> None:
    """Ensured until all news is told, and again by another agent: as wanted, and the repeat changes nothing."""
    rig.host.look()
    pauses: list[float] = []
    while again := rig.host.ensure(intent).again_seconds:
        assert len(pauses) < 10
        pauses.append(again)
        rig.restart_agent()
        rig.host.look()
    mark = rig.mark()
    assert intent.id in rig.host.look()
    for _ in range(2):
        placed = rig.host.ensure(intent)
        assert (placed.refused, placed.again_seconds) == ((), 0.0)
        assert rig.mark() == mark
    wanted_floating = [one for one in intent.floating if intent.external and intent.admin_up]
    assert placed.floating == tuple(one.id for one in wanted_floating)
    devices = {}
    for port in ports(intent):
        more = {f"{one.floating}/32" for one in wanted_floating} if port is intent.external else {SHARED}
        devices[device_name(port.id)] = Seen(port.mac, port.mtu, frozenset({*port.ips, *more}), intent.admin_up)
    assert rig.devices(intent.id) == devices
    assert rig.rules(intent.id)


def test_a_router_routes_and_goes(routers: RouterRig) -> None:
    intent = a_router()
    assert routers.host.look() == frozenset()
    route(routers, intent)
    assert routers.on_switch() == {device_name(port.id) for port in ports(intent)}
    assert intent.external
    assert routers.routes(intent.id) == {Hop("0.0.0.0/0", f"qg-{intent.external.id[:11]}", "203.0.1.1")}
    for _ in range(2):
        routers.host.remove(intent.id)
        assert routers.host.look() == frozenset()
        assert routers.devices(intent.id) == {}
        assert routers.on_switch() == set()
    route(routers, intent)  # and back again


def test_news_is_told_three_times(routers: RouterRig) -> None:
    intent = a_router()
    told = []
    for _ in range(4):
        routers.restart_agent()
        routers.host.look()
        told.append(routers.host.ensure(intent).again_seconds)
    assert told == [1.0, 4.0, 0.0, 0.0]
    routers.host.look()
    assert routers.host.ensure(replace(intent, floating=())).again_seconds == 1.0


def test_floating_ips_routes_and_addresses_change(routers: RouterRig) -> None:
    intent = a_router()
    route(routers, intent)
    assert intent.external
    inner, outer = f"qr-{intent.interfaces[1].id[:11]}", f"qg-{intent.external.id[:11]}"
    more = (*intent.floating, FloatingIp("g", "203.0.1.21", "10.101.0.5"))
    route(routers, replace(intent, floating=more, generation=2))
    extra = replace(intent, routes=(("10.200.0.0/16", "10.101.0.9"), ("fd77::/64", "fd01::9")), generation=3)
    route(routers, extra)
    default = Hop("0.0.0.0/0", outer, "203.0.1.1")
    assert routers.routes(intent.id) == {
        default,
        Hop("10.200.0.0/16", inner, "10.101.0.9"),
        Hop("fd77::/64", f"qr-{intent.interfaces[0].id[:11]}", "fd01::9"),
    }
    route(routers, replace(intent, floating=(), generation=4))
    assert routers.routes(intent.id) == {default}
    one, two = intent.interfaces
    changed = (replace(one, ips=("10.1.0.254/24",), mtu=1400), replace(two, mac="fa:16:3e:01:01:77"))
    route(routers, replace(intent, interfaces=changed, generation=5))


def test_interfaces_and_the_gateway_come_and_go(routers: RouterRig) -> None:
    intent = a_router()
    alone = replace(intent, external=None, floating=(), interfaces=intent.interfaces[:1])
    route(routers, alone)
    assert routers.routes(intent.id) == set()
    route(routers, intent)
    route(routers, alone)
    assert routers.on_switch() == {device_name(intent.interfaces[0].id)}
    route(routers, replace(alone, interfaces=()))
    assert routers.on_switch() == set()
    assert routers.host.look() == {intent.id}


def test_switched_off_it_answers_nowhere(routers: RouterRig) -> None:
    intent = a_router()
    route(routers, intent)
    route(routers, replace(intent, admin_up=False))
    assert routers.routes(intent.id) == set()
    route(routers, intent)
    assert len(routers.routes(intent.id)) == 1


def test_what_a_router_cannot_do_is_named_and_left_out(routers: RouterRig) -> None:
    intent = a_router()
    bad = replace(intent, routes=(("10.9.0.0/16", "192.0.2.1"),), floating=(FloatingIp("x", "fd09::5", "fd01::5"),))
    routers.host.look()
    placed = routers.host.ensure(bad)
    assert len(placed.refused) == 2
    assert placed.floating == ()
    assert len(routers.routes(intent.id)) == 1
    route(routers, intent)


def test_routers_do_not_touch_each_other_or_strangers(routers: RouterRig) -> None:
    stranger = routers.make_stranger()
    one, other = a_router(1), a_router(2)
    route(routers, one)
    route(routers, other)
    assert routers.host.look() == {one.id, other.id}
    before = routers.devices(other.id), routers.routes(other.id)
    route(routers, replace(one, interfaces=(), floating=()))
    for key in (one.id, str(uuid.uuid4())):
        routers.host.remove(key)
    assert (routers.devices(other.id), routers.routes(other.id)) == before
    assert routers.host.look() == {other.id}
    assert routers.on_switch() == {stranger, *(device_name(port.id) for port in ports(other))}
    assert routers.is_whole(stranger)


def test_advertisements_begin_change_and_end(routers: RouterRig) -> None:
    intent = a_router()
    one, two = intent.interfaces
    told = replace(one, advertised=(Advertised("s", "fd01::/64", "slaac"),))
    for _ in range(2):
        route(routers, replace(intent, interfaces=(told, two)))
        assert routers.advertises(intent.id, "--dhcp-range=") == [
            "--dhcp-range=set:subnet-s,fd01::,ra-only,64,86400s"
        ]
        routers.kill(intent.id)
        assert routers.advertises(intent.id, "--") == []
    other = replace(one, advertised=(Advertised("s", "fd01::/64", "dhcpv6-stateful"),), metadata_v6=False)
    routers.host.look()
    assert routers.host.ensure(replace(intent, interfaces=(other, two))).refused == ()
    assert SHARED not in routers.devices(intent.id)[device_name(one.id)].addresses
    assert routers.advertises(intent.id, "--dhcp-range=") == ["--dhcp-range=set:subnet-s,fd01::,static,64,86400s"]
    route(routers, intent)
    assert routers.advertises(intent.id, "--") == []
    route(routers, replace(intent, interfaces=(told, two)))
    bad = replace(told, advertised=(*told.advertised, Advertised("t", "fd02::/48", "slaac")))
    assert len(routers.host.ensure(replace(intent, interfaces=(bad, two))).refused) == 1
    assert len(routers.advertises(intent.id, "--dhcp-range=")) == 1
    routers.host.remove(intent.id)
    assert routers.advertises(intent.id, "--") == []
