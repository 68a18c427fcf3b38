"""``os-resetState``: an administrator says that a server is broken, or that it is to be looked at afresh.

A status is derived, so nothing is set to ACTIVE here.  ``error`` is a mark that any later order takes away.
``active`` takes it away, too, and gives the wish a new generation: what was said of the old one, a fault most of
all, counts no more, and the host tries again.  Either way, what the host has not carried out yet is called off, and
a server that has not arrived on another host goes back.
"""

from typing import Literal

import sqlalchemy as sa
from msgspec import field

from cumulet.core import clock
from cumulet.core.db import Transaction
from cumulet.core.errors import Retry
from cumulet.core.http import Reply, Request, Route
from cumulet.core.schema import Strict
from cumulet.nova import moves, notices, snapshots
from cumulet.nova.server_actions import URL
from cumulet.nova.servers import get_server
from cumulet.nova.tables import server_actions, servers

POLICY = "os_compute_api:os-admin-actions:reset_state"
CALLED_OFF = "An administrator has reset the state of the server."


class State(Strict):
    state: Literal["active", "error"]


class ResetState(Strict):
    reset: State = field(name="os-resetState")


def reset_state(request: Request) -> Reply:
    broken = request.body.reset.state == "error"
    with request.db.transaction() as tx:
        row = get_server(tx, request, POLICY)
        still = sa.and_(servers.c.id == row.id, servers.c.generation == row.generation, servers.c.gone_at.is_(None))
        changes = {"forced_error": broken, "updated_at": clock.now()}
        if row.deleted_at is None:
            changes |= {"generation": row.generation + 1, "request_id": request.context.request_id}
        if not tx.write(sa.update(servers).where(still).values(changes)):
            raise Retry(f"server {row.id} has changed meanwhile")
        _call_off(tx, row.id)
        if row.move_id and row.move_arrived_at is None and row.deleted_at is None:
            moves.fall_back(tx, row, row.generation + 1)
        changed, after = notices.find_row(tx, row.id), get_server(tx, request, POLICY)
        if changed:
            notices.tell(tx, changed, "update", state=after.vm_state, host=row.host or "")
        tx.hint("nova.servers", row.id)
        if row.host:
            tx.hint(f"nova.hosts.{row.host}", row.id)
    return Reply()


def _call_off(tx: Transaction, server_id: str) -> None:
    """End the verbs that its host has not carried out, and the images that wait for them."""
    due = sa.or_(server_actions.c.verb, server_actions.c.action.in_(tuple(moves.TYPES)))
    waiting = sa.and_(server_actions.c.server_id == server_id, due, server_actions.c.finished_at.is_(None))
    snapshots.abandon(tx, tx.all(sa.select(server_actions).where(waiting)))
    ended = {"finished_at": clock.now(), "fault": CALLED_OFF}
    tx.write(sa.update(server_actions).where(waiting).values(ended))


ROUTES = (Route("POST", URL, reset_state, POLICY, 202, body=ResetState, action="os-resetState"),)
