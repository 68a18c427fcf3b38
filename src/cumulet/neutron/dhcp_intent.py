"""What the DHCP agent of one host has to know of its networks, in a constant number of queries."""

from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Row

from cumulet.core.db import Transaction
from cumulet.neutron.model import DhcpIntent, Lease, Subnet
from cumulet.neutron.standard import grouped
from cumulet.neutron.tables import dhcp_bindings, networks, port_addresses, ports, subnets

_SERVED = sa.select(dhcp_bindings.c.network_id).where(
    dhcp_bindings.c.host == sa.bindparam("host"), dhcp_bindings.c.wanted == "run"
)
BINDINGS = sa.select(dhcp_bindings).where(dhcp_bindings.c.host == sa.bindparam("host"))
SERVERS = sa.select(dhcp_bindings.c.network_id, dhcp_bindings.c.host).where(
    dhcp_bindings.c.network_id.in_(_SERVED), dhcp_bindings.c.wanted == "run"
)
NETWORKS = sa.select(networks).where(networks.c.id.in_(_SERVED))
SUBNETS = sa.select(subnets).where(subnets.c.network_id.in_(_SERVED)).order_by(subnets.c.created_at, subnets.c.id)
PORTS = (
    sa.select(ports)
    .where(ports.c.network_id.in_(_SERVED), ports.c.device_owner.not_like("network:router%"))
    .order_by(ports.c.created_at, ports.c.id)
)
ADDRESSES = (
    sa.select(port_addresses).where(port_addresses.c.network_id.in_(_SERVED)).order_by(port_addresses.c.position)
)
Rows = dict[str, list[Row[Any]]]


def dhcp_intents(tx: Transaction, host: str, default_domain: str) -> dict[str, DhcpIntent]:
    """Each network that ``host`` serves, and each that it should stop to serve."""
    here = {"host": host}
    bindings = tx.all(BINDINGS, here)
    if not bindings:
        return {}
    known = {row.id: row for row in tx.all(NETWORKS, here)}
    servers = grouped(tx.all(SERVERS, here), "network_id")
    nets = grouped(tx.all(SUBNETS, here), "network_id")
    owners, ips = grouped(tx.all(PORTS, here), "network_id"), grouped(tx.all(ADDRESSES, here), "port_id")
    return {
        row.network_id: _intent(row, known[row.network_id], nets, owners, ips, servers, default_domain)
        if row.wanted == "run" and row.network_id in known
        else _tombstone(row)
        for row in sorted(bindings, key=lambda row: str(row.network_id))
    }


def _tombstone(binding: Row[Any]) -> DhcpIntent:
    return DhcpIntent(
        network_id=binding.network_id,
        generation=binding.generation,
        absent=True,
        seen_generation=binding.seen_generation,
        port_id=binding.port_id,
    )


def _intent(
    binding: Row[Any],
    network: Row[Any],
    nets: Rows,
    owners: Rows,
    ips: Rows,
    servers: Rows,
    default_domain: str,
) -> DhcpIntent:
    mine = nets.get(network.id, [])
    by_id = {subnet.id: subnet for subnet in mine}
    there = owners.get(network.id, [])
    port = next((row for row in there if row.id == binding.port_id), None)
    served = {subnet.id for subnet in mine if subnet.dhcp}
    return DhcpIntent(
        network_id=network.id,
        generation=binding.generation,
        absent=False,
        seen_generation=binding.seen_generation,
        port_id=binding.port_id,
        mac=port.mac if port else "",
        ips=tuple(with_length(row, by_id) for row in ips.get(binding.port_id, ())),
        mtu=network.mtu,
        domain=network.dns_domain.rstrip(".") or default_domain,
        subnets=tuple(_subnet(subnet) for subnet in mine),
        leases=tuple(
            _lease(row, [a.ip for a in ips.get(row.id, ()) if a.subnet_id in served])
            for row in there
            if not row.device_owner.startswith("network:")
        ),
        metadata_v6=binding.host == min(server.host for server in servers[network.id]),
    )


def with_length(address: Row[Any], by_id: dict[str, Row[Any]]) -> str:
    """An address with the prefix length of its subnet."""
    return f"{address.ip}/{by_id[address.subnet_id].cidr.partition('/')[2]}"


def _subnet(row: Row[Any]) -> Subnet:
    return Subnet(
        id=row.id,
        cidr=row.cidr,
        ip_version=row.ip_version,
        dhcp=row.dhcp,
        gateway=row.gateway_ip or "",
        dns=tuple(row.dns_servers),
        routes=tuple((route["destination"], route["nexthop"]) for route in row.routes),
        ipv6_address_mode=row.ipv6_address_mode or "",
        ipv6_ra_mode=row.ipv6_ra_mode or "",
    )


def _lease(row: Row[Any], ips: list[str]) -> Lease:
    return Lease(
        port_id=row.id,
        mac=row.mac,
        ips=tuple(ips),
        hostname=host_of(row.dns_name, ips[0] if ips else ""),
        options=tuple(
            (option["opt_name"], option["opt_value"], option["ip_version"]) for option in row.dhcp_options
        ),
    )


def host_of(dns_name: str, ip: str) -> str:
    """The name that DNS gives an address: the port's own, else one made from the address."""
    if dns_name:
        return dns_name.partition(".")[0]
    return f"host-{ip.replace('.', '-').replace(':', '-')}" if ip else ""
