"""A move falls back by itself if its destination dies before it was let go on.

The destination of a server that goes off and on again is held until the old host is quiet.  Then it fetches the
disk, which may take long, and says that it has it (``note_fetched``).  It is let go on when it next asks for its
intent, and that is written down before it is answered (``let_go``).  As long as nothing is written down, it has
never been told to start the server, and whoever gives the move up changes the same row, so that it never will be
(``give_up``): the server is free to run where it was, without a word from the destination, which takes away what it
has begun when it comes back.  A destination that dies later may have started it; nobody but an administrator can
know.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Row

from cumulet.core import clock
from cumulet.core.config import Config
from cumulet.core.db import Database, Transaction
from cumulet.core.errors import Retry
from cumulet.core.reconcile import Reconciler
from cumulet.nova import moves, notices
from cumulet.nova.model import Seen
from cumulet.nova.services import is_up, list_hosts
from cumulet.nova.tables import migrations, server_actions, server_hosts, servers

DEAD = "Compute service of {} is unavailable at this time."

_m = migrations.c
_HELD = sa.and_(_m.held.is_(sa.true()), _m.finished_at.is_(None))
_WAITING = (
    sa.select(*notices.COLUMNS, *moves.COLUMNS)
    .join_from(servers, migrations, moves.UNFINISHED)
    .where(_HELD, _m.wanted == "move", _m.arrived_at.is_(None), servers.c.deleted_at.is_(None))
)


def note_fetched(tx: Transaction, row: Row[Any], seen: Seen) -> None:
    """A host has reported of a server that moves: if its disk has come, it may be let go on."""
    if not seen.ready or seen.generation < row.since or row.move_ready_at is not None or not moves.is_arriving(row):
        return
    if tx.write(sa.update(migrations).where(_m.id == row.move_id, _HELD).values(ready_at=clock.now())):
        tx.hint(f"nova.hosts.{row.host}", row.id)


def let_go(tx: Transaction, numbers: Sequence[int]) -> None:
    """The destinations of these moves are about to be told that they may begin."""
    tx.write(sa.update(migrations).where(_m.id.in_(numbers), _HELD).values(held=False))


def give_up(tx: Transaction, row: Row[Any]) -> None:
    """``row``: a server with its unfinished move.  Retry if its destination has asked meanwhile."""
    waiting = sa.and_(_m.id == row.move_id, _HELD, _m.arrived_at.is_(None))
    if not tx.write(sa.update(migrations).where(waiting).values(held=None)):
        raise Retry(f"the migration of server {row.id} has changed meanwhile")
    fault = DEAD.format(row.move_destination)
    mine = sa.and_(server_actions.c.server_id == row.id, server_actions.c.finished_at.is_(None))
    named = server_actions.c.action.in_(tuple(moves.TYPES))
    tx.write(sa.update(server_actions).where(mine, named).values(finished_at=clock.now(), fault=fault))
    moves.fall_back(tx, row, row.generation)
    there = sa.and_(server_hosts.c.server_id == row.id, server_hosts.c.host == row.move_destination)
    tx.write(sa.update(server_hosts).where(there).values(fenced=True))  # nothing runs there
    notices.tell(tx, row, "resize.error", state="active", host=row.move_source, message=fault)


class Stranded:
    """Looks for moves whose destination gives no sign of life."""

    def __init__(self, db: Database, config: Config) -> None:
        self._db, self._config = db, config

    def reconciler(self) -> Reconciler[Row[Any]]:
        return Reconciler("stranded-moves", self.read, self.end, resync_seconds=self._config.agents.resync_seconds)

    def read(self) -> Mapping[str, Row[Any]]:
        with self._db.read() as tx:
            return self._stranded(tx)

    def end(self, row: Row[Any]) -> None:
        with self._db.transaction() as tx:
            now = self._stranded(tx).get(row.id)
            if now:
                give_up(tx, now)

    def _stranded(self, tx: Transaction) -> dict[str, Row[Any]]:
        rows = tx.all(_WAITING)
        agents = list_hosts(tx) if rows else {}
        return {row.id: row for row in rows if not self._lives(agents.get(row.move_destination))}

    def _lives(self, agent: Row[Any] | None) -> bool:
        return agent is not None and is_up(agent, self._config)
