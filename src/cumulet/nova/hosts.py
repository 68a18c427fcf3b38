"""What nova-compute may read and write: the servers of its own host, and how they are.  Served by nova-conductor.

nova-compute has no database, so a stolen hypervisor can lie about its own servers and touch nothing else.  What
it reports is compared with what is known, row by row, in one transaction: a report about an intent that has
changed since is written down as such and ends nothing.  Only ``absent``, said of the present intent of a server
that is ordered away, releases what it held; whatever is repeated finds nothing to do.

A host's intent costs four queries, whatever the host holds, and is not sent again while it is the same.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import sqlalchemy as sa
from msgspec.structs import replace
from sqlalchemy.engine import Row

from cumulet.core import clock
from cumulet.core.among import among
from cumulet.core.controller import etagged
from cumulet.core.db import Database, Transaction
from cumulet.core.errors import NotFound, Retry
from cumulet.core.http import Reply, Request, Route
from cumulet.core.policy import HOST
from cumulet.glance import public as glance
from cumulet.neutron import public as neutron
from cumulet.neutron.model import Port
from cumulet.nova import (
    device_tags,
    live_moves,
    metadata_documents,
    move_intents,
    moves,
    notices,
    snapshots,
    stranded_moves,
)
from cumulet.nova.model import LIVE, LONGEST_REASON, ImageSource, Nic, Seen, ServerIntent, Verb
from cumulet.nova.services import list_hosts
from cumulet.nova.tables import migrations, server_actions, server_hosts, servers
from cumulet.placement import public as placement

STARTING = frozenset({"create", "start", "reboot", "rebuild", "unpause", "resume", "resize", "revertResize"})
"""Actions that order a server to be on, also one that went off by itself."""
_STATES = {"on": "active", "paused": "paused", "suspended": "suspended"}
"""From what is seen to upstream's vm_state; anything else is 'stopped'."""
_COLUMNS = (
    *notices.COLUMNS,
    server_hosts.c.host,
    server_hosts.c.wanted,
    server_hosts.c.since,
    server_hosts.c.fenced,
    server_hosts.c.seen_generation,
    server_hosts.c.seen_power,
    server_hosts.c.seen_fault,
    server_hosts.c.seen_fault_at,
    server_hosts.c.seen_waiting,
    server_hosts.c.seen_boot_id,
    server_hosts.c.seen_reached,
    server_hosts.c.launched_at,
    *moves.COLUMNS,
)
_HERE = (
    sa.select(*_COLUMNS)
    .join_from(server_hosts, servers)
    .outerjoin(migrations, moves.UNFINISHED)
    .where(server_hosts.c.host == sa.bindparam("host"))
    .order_by(servers.c.id)
)
_THESE_HERE = _HERE.where(among(servers.c.id, "servers"))
_MINE = sa.select(server_hosts.c.server_id).where(server_hosts.c.host == sa.bindparam("host"))
_ELSEWHERE = sa.select(server_hosts).where(
    server_hosts.c.server_id.in_(_MINE),
    server_hosts.c.host != sa.bindparam("host"),
    server_hosts.c.wanted != "run",
)
_UNFINISHED = sa.select(server_actions).where(server_actions.c.finished_at.is_(None)).order_by(server_actions.c.id)
_UNFINISHED_OF = _UNFINISHED.where(among(server_actions.c.server_id, "servers"))
_UNFINISHED_HERE = _UNFINISHED.where(server_actions.c.server_id.in_(_MINE))
_SEEN = tuple(column for column in server_hosts.c if column.key.startswith("seen_") or column.key == "launched_at")
_SEE = (
    sa.update(server_hosts)
    .where(
        server_hosts.c.server_id == sa.bindparam("server"),
        server_hosts.c.host == sa.bindparam("at"),
        server_hosts.c.seen_generation <= sa.bindparam("new_seen_generation"),
    )
    .values({column: sa.bindparam(f"new_{column.key}") for column in _SEEN})
)
_FINISH = (
    sa.update(server_actions)
    .where(server_actions.c.id == sa.bindparam("number"), server_actions.c.finished_at.is_(None))
    .values(finished_at=sa.bindparam("now"), fault=sa.bindparam("why"), host=sa.bindparam("at"))
)


# ── the intent ───────────────────────────────────────────────────────────────────────────────────────────────


def list_servers(request: Request) -> Reply:
    return etagged(request, read_intents(request.db, request.params["host"], request.app.extras.host_secret))


def read_intents(db: Database, host: str, host_secret: str) -> dict[str, ServerIntent]:
    """What ``host`` is told: that a server which comes may begin is written down before (``stranded_moves``)."""
    with db.read() as tx:
        found, asking = _list(tx, host, host_secret)
    if asking:
        with db.transaction() as tx:
            stranded_moves.let_go(tx, asking)
            found, _ = _list(tx, host, host_secret)
    return found


def list_intents(tx: Transaction, host: str, host_secret: str) -> dict[str, ServerIntent]:
    """Everything that ``host`` should know of servers; four queries, one more while one comes here."""
    return _list(tx, host, host_secret)[0]


def _list(tx: Transaction, host: str, host_secret: str) -> tuple[dict[str, ServerIntent], list[int]]:
    """Besides, the moves that this document lets begin here, and that nobody has written that of yet."""
    rows = tx.all(_HERE, {"host": host})
    if not rows:
        return {}, []
    actions = _by_server(tx.all(_UNFINISHED_HERE, {"host": host}))
    others = _by_server(tx.all(_ELSEWHERE, {"host": host}))
    ports = neutron.list_host_ports(tx, host)
    coming = list_hosts(tx) if any(move_intents.needs_hosts(row) for row in rows) else {}
    found = {}
    for row in rows:
        intent = _intent(row, actions.get(row.id, ()), ports.get(row.id, ()), host_secret)
        found[row.id] = move_intents.add(intent, row, others.get(row.id, ()), coming, host_secret)
    begun = (row for row in rows if row.move_held and moves.is_arriving(row) and not found[row.id].held)
    return found, [row.move_id for row in begun]


def _intent(row: Row[Any], actions: Sequence[Row[Any]], ports: Sequence[Port], secret: str) -> ServerIntent:
    absent = _ordered_away(row)
    image = None
    if row.image and not absent:
        ticket = glance.image_ticket(secret, row.image_id, row.host)
        image = msgspec.convert({**row.image, "ticket": ticket}, ImageSource)
    return ServerIntent(
        id=row.id,
        project_id=row.project_id,
        name=row.name,
        vcpus=row.vcpus,
        memory_mb=row.memory_mb,
        root_gb=row.root_gb,
        image=image,
        power=row.power,
        absent=absent,
        generation=row.generation,
        nics=tuple(
            _nic(port, row.device_tags) for port in sorted(() if absent else ports, key=lambda port: port.id)
        ),
        verbs=() if absent else tuple(_verb(action, row.host, secret) for action in actions if action.verb),
        config_drive=row.config_drive,
        request_id=row.request_id,
        seen=_known(row),
        start_generation=max([row.since, *(a.generation for a in actions if a.action in STARTING)]),
        launched=row.launched_at is not None,
        ephemeral_gb=row.flavor.get("ephemeral", 0),
        swap_mb=row.flavor.get("swap") or 0,
        root_bus=device_tags.bus_of(row.device_tags, device_tags.ROOT),
    )


def _nic(port: Port, tags: device_tags.Tags | None) -> Nic:
    bus = device_tags.bus_of(tags, port.id)
    return Nic(port.id, port.mac, port.mtu, port.network_id, port.wired, port.wired_in, bus)


def _verb(action: Row[Any], host: str, secret: str) -> Verb:
    """With what its host needs to carry it out."""
    args = action.params
    if action.action in snapshots.ACTIONS:
        args = {"image_id": args["image_id"], "ticket": glance.upload_ticket(secret, args["image_id"], host)}
        return Verb(action.id, snapshots.SNAPSHOT, args, action.request_id)
    return Verb(action.id, action.action, args, action.request_id)


def _ordered_away(row: Row[Any]) -> bool:
    return row.deleted_at is not None or row.wanted == "absent"


def _known(row: Row[Any]) -> Seen | None:
    """What this host said last."""
    if row.seen_power is None:
        return None
    return Seen(
        generation=row.seen_generation,
        power=row.seen_power,
        fault=row.seen_fault or "",
        waiting=row.seen_waiting or "",
        boot_id=row.seen_boot_id or "",
        reached=bool(row.seen_reached),
        ready=row.move_ready_at is not None and (live_moves.is_receiving(row) or moves.is_arriving(row)),
    )


def _by_server(rows: Sequence[Row[Any]]) -> dict[str, list[Row[Any]]]:
    found: dict[str, list[Row[Any]]] = defaultdict(list)
    for row in rows:
        found[row.server_id].append(row)
    return found


def show_config_drive(request: Request) -> dict[str, bytes]:
    """The files of a server's config drive, by path; not cached, since they hold the user's secrets."""
    with request.db.read() as tx:
        here = sa.and_(
            server_hosts.c.server_id == request.params["id"], server_hosts.c.host == request.params["host"]
        )
        if not tx.find(sa.select(server_hosts.c.server_id).where(here)):
            raise NotFound(f"there is no server {request.params['id']} on {request.params['host']}")
        return metadata_documents.config_drive_files(tx, request.params["id"])


# ── what was seen ────────────────────────────────────────────────────────────────────────────────────────────


def report_servers(request: Request) -> None:
    with request.db.transaction() as tx:
        record(tx, request.params["host"], request.body)


def record(tx: Transaction, host: str, reports: Mapping[str, Seen]) -> None:
    """Write down what ``host`` has seen.  Servers that it does not have are not its business and left out."""
    rows = tx.all(_THESE_HERE, {"host": host, "servers": list(reports)})
    ids = [row.id for row in rows]
    actions = _by_server(tx.all(_UNFINISHED_OF, {"servers": ids})) if ids else {}
    now, changes, leaving, moving = clock.now(), [], [], []
    for row, seen in ((row, _cut(reports[row.id])) for row in rows):
        if not row.seen_generation <= seen.generation <= row.generation:
            continue
        if seen.power == "absent" and seen.generation == row.generation and _ordered_away(row):
            leaving.append(row)
            continue
        if _lasting(seen) != _lasting(_known(row)):
            changes.append(_change(row, seen, now))
        if row.move_type == LIVE:
            moving.append((row, seen))
        elif row.move_type in moves.ON_TRIAL:
            stranded_moves.note_fetched(tx, row, seen)
        _obey(tx, row, seen, actions.get(row.id, ()), now)
    if changes:
        tx.write(_SEE, changes)
    for row, seen in moving:
        live_moves.follow(tx, row.id, host, seen)
    if leaving:
        _release_from(tx, host, leaving)


def _obey(tx: Transaction, row: Row[Any], seen: Seen, actions: Sequence[Row[Any]], now: str) -> None:
    """What the host has done of what it was told."""
    if row.wanted == "run":
        _finish_done(tx, row, seen, actions, now)
    elif moves.is_quiet(row, seen.generation, seen.power) and not moves.is_quiet(
        row, row.seen_generation, row.seen_power
    ):
        moves.cease(tx, row)


def _cut(seen: Seen) -> Seen:
    """With no more words than are kept."""
    faults = {key: text[:LONGEST_REASON] for key, text in seen.verb_faults.items()}
    return replace(
        seen, fault=seen.fault[:LONGEST_REASON], waiting=seen.waiting[:LONGEST_REASON], verb_faults=faults
    )


def _lasting(seen: Seen | None) -> Seen | None:
    """What is written down of a report with the server's host."""
    return seen and replace(seen, verbs_done=(), verb_faults={}, ready=False, progress=None)


def _change(row: Row[Any], seen: Seen, now: str) -> dict[str, Any]:
    fault_at = row.seen_fault_at if seen.fault == row.seen_fault else now
    return {
        "server": row.id,
        "at": row.host,
        "new_seen_generation": seen.generation,
        "new_seen_power": seen.power,
        "new_seen_fault": seen.fault or None,
        "new_seen_fault_at": fault_at if seen.fault else None,
        "new_seen_waiting": seen.waiting or None,
        "new_seen_boot_id": seen.boot_id or None,
        "new_seen_reached": seen.reached,
        "new_seen_at": now,
        "new_launched_at": row.launched_at or (now if seen.power == "on" else None),
    }


def _finish_done(tx: Transaction, row: Row[Any], seen: Seen, actions: Sequence[Row[Any]], now: str) -> None:
    """Finish the actions that the host has carried out, or has failed at."""
    done = []
    for action in actions:
        why = seen.verb_faults.get(str(action.id), "")
        if action.verb and action.id in seen.verbs_done and (why or action.action != LIVE):
            done.append((action, why))
        elif action.action in moves.TYPES and not moves.is_arriving(row):
            continue
        elif action.generation <= seen.generation and (seen.fault or (not action.verb and _settled(row, seen))):
            done.append((action, seen.fault))
    if not done:
        return
    tx.write(_FINISH, [{"number": a.id, "now": now, "why": why or None, "at": row.host} for a, why in done])
    snapshots.abandon(tx, [action for action, why in done if why])
    snapshots.rotate(tx, [action for action, why in done if not why])
    launched_at = row.launched_at or now
    for action, why in done:
        moves.follow(tx, row, action.action, why)
        event = notices.EVENTS.get(action.action)
        if event:
            state = "error" if why else _STATES.get(seen.power, "stopped")
            end = "error" if why else "end"
            notices.tell(
                tx, row, f"{event}.{end}", state=state, host=row.host, launched_at=launched_at, message=why
            )


def _settled(row: Row[Any], seen: Seen) -> bool:
    """Whether the host has nothing left to do: the power is as wanted, or was before the guest ended itself."""
    if seen.waiting or _ordered_away(row):
        return False
    off = seen.power in ("off", "crashed")
    match row.power:
        case "on":
            return seen.reached or seen.power in ("on", "paused")
        case "paused":
            return off or seen.power in ("paused", "suspended")
        case "suspended":
            return off or seen.power == "suspended"
    return off


def _release_from(tx: Transaction, host: str, rows: Sequence[Row[Any]]) -> None:
    """Nothing is left of these servers on ``host``; the last host of a deleted server lets all go."""
    ids = [row.id for row in rows]
    others = sa.and_(server_hosts.c.host != host, sa.not_(server_hosts.c.fenced))
    elsewhere = {
        row.server_id
        for row in tx.all(sa.select(server_hosts.c.server_id).where(server_hosts.c.server_id.in_(ids), others))
    }
    for row in rows:
        key = sa.and_(server_hosts.c.server_id == row.id, server_hosts.c.host == host)
        if not tx.write(sa.delete(server_hosts).where(key)):
            raise Retry(f"server {row.id} is being released by someone else")
        placement.release(tx, row.id, host)
        moves.release_moves(tx, row.id, host)
        if not row.deleted_at:
            moves.cease(tx, row)
        elif row.gone_at is None and row.id not in elsewhere:
            release(tx, row, host, row.launched_at or "")


def release(tx: Transaction, row: Row[Any], host: str = "", launched_at: str = "") -> None:
    """A deleted server of which nothing is left on any host: its claim, its ports and its name become free."""
    now = clock.now()
    still = sa.and_(
        servers.c.id == row.id,
        servers.c.generation == row.generation,
        servers.c.deleted_at.is_not(None),
        servers.c.gone_at.is_(None),
    )
    if not tx.write(sa.update(servers).where(still).values(gone_at=now)):
        raise Retry(f"server {row.id} has changed since it was looked at")
    placement.release(tx, row.id)
    moves.end(tx, row.id)
    neutron.release_ports(tx, row.id)
    unfinished = sa.and_(server_actions.c.server_id == row.id, server_actions.c.finished_at.is_(None))
    snapshots.abandon(tx, tx.all(sa.select(server_actions).where(unfinished)))
    tx.write(sa.update(server_actions).where(unfinished).values(finished_at=now, host=host or None))
    notices.tell(tx, row, "delete.end", state="deleted", host=host, launched_at=launched_at)


ROUTES = [
    Route("GET", "/hosts/{host}/servers", list_servers, HOST),
    Route("POST", "/hosts/{host}/servers", report_servers, HOST, 204, body=dict[str, Seen], longest_body=16 << 20),
    Route("GET", "/hosts/{host}/servers/{id}/config-drive", show_config_drive, HOST),
]
