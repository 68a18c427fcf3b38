"""``/os-simple-tenant-usage``: what each project's servers took, in hours, between two moments.

A server takes its share from the moment it has a place on a host until nothing of it is left there.
"""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Row

from cumulet.core import clock
from cumulet.core.db import Transaction
from cumulet.core.errors import BadRequest
from cumulet.core.http import Json, Request, Route
from cumulet.nova import status, versions
from cumulet.nova.paging import PAGE, whole_number
from cumulet.nova.tables import servers

POLICY = "os_compute_api:os-simple-tenant-usage:"
WEEKS = 4
Period = tuple[datetime, datetime]


def list_usages(request: Request) -> Json:
    versions.check_query("usages", request)
    period = _period(request)
    with request.db.read() as tx:
        rows, next_marker = _page(tx, request, _within(period))
    projects: dict[str, list[Row[Any]]] = {}
    for row in rows:
        projects.setdefault(row.project_id, []).append(row)
    detailed = request.one("detailed") in ("1", "True")  # what the API's reference says, what the client sends
    usages = [_view(project, mine, period, detailed=detailed) for project, mine in projects.items()]
    return {"tenant_usages": usages, **_links(request, "tenant_usages_links", next_marker)}


def show_usage(request: Request) -> Json:
    project_id = request.params["project_id"]
    request.enforce(POLICY + "show", {"project_id": project_id})
    versions.check_query("usage", request)
    period = _period(request)
    with request.db.read() as tx:
        rows, next_marker = _page(tx, request, _within(period).where(servers.c.project_id == project_id))
    usage = _view(project_id, rows, period, detailed=True) if rows else {}
    return {"tenant_usage": usage, **_links(request, "tenant_usage_links", next_marker)}


def _period(request: Request) -> Period:
    now = datetime.now(UTC)
    start = _moment(request.one("start"), now - timedelta(weeks=WEEKS))
    end = _moment(request.one("end"), now)
    if end < start:
        raise BadRequest("Invalid start time. The start time cannot occur after the end time.")
    return start, end


def _moment(text: str | None, default: datetime) -> datetime:
    if not text:
        return default
    try:
        return clock.parse(text)
    except ValueError as error:
        raise BadRequest("Datetime is in invalid format") from error


def _within(period: Period) -> sa.Select[Any]:
    start, end = (clock.text(moment) for moment in period)
    alive = sa.or_(servers.c.gone_at.is_(None), servers.c.gone_at > start)
    return status.DETAIL.where(servers.c.placed_at.is_not(None), servers.c.placed_at < end, alive)


def _page(tx: Transaction, request: Request, statement: sa.Select[Any]) -> tuple[list[Row[Any]], str | None]:
    """Pages are of servers, in the order of their ids; they began with 2.40, before it there is one page."""
    ordered = statement.order_by(servers.c.id)
    if request.version < (2, 40):
        return list(tx.all(ordered)), None
    limit, marker = whole_number(request.one("limit"), "limit"), request.one("marker")
    if marker:
        if not tx.find(sa.select(servers.c.id).where(servers.c.id == marker)):
            raise BadRequest(f"marker [{marker[:300]}] not found")
        ordered = ordered.where(servers.c.id > marker)
    most = min(limit or PAGE, PAGE)
    rows = tx.all(ordered.limit(most + 1))
    return list(rows[:most]), rows[most - 1].id if len(rows) > most else None


def _links(request: Request, name: str, next_marker: str | None) -> Json:
    if next_marker is None:
        return {}
    query = [f"{key}={value}" for key, value in request.query if key != "marker"]
    href = f"{request.app.endpoint}{request.path}?{'&'.join([*query, f'marker={next_marker}'])}"
    return {name: [{"rel": "next", "href": href}]}


def _view(project_id: str, rows: Iterable[Row[Any]], period: Period, *, detailed: bool) -> Json:
    usages = [_server(row, period) for row in rows]
    total: Json = {
        "tenant_id": project_id,
        "start": _plain(period[0]),
        "stop": _plain(period[1]),
        "total_hours": sum(each["hours"] for each in usages),
        **{
            f"total_{name}_usage": sum(each[name] * each["hours"] for each in usages)
            for name in ("vcpus", "memory_mb", "local_gb")
        },
    }
    return {**total, "server_usages": usages} if detailed else total


def _server(row: Row[Any], period: Period) -> Json:
    began, now = clock.parse(row.placed_at), datetime.now(UTC)
    ended = clock.parse(row.gone_at) if row.gone_at else None
    hours = (min(ended or now, period[1]) - max(began, period[0])).total_seconds() / 3600
    return {
        "instance_id": row.id,
        "name": row.name,
        "tenant_id": row.project_id,
        "flavor": row.flavor["name"],
        "vcpus": row.vcpus,
        "memory_mb": row.memory_mb,
        "local_gb": row.root_gb + row.flavor.get("ephemeral", 0),
        "hours": max(hours, 0.0),
        "started_at": _plain(began),
        "ended_at": _plain(ended) if ended else None,
        "uptime": int(((ended or now) - began).total_seconds()),
        "state": "terminated" if row.gone_at else row.vm_state,
    }


def _plain(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")


URL = "/v2.1/os-simple-tenant-usage"
ROUTES = (
    Route("GET", URL, list_usages, POLICY + "list"),
    Route("GET", URL + "/{project_id}", show_usage, POLICY + "show"),
)
