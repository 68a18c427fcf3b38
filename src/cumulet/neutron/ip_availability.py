"""/v2.0/network-ip-availabilities: how many addresses networks have, and how many are taken."""

from collections.abc import Sequence
from ipaddress import ip_address
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Row

from cumulet.core.db import Transaction
from cumulet.core.errors import BadRequest
from cumulet.core.http import Request, Route
from cumulet.neutron import standard
from cumulet.neutron.networks import get_network
from cumulet.neutron.standard import Json
from cumulet.neutron.tables import networks, port_addresses, subnets

FILTERS = {
    "network_id": networks.c.id,
    "network_name": networks.c.name,
    "project_id": networks.c.project_id,
    "tenant_id": networks.c.project_id,
}


def list_availabilities(request: Request) -> Json:
    versions = request.many("ip_version")
    if any(version not in ("4", "6") for version in versions):
        raise BadRequest(f"Invalid input for ip_version: {versions[0]!r} is not 4 or 6")
    statement = sa.select(networks)
    for name, column in FILTERS.items():
        if values := request.many(name):
            statement = statement.where(column.in_(values))
    with request.db.read() as tx:
        rows = tx.all(statement.order_by(networks.c.created_at, networks.c.id))
        views = _views(tx, rows, {int(version) for version in versions} or {4, 6})
    return {"network_ip_availabilities": [standard.selected(request, view) for view in views]}


def show_availability(request: Request) -> Json:
    with request.db.read() as tx:
        row = get_network(tx, request, request.params["network_id"])
        return {"network_ip_availability": standard.selected(request, _views(tx, [row], {4, 6})[0])}


def _views(tx: Transaction, rows: Sequence[Row[Any]], versions: set[int]) -> list[Json]:
    ids = [row.id for row in rows]
    within = (
        sa.select(subnets).where(subnets.c.ip_version.in_(versions)).order_by(subnets.c.created_at, subnets.c.id)
    )
    nets = standard.related(tx, within, subnets.c.network_id, ids)
    count = sa.select(port_addresses.c.subnet_id, port_addresses.c.network_id, sa.func.count().label("used"))
    grouped = count.group_by(port_addresses.c.subnet_id, port_addresses.c.network_id)
    used = standard.related(tx, grouped, port_addresses.c.network_id, ids)
    return [
        _view(row, nets.get(row.id, ()), {one.subnet_id: one.used for one in used.get(row.id, ())}) for row in rows
    ]


def _view(row: Row[Any], mine: Sequence[Row[Any]], used: dict[str, int]) -> Json:
    parts = [
        {
            "subnet_id": subnet.id,
            "subnet_name": subnet.name,
            "cidr": subnet.cidr,
            "ip_version": subnet.ip_version,
            "total_ips": _total(subnet),
            "used_ips": used.get(subnet.id, 0),
        }
        for subnet in mine
    ]
    return {
        "network_id": row.id,
        "network_name": row.name,
        "project_id": row.project_id,
        "tenant_id": row.project_id,
        "total_ips": sum(_total(subnet) for subnet in mine),
        "used_ips": sum(part["used_ips"] for part in parts),
        "subnet_ip_availability": parts,
    }


def _total(subnet: Row[Any]) -> int:
    return sum(int(ip_address(pool["end"])) - int(ip_address(pool["start"])) + 1 for pool in subnet.pools)


BASE = "/v2.0/network-ip-availabilities"
ROUTES = [
    Route("GET", BASE, list_availabilities, "get_network_ip_availability"),
    Route("GET", BASE + "/{network_id}", show_availability, "get_network_ip_availability"),
]
