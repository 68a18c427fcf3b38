"""The L2 agent against a simulated switch and a controller of dictionaries, dying wherever it can die."""

from collections.abc import Callable

import pytest

from cumulet.core.config import Config, Network
from cumulet.core.errors import Retry, Terminal
from cumulet.core.reconcile import Loop
from cumulet.neutron.l2.agent import SWITCH, L2Agent, Wanted
from cumulet.neutron.l2.flows import INT
from cumulet.neutron.model import Rule, Segment, WireIntent, WirePort, WireSeen, device_name
from cumulet.sim.effects import Crash, Effects
from cumulet.sim.switch import SimSwitch
from tests.neutron.l2_contract import keeps_its_promises
from tests.neutron.l2_controller import ANY4, FakeController, a_port

P1, P2, P3 = (f"{number}" * 8 + "-1111-4111-8111-111111111111" for number in (1, 2, 3))


class World(Effects):
    """One host, its controller, a clock; every lasting change of either is an effect."""

    def __init__(self, tunnel_address: str = "192.0.2.1") -> None:
        super().__init__()
        self.now = 0.0
        self.switch = SimSwitch(tunnel_address=tunnel_address)
        self.switch.effect = self.effect  # type: ignore[method-assign]
        self.controller = FakeController()
        self._post = self.controller.post
        self.controller.post = self.post  # type: ignore[method-assign]
        self.controller.segments["n1"] = Segment("n1", "vxlan", 1450, 5001, peers=("192.0.2.2",))
        self.controller.segments["n2"] = Segment("n2", "vxlan", 1450, 5002)
        self.controller.rules["g"] = (ANY4, Rule("ingress", 4, 6, 80, 80))
        self.boot()

    def boot(self, boot_id: str = "") -> None:
        agent = L2Agent(self.controller, "h1", self.switch, Config(network=Network(unwire_limit=2)), boot_id)
        self.loop: Loop[Wanted] = Loop(agent.reconciler(), clock=lambda: self.now)

    def post(self, path: str, body: WireSeen) -> None:
        """What is reported as wired is let in at that moment."""
        for port_id, generation in body.wired.items():
            assert self.switch.is_wired(port_id) or not generation
        with self.effect("report"):
            self._post(path, body)

    def port(self, port_id: str, network: str = "n1", **fields: object) -> None:
        mac = f"fa:16:3e:00:00:0{port_id[0]}"
        port = a_port(port_id, network, mac, f"10.0.0.{port_id[0]}", security_groups=("g",), **fields)
        self.controller.add(port)

    def settle(self) -> None:
        """Until three passes change nothing; a restart follows each crash."""
        quiet = 0
        for _ in range(40):
            before = len(self.log)
            try:
                self.loop.run_once()
            except Crash:
                self.boot()
                quiet = -1
            self.now += 31.0
            quiet = quiet + 1 if len(self.log) == before else 0
            if quiet == 3:
                return
        raise AssertionError(f"does not settle: {self.log[-10:]} {self.reasons()}")

    def reasons(self) -> dict[str, str]:
        return {key: failure.reason for key, failure in self.loop.failures.items()}

    def wired(self) -> dict[str, int]:
        return {port_id: port.wired_generation for port_id, port in self.controller.ports.items()}


def life(world: World) -> None:
    """Ports come and go, in every order of intent and device."""
    world.port(P1)
    world.settle()
    world.switch.add_device(P1)
    world.switch.add_device(P2)
    world.settle()
    world.port(P2, "n2")
    world.settle()
    assert world.wired() == {P1: 1, P2: 1}
    world.controller.change(P1, generation=2, mac="fa:16:3e:00:00:aa")
    world.settle()
    assert world.wired() == {P1: 2, P2: 1}
    world.switch.restart()
    world.settle()
    world.controller.segments["n1"] = Segment("n1", "vxlan", 1450, 5001)
    world.switch.remove_device(P2)
    world.settle()
    assert world.wired() == {P1: 2, P2: 0}
    assert world.reasons() == {P2: "its device is not on the switch yet"}
    assert world.switch.tunnels == {}
    world.switch.add_device(P2)
    del world.controller.ports[P1]
    world.settle()
    assert not world.switch.is_wired(P1)
    assert world.switch.is_wired(P2)
    world.controller.ports.clear()
    world.switch.remove_device(P1)
    world.settle()
    assert not world.switch.admitted()
    assert [device.network_id for device in world.switch.devices.values()] == [""]


def effects_of_a_life() -> list[str]:
    world = World()
    life(world)
    return world.log


EFFECTS = effects_of_a_life()


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("number", range(len(EFFECTS)))
def test_a_crash_anywhere_ends_the_same(number: int, when: str) -> None:
    whole = World()
    life(whole)
    world = World()
    world.crash_at = (number, when)
    life(world)
    assert world.crash_at is None, "never reached"
    assert world.switch.flows[INT] == whole.switch.flows[INT]
    assert world.wired() == whole.wired()


def test_the_simulated_switch_keeps_its_promises() -> None:
    switch = SimSwitch()
    count: Callable[[], int] = lambda: len(switch.flows.get(INT, ()))  # noqa: E731
    keeps_its_promises(switch, switch.add_device, switch.remove_device, count, switch.restart)


def test_only_what_differs_is_reported_and_an_idle_pass_changes_nothing() -> None:
    world = World()
    world.port(P1, wired_generation=1)
    world.port(P2, generation=4, wired_generation=3)
    world.port(P3)
    for port_id in (P1, P2):
        world.switch.add_device(port_id)
    world.settle()
    assert world.controller.reports == [{P2: 4}]
    effects = len(world.log)
    world.boot()
    world.settle()
    assert len(world.log) == effects


def test_a_new_device_is_wired_at_once() -> None:
    world = World()
    world.port(P1)
    world.settle()
    stop = world.switch.watch(lambda: world.loop.wake(SWITCH))
    world.switch.add_device(P1)
    world.loop.run_once()  # no time has passed
    assert world.wired() == {P1: 1}
    world.switch.restart()
    world.loop.run_once()
    assert world.switch.is_wired(P1)
    stop()
    world.switch.remove_device(P1)
    world.loop.run_once()
    assert world.wired() == {P1: 1}
    world.settle()
    assert world.wired() == {P1: 0}


def strange(world: World) -> dict[str, WirePort]:
    """Two ports of one cloud, and then the controller of another, which knows neither; the former's ports."""
    world.controller.cloud = "ours"
    for port_id in (P1, P2):
        world.port(port_id)
        world.switch.add_device(port_id)
    world.settle()
    ports = dict(world.controller.ports)
    world.controller.cloud = "another"
    world.controller.ports.clear()
    world.controller.segments.clear()
    world.controller.rules.clear()
    return ports


@pytest.mark.parametrize("restarts", [False, True])
def test_another_database_cuts_nobody_off(restarts: bool) -> None:
    world = World()
    ours = strange(world)
    flows = world.switch.flows[INT]
    if restarts:
        world.boot()
    world.settle()
    assert (world.switch.flows[INT], world.reasons()) == (flows, {})
    world.controller.segments["n9"] = Segment("n9", "vxlan", 1450, 5009)
    world.controller.add(a_port(P3, "n9", "fa:16:3e:00:00:09", "10.9.0.1"))
    world.switch.add_device(P3)
    world.settle()  # it works for its own, and the strangers get back what a restart of the switch takes
    world.switch.restart()
    world.settle()
    assert world.wired() == {P3: 1}
    assert all(world.switch.is_wired(port_id) for port_id in (P1, P2, P3))
    world.switch.remove_device(P2)  # its guest went
    world.settle()
    assert not world.switch.is_wired(P2)
    world.controller.cloud, world.controller.ports = "ours", {P2: ours[P2]}
    world.controller.segments["n1"] = Segment("n1", "vxlan", 1450, 5001)
    world.settle()  # the right one is back, and has deleted a port meanwhile: from it that is an order
    assert not world.switch.is_wired(P1)
    assert world.switch.is_wired(P3)


def test_strangers_of_whom_nothing_is_known_stop_everything() -> None:
    world = World()
    strange(world)
    flows, world.switch.wired_by = world.switch.flows[INT], WireIntent()
    world.settle()
    assert world.switch.flows[INT] == flows
    assert "2 ports of this host were wired by another database" in world.reasons()[SWITCH]
    for port_id in (P1, P2):
        world.switch.remove_device(port_id)
    world.settle()
    assert (world.reasons(), world.switch.admitted()) == ({}, set())


def test_a_controller_that_forgot_everything_is_not_believed() -> None:
    world = World()
    for port_id in (P1, P2, P3):
        world.port(port_id)
        world.switch.add_device(port_id)
    world.settle()
    flows, ports = world.switch.flows[INT], dict(world.controller.ports)
    world.controller.ports.clear()
    world.settle()
    assert world.switch.flows[INT] == flows
    assert "3 wired ports" in world.reasons()[SWITCH]
    world.controller.ports = {P1: ports[P1]}
    world.settle()
    assert world.reasons() == {}
    assert world.switch.admitted() == {world.switch.devices[device_name(P1)].number}


@pytest.mark.parametrize("part", ["controller", "switch"])
def test_while_a_part_is_away_nothing_is_touched(part: str) -> None:
    world = World()
    world.port(P1)
    world.switch.add_device(P1)
    world.settle()
    effects = len(world.log)
    getattr(world, part).away = True
    world.controller.ports.clear()
    world.settle()
    assert len(world.log) == effects
    assert "does not answer" in (world.loop.read_failure or world.reasons()[SWITCH])
    getattr(world, part).away = False
    world.settle()
    assert not world.switch.is_wired(P1)


@pytest.mark.parametrize("refusal", [Retry("neutron-server answers 503"), Terminal("neutron-server refuses: 400")])
def test_a_report_that_fails_is_told_again(refusal: Exception) -> None:
    world = World()
    world.port(P1)
    world.switch.add_device(P1)
    right = world.controller.post

    def refuse(path: str, body: WireSeen) -> None:
        raise refusal

    world.controller.post = refuse  # type: ignore[method-assign]
    world.settle()
    assert world.switch.is_wired(P1)
    assert world.reasons() == {P1: f"not reported: {refusal}"}
    world.controller.post = right  # type: ignore[method-assign]
    world.settle()
    assert world.wired() == {P1: 1}
    assert world.reasons() == {}


def test_one_bad_port_is_cut_off_alone() -> None:
    world = World()
    world.controller.rules["bad"] = (Rule("ingress", 4, 6, 9, 1),)
    for port_id in (P1, P2):
        world.port(port_id)
        world.switch.add_device(port_id)
    world.settle()
    world.controller.change(P1, security_groups=("g", "bad"))
    world.settle()
    assert not world.switch.is_wired(P1)
    assert world.switch.is_wired(P2)
    assert world.wired() == {P1: 0, P2: 1}
    assert "security group bad: a rule for tcp ports 9 to 1" in world.reasons()[P1]
    world.controller.rules["bad"] = ()
    world.settle()
    assert world.wired() == {P1: 1, P2: 1}


def test_hints_of_ports_wake_it() -> None:
    world = World()
    assert world.loop.reconciler.topics == ("neutron.ports.h1",)
    world.settle()
    world.switch.add_device(P1)
    world.port(P1)
    world.loop.wake(P1)
    world.loop.run_once()
    assert world.wired() == {P1: 1}
    world.controller.rules["g"] = ()
    world.loop.wake("*")
    before = world.switch.flows[INT]
    world.now += 1.0
    world.loop.run_once()
    assert world.switch.flows[INT] != before


def test_after_a_boot_what_is_wired_is_told_anew() -> None:
    """Whoever waits for the wires must not take those of the last boot for them."""
    world = World()
    world.port(P1)
    world.switch.add_device(P1)
    for boot_id in ("first", "first", "second"):
        world.boot(boot_id)
        world.settle()
        assert world.controller.ports[P1].wired_in == boot_id
    assert world.controller.reports == [{P1: 1}, {P1: 1}]
