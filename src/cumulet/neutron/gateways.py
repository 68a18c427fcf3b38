"""A router's way out: its port on an external network."""

from collections.abc import Sequence
from typing import Annotated, Any

import sqlalchemy as sa
from msgspec import UNSET, Meta, UnsetType
from sqlalchemy.engine import Row

from cumulet.core.db import Transaction
from cumulet.core.errors import BadRequest, Conflict
from cumulet.core.http import Request
from cumulet.core.schema import Strict
from cumulet.neutron import addresses, bindings, checks, ipam, port_rows
from cumulet.neutron.addresses import Wish
from cumulet.neutron.checks import IdText
from cumulet.neutron.networks import get_network
from cumulet.neutron.port_rows import PORTS, NewPort
from cumulet.neutron.port_values import FixedIp
from cumulet.neutron.router_intent import GATEWAY, INTERFACE
from cumulet.neutron.tables import floatingips, networks, port_addresses, ports, routers, subnets


class GatewayInfo(Strict):
    network_id: IdText | UnsetType | None = UNSET
    enable_snat: bool | UnsetType = UNSET
    external_fixed_ips: Annotated[list[FixedIp], Meta(max_length=16)] | UnsetType | None = UNSET


def enforce(request: Request, action: str, info: Any, about: dict[str, Any]) -> None:
    """The rules of the gateway's own attributes."""
    for name in ("network_id", "enable_snat", "external_fixed_ips"):
        if isinstance(info, GatewayInfo) and getattr(info, name) is not UNSET:
            request.enforce(f"{action}:external_gateway_info:{name}", about)


def set_gateway(tx: Transaction, request: Request, router: Row[Any], info: GatewayInfo | None) -> None:
    """Give the router this gateway, change the one it has, or take it away (None or empty)."""
    before = tx.find(PORTS.where(ports.c.id == router.gateway_port_id)) if router.gateway_port_id else None
    if info is None or not (info.network_id or info.enable_snat is not UNSET or info.external_fixed_ips):
        if before is not None:
            clear_gateway(tx, request, router, before)
        return
    if not info.network_id:
        raise bad_router("network_id must be specified for the external gateway")
    network = get_network(tx, request, info.network_id)
    if not network.external:
        raise bad_router(f"Network {network.id} is not an external network")
    wishes = _wishes(info)
    if before is not None and before.network_id != network.id:
        clear_gateway(tx, request, router, before)
        before = None
    port_id = before.id if before is not None else _create(tx, request, router, network, wishes)
    if before is not None and wishes is not None:
        port_rows.set_addresses(tx, before, wishes, addresses.subnets_of(tx, network.id))
    _check_overlap(tx, router.id, port_id)
    snat = router.snat if info.enable_snat is UNSET else info.enable_snat
    tx.write(sa.update(routers).where(routers.c.id == router.id).values(gateway_port_id=port_id, snat=snat))


def clear_gateway(tx: Transaction, request: Request, router: Row[Any], port: Row[Any]) -> None:
    """Take the gateway away; 409 while floating IPs go through it."""
    used = sa.select(floatingips.c.id).where(
        floatingips.c.router_id == router.id, floatingips.c.floating_network_id == port.network_id
    )
    if tx.find(used):
        raise Conflict(
            f"Gateway cannot be updated for router {router.id}, since a gateway to external network "
            f"{port.network_id} is required by one or more floating IPs.",
            kind="RouterExternalGatewayInUseByFloatingIp",
        )
    tx.write(sa.update(routers).where(routers.c.id == router.id).values(gateway_port_id=None, snat=True))
    port_rows.delete_port_rows(tx, request.context, [port])


def _create(
    tx: Transaction, request: Request, router: Row[Any], network: Row[Any], wishes: Sequence[Wish] | None
) -> str:
    values = {"device_id": router.id, "device_owner": GATEWAY, "port_security": False}
    host = bindings.ensure_router(tx, request.config, router.id)
    return port_rows.create_port_row(tx, NewPort(network, "", values, wishes, host=host))


def _wishes(info: GatewayInfo) -> list[Wish] | None:
    if not info.external_fixed_ips:
        return None
    return [
        Wish(fixed.subnet_id or "", checks.ip(fixed.ip_address) if fixed.ip_address else "")
        for fixed in info.external_fixed_ips
    ]


def _check_overlap(tx: Transaction, router_id: str, port_id: str) -> None:
    mine = _subnets_of_port(tx, port_id)
    for other in connected_subnets(tx, router_id):
        for subnet in mine:
            if other.port_id != port_id:
                check_apart(subnet, other)


def _subnets_of_port(tx: Transaction, port_id: str) -> Sequence[Row[Any]]:
    return tx.all(
        sa.select(subnets)
        .join(port_addresses, port_addresses.c.subnet_id == subnets.c.id)
        .where(port_addresses.c.port_id == port_id)
    )


def connected_subnets(tx: Transaction, router_id: str) -> Sequence[Row[Any]]:
    """The subnets that the router stands in, with the port and address it has there."""
    return tx.all(
        sa.select(subnets, port_addresses.c.port_id, port_addresses.c.ip, ports.c.device_owner)
        .join(port_addresses, port_addresses.c.subnet_id == subnets.c.id)
        .join(ports, ports.c.id == port_addresses.c.port_id)
        .where(ports.c.device_id == router_id, ports.c.device_owner.in_([GATEWAY, INTERFACE]))
    )


def check_apart(subnet: Row[Any], other: Row[Any]) -> None:
    """A router cannot tell apart two subnets that overlap."""
    if subnet.id == other.id:
        raise bad_router(f"Router already has a port on subnet {subnet.id}")
    if ipam.overlapping(subnet.cidr, other.cidr):
        raise bad_router(
            f"Cidr {subnet.cidr} of subnet {subnet.id} overlaps with cidr {other.cidr} of subnet {other.id}"
        )


def gateway_views(tx: Transaction, port_ids: Sequence[str]) -> dict[str, dict[str, Any]]:
    """``network_id`` and ``external_fixed_ips`` of gateway ports, by port."""
    if not port_ids:
        return {}
    found: dict[str, dict[str, Any]] = {}
    of = sa.select(ports.c.id, ports.c.network_id).join(networks, networks.c.id == ports.c.network_id)
    for row in tx.all(of.where(ports.c.id.in_(port_ids))):
        found[row.id] = {"network_id": row.network_id, "external_fixed_ips": []}
    places = sa.select(port_addresses).where(port_addresses.c.port_id.in_(port_ids))
    for row in tx.all(places.order_by(port_addresses.c.position)):
        found[row.port_id]["external_fixed_ips"].append({"subnet_id": row.subnet_id, "ip_address": row.ip})
    return found


def bad_router(reason: str) -> BadRequest:
    return BadRequest(f"Bad router request: {reason}.", kind="BadRouterRequest")
