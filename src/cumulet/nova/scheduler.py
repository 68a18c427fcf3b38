"""nova-scheduler: gives every wanted server a host.

A pass reads all servers that have none, the hosts and what is free on them, chooses (``nova.scheduling``) and
writes a batch down in one transaction: claims, hosts, ports and the time.  A server is therefore placed with all
it needs or not at all.  Several schedulers may run: a claim made from an older view than the database's fails,
and the loser looks again.  A server that was deleted or placed meanwhile is left out of the batch.

A server for which there is no room gets a fault that its user can read, and is not tried again: the user deletes
it.  While no host is up the servers wait, for a cloud that starts has no hosts yet.
"""

import logging
import secrets
from collections.abc import Iterator, Mapping, Sequence
from random import Random

import sqlalchemy as sa

from cumulet.core import clock
from cumulet.core.config import Config
from cumulet.core.controller import ControllerEnv
from cumulet.core.db import Database, Transaction
from cumulet.core.errors import ApiError, Retry
from cumulet.core.reconcile import Outcome, Reconciler
from cumulet.core.service import Service
from cumulet.neutron import public as neutron
from cumulet.nova import notices, scheduler_view
from cumulet.nova.move_scheduler import MoveScheduler
from cumulet.nova.scheduler_view import Unplaced
from cumulet.nova.scheduling import Decision, place
from cumulet.nova.tables import server_actions, server_hosts, servers
from cumulet.placement import public as placement
from cumulet.placement.model import Claim

LOG = logging.getLogger(__name__)
BATCH = 100
TRIES = 3
"""How often a batch that lost a race takes a fresh look before it waits for its next turn."""
PATIENCE_SECONDS = 60
NO_HOST = "no nova-compute is alive"

_STILL_UNPLACED = sa.and_(
    servers.c.id == sa.bindparam("server"),
    servers.c.placed_at.is_(None),
    servers.c.deleted_at.is_(None),
    servers.c.placement_fault.is_(None),
)
_PLACED = sa.update(servers).where(_STILL_UNPLACED).values(placed_at=sa.bindparam("now"))
_REFUSED = (
    sa.update(servers)
    .where(_STILL_UNPLACED)
    .values(placement_fault=sa.bindparam("fault"), placement_fault_at=sa.bindparam("now"))
)


class Scheduler:
    def __init__(self, db: Database, config: Config, seed: int | None = None) -> None:
        self._db, self._config = db, config
        self._random = Random(secrets.randbits(64) if seed is None else seed)

    def seed(self) -> int:
        """Another number each time."""
        return self._random.getrandbits(32)

    def reconciler(self) -> Reconciler[Unplaced]:
        return Reconciler(
            "place",
            self.read,
            reconcile_all=self.place_all,
            topics=("nova.servers",),
            resync_seconds=self._config.agents.resync_seconds,
        )

    def read(self) -> dict[str, Unplaced]:
        with self._db.read() as tx:
            return {one.wish.server_id: one for one in scheduler_view.read_unplaced(tx, self._config)}

    def place_all(self, due: Mapping[str, Unplaced]) -> dict[str, Outcome]:
        outcomes: dict[str, Outcome] = {}
        for batch in _batches(list(due.values())):
            outcomes.update(self._place_batch(batch))
        return outcomes

    def _place_batch(self, batch: Sequence[Unplaced]) -> dict[str, Outcome]:
        """Place these together; if one of them makes the whole batch fail, each on its own."""
        lost = Retry("")
        for _ in range(TRIES):
            try:
                return self._try_batch(batch)
            except Retry as reason:
                LOG.info("a batch of %d servers lost a race: %s", len(batch), reason)
                lost = reason
            except ApiError as error:
                if len(batch) == 1:
                    return {batch[0].wish.server_id: Retry(f"cannot be placed: {error}")}
                LOG.info("a batch of %d servers failed (%s); each on its own", len(batch), error)
                return {key: value for one in batch for key, value in self._place_batch([one]).items()}
        return {one.wish.server_id: lost for one in batch}

    def _try_batch(self, batch: Sequence[Unplaced]) -> dict[str, Outcome]:
        with self._db.read() as tx:
            rooms = scheduler_view.read_rooms(tx, self._config)
            generations = scheduler_view.read_generations(tx, [one.wish for one in batch])
            members = scheduler_view.read_members(tx, [one.wish for one in batch])
        outcomes: dict[str, Outcome] = {}
        ready = list(batch)
        if not any(room.alive and room.capacity.provider_id for room in rooms):
            early = clock.later(-PATIENCE_SECONDS)
            ready = [one for one in batch if one.created_at < early]
            outcomes = {one.wish.server_id: Retry(NO_HOST) for one in batch if one.created_at >= early}
        decisions = place([one.wish for one in ready], rooms, self.seed(), members)
        if decisions:
            with self._db.transaction() as tx:
                self._write(tx, decisions, generations)
        return outcomes

    def _write(self, tx: Transaction, decisions: Sequence[Decision], generations: Mapping[str, int]) -> None:
        """The batch as one change.  Who was deleted or placed meanwhile is left out, with all it would take."""
        now = clock.now()
        claims, rows = [], []
        for decision in decisions:
            server, capacity = decision.wish.server_id, decision.capacity
            if capacity is None:
                self._refuse(tx, server, decision.fault, now)
            elif tx.write(_PLACED, {"server": server, "now": now}):
                claims.append(Claim(server, capacity, decision.wish.claim))
                rows.append({"server_id": server, "host": capacity.host, "wanted": "run"})
        if not claims:
            return
        scheduler_view.advance_groups(tx, generations)
        placement.claim_all(tx, claims)
        tx.write(server_hosts.insert(), rows)
        for row in rows:
            neutron.bind_ports(tx, row["server_id"], row["host"])
            tx.hint(f"nova.hosts.{row['host']}", row["server_id"])

    def _refuse(self, tx: Transaction, server_id: str, fault: str, now: str) -> None:
        if not tx.write(_REFUSED, {"server": server_id, "fault": fault, "now": now}):
            return
        LOG.warning("server %s: %s", server_id, fault)
        unfinished = sa.and_(server_actions.c.server_id == server_id, server_actions.c.finished_at.is_(None))
        tx.write(sa.update(server_actions).where(unfinished).values(finished_at=now, fault=fault))
        row = notices.find_row(tx, server_id)
        if row:
            notices.tell(tx, row, "create.error", state="error", message=fault)


def _batches(items: Sequence[Unplaced]) -> Iterator[Sequence[Unplaced]]:
    for start in range(0, len(items), BATCH):
        yield items[start : start + BATCH]


def build(env: ControllerEnv) -> Service:
    scheduler = Scheduler(env.db, env.config)
    moves = MoveScheduler(env.db, env.config, scheduler.seed)
    return Service(loops=[scheduler.reconciler(), moves.reconciler()])
