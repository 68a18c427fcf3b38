"""What a port may send and receive, as OpenFlow flows: anti-spoofing and security groups.  Pure.

Rules are judged for every packet of the direction in which a connection was opened, not only for its first: a
rule that is taken away closes the connections that it had let in.  Only replies, and the ICMP errors that belong
to a connection, pass by the connection's state.  The connection's mark says which: 2 for a connection that was
let through (written as its packets leave the pipeline), 1 for one that no rule lets through any more.

Flows are linear in ports + rules + members.  A port's flow runs its groups' rules one after another (`resubmit`)
and then asks for the verdict in a register; a group's rules and the members of a remote group are there once,
however many ports and rules name them.  A rule with a remote group counts only when a look-up among its members
has said so in a second register.

Whatever cannot be expressed is `Unusable`: its port gets no flows, which drops everything.
"""

import hashlib
import ipaddress
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache

from cumulet.neutron.model import Rule, WirePort

Prefix = ipaddress.IPv4Network | ipaddress.IPv6Network


class Table(IntEnum):
    """The tables of br-int, in the order in which a frame can pass them."""

    CLASSIFY = 0  # by the port it came from
    SOURCE = 10  # may this port send from these addresses?
    UNSPECIFIED = 11  # IPv6 from "::": only what a host must say before it has an address
    CLAIM = 12  # what no guest may claim to be: a router, a DHCP server, another's neighbour
    ND_TARGET = 13
    EGRESS_STATE = 20
    EGRESS_PORT = 21
    EGRESS_RULE = 22
    EGRESS_MEMBER = 23
    EGRESS_VERDICT = 24
    DELIVER = 30  # by network and destination
    LEARNED = 31  # addresses seen behind ports without port security
    UNKNOWN = 32
    OUTSIDE = 33  # to the network's other hosts
    ARRIVED = 34  # a station that is to come here: has it?
    INGRESS = 40
    INGRESS_STATE = 41
    INGRESS_PORT = 42
    INGRESS_RULE = 43
    INGRESS_MEMBER = 44
    INGRESS_VERDICT = 45
    COMMIT = 50  # remember the connection, for its replies
    WIRE = 51  # out, with the tag that the wire needs
    DENY = 60


# Registers.  reg5: the port in question, as sender or receiver.  reg6: the local VLAN, which is also the
# conntrack zone.  reg7: 1 if the frame came from outside this host.  xreg4: the set of rules or members looked
# up.  reg10: 1 when a rule lets it pass.  reg11: 1 when the other end is a member.
ZONE = "NXM_NX_REG6[0..15]"
LET_THROUGH, REVOKED = 2, 1
ICMP, TCP, UDP, ICMPV6, SCTP = 1, 6, 17, 58, 132
_WITH_PORTS = {TCP: "tcp", UDP: "udp", SCTP: "sctp"}
_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")
_PORT_MAX, _OCTET_MAX = 0xFFFF, 0xFF


class Unusable(Exception):
    """The intent asks what cannot be wired; the message says what and why."""


@dataclass(frozen=True, slots=True)
class Guest:
    """A port with a device: where it is on the switch, and which addresses it may use."""

    port: WirePort
    number: int  # OpenFlow's
    tag: int  # the local VLAN of its network
    mac: str
    pairs: tuple[tuple[str, Prefix], ...]  # (MAC, prefix) that it may send from

    @property
    def filtered(self) -> bool:
        return self.port.port_security and not self.port.trusted

    @property
    def macs(self) -> list[str]:
        return sorted({self.mac, *(mac for mac, _ in self.pairs)})


def parse_mac(text: str) -> str:
    """A station's hardware address in lower case; Unusable for anything else, groups and zero included."""
    mac = text.lower()
    if not _MAC.fullmatch(mac) or int(mac[:2], 16) & 1 or mac == "00:00:00:00:00:00":
        raise Unusable(f"{text!r} is not the hardware address of a station")
    return mac


def parse_prefix(text: str) -> Prefix:
    try:
        if "%" in text:
            raise ValueError
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise Unusable(f"{text!r} is not an address or prefix") from None


def link_local(mac: str) -> Prefix:
    """The IPv6 link-local address that is made from a hardware address (RFC 4291, appendix A)."""
    octets = bytes.fromhex(mac.replace(":", ""))
    host = bytes((octets[0] ^ 2, octets[1], octets[2], 0xFF, 0xFE, octets[3], octets[4], octets[5]))
    return ipaddress.IPv6Network((bytes.fromhex("fe80") + bytes(6) + host, 128))


def parse_pairs(port: WirePort) -> tuple[tuple[str, Prefix], ...]:
    """Every (MAC, prefix) the port may send from: its own addresses, its allowed pairs, their link-local ones."""
    own = parse_mac(port.mac)
    pairs = {(own, parse_prefix(ip)) for ip in port.ips}
    pairs |= {(parse_mac(mac) if mac else own, parse_prefix(prefix)) for mac, prefix in port.allowed_pairs}
    pairs |= {(mac, link_local(mac)) for mac in {own, *(mac for mac, _ in pairs)}}
    return tuple(sorted(pairs, key=lambda pair: (pair[0], pair[1].version, str(pair[1]))))


# ── anti-spoofing ────────────────────────────────────────────────────────────────────────────────────────────


def source_flows(guest: Guest) -> Iterator[str]:
    """What the port may send from; whatever matches none of these is dropped.

    By RARP it may say where it is, and nothing else: QEMU does so for a guest that has come from another host.
    """
    yield (
        f"table={Table.SOURCE:d},priority=80,in_port={guest.number},dl_src={guest.mac},dl_dst=ff:ff:ff:ff:ff:ff,"
        f"rarp,arp_op=3,arp_sha={guest.mac},arp_tha={guest.mac},arp_spa=0.0.0.0,arp_tpa=0.0.0.0,"
        f"actions={to(Table.OUTSIDE)}"
    )
    for mac in guest.macs:
        sent = f"in_port={guest.number},dl_src={mac}"
        yield (
            f"table={Table.SOURCE:d},priority=85,{sent},udp,ip_frag=no,nw_src=0.0.0.0,nw_dst=255.255.255.255,"
            f"tp_src=68,tp_dst=67,actions={to(Table.DELIVER)}"
        )
        yield f"table={Table.SOURCE:d},priority=85,{sent},ipv6,ipv6_src=::,actions={to(Table.UNSPECIFIED)}"
    for mac, prefix in guest.pairs:
        sent = f"in_port={guest.number},dl_src={mac}"
        if prefix.version == 4:
            arp = f"table={Table.SOURCE:d},priority=80,{sent},arp,arp_sha={mac}"
            deliver = f"actions={to(Table.DELIVER)}"
            yield f"{arp}{_match('arp_spa', prefix)},{deliver}"
            yield f"{arp},arp_op=1,arp_spa=0.0.0.0{_match('arp_tpa', prefix)},{deliver}"  # a probe (RFC 5227)
            source = f"ip{_match('nw_src', prefix)}"
        else:
            source = f"ipv6{_match('ipv6_src', prefix)}"
            for kind in (135, 136):
                yield (
                    f"table={Table.ND_TARGET:d},priority=80,{sent},icmp6,icmp_type={kind},icmp_code=0"
                    f"{_match('nd_target', prefix)},actions={to(Table.DELIVER)}"
                )
        yield f"table={Table.SOURCE:d},priority=80,{sent},{source},actions={to(Table.CLAIM)}"


EVERY_PROTOCOL = ("ip", "ipv6")
"""The kernel's connection tracker follows every protocol, if only by addresses."""
USERSPACE_PROTOCOLS = ("icmp", "tcp", "udp", "icmp6", "tcp6", "udp6")
"""The userspace datapath's calls the others invalid; rules alone judge them."""


def constant_flows(datapath: str) -> Iterator[str]:
    """The part of the filter that is the same for every port.

    The kernel's tracker makes fragments whole before they are judged.  The userspace datapath's lets go of those
    that never become whole in the midst of others' frames, whosever they are (seen in Open vSwitch 3.1: they came
    out in another network).  So no fragment may come near it: there, filtered ports neither send nor receive any.
    """
    tracked = EVERY_PROTOCOL if datapath == "system" else USERSPACE_PROTOCOLS
    if datapath != "system":
        for table in (Table.CLAIM, Table.INGRESS):
            for version in ("ip", "ipv6"):
                yield f"table={table:d},priority=99,{version},ip_frag=yes,actions=drop"
    at = f"table={Table.UNSPECIFIED:d}"
    yield f"{at},priority=80,icmp6,ip_frag=no,icmp_type=135,icmp_code=0,actions={to(Table.ND_TARGET)}"
    for kind in (131, 132, 133, 143):  # MLD reports, router solicitation
        yield f"{at},priority=80,icmp6,ip_frag=no,icmp_type={kind},actions={to(Table.DELIVER)}"
    yield from _claim_flows()
    for state, table in ((Table.CLAIM, Table.EGRESS_STATE), (Table.INGRESS, Table.INGRESS_STATE)):
        for protocol in tracked:
            yield (f"table={state:d},priority=50,ct_state=-trk,{protocol},actions=ct(table={table:d},zone={ZONE})")
    for version in ("ip", "ipv6"):
        yield f"table={Table.CLAIM:d},priority=10,{version},actions={to(Table.EGRESS_PORT)}"
        yield f"table={Table.INGRESS:d},priority=40,ct_state=+trk,{version},actions={to(Table.INGRESS_STATE)}"
        yield f"table={Table.INGRESS:d},priority=10,{version},actions={to(Table.INGRESS_PORT)}"
    yield from _received_flows()
    yield from _state_flows(Table.EGRESS_STATE, Table.EGRESS_PORT, Table.EGRESS_VERDICT, Table.DELIVER)
    yield from _state_flows(Table.INGRESS_STATE, Table.INGRESS_PORT, Table.INGRESS_VERDICT, Table.COMMIT)
    for version in ("ip", "ipv6"):
        yield (
            f"table={Table.COMMIT:d},priority=50,ct_state=+trk-inv-rpl-rel,ct_mark=0/{LET_THROUGH},{version},"
            f"actions=ct(commit,zone={ZONE},exec(set_field:{LET_THROUGH}->ct_mark)),{to(Table.WIRE)}"
        )
        yield (
            f"table={Table.DENY:d},priority=50,ct_state=+trk-inv-rpl-rel,ct_mark={LET_THROUGH},{version},"
            f"actions=ct(commit,zone={ZONE},exec(set_field:{REVOKED}->ct_mark))"
        )
    yield f"table={Table.COMMIT:d},priority=0,actions={to(Table.WIRE)}"


def _claim_flows() -> Iterator[str]:
    """What no guest may say, whole or in fragments: those are put together only by the connection tracker."""
    for table in (Table.CLAIM, Table.EGRESS_STATE):
        for claim in ("udp,tp_dst=68", "udp6,tp_dst=546", "icmp6,icmp_type=134", "icmp6,icmp_type=137"):
            yield f"table={table:d},priority=90,{claim},actions=drop"  # DHCP servers', routers' messages
    for kind in (135, 136):
        yield f"table={Table.EGRESS_STATE:d},priority=90,icmp6,icmp_type={kind},actions=drop"
    at = f"table={Table.CLAIM:d},priority=80"
    yield f"{at},icmp6,ip_frag=no,icmp_type=136,actions={to(Table.ND_TARGET)}"
    for kind in (131, 132, 133, 135, 143):
        yield f"{at},icmp6,ip_frag=no,icmp_type={kind},actions={to(Table.DELIVER)}"
    yield f"{at},udp,ip_frag=no,tp_src=68,tp_dst=67,actions={to(Table.DELIVER)}"
    yield f"{at},udp6,ip_frag=no,tp_src=546,tp_dst=547,actions={to(Table.DELIVER)}"


def _received_flows() -> Iterator[str]:
    """What every port receives, whatever its groups say: without it no address works."""
    at, commit = f"table={Table.INGRESS:d},priority=90", f"actions={to(Table.COMMIT)}"
    yield f"{at},arp,{commit}"
    for kind in (130, 134, 135, 136):
        yield f"{at},icmp6,ip_frag=no,icmp_type={kind},{commit}"
    for kind in (131, 132, 133, 143):  # said to all, meant for routers
        yield f"{at},icmp6,ip_frag=no,icmp_type={kind},actions=drop"
    yield f"{at},udp,ip_frag=no,tp_src=67,tp_dst=68,{commit}"
    yield f"{at},udp6,ip_frag=no,tp_src=547,tp_dst=546,{commit}"


def _state_flows(state: Table, port: Table, verdict: Table, onward: Table) -> Iterator[str]:
    yield f"table={state:d},priority=80,ct_state=+trk+inv,actions=drop"
    for version in ("ip", "ipv6"):
        for kind in ("+rpl-rel", "+rel"):
            yield (
                f"table={state:d},priority=70,ct_state=+trk-inv{kind},ct_mark={LET_THROUGH},{version},"
                f"actions={to(onward)}"
            )
    yield f"table={state:d},priority=0,actions={to(port)}"
    yield f"table={port:d},priority=0,actions={to(Table.DENY)}"
    yield f"table={verdict:d},priority=50,reg10=1,actions={to(onward)}"
    yield f"table={verdict:d},priority=0,actions={to(Table.DENY)}"


# ── security groups ──────────────────────────────────────────────────────────────────────────────────────────

STEPS_MAX = 400  # about 100 bytes each of the 64 KiB that a flow's actions may take

DIRECTIONS = {
    "egress": (Table.EGRESS_PORT, Table.EGRESS_RULE, Table.EGRESS_MEMBER, Table.EGRESS_VERDICT),
    "ingress": (Table.INGRESS_PORT, Table.INGRESS_RULE, Table.INGRESS_MEMBER, Table.INGRESS_VERDICT),
}


def count_steps(groups: Iterable[str], rules: Mapping[str, tuple[Rule, ...]]) -> int:
    """The most steps that `port_flows` puts into one flow for these groups."""
    sets = {(rule.direction, group, rule.remote_group) for group in set(groups) for rule in rules.get(group, ())}
    return max((sum(one[0] == direction for one in sets) for direction in DIRECTIONS), default=0)


def port_flows(guest: Guest, rules: Mapping[str, tuple[Rule, ...]]) -> Iterator[str]:
    """Run the rules of the port's groups, then the verdict; no flow for a direction in which nothing may pass."""
    for direction, (at, rule_table, member_table, verdict) in DIRECTIONS.items():
        steps: list[str] = []
        for group in sorted(set(guest.port.security_groups)):
            remotes = {rule.remote_group for rule in rules.get(group, ()) if rule.direction == direction}
            for remote in sorted(remotes):
                if remote:
                    steps += ["set_field:0->reg11", _choose(_set_of(remote)), to(member_table)]
                steps += [_choose(_set_of(group, remote)), to(rule_table)]
        if steps:
            actions = ",".join(["set_field:0->reg10", *steps, to(verdict)])
            yield f"table={at:d},priority=50,reg5={guest.number},actions={actions}"


def group_flows(group: str, rules: Iterable[Rule]) -> Iterator[str]:
    """The rules of one security group.  Raises Unusable."""
    for rule in rules:
        if rule.direction not in DIRECTIONS:
            raise Unusable(f"security group {group} has a rule for direction {rule.direction!r}")
        try:
            matches = list(rule_matches(rule))
        except Unusable as error:
            raise Unusable(f"security group {group}: {error}") from None
        table = DIRECTIONS[rule.direction][1]
        chosen = f"xreg4={_set_of(group, rule.remote_group)}" + (",reg11=1" if rule.remote_group else "")
        for match in matches:
            yield f"table={table:d},priority=50,{chosen},{match},actions=set_field:1->reg10"


def member_flows(direction: str, group: str, members: Iterable[str]) -> Iterator[str]:
    """The addresses of a remote group, as the other end of the direction.

    What is no address lets nobody in and harms no other member; its own port says so, on its host.
    """
    start = f"table={DIRECTIONS[direction][2]:d},priority=50,xreg4={_set_of(group)}"
    for match in sorted({_member(direction, text) for text in members} - {""}):
        yield f"{start},{match},actions=set_field:1->reg11"


@lru_cache(maxsize=8192)
def _member(direction: str, text: str) -> str:
    """One address as a match, nothing if it is none.  With each new member all are asked for again."""
    try:
        prefix = parse_prefix(text)
    except Unusable:
        return ""
    return _far_end(direction, prefix.version, prefix)


def rule_matches(rule: Rule) -> Iterator[str]:
    """A rule as matches, any of which suffices.  Raises Unusable."""
    if rule.ip_version not in (4, 6):
        raise Unusable(f"a rule for IP version {rule.ip_version}")
    prefix = parse_prefix(rule.remote_prefix) if rule.remote_prefix else None
    if prefix and (prefix.version != rule.ip_version or rule.remote_group):
        raise Unusable(f"a rule for IPv{rule.ip_version} whose other end is {rule.remote_prefix!r}")
    far_end = _far_end(rule.direction, rule.ip_version, prefix)
    for match in _protocol_matches(rule):
        yield f"{far_end},{match}" if match else far_end


def _protocol_matches(rule: Rule) -> Iterator[str]:
    protocol, low, high = rule.protocol, rule.port_min, rule.port_max
    if protocol is None:
        if low is not None or high is not None:
            raise Unusable("a rule with ports but without a protocol")
        yield ""
        return
    if not 0 <= protocol <= _OCTET_MAX:
        raise Unusable(f"a rule for protocol {protocol}")
    if protocol == ICMP and rule.ip_version == 6:
        protocol = ICMPV6
    match = f"nw_proto={protocol}"
    if protocol in (ICMP, ICMPV6):
        yield from _icmp_matches(match, low, high)
    elif low is None and high is None:
        yield match
    elif protocol in _WITH_PORTS:
        yield from _port_matches(match, protocol, low, high)
    else:
        raise Unusable(f"a rule for ports of protocol {protocol}, of which no ports are known")


def _icmp_matches(match: str, kind: int | None, code: int | None) -> Iterator[str]:
    known = all(value is None or 0 <= value <= _OCTET_MAX for value in (kind, code))
    if not known or (kind is None and code is not None):
        raise Unusable(f"a rule for ICMP type {kind}, code {code}")
    exact = "" if code is None else f",icmp_code={code}"
    yield match if kind is None else f"{match},icmp_type={kind}{exact}"


def _port_matches(match: str, protocol: int, low: int | None, high: int | None) -> Iterator[str]:
    low = high if low is None else low
    high = low if high is None else high
    if low is None or high is None or not 0 <= low <= high <= _PORT_MAX:
        raise Unusable(f"a rule for {_WITH_PORTS[protocol]} ports {low} to {high}")
    for value, mask in port_masks(low, high):
        yield f"{match},tp_dst={value:#x}/{mask:#x}"


def port_masks(low: int, high: int) -> Iterator[tuple[int, int]]:
    """The fewest (value, mask) that cover the range, both ends included."""
    while low <= high:
        size = low & -low or _PORT_MAX + 1
        while size > high - low + 1:
            size >>= 1
        yield low, _PORT_MAX + 1 - size
        low += size


def _far_end(direction: str, version: int, prefix: Prefix | None) -> str:
    field = ("nw_" if version == 4 else "ipv6_") + ("src" if direction == "ingress" else "dst")
    return ("ip" if version == 4 else "ipv6") + (_match(field, prefix) if prefix else "")


def _match(field: str, prefix: Prefix) -> str:
    """`,field=prefix`, or nothing for a prefix that is everything."""
    if prefix.prefixlen == 0:
        return ""
    single = prefix.prefixlen == prefix.max_prefixlen
    return f",{field}={prefix.network_address if single else prefix}"


def _set_of(group: str, remote: str = "") -> str:
    """The register's value that stands for a set of rules, or of members: a digest, so the same at every start."""
    digest = hashlib.blake2b(f"{group} {remote}".encode(), digest_size=8).digest()
    return f"{int.from_bytes(digest) or 1:#x}"


def _choose(value: str) -> str:
    return f"set_field:{value}->xreg4"


def to(table: Table) -> str:
    return f"resubmit(,{table:d})"
