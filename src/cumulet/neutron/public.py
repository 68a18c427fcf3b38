"""What nova may ask of neutron, inside nova's own transaction.

A server's ports appear, are bound and go together with the server, its claim and its quota, or not at all.  The
calls send the hints that their changes need.  ApiErrors are for nova's caller: 400 for a wish that makes no
sense, 403 for a network that may not be used, 404 for what is not there, 409 for what is taken or used up.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Row

from cumulet.core.among import among
from cumulet.core.context import Context
from cumulet.core.controller import ControllerEnv
from cumulet.core.db import Transaction
from cumulet.core.errors import BadRequest, Conflict, Forbidden, NotFound
from cumulet.core.http import App
from cumulet.core.made import Made
from cumulet.neutron import addresses, checks, effects, notices, port_rows, quotas, sharing, standard
from cumulet.neutron.addresses import Wish
from cumulet.neutron.model import Address, Port, PortWish
from cumulet.neutron.port_rows import PORTS, NewPort
from cumulet.neutron.port_status import status
from cumulet.neutron.server_security import (
    add_security_group,
    find_groups,
    list_security_groups,
    remove_security_group,
)
from cumulet.neutron.tables import (
    floatingips,
    networks,
    port_addresses,
    port_bindings,
    port_groups,
    ports,
    security_groups,
    subnets,
)

__all__ = [
    "activate_ports",
    "add_fixed_ip",
    "add_security_group",
    "attach_port",
    "bind_ports",
    "bind_ports_also",
    "create_server_ports",
    "default_networks",
    "detach_port",
    "list_host_ports",
    "list_security_groups",
    "list_server_ports",
    "open_api",
    "release_ports",
    "remove_fixed_ip",
    "remove_security_group",
]
OWNER = "compute:nova"


def open_api(env: ControllerEnv) -> App:
    """neutron's whole API in this process, for who speaks for a user, with the user's token."""
    from cumulet.neutron.app import build_app  # which is made of modules that need this one

    return build_app(env)


def create_server_ports(
    tx: Transaction,
    context: Context,
    server_id: str,
    hostname: str,
    wishes: Sequence[PortWish],
    security_groups: Sequence[str],
) -> list[Port]:
    """The ports of a new server, in the order of ``wishes``.  ``security_groups``: names or ids, for new ports."""
    new = sum(1 for wish in wishes if not wish.port_id)
    groups: list[str] = []
    if new:
        quotas.reserve(tx, context.project_id, "port", new)
        groups = find_groups(tx, context, security_groups)
    ids = [_create(tx, context, server_id, hostname, wish, groups) for wish in wishes]
    found = {port.id: port for port in _load(tx, _OF_SERVERS, {"servers": [server_id]})}
    return [found[port_id] for port_id in ids]


def default_networks(tx: Transaction, context: Context) -> list[str]:
    """Networks that a server of this project gets when it names none: its own and shared ones with a subnet."""
    mine = networks.c.project_id == context.project_id
    statement = (
        sa.select(networks.c.id)
        .where(
            sa.or_(mine, sharing.open_to(networks, context.project_id)),
            networks.c.external.is_(False),
            networks.c.id.in_(sa.select(subnets.c.network_id)),
        )
        .order_by(networks.c.created_at, networks.c.id)
    )
    return [row.id for row in tx.all(statement)]


_PORTS_OF = sa.select(ports.c.id, ports.c.network_id).where(ports.c.server_id == sa.bindparam("server"))


def bind_ports(tx: Transaction, server_id: str, host: str) -> None:
    """Let ``host`` wire the server's ports."""
    rows = tx.all(_PORTS_OF, {"server": server_id})
    for row in rows:
        effects.bind(tx, row.id, row.network_id, host)


def bind_ports_also(tx: Transaction, server_id: str, host: str) -> None:
    """Let ``host``, where the server will be, wire its ports too."""
    for row in tx.all(_PORTS_OF, {"server": server_id}):
        effects.bind_also(tx, row.id, row.network_id, host)


def activate_ports(tx: Transaction, server_id: str, host: str, leaving: str) -> None:
    """The server is on ``host`` now: its ports are wired there, and not on ``leaving`` any more."""
    for row in tx.all(_PORTS_OF, {"server": server_id}):
        effects.activate(tx, row.id, row.network_id, host, leaving)


def list_server_ports(tx: Transaction, server_ids: Sequence[str]) -> dict[str, list[Port]]:
    """The ports of these servers, oldest first; servers without ports are left out."""
    found: dict[str, list[Port]] = {}
    for port in _load(tx, _OF_SERVERS, {"servers": list(server_ids)}):
        found.setdefault(port.device_id, []).append(port)
    return found


def list_host_ports(tx: Transaction, host: str) -> dict[str, list[Port]]:
    """The ports of servers that ``host`` should wire, by server."""
    found: dict[str, list[Port]] = {}
    for port in _load(tx, _ON_HOST, {"host": host}):
        found.setdefault(port.device_id, []).append(port)
    return found


def release_ports(tx: Transaction, server_id: str) -> None:
    """The server is gone: delete the ports that nova made, give those of the user back."""
    _release(tx, tx.all(PORTS.where(ports.c.server_id == server_id)))


def attach_port(
    tx: Transaction,
    context: Context,
    server_id: str,
    hostname: str,
    host: str,
    wish: PortWish,
    security_groups: Sequence[str],
) -> Port:
    """One more port for a server that lives on ``host`` (empty: not placed yet)."""
    groups: list[str] = []
    if not wish.port_id:
        quotas.reserve(tx, context.project_id, "port")
        groups = find_groups(tx, context, security_groups)
    port_id = _create(tx, context, server_id, hostname, wish, groups)
    if host:
        row = tx.find(sa.select(ports.c.network_id).where(ports.c.id == port_id))
        assert row is not None
        effects.bind(tx, port_id, row.network_id, host)
    return next(port for port in list_server_ports(tx, [server_id])[server_id] if port.id == port_id)


def detach_port(tx: Transaction, server_id: str, port_id: str) -> None:
    """Take a port from its server; NotFound if it is not the server's."""
    rows = tx.all(PORTS.where(ports.c.id == port_id, ports.c.server_id == server_id))
    if not rows:
        raise port_not_found(port_id)
    _release(tx, rows)


def add_fixed_ip(tx: Transaction, context: Context, server_id: str, network_id: str) -> None:
    """One more IPv4 address for the server's port on the network; NotFound if it has no port there."""
    mine = PORTS.where(ports.c.server_id == server_id, ports.c.network_id == network_id).order_by(ports.c.id)
    row = tx.find(mine)
    if row is None:
        raise NotFound(f"Network could not be found for instance {server_id}.", kind="NetworkNotFoundForInstance")
    _set_fixed_ips(tx, context, row, [*_fixed_ips(tx, row.id), Wish(version=4)])


def remove_fixed_ip(tx: Transaction, context: Context, server_id: str, ip: str) -> None:
    """Take an address from the server's port that has it; NotFound if none has."""
    having = sa.select(port_addresses.c.port_id).where(port_addresses.c.ip == ip)
    row = tx.find(PORTS.where(ports.c.server_id == server_id, ports.c.id.in_(having)))
    if row is None:
        text = f"Fixed IP address {checks.shown(ip)} is not associated with instance {server_id}."
        raise NotFound(text, kind="FixedIpNotFoundForInstance")
    _set_fixed_ips(tx, context, row, [wish for wish in _fixed_ips(tx, row.id) if wish.ip != ip])


def _fixed_ips(tx: Transaction, port_id: str) -> list[Wish]:
    mine = sa.select(port_addresses).where(port_addresses.c.port_id == port_id).order_by(port_addresses.c.position)
    return [Wish(ip=row.ip) for row in tx.all(mine)]


def _set_fixed_ips(tx: Transaction, context: Context, row: Row[Any], wishes: Sequence[Wish]) -> None:
    """The port gets these addresses, and all who act on them are told."""
    standard.touch(tx, ports, [row.id])
    port_rows.set_addresses(tx, row, wishes, addresses.subnets_of(tx, row.network_id))
    port_rows.release_lost(tx, row.id)
    groups = tx.all(sa.select(port_groups.c.security_group_id).where(port_groups.c.port_id == row.id))
    effects.hint_members(tx, {group.security_group_id for group in groups})
    effects.hint_port(tx, row.id)
    effects.bump_dhcp(tx, row.network_id)
    tx.notify(context, "port.update.end", notices.PUBLISHER, {"port": {"id": row.id, "device_id": row.device_id}})


def port_not_found(port_id: str) -> NotFound:
    return NotFound(f"Port {checks.shown(port_id)} could not be found.", kind="PortNotFound")


def _create(
    tx: Transaction, context: Context, server_id: str, hostname: str, wish: PortWish, groups: Sequence[str]
) -> str:
    """Make or take the port that a server wishes; its id."""
    if wish.port_id:
        return _take(tx, context, server_id, hostname, wish.port_id)
    network = _usable_network(tx, context, wish.network_id)
    if wish.fixed_ip and not (context.admin or network.project_id == context.project_id):
        raise Forbidden(
            f"The address {checks.shown(wish.fixed_ip)} may be chosen by the owner of network {network.id} only.",
            kind="PolicyNotAuthorized",
        )
    values = {
        "device_id": server_id,
        "device_owner": OWNER,
        "server_id": server_id,
        "nova_made": True,
        "dns_name": _dns_name(hostname),
        "port_security": network.port_security,
    }
    wishes = [Wish(ip=checks.ip(wish.fixed_ip))] if wish.fixed_ip else None
    applied = groups if network.port_security else ()
    port_id = port_rows.create_port_row(tx, NewPort(network, context.project_id, values, wishes, applied))
    payload = {"port": {"id": port_id, "network_id": network.id, "project_id": context.project_id, **values}}
    tx.notify(context, "port.create.end", notices.PUBLISHER, payload)
    return port_id


def _take(tx: Transaction, context: Context, server_id: str, hostname: str, port_id: str) -> str:
    """Give a user's own port to a server; of two servers that want it one gets a 409."""
    row = tx.find(sa.select(ports).where(ports.c.id == port_id))
    if row is None or not (context.admin or row.project_id == context.project_id):
        raise port_not_found(port_id)
    free = {"device_id": server_id, "device_owner": OWNER, "server_id": server_id, "nova_made": False}
    if not row.dns_name:
        free["dns_name"] = _dns_name(hostname)
    in_use = row.device_id or row.device_owner.startswith("network:")
    if in_use or not standard.change(tx, ports, row, free):
        raise Conflict(f"Port {row.id} is still in use.", kind="PortInUse")
    effects.bump_dhcp(tx, row.network_id)
    return str(row.id)


def _dns_name(hostname: str) -> str:
    """A server's host name, if DNS can have it; else its ports are named after their addresses."""
    try:
        return checks.host_name(hostname)
    except BadRequest:
        return ""


def _usable_network(tx: Transaction, context: Context, network_id: str) -> Row[Any]:
    """A network that servers of this project may be on, with at least one subnet."""
    network = tx.find(sharing.usable_one(networks, context.project_id, context.admin), {"id": network_id})
    if network is None:
        raise NotFound(f"Network {checks.shown(network_id)} could not be found.", kind="NetworkNotFound")
    mine = context.admin or network.project_id == context.project_id
    if network.external and not (mine or network.shared):
        raise Forbidden(
            f"It is not allowed to create an interface on external network {network.id}",
            kind="ExternalNetworkAttachForbidden",
        )
    if not addresses.subnets_of(tx, network.id):
        raise BadRequest(
            f"Network {network.id} requires a subnet in order to boot instances on.", kind="NetworkRequiresSubnet"
        )
    return network


def _release(tx: Transaction, rows: Sequence[Row[Any]]) -> None:
    made = [row for row in rows if row.nova_made]
    port_rows.delete_port_rows(tx, standard.system_context(), made)
    for row in rows:
        if not row.nova_made:
            effects.unbind(tx, row.id)
            values = {"device_id": "", "device_owner": "", "server_id": None, "dns_name": ""}
            tx.write(sa.update(ports).where(ports.c.id == row.id).values(**values))
            standard.touch(tx, ports, [row.id])
            effects.bump_dhcp(tx, row.network_id)


_SHOWN = (
    *(ports.c[name] for name in ("id", "network_id", "name", "mac", "device_id", "device_owner", "server_id")),
    *(ports.c[name] for name in ("nova_made", "admin_up")),
    *(port_bindings.c[name] for name in ("host", "generation", "wired_generation", "wired_at", "wired_in")),
)

_NETWORKS = sa.select(
    networks.c.id,
    networks.c.name,
    networks.c.mtu,
    subnets.c.id.label("subnet_id"),
    *(subnets.c[name] for name in ("cidr", "gateway_ip", "dns_servers", "routes", "dhcp", "ip_version")),
    subnets.c.ipv6_address_mode,
).outerjoin(subnets, subnets.c.network_id == networks.c.id)
"""Networks, with a row for each of their subnets."""


_THEIRS = PORTS.with_only_columns(*_SHOWN).order_by(ports.c.created_at, ports.c.id)
_OF_SERVERS = _THEIRS.where(among(ports.c.server_id, "servers"))
_ON_HOST = (
    sa.select(*_SHOWN)
    .join_from(ports, port_bindings)
    .where(port_bindings.c.host == sa.bindparam("host"), ports.c.server_id.is_not(None))
    .order_by(ports.c.created_at, ports.c.id)
)
"""What a host should wire, whether that binding is the active one or not."""
_ADDRESSES = sa.select(port_addresses.c.port_id, port_addresses.c.ip, port_addresses.c.subnet_id).order_by(
    port_addresses.c.position
)
_GROUPS = sa.select(port_groups.c.port_id, security_groups.c.name).join(
    security_groups, security_groups.c.id == port_groups.c.security_group_id
)
_FLOATING = sa.select(floatingips.c.port_id, floatingips.c.fixed_ip, floatingips.c.floating_ip)
_PARTS = (_ADDRESSES, _GROUPS, _FLOATING)
Part = tuple[Any, ...]


def _load(tx: Transaction, statement: sa.Select[Any], values: Mapping[str, Any]) -> list[Port]:
    """Ports of servers (``statement`` chooses them) as nova sees them: one query per table, however many."""
    rows = tx.all(statement, values)
    ids = [row.id for row in rows]
    theirs = [standard.parts(tx, part, part.selected_columns.port_id, ids) for part in _PARTS]
    nets = standard.parts(tx, _NETWORKS, networks.c.id, [row.network_id for row in rows])
    return [
        _made.of(row.id, row, nets[row.network_id], *(found.get(row.id, ()) for found in theirs)) for row in rows
    ]


def _port(
    row: Row[Any], nets: Sequence[Part], places: Sequence[Part], groups: Sequence[Part], floating: Sequence[Part]
) -> Port:
    name, mtu, *_ = nets[0]
    known = {subnet[0]: _of_subnet(*subnet) for _, _, *subnet in nets}
    return Port(
        id=row.id,
        network_id=row.network_id,
        network_name=name,
        mac=row.mac,
        addresses=tuple(Address(ip, **known[subnet_id]) for ip, subnet_id in places),
        mtu=mtu,
        wired=row.host is not None and row.wired_generation == row.generation,
        device_id=row.server_id or row.device_id,
        status=status(row),
        security_groups=tuple(sorted(group for (group,) in groups)),
        floating_ips=tuple((fixed_ip, floating_ip) for fixed_ip, floating_ip in floating),
        created_by_nova=row.nova_made,
        name=row.name,
        wired_in=row.wired_in or "",
    )


_made = Made(_port)


def _of_subnet(
    subnet_id: str,
    cidr: str,
    gateway: str | None,
    dns: Any,
    routes: Any,
    dhcp: bool,
    ip_version: int,
    mode: str | None,
) -> dict[str, Any]:
    """What all addresses of a subnet have in common."""
    return {
        "subnet_id": subnet_id,
        "cidr": cidr,
        "gateway": gateway or "",
        "dns": tuple(dns or ()),
        "routes": tuple((route["destination"], route["nexthop"]) for route in routes or ()),
        "dhcp": dhcp,
        "ip_version": ip_version,
        "ipv6_mode": mode or "",
    }
