"""What one router consists of.  Pure: an intent goes in; interfaces, routes and an nftables table come out.

What a user chose and the router cannot do (a next hop on none of its networks, a floating IP without a gateway)
is left out and named, so that it spoils neither the rest of the router nor another one.

Who may pass: servers to everywhere, IPv4 beyond the gateway with a translated source only; from outside only
replies and what floating IPs translate.  Without source NAT (``enable_snat`` false) and for IPv6, which has none,
the outside may reach the servers' own addresses: there the security groups are the filter.  Where networks have
address scopes, these say who reaches whom (``l3.scopes``).
"""

import hashlib
import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

from cumulet.neutron.l3 import advertise, scopes
from cumulet.neutron.l3.scopes import Sides
from cumulet.neutron.model import METADATA_V4, METADATA_V6, FloatingIp, RouterIntent, RouterPort, device_name

METADATA, METADATA_PORT, DHCPV6_PORT = METADATA_V4, 9697, 547
SYSCTLS = {
    "net.ipv4.conf.all.rp_filter": "1",
    "net.ipv4.conf.default.rp_filter": "1",
    "net.ipv4.conf.all.arp_ignore": "1",
    "net.ipv4.conf.all.arp_announce": "2",
    "net.ipv4.conf.all.accept_redirects": "0",
    "net.ipv4.conf.all.send_redirects": "0",
    "net.ipv4.conf.default.send_redirects": "0",
    "net.ipv6.conf.all.accept_redirects": "0",
    "net.ipv6.conf.default.accept_redirects": "0",
    "net.ipv6.conf.all.accept_ra": "0",
    "net.ipv6.conf.default.accept_ra": "0",
    "net.ipv6.conf.all.accept_dad": "0",  # the database gives each address once
    "net.ipv6.conf.default.accept_dad": "0",
}
_ID = re.compile(r"[0-9a-f-]{1,36}")
Ip = ipaddress.IPv4Address | ipaddress.IPv6Address
Address = ipaddress.IPv4Interface | ipaddress.IPv6Interface


@dataclass(frozen=True)
class Interface:
    """A port of the router: ``inner`` in its namespace, ``outer`` on the switch."""

    port_id: str
    outer: str
    inner: str
    mac: str
    mtu: int
    addresses: frozenset[str]  # with prefix length
    announced: tuple[str, ...]  # those that the neighbours have to know, without length


class Hop(NamedTuple):
    """A route; ``via`` None: its destination is on the link."""

    destination: str
    device: str
    via: str | None = None


class Flow(NamedTuple):
    """A tracked connection, as its first packet had it and as its replies have it."""

    source: str
    destination: str
    reply_source: str
    reply_destination: str


@dataclass(frozen=True)
class Plan:
    up: bool
    interfaces: tuple[Interface, ...]
    routes: tuple[Hop, ...]
    table: str  # the body of the nftables table `inet cumulet`
    sysctls: Mapping[str, str]
    floating: tuple[str, ...]  # ids of the floating IPs that are in place when all this is
    refused: tuple[str, ...]
    fixed: Mapping[str, str] = field(default_factory=dict)  # by floating address
    gateway: str = ""  # the address that hides all others
    advertising: tuple[str, ...] = ()  # the arguments of the dnsmasq that advertises; none: nothing to advertise

    def stale(self, flow: Flow) -> bool:
        """Whether a connection is translated in a way that is no longer wanted, so that it has to end."""
        meant = self.fixed.get(flow.destination, flow.destination)
        if flow.reply_source != meant and flow.destination != METADATA:
            return True
        if flow.reply_destination == flow.source:
            return False
        return flow.reply_destination != self.gateway and self.fixed.get(flow.reply_destination) != flow.source


def plan(intent: RouterIntent) -> Plan:
    """All of the router that ``intent`` describes."""
    refused: list[str] = []
    floating = _translations(intent, refused) if intent.admin_up else []
    external = intent.external
    inside = [_interface(port, "qr-", (), refused) for port in intent.interfaces]
    interfaces = list(inside)
    if external:
        interfaces.append(_interface(external, "qg-", [one.floating for one in floating], refused))
    gateway = _first_v4(interfaces[-1]) if external and intent.admin_up else ""
    fixed = {one.floating: one.fixed for one in floating}
    routes = _routes(intent, interfaces, refused) if intent.admin_up else ()
    advertising = advertise.arguments(intent.interfaces, inside, refused) if intent.admin_up else ()
    return Plan(
        up=intent.admin_up,
        interfaces=tuple(interfaces),
        routes=routes,
        table=_table(interfaces, fixed, gateway, intent),
        sysctls={
            **SYSCTLS,
            "net.ipv4.ip_forward": "1" if intent.admin_up else "0",
            "net.ipv6.conf.all.forwarding": "1" if intent.admin_up else "0",
        },
        floating=tuple(sorted(one.id for one in floating)),
        refused=tuple(refused),
        fixed=fixed,
        gateway=gateway,
        advertising=advertising,
    )


def device(prefix: str, port_id: str) -> str:
    """A device name; ValueError if the id is none, for names become text of nftables."""
    if not _ID.fullmatch(port_id):
        raise ValueError(f"not a port id: {port_id!r}")
    return f"{prefix}{port_id[:11]}"


def outer_device(inner: str) -> str:
    """The end on the switch of a router's device, by its name in the namespace."""
    return device_name(inner[3:])


def is_inner_device(name: str) -> bool:
    return name.startswith(("qr-", "qg-"))


def _translations(intent: RouterIntent, refused: list[str]) -> list[FloatingIp]:
    """The floating IPs that can be in place: IPv4 both, each address once."""
    found: dict[str, FloatingIp] = {}
    for one in sorted(intent.floating, key=lambda one: one.id):
        if intent.external is None:
            refused.append(f"floating IP {one.id}: the router has no gateway")
        elif not (_is_v4(one.floating) and _is_v4(one.fixed)):
            refused.append(f"floating IP {one.id}: {one.floating!r} and {one.fixed!r} are not two IPv4 addresses")
        elif one.floating in found:
            refused.append(f"floating IP {one.id}: {one.floating} is that of {found[one.floating].id}")
        else:
            found[one.floating] = one
    return list(found.values())


def _interface(port: RouterPort, prefix: str, more: list[str] | tuple[str, ...], refused: list[str]) -> Interface:
    own = _addresses(port, refused)
    addresses = {str(address) for address in own} | {f"{address}/32" for address in more}
    if prefix == "qr-" and port.metadata_v6:
        addresses.add(f"{METADATA_V6}/64")
    return Interface(
        port_id=port.id,
        outer=device_name(port.id),
        inner=device(prefix, port.id),
        mac=port.mac,
        mtu=port.mtu,
        addresses=frozenset(addresses),
        announced=(*(str(address.ip) for address in own), *more),
    )


def _addresses(port: RouterPort, refused: list[str]) -> list[Address]:
    found: list[Address] = []
    for text in port.ips:
        try:
            found.append(_unscoped(ipaddress.ip_interface(text)))
        except ValueError:
            refused.append(f"port {port.id}: {text!r} is not an address")
    return found


def _first_v4(external: Interface) -> str:
    return next((address for address in external.announced if _is_v4(address)), "")


# ── routes ───────────────────────────────────────────────────────────────────────────────────────────────────


def _routes(intent: RouterIntent, interfaces: list[Interface], refused: list[str]) -> tuple[Hop, ...]:
    """Default routes by the gateways, and the router's extra routes, which come before them."""
    found: dict[str, Hop] = {}
    for destination, via in intent.routes:
        try:
            wanted, hop = ipaddress.ip_network(destination), _unscoped(ipaddress.ip_address(via))
            _unscoped(wanted.network_address)
        except ValueError:
            refused.append(f"not a route: {destination!r} via {via!r}")
            continue
        leaves = _interface_towards(hop, interfaces)
        if leaves is None or wanted.version != hop.version:
            refused.append(f"route to {destination}: next hop {via} is on none of the router's networks")
        elif str(wanted) in found:
            refused.append(f"route to {destination} via {via}: there is another one to the same destination")
        else:
            found[str(wanted)] = Hop(str(wanted), leaves.inner, str(hop))
    on_link = []
    for gateway in _gateways(intent.external, refused):
        everything = "0.0.0.0/0" if gateway.version == 4 else "::/0"
        outside = interfaces[-1]
        if everything not in found:
            found[everything] = Hop(everything, outside.inner, str(gateway))
            if not gateway.is_link_local and _interface_towards(gateway, [outside]) is None:
                on_link.append(Hop(str(ipaddress.ip_network(gateway)), outside.inner))
    return (*on_link, *sorted(found.values()))


def _gateways(external: RouterPort | None, refused: list[str]) -> list[Ip]:
    found = []
    for text in external.gateways if external else ():
        try:
            found.append(_unscoped(ipaddress.ip_address(text)))
        except ValueError:
            refused.append(f"not a gateway: {text!r}")
    return found


def _interface_towards(hop: Ip, interfaces: list[Interface]) -> Interface | None:
    """The interface on whose networks ``hop`` is.  The address that all interfaces share says nothing."""
    for interface in interfaces:
        for text in interface.addresses - {f"{METADATA_V6}/64"}:
            network = ipaddress.ip_interface(text).network
            if hop.version == network.version and hop in network and network.num_addresses > 1:
                return interface
    return None


# ── nftables ─────────────────────────────────────────────────────────────────────────────────────────────────


def _table(interfaces: list[Interface], fixed: dict[str, str], gateway: str, intent: RouterIntent) -> str:
    """The table's text.  It changes whenever the neighbours have to hear news, too."""
    news = "\n".join(f"{one.inner} {one.mac} {' '.join(sorted(one.addresses))}" for one in interfaces)
    lines = [f"# addresses {hashlib.blake2b(news.encode(), digest_size=8).hexdigest()}"]
    outside = interfaces[-1].inner if intent.external else ""
    inside = dict(zip((one.inner for one in interfaces), intent.interfaces, strict=False))
    sides = Sides(inside, outside, intent.external)
    lines += _chain("prerouting", "type nat hook prerouting priority dstnat", "accept", _prerouting(fixed))
    lines += _chain(
        "postrouting",
        "type nat hook postrouting priority srcnat",
        "accept",
        _postrouting(sides, fixed, gateway, intent.snat),
    )
    lines += _chain("input", "type filter hook input priority filter", "accept", _input())
    lines += _chain(
        "forward",
        "type filter hook forward priority filter",
        "drop",
        _forward(sides, intent.snat, fixed) if intent.admin_up else [],
    )
    return "\n".join(lines)


def _chain(name: str, hook: str, policy: str, rules: list[str]) -> list[str]:
    return [f"chain {name} {{", f"  {hook}; policy {policy};", *(f"  {rule}" for rule in rules), "}"]


def _prerouting(fixed: dict[str, str]) -> list[str]:
    rules = [f"dnat ip to ip daddr map {_map(fixed)}"] if fixed else []
    return [
        *rules,
        f'iifname "qr-*" ip daddr {METADATA} tcp dport 80 redirect to :{METADATA_PORT}',
        f'iifname "qr-*" ip6 daddr {METADATA_V6} tcp dport 80 redirect to :{METADATA_PORT}',
    ]


def _postrouting(sides: Sides, fixed: dict[str, str], gateway: str, snat: bool) -> list[str]:
    """First those with a floating IP, then the rest; a server that calls a floating IP of its own router is
    translated too, for the reply must come back by the router.
    """
    rules = []
    outside = sides.outside
    if fixed:
        by_fixed = _map({inside: floating for floating, inside in reversed(fixed.items())})
        rules.append(f'oifname "{outside}" snat ip to ip saddr map {by_fixed}')
        rules.append(f'iifname "qr-*" ct status dnat snat ip to ip saddr map {by_fixed}')
    if gateway and snat:
        rules += scopes.unhidden(sides)
        rules.append(f'iifname "qr-*" oifname "{outside}" snat ip to {gateway} fully-random')
    if gateway:
        rules.append(f'iifname "qr-*" oifname "qr-*" ct status dnat meta nfproto ipv4 snat ip to {gateway}')
    return rules


def _input() -> list[str]:
    """The metadata agent's port answers only what was redirected to it; DHCPv6 is the networks' own affair."""
    return [
        f'iifname "qr-*" ct status dnat tcp dport {METADATA_PORT} accept',
        f"tcp dport {METADATA_PORT} drop",
        f"udp dport {DHCPV6_PORT} drop",
    ]


def _forward(sides: Sides, snat: bool, fixed: dict[str, str]) -> list[str]:
    outside = sides.outside
    known = ["ct state established,related accept"]
    invalid = [f'oifname "{outside}" ct state invalid meta nfproto ipv4 drop'] if outside and snat else []
    if sides.scoped:
        return known + invalid + scopes.forward(sides, snat, fixed.values())
    rules = [*known, 'iifname "qr-*" oifname "qr-*" accept', *invalid]
    if not outside:
        return rules
    rules.append(f'iifname "qr-*" oifname "{outside}" accept')
    rules.append(f'iifname "{outside}" oifname "qr-*" ct status dnat accept')
    inbound = f'iifname "{outside}" oifname "qr-*"'
    rules.append(f"{inbound} meta nfproto ipv6 accept" if snat else f"{inbound} accept")
    return rules


def _map(pairs: dict[str, str]) -> str:
    return "{ " + ", ".join(f"{key} : {value}" for key, value in sorted(pairs.items())) + " }"


_Any = TypeVar("_Any", Ip, Address)


def _unscoped(address: _Any) -> _Any:
    """The address itself; ValueError if it has a zone, which may be any text."""
    if "%" in str(address):
        raise ValueError(f"{address!r} has a zone")
    return address


def _is_v4(text: str) -> bool:
    try:
        return ipaddress.ip_address(text).version == 4
    except ValueError:
        return False
