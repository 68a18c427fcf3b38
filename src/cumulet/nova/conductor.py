"""nova-conductor: stands between nova-compute and the database, and tidies up.

It serves ``nova.hosts`` and ``nova.host_inventories``, lets nodes join (``core.joining``), signs certificates of
hosts (``core.signing``) and runs four loops.
``release`` gives back what servers hold that were deleted before any host had them; what hosts had is released by
their reports.  ``live-moves`` gives up live migrations that come to no end, ``stranded-moves`` other moves whose
destination died before it began.  ``history`` forgets gone servers after a week, a bounded batch at a time.
"""

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Row

from cumulet.core import clock, heartbeat, joining, signing, tracing
from cumulet.core.config import Config
from cumulet.core.controller import ControllerEnv
from cumulet.core.db import Database, Transaction
from cumulet.core.errors import ApiError
from cumulet.core.http import App, Reply, Request, Route
from cumulet.core.policy import PUBLIC, Policies
from cumulet.core.reconcile import Later, Reconciler
from cumulet.core.schema import convert, encode
from cumulet.core.service import Service
from cumulet.core.tables import metadata
from cumulet.nova import host_inventories, hosts, notices
from cumulet.nova.live_moves import Deadlines
from cumulet.nova.model import ComputeDetails
from cumulet.nova.stranded_moves import Stranded
from cumulet.nova.tables import server_hosts, servers

KEEP_SECONDS = 7 * 86400
BATCH = 200
TIDY_SECONDS = 3600.0

_NEVER_HAD_A_HOST = (
    sa.select(*notices.COLUMNS)
    .outerjoin_from(servers, server_hosts)
    .where(servers.c.deleted_at.is_not(None), servers.c.gone_at.is_(None), server_hosts.c.server_id.is_(None))
    .order_by(servers.c.id)
)
_PARTS = [
    (table, next(iter(key.columns)))
    for table in reversed(metadata.sorted_tables)
    for key in table.foreign_key_constraints
    if key.referred_table is servers
]
"""Every table whose rows belong to a server, with the column that says to which."""


class Releaser:
    """Lets deleted servers go that no host has to take away."""

    def __init__(self, db: Database, config: Config) -> None:
        self._db, self._config = db, config

    def reconciler(self) -> Reconciler[Row[Any]]:
        return Reconciler(
            "release",
            self.read,
            self.release,
            topics=("nova.servers",),
            resync_seconds=self._config.agents.resync_seconds,
        )

    def read(self) -> Mapping[str, Row[Any]]:
        with self._db.read() as tx:
            return {row.id: row for row in tx.all(_NEVER_HAD_A_HOST)}

    def release(self, row: Row[Any]) -> None:
        """One transaction, which sees whether the scheduler was quicker."""
        with self._db.transaction() as tx:
            if tx.find(_NEVER_HAD_A_HOST.where(servers.c.id == row.id)):
                hosts.release(tx, row)


class Historian:
    """Forgets what is over and was kept long enough."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def reconciler(self) -> Reconciler[str]:
        return Reconciler("history", lambda: {"history": "history"}, self.tidy, resync_seconds=TIDY_SECONDS)

    def tidy(self, _: str) -> Later | None:
        before = clock.later(-KEEP_SECONDS)
        with self._db.transaction() as tx:
            more = forget_servers(tx, before) == BATCH
        return Later(1.0, "more to forget") if more else None


def forget_servers(tx: Transaction, before: str) -> int:
    """Remove up to ``BATCH`` servers that were gone ``before``, with all rows that belong to them."""
    gone = sa.select(servers.c.id).where(servers.c.gone_at < before).order_by(servers.c.gone_at).limit(BATCH)
    ids = [row.id for row in tx.all(gone)]
    if ids:
        for table, column in _PARTS:
            tx.write(sa.delete(table).where(column.in_(ids)))
        tx.write(sa.delete(servers).where(servers.c.id.in_(ids)))
    return len(ids)


def render_error(error: ApiError) -> tuple[bytes, str]:
    """What agents get: for their logs, not for users."""
    document = {"error": {"code": error.status, "title": error.title, "message": error.message}}
    return encode(document), "application/json"


def build_app(env: ControllerEnv) -> App:
    routes = [
        *hosts.ROUTES,
        *host_inventories.ROUTES,
        heartbeat.route(frozenset({"nova-compute"}), lambda details: convert(details, ComputeDetails)),
        *joining.routes(env.secrets.host_secret),
        signing.route(env.secrets.authority),
        tracing.ROUTE,
        Route("GET", "/healthcheck", show_health, PUBLIC),
    ]
    return App(
        "nova-conductor",
        routes,
        db=env.db,
        config=env.config,
        policies=Policies({}),
        caller=env.caller,
        render_error=render_error,
        extras=env.secrets,
    )


def show_health(request: Request) -> Reply:
    return Reply(b"OK", content_type="text/plain")


def build(env: ControllerEnv) -> Service:
    loops: list[Reconciler[Any]] = [
        Releaser(env.db, env.config).reconciler(),
        Deadlines(env.db, env.config).reconciler(),
        Stranded(env.db, env.config).reconciler(),
        Historian(env.db).reconciler(),
    ]
    return Service(app=build_app(env), loops=loops)
