"""/v2.0/subnets"""

from dataclasses import replace
from ipaddress import ip_network
from typing import Annotated, Any, Literal

import sqlalchemy as sa
from msgspec import UNSET, Meta, UnsetType
from sqlalchemy.engine import Row

from cumulet.core import listing
from cumulet.core.db import Transaction
from cumulet.core.errors import BadRequest, Conflict, Retry
from cumulet.core.http import Request, Route
from cumulet.core.listing import Listing
from cumulet.core.schema import Strict
from cumulet.neutron import (
    addresses,
    bindings,
    checks,
    effects,
    ipam,
    notices,
    pool_allocation,
    quotas,
    segments,
    sharing,
    standard,
    subnet_plan,
)
from cumulet.neutron.addresses import subnet_not_found
from cumulet.neutron.checks import IdText, Tag
from cumulet.neutron.networks import check_tenant, get_network
from cumulet.neutron.standard import Json, Named, target
from cumulet.neutron.subnet_plan import HostRoute, Plan, Pool
from cumulet.neutron.tables import networks, port_addresses, ports, subnets

Mode = Literal["slaac", "dhcpv6-stateful", "dhcpv6-stateless"] | UnsetType | None
ServerList = Annotated[list[Annotated[str, Meta(max_length=64)]], Meta(max_length=20)]
RouteList = Annotated[list[HostRoute], Meta(max_length=100)]
PoolList = Annotated[list[Pool], Meta(max_length=100)]


class SubnetChange(Named):
    gateway_ip: str | UnsetType | None = UNSET
    enable_dhcp: bool | UnsetType = UNSET
    dns_nameservers: ServerList | UnsetType | None = UNSET
    host_routes: RouteList | UnsetType | None = UNSET
    allocation_pools: PoolList | UnsetType | None = UNSET


class NewSubnet(SubnetChange, kw_only=True):
    project_id: IdText | UnsetType = UNSET
    tenant_id: IdText | UnsetType = UNSET
    tags: list[Tag] | UnsetType = UNSET
    network_id: IdText
    ip_version: Annotated[int, Meta(ge=4, le=6)] | UnsetType = UNSET
    cidr: str | UnsetType | None = UNSET
    subnetpool_id: IdText | UnsetType | None = UNSET
    prefixlen: Annotated[int, Meta(ge=0, le=128)] | UnsetType | None = UNSET
    use_default_subnetpool: bool | UnsetType = UNSET
    ipv6_ra_mode: Mode = UNSET
    ipv6_address_mode: Mode = UNSET


class SubnetsBody(Strict):
    subnet: NewSubnet | UnsetType = UNSET
    subnets: list[NewSubnet] | UnsetType = UNSET


class SubnetBody(Strict):
    subnet: SubnetChange


def create_subnets(request: Request) -> Json:
    bodies, bulk = standard.wanted(request.body, "subnet", "subnets")
    with request.db.transaction() as tx:
        ids = [_create(tx, request, body) for body in bodies]
        for network_id in dict.fromkeys(body.network_id for body in bodies):
            bindings.ensure_dhcp(tx, request.config, network_id)
        found = {row.id: row for row in tx.all(_SUBNETS.where(subnets.c.id.in_(ids)))}
        documents = [_view(found[subnet_id]) for subnet_id in ids]
        notices.created(tx, request, "subnet", bodies, documents)
    return standard.created(documents, "subnet", "subnets", bulk)


def _create(tx: Transaction, request: Request, body: NewSubnet) -> str:
    project_id = standard.project_of(request, body)
    network = get_network(tx, request, body.network_id)
    check_tenant(request, network, project_id, "subnet")
    request.enforce("create_subnet", target(network, network))
    body, pool_id = pool_allocation.take(tx, request, project_id, body)
    plan = subnet_plan.new_plan(body)
    if plan.ip_version == 6 and network.mtu < segments.SMALLEST_MTU[6]:
        raise checks.bad(
            f"MTU {network.mtu} of network {network.id} is too small for IPv6: it needs {segments.SMALLEST_MTU[6]}"
        )
    quotas.reserve(tx, project_id, "subnet")
    # the network's revision decides between two that make overlapping subnets at once
    if not standard.change(tx, networks, network, {}):
        raise Retry(f"network {network.id} was changed by somebody else")
    _check_neighbours(tx, network.id, plan, pool_id)
    row = {
        **standard.new_row(project_id, body),
        "network_id": network.id,
        "subnetpool_id": pool_id,
        **plan.columns(),
    }
    tx.write(subnets.insert(), row)
    subnet = tx.find(sa.select(subnets).where(subnets.c.id == row["id"]))
    assert subnet is not None
    if addresses.automatic(subnet):
        _give_automatic_addresses(tx, subnet)
    effects.bump_routers_of_network(tx, network.id)
    return str(subnet.id)


def _check_neighbours(tx: Transaction, network_id: str, plan: Plan, pool_id: str | None) -> None:
    """Subnets of a network do not overlap; those of one IP version come from one pool, or none of them does."""
    for other in addresses.subnets_of(tx, network_id):
        if other.ip_version == plan.ip_version and other.subnetpool_id != pool_id:
            raise BadRequest(
                "Subnets hosted on the same network must be allocated from the same subnet pool.",
                kind="NetworkSubnetPoolAffinityError",
            )
        if ipam.overlapping(other.cidr, plan.cidr):
            raise checks.bad(
                f"Requested subnet with cidr: {plan.cidr} for network: {network_id} overlaps with another subnet"
            )


def _give_automatic_addresses(tx: Transaction, subnet: Row[Any]) -> None:
    """Ports that were there before the subnet hear its router too: they have its addresses from now on."""
    owners = ("network:router%", "network:dhcp", "network:floatingip")
    there = sa.select(ports).where(
        ports.c.network_id == subnet.network_id, *(ports.c.device_owner.not_like(owner) for owner in owners)
    )
    for port in tx.all(there):
        ip = ipam.eui64(subnet.cidr, port.mac)
        chosen = [addresses.Address(ip, subnet.id, ipam.slot(subnet.cidr, ip))]
        addresses.write(tx, subnet.network_id, port.id, chosen, first=100)
        effects.hint_port(tx, port.id)


def list_subnets(request: Request) -> Json:
    with request.db.read() as tx:
        shared = sharing.open_to(networks, standard.mine(request))
        listed = replace(LISTING, columns={**LISTING.columns, "shared": shared})
        page = listing.list_page(tx, _SUBNETS.where(_visible(request)), request, listed)
        return standard.document(request, "subnets", page, [_view(row) for row in page.rows])


def get_subnet(tx: Transaction, request: Request, subnet_id: str) -> Row[Any]:
    """The subnet with its network's ``shared``, ``external`` and ``network_project_id``; 404 if not visible."""
    shared = sharing.open_to(networks, standard.mine(request)).label("shared")
    row = tx.find(_SUBNETS.add_columns(shared).where(subnets.c.id == subnet_id, _visible(request)))
    if row is None:
        raise subnet_not_found(subnet_id)
    return row


def show_subnet(request: Request) -> Json:
    with request.db.read() as tx:
        row = get_subnet(tx, request, request.params["subnet_id"])
        return {"subnet": standard.selected(request, _view(row))}


def update_subnet(request: Request) -> Json:
    body: SubnetChange = request.body.subnet
    with request.db.transaction() as tx:
        row = get_subnet(tx, request, request.params["subnet_id"])
        standard.permit(request, "update_subnet", row, subnet_target(row))
        plan = subnet_plan.changed_plan(row, body)
        if plan.gateway_ip != row.gateway_ip:
            _check_gateway_free(tx, row)
        values = plan.columns() | {
            name: value for name in ("name", "description") if (value := getattr(body, name)) is not UNSET
        }
        if not standard.change(tx, subnets, row, values):
            raise Retry(f"subnet {row.id} was changed by somebody else")
        bindings.ensure_dhcp(tx, request.config, row.network_id)
        effects.bump_routers_of_network(tx, row.network_id)
        document = _view(get_subnet(tx, request, row.id))
        notices.updated(tx, request, "subnet", body, document)
    return {"subnet": document}


def _check_gateway_free(tx: Transaction, row: Row[Any]) -> None:
    """A gateway address that a router answers on stays as it is."""
    statement = (
        sa.select(ports.c.id)
        .join(port_addresses, port_addresses.c.port_id == ports.c.id)
        .where(
            port_addresses.c.network_id == row.network_id,
            port_addresses.c.ip == (row.gateway_ip or ""),
            ports.c.device_owner == "network:router_interface",
        )
    )
    if used := tx.find(statement):
        raise Conflict(
            f"Gateway ip {row.gateway_ip} for subnet {row.id} is already in use by port {used.id} and cannot be "
            "updated.",
            kind="GatewayIpInUse",
        )


def delete_subnet(request: Request) -> None:
    with request.db.transaction() as tx:
        row = get_subnet(tx, request, request.params["subnet_id"])
        standard.permit(request, "delete_subnet", row, subnet_target(row))
        _release_addresses(tx, row)
        tx.write(sa.delete(subnets).where(subnets.c.id == row.id))
        standard.touch(tx, networks, [row.network_id])
        bindings.ensure_dhcp(tx, request.config, row.network_id)
        notices.deleted(tx, request, "subnet", row.id)


def _release_addresses(tx: Transaction, row: Row[Any]) -> None:
    """Take back what the cloud gave by itself: DHCP's addresses and automatic ones; 409 if others are left."""
    users = (
        sa.select(ports.c.id, ports.c.device_owner)
        .join(port_addresses, port_addresses.c.port_id == ports.c.id)
        .where(port_addresses.c.subnet_id == row.id)
    )
    automatic = addresses.automatic(row)
    for port in tx.all(users):
        free = port.device_owner == "network:dhcp" or (
            automatic and not port.device_owner.startswith("network:router")
        )
        if not free:
            raise Conflict(
                f"Unable to complete operation on subnet {row.id}: One or more ports have an IP allocation from "
                "this subnet.",
                kind="SubnetInUse",
            )
        effects.hint_port(tx, port.id)
    tx.write(sa.delete(port_addresses).where(port_addresses.c.subnet_id == row.id))


def subnet_target(row: Row[Any]) -> Json:
    """What a policy may ask of a subnet and its network."""
    return {
        "project_id": row.project_id,
        "tenant_id": row.project_id,
        "network:project_id": row.network_project_id,
        "network:tenant_id": row.network_project_id,
        "shared": row.shared,
        "router:external": row.external,
    }


def _visible(request: Request) -> sa.ColumnElement[bool]:
    """Subnets of the caller and of its networks, of shared and of external networks."""
    if standard.sees_all(request):
        return sa.true()
    mine = standard.mine(request)
    return sa.or_(subnets.c.project_id == mine, sharing.usable_by(networks, mine))


def _view(row: Row[Any]) -> Json:
    return {
        **standard.standard_view(row),
        "network_id": row.network_id,
        "ip_version": row.ip_version,
        "cidr": row.cidr,
        "gateway_ip": row.gateway_ip,
        "enable_dhcp": row.dhcp,
        "ipv6_ra_mode": row.ipv6_ra_mode,
        "ipv6_address_mode": row.ipv6_address_mode,
        "allocation_pools": row.pools,
        "dns_nameservers": row.dns_servers,
        "host_routes": row.routes,
        "subnetpool_id": row.subnetpool_id,
        "service_types": [],
        "router:external": row.external,
    }


_SUBNETS = sa.select(subnets, networks.c.external, networks.c.project_id.label("network_project_id")).join(
    networks, networks.c.id == subnets.c.network_id
)


def _same_cidr(values: list[str]) -> sa.ColumnElement[bool]:
    found = []
    for value in values:
        try:
            found.append(str(ip_network(value, strict=False)))
        except ValueError:
            found.append(value)
    return subnets.c.cidr.in_(found)


LISTING = Listing(
    subnets.c.id,
    standard.columns(
        subnets,
        network_id=subnets.c.network_id,
        ip_version=subnets.c.ip_version,
        gateway_ip=subnets.c.gateway_ip,
        enable_dhcp=subnets.c.dhcp,
        ipv6_ra_mode=subnets.c.ipv6_ra_mode,
        ipv6_address_mode=subnets.c.ipv6_address_mode,
        cidr=subnets.c.cidr,
        subnetpool_id=subnets.c.subnetpool_id,
    )
    | {"router:external": networks.c.external},
    standard.conditions(subnets, cidr=_same_cidr),
)
BASE = "/v2.0/subnets"
ROUTES = [
    Route("GET", BASE, list_subnets, "get_subnet"),
    Route("POST", BASE, create_subnets, "create_subnet", 201, body=SubnetsBody),
    Route("GET", BASE + "/{subnet_id}", show_subnet, "get_subnet"),
    Route("PUT", BASE + "/{subnet_id}", update_subnet, "update_subnet", body=SubnetBody),
    Route("DELETE", BASE + "/{subnet_id}", delete_subnet, "delete_subnet", 204),
]
