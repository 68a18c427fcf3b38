"""/v2.0/routers/{id}/add_router_interface and /remove_router_interface"""

from collections.abc import Sequence
from ipaddress import ip_address, ip_network
from typing import Any

import sqlalchemy as sa
from msgspec import UNSET, UnsetType
from sqlalchemy.engine import Row

from cumulet.core.db import Transaction
from cumulet.core.errors import BadRequest, Conflict, Forbidden, NotFound, Retry
from cumulet.core.http import Request, Route
from cumulet.core.schema import Strict
from cumulet.neutron import addresses, bindings, effects, ipam, notices, port_rows, quotas, standard
from cumulet.neutron.addresses import Wish
from cumulet.neutron.checks import IdText
from cumulet.neutron.gateways import bad_router, check_apart, connected_subnets
from cumulet.neutron.port_rows import PORTS, NewPort
from cumulet.neutron.ports import get_port
from cumulet.neutron.router_intent import INTERFACE
from cumulet.neutron.routers import get_router
from cumulet.neutron.standard import Json
from cumulet.neutron.subnets import get_subnet
from cumulet.neutron.tables import (
    floatingips,
    networks,
    port_addresses,
    port_groups,
    port_pairs,
    ports,
    routers,
    subnets,
)


class Interface(Strict):
    subnet_id: IdText | UnsetType = UNSET
    port_id: IdText | UnsetType = UNSET


def add_interface(request: Request) -> Json:
    body: Interface = request.body
    with request.db.transaction() as tx:
        router = _claimed(tx, request, "add_router_interface")
        if body.subnet_id is UNSET and body.port_id is UNSET:
            raise bad_router("Either subnet_id or port_id must be specified")
        if body.subnet_id is not UNSET and body.port_id is not UNSET:
            raise bad_router("Cannot specify both subnet-id and port-id")
        if isinstance(body.port_id, str):
            port_id, added = _add_port(tx, request, router, body.port_id)
        else:
            port_id, added = _add_subnet(tx, request, router, str(body.subnet_id))
        return _finish(tx, request, router, port_id, added, "create")


def _add_subnet(tx: Transaction, request: Request, router: Row[Any], subnet_id: str) -> tuple[str, list[str]]:
    """An interface at the subnet's gateway address; only the network's owner may put one there."""
    subnet = get_subnet(tx, request, subnet_id)
    if not (standard.sees_all(request) or subnet.network_project_id == router.project_id):
        raise Forbidden(
            f"The subnet {subnet.id} belongs to another project's network: a router is attached there by a port",
            kind="PolicyNotAuthorized",
        )
    if subnet.gateway_ip is None:
        raise bad_router("Subnet for router interface must have a gateway IP")
    for other in connected_subnets(tx, router.id):
        check_apart(subnet, other)
    if ip_address(subnet.gateway_ip) in ip_network(subnet.cidr):
        wish = Wish(subnet.id, subnet.gateway_ip)
    else:
        wish = Wish(subnet.id)
    if (shared := _ipv6_port(tx, router.id, subnet)) is not None:
        available = addresses.subnets_of(tx, subnet.network_id)
        chosen = addresses.choose(tx, subnet.network_id, available, shared.mac, [wish], internal=True)
        addresses.write(tx, subnet.network_id, shared.id, chosen, first=1000)
        return shared.id, [subnet.id]
    quotas.reserve(tx, router.project_id, "port")
    network = tx.find(sa.select(networks).where(networks.c.id == subnet.network_id))
    assert network is not None
    values = {"device_id": router.id, "device_owner": INTERFACE, "port_security": False}
    host = bindings.ensure_router(tx, request.config, router.id)
    new = NewPort(network, router.project_id, values, [wish], host=host)
    return port_rows.create_port_row(tx, new), [subnet.id]


def _ipv6_port(tx: Transaction, router_id: str, subnet: Row[Any]) -> Row[Any] | None:
    """The router's port for the network's other IPv6 subnets: they share one."""
    if subnet.ip_version != 6:
        return None
    mine = tx.all(
        PORTS.where(
            ports.c.device_id == router_id,
            ports.c.device_owner == INTERFACE,
            ports.c.network_id == subnet.network_id,
        )
    )
    for port in mine:
        ips = tx.all(sa.select(port_addresses.c.ip).where(port_addresses.c.port_id == port.id))
        if ips and all(":" in row.ip for row in ips):
            return port
    return None


def _add_port(tx: Transaction, request: Request, router: Row[Any], port_id: str) -> tuple[str, list[str]]:
    """An interface from a port of the router's own project that nobody uses."""
    port = get_port(tx, request, port_id)
    if not (standard.sees_all(request) or port.project_id == router.project_id):
        raise NotFound(f"Port {port.id} could not be found.", kind="PortNotFound")
    if port.device_id or port.device_owner.startswith("network:") or port.server_id:
        raise Conflict(
            f"Unable to complete operation on port {port.id} for network {port.network_id}. Port already has an "
            f"attached device {port.device_id}.",
            kind="PortInUse",
        )
    added = tx.all(
        sa.select(subnets)
        .join(port_addresses, port_addresses.c.subnet_id == subnets.c.id)
        .where(port_addresses.c.port_id == port.id)
    )
    if not added:
        raise bad_router("Router port must have at least one fixed IP")
    for other in connected_subnets(tx, router.id):
        for subnet in added:
            check_apart(subnet, other)
    values = {"device_id": router.id, "device_owner": INTERFACE, "port_security": False}
    if not standard.change(tx, ports, port, values):
        raise Retry(f"port {port.id} was changed by somebody else")
    for table in (port_groups, port_pairs):
        tx.write(sa.delete(table).where(table.c.port_id == port.id))
    host = bindings.ensure_router(tx, request.config, router.id)
    if host:
        effects.bind(tx, port.id, port.network_id, host)
    effects.bump_dhcp(tx, port.network_id)
    return port.id, [subnet.id for subnet in added]


def remove_interface(request: Request) -> Json:
    body: Interface = request.body
    with request.db.transaction() as tx:
        router = _claimed(tx, request, "remove_router_interface")
        if body.subnet_id is UNSET and body.port_id is UNSET:
            raise BadRequest(
                "Either subnet_id or port_id must be specified for removing a router interface",
                kind="BadRouterRequest",
            )
        here = [row for row in connected_subnets(tx, router.id) if row.device_owner == INTERFACE]
        mine = [
            row
            for row in here
            if (body.port_id is UNSET or row.port_id == body.port_id)
            and (body.subnet_id is UNSET or row.id == body.subnet_id)
        ]
        if not mine:
            raise _no_interface(router, body, bool(here))
        _check_unused(tx, router, mine)
        port = get_port(tx, request, mine[0].port_id)
        left = [row for row in here if row.port_id == port.id and row not in mine]
        removed = [row.id for row in mine]
        answer = _finish(tx, request, router, port.id, removed, "delete")
        if left:
            gone = sa.and_(port_addresses.c.port_id == port.id, port_addresses.c.subnet_id.in_(removed))
            tx.write(sa.delete(port_addresses).where(gone))
        else:
            port_rows.delete_port_rows(tx, request.context, [port])
        return answer


def _no_interface(router: Row[Any], body: Interface, other: bool) -> NotFound | Conflict:
    if body.port_id is not UNSET and body.subnet_id is not UNSET and other:
        return Conflict(
            f"Subnet ID: {body.subnet_id} doesn't match the subnet on port {body.port_id}.",
            kind="SubnetMismatchForPort",
        )
    if body.port_id is not UNSET:
        return NotFound(
            f"Router {router.id} does not have an interface with id {body.port_id}", kind="RouterInterfaceNotFound"
        )
    return NotFound(
        f"Router {router.id} has no interface on subnet {body.subnet_id}", kind="RouterInterfaceNotFoundForSubnet"
    )


def _check_unused(tx: Transaction, router: Row[Any], mine: Sequence[Row[Any]]) -> None:
    """Floating IPs and routes that go through an interface keep it there."""
    for row in mine:
        statement = (
            sa.select(floatingips.c.id)
            .join(
                port_addresses,
                sa.and_(
                    port_addresses.c.port_id == floatingips.c.port_id,
                    port_addresses.c.ip == floatingips.c.fixed_ip,
                ),
            )
            .where(floatingips.c.router_id == router.id, port_addresses.c.subnet_id == row.id)
        )
        if tx.find(statement):
            raise Conflict(
                f"Router interface for subnet {row.id} on router {router.id} cannot be deleted, as it is required "
                "by one or more floating IPs.",
                kind="RouterInterfaceInUseByFloatingIP",
            )
        if any(ipam.inside(row.cidr, route["nexthop"]) for route in router.routes):
            raise Conflict(
                f"Router interface for subnet {row.id} on router {router.id} cannot be deleted, as it is required "
                "by one or more routes.",
                kind="RouterInterfaceInUseByRoute",
            )


def _claimed(tx: Transaction, request: Request, rule: str) -> Row[Any]:
    """The router, ours to change until the end of the transaction."""
    router = get_router(tx, request, request.params["router_id"])
    standard.permit(request, rule, router)
    if not standard.change(tx, routers, router, {}):
        raise Retry(f"router {router.id} was changed by somebody else")
    return router


def _finish(
    tx: Transaction, request: Request, router: Row[Any], port_id: str, subnet_ids: list[str], verb: str
) -> Json:
    effects.bump_router(tx, router.id)
    port = tx.find(sa.select(ports.c.network_id).where(ports.c.id == port_id))
    assert port is not None
    document = {
        "id": router.id,
        "project_id": router.project_id,
        "tenant_id": router.project_id,
        "port_id": port_id,
        "network_id": port.network_id,
        "subnet_id": subnet_ids[0],
        "subnet_ids": subnet_ids,
        "tags": [],
    }
    event = f"router.interface.{verb}"
    tx.notify(request.context, event, notices.PUBLISHER, {"router_interface": document})
    return document


BASE = "/v2.0/routers/{router_id}"
ROUTES = [
    Route("PUT", BASE + "/add_router_interface", add_interface, "add_router_interface", body=Interface),
    Route("PUT", BASE + "/remove_router_interface", remove_interface, "remove_router_interface", body=Interface),
]
