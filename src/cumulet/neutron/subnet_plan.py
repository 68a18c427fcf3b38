"""What a subnet's definition must fulfil, and what it is when the caller leaves things out.  Pure."""

from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from itertools import pairwise
from typing import Any

from msgspec import UNSET

from cumulet.core.errors import BadRequest, Conflict
from cumulet.core.schema import Strict
from cumulet.neutron import checks, ipam
from cumulet.neutron.checks import bad

AUTOMATIC = ("slaac", "dhcpv6-stateless")


class HostRoute(Strict):
    destination: str
    nexthop: str


class Pool(Strict):
    start: str
    end: str


@dataclass(frozen=True)
class Plan:
    """A subnet as it shall be."""

    cidr: str
    ip_version: int
    gateway_ip: str | None
    dhcp: bool
    ipv6_address_mode: str | None
    ipv6_ra_mode: str | None
    pools: list[dict[str, str]]
    dns_servers: list[str]
    routes: list[dict[str, str]]

    def columns(self) -> dict[str, Any]:
        return dict(vars(self))


def new_plan(body: Any) -> Plan:
    """The subnet that a POST defines."""
    if not body.cidr:
        raise BadRequest("a subnetpool must be specified in the absence of a cidr", kind="BadRequest")
    cidr = checks.prefix(body.cidr, strict=True, mask=True)
    network = ip_network(cidr)
    if body.ip_version not in (4, 6):
        raise bad(f"'{body.ip_version}' is not in [4, 6]: ip_version")
    if network.version != body.ip_version:
        raise bad(f"The requested cidr {cidr} does not match ip_version '{body.ip_version}'")
    if network.is_multicast or network.is_loopback or (network.version == 4 and network.prefixlen == 0):
        raise bad(f"Invalid CIDR {cidr}: a subnet cannot be there")
    if network.version == 6 and network.is_link_local:
        raise bad(f"Invalid CIDR {cidr}: it is link-local")
    dhcp = True if body.enable_dhcp is UNSET else body.enable_dhcp
    address_mode, ra_mode = _modes(body, network.prefixlen, dhcp)
    gateway = ipam.default_gateway(cidr) if body.gateway_ip is UNSET else _gateway(body.gateway_ip, cidr)
    if dhcp and network.version == 4 and network.num_addresses < 4:
        raise bad(f"The requested subnet {cidr} is too small for DHCP")
    pools = body.allocation_pools or []
    return Plan(
        cidr,
        body.ip_version,
        gateway,
        dhcp,
        address_mode,
        ra_mode,
        _pools(pools, cidr, gateway, given=bool(pools)),
        _servers(body.dns_nameservers or []),
        _routes(body.host_routes or [], body.ip_version),
    )


def changed_plan(row: Any, body: Any) -> Plan:
    """The subnet ``row`` with the changes of a PUT."""
    gateway = row.gateway_ip if body.gateway_ip is UNSET else _gateway(body.gateway_ip, row.cidr)
    dhcp = row.dhcp if body.enable_dhcp is UNSET else body.enable_dhcp
    if not dhcp and (row.ipv6_address_mode or row.ipv6_ra_mode):
        raise bad("ipv6_ra_mode or ipv6_address_mode cannot be set when enable_dhcp is set to False")
    pools = row.pools
    if body.allocation_pools:
        pools = _pools(body.allocation_pools, row.cidr, gateway, given=True)
    elif gateway != row.gateway_ip and gateway is not None:
        _gateway_outside(pools, gateway)
    return Plan(
        row.cidr,
        row.ip_version,
        gateway,
        dhcp,
        row.ipv6_address_mode,
        row.ipv6_ra_mode,
        pools,
        row.dns_servers if body.dns_nameservers is UNSET else _servers(body.dns_nameservers or []),
        row.routes if body.host_routes is UNSET else _routes(body.host_routes or [], row.ip_version),
    )


def _modes(body: Any, length: int, dhcp: bool) -> tuple[str | None, str | None]:
    address_mode, ra_mode = body.ipv6_address_mode or None, body.ipv6_ra_mode or None
    if not (address_mode or ra_mode):
        return None, None
    if body.ip_version == 4:
        raise bad("ipv6_ra_mode and ipv6_address_mode can not be set when ip_version is 4")
    if not dhcp:
        raise bad("ipv6_ra_mode or ipv6_address_mode cannot be set when enable_dhcp is set to False")
    if address_mode and ra_mode and address_mode != ra_mode:
        raise bad(
            f"ipv6_ra_mode set to '{ra_mode}' with ipv6_address_mode set to '{address_mode}' is not valid. "
            "If both attributes are set, they must be the same value"
        )
    if AUTOMATIC.count(address_mode or ra_mode or "") and length != 64:
        raise bad(f"Invalid CIDR {body.cidr} for IPv6 address mode. OpenStack uses the EUI-64 address format, "
                  "which requires the prefix to be /64")  # fmt: skip
    return address_mode, ra_mode


def _gateway(text: str | None, cidr: str) -> str | None:
    if text is None:
        return None
    gateway = checks.ip(text)
    if ip_address(gateway).version != ip_network(cidr).version or not checks.usable_gateway(cidr, gateway):
        raise bad(f"Gateway is not valid on subnet: {gateway} is not a usable address of {cidr}")
    return gateway


def _pools(given_pools: list[Pool], cidr: str, gateway: str | None, *, given: bool) -> list[dict[str, str]]:
    if not given:
        return [{"start": start, "end": end} for start, end in ipam.default_pools(cidr, gateway)]
    version = ip_network(cidr).version
    pools = [{"start": checks.ip(pool.start, version), "end": checks.ip(pool.end, version)} for pool in given_pools]
    for pool in pools:
        span = f"{pool['start']}-{pool['end']}"
        if int(ip_address(pool["start"])) > int(ip_address(pool["end"])):
            raise BadRequest(f"The allocation pool {span} is not valid.", kind="InvalidAllocationPool")
        if not (ipam.inside(cidr, pool["start"]) and ipam.inside(cidr, pool["end"])):
            raise BadRequest(
                f"The allocation pool {span} spans beyond the subnet cidr {cidr}.", kind="OutOfBoundsAllocationPool"
            )
    pools.sort(key=lambda pool: int(ip_address(pool["start"])))
    for one, other in pairwise(pools):
        if int(ip_address(other["start"])) <= int(ip_address(one["end"])):
            raise Conflict(
                f"Found overlapping allocation pools: {one['start']}-{one['end']}, {other['start']}-{other['end']} "
                f"for subnet {cidr}.",
                kind="OverlappingAllocationPools",
            )
    if gateway is not None:
        _gateway_outside(pools, gateway)
    return pools


def _gateway_outside(pools: list[dict[str, str]], gateway: str) -> None:
    number = ip_address(gateway)
    for pool in pools:
        start, end = ip_address(pool["start"]), ip_address(pool["end"])
        if int(start) <= int(number) <= int(end):
            raise Conflict(
                f"Gateway ip {gateway} conflicts with allocation pool {start}-{end}.",
                kind="GatewayConflictWithAllocationPools",
            )


def _servers(texts: list[str]) -> list[str]:
    servers = [checks.ip(text) for text in texts]
    checks.distinct(servers, "dns_nameservers")
    return servers


def _routes(routes: list[HostRoute], version: int) -> list[dict[str, str]]:
    found = [checks.route(route.destination, route.nexthop, version) for route in routes]
    checks.distinct(found, "host_routes")
    return found
