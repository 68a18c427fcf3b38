"""The real switch under the real agent: devices that come and go, restarts, odd intents."""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator

import pytest
from hypothesis import HealthCheck, given, settings

from cumulet.core.bus import LocalBus
from cumulet.core.client import Controller
from cumulet.core.errors import Retry
from cumulet.core.service import HostEnv
from cumulet.host import netns
from cumulet.host.netlink import Netlink
from cumulet.neutron.l2.agent import SWITCH, build
from cumulet.neutron.l2.flows import INT
from cumulet.neutron.l2.plan import Look, plan_wiring
from cumulet.neutron.model import Rule, WireIntent
from tests.host.l2_frames import ARP, BROADCAST, arp, frame, packed
from tests.host.l2_rig import OPEN, Guest, L2Node, l2_node, pair, says, until
from tests.neutron.l2_contract import keeps_its_promises
from tests.neutron.l2_controller import a_port
from tests.unit.test_l2_plan import intents, looks

pytestmark = [
    pytest.mark.host,
    pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("ovs-vswitchd"), reason="needs root and Open vSwitch"),
]


@pytest.fixture
def node() -> Iterator[L2Node]:
    with l2_node() as made:
        yield made


def test_a_port_is_cut_off_until_its_rules_are_in(node: L2Node) -> None:
    a, b = pair(node, groups=("open",))
    late = node.guest("late", "n1", "10.0.0.3", plug=False, security_groups=("open",))
    assert node.reconcile() == {late.port.id: "its device is not on the switch yet"}
    assert node.controller.reports == [{a.port.id: 1, b.port.id: 1}]
    late.plug()
    assert not late.ping("10.0.0.1", 0.3)
    with node.running():
        until(lambda: node.controller.ports[late.port.id].wired_generation == 1, "the report", 2)
        assert late.ping("10.0.0.1")
        node.controller.change(late.port.id, admin_up=False, generation=2)
        late.unplug()
        until(lambda: node.controller.ports[late.port.id].wired_generation == 0, "the report that it is gone", 2)
    late.plug()
    assert node.reconcile() == {}
    assert node.controller.reports[-1] == {late.port.id: 2}
    assert not late.ping("10.0.0.1", 0.5)  # administratively down
    assert not a.ping("10.0.0.3", 0.5)
    del node.controller.ports[b.port.id]
    assert node.reconcile() == {}
    until(lambda: not a.ping("10.0.0.2", 0.3), "b's end")
    row = node.ovsdb.ports("br-int")[b.device]
    assert (row.tag, row.external_ids["net-id"], row.external_ids["iface-id"]) == (None, "", b.port.id)


def test_many_lost_ports_are_not_believed(node: L2Node) -> None:
    node.config.network.unwire_limit = 1
    node.renew()
    a, b = pair(node, groups=("open",))
    before, ports = node.flows(), dict(node.controller.ports)
    node.controller.ports.clear()
    with pytest.raises(Retry, match=r"2 wired ports .*network.unwire_limit \(1\)"):
        node.reconcile()
    assert node.flows() == before
    assert a.ping("10.0.0.2")
    node.controller.ports = {a.port.id: ports[a.port.id]}
    assert node.reconcile() == {}
    until(lambda: not a.ping("10.0.0.2", 0.3), "b's end")
    assert b.device in node.ovsdb.ports("br-int")


def test_another_database_cuts_nobody_off(node: L2Node) -> None:
    node.controller.cloud = "ours"
    node.renew()
    a, b = pair(node, groups=("open",))
    before = node.flows()
    ports, segments = dict(node.controller.ports), dict(node.controller.segments)
    node.controller.cloud = "another"
    node.controller.ports.clear()
    node.controller.segments.clear()
    with pinging(a, "10.0.0.2") as lost:
        node.renew()
        assert node.reconcile() == {}
    assert lost() == 0
    assert node.flows() == before
    node.controller.cloud, node.controller.ports, node.controller.segments = "ours", ports, segments
    del ports[b.port.id]
    assert node.reconcile() == {}
    until(lambda: not a.ping("10.0.0.2", 0.3), "b's end")


def test_one_bad_port_does_not_stop_the_others(node: L2Node) -> None:
    a, _ = pair(node, groups=("open",))
    node.controller.rules["bad"] = (*OPEN, Rule("ingress", 4, 33, 1, 2))
    bad = node.guest("bad", "n1", "10.0.0.3", security_groups=("open", "bad"))
    odd = node.guest("odd", "n1", "10.0.0.4", mac="fa:16:3e:00:00:99")
    node.controller.change(odd.port.id, mac="01:00:5e:00:00:01,actions=NORMAL")
    reasons = node.reconcile()
    assert reasons.keys() == {bad.port.id, odd.port.id}
    assert "security group bad: a rule for ports of protocol 33" in reasons[bad.port.id]
    assert "is not the hardware address of a station" in reasons[odd.port.id]
    assert a.ping("10.0.0.2")
    assert not bad.ping("10.0.0.1", 0.5)
    node.controller.rules["bad"] = OPEN
    assert node.reconcile().keys() == {odd.port.id}
    assert bad.ping("10.0.0.1")


def test_restart_of_the_agent_changes_nothing(node: L2Node) -> None:
    a, _ = pair(node, groups=("open",))
    before, rows = node.flows(), node.ovsdb.bridges()
    with pinging(a, "10.0.0.2") as lost:
        for _ in range(5):
            node.renew()
            assert node.reconcile() == {}
    assert lost() == 0
    assert node.flows() == before
    assert node.ovsdb.bridges() == rows
    assert len(node.controller.reports) == 1


def test_restart_of_the_switch_is_repaired(node: L2Node) -> None:
    a, _ = pair(node, groups=("open",))
    flows = node.flows()
    with node.running():
        node.kill_vswitchd()
        assert not a.ping("10.0.0.2", 0.2)
        begun = time.monotonic()
        node.start_vswitchd()
        until(lambda: a.ping("10.0.0.2", 0.1), "frames pass again", 2)
        print(f"repaired {time.monotonic() - begun:.2f} s after the start of ovs-vswitchd")
    assert node.reconcile() == {}
    assert node.flows() == flows


def count_lost(output: str) -> int:
    sent, received = re.findall(r"(\d+) packets transmitted, (\d+) received", output)[0]
    return int(sent) - int(received)


@contextlib.contextmanager
def pinging(guest: Guest, address: str) -> Iterator[Callable[[], int]]:
    """A ping each 10 ms meanwhile; afterwards, how many were lost."""
    with netns.enter(guest.space):
        words = ["ping", "-n", "-q", "-i0.01", "-w20", address]
        child = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    output: list[str] = []
    try:
        time.sleep(0.3)
        yield lambda: count_lost(output[0])
    finally:
        time.sleep(0.3)
        child.send_signal(signal.SIGINT)
        output.append(child.communicate(timeout=5)[0])


def test_the_host_does_not_hear_guests(node: L2Node) -> None:
    """Its own addresses are not answered for on the devices of the switch, and it says nothing there itself."""
    with netns.enter(node.space), Netlink() as link:
        link.ensure_veth("mgmt0", "mgmt1")
        link.ensure_addresses("mgmt0", {"10.0.0.200/24"})
        link.set_up("mgmt0")
    a, b = pair(node, groups=("open",))
    with a.hearing() as ear:
        a.send(frame(BROADCAST, a.mac, ARP, arp(1, a.mac, a.ip, BROADCAST, "10.0.0.200")))
        assert ear.frames(0.5, packed("10.0.0.200")) == []
    assert a.ping("10.0.0.2")
    b.unplug()
    b.plug()  # the same name, another device
    assert node.reconcile() == {}
    until(lambda: a.ping("10.0.0.2"), "the new device")
    with b.hearing() as ear:
        b.send(frame(BROADCAST, b.mac, ARP, arp(1, b.mac, b.ip, BROADCAST, "10.0.0.200")))
        assert ear.frames(0.5, packed("10.0.0.200")) == []


def test_a_used_local_vlan_remembers_nothing(node: L2Node) -> None:
    """Connections of a network are forgotten before another takes over its zone."""
    a, b = pair(node, groups=("open",))
    assert says(a, b, 5000)
    tag = node.ovsdb.ports("br-int")[a.device].tag
    assert f"zone={tag}" in node.control("dpctl/dump-conntrack")
    for guest in (a, b):
        del node.controller.ports[guest.port.id]
        guest.unplug()
    node.network("n2", 5002)
    c = node.guest("c", "n2", "10.0.0.1", security_groups=("open",))
    assert node.reconcile() == {}
    assert node.ovsdb.ports("br-int")[c.device].tag == tag
    assert "10.0.0.2" not in node.control("dpctl/dump-conntrack")


def test_it_keeps_the_promises_of_every_switch() -> None:
    with l2_node(later=True) as node:
        guests: dict[str, Guest] = {}

        def plug(port_id: str) -> None:
            guests[port_id] = Guest(node, a_port(port_id, "n1", f"fa:16:3e:00:00:0{port_id[0]}", "10.0.0.1"))
            node.guests[port_id] = guests[port_id]
            guests[port_id].plug()

        def restart() -> None:
            node.kill_vswitchd()
            node.start_vswitchd()
            until(lambda: node.ovsdb.look().vswitchd != "", "ovs-vswitchd")
            node.ovsdb.settle(20)

        with netns.enter(node.space):
            keeps_its_promises(
                node.switch, plug, lambda port_id: guests[port_id].unplug(), lambda: len(node.flows()), restart
            )


def test_the_switch_takes_any_plan() -> None:
    """No intent, however odd, gives a flow that Open vSwitch refuses: one refusal would stop the whole host."""
    with l2_node() as node:

        @settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
        @given(intents, looks())
        def check(intent: WireIntent, look: Look) -> None:
            wanted = plan_wiring(intent, look).flows[INT]
            node.openflow.sync_flows(INT, wanted)
            assert len(node.flows()) == len(wanted)

        check()


def test_the_service_is_woken_by_the_switch() -> None:
    with l2_node(later=True) as node:
        nobody = Controller("nobody", "http://127.0.0.1:1", "node1", "token")
        woken: list[str] = []
        with netns.enter(node.space):
            service = build(HostEnv(node.config, LocalBus(), "node1", nobody, nobody, nobody, nobody))
        assert [loop.name for loop in service.loops] == ["ports"]
        assert service.details()["tunnel_address"] == ""
        assert service.start is not None
        assert service.stop is not None
        service.start(woken.append)
        until(lambda: woken != [], "the first call")
        woken.clear()
        node.reconcile()
        until(lambda: SWITCH in woken, "a call when bridges appeared")
        service.stop()
