"""What every switch must do; run against the simulated one and, in the host ring, against Open vSwitch."""

from collections.abc import Callable
from dataclasses import replace

from cumulet.neutron.l2.agent import Switch
from cumulet.neutron.l2.flows import INT
from cumulet.neutron.l2.plan import Base, Device, Tag, plan_wiring
from cumulet.neutron.model import Segment, WireIntent
from tests.neutron.l2_controller import ANY4, a_port

PORT, OTHER = "11111111-1111-4111-8111-111111111111", "22222222-2222-4222-8222-222222222222"
INTENT = WireIntent(
    (a_port(PORT, "n1", "fa:16:3e:00:00:01", "10.0.0.1", security_groups=("g",)),),
    {"n1": Segment("n1", "vxlan", 1450, 5001)},
    {"g": (ANY4,)},
)


def keeps_its_promises(
    switch: Switch,
    plug: Callable[[str], None],
    unplug: Callable[[str], None],
    count_flows: Callable[[], int],
    restart: Callable[[], None],
) -> None:
    """``switch`` is new; ``count_flows`` looks at br-int."""
    assert not switch.look().complete
    switch.apply(Base(frozenset()))
    empty = switch.look()
    assert empty.complete
    assert empty.to_external > 0
    assert (empty.devices, empty.to_tunnels, dict(empty.tunnels)) == ((), 0, {})
    switch.apply(Base(frozenset()))
    assert switch.look() == empty

    plug(PORT)
    plug(OTHER)
    looked = {device.port_id: device for device in switch.look().devices}
    assert looked.keys() == {PORT, OTHER}
    assert all(device.number > 0 and _state(device) == (None, "", "") for device in looked.values())
    assert looked[PORT].number != looked[OTHER].number

    wiring = plan_wiring(INTENT, switch.look())
    for _ in range(2):
        switch.apply(wiring)
        assert count_flows() == len(wiring.flows[INT])
        now = {device.port_id: device for device in switch.look().devices}
        assert now[PORT] == replace(looked[PORT], tag=1, network_id="n1")
        assert now[OTHER] == looked[OTHER]
    assert plan_wiring(INTENT, switch.look()) == replace(wiring, tags={}, fresh=frozenset())

    switch.apply(replace(wiring, tags={"no-such-device": Tag(1, "n1")}))  # gone between look and change
    restart()
    assert count_flows() == 0
    again = plan_wiring(INTENT, switch.look())
    assert (again.tags, len(again.flows[INT])) == ({}, len(wiring.flows[INT]))
    switch.apply(again)
    assert count_flows() == len(wiring.flows[INT])

    gone = plan_wiring(WireIntent(), switch.look())
    switch.apply(gone)
    assert count_flows() == len(gone.flows[INT]) < len(wiring.flows[INT])
    assert all(_state(device) == (None, "", "") for device in switch.look().devices)
    unplug(PORT)
    unplug(OTHER)
    assert switch.look().devices == ()


def _state(device: Device) -> tuple[int | None, str, str]:
    return device.tag, device.network_id, device.error
