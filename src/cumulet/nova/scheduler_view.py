"""What nova-scheduler sees: the servers that need a host, the hosts with what is free on them, and server groups.

Apart from the scheduler, for nova-api reads the same to tell where a server would go.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Row

from cumulet.core import clock
from cumulet.core.config import Config
from cumulet.core.db import Transaction
from cumulet.core.errors import Retry
from cumulet.core.tables import agents
from cumulet.nova import scheduler_hints, zones
from cumulet.nova.scheduling import Group, Hint, Room, Wish, parse_zone, room_of
from cumulet.nova.tables import server_groups, server_hosts, servers
from cumulet.placement import public as placement
from cumulet.placement.model import Resources

_UNPLACED = (
    sa.select(
        servers.c.id,
        servers.c.created_at,
        servers.c.generation,
        servers.c.request_id,
        servers.c.project_id,
        servers.c.scheduler_hints,
        servers.c.vcpus,
        servers.c.memory_mb,
        servers.c.flavor,
        servers.c.image,
        servers.c.availability_zone,
        server_groups.c.id.label("group_id"),
        server_groups.c.policy,
        server_groups.c.rules,
    )
    .outerjoin_from(servers, server_groups, servers.c.server_group_id == server_groups.c.id)
    .where(
        servers.c.placed_at.is_(None),
        servers.c.deleted_at.is_(None),
        servers.c.placement_fault.is_(None),
    )
    .order_by(servers.c.created_at, servers.c.id)
)
_MEMBERS = sa.select(servers.c.server_group_id, server_hosts.c.host).join_from(servers, server_hosts)

_ADVANCE = (
    sa.update(server_groups)
    .where(server_groups.c.id == sa.bindparam("id_of_group"), server_groups.c.generation == sa.bindparam("seen"))
    .values(generation=server_groups.c.generation + 1)
)


@dataclass(frozen=True)
class Unplaced:
    """A server without a host, as it was read."""

    wish: Wish
    created_at: str
    generation: int
    request_id: str


def read_unplaced(tx: Transaction, config: Config, *conditions: sa.ColumnElement[bool]) -> list[Unplaced]:
    """Every server that needs a host, the oldest first; one query, and one or two more if there are hints."""
    rows = tx.all(_UNPLACED.where(*conditions))
    hints = scheduler_hints.read_hints(tx, rows)
    return [_unplaced(row, config, hints.get(row.id, ())) for row in rows]


def _unplaced(row: Row[Any], config: Config, hints: tuple[Hint, ...]) -> Unplaced:
    zone, host = parse_zone(row.availability_zone)
    group = None
    if row.group_id:
        group = Group(row.group_id, row.policy, row.rules.get("max_server_per_host", 1))
    need = Resources(row.vcpus, row.memory_mb, disk_gb(row.flavor, row.image))
    wish = Wish(row.id, need, config.compute.overhead_memory_mb, zone, host, group, hints=hints)
    return Unplaced(wish, row.created_at, row.generation, row.request_id)


def disk_gb(flavor: Mapping[str, Any], image: Mapping[str, Any] | None) -> int:
    """What a server's disks may grow to.  A root disk of size 0 is as big as its image."""
    root = flavor["disk"] or ceil((image or {}).get("virtual_size", 0) / (1 << 30))
    return int(root + flavor.get("ephemeral", 0) + ceil(int(flavor.get("swap") or 0) / 1024))


def read_rooms(tx: Transaction, config: Config) -> list[Room]:
    """Every host that has or had a nova-compute, with what is free on it; three queries."""
    where = zones.read_zones(tx)
    capacities = {capacity.host: capacity for capacity in placement.list_capacity(tx)}
    silent = clock.later(-config.agents.down_seconds)
    rows = tx.all(
        sa.select(agents.c.host, agents.c.seen_at, agents.c.enabled, agents.c.forced_down)
        .where(agents.c.binary == "nova-compute")
        .order_by(agents.c.host)
    )
    return [
        room_of(
            capacities,
            row.host,
            alive=row.seen_at >= silent and not row.forced_down,
            enabled=bool(row.enabled),
            zone=where.get(row.host, zones.DEFAULT),
        )
        for row in rows
    ]


def read_generations(tx: Transaction, wishes: Sequence[Wish]) -> dict[str, int]:
    """The generation of each of these wishes' groups; to be read before their members are."""
    ids = _group_ids(wishes)
    if not ids:
        return {}
    found = sa.select(server_groups.c.id, server_groups.c.generation).where(server_groups.c.id.in_(ids))
    return {row.id: row.generation for row in tx.all(found)}


def advance_groups(tx: Transaction, generations: Mapping[str, int]) -> None:
    """Retry if another scheduler has placed a member of one of these groups since they were read."""
    for group_id in sorted(generations):
        if not tx.write(_ADVANCE, {"id_of_group": group_id, "seen": generations[group_id]}):
            raise Retry(f"server group {group_id} has changed since it was looked at")


def read_members(tx: Transaction, wishes: Sequence[Wish]) -> dict[str, Counter[str]]:
    """Where the other members of these wishes' groups are; no query if there are no groups."""
    ids, found = _group_ids(wishes), defaultdict[str, Counter[str]](Counter)
    if ids:
        there = sa.and_(servers.c.server_group_id.in_(ids), servers.c.deleted_at.is_(None))
        for row in tx.all(_MEMBERS.where(there, server_hosts.c.wanted == "run")):
            found[row.server_group_id][row.host] += 1
    return found


def _group_ids(wishes: Sequence[Wish]) -> list[str]:
    return sorted({wish.group.id for wish in wishes if wish.group})
