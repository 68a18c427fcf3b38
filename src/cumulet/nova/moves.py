"""Moves: a server goes to another host, or gets another flavor.  Each step is one change of rows, made here.

A move is a row of ``migrations`` and a second row of ``server_hosts``.  nova-api orders it (``begin``);
nova-scheduler finds the host and in one transaction claims it, tells it to run the server and the old host to
cease (``place``); what the hosts report does the rest (``follow``, ``cease``).  Nobody is told to copy or to start:
the new host sees that the old one has ceased (``is_quiet``), and until then starts nothing.  So a server never runs
on two hosts, whoever dies when, but by order of an administrator who says that a host is dead (evacuation).

The old host keeps everything until the move is confirmed.  If the new one fails before the server has arrived, the
old one runs it again.  On one and the same host a change of flavor is a verb (``resize``), for it has but one row.
What is different where a server moves as it runs is in ``live_moves``.
"""

import uuid
from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Row

from cumulet.core import clock
from cumulet.core.db import Transaction
from cumulet.core.errors import Retry
from cumulet.core.http import Request
from cumulet.neutron import public as neutron
from cumulet.nova import notices
from cumulet.nova.model import LIVE
from cumulet.nova.services import list_hosts
from cumulet.nova.shared_disks import sharing
from cumulet.nova.tables import migrations, server_actions, server_hosts, servers
from cumulet.placement import public as placement
from cumulet.placement.model import Capacity, Claim, Resources

RESIZE, MIGRATION, EVACUATION = "resize", "migration", "evacuation"
TYPES = {"resize": RESIZE, "migrate": MIGRATION, "evacuate": EVACUATION, LIVE: LIVE}
"""From an action's name to the type of its migration."""
ON_TRIAL = (RESIZE, MIGRATION)
"""Types that are to be confirmed."""
RUNNING = ("on", "paused")

_m, _h = migrations.c, server_hosts.c
UNFINISHED = sa.and_(_m.server_id == servers.c.id, _m.finished_at.is_(None))
COLUMNS = tuple(
    _m[name].label(f"move_{name}")
    for name in (
        "id", "uuid", "type", "source", "destination", "wanted", "ready_at", "left_at", "arrived_at", "held",
        "old_flavor",
    )
)  # fmt: skip
"""Of a server's unfinished move; null if there is none."""


def flavor_columns(flavor: Mapping[str, Any]) -> dict[str, Any]:
    """A flavor's copy, as ``servers`` has it, and what is taken out of it."""
    return {
        "flavor": dict(flavor),
        "vcpus": flavor["vcpus"],
        "memory_mb": flavor["ram"],
        "root_gb": flavor["disk"],
    }


def is_quiet(row: Row[Any], generation: int, power: str | None) -> bool:
    """Whether a host that was told to cease has done so, going by its report."""
    if row.wanted == "run":
        return False
    return bool(row.fenced or not row.since) or (
        generation >= row.since and power is not None and power not in RUNNING
    )


# ── nova-api ─────────────────────────────────────────────────────────────────────────────────────────────────


def begin(
    tx: Transaction, request: Request, row: Row[Any], kind: str, new: Mapping[str, Any], target: str | None = None
) -> None:
    """Write down that a server shall move; the caller has ordered it, which keeps others off."""
    old = row.flavor
    migration = {
        "uuid": str(uuid.uuid4()),
        "server_id": row.id,
        "type": kind,
        "user_id": request.context.user_id,
        "project_id": request.context.project_id,
        "created_at": clock.now(),
        "source": row.host,
        "target": target,
        "old_flavor": old,
        "new_flavor": dict(new),
        "more_vcpus": max(0, new["vcpus"] - old["vcpus"]),
        "more_memory_mb": max(0, new["ram"] - old["ram"]),
    }
    tx.write(migrations.insert(), migration)


def confirm(tx: Transaction, row: Row[Any]) -> None:
    """The server stays where it is; where it was, nothing is left of it soon."""
    finish(tx, row, "confirmed")
    if row.move_source == row.move_destination:
        placement.release(tx, row.move_uuid)
        return
    tell_host(tx, row.id, row.move_source, wanted="absent")


def revert(tx: Transaction, row: Row[Any]) -> None:
    """Back to where it was, as it was; ``row`` is from before the order."""
    if not tx.write(sa.update(migrations).where(_m.id == row.move_id, _m.wanted == "move").values(wanted="revert")):
        raise Retry(f"the migration of server {row.id} has changed meanwhile")
    _return(tx, row, row.generation + 1)


# ── nova-scheduler ───────────────────────────────────────────────────────────────────────────────────────────


def place(tx: Transaction, move: Row[Any], capacity: Capacity, need: Resources) -> None:
    """Give a move its host; ``move``: a migration with its server.  Retry if the server has changed."""
    generation, source, host = move.generation + 1, move.source, capacity.host
    dead = move.type == EVACUATION
    change_server(tx, move.server_id, move.generation, flavor_columns(move.new_flavor))
    choose(tx, move, host, held=not dead and host != source)
    placement.hand_over(tx, move.server_id, source, move.uuid)
    placement.claim_all(tx, [Claim(move.server_id, capacity, need)])
    if host == source:
        mine = sa.and_(server_actions.c.server_id == move.server_id, server_actions.c.finished_at.is_(None))
        tx.write(sa.update(server_actions).where(mine, server_actions.c.action == "resize").values(verb=True))
        tx.hint(f"nova.hosts.{host}", move.server_id)
        return
    launched = tx.value(sa.select(_h.launched_at).where(_h.server_id == move.server_id, _h.host == source))
    keeps = not dead or host in sharing(list_hosts(tx), source)
    tell_host(tx, move.server_id, source, wanted="keep" if keeps else "absent", since=generation, fenced=dead)
    row = {"server_id": move.server_id, "host": host, "wanted": "run", "since": generation, "launched_at": launched}
    tx.write(server_hosts.insert(), row)
    tx.hint(f"nova.hosts.{host}", move.server_id)
    if dead:
        neutron.activate_ports(tx, move.server_id, host, source)
    else:
        neutron.bind_ports_also(tx, move.server_id, host)


def choose(tx: Transaction, move: Row[Any], host: str, held: bool | None = None) -> None:
    """Write down where it goes."""
    unplaced = sa.and_(_m.id == move.id, _m.placed_at.is_(None), _m.finished_at.is_(None))
    values = {"destination": host, "placed_at": clock.now(), "held": held}
    if not tx.write(sa.update(migrations).where(unplaced).values(values)):
        raise Retry(f"migration {move.id} has changed meanwhile")


def refuse(tx: Transaction, move: Row[Any], fault: str) -> None:
    """There is no host for it: it stays what and where it is."""
    open_one = sa.and_(_m.id == move.id, _m.placed_at.is_(None), _m.finished_at.is_(None))
    now, outcome = clock.now(), _failed(move.type)
    if not tx.write(sa.update(migrations).where(open_one).values(finished_at=now, outcome=outcome)):
        raise Retry(f"migration {move.id} has changed meanwhile")
    mine = sa.and_(server_actions.c.server_id == move.server_id, server_actions.c.finished_at.is_(None))
    named = server_actions.c.action.in_(tuple(TYPES))
    tx.write(sa.update(server_actions).where(mine, named).values(finished_at=now, fault=fault))
    row = notices.find_row(tx, move.server_id)
    if row and move.type != LIVE:
        notices.tell(tx, row, "resize.error", state="active", host=move.source, message=fault)


# ── nova-conductor ───────────────────────────────────────────────────────────────────────────────────────────


def cease(tx: Transaction, row: Row[Any]) -> None:
    """The host ``row`` is of has ceased to run the server: who is to run it now may."""
    for other in tx.all(sa.select(_h.host).where(_h.server_id == row.id, _h.wanted == "run")):
        neutron.activate_ports(tx, row.id, other.host, row.host)
        tx.hint(f"nova.hosts.{other.host}", row.id)


def is_arriving(row: Row[Any]) -> bool:
    """Whether the server has been told to run on this host, and has not been seen there as it should be."""
    return (
        row.move_uuid is not None
        and row.wanted == "run"
        and row.host == row.move_destination != row.move_source
        and row.move_arrived_at is None
    )


def follow(tx: Transaction, row: Row[Any], action: str, fault: str) -> None:
    """A host has carried out an action, or failed at it: what does that mean for the server's move?"""
    if row.move_uuid is None:
        return
    if action == "revertResize":
        finish(tx, row, "error" if fault else "reverted")
    elif action in TYPES and not fault:
        tx.write(sa.update(migrations).where(_m.id == row.move_id).values(arrived_at=clock.now()))
        if row.move_type == EVACUATION:
            finish(tx, row, "done")
            tell_host(tx, row.id, row.move_source, wanted="absent")
        elif row.move_type == LIVE:
            finish(tx, row, "completed")
            notices.tell(tx, row, "live_migration.post.dest.end", state="active", host=row.host)
        else:
            notices.tell(tx, row, "finish_resize.end", state="resized", host=row.host)
    elif action in TYPES:
        fall_back(tx, row, row.generation)


def fall_back(tx: Transaction, row: Row[Any], generation: int) -> None:
    """The move has come to nothing: the server, now of this generation, is what and where it was.

    An evacuated one has nowhere to go back to, nor has one that has left as it ran.
    """
    aborted = row.move_type == LIVE and row.move_wanted == "abort"
    finish(tx, row, "cancelled" if aborted else _failed(row.move_type))
    if row.move_destination is None:
        return
    if row.move_type in ON_TRIAL:
        change_server(tx, row.id, generation, flavor_columns(row.move_old_flavor))
        _return(tx, row, generation + 1)
    elif row.move_type == LIVE and row.move_left_at is None:
        change_server(tx, row.id, generation, {})
        tell_host(tx, row.id, row.move_destination, wanted="absent")
        tx.hint(f"nova.hosts.{row.move_source}", row.id)
        neutron.bind_ports(tx, row.id, row.move_source)
        notices.tell(tx, row, "live_migration._rollback.end", state="active", host=row.move_source)


def end(tx: Transaction, server_id: str) -> None:
    """The server is gone: its moves are over, with all that they hold."""
    for row in tx.all(sa.select(_m.uuid).where(_m.server_id == server_id)):
        placement.release(tx, row.uuid)
    open_ones = sa.and_(_m.server_id == server_id, _m.finished_at.is_(None))
    tx.write(sa.update(migrations).where(open_ones).values(finished_at=clock.now(), outcome="error"))


def release_moves(tx: Transaction, server_id: str, host: str) -> None:
    """Nothing of the server is left on ``host``: what its moves hold there is free."""
    there = sa.or_(_m.source == host, _m.destination == host)
    for row in tx.all(sa.select(_m.uuid).where(_m.server_id == server_id, there)):
        placement.release(tx, row.uuid, host)


def _return(tx: Transaction, row: Row[Any], generation: int) -> None:
    """The host that it left has it again, from this generation on."""
    source, destination = row.move_source, row.move_destination
    if source == destination:
        placement.release(tx, row.id, source)
        placement.hand_over(tx, row.move_uuid, source, row.id)
        return
    placement.hand_over(tx, row.move_uuid, source, row.id)
    tell_host(tx, row.id, destination, wanted="absent", since=generation)
    tell_host(tx, row.id, source, wanted="run", since=generation)
    neutron.bind_ports(tx, row.id, source)


def tell_host(tx: Transaction, server_id: str, host: str, **values: Any) -> None:
    tx.write(sa.update(server_hosts).where(_h.server_id == server_id, _h.host == host).values(values))
    tx.hint(f"nova.hosts.{host}", server_id)


def change_server(tx: Transaction, server_id: str, generation: int, values: Mapping[str, Any]) -> None:
    same = sa.and_(servers.c.id == server_id, servers.c.generation == generation, servers.c.deleted_at.is_(None))
    if not tx.write(sa.update(servers).where(same).values({**values, "generation": generation + 1})):
        raise Retry(f"server {server_id} has changed meanwhile")


def finish(tx: Transaction, row: Row[Any], outcome: str) -> None:
    mine = sa.and_(_m.id == row.move_id, _m.finished_at.is_(None))
    if not tx.write(sa.update(migrations).where(mine).values(finished_at=clock.now(), outcome=outcome)):
        raise Retry(f"the migration of server {row.id} is finished already")


def _failed(kind: str) -> str:
    return "failed" if kind == EVACUATION else "error"
