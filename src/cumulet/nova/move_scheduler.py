"""nova-scheduler's second loop: gives every ordered move its host.

Moves are few, so each is a look and a transaction of its own.  The choice is that of ``nova.scheduling``, without
the hosts that the server cannot go to.  Where there is no room the server stays what and where it is.
"""

import logging
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Row

from cumulet.core.config import Config
from cumulet.core.db import Database, Transaction
from cumulet.core.reconcile import Reconciler
from cumulet.nova import live_moves, moves, scheduler_hints, scheduler_view
from cumulet.nova.model import LIVE
from cumulet.nova.scheduling import Decision, Group, Hint, Wish, parse_zone, place
from cumulet.nova.services import list_hosts
from cumulet.nova.shared_disks import sharing
from cumulet.nova.tables import migrations, server_groups, server_hosts, servers
from cumulet.placement.model import Resources

LOG = logging.getLogger(__name__)
_UNPLACED = (
    sa.select(
        migrations,
        servers.c.generation,
        servers.c.image,
        servers.c.availability_zone,
        server_groups.c.id.label("group_id"),
        server_groups.c.policy,
        server_groups.c.rules,
    )
    .join_from(migrations, servers)
    .outerjoin(server_groups, servers.c.server_group_id == server_groups.c.id)
    .where(migrations.c.finished_at.is_(None), migrations.c.placed_at.is_(None), servers.c.deleted_at.is_(None))
    .order_by(migrations.c.id)
)

_HINTED = sa.select(servers.c.id, servers.c.project_id, servers.c.scheduler_hints).where(
    servers.c.id == sa.bindparam("server")
)


@dataclass(frozen=True)
class Choice:
    """What was decided for a move, and of which generations of server groups."""

    wish: Wish
    decision: Decision
    generations: Mapping[str, int]


def find_move(tx: Transaction, server_id: str) -> Row[Any]:
    """A server's move that has no host yet."""
    (found,) = tx.all(_UNPLACED.where(servers.c.id == server_id))
    return found


def choose_host(tx: Transaction, config: Config, move: Row[Any], seed: int = 0) -> Choice:
    """Where a move should go; nothing is claimed."""
    wish = _wish(tx, config, move)
    rooms = scheduler_view.read_rooms(tx, config)
    generations = scheduler_view.read_generations(tx, [wish])
    members = scheduler_view.read_members(tx, [wish])
    if wish.group:  # it does not stand in its own way
        members[wish.group.id] -= Counter([move.source])
    (decision,) = place([wish], rooms, seed, members)
    return Choice(wish, decision, generations)


def _wish(tx: Transaction, config: Config, move: Row[Any]) -> Wish:
    flavor = move.new_flavor
    need = Resources(flavor["vcpus"], flavor["ram"], scheduler_view.disk_gb(flavor, move.image))
    zone, _ = parse_zone(move.availability_zone)
    group = None
    if move.group_id:
        group = Group(move.group_id, move.policy, move.rules.get("max_server_per_host", 1))
    there = tx.all(sa.select(server_hosts.c.host).where(server_hosts.c.server_id == move.server_id))
    besides = {row.host for row in there}
    if move.type == moves.RESIZE and config.compute.resize_to_same_host:
        besides.discard(move.source)
    (server,) = tx.all(_HINTED, {"server": move.server_id})
    asked = scheduler_hints.read_hints(tx, [server]).get(server.id, ())
    hints = [Hint("other_host", frozenset(besides), inside=False), *asked]
    if move.type in (LIVE, moves.EVACUATION) and (near := sharing(list_hosts(tx), move.source)):
        hints.append(Hint("shared_disks", near, inside=True))
    return Wish(
        move.server_id, need, config.compute.overhead_memory_mb, zone, move.target or "", group, tuple(hints)
    )


class MoveScheduler:
    def __init__(self, db: Database, config: Config, seed: Callable[[], int]) -> None:
        self._db, self._config, self._seed = db, config, seed

    def reconciler(self) -> Reconciler[Row[Any]]:
        return Reconciler(
            "moves",
            self.read,
            self.place,
            topics=("nova.servers",),
            resync_seconds=self._config.agents.resync_seconds,
        )

    def read(self) -> Mapping[str, Row[Any]]:
        with self._db.read() as tx:
            return {row.server_id: row for row in tx.all(_UNPLACED)}

    def place(self, move: Row[Any]) -> None:
        with self._db.read() as tx:
            choice = choose_host(tx, self._config, move, self._seed())
        decision = choice.decision
        with self._db.transaction() as tx:
            if decision.capacity is None:
                LOG.warning("migration %s of server %s: %s", move.id, move.server_id, decision.fault)
                moves.refuse(tx, move, decision.fault)
                return
            scheduler_view.advance_groups(tx, choice.generations)
            how = live_moves.place if move.type == LIVE else moves.place
            how(tx, move, decision.capacity, choice.wish.claim)
