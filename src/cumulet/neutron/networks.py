"""/v2.0/networks"""

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Annotated, Any

import sqlalchemy as sa
from msgspec import UNSET, Meta, UnsetType, field
from sqlalchemy.engine import Row

from cumulet.core import listing
from cumulet.core.db import Transaction
from cumulet.core.errors import Conflict, Forbidden, NotFound, Retry
from cumulet.core.http import Request, Route
from cumulet.core.listing import Listing
from cumulet.core.schema import Strict
from cumulet.neutron import bindings, checks, effects, notices, port_rows, quotas, segments, sharing, standard
from cumulet.neutron.checks import IdText, NameText, Tag
from cumulet.neutron.port_rows import PORTS
from cumulet.neutron.sharing import ALL, EXTERNAL, SHARED
from cumulet.neutron.standard import Json, Named, target
from cumulet.neutron.tables import dhcp_bindings, floatingips, network_rbacs, networks, ports, subnet_pools, subnets

ZONE = "nova"


class NetworkChange(Named):
    admin_state_up: bool | UnsetType = UNSET
    shared: bool | UnsetType = UNSET
    external: bool | UnsetType = field(name="router:external", default=UNSET)
    is_default: bool | UnsetType = UNSET
    mtu: Annotated[int, Meta(ge=0, le=65536)] | UnsetType = UNSET
    port_security_enabled: bool | UnsetType = UNSET
    dns_domain: NameText | UnsetType = UNSET
    network_type: str | UnsetType | None = field(name="provider:network_type", default=UNSET)
    physical_network: str | UnsetType | None = field(name="provider:physical_network", default=UNSET)
    segmentation_id: int | UnsetType | None = field(name="provider:segmentation_id", default=UNSET)


class NewNetwork(NetworkChange):
    project_id: IdText | UnsetType = UNSET
    tenant_id: IdText | UnsetType = UNSET
    tags: list[Tag] | UnsetType = UNSET
    availability_zone_hints: list[IdText] | UnsetType = UNSET


class NetworksBody(Strict):
    network: NewNetwork | UnsetType = UNSET
    networks: list[NewNetwork] | UnsetType = UNSET


class NetworkBody(Strict):
    network: NetworkChange


DEFAULTS = {
    "shared": False,
    "router:external": False,
    "is_default": False,
    "port_security_enabled": True,
    "provider:network_type": None,
    "provider:physical_network": None,
    "provider:segmentation_id": None,
}
COLUMNS = {
    "admin_state_up": "admin_up",
    "external": "external",
    "is_default": "is_default",
    "port_security_enabled": "port_security",
}


def create_networks(request: Request) -> Json:
    bodies, bulk = standard.wanted(request.body, "network", "networks")
    with request.db.transaction() as tx:
        ids = [_create(tx, request, body) for body in bodies]
        documents = network_views(tx, request, tx.all(sa.select(networks).where(networks.c.id.in_(ids))))
        documents.sort(key=lambda document: ids.index(document["id"]))
        notices.created(tx, request, "network", bodies, documents)
    return standard.created(documents, "network", "networks", bulk)


def _create(tx: Transaction, request: Request, body: NewNetwork) -> str:
    project_id = standard.project_of(request, body)
    about = {"project_id": project_id, "tenant_id": project_id}
    request.enforce("create_network", about)
    standard.enforce_attributes(request, "create_network", body, about, DEFAULTS)
    segment = segments.segment_type(
        body.network_type or None,
        body.physical_network or None,
        None if isinstance(body.segmentation_id, UnsetType) else body.segmentation_id,
    )
    quotas.reserve(tx, project_id, "network")
    row = {
        **standard.new_row(project_id, body),
        **segments.segment_values(segment),
        **_values(body),
        "zone_hints": _zones(body),
        "mtu": segments.network_mtu(segment.kind, request.config.network.mtu, body.mtu or 0),
    }
    if row.get("is_default"):
        _only_default(tx, "")
    try:
        tx.write(networks.insert(), row)
    except Conflict as taken:
        raise (Retry("the VNI is taken") if segment.chosen else segments.in_use(segment)) from taken
    _share(tx, row["id"], body)
    return str(row["id"])


def _share(tx: Transaction, network_id: str, body: NetworkChange) -> None:
    """``shared`` and ``router:external`` are policies for all; what is not external is so for nobody."""
    for wanted, action in ((body.shared, SHARED), (body.external, EXTERNAL)):
        if not isinstance(wanted, UnsetType):
            sharing.share_with_all(tx, "network", networks, network_id, wanted, action)
    if body.external is False:
        only = sa.and_(network_rbacs.c.object_id == network_id, network_rbacs.c.action == EXTERNAL)
        tx.write(sa.delete(network_rbacs).where(only))


def _values(body: NetworkChange) -> Json:
    """The columns that a body sets."""
    found = {column: value for name, column in COLUMNS.items() if (value := getattr(body, name)) is not UNSET}
    if not isinstance(body.dns_domain, UnsetType):
        found["dns_domain"] = checks.domain(body.dns_domain)
    return found


def _zones(body: NewNetwork) -> list[str]:
    hints = body.availability_zone_hints or []
    return known_zones(list(hints))


def known_zones(hints: list[str]) -> list[str]:
    for hint in hints:
        if hint != ZONE:
            raise NotFound(
                f"AvailabilityZone {checks.shown(hint)} could not be found.", kind="AvailabilityZoneNotFound"
            )
    return hints


def _only_default(tx: Transaction, network_id: str) -> None:
    other = tx.find(sa.select(networks.c.id).where(networks.c.is_default.is_(True), networks.c.id != network_id))
    if other:
        raise Conflict(
            f"A default external network already exists: {other.id}.", kind="DefaultExternalNetworkExists"
        )


def list_networks(request: Request) -> Json:
    with request.db.read() as tx:
        page = listing.list_page(tx, _usable(sharing.visible(request, networks)), request, _listing(request))
        return standard.document(request, "networks", page, network_views(tx, request, page.rows))


@lru_cache(maxsize=sharing.PROJECTS)
def _usable(visible: sa.ColumnElement[bool]) -> sa.Select[Any]:
    return sa.select(networks).where(visible)


def get_network(tx: Transaction, request: Request, network_id: str) -> Row[Any]:
    """The network and whether it is ``shared`` with the caller, who may see it; 404 otherwise."""
    one = sharing.usable_one(networks, standard.mine(request), standard.sees_all(request))
    row = tx.find(one, {"id": network_id})
    if row is None:
        raise not_found(network_id)
    return row


def show_network(request: Request) -> Json:
    with request.db.read() as tx:
        row = get_network(tx, request, request.params["network_id"])
        return {"network": standard.selected(request, network_views(tx, request, [row])[0])}


def update_network(request: Request) -> Json:
    body: NetworkChange = request.body.network
    with request.db.transaction() as tx:
        row = get_network(tx, request, request.params["network_id"])
        about = target(row)
        standard.permit(request, "update_network", row, about)
        standard.enforce_attributes(request, "update_network", body, about)
        if any(name.startswith("provider:") for name in standard.attributes(body)):
            raise segments.not_changeable()
        values = _values(body) | {
            name: value for name in ("name", "description") if (value := getattr(body, name)) is not UNSET
        }
        if body.mtu is not UNSET:
            values["mtu"] = segments.network_mtu(row.kind, request.config.network.mtu, body.mtu or 0)
            _check_mtu(tx, row.id, values["mtu"])
        _check_change(tx, row, values, body)
        if not standard.change(tx, networks, row, values):
            raise Retry(f"network {row.id} was changed by somebody else")
        _share(tx, row.id, body)
        if "dns_domain" in values or values.get("mtu", row.mtu) != row.mtu:
            effects.bump_dhcp(tx, row.id)
        if values.get("mtu", row.mtu) != row.mtu:
            effects.bump_routers_of_network(tx, row.id)
            effects.hint_network(tx, row.id)
        row = get_network(tx, request, row.id)
        document = network_views(tx, request, [row])[0]
        notices.updated(tx, request, "network", body, document)
    return {"network": document}


def _check_mtu(tx: Transaction, network_id: str, mtu: int) -> None:
    """IPv6 does not work in smaller frames."""
    v6 = sa.select(subnets.c.id).where(subnets.c.network_id == network_id, subnets.c.ip_version == 6)
    if mtu < segments.SMALLEST_MTU[6] and tx.find(v6):
        raise checks.bad(f"Requested MTU is too small for IPv6, minimum is {segments.SMALLEST_MTU[6]}")


def _check_change(tx: Transaction, row: Row[Any], values: Json, body: NetworkChange) -> None:
    """A network does not stop to be shared or external while others rely on it."""
    there = sa.select(ports.c.id).where(ports.c.network_id == row.id)
    left = sharing.targets(tx, row.id) - {ALL}
    if body.shared is False and not row.external and sharing.used_by_others(tx, row, left):
        raise Conflict(
            f"Unable to reconfigure sharing settings for network {row.id}. Multiple tenants are using it.",
            kind="InvalidSharedSetting",
        )
    if row.external and values.get("external") is False:
        owners = ["network:router_gateway", "network:floatingip"]
        if tx.find(there.where(ports.c.device_owner.in_(owners))):
            raise Conflict(
                f"External network {row.id} cannot be updated to be made non-external, since it has existing "
                "gateway ports.",
                kind="ExternalNetworkInUse",
            )
    if values.get("is_default"):
        _only_default(tx, row.id)


def delete_network(request: Request) -> None:
    with request.db.transaction() as tx:
        row = get_network(tx, request, request.params["network_id"])
        standard.permit(request, "delete_network", row)
        for binding in tx.all(
            sa.select(dhcp_bindings).where(dhcp_bindings.c.network_id == row.id, dhcp_bindings.c.wanted == "run")
        ):
            bindings.end_dhcp(tx, binding)
        _delete_free_floatingips(tx, request, row.id)
        used = tx.all(PORTS.where(ports.c.network_id == row.id))
        port_rows.delete_port_rows(
            tx, request.context, [port for port in used if port.device_owner == "network:dhcp"]
        )
        left = [port.id for port in used if port.device_owner != "network:dhcp"]
        if left:
            raise Conflict(
                f"Unable to complete operation on network {row.id}. There are one or more ports still in use on "
                f"the network, id for these ports is {','.join(left[:10])}.",
                kind="NetworkInUse",
            )
        tx.write(sa.delete(subnets).where(subnets.c.network_id == row.id))
        tx.write(sa.delete(networks).where(networks.c.id == row.id))
        sharing.forget(tx, row.id)
        notices.deleted(tx, request, "network", row.id)


def _delete_free_floatingips(tx: Transaction, request: Request, network_id: str) -> None:
    """Floating IPs of an external network go with it, unless a port has them."""
    free = sa.and_(floatingips.c.floating_network_id == network_id, floatingips.c.port_id.is_(None))
    rows = tx.all(sa.select(floatingips.c.id, floatingips.c.floating_port_id).where(free))
    if rows:
        tx.write(sa.delete(floatingips).where(floatingips.c.id.in_([row.id for row in rows])))
        holders = tx.all(PORTS.where(ports.c.id.in_([row.floating_port_id for row in rows])))
        port_rows.delete_port_rows(tx, request.context, holders)
    for row in rows:
        notices.deleted(tx, request, "floatingip", row.id)


def check_tenant(request: Request, network: Row[Any], project_id: str, what: str) -> None:
    """Nobody puts ports or subnets on another project's network unless it is shared."""
    if not (standard.sees_all(request) or network.shared or network.project_id == project_id):
        raise Forbidden(f"Tenant {project_id} not allowed to create {what} on this network", kind="HTTPForbidden")


def not_found(network_id: str) -> NotFound:
    return NotFound(f"Network {checks.shown(network_id)} could not be found.", kind="NetworkNotFound")


def network_views(tx: Transaction, request: Request, rows: Sequence[Row[Any]]) -> list[Json]:
    ids = [row.id for row in rows]
    nets = standard.related(tx, _SUBNETS, subnets.c.network_id, ids)
    served = standard.related(tx, _SERVED, dhcp_bindings.c.network_id, ids)
    shared = sharing.shared_ones(tx, request, ids)
    provider = request.allows("get_network:provider:network_type", {})
    return [
        _view(row, nets.get(row.id, ()), row.id in served, provider) | {"shared": row.id in shared} for row in rows
    ]


_SUBNETS = (
    sa.select(subnets.c.id, subnets.c.network_id, subnets.c.ip_version, subnet_pools.c.address_scope_id)
    .join_from(subnets, subnet_pools, subnets.c.subnetpool_id == subnet_pools.c.id, isouter=True)
    .order_by(subnets.c.created_at, subnets.c.id)
)

_SERVED = sa.select(dhcp_bindings.c.network_id).where(dhcp_bindings.c.wanted == "run")


def _view(row: Row[Any], within: Sequence[Row[Any]], served: bool, provider: bool) -> Json:
    """``within`` are the network's subnets; those of a pool bring the pool's address scope."""
    scopes = {subnet.ip_version: subnet.address_scope_id for subnet in within if subnet.address_scope_id}
    view = {
        **standard.standard_view(row),
        "admin_state_up": row.admin_up,
        "status": "ACTIVE",
        "subnets": [subnet.id for subnet in within],
        "ipv4_address_scope": scopes.get(4),
        "ipv6_address_scope": scopes.get(6),
        "router:external": row.external,
        "is_default": row.is_default,
        "mtu": row.mtu,
        "port_security_enabled": row.port_security,
        "dns_domain": row.dns_domain,
        "availability_zone_hints": row.zone_hints,
        "availability_zones": [ZONE] if served else [],
    }
    if provider:
        view |= {
            "provider:network_type": row.kind,
            "provider:physical_network": row.physical_network or None,
            "provider:segmentation_id": row.segmentation_id or None,
        }
    return view


LISTING = Listing(
    networks.c.id,
    standard.columns(
        networks,
        admin_state_up=networks.c.admin_up,
        is_default=networks.c.is_default,
        mtu=networks.c.mtu,
        port_security_enabled=networks.c.port_security,
        dns_domain=networks.c.dns_domain,
    )
    | {"router:external": networks.c.external},
    standard.conditions(networks, status=lambda values: sa.true() if "ACTIVE" in values else sa.false()),
)
PROVIDER = {
    "provider:network_type": networks.c.kind,
    "provider:physical_network": networks.c.physical_network,
    "provider:segmentation_id": networks.c.segmentation_id,
}


def _listing(request: Request) -> Listing:
    """Who may not see provider attributes must not learn them by filters either."""
    return _listing_of(standard.mine(request), request.allows("get_network:provider:network_type", {}))


@lru_cache(maxsize=sharing.PROJECTS)
def _listing_of(project_id: str, provider: bool) -> Listing:
    seen, shared = PROVIDER if provider else {}, sharing.open_to(networks, project_id)
    return replace(LISTING, columns={**LISTING.columns, **seen, "shared": shared})


BASE = "/v2.0/networks"
ROUTES = [
    Route("GET", BASE, list_networks, "get_network"),
    Route("POST", BASE, create_networks, "create_network", 201, body=NetworksBody),
    Route("GET", BASE + "/{network_id}", show_network, "get_network"),
    Route("PUT", BASE + "/{network_id}", update_network, "update_network", body=NetworkBody),
    Route("DELETE", BASE + "/{network_id}", delete_network, "delete_network", 204),
]
