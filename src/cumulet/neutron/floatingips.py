"""/v2.0/floatingips"""

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from msgspec import UNSET, UnsetType
from sqlalchemy.engine import Row

from cumulet.core import listing
from cumulet.core.db import Transaction
from cumulet.core.errors import BadRequest, Conflict, NotFound, Retry
from cumulet.core.http import Request, Route
from cumulet.core.listing import Listing
from cumulet.core.schema import Strict
from cumulet.neutron import checks, effects, notices, port_rows, quotas, standard
from cumulet.neutron.addresses import Wish
from cumulet.neutron.checks import IdText, NameText, Tag
from cumulet.neutron.networks import get_network
from cumulet.neutron.port_rows import PORTS, NewPort
from cumulet.neutron.port_status import status
from cumulet.neutron.public import port_not_found
from cumulet.neutron.router_intent import GATEWAY, INTERFACE
from cumulet.neutron.standard import Json
from cumulet.neutron.tables import floatingips, port_addresses, ports, routers

OWNER = "network:floatingip"


class FloatingIpChange(Strict, kw_only=True):
    port_id: IdText | UnsetType | None = UNSET
    fixed_ip_address: str | UnsetType | None = UNSET
    description: NameText | UnsetType = UNSET


class NewFloatingIp(FloatingIpChange, kw_only=True):
    floating_network_id: IdText
    floating_ip_address: str | UnsetType | None = UNSET
    subnet_id: IdText | UnsetType | None = UNSET
    dns_name: NameText | UnsetType = UNSET
    dns_domain: NameText | UnsetType = UNSET
    project_id: IdText | UnsetType = UNSET
    tenant_id: IdText | UnsetType = UNSET
    tags: list[Tag] | UnsetType = UNSET


class FloatingIpsBody(Strict):
    floatingip: NewFloatingIp | UnsetType = UNSET
    floatingips: list[NewFloatingIp] | UnsetType = UNSET


class FloatingIpBody(Strict):
    floatingip: FloatingIpChange


def create_floatingips(request: Request) -> Json:
    bodies, bulk = standard.wanted(request.body, "floatingip", "floatingips")
    with request.db.transaction() as tx:
        documents = [_create(tx, request, body) for body in bodies]
        notices.created(tx, request, "floatingip", bodies, documents)
    return standard.created(documents, "floatingip", "floatingips", bulk)


def _create(tx: Transaction, request: Request, body: NewFloatingIp) -> Json:
    project_id = standard.project_of(request, body)
    about = {"project_id": project_id, "tenant_id": project_id}
    request.enforce("create_floatingip", about)
    standard.enforce_attributes(request, "create_floatingip", body, about, {"floating_ip_address": None})
    network = get_network(tx, request, body.floating_network_id)
    if not network.external:
        raise bad_floatingip(f"Network {network.id} is not a valid external network")
    quotas.reserve(tx, project_id, "floatingip")
    row = standard.new_row(project_id)
    port_id = _create_port(tx, network, row["id"], body)
    address = tx.value(sa.select(port_addresses.c.ip).where(port_addresses.c.port_id == port_id))
    values = {
        **row,
        "description": body.description or "",
        "tags": checks.tags(body.tags or []),
        "floating_network_id": network.id,
        "floating_port_id": port_id,
        "floating_ip": address,
        "dns_name": checks.host_name(body.dns_name or ""),
        "dns_domain": checks.domain(body.dns_domain or ""),
    }
    tx.write(floatingips.insert(), values)
    created = get_floatingip(tx, request, row["id"])
    if body.port_id:
        _associate(tx, request, created, body.port_id, body.fixed_ip_address or None)
    elif body.fixed_ip_address:
        raise bad_floatingip("fixed_ip_address cannot be specified without a port_id")
    return _views(tx, [get_floatingip(tx, request, row["id"])])[0]


def _create_port(tx: Transaction, network: Row[Any], floatingip_id: str, body: NewFloatingIp) -> str:
    """The port that holds the address: of nobody's project, bound nowhere."""
    wish = Wish(
        body.subnet_id or "",
        checks.ip(body.floating_ip_address, 4) if body.floating_ip_address else "",
        0 if body.subnet_id or body.floating_ip_address else 4,
    )
    values = {"device_id": floatingip_id, "device_owner": OWNER, "port_security": False}
    return port_rows.create_port_row(tx, NewPort(network, "", values, [wish]))


def list_floatingips(request: Request) -> Json:
    with request.db.read() as tx:
        scoped = sa.select(floatingips).where(standard.visible(request, floatingips))
        page = listing.list_page(tx, scoped, request, LISTING)
        return standard.document(request, "floatingips", page, _views(tx, page.rows))


def get_floatingip(tx: Transaction, request: Request, floatingip_id: str) -> Row[Any]:
    """The floating IP, if the caller may see it; 404 otherwise."""
    mine = standard.visible(request, floatingips)
    row = tx.find(sa.select(floatingips).where(floatingips.c.id == floatingip_id, mine))
    if row is None:
        raise NotFound(f"Floating IP {checks.shown(floatingip_id)} could not be found", kind="FloatingIPNotFound")
    return row


def show_floatingip(request: Request) -> Json:
    with request.db.read() as tx:
        row = get_floatingip(tx, request, request.params["floatingip_id"])
        return {"floatingip": standard.selected(request, _views(tx, [row])[0])}


def update_floatingip(request: Request) -> Json:
    body: FloatingIpChange = request.body.floatingip
    with request.db.transaction() as tx:
        row = get_floatingip(tx, request, request.params["floatingip_id"])
        standard.permit(request, "update_floatingip", row)
        values = {} if body.description is UNSET else {"description": body.description}
        if not standard.change(tx, floatingips, row, values):
            raise Retry(f"floating IP {row.id} was changed by somebody else")
        port_id = row.port_id if isinstance(body.port_id, UnsetType) else body.port_id
        if body.port_id is UNSET and body.fixed_ip_address is UNSET:
            pass
        elif port_id:
            _associate(tx, request, row, port_id, body.fixed_ip_address or None)
        elif body.fixed_ip_address:
            raise bad_floatingip("fixed_ip_address cannot be specified without a port_id")
        else:
            _disassociate(tx, row)
        document = _views(tx, [get_floatingip(tx, request, row.id)])[0]
        notices.updated(tx, request, "floatingip", body, document)
    return {"floatingip": document}


def delete_floatingip(request: Request) -> None:
    with request.db.transaction() as tx:
        row = get_floatingip(tx, request, request.params["floatingip_id"])
        standard.permit(request, "delete_floatingip", row)
        if row.router_id:
            effects.bump_router(tx, row.router_id)
        tx.write(sa.delete(floatingips).where(floatingips.c.id == row.id))
        port_rows.delete_port_rows(tx, request.context, tx.all(PORTS.where(ports.c.id == row.floating_port_id)))
        notices.deleted(tx, request, "floatingip", row.id)


def _associate(tx: Transaction, request: Request, row: Row[Any], port_id: str, fixed_ip: str | None) -> None:
    """Lead the floating IP to a port; some router must stand between them."""
    port = tx.find(sa.select(ports).where(ports.c.id == port_id))
    if port is None or not (standard.sees_all(request) or port.project_id == row.project_id):
        raise port_not_found(port_id)
    address = _fixed(tx, port, fixed_ip)
    router_id = _router_between(tx, row, address)
    if router_id is not None and tx.find(_HELD, {"router": router_id}):
        router_id = _router_between(tx, row, address)  # what it has cannot be taken away from now on
    if router_id is None:
        raise NotFound(
            f"External network {row.floating_network_id} is not reachable from subnet {address.subnet_id}.  "
            f"Therefore, cannot associate Port {port.id} with a Floating IP.",
            kind="ExternalGatewayForFloatingIPNotFound",
        )
    if row.router_id and row.router_id != router_id:
        effects.bump_router(tx, row.router_id)
    values = {
        "port_id": port.id,
        "fixed_ip": address.ip,
        "router_id": router_id,
        "generation": effects.bump_router(tx, router_id),
        "seen_generation": 0,
    }
    try:
        tx.write(sa.update(floatingips).where(floatingips.c.id == row.id).values(**values))
    except Conflict as taken:
        raise Conflict(
            f"Cannot associate floating IP {row.floating_ip} ({row.id}) with port {port.id} using fixed IP "
            f"{address.ip}, as that fixed IP already has a floating IP on external network "
            f"{row.floating_network_id}.",
            kind="FloatingIPPortAlreadyAssociated",
        ) from taken


def _fixed(tx: Transaction, port: Row[Any], fixed_ip: str | None) -> Row[Any]:
    """The port's IPv4 address that is meant."""
    mine = [
        row
        for row in tx.all(sa.select(port_addresses).where(port_addresses.c.port_id == port.id))
        if ":" not in row.ip
    ]
    if fixed_ip is not None:
        wanted = checks.ip(fixed_ip)
        address = next((row for row in mine if row.ip == wanted), None)
        if address is None:
            raise bad_floatingip(f"Port {port.id} does not have fixed ip {wanted}")
        return address
    if not mine:
        raise bad_floatingip(f"Cannot add floating IP to port {port.id} that has no fixed IPv4 addresses")
    if len(mine) > 1:
        raise bad_floatingip(
            f"Port {port.id} has multiple fixed IPv4 addresses.  Must provide a specific IPv4 address when "
            "assigning a floating IP"
        )
    return mine[0]


_HELD = sa.select(routers.c.id).where(routers.c.id == sa.bindparam("router")).with_for_update()
"""Waits for who changes the router, as ``claim_router`` does."""


def _router_between(tx: Transaction, row: Row[Any], address: Row[Any]) -> str | None:
    """A router with an interface in the address's subnet and its gateway on the floating network."""
    inside, outside = ports.alias("inside"), ports.alias("outside")
    statement = (
        sa.select(inside.c.device_id)
        .join(port_addresses, port_addresses.c.port_id == inside.c.id)
        .join(outside, outside.c.device_id == inside.c.device_id)
        .where(
            inside.c.device_owner == INTERFACE,
            port_addresses.c.subnet_id == address.subnet_id,
            outside.c.device_owner == GATEWAY,
            outside.c.network_id == row.floating_network_id,
        )
        .order_by(inside.c.project_id != row.project_id, inside.c.created_at, inside.c.id)
    )
    found = tx.find(statement)
    return found.device_id if found else None


def _disassociate(tx: Transaction, row: Row[Any]) -> None:
    if row.port_id is not None:
        port_rows.release_floating(tx, row)


def bad_floatingip(reason: str) -> BadRequest:
    return BadRequest(f"Bad floatingip request: {reason}.", kind="BadFloatingIPRequest")


ACTIVE, DOWN = "ACTIVE", "DOWN"
_IN_PLACE = sa.and_(
    floatingips.c.port_id.is_not(None),
    floatingips.c.generation > 0,
    floatingips.c.seen_generation >= floatingips.c.generation,
)


def _status(values: Sequence[str]) -> sa.ColumnElement[bool]:
    return sa.case((_IN_PLACE, ACTIVE), else_=DOWN).in_(list(values))


def _views(tx: Transaction, rows: Sequence[Row[Any]]) -> list[Json]:
    there = standard.related(tx, PORTS, ports.c.id, [row.port_id for row in rows if row.port_id])
    return [_view(row, there.get(row.port_id or "", ())) for row in rows]


def _details(port: Row[Any]) -> Json:
    """What a floating IP tells of its port."""
    names = ("name", "network_id", "device_id", "device_owner")
    return {
        **{name: getattr(port, name) for name in names},
        "mac_address": port.mac,
        "admin_state_up": port.admin_up,
        "status": status(port),
    }


def _view(row: Row[Any], port: Sequence[Row[Any]]) -> Json:
    """ACTIVE once the router's host has reported that it is in place."""
    view = standard.standard_view(row)
    del view["name"]
    in_place = row.port_id is not None and 0 < row.generation <= row.seen_generation
    return {
        **view,
        "floating_network_id": row.floating_network_id,
        "floating_ip_address": row.floating_ip,
        "port_id": row.port_id,
        "port_details": _details(port[0]) if port else None,
        "fixed_ip_address": row.fixed_ip,
        "router_id": row.router_id,
        "status": ACTIVE if in_place else DOWN,
        "dns_name": row.dns_name,
        "dns_domain": row.dns_domain,
    }


LISTING = Listing(
    floatingips.c.id,
    standard.columns(
        floatingips,
        floating_network_id=floatingips.c.floating_network_id,
        floating_ip_address=floatingips.c.floating_ip,
        port_id=floatingips.c.port_id,
        fixed_ip_address=floatingips.c.fixed_ip,
        router_id=floatingips.c.router_id,
    ),
    standard.conditions(floatingips, status=_status),
)
BASE = "/v2.0/floatingips"
ROUTES = [
    Route("GET", BASE, list_floatingips, "get_floatingip"),
    Route("POST", BASE, create_floatingips, "create_floatingip", 201, body=FloatingIpsBody),
    Route("GET", BASE + "/{floatingip_id}", show_floatingip, "get_floatingip"),
    Route("PUT", BASE + "/{floatingip_id}", update_floatingip, "update_floatingip", body=FloatingIpBody),
    Route("DELETE", BASE + "/{floatingip_id}", delete_floatingip, "delete_floatingip", 204),
]
