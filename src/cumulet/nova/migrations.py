"""``/os-migrations``: the moves of servers, the newest first.

A migration's status is derived from what was ordered and what the hosts have reported, as a server's is.  A
project's manager sees those of the project's servers, without the hosts; an administrator sees all.
"""

import zlib
from dataclasses import replace
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Row

from cumulet.core import clock
from cumulet.core.errors import BadRequest
from cumulet.core.http import Json, Request, Route
from cumulet.core.listing import Listing, list_page
from cumulet.nova import moves, versions
from cumulet.nova.model import LIVE
from cumulet.nova.paging import PAGE, PAGING, next_links, only
from cumulet.nova.tables import migrations, servers

POLICY = "os_compute_api:os-migrations:"
_m = migrations.c
_live = _m.type == LIVE

status: sa.ColumnElement[str] = sa.case(
    (_m.outcome.is_not(None), _m.outcome),
    (sa.and_(_live, _m.destination.is_(None)), "queued"),
    (sa.and_(_live, _m.ready_at.is_(None)), "preparing"),
    (_live, sa.case((_m.left_at.is_(None), "running"), else_="post-migrating")),
    (_m.wanted == "revert", "reverting"),
    (_m.arrived_at.is_not(None), "finished"),
    (sa.and_(_m.type == moves.EVACUATION, _m.destination.is_(None)), "accepted"),
    (_m.destination.is_(None), "pre-migrating"),
    else_="migrating",
)
updated_at = sa.func.coalesce(_m.finished_at, _m.arrived_at, _m.left_at, _m.ready_at, _m.placed_at, _m.created_at)
SHOWN = sa.select(
    migrations, servers.c.project_id.label("owner"), status.label("status"), updated_at.label("updated_at")
).join_from(migrations, servers)


def list_migrations(request: Request) -> Json:
    """From 2.59 on in pages."""
    paged = request.version >= (2, 59)
    every = request.allows(POLICY + "index:all_projects")
    statement = SHOWN if every else SHOWN.where(servers.c.project_id == request.context.project_id)
    with request.db.read() as tx:
        page = list_page(tx, statement, _filters(request), _LISTING)
    with_hosts = request.allows(POLICY + "index:host")
    found = [_view(request, row, with_hosts) for row in page.rows]
    return {"migrations": found, **(next_links(request, "migrations", page) if paged else {})}


def _filters(request: Request) -> Request:
    names = {"host", "source_compute", "migration_type", "status", "instance_uuid", "hidden"}
    if request.version >= (2, 59):
        names |= {"changes-since"}
    if request.version >= (2, 66):
        names |= {"changes-before"}
    if request.version >= (2, 80):
        names |= {"user_id", "project_id"}
    if request.version >= (2, 59):
        for name, _ in request.query:
            if name not in names and name not in PAGING - {"sort_key", "sort_dir"}:
                raise BadRequest(
                    f"Invalid input for query parameters {name[:300]}. Additional properties are not allowed",
                    kind="ValidationError",
                )
        return only(request, frozenset(names))
    return replace(request, query=[(key, value) for key, value in request.query if key in names])


def _view(request: Request, row: Row[Any], with_hosts: bool) -> Json:
    document = {
        "id": row.id,
        "uuid": row.uuid,
        "instance_uuid": row.server_id,
        "migration_type": row.type,
        "status": row.status,
        **view_hosts(row, with_hosts),
        "old_instance_type_id": _number(row.old_flavor),
        "new_instance_type_id": _number(row.new_flavor),
        "user_id": row.user_id,
        "project_id": row.project_id,
        "created_at": row.created_at[:26],
        "updated_at": row.updated_at[:26],
    }
    if row.type == LIVE and row.finished_at is None:
        base, path = request.app.endpoint, f"/servers/{row.server_id}/migrations/{row.id}"
        document["links"] = [
            {"rel": "self", "href": f"{base}/v2.1{path}"},
            {"rel": "bookmark", "href": f"{base}{path}"},
        ]
    return versions.render("migration", document, request.version)


def view_hosts(row: Row[Any], shown: bool) -> Json:
    """Where it comes from and goes to; null for who may not see hosts."""
    source, destination = (row.source, row.destination) if shown else (None, None)
    return {
        "source_compute": source,
        "source_node": source,
        "dest_compute": destination,
        "dest_node": destination,
        "dest_host": None,
    }


def _number(flavor: Json) -> int:
    """Upstream shows a number of its own here, by which nobody can find the flavor; ours is as stable."""
    return zlib.crc32(flavor["id"].encode()) & 0x7FFFFFFF


def _since(values: list[str]) -> sa.ColumnElement[bool]:
    return updated_at >= _time(values[-1], "changes-since")


def _before(values: list[str]) -> sa.ColumnElement[bool]:
    return updated_at <= _time(values[-1], "changes-before")


def _time(value: str, name: str) -> str:
    try:
        return clock.text(clock.parse(value.replace(" ", "+") if "T" in value else value))
    except ValueError as error:
        raise BadRequest(f"Invalid input for query parameters {name}. Value: {value[:300]} is no time") from error


def _on_host(values: list[str]) -> sa.ColumnElement[bool]:
    return sa.or_(_m.source == values[-1], _m.destination == values[-1])


_LISTING = Listing(
    zero_is_empty=True,
    id=_m.uuid,
    columns={
        "id": _m.id,
        "created_at": _m.created_at,
        "source_compute": _m.source,
        "migration_type": _m.type,
        "status": status,
        "instance_uuid": _m.server_id,
        "user_id": _m.user_id,
        "project_id": _m.project_id,
    },
    conditions={
        "host": _on_host,
        "changes-since": _since,
        "changes-before": _before,
        "hidden": lambda values: sa.true() if values[-1].lower() in ("0", "false") else sa.false(),
    },
    default_sort=(("created_at", "desc"), ("id", "desc")),
    default_page=PAGE,
)

ROUTES = (Route("GET", "/v2.1/os-migrations", list_migrations, POLICY + "index"),)
