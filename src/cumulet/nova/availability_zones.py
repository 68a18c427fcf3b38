"""``/os-availability-zone``: one zone, ``nova``, which every compute host is in.

Administrators also see which services run where (``/detail``); those of the controllers are in ``internal``.
"""

from typing import Any

from sqlalchemy.engine import Row

from cumulet.core.http import Json, Request, Route
from cumulet.nova.services import COMPUTE, INTERNAL_ZONE, ZONE, is_up, list_agents


def list_zones(request: Request) -> Json:
    with request.db.read() as tx:
        rows = [row for row in list_agents(tx) if row.binary == COMPUTE]
    return {"availabilityZoneInfo": [_zone(ZONE, _available(rows), None)]}


def list_zones_detail(request: Request) -> Json:
    with request.db.read() as tx:
        rows = list_agents(tx)
    inside = [row for row in rows if row.binary != COMPUTE]
    computes = [row for row in rows if row.binary == COMPUTE]
    zones = [_zone(INTERNAL_ZONE, True, _hosts(request, inside))] if inside else []
    return {"availabilityZoneInfo": [*zones, _zone(ZONE, _available(computes), _hosts(request, computes))]}


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
