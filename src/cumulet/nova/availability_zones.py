"""``/os-availability-zone``: the zones, which aggregates make; a compute host in none of theirs is in ``nova``.

Administrators also see which services run where (``/detail``); those of the controllers are in ``internal``.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy.engine import Row

from cumulet.core.db import Transaction
from cumulet.core.errors import BadRequest
from cumulet.core.http import Json, Request, Route
from cumulet.nova import zones
from cumulet.nova.scheduling import parse_zone
from cumulet.nova.services import COMPUTE, is_up, list_agents


def check_zone(tx: Transaction, asked: str | None) -> None:
    """Raise BadRequest if there is no such zone; ``asked`` may name a host behind it."""
    zone, _ = parse_zone(asked)
    if zone and zone != zones.DEFAULT and zone not in zones.read_zones(tx).values():
        raise BadRequest("The requested availability zone is not available")


def list_zones(request: Request) -> Json:
    with request.db.read() as tx:
        found = _by_zone([row for row in list_agents(tx) if row.binary == COMPUTE], zones.read_zones(tx))
    return {"availabilityZoneInfo": [_zone(name, _available(rows), None) for name, rows in found.items()]}


def list_zones_detail(request: Request) -> Json:
    with request.db.read() as tx:
        rows, where = list_agents(tx), zones.read_zones(tx)
    inside = [row for row in rows if row.binary != COMPUTE]
    document = [_zone(zones.INTERNAL, True, _hosts(request, inside))] if inside else []
    for name, computes in _by_zone([row for row in rows if row.binary == COMPUTE], where).items():
        document.append(_zone(name, _available(computes), _hosts(request, computes)))
    return {"availabilityZoneInfo": document}


def _by_zone(rows: Sequence[Row[Any]], where: Mapping[str, str]) -> dict[str, list[Row[Any]]]:
    """By name; a cloud without hosts has the default zone."""
    found: dict[str, list[Row[Any]]] = {}
    for row in rows:
        found.setdefault(where.get(row.host, zones.DEFAULT), []).append(row)
    return dict(sorted(found.items())) or {zones.DEFAULT: []}


def _available(rows: list[Row[Any]]) -> bool:
    return any(row.enabled for row in rows)


def _zone(name: str, available: bool, hosts: Json | None) -> Json:
    return {"zoneName": name, "zoneState": {"available": available}, "hosts": hosts}


def _hosts(request: Request, rows: list[Row[Any]]) -> Json:
    hosts: Json = {}
    for row in rows:
        hosts.setdefault(row.host, {})[row.binary] = {
            "available": is_up(row, request.config),
            "active": row.enabled,
            "updated_at": row.seen_at[:26],
        }
    return hosts


POLICY = "os_compute_api:os-availability-zone:"
ROUTES = (
    Route("GET", "/v2.1/os-availability-zone", list_zones, POLICY + "list"),
    Route("GET", "/v2.1/os-availability-zone/detail", list_zones_detail, POLICY + "detail"),
)
