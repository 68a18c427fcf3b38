"""/v2.0/ports"""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import cache, lru_cache, partial
from typing import Any

import sqlalchemy as sa
from msgspec import UNSET, UnsetType
from sqlalchemy.engine import Row

from cumulet.core import listing
from cumulet.core.among import among
from cumulet.core.db import Transaction
from cumulet.core.errors import BadRequest, Conflict, Retry
from cumulet.core.http import Request, Route
from cumulet.core.listing import Listing
from cumulet.neutron import addresses, checks, effects, notices, port_rows, port_values, quotas, standard
from cumulet.neutron.networks import check_tenant, get_network
from cumulet.neutron.port_rows import PORTS, NewPort
from cumulet.neutron.port_status import STATUS
from cumulet.neutron.port_values import NewPortBody, PortBody, PortChange, PortsBody
from cumulet.neutron.port_views import port_lines, port_views
from cumulet.neutron.projects import default_group
from cumulet.neutron.public import port_not_found
from cumulet.neutron.sharing import PROJECTS, with_shared
from cumulet.neutron.standard import Json, target
from cumulet.neutron.tables import (
    networks,
    port_addresses,
    port_bindings,
    port_groups,
    port_pairs,
    ports,
)

_MADE = PORTS.where(among(ports.c.id, "made"))


def create_ports(request: Request) -> Json:
    bodies, bulk = standard.wanted(request.body, "port", "ports")
    with request.db.transaction() as tx:
        for project_id, count in Counter(standard.project_of(request, body) for body in bodies).items():
            quotas.reserve(tx, project_id, "port", count)
        ids = dict.fromkeys(body.network_id for body in bodies)
        nets = {network_id: get_network(tx, request, network_id) for network_id in ids}
        default = cache(partial(default_group, tx))
        wanted = [_new_port(tx, request, body, nets[body.network_id], default) for body in bodies]
        made = port_rows.create_port_rows(tx, wanted)
        found = {row.id: row for row in tx.all(_MADE, {"made": made})}
        documents = port_views(tx, request, [found[port_id] for port_id in made])
        notices.created(tx, request, "port", bodies, documents)
    return standard.created(documents, "port", "ports", bulk)


def _new_port(
    tx: Transaction, request: Request, body: NewPortBody, network: Row[Any], default: Callable[[str], str]
) -> NewPort:
    """What the body asks for, if the caller may have it.  ``default``: the first group of a project."""
    project_id = standard.project_of(request, body)
    check_tenant(request, network, project_id, "port")
    about = {**target(network, network), "project_id": project_id, "tenant_id": project_id}
    request.enforce("create_port", about)
    port_values.enforce(request, "create_port", body, about)
    values = port_values.columns(body)
    values["port_security"] = values.get("port_security", network.port_security)
    values |= {"name": body.name or "", "description": body.description or "", "tags": checks.tags(body.tags or [])}
    values["dhcp_options"] = port_values.dhcp_options(body, []) or []
    groups = port_values.groups(tx, request, body, project_id)
    pairs = port_values.pairs(body) or []
    port_values.check_security(values["port_security"], bool(groups), bool(pairs))
    cloud = values.get("device_owner", "").startswith("network:")
    if groups is None:
        groups = [default(project_id)] if values["port_security"] and not cloud else []
    wishes = port_values.wishes(body)
    return NewPort(network, project_id, values, wishes, groups, pairs, body.host_id or "")


def list_ports(request: Request) -> Json:
    with request.db.read() as tx:
        page = listing.list_page(tx, _visible(request), request, _listing(request))
        shown = port_views if any(request.many("fields")) else port_lines
        return standard.document(request, "ports", page, shown(tx, request, page.rows))


def get_port(tx: Transaction, request: Request, port_id: str) -> Row[Any]:
    """The port with its binding, if the caller may see it; 404 otherwise."""
    row = tx.find(_visible(request).where(ports.c.id == port_id))
    if row is None:
        raise port_not_found(port_id)
    return row


def show_port(request: Request) -> Json:
    with request.db.read() as tx:
        row = get_port(tx, request, request.params["port_id"])
        return {"port": standard.selected(request, port_views(tx, request, [row])[0])}


def update_port(request: Request) -> Json:
    body: PortChange = request.body.port
    with request.db.transaction() as tx:
        row = get_port(tx, request, request.params["port_id"])
        about = {**port_target(tx, request, row), "device_owner": row.device_owner}
        standard.permit(request, "update_port", row, about)
        port_values.enforce(request, "update_port", body, about)
        _check_owner(tx, row, body)
        _change(tx, request, row, body)
        row = get_port(tx, request, row.id)
        document = port_views(tx, request, [row])[0]
        notices.updated(tx, request, "port", body, document)
    return {"port": document}


def _check_owner(tx: Transaction, row: Row[Any], body: PortChange) -> None:
    """Ports that the cloud made, and servers' ports, keep what their makers rely on."""
    given = standard.attributes(body)
    if row.device_owner == "network:router_interface" and given.get("fixed_ips"):
        mine = tx.all(sa.select(port_addresses).where(port_addresses.c.port_id == row.id))
        if port_rows.fulfilled(mine, port_values.wishes(body) or []):
            del given["fixed_ips"]
    if row.device_owner.startswith("network:"):
        kept = {
            "device_id": row.device_id,
            "device_owner": row.device_owner,
            "mac_address": row.mac,
            "port_security_enabled": row.port_security,
            "binding:host_id": row.host or "",
        }
        none = {"security_groups", "allowed_address_pairs"}
        taken = {name for name, value in kept.items() if given.get(name, value) != value}
        taken |= {name for name in none if given.get(name)} | ({"fixed_ips"} & given.keys())
        if taken:
            raise _service_port(row, f"updated ({', '.join(sorted(taken))})")
    if row.server_id is not None:
        current = {"device_id": row.device_id, "device_owner": row.device_owner, "binding:host_id": row.host}
        for name, value in current.items():
            if given.get(name, value) != value:
                raise Conflict(f"Port {row.id} is still in use.", kind="PortInUse")


def _change(tx: Transaction, request: Request, row: Row[Any], body: PortChange) -> None:
    """Write what the body changes, and tell who must act on it."""
    values = _new_values(tx, row, body)
    if not standard.change(tx, ports, row, values):
        raise Retry(f"port {row.id} was changed by somebody else")
    _change_mac(tx, row, values)
    _change_addresses(tx, row, values, body)
    groups = _change_groups(tx, request, row, body)
    pairs = port_values.pairs(body)
    if pairs is not None:
        tx.write(sa.delete(port_pairs).where(port_pairs.c.port_id == row.id))
        port_rows.set_pairs(tx, row.id, values.get("mac", row.mac), pairs)
    has_pairs = tx.find(sa.select(port_pairs.c.port_id).where(port_pairs.c.port_id == row.id))
    security = values.get("port_security", row.port_security)
    switched_off = body.port_security_enabled is False and not body.security_groups
    port_values.check_security(security, bool(groups), bool(has_pairs), switched_off=switched_off)
    if not isinstance(body.host_id, UnsetType) and (body.host_id or None) != row.host:
        if body.host_id:
            effects.bind(tx, row.id, row.network_id, body.host_id)
        else:
            effects.unbind(tx, row.id)
    if pairs is not None or body.fixed_ips is not UNSET:
        effects.hint_members(tx, groups)
    effects.hint_port(tx, row.id)
    effects.bump_dhcp(tx, row.network_id)


def _new_values(tx: Transaction, row: Row[Any], body: PortChange) -> Json:
    values = port_values.columns(body)
    for name in ("name", "description"):
        if (value := getattr(body, name)) is not UNSET:
            values[name] = value
    options = port_values.dhcp_options(body, row.dhcp_options)
    if options is not None:
        values["dhcp_options"] = options
    if values.get("mac", row.mac) != row.mac:
        if row.host is not None:
            raise Conflict(
                f"Unable to complete operation on port {row.id}, port is already bound, port type: ovs, old_mac "
                f"{row.mac}, new_mac {values['mac']}.",
                kind="PortBound",
            )
        same = sa.select(ports.c.id).where(ports.c.network_id == row.network_id, ports.c.mac == values["mac"])
        if tx.find(same):
            raise port_rows.mac_in_use(row.network_id, values["mac"])
    return values


def _change_mac(tx: Transaction, row: Row[Any], values: Json) -> None:
    """Addresses that follow from the MAC follow it."""
    if values.get("mac", row.mac) == row.mac:
        return
    for subnet in addresses.subnets_of(tx, row.network_id):
        mine = sa.and_(port_addresses.c.port_id == row.id, port_addresses.c.subnet_id == subnet.id)
        if addresses.automatic(subnet) and tx.write(sa.delete(port_addresses).where(mine)):
            chosen = addresses.choose(tx, row.network_id, [subnet], values["mac"], None)
            addresses.write(tx, row.network_id, row.id, chosen, first=100)


def _change_addresses(tx: Transaction, row: Row[Any], values: Json, body: PortChange) -> None:
    """Give the port its new addresses; floating IPs of those that it lost are free again."""
    if body.fixed_ips is UNSET:
        return
    if body.fixed_ips is None:
        raise BadRequest("Invalid input for fixed_ips. Reason: 'None' is not a list.", kind="HTTPBadRequest")
    current = tx.find(PORTS.where(ports.c.id == row.id))
    assert current is not None
    subnets = addresses.subnets_of(tx, row.network_id)
    port_rows.set_addresses(tx, current, port_values.wishes(body) or [], subnets)
    port_rows.release_lost(tx, row.id)


def _change_groups(tx: Transaction, request: Request, row: Row[Any], body: PortChange) -> set[str]:
    """The port's groups after the change; hosts that count its addresses as members are told."""
    mine = sa.select(port_groups.c.security_group_id).where(port_groups.c.port_id == row.id)
    before = {found.security_group_id for found in tx.all(mine)}
    groups = port_values.groups(tx, request, body, row.project_id)
    if groups is None or set(groups) == before:
        return before
    tx.write(sa.delete(port_groups).where(port_groups.c.port_id == row.id))
    port_rows.set_groups(tx, row.id, groups)
    effects.hint_members(tx, before ^ set(groups))
    return set(groups)


def delete_port(request: Request) -> None:
    with request.db.transaction() as tx:
        row = get_port(tx, request, request.params["port_id"])
        standard.permit(request, "delete_port", row, port_target(tx, request, row))
        if row.device_owner.startswith("network:"):
            raise _service_port(row, "deleted")
        tx.notify(request.context, "port.delete.start", notices.PUBLISHER, {"port_id": row.id})
        port_rows.delete_port_rows(tx, request.context, [row])
        if row.server_id and row.host:
            tx.hint(f"nova.hosts.{row.host}", row.server_id)


def port_target(tx: Transaction, request: Request, row: Row[Any]) -> Json:
    """What a policy may ask of a port and its network."""
    return target(row, _network_of(tx, request, row))


def _network_of(tx: Transaction, request: Request, row: Row[Any]) -> Row[Any] | None:
    return tx.find(with_shared(networks, standard.mine(request)).where(networks.c.id == row.network_id))


def _service_port(row: Row[Any], verb: str) -> Conflict:
    return Conflict(
        f"Port {row.id} cannot be {verb} directly via the port API: has device owner {row.device_owner}.",
        kind="ServicePortInUse",
    )


def _visible(request: Request) -> sa.Select[Any]:
    """Ports that the caller may see."""
    return PORTS if standard.sees_all(request) else _of_project(standard.mine(request))


@lru_cache(maxsize=PROJECTS)
def _of_project(mine: str) -> sa.Select[Any]:
    """Its ports, and all on its networks."""
    there = ports.c.network_id.in_(sa.select(networks.c.id).where(networks.c.project_id == mine))
    return PORTS.where(sa.or_(ports.c.project_id == mine, there))


def _with_addresses(values: list[str]) -> sa.ColumnElement[bool]:
    """``fixed_ips=ip_address=…``, ``subnet_id=…`` and ``ip_address_substr=…``: any of one kind, all kinds."""
    kinds: dict[str, list[sa.ColumnElement[bool]]] = {}
    for value in values:
        kind, _, wanted = value.partition("=")
        if kind == "ip_address":
            test = port_addresses.c.ip == wanted.strip("'\"")
        elif kind == "subnet_id":
            test = port_addresses.c.subnet_id == wanted.strip("'\"")
        elif kind == "ip_address_substr":
            test = port_addresses.c.ip.contains(wanted, autoescape=True)
        else:
            raise BadRequest(f"Invalid input for fixed_ips: {kind!r}", kind="HTTPBadRequest")
        kinds.setdefault(kind, []).append(test)
    there = sa.select(port_addresses.c.port_id)
    return sa.and_(*(ports.c.id.in_(there.where(sa.or_(*tests))) for tests in kinds.values()))


def _with_groups(values: list[str]) -> sa.ColumnElement[bool]:
    return ports.c.id.in_(sa.select(port_groups.c.port_id).where(port_groups.c.security_group_id.in_(values)))


LISTING = Listing(
    ports.c.id,
    standard.columns(
        ports,
        network_id=ports.c.network_id,
        mac_address=ports.c.mac,
        admin_state_up=ports.c.admin_up,
        device_id=ports.c.device_id,
        device_owner=ports.c.device_owner,
        port_security_enabled=ports.c.port_security,
        dns_name=ports.c.dns_name,
    )
    | {"binding:vnic_type": ports.c.vnic_type},
    standard.conditions(
        ports,
        status=STATUS.in_,
        fixed_ips=_with_addresses,
        security_groups=_with_groups,
    ),
)
HOST_LISTING = replace(LISTING, columns={**LISTING.columns, "binding:host_id": port_bindings.c.host})
"""For those who may see where a port is: others must not learn it by filters either."""


def _listing(request: Request) -> Listing:
    return HOST_LISTING if request.allows("get_port:binding:host_id", {}) else LISTING


BASE = "/v2.0/ports"
ROUTES = [
    Route("GET", BASE, list_ports, "get_port"),
    Route("POST", BASE, create_ports, "create_port", 201, body=PortsBody),
    Route("GET", BASE + "/{port_id}", show_port, "get_port"),
    Route("PUT", BASE + "/{port_id}", update_port, "update_port", body=PortBody),
    Route("DELETE", BASE + "/{port_id}", delete_port, "delete_port", 204),
]
