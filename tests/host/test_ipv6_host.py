"""IPv6 as guests meet it: router advertisements, their own addresses, DHCPv6 and metadata, on a private switch."""

import http.client
import os
import secrets
import shutil
import socket
import struct
import uuid
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from msgspec.structs import replace

from cumulet.host import netns, process
from cumulet.host.interface import link_local
from cumulet.host.netlink import Netlink
from cumulet.neutron import ipam
from cumulet.neutron.dhcp.driver import DnsmasqHost
from cumulet.neutron.l3.driver import KernelRouters
from cumulet.neutron.metadata.agent import namespace
from cumulet.neutron.metadata.proxy import Place, Proxy, Upstream
from cumulet.neutron.metadata.sockets import NamespaceSockets
from cumulet.neutron.model import (
    METADATA_V6,
    Advertised,
    DhcpIntent,
    Lease,
    Owner,
    RouterIntent,
    RouterPort,
    Subnet,
)
from tests.host.private_node import PrivateNode, Talk, private_node, until
from tests.neutron.metadata_world import SECRET, FakeNova

pytestmark = [
    pytest.mark.host,
    pytest.mark.skipif(
        os.geteuid() != 0 or not all(shutil.which(tool) for tool in ("ovs-vswitchd", "dnsmasq")),
        reason="needs root, Open vSwitch and dnsmasq",
    ),
]
A, B = 1, 2
MAC_A, MAC_B, ROUTER_MAC = "fa:16:3e:00:00:0a", "fa:16:3e:00:00:0b", "fa:16:3e:01:00:01"
GUEST = ipam.eui64("fd01::/64", MAC_A)
MANAGED, OTHER, ON_LINK_AUTONOMOUS, ON_LINK = 0x80, 0x40, 0xC0, 0x80
PREFIX, MTU, RDNSS = 3, 5, 25


@pytest.fixture
def node() -> Iterator[PrivateNode]:
    with private_node() as made:
        yield made


@dataclass
class Advertisement:
    source: str
    flags: int
    seconds: int
    prefixes: dict[str, int]  # flags by prefix
    mtu: int = 0
    dns: tuple[str, ...] = ()


class World:
    """Two tenant networks with guests that listen to advertisements, and a router between them."""

    def __init__(self, node: PrivateNode) -> None:
        self.node, self.routers = node, KernelRouters(node.config)
        self.a, self.b = node.guest("a", A, MAC_A, {"10.1.0.5/24"}), node.guest("b", B, MAC_B)
        self.ports = [str(uuid.uuid4()) for _ in range(2)]
        self.intent = RouterIntent(
            id=str(uuid.uuid4()),
            generation=1,
            absent=False,
            interfaces=(
                RouterPort(
                    self.ports[0], "a", ROUTER_MAC, ("10.1.0.1/24", "fd01::1/64"), 1432,
                    advertised=(Advertised("s1", "fd01::/64", "slaac", ("2001:db8::53",)),),
                ),
                RouterPort(
                    self.ports[1], "b", "fa:16:3e:01:00:02", ("fd02::1/64",), 1432,
                    advertised=(Advertised("s2", "fd02::/64", "slaac"),),
                ),
            ),
        )  # fmt: skip

    def ensure(self, **changes: object) -> tuple[str, ...]:
        self.intent = replace(self.intent, **changes)
        self.routers.look()
        refused = self.routers.ensure(self.intent).refused
        for port, tag in zip(self.ports, (A, B), strict=True):
            if f"tap{port[:11]}" in self.node.ports():
                self.node.tag_port(port, tag)
        return refused

    def advertise(self, *told: Advertised) -> tuple[str, ...]:
        """Let the first interface advertise this."""
        first, second = self.intent.interfaces
        return self.ensure(interfaces=(replace(first, advertised=told), second))


@pytest.fixture
def world(node: PrivateNode) -> Iterator[World]:
    made = World(node)
    yield made
    made.routers.remove(made.intent.id)


def solicit(space: str) -> Advertisement | None:
    """Ask for routers as a guest does."""
    with netns.enter(space):
        raw = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
        index = socket.if_nametoindex("eth0")
    with raw:
        raw.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
        raw.settimeout(1.0)
        try:
            raw.sendto(struct.pack("!BBHI", 133, 0, 0, 0), ("ff02::2", 0, 0, index))
            while True:
                data, peer = raw.recvfrom(2048)
                if data[0] == 134:
                    return parse(data, str(peer[0]).partition("%")[0])
        except OSError:
            return None


def parse(data: bytes, source: str) -> Advertisement:
    found = Advertisement(source, data[5], int.from_bytes(data[6:8]), {})
    rest = data[16:]
    while rest:
        kind, size = rest[0], rest[1] * 8
        if kind == PREFIX:
            found.prefixes[f"{socket.inet_ntop(socket.AF_INET6, rest[16:32])}/{rest[2]}"] = rest[3]
        elif kind == MTU:
            found.mtu = int.from_bytes(rest[4:8])
        elif kind == RDNSS:
            found.dns += tuple(socket.inet_ntop(socket.AF_INET6, rest[at : at + 16]) for at in range(8, size, 16))
        rest = rest[size:]
    return found


def heard(space: str) -> Advertisement:
    found: list[Advertisement] = []

    def hear() -> bool:
        found.extend(filter(None, [solicit(space)]))
        return bool(found)

    until(hear, "a router advertisement")
    return found[-1]


def addresses(space: str) -> set[str]:
    with netns.enter(space), Netlink() as link:
        return link.addresses("eth0")


def test_guests_make_their_addresses_and_reach_each_other(world: World) -> None:
    assert world.ensure() == ()
    other = ipam.eui64("fd02::/64", MAC_B)
    until(lambda: f"{GUEST}/64" in addresses(world.a) and f"{other}/64" in addresses(world.b), "both addresses")
    with Talk(world.b, "::", 80) as b:
        until(lambda: b.caller(world.a, other, 80) == GUEST, "the other network")
    with netns.enter(world.a), Netlink() as link:
        gateways = {route.via for route in link.routes(kernel=True) if route.destination == "::/0"}
    assert gateways == {link_local(ROUTER_MAC).partition("/")[0]}


def test_what_is_advertised(world: World) -> None:
    world.ensure()
    first = heard(world.a)
    assert first.source == link_local(ROUTER_MAC).partition("/")[0]  # never the address that routers share
    assert (first.flags & (MANAGED | OTHER), first.seconds, first.mtu) == (0, 1800, 1432)
    assert first.prefixes == {"fd01::/64": ON_LINK_AUTONOMOUS}
    assert first.dns == ("2001:db8::53",)
    for mode, flags, prefix in (
        ("dhcpv6-stateless", OTHER, ON_LINK_AUTONOMOUS),
        ("dhcpv6-stateful", MANAGED | OTHER, ON_LINK),
    ):
        assert world.advertise(Advertised("s1", "fd01::/64", mode)) == ()
        said = heard(world.a)
        assert (said.flags & (MANAGED | OTHER), said.prefixes) == (flags, {"fd01::/64": prefix})
    world.advertise()
    assert solicit(world.a) is None
    assert heard(world.b).prefixes == {"fd02::/64": ON_LINK_AUTONOMOUS}


def test_a_bad_subnet_breaks_only_itself(world: World) -> None:
    first = world.intent.interfaces[0]
    bad = (
        Advertised("wide", "fd03::/48", "dhcpv6-stateful"),
        Advertised("narrow", "fd04::/80", "slaac"),
        Advertised("mode", "fd05::/64", "magic"),
        Advertised("text", "fd06::1\n--port=53/64", "slaac"),
        Advertised("x,ra-only\n", "fd07::/64", "slaac"),
        Advertised("away", "fd08::/64", "slaac"),
    )
    ips = (*first.ips, "fd03::1/48", "fd04::1/80", "fd05::1/64", "fd07::1/64")
    told = replace(first, ips=ips, advertised=(*bad, *first.advertised))
    refused = world.ensure(interfaces=(told, world.intent.interfaces[1]))
    assert len(refused) == len(bad)
    assert heard(world.a).prefixes == {"fd01::/64": ON_LINK_AUTONOMOUS}
    with Talk(f"qrouter-{world.intent.id}", "10.1.0.1", 81) as router:
        until(lambda: router.caller(world.a, "10.1.0.1", 81) == "10.1.0.5", "IPv4")


def test_it_comes_back_and_goes_with_its_router(world: World) -> None:
    world.ensure()
    heard(world.a)
    directory = str(world.node.config.run / "ra" / world.intent.id)
    before = process.find(f"{directory}/pid", directory)
    world.ensure()
    assert before
    assert process.find(f"{directory}/pid", directory) == before
    os.kill(before.pid, 9)
    assert process.wait_ended(before, 5)
    world.ensure()
    heard(world.a)
    world.ensure(admin_up=False)
    assert not (world.node.config.run / "ra" / world.intent.id).exists()
    world.ensure(admin_up=True)
    heard(world.a)
    world.routers.remove(world.intent.id)
    assert not (world.node.config.run / "ra" / world.intent.id).exists()
    assert solicit(world.a) is None


# ── DHCPv6 ───────────────────────────────────────────────────────────────────────────────────────────────────

CLIENT_ID, SERVER_ID, IA_NA, IA_ADDRESS, WANTED_OPTIONS, DNS, DOMAINS = 1, 2, 3, 5, 6, 23, 24
SOLICIT, ADVERTISE, REQUEST, REPLY, INFORMATION = 1, 2, 3, 7, 11


def option(code: int, value: bytes) -> bytes:
    return struct.pack("!HH", code, len(value)) + value


def options(data: bytes) -> dict[int, bytes]:
    found = {}
    while data:
        code, size = struct.unpack("!HH", data[:4])
        found[code], data = data[4 : 4 + size], data[4 + size :]
    return found


class Client:
    """A DHCPv6 client in a guest."""

    def __init__(self, space: str, mac: str) -> None:
        self._duid = struct.pack("!HH", 3, 1) + bytes.fromhex(mac.replace(":", ""))
        with netns.enter(space):
            self._socket = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"eth0\0")
            self._index = socket.if_nametoindex("eth0")
        self._socket.bind(("::", 546))
        self._socket.settimeout(1.0)

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def ask(self, kind: int, *more: bytes) -> tuple[int, dict[int, bytes]]:
        """The answer's kind and options; 0 if there is none."""
        number = secrets.token_bytes(3)
        asked = option(CLIENT_ID, self._duid) + option(WANTED_OPTIONS, struct.pack("!HH", DNS, DOMAINS))
        message = bytes((kind,)) + number + asked + option(8, bytes(2)) + b"".join(more)
        for _ in range(5):
            try:
                self._socket.sendto(message, ("ff02::1:2", 547, 0, self._index))
                answer = self._socket.recv(2048)
            except OSError:
                continue
            if answer[1:4] == number:
                return answer[0], options(answer[4:])
        return 0, {}

    def lease(self) -> str:
        """The address that it is given; empty if none."""
        identity = option(IA_NA, struct.pack("!III", 1, 0, 0))
        kind, offered = self.ask(SOLICIT, identity)
        if kind != ADVERTISE or IA_ADDRESS not in options(offered.get(IA_NA, b"")[12:]):
            return ""
        kind, given = self.ask(REQUEST, identity, option(SERVER_ID, offered[SERVER_ID]))
        assert kind == REPLY
        return socket.inet_ntop(socket.AF_INET6, options(given[IA_NA][12:])[IA_ADDRESS][:16])


def a_network(mode: str, **more: object) -> DhcpIntent:
    intent = DhcpIntent(
        network_id=str(uuid.uuid4()),
        generation=1,
        absent=False,
        port_id=str(uuid.uuid4()),
        mac="fa:16:3e:00:00:02",
        ips=("10.1.0.2/24", "fd01::2/64"),
        mtu=1432,
        domain="cloud.example",
        subnets=(
            Subnet("s4", "10.1.0.0/24", 4, True, "10.1.0.1"),
            Subnet("s6", "fd01::/64", 6, True, "fd01::1", ("2001:db8::53",), (), mode, mode),
        ),
        leases=(Lease("p", MAC_A, ("10.1.0.5", "fd01::77"), "vm"),),
    )
    return replace(intent, **more)


@pytest.fixture
def dhcp(node: PrivateNode) -> Iterator[DnsmasqHost]:
    host = DnsmasqHost(node.config)
    yield host
    for network in host.look():
        host.remove(network)


def serve(node: PrivateNode, host: DnsmasqHost, intent: DhcpIntent) -> tuple[str, ...]:
    host.look()
    refused = host.ensure(intent)
    node.tag_port(intent.port_id, A)
    return refused


def test_addresses_by_dhcpv6(node: PrivateNode, dhcp: DnsmasqHost) -> None:
    a, stranger = node.guest("a", A, MAC_A), node.guest("s", A, "fa:16:3e:00:00:99")
    serve(node, dhcp, a_network("dhcpv6-stateful"))
    with Client(a, MAC_A) as client, Client(stranger, "fa:16:3e:00:00:99") as other:
        until(lambda: client.lease() == "fd01::77", "the port's address")
        assert other.lease() == ""
        _, given = client.ask(INFORMATION)
        assert socket.inet_ntop(socket.AF_INET6, given[DNS]) == "2001:db8::53"
        assert b"cloud\x07example" in given[DOMAINS]
        assert solicit(a) is None  # only routers advertise


def test_only_names_by_stateless_dhcpv6_and_nothing_where_guests_care_for_themselves(
    node: PrivateNode, dhcp: DnsmasqHost
) -> None:
    a = node.guest("a", A, MAC_A)
    serve(node, dhcp, a_network("dhcpv6-stateless", leases=(Lease("p", MAC_A, (GUEST,), "vm"),)))
    with Client(a, MAC_A) as client:
        until(lambda: client.ask(INFORMATION)[0] == REPLY, "an answer")
        _, given = client.ask(INFORMATION)
        assert socket.inet_ntop(socket.AF_INET6, given[DNS]) == "2001:db8::53"
        assert solicit(a) is None
    for network in dhcp.look():
        dhcp.remove(network)
    serve(node, dhcp, a_network("slaac"))
    with Client(a, MAC_A) as client:
        assert client.ask(INFORMATION)[0] == 0


def test_a_bad_subnet_spoils_no_network(node: PrivateNode, dhcp: DnsmasqHost) -> None:
    a = node.guest("a", A, MAC_A)
    intent = a_network("dhcpv6-stateful")
    bad = (Subnet("wide", "fd02::/48", 6, True), Subnet("text", "fd03::/64\n", 6, True))
    refused = serve(node, dhcp, replace(intent, subnets=(*bad, *intent.subnets)))
    assert len(refused) == 2
    with Client(a, MAC_A) as client:
        until(lambda: client.lease() == "fd01::77", "the port's address")


def test_servers_hear_no_routers(world: World, dhcp: DnsmasqHost) -> None:
    """A DHCP server's addresses are what the database says, whatever is advertised on its network."""
    world.ensure()
    intent = a_network("slaac", leases=())
    serve(world.node, dhcp, intent)
    heard(world.a)
    space, device = f"qdhcp-{intent.network_id}", f"ns-{intent.port_id[:11]}"
    with netns.enter(space), Netlink() as link:
        ours = {*intent.ips, "169.254.169.254/32", f"{METADATA_V6}/64", link_local(intent.mac)}
        assert link.addresses(device) == ours


# ── metadata ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_metadata_by_the_link_local_address(world: World, dhcp: DnsmasqHost) -> None:
    nova = FakeNova()
    asked: list[tuple[Place, str]] = []

    def find_owner(place: Place, ip: str) -> Owner:
        asked.append((place, ip))
        return Owner("server", "red")

    proxy = Proxy(find_owner, Upstream("127.0.0.1", nova.port, SECRET))
    proxy.start()
    own = link_local(MAC_A).partition("/")[0]
    try:
        world.ensure()
        intent = a_network("slaac", leases=())
        for place in (Place("router", world.intent.id), Place("network", intent.network_id)):
            if place.kind == "network":  # one place of a network has the address
                first, second = world.intent.interfaces
                world.ensure(interfaces=(replace(first, metadata_v6=False), second))
                serve(world.node, dhcp, intent)
            assert netns.exists(namespace(place))
            assert NamespaceSockets(proxy).listen(place)
            with netns.enter(world.a), Netlink() as link:
                link.flush_neighbours("eth0")
            until(lambda: get(world.a) == b"ami", "metadata")
            assert asked[-1] == (place, own)
    finally:
        proxy.stop()
        nova.close()


def get(space: str) -> bytes:
    with netns.enter(space):
        dialled = socket.socket(socket.AF_INET6, socket.SOCK_STREAM)
        index = socket.if_nametoindex("eth0")
    dialled.settimeout(2)
    guest = http.client.HTTPConnection(METADATA_V6, 80)
    try:
        dialled.connect((METADATA_V6, 80, 0, index))
        guest.sock = dialled
        guest.request("GET", "/latest/meta-data/ami-id")
        return guest.getresponse().read()
    except OSError:
        return b""
    finally:
        dialled.close()
