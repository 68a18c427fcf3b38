"""Where frames go: the flows of br-int, less those that filter, and of the bridges around it.  Pure.

Nothing on br-int learns where a station is, except behind ports without port security: the intent names every
hardware address of this host, so each goes to its port, anything else leaves for the network's other hosts, and
what comes from those for nobody here is dropped.  Unknown stations are never looked for by showing their frames
to others.  A station that moves is at its new place as soon as the intent says so; one that is to come here as it
runs, as soon as its port has sent a frame here, and elsewhere until then.

On br-tun the other hosts' stations are learned from their frames, for some seconds; until then a frame goes to
each host that has ports of the network.  br-ex is a learning switch between the physical network and br-int.
"""

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

from cumulet.neutron.l2.firewall import Guest, Table, constant_flows, source_flows, to
from cumulet.neutron.model import Segment

INT, TUN, EX, PHY = "br-int", "br-tun", "br-ex", "br-phy"

LEARN_SECONDS = 15
"""How long a station is remembered after its last frame; a stale memory cannot last longer."""

_GROUP_ADDRESS = "01:00:00:00:00:00/01:00:00:00:00:00"
_STATION_ADDRESS = "00:00:00:00:00:00/01:00:00:00:00:00"
_TAGGED = "vlan_tci=0x1000/0x1000"
_UNTAGGED = "vlan_tci=0x0000/0x1fff"
_TUN_CLASSIFY, _TUN_OUT, _TUN_IN, _TUN_STATION, _TUN_FLOOD = 0, 2, 4, 20, 22


def switch_flows(datapath: str, to_tunnels: int) -> Iterator[str]:
    """The part of br-int that does not depend on its ports."""
    yield from constant_flows(datapath)
    classify, deliver = f"table={Table.CLASSIFY:d}", f"table={Table.DELIVER:d}"
    yield f"table={Table.ARRIVED:d},priority=10,reg5=0,actions={to(Table.OUTSIDE)}"
    yield f"{classify},priority=200,{_TAGGED},actions=drop"  # guests send no tags, not even a zero one
    yield (
        f"{deliver},priority=10,dl_dst={_STATION_ADDRESS},"
        f"actions=set_field:0->reg5,{to(Table.LEARNED)},{to(Table.UNKNOWN)}"
    )
    yield f"table={Table.UNKNOWN:d},priority=10,reg5=0,actions={to(Table.OUTSIDE)}"
    yield f"table={Table.UNKNOWN:d},priority=0,actions={to(Table.COMMIT)}"
    if to_tunnels:
        tag = "push_vlan:0x8100,move:NXM_NX_REG6[0..11]->OXM_OF_VLAN_VID[0..11]"
        yield f"table={Table.WIRE:d},priority=50,reg5={to_tunnels},actions={tag},output:{to_tunnels}"
    yield f"table={Table.WIRE:d},priority=0,actions=output:NXM_NX_REG5[]"


def entry_flows(guest: Guest) -> Iterator[str]:
    """What happens to a frame that the port sends."""
    entry = f"table={Table.CLASSIFY:d},priority=100,in_port={guest.number}"
    known = f"set_field:{guest.number}->reg5,set_field:{guest.tag}->reg6"
    if guest.filtered and not guest.port.active:
        arrived = _learn_station(guest, f"dl_dst={guest.mac}")
        mine = f"table={Table.CLASSIFY:d},priority=110,in_port={guest.number},dl_src={guest.mac}"
        yield f"{mine},actions={known},{arrived},{to(Table.SOURCE)}"
    if guest.filtered:
        yield f"{entry},actions={known},{to(Table.SOURCE)}"
        yield from source_flows(guest)
    elif guest.port.trusted:
        yield f"{entry},actions={known},{to(Table.DELIVER)}"
    else:
        learn = _learn_station(guest, "NXM_OF_ETH_DST[]=NXM_OF_ETH_SRC[]")
        yield f"{entry},actions={known},{learn},{to(Table.DELIVER)}"


def _learn_station(guest: Guest, station: str) -> str:
    """Remember that it is behind this port."""
    return (
        f"learn(table={Table.LEARNED:d},hard_timeout={LEARN_SECONDS},priority=10,"
        f"cookie={_cookie(guest.port.id)},delete_learned,NXM_NX_REG6[0..11],"
        f"{station},load:NXM_OF_IN_PORT[]->NXM_NX_REG5[0..15])"
    )


def network_flows(segment: Segment, tag: int, guests: Sequence[Guest], outside: int) -> Iterator[str]:
    """Delivery within one network on this host; `outside` is the way to its other hosts, 0 if there is none."""
    at = f"table={Table.DELIVER:d}"
    owners: dict[str, list[Guest]] = defaultdict(list)
    for guest in guests:
        for mac in guest.macs:
            owners[mac].append(guest)
    for mac, some in sorted(owners.items()):
        shared = [to(Table.OUTSIDE)] if any(guest.mac != mac for guest in some) else []  # it may be elsewhere too
        coming = [guest for guest in some if guest.mac == mac and not guest.port.active]
        for guest in coming:
            at_port = f"table={Table.ARRIVED:d},priority=50,reg6={tag},dl_dst={mac},reg5={guest.number}"
            yield f"{at_port},actions={_receive(guest)}"
            shared = ["set_field:0->reg5", to(Table.LEARNED), to(Table.ARRIVED)]
        actions = ",".join([*(_receive(guest) for guest in some if guest not in coming), *shared])
        yield f"{at},priority=100,reg6={tag},dl_dst={mac},actions={actions}"
    everybody = ",".join([*(_receive(guest) for guest in guests), to(Table.OUTSIDE)])
    yield f"{at},priority=50,reg6={tag},dl_dst={_GROUP_ADDRESS},actions={everybody}"
    asked = ",".join([*(f"output:{guest.number}" for guest in guests), to(Table.OUTSIDE)])  # needs no filter
    yield f"{at},priority=60,reg6={tag},arp,dl_dst=ff:ff:ff:ff:ff:ff,actions={asked}"
    if outside:
        out = f"set_field:{outside}->reg5,{to(Table.COMMIT)}"
        yield f"table={Table.OUTSIDE:d},priority=50,reg6={tag},reg7=0,actions={out}"
        yield from _arrival_flows(segment, tag, outside)


def _arrival_flows(segment: Segment, tag: int, outside: int) -> Iterator[str]:
    """Frames from outside, and the tag with which frames go there."""
    entry = f"table={Table.CLASSIFY:d},priority=300,in_port={outside}"
    known = f"set_field:{tag}->reg6,set_field:1->reg7,{to(Table.DELIVER)}"
    if segment.kind == "flat":
        yield f"{entry},{_UNTAGGED},actions={known}"
        return
    vlan = tag if segment.kind == "vxlan" else segment.segmentation_id
    yield f"{entry},dl_vlan={vlan},actions=strip_vlan,{known}"
    if segment.kind == "vlan":
        tagged = f"push_vlan:0x8100,set_field:{0x1000 | vlan}->vlan_vid,output:{outside}"
        yield f"table={Table.WIRE:d},priority=50,reg5={outside},reg6={tag},actions={tagged}"


def _receive(guest: Guest) -> str:
    return f"set_field:{guest.number}->reg5,{to(Table.INGRESS if guest.filtered else Table.COMMIT)}"


def tunnel_flows(segments: Iterable[tuple[Segment, int]], from_int: int, tunnels: dict[str, int]) -> Iterator[str]:
    """br-tun: local VLANs here, VNIs on the wire.  `segments`: with their local VLANs; `tunnels`: by other end."""
    yield f"table={_TUN_CLASSIFY},priority=1,in_port={from_int},actions=resubmit(,{_TUN_OUT})"
    for number in sorted(tunnels.values()):
        yield f"table={_TUN_CLASSIFY},priority=1,in_port={number},actions=resubmit(,{_TUN_IN})"
    yield f"table={_TUN_OUT},priority=1,dl_dst={_STATION_ADDRESS},actions=resubmit(,{_TUN_STATION})"
    yield f"table={_TUN_OUT},priority=1,dl_dst={_GROUP_ADDRESS},actions=resubmit(,{_TUN_FLOOD})"
    yield f"table={_TUN_STATION},priority=0,actions=resubmit(,{_TUN_FLOOD})"
    for segment, tag in segments:
        learn = (
            f"learn(table={_TUN_STATION},hard_timeout={LEARN_SECONDS},priority=1,"
            f"cookie={_cookie(segment.network_id)},delete_learned,NXM_OF_VLAN_TCI[0..11],"
            "NXM_OF_ETH_DST[]=NXM_OF_ETH_SRC[],load:0->NXM_OF_VLAN_TCI[],"
            "load:NXM_NX_TUN_ID[]->NXM_NX_TUN_ID[],output:OXM_OF_IN_PORT[])"
        )
        arrived = f"push_vlan:0x8100,set_field:{0x1000 | tag}->vlan_vid,{learn},output:{from_int}"
        vni = f"{segment.segmentation_id:#x}"
        yield f"table={_TUN_IN},priority=1,tun_id={vni},actions={arrived}"
        ends = [tunnels[peer] for peer in segment.peers if peer in tunnels]
        if ends:
            flood = ",".join(["strip_vlan", f"set_tunnel:{vni}", *(f"output:{end}" for end in ends)])
            yield f"table={_TUN_FLOOD},priority=1,dl_vlan={tag},actions={flood}"


def external_flows() -> Iterator[str]:
    """br-ex: a plain switch."""
    yield "table=0,priority=0,actions=NORMAL"


def _cookie(name: str) -> str:
    """Of learned flows: they go with the flow that learns them.  It has no mark, so nobody compares them."""
    return f"{int.from_bytes(hashlib.blake2b(name.encode(), digest_size=7).digest()) | 1:#x}"
