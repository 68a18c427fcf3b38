"""Live migration: a server goes to another host as it runs.  Each step is one change of rows, made here.

While it moves the old host's row is 'run' and the new one's 'keep': nothing runs there, but all that the guest
needs is made, and the guest may come in (``place``).  When the new host says that it is ready, the old one is given
the verb that sends the guest.  It comes in standing still, and no host lets it go on of its own accord: that is
decided here, once the old host has said that the guest does not run there any more ('sent') and the new one that
all of it is there ('paused').  Then, in one transaction, the new host's row is 'run' and the old one's 'absent'
(``follow``).

So two never run, whoever dies when.  Until it is handed over, a move can be given up at any moment
(``moves.fall_back``): the guest has not run elsewhere, so the old host's disk is the right one, and nobody has to
wait for the new host.  Where the old host says 'sent' and the new one has said nothing of it, the new one is asked:
its word about a later generation is news.
"""

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa
from msgspec.structs import asdict
from sqlalchemy.engine import Row

from cumulet.core import clock
from cumulet.core.config import Config
from cumulet.core.db import Database, Transaction
from cumulet.core.errors import Retry
from cumulet.core.reconcile import Reconciler
from cumulet.neutron import public as neutron
from cumulet.nova import moves, notices
from cumulet.nova.model import LIVE, Progress, Seen
from cumulet.nova.services import is_up, list_hosts
from cumulet.nova.tables import migrations, server_actions, server_hosts, servers
from cumulet.placement import public as placement
from cumulet.placement.model import Capacity, Claim, Resources

LOST = "The server did not arrive on {}."
TOO_LATE = "The server has not arrived in time."
DEAD = "Compute service of {} is unavailable at this time."
STANDING = ("on", "paused")

_m, _h = migrations.c, server_hosts.c
_MOVING = (
    sa.select(*notices.COLUMNS, *moves.COLUMNS, _m.asked_generation, _m.created_at.label("ordered_at"))
    .join_from(servers, migrations, moves.UNFINISHED)
    .where(_m.type == LIVE, servers.c.deleted_at.is_(None))
)


def is_receiving(row: Row[Any]) -> bool:
    """Whether this row is of the host that a running server moves to, before it is handed over."""
    return bool(row.move_type == LIVE and row.wanted == "keep" and row.host == row.move_destination)


# ── nova-scheduler ───────────────────────────────────────────────────────────────────────────────────────────


def place(tx: Transaction, move: Row[Any], capacity: Capacity, need: Resources) -> None:
    """Give a live move its host; ``move``: a migration with its server.  Retry if the server has changed."""
    host = capacity.host
    moves.change_server(tx, move.server_id, move.generation, {})
    moves.choose(tx, move, host)
    placement.claim_all(tx, [Claim(move.uuid, capacity, need)])
    tx.write(server_hosts.insert(), {"server_id": move.server_id, "host": host, "wanted": "keep", "since": 0})
    neutron.bind_ports_also(tx, move.server_id, host)
    for name in (host, move.source):
        tx.hint(f"nova.hosts.{name}", move.server_id)
    row = notices.find_row(tx, move.server_id)
    if row:
        notices.tell(tx, row, "live_migration.pre.start", state="active", host=host)


# ── nova-conductor ───────────────────────────────────────────────────────────────────────────────────────────


def follow(tx: Transaction, server_id: str, host: str, seen: Seen) -> None:
    """One of the two hosts has reported, and that is written down: what does it mean for the move?"""
    row = tx.find(_MOVING.where(servers.c.id == server_id))
    if row is None or row.move_left_at is not None:
        return
    if host == row.move_destination:
        _follow_destination(tx, row, seen)
    elif host == row.move_source:
        _follow_source(tx, row, seen)


def _follow_destination(tx: Transaction, row: Row[Any], seen: Seen) -> None:
    if seen.fault:
        give_up(tx, row, seen.fault)
    elif row.move_ready_at is None:
        if seen.ready:
            _let_go(tx, row)
    elif row.asked_generation is not None and seen.generation >= row.asked_generation:
        if seen.power in STANDING:
            _hand_over(tx, row)
        elif seen.power != "incoming":
            give_up(tx, row, LOST.format(row.move_destination))


def _let_go(tx: Transaction, row: Row[Any]) -> None:
    """The destination is ready: the source may begin."""
    tx.write(sa.update(migrations).where(_m.id == row.move_id).values(ready_at=clock.now()))
    tx.hint(f"nova.hosts.{row.move_source}", row.id)
    notices.tell(tx, row, "live_migration.pre.end", state="active", host=row.move_destination)


def _follow_source(tx: Transaction, row: Row[Any], seen: Seen) -> None:
    if seen.progress:
        _record(tx, row, seen.progress)
    if seen.power != "sent" or row.move_ready_at is None or row.asked_generation is not None:
        return
    there = _find_host(tx, row.id, row.move_destination)
    if there and there.seen_power in STANDING:
        _hand_over(tx, row)
        return
    moves.change_server(tx, row.id, row.generation, {})
    asked = sa.update(migrations).where(_m.id == row.move_id).values(asked_generation=row.generation + 1)
    tx.write(asked)
    tx.hint(f"nova.hosts.{row.move_destination}", row.id)


def _record(tx: Transaction, row: Row[Any], progress: Progress) -> None:
    """How far it is; nothing is written if that is known."""
    values = asdict(progress)
    known = tx.find(sa.select(*(_m[name] for name in values)).where(_m.id == row.move_id))
    if known is None or tuple(known) != tuple(values.values()):
        tx.write(sa.update(migrations).where(_m.id == row.move_id).values(values))


def _hand_over(tx: Transaction, row: Row[Any]) -> None:
    """It stands still on both hosts: from now on it is the destination's, which lets it go on."""
    source, destination = row.move_source, row.move_destination
    here = _find_host(tx, row.id, source)
    if here is None or here.seen_power != "sent":
        return
    moves.change_server(tx, row.id, row.generation, {})
    still = sa.and_(_m.id == row.move_id, _m.finished_at.is_(None), _m.left_at.is_(None))
    if not tx.write(sa.update(migrations).where(still).values(left_at=clock.now())):
        raise Retry(f"the migration of server {row.id} has changed meanwhile")
    moves.tell_host(tx, row.id, source, wanted="absent", since=here.seen_generation)
    run = {"wanted": "run", "since": row.generation + 1, "launched_at": here.launched_at}
    moves.tell_host(tx, row.id, destination, **run)
    placement.hand_over(tx, row.id, source, row.move_uuid)
    placement.hand_over(tx, row.move_uuid, destination, row.id)
    neutron.activate_ports(tx, row.id, destination, source)
    _close(tx, row.id, verb=False)
    notices.tell(tx, row, "live_migration._post.end", state="active", host=source)
    notices.tell(tx, row, "live_migration.post.dest.start", state="active", host=destination)


def give_up(tx: Transaction, row: Row[Any], fault: str) -> None:
    """It stays where it is.  ``row``: a server with its unfinished live move."""
    _close(tx, row.id, finished_at=clock.now(), fault=fault)
    moves.fall_back(tx, row, row.generation)


def cancel(tx: Transaction, server_id: str, fault: str) -> None:
    """By order of its owner, who has said so in the migration's row: one that its source knows nothing of yet."""
    row = tx.find(_MOVING.where(servers.c.id == server_id, _m.ready_at.is_(None)))
    if row is None:
        raise Retry(f"the migration of server {server_id} has changed meanwhile")
    give_up(tx, row, fault)


def _close(tx: Transaction, server_id: str, **values: Any) -> None:
    """Change the action that ordered the move: it is no verb any more, or finished."""
    mine = sa.and_(server_actions.c.server_id == server_id, server_actions.c.finished_at.is_(None))
    tx.write(sa.update(server_actions).where(mine, server_actions.c.action == LIVE).values(values))


def _find_host(tx: Transaction, server_id: str, host: str) -> Row[Any] | None:
    return tx.find(sa.select(server_hosts).where(_h.server_id == server_id, _h.host == host))


class Deadlines:
    """Gives up what takes too long, and what waits for a destination that is dead."""

    def __init__(self, db: Database, config: Config) -> None:
        self._db, self._config = db, config

    def reconciler(self) -> Reconciler[Row[Any]]:
        return Reconciler(
            "live-moves", self.read, self.end, topics=(), resync_seconds=self._config.agents.resync_seconds
        )

    def read(self) -> Mapping[str, Row[Any]]:
        with self._db.read() as tx:
            return self._overdue(tx)

    def _overdue(self, tx: Transaction) -> dict[str, Row[Any]]:
        rows = tx.all(_MOVING.where(_m.left_at.is_(None), _m.destination.is_not(None)))
        hosts = list_hosts(tx) if rows else {}
        return {row.id: row for row in rows if self._why(row, hosts)}

    def _why(self, row: Row[Any], hosts: Mapping[str, Row[Any]]) -> str:
        if row.ordered_at < clock.later(-self._config.compute.live_migration_seconds):
            return TOO_LATE
        agent = hosts.get(row.move_destination)
        if row.move_ready_at is None and (agent is None or not is_up(agent, self._config)):
            return DEAD.format(row.move_destination)
        return ""

    def end(self, row: Row[Any]) -> None:
        with self._db.transaction() as tx:
            now = self._overdue(tx).get(row.id)
            if now:
                give_up(tx, now, self._why(now, list_hosts(tx)))
