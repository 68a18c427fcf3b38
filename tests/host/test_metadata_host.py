"""The metadata agent's real side: sockets in namespaces, guests behind routers and on isolated networks."""

import http.client
import os
import shutil
import statistics
import time
import uuid
from collections.abc import Iterator

import pytest

from cumulet.core.reconcile import Loop
from cumulet.host import netns
from cumulet.neutron.l3.driver import KernelRouters
from cumulet.neutron.metadata.agent import MetadataAgent, namespace
from cumulet.neutron.metadata.proxy import Place, Proxy, Upstream
from cumulet.neutron.metadata.sockets import NamespaceSockets
from cumulet.neutron.model import DhcpIntent, Owner, RouterIntent, RouterPort
from tests.host.private_node import PrivateNode, Talk, dial, private_node, until
from tests.neutron.metadata_world import SECRET, FakeNova
from tests.neutron.test_metadata_agent import Server

pytestmark = [
    pytest.mark.host,
    pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("ovs-vswitchd"), reason="needs root and Open vSwitch"),
]
A, B, OUTSIDE = 1, 2, 9


class Node(Server):
    """A controller that knows two guests, and the agent that asks it."""

    def __init__(self, private: PrivateNode) -> None:
        super().__init__()
        self.private, self.nova = private, FakeNova()
        self.networks.clear()
        self.routers.clear()
        self.known: dict[tuple[Place, str], Owner] = {}
        self.proxy = Proxy(
            lambda place, ip: self.known.get((place, ip), Owner()), Upstream("127.0.0.1", self.nova.port, SECRET)
        )
        self.proxy.start()
        self.agent = MetadataAgent(self, "h1", NamespaceSockets(self.proxy))
        self.now = 0.0
        self.loop = Loop(self.agent.reconciler(), clock=lambda: self.now)

    def pass_(self) -> set[Place]:
        self.now += 60
        self.loop.run_once()
        return set(self.proxy.listening())

    def close(self) -> None:
        self.proxy.stop()
        self.nova.close()

    def asked(self) -> dict[str, str]:
        return dict(self.nova.fields())


@pytest.fixture
def node() -> Iterator[Node]:
    with private_node() as private:
        made = Node(private)
        try:
            yield made
        finally:
            made.close()


def get(space: str, address: str = "169.254.169.254", port: int = 80) -> tuple[int, bytes]:
    guest = http.client.HTTPConnection(address, port)
    guest.sock = dial(space, address, port)
    try:
        guest.request("GET", "/latest/meta-data/instance-id")
        answer = guest.getresponse()
        return answer.status, answer.read()
    finally:
        guest.close()


def answered(space: str) -> bool:
    try:
        return get(space)[0] == 200
    except OSError:
        return False


def test_through_a_router(node: Node) -> None:
    private = node.private
    guests = [
        private.guest("a", A, "fa:16:3e:00:00:0a", {"10.1.0.5/24"}, via="10.1.0.1"),
        private.guest("b", B, "fa:16:3e:00:00:0b", {"10.2.0.5/24"}, via="10.2.0.1"),
    ]
    outside = private.guest("o", OUTSIDE, "fa:16:3e:00:00:0f", {"203.0.113.1/24"})
    ids = [str(uuid.uuid4()) for _ in range(3)]
    intent = RouterIntent(
        str(uuid.uuid4()),
        1,
        False,
        external=RouterPort(ids[2], "o", "fa:16:3e:01:00:09", ("203.0.113.10/24",), 1500),
        interfaces=(
            RouterPort(ids[0], "a", "fa:16:3e:01:00:01", ("10.1.0.1/24",), 1450),
            RouterPort(ids[1], "b", "fa:16:3e:01:00:02", ("10.2.0.1/24",), 1450),
        ),
    )
    place = Place("router", intent.id)
    owners = {"10.1.0.5": Owner("server-a", "red"), "10.2.0.5": Owner("server-b", "blue")}
    node.known = {(place, ip): owner for ip, owner in owners.items()}
    node.routers[intent.id] = intent
    assert node.pass_() == set()
    routers = KernelRouters(private.config)
    routers.look()
    routers.ensure(intent)
    for port_id, tag in zip(ids, (A, B, OUTSIDE), strict=True):
        private.tag_port(port_id, tag)
    assert node.pass_() == {place}
    for guest, (ip, owner) in zip(guests, owners.items(), strict=True):
        until(lambda guest=guest: answered(guest), "metadata")  # type: ignore[misc]
        assert node.asked()["x-instance-id"] == owner.device_id
        assert node.asked()["x-tenant-id"] == owner.project_id
        assert node.asked()["x-forwarded-for"] == ip
    count = len(node.nova.asked)
    for space, address, port in (
        (outside, "203.0.113.10", 9697),
        (outside, "203.0.113.10", 80),
        (guests[0], "10.1.0.1", 9697),
        (guests[0], "10.2.0.1", 9697),
    ):
        with pytest.raises(OSError):
            dial(space, address, port, 0.3).close()
    assert len(node.nova.asked) == count
    routers.look()
    routers.remove(intent.id)
    assert node.pass_() == set()
    assert not netns.exists(namespace(place))


def test_on_an_isolated_network_and_again_after_its_namespace_was_lost(node: Node) -> None:
    place = Place("network", str(uuid.uuid4()))
    space = namespace(place)
    node.networks[place.id] = DhcpIntent(place.id, 1, False)
    node.known[place, "169.254.169.254"] = Owner("server", "red")
    netns.create(space)
    try:
        with netns.enter(space):
            give_loopback("169.254.169.254")
        assert node.pass_() == {place}
        assert get(space) == (200, b"ami")
        assert node.asked()["x-instance-id"] == "server"
        netns.delete(space)
        netns.create(space)
        with netns.enter(space):
            give_loopback("169.254.169.254")
        with pytest.raises(ConnectionError):
            get(space)
        assert node.pass_() == {place}
        assert get(space) == (200, b"ami")
        del node.networks[place.id]
        assert node.pass_() == set()
    finally:
        netns.delete(space)


def give_loopback(address: str) -> None:
    from cumulet.host.netlink import Netlink

    with Netlink() as link:
        link.ensure_addresses("lo", {f"{address}/32"}, exact=False)


def test_an_address_that_is_taken_is_told(node: Node) -> None:
    place = Place("network", str(uuid.uuid4()))
    node.networks[place.id] = DhcpIntent(place.id, 1, False)
    netns.create(namespace(place))
    try:
        with Talk(namespace(place), "169.254.169.254", 80):
            assert node.pass_() == set()
            assert "listen on 169.254.169.254 port 80" in node.loop.failures[place.id].reason
        assert node.pass_() == {place}
    finally:
        netns.delete(namespace(place))


def test_many_namespaces_cost_little(node: Node) -> None:
    """One thread for all of them; an idle one costs a stat."""
    places = [Place("network", str(uuid.uuid4())) for _ in range(100)]
    try:
        for place in places:
            netns.create(namespace(place))
            node.networks[place.id] = DhcpIntent(place.id, 1, False)
        started = time.perf_counter()
        assert len(node.pass_()) == 100
        opened = time.perf_counter() - started
        cpu = time.process_time()
        node.pass_()
        idle = time.process_time() - cpu
        with netns.enter(namespace(places[0])):
            give_loopback("169.254.169.254")
        node.known[places[0], "169.254.169.254"] = Owner("server", "red")
        times = []
        for _ in range(200):
            begun = time.perf_counter()
            assert get(namespace(places[0]))[0] == 200
            times.append(time.perf_counter() - begun)
        print(
            f"100 namespaces: listening in {opened * 1000:.0f} ms, a pass costs {idle * 1000:.1f} ms of CPU; "
            f"a GET takes {statistics.median(times) * 1000:.2f} ms, p95 {sorted(times)[189] * 1000:.2f} ms"
        )
        assert idle < 1
    finally:
        for place in places:
            netns.delete(namespace(place))
