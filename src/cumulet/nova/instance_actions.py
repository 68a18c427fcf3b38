"""``/servers/{id}/os-instance-actions``: what was ordered of a server, by whom, and what came of it.

Each action has one event: the work of the host, or of the scheduler where no host was found.
"""

from dataclasses import replace
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Row

from cumulet.core import clock
from cumulet.core.errors import BadRequest, NotFound
from cumulet.core.http import Json, Request, Route
from cumulet.core.listing import Listing, list_page
from cumulet.nova import versions
from cumulet.nova.paging import PAGE, next_links, only
from cumulet.nova.server_views import host_id
from cumulet.nova.servers import get_server
from cumulet.nova.tables import server_actions

POLICY = "os_compute_api:os-instance-actions:"
_EVENTS = {
    "create": "compute__do_build_and_run_instance",
    "delete": "compute_terminate_instance",
    "start": "compute_start_instance",
    "stop": "compute_stop_instance",
    "reboot": "compute_reboot_instance",
    "pause": "compute_pause_instance",
    "unpause": "compute_unpause_instance",
    "suspend": "compute_suspend_instance",
    "resume": "compute_resume_instance",
    "rebuild": "compute_rebuild_instance",
    "resize": "compute_finish_resize",
    "migrate": "compute_finish_resize",
    "confirmResize": "compute_confirm_resize",
    "revertResize": "compute_finish_revert_resize",
    "evacuate": "compute_rebuild_instance",
    "createImage": "compute_snapshot_instance",
    "createBackup": "compute_backup_instance",
    "live-migration": "compute_live_migration",
    "lock": "api_lock",
    "unlock": "api_unlock",
    "attach_interface": "compute_attach_interface",
    "detach_interface": "compute_detach_interface",
}
_a = server_actions.c


def list_actions(request: Request) -> Json:
    """The newest first.  From 2.58 on in pages."""
    versions.check_query("actions", request)
    paged = request.version >= (2, 58)
    filters = only(request, frozenset({"changes-since", "changes-before"})) if paged else replace(request, query=())
    with request.db.read() as tx:
        server = get_server(tx, request, POLICY + "list", gone=request.version >= (2, 21))
        mine = sa.select(server_actions).where(_a.server_id == server.id)
        page = list_page(tx, mine, filters, _LISTING)
    found = [versions.render("action", _view(row), request.version) for row in page.rows]
    links = next_links(request, "actions", page).get("actions_links") if paged else None
    return {"instanceActions": found, **({"links": links} if links else {})}


def show_action(request: Request) -> Json:
    request_id = request.params["request_id"]
    with request.db.read() as tx:
        server = get_server(tx, request, POLICY + "show", gone=request.version >= (2, 21))
        row = tx.find(
            sa.select(server_actions).where(_a.server_id == server.id, _a.request_id == request_id).order_by(_a.id)
        )
    if row is None:
        raise NotFound(f"Action {request_id} not found")
    document = _view(row) | {"events": [_event(request, row, server)]}
    return {"instanceAction": versions.render("action", document, request.version)}


def _view(row: Row[Any]) -> Json:
    return {
        "action": row.action,
        "instance_uuid": row.server_id,
        "request_id": row.request_id,
        "user_id": row.user_id,
        "project_id": row.project_id,
        "start_time": row.started_at[:26],
        "message": "Error" if row.fault else None,
        "updated_at": (row.finished_at or row.started_at)[:26],
    }


def _event(request: Request, row: Row[Any], server: Row[Any]) -> Json:
    """The action's event; who may not see all of it gets no trace and no host."""
    target = {"project_id": server.project_id}
    host = row.host or server.host
    event: Json = {
        "event": _EVENTS.get(row.action, f"compute_{row.action}"),
        "start_time": row.started_at[:26],
        "finish_time": row.finished_at[:26] if row.finished_at else None,
        "result": None if row.finished_at is None else "Error" if row.fault else "Success",
        "hostId": host_id(server.project_id, host),
    }
    if request.allows(POLICY + "events", target):
        event |= {"traceback": row.fault, "host": host}
    if request.allows(POLICY + "events:details", target):
        event["details"] = row.fault
    return event


def _since(values: list[str]) -> sa.ColumnElement[bool]:
    return sa.func.coalesce(_a.finished_at, _a.started_at) >= _time(values[-1], "changes-since")


def _before(values: list[str]) -> sa.ColumnElement[bool]:
    return sa.func.coalesce(_a.finished_at, _a.started_at) <= _time(values[-1], "changes-before")


def _time(value: str, name: str) -> str:
    try:
        return clock.text(clock.parse(value.replace(" ", "+") if "T" in value else value))
    except ValueError as error:
        raise BadRequest(f"Invalid input for query parameters {name}. Value: {value[:300]} is no time") from error


_LISTING = Listing(
    zero_is_empty=True,
    id=_a.request_id,
    columns={"id": _a.id},
    conditions={"changes-since": _since, "changes-before": _before},
    default_sort=(("id", "desc"),),
    default_page=PAGE,
)

URL = "/v2.1/servers/{id}/os-instance-actions"
ROUTES = (
    Route("GET", URL, list_actions, POLICY + "list"),
    Route("GET", URL + "/{request_id}", show_action, POLICY + "show"),
)
