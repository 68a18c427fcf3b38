"""neutron-l3-agent on a simulated host: what is wanted comes about, whatever dies on the way."""

import msgspec
import pytest

from cumulet.core.errors import Retry
from cumulet.neutron.l3 import plan as planning
from cumulet.neutron.l3.agent import L3Agent
from cumulet.neutron.l3.plan import Flow
from cumulet.neutron.model import FloatingIp, RouterIntent, RouterPort
from cumulet.sim.effects import Effects
from cumulet.sim.network import PAUSES, SimRouters
from tests.neutron.agent_world import FakeController, Node
from tests.neutron.test_dhcp_agent import Switch

ROUTER = "11111111-1111-4111-8111-111111111111"
INSIDE = RouterPort("aaaaaaaa-1111-4111-8111-111111111111", "net", "fa:16:3e:00:00:01", ("10.0.0.1/24",), 1450)
SECOND = RouterPort("bbbbbbbb-1111-4111-8111-111111111111", "net2", "fa:16:3e:00:00:02", ("10.2.0.1/24",), 1450)
OUTSIDE = RouterPort(
    "cccccccc-1111-4111-8111-111111111111", "ext", "fa:16:3e:00:00:09", ("203.0.113.10/24",), 1500, ("203.0.113.1",)
)
FLOATING = FloatingIp("dddddddd-1111-4111-8111-111111111111", "203.0.113.20", "10.0.0.5")
INTENT = RouterIntent(ROUTER, 1, False, external=OUTSIDE, interfaces=(INSIDE, SECOND), floating=(FLOATING,))
INWARD = Flow("198.51.100.7", "203.0.113.20", "10.0.0.5", "198.51.100.7")
HIDDEN = Flow("10.2.0.5", "198.51.100.7", "198.51.100.7", "203.0.113.10")


class World:
    def __init__(self) -> None:
        self.effects = Effects()
        self.controller = FakeController(self.effects, "/hosts/h1/routers")
        self.switch = Switch()
        self.host = SimRouters(self.switch)
        self.host.effect = self.effects.effect  # type: ignore[method-assign]
        self.node = Node(self.effects, lambda: L3Agent(self.controller, "h1", self.host).reconciler())

    def want(self, **changes: object) -> None:
        self.controller.want(ROUTER, msgspec.structs.replace(INTENT, **changes))
        self.node.settle()

    def check(self) -> None:
        """The host is exactly what the intents say, and the controller knows."""
        wanted = {key: intent for key, intent in self.controller.intents.items() if not intent.absent}
        assert set(self.host.routers) == set(wanted)
        ports = set()
        for key, intent in wanted.items():
            plan, router = planning.plan(intent), self.host.routers[key]
            assert set(router.devices) == {one.port_id for one in plan.interfaces}
            assert all(router.devices[one.port_id].addresses == one.addresses for one in plan.interfaces)
            assert all(device.up == intent.admin_up for device in router.devices.values())
            assert (router.table, router.routes) == (plan.table, frozenset(plan.routes))
            assert router.told == len(PAUSES) + 1
            assert not any(plan.stale(flow) for flow in router.flows)
            assert intent.seen_generation == intent.generation
            assert self.controller.seen[key].running == intent.admin_up
            assert self.controller.seen[key].floating == plan.floating
            ports |= set(router.devices)
        assert self.switch.devices == ports


def life(world: World) -> None:
    """A router's whole life."""
    world.want()
    world.check()
    if ROUTER in world.host.routers:
        world.host.routers[ROUTER].flows |= {INWARD, HIDDEN}
    world.want(floating=())
    world.check()
    assert world.host.routers[ROUTER].flows == {HIDDEN}
    world.want(interfaces=(INSIDE,), routes=(("10.9.0.0/16", "10.0.0.9"),))
    world.check()
    world.want(external=None, floating=(), interfaces=(INSIDE,))
    world.check()
    assert world.host.routers[ROUTER].flows == set()
    world.want(admin_up=False)
    world.check()
    world.want(absent=True)
    world.check()


def effects_of_one_life() -> list[str]:
    world = World()
    life(world)
    return world.effects.log


EFFECTS = effects_of_one_life()


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("number", range(len(EFFECTS)))
def test_crash(number: int, when: str) -> None:
    world = World()
    world.effects.crash_at = (number, when)
    life(world)
    assert world.effects.crash_at is None, "never reached"
    assert world.host.routers == {}
    assert world.controller.intents == {}
    assert world.switch.devices == set()


def test_rules_come_first_and_news_last() -> None:
    names = [effect.split()[0] for effect in EFFECTS]
    assert names[:7] == ["namespace", "sysctls", "rules", "device", "device", "device", "routes"]
    assert names[7:11] == ["announce", "told", "report", "announce"]


def test_addresses_are_announced_three_times_and_then_no_more() -> None:
    world = World()
    world.want()
    announced = world.host.routers[ROUTER].announced
    assert announced.count("203.0.113.20") == announced.count("10.0.0.1") == 3
    world.want(routes=(("10.9.0.0/16", "10.0.0.9"),))
    assert announced.count("203.0.113.20") == 3
    moved = msgspec.structs.replace(OUTSIDE, mac="fa:16:3e:00:00:77")
    world.want(external=moved)
    assert announced.count("203.0.113.20") == 6


def test_reports_only_what_differs() -> None:
    world = World()
    world.want()
    assert [seen.generation for _, seen in world.controller.reports] == [1]
    world.node.boot()
    world.node.settle()
    world.host.cut_power()
    world.node.settle()
    assert len(world.controller.reports) == 1
    world.check()


def test_what_cannot_be_done_is_reported_and_the_rest_is_done() -> None:
    world = World()
    world.want(routes=(("10.9.0.0/16", "192.0.2.1"), ("10.8.0.0/16", "10.0.0.8")))
    seen = world.controller.seen[ROUTER]
    assert seen.running
    assert seen.fault == "route to 10.9.0.0/16: next hop 192.0.2.1 is on none of the router's networks"
    assert "10.8.0.0/16" in {hop.destination for hop in world.host.routers[ROUTER].routes}


def test_one_broken_router_breaks_no_other() -> None:
    world = World()
    world.controller.want(ROUTER, msgspec.structs.replace(INTENT, interfaces=(RouterPort("x\ny", "", "", (), 1),)))
    world.controller.want("2" * 36, msgspec.structs.replace(INTENT, id="2" * 36))
    world.node.loop.run_once()
    assert set(world.node.loop.failures) == {ROUTER}
    assert set(world.controller.seen) == {"2" * 36}


def test_what_is_not_in_the_intent_is_left_alone() -> None:
    world = World()
    world.want()
    del world.controller.intents[ROUTER]
    world.node.settle()
    assert set(world.host.routers) == {ROUTER}


def test_nothing_is_touched_while_nobody_answers() -> None:
    world = World()
    world.controller.away = True
    world.want()
    assert world.effects.log == []
    world.controller.away = False
    world.host.fail_next("look", Retry("Open vSwitch does not answer"))
    world.host.fail_next("ensure", Retry("Open vSwitch does not answer"), RuntimeError("a bug"))
    world.node.settle()
    world.check()
