"""neutron-dhcp-agent on a simulated host: what is wanted comes about, whatever dies on the way."""

import msgspec
import pytest

from cumulet.core.errors import Retry
from cumulet.neutron.dhcp.agent import DhcpAgent
from cumulet.neutron.model import DhcpIntent, Lease, Subnet
from cumulet.sim.effects import Effects
from cumulet.sim.network import SimDhcp
from tests.neutron.agent_world import FakeController, Node

NET = "11111111-1111-4111-8111-111111111111"
INTENT = DhcpIntent(
    network_id=NET,
    generation=1,
    absent=False,
    port_id="aaaaaaaa-1111-4111-8111-111111111111",
    mac="fa:16:3e:00:00:02",
    ips=("10.0.0.2/24",),
    mtu=1450,
    domain="openstacklocal",
    subnets=(Subnet("sub", "10.0.0.0/24", 4, True, "10.0.0.1"),),
    leases=(Lease("port", "fa:16:3e:00:00:05", ("10.0.0.5",), "vm"),),
)
OTHER = msgspec.structs.replace(INTENT, network_id="2" * 36, port_id="bbbbbbbb-1111-4111-8111-111111111111")


class Switch:
    def __init__(self) -> None:
        self.devices: set[str] = set()

    def add_device(self, port_id: str) -> None:
        self.devices.add(port_id)

    def remove_device(self, port_id: str) -> None:
        self.devices.discard(port_id)


class World:
    def __init__(self) -> None:
        self.effects = Effects()
        self.controller = FakeController(self.effects, "/hosts/h1/dhcp")
        self.switch = Switch()
        self.host = SimDhcp(self.switch)
        self.host.effect = self.effects.effect  # type: ignore[method-assign]
        self.node = Node(self.effects, lambda: DhcpAgent(self.controller, "h1", self.host).reconciler())

    def want(self, **changes: object) -> None:
        self.controller.want(NET, msgspec.structs.replace(INTENT, **changes))
        self.node.settle()

    def check(self) -> None:
        """The host is exactly what the intents say, and the controller knows."""
        wanted = {key: intent for key, intent in self.controller.intents.items() if not intent.absent}
        assert set(self.host.networks) == set(wanted)
        assert self.switch.devices == {intent.port_id for intent in wanted.values()}
        for key, intent in wanted.items():
            server = self.host.networks[key]
            assert set(server.devices) == {intent.port_id}
            assert server.files == server.read
            assert all(lease.mac in server.files["hosts"] for lease in intent.leases)
            assert server.running
            assert self.controller.intents[key].seen_generation == intent.generation
            assert self.controller.seen[key].running


def life(world: World) -> None:
    """A network's whole life."""
    world.want()
    world.check()
    world.want(leases=(*INTENT.leases, Lease("p2", "fa:16:3e:00:00:06", ("10.0.0.6",), "")))
    world.check()
    world.want(port_id="cccccccc-1111-4111-8111-111111111111", mtu=1400)
    world.check()
    world.want(absent=True)
    world.check()


def effects_of_one_life() -> list[str]:
    world = World()
    life(world)
    return world.effects.log


EFFECTS = effects_of_one_life()


def test_one_life() -> None:
    assert EFFECTS[:5] == [f"namespace {NET}", f"device {INTENT.port_id}", f"files {NET}", f"dnsmasq {NET}",
                           f"report {NET}"]  # fmt: skip
    assert EFFECTS[-1] == f"report {NET}"
    assert len(EFFECTS) > 12


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("number", range(len(EFFECTS)))
def test_crash(number: int, when: str) -> None:
    world = World()
    world.effects.crash_at = (number, when)
    life(world)
    assert world.effects.crash_at is None, "never reached"
    assert world.host.networks == {}
    assert world.controller.intents == {}


def test_a_dead_server_and_a_dark_host_come_back() -> None:
    world = World()
    world.want()
    world.host.kill(NET)
    world.node.settle()
    world.check()
    world.host.cut_power()
    world.switch.devices.clear()
    world.node.settle()
    world.check()
    assert len(world.controller.reports) == 1


def test_what_is_not_in_the_intent_is_left_alone() -> None:
    world = World()
    world.controller.want(OTHER.network_id, OTHER)
    world.want()
    del world.controller.intents[OTHER.network_id]
    world.node.settle()
    assert set(world.host.networks) == {NET, OTHER.network_id}


def test_one_broken_network_breaks_no_other() -> None:
    world = World()
    bad = msgspec.structs.replace(INTENT, ips=("nonsense",))
    world.controller.want(NET, bad)
    world.controller.want(OTHER.network_id, OTHER)
    world.node.loop.run_once()
    assert set(world.node.loop.failures) == {NET}
    assert set(world.controller.seen) == {OTHER.network_id}


@pytest.mark.parametrize("method", ["look", "ensure"])
def test_failures_pass(method: str) -> None:
    world = World()
    world.host.fail_next(method, Retry("Open vSwitch does not answer"), RuntimeError("a bug"))
    world.want()
    world.check()


def test_nothing_is_touched_while_the_controller_is_away() -> None:
    world = World()
    world.controller.away = True
    world.want()
    assert world.effects.log == []
    world.controller.away = False
    world.node.settle()
    world.check()


def test_what_is_refused_is_reported() -> None:
    world = World()
    lease = Lease("p", "fa:16:3e:00:00:06", ("10.0.0.6",), "", (("mtu", "1400\nevil", 4),))
    world.want(leases=(lease,))
    assert "option 'mtu' cannot be written" in world.controller.seen[NET].fault
    world.want(leases=(msgspec.structs.replace(lease, options=(("mtu", "1400", 4),)),))
    assert world.controller.seen[NET].fault == ""
