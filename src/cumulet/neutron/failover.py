"""neutron-server's loop ``bindings``: what has no agent gets one, what has a dead one gets another.

A dead agent is one that has been silent for ``failover_seconds``, while another of its kind lives.  It stays a
suspect for ``down_seconds`` more, by this process's own watch: after the controller was away or asleep everybody
looks dead, and those that are late must not lose everything to the first that is back.  The watch is the loop's
only memory; losing it costs that time.  The dead agent's tombstones wait for its return.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from cumulet.core import clock
from cumulet.core.config import Config
from cumulet.core.db import Database, Transaction
from cumulet.core.errors import Retry
from cumulet.core.reconcile import Later, Reconciler
from cumulet.core.tables import agents
from cumulet.neutron import effects
from cumulet.neutron.bindings import (
    DHCP_AGENT,
    L3_AGENT,
    begin_router,
    end_router,
    ensure_dhcp,
    ensure_router,
    find_host,
    move_dhcp,
)
from cumulet.neutron.tables import dhcp_bindings, router_bindings, routers, subnets

_NETWORKS_WITHOUT = (
    sa.select(subnets.c.network_id.label("key"))
    .where(
        subnets.c.dhcp.is_(True),
        subnets.c.network_id.not_in(sa.select(dhcp_bindings.c.network_id).where(dhcp_bindings.c.wanted == "run")),
    )
    .distinct()
)
_ROUTERS_WITHOUT = sa.select(routers.c.id.label("key")).where(
    routers.c.id.not_in(sa.select(router_bindings.c.router_id).where(router_bindings.c.wanted == "run"))
)


@dataclass(frozen=True)
class Kind:
    """What is given to hosts: the agent that takes it, and where it is written."""

    name: str
    binary: str
    table: sa.Table
    key: str
    without: sa.Select[Any]


KINDS = (
    Kind("network", DHCP_AGENT, dhcp_bindings, "network_id", _NETWORKS_WITHOUT),
    Kind("router", L3_AGENT, router_bindings, "router_id", _ROUTERS_WITHOUT),
)


@dataclass(frozen=True)
class Lacking:
    """A network or router without an agent; with ``host``: its agent there is silent."""

    kind: Kind
    id: str
    host: str = ""


class Failover:
    def __init__(self, db: Database, config: Config, watch: Callable[[], float] = time.monotonic) -> None:
        self._db, self._config, self._watch = db, config, watch
        self._suspected: dict[str, float] = {}  # hosts' agents, since when

    def reconciler(self) -> Reconciler[Lacking]:
        return Reconciler(
            "bindings",
            self.read,
            self.reconcile,
            topics=(effects.BINDINGS,),
            resync_seconds=min(self._config.agents.resync_seconds, self._config.agents.heartbeat_seconds),
        )

    def read(self) -> Mapping[str, Lacking]:
        found: dict[str, Lacking] = {}
        silent: set[str] = set()
        with self._db.read() as tx:
            for kind in KINDS:
                found |= {row.key: Lacking(kind, row.key) for row in tx.all(kind.without)}
                for one in self._orphans(tx, kind):
                    found[one.id] = one
                    silent.add(_agent(one))
        self._suspected = {agent: since for agent, since in self._suspected.items() if agent in silent}
        return found

    def _orphans(self, tx: Transaction, kind: Kind) -> list[Lacking]:
        """What is bound to a dead agent while another one lives."""
        seconds = self._config.agents.failover_seconds
        if not seconds:
            return []
        table, since = kind.table, clock.later(-max(seconds, self._config.agents.down_seconds))
        known = sa.select(agents.c.host).where(agents.c.binary == kind.binary, agents.c.seen_at >= since)
        rows = tx.all(
            sa.select(table.c[kind.key].label("key"), table.c.host).where(
                table.c.wanted == "run", table.c.host.not_in(known)
            )
        )
        if not rows or find_host(tx, self._config, kind.binary, table) is None:
            return []
        return [Lacking(kind, row.key, row.host) for row in rows]

    def reconcile(self, lacking: Lacking) -> Later | None:
        kind = lacking.kind
        if lacking.host:
            return self._move(lacking)
        with self._db.transaction() as tx:
            ensure = ensure_dhcp if kind.table is dhcp_bindings else ensure_router
            served = bool(ensure(tx, self._config, lacking.id))
        if not served:
            raise Retry(f"no {kind.binary} is alive for {kind.name} {lacking.id}")
        return None

    def _move(self, lacking: Lacking) -> Later | None:
        kind, patience = lacking.kind, self._config.agents.down_seconds
        waited = self._watch() - self._suspected.setdefault(_agent(lacking), self._watch())
        if waited < patience:
            return Later(patience - waited, f"{kind.binary} of {lacking.host} is silent")
        with self._db.transaction() as tx:
            mine = sa.and_(
                kind.table.c[kind.key] == lacking.id,
                kind.table.c.host == lacking.host,
                kind.table.c.wanted == "run",
            )
            binding = tx.find(sa.select(kind.table).where(mine))
            taken = tx.all(
                sa.select(kind.table.c.host).where(
                    kind.table.c[kind.key] == lacking.id, kind.table.c.wanted == "run"
                )
            )
            host = find_host(tx, self._config, kind.binary, kind.table, besides=[row.host for row in taken])
            if binding is None or host is None:
                return None
            if kind.table is dhcp_bindings:
                move_dhcp(tx, binding, host)
            else:
                end_router(tx, lacking.id)
                begin_router(tx, lacking.id, host)
        return None


def _agent(lacking: Lacking) -> str:
    return f"{lacking.kind.binary} {lacking.host}"
