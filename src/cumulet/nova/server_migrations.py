"""``/servers/{id}/migrations``: a server's live migration on its way: to look at, to speed up, to cancel.

To speed it up or to cancel it is one more wish: its source reads it, and what has happened meanwhile has happened.
"""

from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Row

from cumulet.core.db import Transaction
from cumulet.core.errors import BadRequest, Conflict, NotFound, Retry
from cumulet.core.http import Json, Reply, Request, Route
from cumulet.core.schema import Strict
from cumulet.nova import live_moves, migrations, notices, versions
from cumulet.nova.model import LIVE
from cumulet.nova.server_actions import movable
from cumulet.nova.servers import Order, get_server, order
from cumulet.nova.tables import migrations as table

POLICY = "os_compute_api:servers:migrations:"
CANCELLED = "The live migration was cancelled."
_m = table.c


class ForceComplete(Strict):
    force_complete: None


def list_server_migrations(request: Request) -> Json:
    with request.db.read() as tx:
        server = get_server(tx, request, POLICY + "index")
        here = (_m.server_id == server.id, _m.type == LIVE, _m.finished_at.is_(None))
        rows = tx.all(migrations.SHOWN.where(*here).order_by(_m.id))
    hosts = request.allows(POLICY + "index:host")
    return {"migrations": [_view(request, row, hosts) for row in rows]}


def show_server_migration(request: Request) -> Json:
    server_id, number = request.params["id"], request.params["migration_id"]
    with request.db.read() as tx:
        get_server(tx, request, POLICY + "show")
        row = _find(tx, server_id, number)
    if row is None:
        raise NotFound(f"In-progress live migration {number[:300]} is not found for server {server_id}.")
    if row.type != LIVE:
        raise NotFound(f"Migration {number} for server {server_id} is not live-migration.")
    if row.finished_at is not None:
        raise NotFound(f"Live migration {number} for server {server_id} is not in progress.")
    return {"migration": _view(request, row, True)}


def cancel_migration(request: Request) -> Reply:
    """Until 2.64 only one that runs; one that has not begun is over at once."""
    states = ("running",) if request.version < (2, 65) else ("running", "queued", "preparing")
    with request.db.transaction() as tx:
        row, move = _under_way(tx, request, "delete", "abort live migration", states, NotFound)
        order(tx, request, row, Order("live_migration_cancel"))
        _wish(tx, move, "abort")
        if move.status != "running":
            live_moves.cancel(tx, row.id, CANCELLED)
        _tell(tx, row, "live.migration.abort")
    return Reply()


def force_complete(request: Request) -> Reply:
    with request.db.transaction() as tx:
        row, move = _under_way(tx, request, "force_complete", "force complete", ("running",), BadRequest)
        order(tx, request, row, Order("live_migration_force_complete"))
        _wish(tx, move, "force")
        _tell(tx, row, "live.migration.force.complete")
    return Reply()


def _under_way(
    tx: Transaction, request: Request, rule: str, method: str, states: tuple[str, ...], missing: type[Exception]
) -> tuple[Row[Any], Row[Any]]:
    """The server and its live migration, if it is in one of these states."""
    row, number = movable(tx, request, POLICY + rule), request.params["migration_id"]
    if row.task_state != "migrating":
        action = "force_complete" if rule == "force_complete" else method
        raise Conflict(f"Cannot '{action}' instance {row.id} while it is in task_state {row.task_state}")
    move = _find(tx, row.id, number)
    if move is None:
        raise missing(f"Migration {number[:300]} not found for instance {row.id}")
    if move.status not in states:
        raise BadRequest(
            f"Migration {move.id} state of instance {row.id} is {move.status}. Cannot {method} while the migration "
            "is in this state."
        )
    return row, move


def _wish(tx: Transaction, move: Row[Any], wanted: str) -> None:
    """Who has cancelled it cannot wish it faster."""
    still = sa.and_(_m.id == move.id, _m.finished_at.is_(None), _m.left_at.is_(None), _m.wanted == move.wanted)
    if move.wanted != "abort" and not tx.write(sa.update(table).where(still).values(wanted=wanted)):
        raise Retry(f"migration {move.id} has changed meanwhile")


def _tell(tx: Transaction, row: Row[Any], event: str) -> None:
    changed = notices.find_row(tx, row.id)
    if changed:
        for moment in ("start", "end"):
            notices.tell(tx, changed, f"{event}.{moment}", state=row.vm_state, host=row.host)


def _find(tx: Transaction, server_id: str, number: str) -> Row[Any] | None:
    if not (number.isascii() and number.isdecimal() and len(number) < 10):
        return None
    return tx.find(migrations.SHOWN.where(_m.id == int(number), _m.server_id == server_id))


def _view(request: Request, row: Row[Any], with_hosts: bool) -> Json:
    document = {
        "id": row.id,
        "uuid": row.uuid,
        "server_uuid": row.server_id,
        "status": row.status,
        **migrations.view_hosts(row, with_hosts),
        **{
            f"{kind}_{part}_bytes": getattr(row, f"{kind}_{part}")
            for kind in ("memory", "disk")
            for part in ("total", "processed", "remaining")
        },
        "user_id": row.user_id,
        "project_id": row.project_id,
        "created_at": row.created_at[:26],
        "updated_at": row.updated_at[:26],
    }
    return versions.render("server_migration", document, request.version)


URL = "/v2.1/servers/{id}/migrations"
ONE = URL + "/{migration_id}"
ROUTES = (
    Route("GET", URL, list_server_migrations, POLICY + "index", since=(2, 23)),
    Route("GET", ONE, show_server_migration, POLICY + "show", since=(2, 23)),
    Route("DELETE", ONE, cancel_migration, POLICY + "delete", 202, since=(2, 24)),
    Route(
        "POST", ONE + "/action", force_complete, POLICY + "force_complete", 202,
        body=ForceComplete, action="force_complete", since=(2, 22),
    ),
)  # fmt: skip
