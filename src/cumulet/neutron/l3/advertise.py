"""What a router tells its IPv6 networks about itself: router advertisements, by one dnsmasq per router.  Pure.

dnsmasq is told to advertise only.  The DHCPv6 that the advertisements of some modes speak of is the network's own
dnsmasq's; what this one would answer never leaves (the router's rules drop the question).  A subnet that cannot be
advertised is left out and named, so that it spoils neither the others nor the router.
"""

import ipaddress
import re
from collections.abc import Sequence
from ipaddress import IPv6Network
from typing import Protocol

from cumulet.neutron.model import Advertised, RouterPort

INTERVAL_SECONDS, ROUTER_SECONDS, PREFIX_SECONDS = 60, 1800, 86400
WHOLE = 64
MODES = {"slaac": "ra-only", "dhcpv6-stateless": "ra-stateless", "dhcpv6-stateful": "static"}
_ID = re.compile(r"[0-9A-Za-z-]{1,36}")
BASE = (
    "dnsmasq",
    "--conf-file=",
    "--no-hosts",
    "--no-resolv",
    "--port=0",
    "--bind-dynamic",
    "--except-interface=lo",
    "--leasefile-ro",
    "--enable-ra",
)


class Device(Protocol):
    @property
    def inner(self) -> str: ...


def arguments(ports: Sequence[RouterPort], devices: Sequence[Device], refused: list[str]) -> tuple[str, ...]:
    """dnsmasq's arguments; none if there is nothing to advertise.  ``devices`` are those of ``ports``."""
    found: list[str] = []
    for port, device in zip(ports, devices, strict=True):
        told = [line for one in port.advertised for line in _prefix(one, port, refused)]
        if told:
            found += [
                f"--interface={device.inner}",
                f"--ra-param={device.inner},mtu:{port.mtu},{INTERVAL_SECONDS},{ROUTER_SECONDS}",
                *told,
            ]
    return (*BASE, *found) if found else ()


def _prefix(one: Advertised, port: RouterPort, refused: list[str]) -> list[str]:
    try:
        network = IPv6Network(one.cidr)
    except ValueError:
        refused.append(f"subnet {one.subnet_id}: not an IPv6 prefix: {one.cidr!r}")
        return []
    wrong = _fault(one, port, network)
    if wrong:
        refused.append(f"subnet {one.subnet_id}: {wrong}")
        return []
    tag = f"subnet-{one.subnet_id}"
    here = f"{network.network_address},{MODES[one.mode]},{network.prefixlen},{PREFIX_SECONDS}s"
    lines = [f"--dhcp-range=set:{tag},{here}"]
    servers = ",".join(f"[{server}]" for server in one.dns if _is_address(server))
    return [*lines, f"--dhcp-option=tag:{tag},option6:dns-server,{servers}"] if servers else lines


def _fault(one: Advertised, port: RouterPort, network: IPv6Network) -> str:
    """Why the subnet cannot be advertised; dnsmasq would not start with it."""
    if not _ID.fullmatch(one.subnet_id):
        return "not an id"
    if one.mode not in MODES:
        return f"unknown mode {one.mode!r}"
    if network.prefixlen < WHOLE or (network.prefixlen != WHOLE and one.mode != "dhcpv6-stateful"):
        return f"router advertisements of mode {one.mode} need a prefix of {WHOLE} bits, not {network.prefixlen}"
    if not any(_inside(ip, network) for ip in port.ips):
        return "the router has no address in it"
    return ""


def _inside(text: str, network: IPv6Network) -> bool:
    try:
        return ipaddress.ip_interface(text).ip in network
    except ValueError:
        return False


def _is_address(text: str) -> bool:
    try:
        return ipaddress.ip_address(text).version == 6 and "%" not in text
    except ValueError:
        return False
