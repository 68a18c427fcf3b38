"""What dnsmasq is told about one network.  Pure: an intent goes in, files and arguments come out.

Everything that users can choose (names, options, routes) passes a typed writer here: what does not look like
what it should be is left out and named, so that no text becomes a line of configuration of its own.
"""

import ipaddress
import re
from dataclasses import dataclass

from cumulet.neutron.model import METADATA_V4, METADATA_V6, DhcpIntent, Lease, Subnet

METADATA = METADATA_V4
LEASE_SECONDS = 86400
DHCPV6_MODES, SHORTEST_V6 = ("dhcpv6-stateful", "dhcpv6-stateless"), 64
SYSCTLS = {
    f"net.ipv6.conf.{which}.{name}": "0" for which in ("all", "default") for name in ("accept_ra", "accept_dad")
}
"""The server's namespace takes its addresses from the intent alone, whatever routers advertise."""
_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?")
_WORD = re.compile(r"[0-9]+[smhdwSMHDW]?|infinite|ignore")  # means something else to dnsmasq, without a domain
_OPTION = re.compile(r"[a-z0-9][a-z0-9-]{0,40}")
_VALUE = re.compile(r"[^\x00-\x1f\x7f,]{1,255}")
_DOMAIN = re.compile(r"[A-Za-z0-9.-]{1,200}")


@dataclass(frozen=True)
class Plan:
    """``files``: name → content, below the network's directory; ``refused``: what was left out and why."""

    files: dict[str, str]
    arguments: tuple[str, ...]
    refused: tuple[str, ...]


def interface(intent: DhcpIntent) -> tuple[str, str]:
    """The outer and the inner device of this network's DHCP port."""
    return f"tap{intent.port_id[:11]}", f"ns-{intent.port_id[:11]}"


def addresses(intent: DhcpIntent) -> set[str]:
    """The DHCP port's own addresses, and the metadata addresses where they are served here."""
    own = set(intent.ips)
    if intent.metadata_isolated:
        own.add(f"{METADATA}/32")
        own |= {f"{METADATA_V6}/64"} if intent.metadata_v6 else set()
    return own


def plan(intent: DhcpIntent, directory: str, servers: tuple[str, ...]) -> Plan:
    """dnsmasq's files and arguments for ``intent``; ``servers``: where it asks for names it does not know."""
    refused: list[str] = []
    served = [subnet for subnet in intent.subnets if _has_leases(subnet, refused)]
    domain = intent.domain if _DOMAIN.fullmatch(intent.domain) else ""
    leases = sorted(intent.leases, key=lambda lease: lease.port_id)
    own = [str(ipaddress.ip_interface(ip).ip) for ip in intent.ips]
    hosts = [line for lease in leases for line in _host_lines(lease, served, domain, refused)]
    names = [line for lease in leases for line in _name_lines(lease, domain)]
    options = [line for subnet in served for line in _subnet_options(subnet, own, intent, refused)]
    options += [line for lease in leases for line in _lease_options(lease, refused)]
    files = {"hosts": _text(hosts), "names": _text(names), "options": _text(options)}
    return Plan(files, tuple(_arguments(intent, directory, served, domain, servers)), tuple(refused))


def _has_leases(subnet: Subnet, refused: list[str]) -> bool:
    """Whether dnsmasq has something to say to the subnet's ports: not where they make their own addresses, or where
    the subnet's mode leaves that to somebody outside of the cloud.
    """
    if not subnet.dhcp:
        return False
    try:
        block = ipaddress.ip_network(subnet.cidr)
    except ValueError:
        refused.append(f"subnet {subnet.id}: not a prefix: {subnet.cidr!r}")
        return False
    if block.version == 4:
        return True
    if subnet.ipv6_address_mode not in DHCPV6_MODES and (subnet.ipv6_address_mode or subnet.ipv6_ra_mode):
        return False
    if block.prefixlen < SHORTEST_V6:
        refused.append(f"subnet {subnet.id}: DHCPv6 needs a prefix of {SHORTEST_V6} bits or more")
        return False
    return True


def _host_lines(lease: Lease, served: list[Subnet], domain: str, refused: list[str]) -> list[str]:
    lines = []
    tags = f"set:port-{lease.port_id}," if lease.options else ""
    for ip in lease.ips:
        address = ipaddress.ip_address(ip)
        if not any(address in ipaddress.ip_network(subnet.cidr) for subnet in served):
            continue
        shown = f"[{ip}]" if address.version == 6 else ip
        lines.append(f"{lease.mac},{tags}{_full_name(_hostname(lease, ip, domain), domain)},{shown}")
    if lease.hostname and not _NAME.fullmatch(lease.hostname):
        refused.append(f"port {lease.port_id}: its name is not a host name")
    return lines


def _name_lines(lease: Lease, domain: str) -> list[str]:
    found = []
    for ip in lease.ips:
        name = _hostname(lease, ip, domain)
        found.append(f"{ip}\t{_full_name(name, domain)} {name}" if domain else f"{ip}\t{name}")
    return found


def _hostname(lease: Lease, ip: str, domain: str) -> str:
    if _NAME.fullmatch(lease.hostname) and (domain or not _WORD.fullmatch(lease.hostname)):
        return lease.hostname
    return "host-" + ip.replace(".", "-").replace(":", "-").strip("-")


def _full_name(name: str, domain: str) -> str:
    return f"{name}.{domain}" if domain else name


def _subnet_options(subnet: Subnet, own: list[str], intent: DhcpIntent, refused: list[str]) -> list[str]:
    block = ipaddress.ip_network(subnet.cidr)
    here = [ip for ip in own if ipaddress.ip_address(ip) in block]
    tag = f"tag:{_tag(subnet)}"
    dns = [server for server in subnet.dns if _is_address(server, block.version)] or here
    gateway = subnet.gateway if _is_address(subnet.gateway, block.version) else ""
    if block.version == 6:
        lines = [f"{tag},option6:dns-server,{','.join(f'[{server}]' for server in dns)}"] if dns else []
        domain = intent.domain if _DOMAIN.fullmatch(intent.domain) else ""
        return [*lines, f"{tag},option6:domain-search,{domain}"] if domain else lines
    lines = [f"{tag},option:dns-server,{','.join(dns)}"] if dns else []
    routes = []
    if intent.metadata_isolated and here:
        routes += [f"{METADATA}/32", here[0]]
    for destination, hop in subnet.routes:
        if _is_network(destination, 4) and _is_address(hop, 4):
            routes += [destination, hop]
        else:
            refused.append(f"subnet {subnet.id}: not a route: {destination!r} via {hop!r}")
    if routes and gateway:
        routes += ["0.0.0.0/0", gateway]
    if routes:
        lines += [f"{tag},option:classless-static-route,{','.join(routes)}", f"{tag},249,{','.join(routes)}"]
    lines.append(f"{tag},option:router,{gateway}" if gateway else f"{tag},option:router")
    return lines


def _lease_options(lease: Lease, refused: list[str]) -> list[str]:
    lines = []
    for name, value, version in lease.options:
        if not (_OPTION.fullmatch(name) and _VALUE.fullmatch(value)):
            refused.append(f"port {lease.port_id}: option {name!r} cannot be written")
            continue
        keyword = "option6:" if version == 6 else "option:"
        written = name if name.isdigit() and version == 4 else keyword + name
        lines.append(f"tag:port-{lease.port_id},{written},{value}")
    return lines


def _arguments(
    intent: DhcpIntent, directory: str, served: list[Subnet], domain: str, servers: tuple[str, ...]
) -> list[str]:
    found = [
        "dnsmasq",
        "--conf-file=",
        "--no-hosts",
        "--no-resolv",
        "--bind-dynamic",
        f"--interface={interface(intent)[1]}",
        "--except-interface=lo",
        f"--dhcp-hostsfile={directory}/hosts",
        f"--addn-hosts={directory}/names",
        f"--dhcp-optsfile={directory}/options",
        f"--dhcp-leasefile={directory}/leases",
        "--dhcp-authoritative",
        f"--dhcp-option-force=option:mtu,{intent.mtu}",
        "--dhcp-lease-max=16777216",
    ]
    if domain:
        found += [f"--domain={domain}", f"--local=/{domain}/"]
    found += [f"--server={server}" for server in servers if _is_address(server, 4) or _is_address(server, 6)]
    return found + [_range(subnet) for subnet in served]


def _range(subnet: Subnet) -> str:
    block = ipaddress.ip_network(subnet.cidr)
    start = f"--dhcp-range=set:{_tag(subnet)},{block.network_address},static"
    if block.version == 4:
        return f"{start},{block.netmask},{LEASE_SECONDS}s"
    return f"{start},{block.prefixlen},{LEASE_SECONDS}s"


def _tag(subnet: Subnet) -> str:
    return f"subnet-{subnet.id}"


def _text(lines: list[str]) -> str:
    return "".join(f"{line}\n" for line in lines)


def _is_address(text: str, version: int) -> bool:
    """An address without a zone: that may be any text, and the library takes it."""
    try:
        return ipaddress.ip_address(text).version == version and "%" not in text
    except ValueError:
        return False


def _is_network(text: str, version: int) -> bool:
    try:
        return ipaddress.ip_network(text).version == version and "%" not in text
    except ValueError:
        return False
