"""What this host's switch should look like: (intent, what is on the switch) → tags and flows.  Pure.

A network's local VLAN is whatever the tags on the switch say that it is, the lowest free one for a network that
has none yet.  The whole set of flows is made anew in each pass; which of them are missing is the driver's
business.  A port that cannot be wired (no device, no segment, a rule that cannot be expressed) has no flows, which
drops everything, and a reason; the others are not concerned.
"""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from msgspec.structs import replace

from cumulet.neutron.l2 import firewall, flows
from cumulet.neutron.l2.firewall import Guest, Prefix, Unusable
from cumulet.neutron.model import Segment, WireIntent, WirePort, device_name

PHYSICAL_NETWORK = "public"  # what br-ex leads to
TAG_MAX = 4094
GUESTS_MAX = 1000  # of one network: a broadcast's actions must fit into one flow (64 KiB)
VNI_MAX = 0xFFFFFF
NOBODY: Mapping[str, str] = {}


@dataclass(frozen=True, slots=True)
class Device:
    """A port's device on br-int.  `network_id` and `cloud` are what this agent wrote there when it wired it."""

    name: str
    port_id: str
    number: int  # OpenFlow's; 0 when the switch could not open it
    tag: int | None = None
    network_id: str = ""
    error: str = ""
    cloud: str = ""

    @property
    def marks(self) -> "Tag":
        return Tag(self.tag, self.network_id, self.cloud)


@dataclass(frozen=True, slots=True)
class Look:
    """The host's switch as it is.  Numbers are OpenFlow ports, 0 where there is none."""

    datapath: str  # 'system' or 'netdev'
    complete: bool  # bridges, patches and the uplink are there
    devices: tuple[Device, ...] = ()
    to_tunnels: int = 0  # br-int → br-tun
    from_int: int = 0  # br-tun → br-int
    to_external: int = 0  # br-int → br-ex
    tunnels: Mapping[str, int] = field(default_factory=dict)  # on br-tun, by the other end's address
    tunnel_address: str = ""


@dataclass(frozen=True, slots=True)
class Tag:
    tag: int | None
    network_id: str
    cloud: str = ""


UNWIRED = Tag(None, "")


@dataclass(frozen=True, slots=True)
class Base:
    """Bridges, the cables between them, the uplink, and tunnels to these hosts: what must be there first."""

    tunnels: frozenset[str]


@dataclass(frozen=True, slots=True)
class Wiring:
    """What to do, in this order."""

    fresh: frozenset[int] = frozenset()  # local VLANs that come into use: nothing of an earlier use may be left
    tags: Mapping[str, Tag] = field(default_factory=dict)  # by device
    flows: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # all flows of each bridge
    untags: frozenset[str] = frozenset()  # devices that no port wants any more
    tunnels: frozenset[str] = frozenset()  # the other ends that are needed
    wired: Mapping[str, int] = field(default_factory=dict)  # port id → the generation that is then in force
    reasons: Mapping[str, str] = field(default_factory=dict)  # port id → why it is not (wholly) wired
    by: WireIntent = field(default_factory=WireIntent)  # to be recalled, before anything else is done


def list_peers(intent: WireIntent, look: Look) -> frozenset[str]:
    """The other hosts to which tunnels are needed."""
    if not look.tunnel_address:
        return frozenset()
    used = {port.network_id for port in intent.ports}
    found = (peer for key in used if key in intent.segments for peer in intent.segments[key].peers)
    return frozenset(found) - {look.tunnel_address}


def find_base(intent: WireIntent, look: Look) -> Base | None:
    """What has to be made before anything can be wired; None if it is all there."""
    peers = list_peers(intent, look)
    return None if look.complete and peers <= look.tunnels.keys() else Base(peers)


def list_lost(intent: WireIntent, look: Look) -> list[Device]:
    """Devices that are wired here and that the intent does not know (any more)."""
    known = {port.id for port in intent.ports}
    return [device for device in look.devices if device.network_id and device.port_id not in known]


def list_strangers(intent: WireIntent, look: Look) -> dict[str, str]:
    """Ports that are wired here as another cloud wanted them, of which this one knows nothing: id → whose."""
    lost = list_lost(intent, look)
    return {device.port_id: device.cloud for device in lost if device.cloud not in ("", intent.cloud)}


def with_strangers(intent: WireIntent, strangers: Collection[str], kept: WireIntent, look: Look) -> WireIntent:
    """The intent, and all that the strangers need of what was ``kept``.  Whom nothing was kept of is left out.

    Where both claim a segment that leads out of this host, the intent has it: its ports are not to meet those of
    others.
    """
    ports = tuple(port for port in kept.ports if port.id in strangers)
    claimed = {_claim(segment, look) for segment in intent.segments.values()} - {_STAYS_HERE}
    used = {port.network_id for port in ports}
    segments = {key: one for key, one in kept.segments.items() if key in used and _claim(one, look) not in claimed}
    return replace(
        intent,
        ports=(*intent.ports, *ports),
        segments=segments | intent.segments,
        rules=kept.rules | intent.rules,
        members=kept.members | intent.members,
    )


_STAYS_HERE = (0, 0)


def _claim(segment: Segment, look: Look) -> tuple[int, int]:
    """Where a segment's frames leave br-int, and under which number."""
    outside = _outside(segment, look)
    return (outside, 0 if segment.kind == "flat" else segment.segmentation_id) if outside else _STAYS_HERE


def _outside(segment: Segment, look: Look) -> int:
    return look.to_tunnels if segment.kind == "vxlan" else look.to_external


def plan_wiring(intent: WireIntent, look: Look, strangers: Mapping[str, str] = NOBODY) -> Wiring:
    """``strangers``: ports of the intent that are another cloud's, by id; whose."""
    reasons: dict[str, str] = {}
    placed: dict[str, Place] = {}
    devices, networks, groups = _Devices(look), _Networks(intent, look), _Groups(intent)
    for port in sorted(intent.ports, key=lambda port: port.id):
        try:
            networks.check(port.network_id)
            device = devices.get(port.id)
            placed[port.id] = Place(port, device, firewall.parse_mac(port.mac), _pairs(port, groups))
        except Unusable as reason:
            reasons[port.id] = str(reason)
    tags, fresh = allocate_tags({place.port.network_id for place in placed.values()}, look.devices)
    guests: dict[str, list[Guest]] = defaultdict(list)
    wired: dict[str, Place] = {}
    for key, place in placed.items():
        network = place.port.network_id
        if network not in tags:
            reasons[key] = f"all {TAG_MAX} local VLANs of this host are in use"
        elif network in guests and len(guests[network]) >= GUESTS_MAX:
            reasons[key] = f"this host has {GUESTS_MAX} ports of its network, which is the most that it can wire"
        else:
            wired[key] = place
            if place.port.admin_up:
                guests[network].append(
                    Guest(place.port, place.device.number, tags[network], place.mac, place.pairs)
                )
            if note := networks.note(network):
                reasons[key] = note
    return Wiring(
        fresh=fresh,
        tags=_tag_changes(wired.values(), tags, lambda port: strangers.get(port.id, intent.cloud)),
        flows=_all_flows(look, networks, guests, tags, groups),
        untags=frozenset(device.name for device in list_lost(intent, look)),
        tunnels=list_peers(intent, look),
        wired={key: place.port.generation for key, place in wired.items()},
        reasons=reasons,
        by=intent,
    )


@dataclass(frozen=True, slots=True)
class Place:
    """A port and where it goes."""

    port: WirePort
    device: Device
    mac: str
    pairs: tuple[tuple[str, Prefix], ...]


def _pairs(port: WirePort, groups: "_Groups") -> tuple[tuple[str, Prefix], ...]:
    if port.trusted or not port.port_security:
        return ()
    for group in port.security_groups:
        groups.check(group)
    groups.check_length(port)
    return firewall.parse_pairs(port)


def allocate_tags(networks: Collection[str], devices: Iterable[Device]) -> tuple[dict[str, int], frozenset[int]]:
    """Each network's local VLAN, and those of them that nothing on the switch has now.

    A marked device has its say before one with the same tag and no mark.
    """
    tags: dict[str, int] = {}
    taken: set[int] = set()
    for device in sorted(devices, key=lambda device: (device.tag or 0, not device.network_id, device.network_id)):
        if device.network_id not in tags and device.tag not in taken and 0 < (device.tag or 0) <= TAG_MAX:
            tags |= {device.network_id: device.tag} if device.network_id and device.tag else {}
        taken |= {device.tag or 0}
    free = (tag for tag in range(1, TAG_MAX + 1) if tag not in taken)
    new = dict(zip(sorted(set(networks) - tags.keys()), free, strict=False))
    return tags | new, frozenset(new.values())


def _tag_changes(
    places: Iterable[Place], tags: Mapping[str, int], cloud_of: Callable[[WirePort], str]
) -> dict[str, Tag]:
    wanted = (
        (place.device, Tag(tags[place.port.network_id], place.port.network_id, cloud_of(place.port)))
        for place in places
    )
    return {device.name: tag for device, tag in wanted if device.marks != tag}


class _Devices:
    """The device of each port; a second one that claims the same port gets nothing."""

    def __init__(self, look: Look) -> None:
        self._found: dict[str, Device] = {}
        for device in sorted(look.devices, key=lambda device: device.name):
            if device.port_id not in self._found or device.name == device_name(device.port_id):
                self._found[device.port_id] = device

    def get(self, port_id: str) -> Device:
        device = self._found.get(port_id)
        if device is None:
            raise Unusable("its device is not on the switch yet")
        if device.number <= 0:
            raise Unusable(f"the switch cannot open its device {device.name}: {device.error or 'no reason given'}")
        return device


class _Networks:
    """The segments of the intent, and why some of them cannot be wired on this host."""

    def __init__(self, intent: WireIntent, look: Look) -> None:
        self.segments: dict[str, Segment] = {}
        self._faults: dict[str, str] = {}
        self._look = look
        claimed: dict[tuple[int, int], str] = {}
        for key, segment in sorted(intent.segments.items()):
            fault = _segment_fault(segment, look)
            place = _claim(segment, look)
            if not fault and place != _STAYS_HERE and place in claimed:
                fault = f"its segment is that of network {claimed[place]} too"
            if fault:
                self._faults[key] = f"its network {key} cannot be wired: {fault}"
            else:
                claimed[place] = key
                self.segments[key] = segment

    def outside(self, segment: Segment) -> int:
        return _outside(segment, self._look)

    def check(self, network_id: str) -> None:
        if network_id not in self.segments:
            raise Unusable(self._faults.get(network_id, f"its network {network_id} is not in the intent"))

    def note(self, network_id: str) -> str:
        """What is missing although the port is wired on this host."""
        peers = set(self.segments[network_id].peers) - {self._look.tunnel_address}
        if peers and not self._look.tunnel_address:
            return "other hosts have ports of its network, and this one has no network.tunnel_address"
        missing = sorted(peer for peer in peers if self._look.tunnels.get(peer, 0) <= 0)
        return f"there is no tunnel to {', '.join(missing)} yet" if missing else ""


def _segment_fault(segment: Segment, look: Look) -> str:
    if segment.kind == "vxlan":
        return "" if 0 < segment.segmentation_id <= VNI_MAX else f"VNI {segment.segmentation_id}"
    if segment.kind not in ("flat", "vlan"):
        return f"unknown kind {segment.kind!r}"
    if segment.physical_network != PHYSICAL_NETWORK or not look.to_external:
        return f"physical network {segment.physical_network!r} does not reach this host"
    if segment.kind == "vlan" and not 0 < segment.segmentation_id <= TAG_MAX:
        return f"VLAN {segment.segmentation_id}"
    return ""


class _Groups:
    """The security groups of the intent as flows, each made when a port first names it."""

    def __init__(self, intent: WireIntent) -> None:
        self._intent = intent
        self._flows: dict[str, tuple[str, ...]] = {}  # by group, or by direction and remote group
        self._faults: dict[str, str] = {}

    def check(self, group: str) -> None:
        if group not in self._flows and group not in self._faults:
            try:
                self._add(group)
            except Unusable as fault:
                self._faults[group] = f"it stays cut off: {fault}"
        if group in self._faults:
            raise Unusable(self._faults[group])

    def _add(self, group: str) -> None:
        """A group that the intent does not have has no rules: nothing passes."""
        rules = sorted(self._intent.rules.get(group, ()), key=str)  # one of several faults, always the same
        made = {group: tuple(firewall.group_flows(group, rules))}
        for direction, remote in sorted({(rule.direction, rule.remote_group) for rule in rules}):
            key = f"{direction} {remote}"
            if remote and key not in self._flows:
                members = self._intent.members.get(remote, ())
                made[key] = tuple(firewall.member_flows(direction, remote, members))
        self._flows |= made

    def check_length(self, port: WirePort) -> None:
        """A port's groups are run by one flow, whose actions must fit into it."""
        steps = firewall.count_steps(port.security_groups, self._intent.rules)
        if steps > firewall.STEPS_MAX:
            raise Unusable(
                f"it stays cut off: its security groups and their remote groups make {steps} steps, "
                f"more than {firewall.STEPS_MAX}"
            )

    def flows(self) -> Iterator[str]:
        for some in self._flows.values():
            yield from some

    def port_flows(self, guest: Guest) -> Iterator[str]:
        return firewall.port_flows(guest, self._intent.rules)


def _all_flows(
    look: Look,
    networks: _Networks,
    guests: Mapping[str, Sequence[Guest]],
    tags: Mapping[str, int],
    groups: _Groups,
) -> dict[str, tuple[str, ...]]:
    """All flows by bridge, br-int last: when a local VLAN changes hands, no frame leaves for the former network."""
    wanted = list(flows.switch_flows(look.datapath, look.to_tunnels))
    for key, some in guests.items():
        segment = networks.segments[key]
        wanted += flows.network_flows(segment, tags[key], some, networks.outside(segment))
        for guest in some:
            wanted += flows.entry_flows(guest)
            if guest.filtered:
                wanted += groups.port_flows(guest)
    wanted += groups.flows()
    found: dict[str, tuple[str, ...]] = {}
    if look.from_int:
        tunnelled = [
            (networks.segments[key], tags[key]) for key in guests if networks.segments[key].kind == "vxlan"
        ]
        open_tunnels = {peer: number for peer, number in look.tunnels.items() if number > 0}
        found[flows.TUN] = tuple(flows.tunnel_flows(tunnelled, look.from_int, open_tunnels))
    return found | {flows.EX: tuple(flows.external_flows()), flows.INT: tuple(dict.fromkeys(wanted))}
