"""What the L2 agent wants its switch to be: properties of the plan, for any intent."""

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cumulet.neutron.l2 import firewall
from cumulet.neutron.l2.firewall import STEPS_MAX, Table, Unusable, link_local, parse_mac, port_masks, rule_matches
from cumulet.neutron.l2.flows import INT, TUN
from cumulet.neutron.l2.plan import (
    GUESTS_MAX,
    TAG_MAX,
    Device,
    Look,
    Tag,
    Wiring,
    allocate_tags,
    find_base,
    list_lost,
    list_strangers,
    plan_wiring,
    with_strangers,
)
from cumulet.neutron.model import Rule, Segment, WireIntent, WirePort, device_name

FLOW = re.compile(r"table=\d+,priority=\d+(,[\x21-\x7e]+)?,actions=[\x21-\x7e]+")
NETWORKS = ("n1", "n2", "n3")
IDS = [f"{number:08d}-1111-4111-8111-111111111111" for number in range(6)]
OWNERS = ("compute:nova", "network:dhcp", "network:router_interface")

numbers = st.integers(0, 65535)
rules = st.builds(
    Rule,
    direction=st.sampled_from(("ingress", "egress")),
    ip_version=st.sampled_from((4, 6)),
    protocol=st.sampled_from((None, 1, 6, 17, 50, 58, 132, 300)),
    port_min=st.none() | st.integers(-1, 300) | numbers,
    port_max=st.none() | st.integers(0, 300) | numbers,
    remote_prefix=st.sampled_from(("", "", "10.0.0.0/8", "fd00::/8", "0.0.0.0/0", "nonsense")),
    remote_group=st.sampled_from(("", "", "g1", "g2", "unknown")),
)
ports = st.builds(
    WirePort,
    id=st.sampled_from(IDS),
    network_id=st.sampled_from((*NETWORKS, "unknown")),
    mac=st.sampled_from(("fa:16:3e:00:00:01", "fa:16:3e:00:00:02", "FA:16:3E:00:00:03", "01:00:00:00:00:01", "x")),
    ips=st.lists(st.sampled_from(("10.0.0.1", "10.0.0.2", "fd00::1", "nonsense")), max_size=3).map(tuple),
    device_owner=st.sampled_from(OWNERS),
    generation=st.integers(1, 9),
    wired_generation=st.integers(0, 9),
    admin_up=st.booleans(),
    port_security=st.booleans(),
    allowed_pairs=st.lists(
        st.tuples(
            st.sampled_from(("", "fa:16:3e:00:00:01", "00:00:5e:00:01:01")),
            st.sampled_from(("10.0.0.9/32", "10.9.0.0/16", "0.0.0.0/0", "::/0", "fd00::9")),
        ),
        max_size=3,
    ).map(tuple),
    security_groups=st.lists(st.sampled_from(("g1", "g2", "unknown")), max_size=3).map(tuple),
    active=st.booleans(),
)
segments = st.builds(
    lambda key, kind, number, peers: Segment(key, kind, 1450, number, "" if kind == "vxlan" else "public", peers),
    st.just(""),
    st.sampled_from(("vxlan", "vxlan", "flat", "vlan", "odd")),
    st.integers(0, 3),
    st.lists(st.sampled_from(("192.0.2.2", "192.0.2.3")), unique=True).map(tuple),
)
intents = st.builds(
    lambda ports, segments, rules, members: WireIntent(
        tuple({port.id: port for port in ports}.values()),
        {key: msgspec.structs.replace(segment, network_id=key) for key, segment in segments.items()},
        rules,
        members,
    ),
    st.lists(ports, max_size=6),
    st.fixed_dictionaries({key: segments for key in NETWORKS}),
    st.dictionaries(st.sampled_from(("g1", "g2")), st.lists(rules, max_size=4).map(tuple)),
    st.dictionaries(
        st.sampled_from(("g1", "g2")),
        st.lists(st.sampled_from(("10.0.0.1", "10.0.0.0/30", "fd00::1", "nonsense")), max_size=3).map(tuple),
    ),
)


@st.composite
def looks(draw: st.DrawFn) -> Look:
    tagged = st.tuples(st.none() | st.integers(0, 4), st.sampled_from(("", *NETWORKS)))
    devices = [
        Device(device_name(key), key, draw(st.sampled_from((0, number, number))), *draw(tagged))
        for number, key in enumerate(IDS, start=10)
        if draw(st.booleans())
    ]
    ends = {"192.0.2.2": 5, "192.0.2.3": 6}
    tunnels = {peer: number for peer, number in ends.items() if draw(st.booleans())}
    datapath = draw(st.sampled_from(("system", "netdev")))
    if draw(st.booleans()):
        return Look(datapath, True, tuple(devices), 2, 1, 3, tunnels, "192.0.2.1")
    return Look(datapath, True, tuple(devices), to_external=3)


def key_of(flow: str) -> str:
    """Table, priority and match: what must be unique."""
    match, _, _ = flow.partition(",actions=")
    return ",".join(sorted(match.split(",")))


def admitted(flows: Iterable[str]) -> set[int]:
    found = (re.match(r"table=0,priority=100,in_port=(\d+),", flow) for flow in flows)
    return {int(match.group(1)) for match in found if match}


@given(intents, looks())
def test_any_intent_gives_flows_that_a_switch_takes(intent: WireIntent, look: Look) -> None:
    wiring = plan_wiring(intent, look)
    for flows in wiring.flows.values():
        keys = [key_of(flow) for flow in flows]
        assert len(keys) == len(set(keys))  # none overwrites another
        assert all(FLOW.fullmatch(flow) for flow in flows)
    assert (TUN in wiring.flows) == bool(look.from_int)
    known = {port.id for port in intent.ports}
    assert wiring.wired.keys() <= known
    assert wiring.reasons.keys() <= known
    assert wiring.wired.keys() | wiring.reasons.keys() == known  # each port is wired or says why not


@given(intents, looks())
def test_only_wired_ports_are_let_in(intent: WireIntent, look: Look) -> None:
    wiring = plan_wiring(intent, look)
    numbers = {device.port_id: device.number for device in look.devices}
    up = {port.id for port in intent.ports if port.admin_up}
    assert admitted(wiring.flows[INT]) == {numbers[key] for key in wiring.wired if key in up}
    assert wiring.untags == {device.name for device in list_lost(intent, look)}
    for device in look.devices:
        if device.port_id not in wiring.wired or device.port_id not in up:
            number = device.number
            named = re.compile(rf"\b(in_port|reg5)={number}\b|set_field:{number}->reg5|output:{number}\b")
            assert device.number == 0 or not any(named.search(flow) for flow in wiring.flows[INT])


@given(intents, looks())
def test_what_is_planned_once_is_planned_for_good(intent: WireIntent, look: Look) -> None:
    """Applied, and looked at again in any order: the same tags and flows, and nothing to do."""
    wiring = plan_wiring(intent, look)
    after = applied(look, wiring)
    again = plan_wiring(shuffled(intent), after)
    assert (again.tags, again.fresh, again.untags) == ({}, frozenset(), frozenset())
    assert {key: set(flows) for key, flows in again.flows.items()} == {
        key: set(flows) for key, flows in wiring.flows.items()
    }
    assert (again.wired, again.reasons, again.tunnels) == (wiring.wired, wiring.reasons, wiring.tunnels)


def test_a_device_without_a_mark_takes_no_networks_local_vlan() -> None:
    devices = [Device("tap1", "p1", 13, 1, "n2"), Device("tap2", "p2", 14, 1, "")]
    assert allocate_tags({"n2"}, devices) == ({"n2": 1}, frozenset())


@given(intents, looks())
def test_no_two_networks_share_a_local_vlan(intent: WireIntent, look: Look) -> None:
    wiring = plan_wiring(intent, look)
    networks: dict[int, set[str]] = {}
    for device in applied(look, wiring).devices:
        if device.port_id in wiring.wired and device.tag is not None:
            networks.setdefault(device.tag, set()).add(device.network_id)
    assert all(len(names) == 1 and 1 <= tag <= TAG_MAX for tag, names in networks.items())
    before = {device.tag for device in look.devices}
    assert not wiring.fresh & before
    assert all(tag.tag in wiring.fresh or tag.tag in before for tag in wiring.tags.values())


@given(intents, looks())
def test_each_filtered_port_sends_from_its_own_addresses_only(intent: WireIntent, look: Look) -> None:
    wiring = plan_wiring(intent, look)
    numbers = {device.port_id: device.number for device in look.devices}
    for port in intent.ports:
        if port.id not in wiring.wired or not port.admin_up:
            continue
        sent = re.compile(rf"table={Table.SOURCE:d},.*\bin_port={numbers[port.id]},")
        sources = [flow for flow in wiring.flows[INT] if sent.match(flow)]
        if port.trusted or not port.port_security:
            assert sources == []
            continue
        pairs = set(firewall.parse_pairs(port))
        assert (parse_mac(port.mac), link_local(parse_mac(port.mac))) in pairs
        assert {(parse_mac(port.mac), ipaddress.ip_network(ip)) for ip in port.ips} <= pairs
        for mac, prefix in pairs:
            text = f",dl_src={mac},"
            if prefix.version == 4:
                exact = "" if not prefix.prefixlen else f",arp_spa={prefix}".removesuffix("/32")
                assert any(text in flow and f",arp_sha={mac}{exact},actions" in flow for flow in sources)
            field = "ip,nw_src" if prefix.version == 4 else "ipv6,ipv6_src"
            value = str(prefix).removesuffix("/32").removesuffix("/128")
            match = f"{field.partition(',')[0]},actions" if not prefix.prefixlen else f"{field}={value},actions"
            assert any(text in flow and match in flow for flow in sources)
        allowed = {f",dl_src={mac}," for mac, _ in pairs}
        assert all(any(text in flow for text in allowed) for flow in sources)  # nothing but those


@given(numbers, numbers)
def test_masks_cover_exactly_the_range(one: int, two: int) -> None:
    low, high = sorted((one, two))
    masks = list(port_masks(low, high))
    assert len(masks) <= 30
    edges = {0, low - 1, low, (low + high) // 2, high, high + 1, 65535} & set(range(65536))
    for port in edges:
        assert any(port & mask == value for value, mask in masks) == (low <= port <= high)
    assert sum(65536 - mask for _, mask in masks) == high - low + 1


@pytest.mark.parametrize(
    "fields",
    [
        {"protocol": 33, "port_min": 1},
        {"protocol": None, "port_min": 1, "port_max": 2},
        {"protocol": 256},
        {"protocol": -1},
        {"protocol": 6, "port_min": 2, "port_max": 1},
        {"protocol": 6, "port_min": 0, "port_max": 65536},
        {"protocol": 1, "port_min": 256},
        {"protocol": 1, "port_max": 3},
        {"remote_prefix": "10.0.0.0/33"},
        {"remote_prefix": "fd00::/8"},
        {"remote_prefix": "10.0.0.1 actions=NORMAL"},
        {"remote_prefix": "10.0.0.0/8", "remote_group": "g"},
        {"ip_version": 5},
    ],
)
def test_rules_that_cannot_be_expressed(fields: dict[str, Any]) -> None:
    with pytest.raises(Unusable):
        matches(**fields)


@pytest.mark.parametrize(
    "text", ["", "fa:16:3e:00:00", "ff:ff:ff:ff:ff:ff", "00:00:00:00:00:00", "fa-16-3e-00-00-01"]
)
def test_hardware_addresses_of_nobody(text: str) -> None:
    with pytest.raises(Unusable):
        parse_mac(text)


def matches(**fields: Any) -> list[str]:
    some: dict[str, Any] = {"direction": "ingress", "ip_version": 4}
    return list(rule_matches(Rule(**(some | fields))))


def test_rules_become_matches() -> None:
    assert matches() == ["ip"]
    assert matches(remote_prefix="0.0.0.0/0") == ["ip"]
    assert matches(direction="egress", ip_version=6, remote_prefix="fd00::/8") == ["ipv6,ipv6_dst=fd00::/8"]
    assert matches(protocol=6, port_min=80, port_max=80) == ["ip,nw_proto=6,tp_dst=0x50/0xffff"]
    assert matches(protocol=17, port_min=0, port_max=65535) == ["ip,nw_proto=17,tp_dst=0x0/0x0"]
    assert matches(protocol=1, port_min=8, port_max=0) == ["ip,nw_proto=1,icmp_type=8,icmp_code=0"]
    assert matches(protocol=1, ip_version=6) == ["ipv6,nw_proto=58"]


def test_flows_grow_with_ports_rules_and_members_not_with_their_product() -> None:
    def count(guests: int, rules: int, members: int) -> int:
        ports = [a_port(number) for number in range(guests)]
        some = tuple(Rule("ingress", 4, 6, n, n, remote_group="g") for n in range(1, rules + 1))
        intent = WireIntent(
            tuple(ports),
            {"n1": Segment("n1", "vxlan", 1450, 5)},
            {"g": some},
            {"g": tuple(f"10.1.{n // 256}.{n % 256}" for n in range(members))},
        )
        devices = tuple(Device(device_name(port.id), port.id, n, 1, "n1") for n, port in enumerate(ports, start=10))
        return len(plan_wiring(intent, Look("netdev", True, devices, to_external=3)).flows[INT])

    base = count(1, 1, 1)
    apart = [count(101, 1, 1), count(1, 101, 1), count(1, 1, 101)]
    assert count(101, 101, 101) - base == sum(one - base for one in apart)


def a_port(number: int, **fields: Any) -> WirePort:
    mac = f"fa:16:3e:00:{number // 256:02x}:{number % 256:02x}"
    some: dict[str, Any] = {"device_owner": "compute:nova", "generation": 1, "wired_generation": 0}
    ips = (f"10.0.{number // 256}.{number % 256}",)
    some |= {"id": f"{number:08d}-x", "network_id": "n1", "mac": mac, "ips": ips, "security_groups": ("g",)}
    return WirePort(**(some | fields))


def test_local_vlans_run_out() -> None:
    devices = [Device(f"t{tag}", f"p{tag}", tag, tag, f"n{tag}") for tag in range(1, TAG_MAX)]
    tags, fresh = allocate_tags(["x", "y"], devices)
    assert tags["x"] == TAG_MAX
    assert fresh == {TAG_MAX}
    assert "y" not in tags


def test_what_one_flow_cannot_hold_is_cut_off_alone() -> None:
    ports = [a_port(number) for number in range(GUESTS_MAX + 2)]
    greedy = a_port(2000, network_id="n2", security_groups=tuple(f"g{number}" for number in range(STEPS_MAX + 1)))
    some: dict[str, tuple[Rule, ...]] = {group: (Rule("ingress", 4),) for group in greedy.security_groups}
    everything = [*ports, greedy]
    devices = tuple(Device(device_name(port.id), port.id, n) for n, port in enumerate(everything, start=10))
    segments = {key: Segment(key, "vxlan", 1450, vni) for key, vni in (("n1", 5), ("n2", 6))}
    wiring = plan_wiring(
        WireIntent(tuple(everything), segments, some), Look("netdev", True, devices, to_external=3)
    )
    assert len(wiring.wired) == GUESTS_MAX
    assert "its security groups" in wiring.reasons[greedy.id]
    assert max(flow.count("resubmit") for flow in wiring.flows[INT]) == GUESTS_MAX + 1


def test_a_second_device_of_a_port_gets_nothing() -> None:
    port = a_port(1)
    devices = (Device("an-impostor", port.id, 20), Device(device_name(port.id), port.id, 21))
    intent = WireIntent((port,), {"n1": Segment("n1", "vxlan", 1450, 5)})
    wiring = plan_wiring(intent, Look("netdev", True, devices, to_external=3))
    assert admitted(wiring.flows[INT]) == {21}
    assert wiring.tags == {device_name(port.id): Tag(1, "n1")}


def test_bridges_and_tunnels_come_first() -> None:
    intent = WireIntent((a_port(1),), {"n1": Segment("n1", "vxlan", 1450, 5, peers=("192.0.2.2",))})
    look = Look("netdev", True, (), 2, 1, 3, {}, "192.0.2.1")
    base = find_base(intent, look)
    assert base is not None
    assert base.tunnels == {"192.0.2.2"}
    assert find_base(intent, replace(look, tunnels={"192.0.2.2": 5, "192.0.2.3": 6})) is None
    assert find_base(WireIntent(), replace(look, complete=False)) is not None
    alone = Look("netdev", True, (Device(device_name(intent.ports[0].id), intent.ports[0].id, 9),), to_external=3)
    assert find_base(intent, alone) is None
    wiring = plan_wiring(intent, alone)
    assert list(wiring.wired) == [intent.ports[0].id]
    assert "network.tunnel_address" in wiring.reasons[intent.ports[0].id]


def applied(look: Look, wiring: Wiring) -> Look:
    tags = dict(wiring.tags) | dict.fromkeys(wiring.untags, Tag(None, ""))
    devices = [
        replace(device, tag=tags[device.name].tag, network_id=tags[device.name].network_id)
        if device.name in tags
        else device
        for device in look.devices
    ]
    return replace(look, devices=tuple(reversed(devices)))


def shuffled(intent: WireIntent) -> WireIntent:
    return WireIntent(
        tuple(reversed(intent.ports)),
        dict(reversed(intent.segments.items())),
        {key: tuple(reversed(some)) for key, some in reversed(intent.rules.items())},
        {key: tuple(reversed(some)) for key, some in reversed(intent.members.items())},
    )


def test_strangers_are_wired_by_what_was_kept_and_meet_nobody_of_the_intent() -> None:
    def port(port_id: str, network: str) -> WirePort:
        return WirePort(port_id, network, "fa:16:3e:00:00:01", ("10.0.0.1",), "compute:nova", 1, 1)

    kept = WireIntent(
        (port(IDS[0], "n1"), port(IDS[1], "n2"), port(IDS[2], "n1")),
        {"n1": Segment("n1", "vxlan", 1450, 7), "n2": Segment("n2", "vxlan", 1450, 8)},
        cloud="theirs",
    )
    intent = WireIntent((port(IDS[3], "n3"),), {"n3": Segment("n3", "vxlan", 1450, 8)}, cloud="ours")
    devices = tuple(
        Device(device_name(key), key, number, number, network, cloud=cloud)
        for number, (key, network, cloud) in enumerate(
            ((IDS[0], "n1", "theirs"), (IDS[1], "n2", "theirs"), (IDS[3], "n3", "")), start=10
        )
    )
    look = Look("netdev", True, devices, 2, 1, 3, {}, "192.0.2.1")
    strangers = list_strangers(intent, look)
    assert strangers == {IDS[0]: "theirs", IDS[1]: "theirs"}
    whole = with_strangers(intent, strangers, kept, look)
    wiring = plan_wiring(whole, look, strangers)
    assert wiring.wired == {IDS[0]: 1, IDS[3]: 1}
    assert wiring.reasons == {IDS[1]: "its network n2 is not in the intent"}  # its segment has been given to n3
    assert {name: tag.cloud for name, tag in wiring.tags.items()} == {device_name(IDS[3]): "ours"}
    assert wiring.by == whole
    assert list_lost(whole, look) == []
    alone = replace(look, to_tunnels=0, from_int=0, tunnel_address="")
    whole = with_strangers(intent, strangers, kept, alone)
    assert plan_wiring(whole, alone, strangers).reasons == {}  # nothing leaves this host, so nobody meets
