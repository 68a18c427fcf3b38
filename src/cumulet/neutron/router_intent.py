"""What the L3 agent of one host has to know of its routers, in a constant number of queries."""

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from msgspec.structs import replace
from sqlalchemy.engine import Row

from cumulet.core.db import Transaction
from cumulet.neutron.dhcp_intent import with_length
from cumulet.neutron.model import Advertised, FloatingIp, RouterIntent, RouterPort
from cumulet.neutron.standard import grouped
from cumulet.neutron.tables import (
    dhcp_bindings,
    floatingips,
    networks,
    port_addresses,
    ports,
    router_bindings,
    routers,
    subnet_pools,
    subnets,
)

GATEWAY, INTERFACE = "network:router_gateway", "network:router_interface"
_MINE = sa.select(router_bindings.c.router_id).where(
    router_bindings.c.host == sa.bindparam("host"), router_bindings.c.wanted == "run"
)
_PORTS = sa.select(ports.c.id).where(ports.c.device_id.in_(_MINE), ports.c.device_owner.in_([GATEWAY, INTERFACE]))
BINDINGS = sa.select(router_bindings).where(router_bindings.c.host == sa.bindparam("host"))
ROUTERS = sa.select(routers).where(routers.c.id.in_(_MINE))
PORTS = (
    sa.select(ports, networks.c.mtu)
    .join(networks, networks.c.id == ports.c.network_id)
    .where(ports.c.id.in_(_PORTS))
    .order_by(ports.c.created_at, ports.c.id)
)
ADDRESSES = (
    sa.select(port_addresses).where(port_addresses.c.port_id.in_(_PORTS)).order_by(port_addresses.c.position)
)
SUBNETS = (
    sa.select(subnets, subnet_pools.c.address_scope_id)
    .join_from(subnets, subnet_pools, subnets.c.subnetpool_id == subnet_pools.c.id, isouter=True)
    .where(subnets.c.id.in_(sa.select(port_addresses.c.subnet_id).where(port_addresses.c.port_id.in_(_PORTS))))
)
FLOATING = (
    sa.select(floatingips)
    .where(floatingips.c.router_id.in_(_MINE), floatingips.c.port_id.is_not(None))
    .order_by(floatingips.c.id)
)
_NETWORKS = sa.select(ports.c.network_id).where(ports.c.id.in_(_PORTS))
FIRST = (
    sa.select(ports.c.id, ports.c.network_id)
    .where(ports.c.network_id.in_(_NETWORKS), ports.c.device_owner == INTERFACE)
    .order_by(ports.c.created_at.desc(), ports.c.id.desc())
)
SERVED = sa.select(dhcp_bindings.c.network_id).where(
    dhcp_bindings.c.network_id.in_(_NETWORKS), dhcp_bindings.c.wanted == "run"
)
Rows = dict[str, list[Row[Any]]]


def router_intents(tx: Transaction, host: str) -> dict[str, RouterIntent]:
    """Each router of ``host``, and each that it should take away."""
    here = {"host": host}
    bindings = tx.all(BINDINGS, here)
    if not bindings:
        return {}
    known = {row.id: row for row in tx.all(ROUTERS, here)}
    devices = grouped(tx.all(PORTS, here), "device_id")
    ips = grouped(tx.all(ADDRESSES, here), "port_id")
    nets = {row.id: row for row in tx.all(SUBNETS, here)}
    floating = grouped(tx.all(FLOATING, here), "router_id")
    answers = _answering(tx, here)
    return {
        row.router_id: _intent(row, known[row.router_id], devices, ips, nets, floating, answers)
        if row.wanted == "run" and row.router_id in known
        else RouterIntent(row.router_id, row.generation, absent=True, seen_generation=row.seen_generation)
        for row in sorted(bindings, key=lambda row: str(row.router_id))
    }


def _answering(tx: Transaction, here: dict[str, str]) -> set[str]:
    """The ports that have the shared address of the metadata service, which one place of a network may have: where
    there is a DHCP server, it; else the oldest of the routers.
    """
    oldest = {row.network_id: row.id for row in tx.all(FIRST, here)}
    return set(oldest.values()) - {oldest.get(row.network_id, "") for row in tx.all(SERVED, here)}


def _intent(
    binding: Row[Any],
    router: Row[Any],
    devices: Rows,
    ips: Rows,
    nets: dict[str, Row[Any]],
    floating: Rows,
    answers: set[str],
) -> RouterIntent:
    mine = [_port(row, ips.get(row.id, []), nets) for row in devices.get(router.id, [])]
    external = next((port for port in mine if port.id == router.gateway_port_id), None)
    return RouterIntent(
        id=router.id,
        generation=binding.generation,
        absent=False,
        seen_generation=binding.seen_generation,
        admin_up=router.admin_up,
        external=external,
        snat=router.snat,
        interfaces=tuple(
            _inside(port, ips.get(port.id, ()), nets, port.id in answers)
            for port in mine
            if port.id != router.gateway_port_id
        ),
        floating=tuple(FloatingIp(row.id, row.floating_ip, row.fixed_ip) for row in floating.get(router.id, ())),
        routes=tuple((route["destination"], route["nexthop"]) for route in router.routes),
    )


def _port(row: Row[Any], addresses: list[Row[Any]], nets: dict[str, Row[Any]]) -> RouterPort:
    within = [nets[address.subnet_id] for address in addresses]
    scopes = {subnet.ip_version: subnet.address_scope_id or "" for subnet in within}
    return RouterPort(
        id=row.id,
        network_id=row.network_id,
        mac=row.mac,
        ips=tuple(with_length(address, nets) for address in addresses),
        mtu=row.mtu,
        gateways=tuple(subnet.gateway_ip for subnet in within if subnet.gateway_ip),
        scope_v4=scopes.get(4, ""),
        scope_v6=scopes.get(6, ""),
    )


def _inside(
    port: RouterPort, addresses: Sequence[Row[Any]], nets: dict[str, Row[Any]], answers: bool
) -> RouterPort:
    """An internal interface: no default route leaves by it; it may tell its subnets of itself."""
    told = [nets[address.subnet_id] for address in addresses]
    return replace(
        port,
        gateways=(),
        advertised=tuple(
            Advertised(subnet.id, subnet.cidr, subnet.ipv6_ra_mode, tuple(subnet.dns_servers))
            for subnet in told
            if subnet.ipv6_ra_mode
        ),
        metadata_v6=answers,
    )
