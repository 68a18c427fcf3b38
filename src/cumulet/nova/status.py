"""What a server is: derived by one SQL statement from what is wanted of it and what its host has seen.

Nothing ever sets a status.  The expressions below serve what is shown, the filters of lists and the checks of
actions alike, so that they cannot disagree.  ``acted``: the host's report is about the present wish; before
that a difference between wanted and seen is a task under way.  ``reached``: it was on as this wish orders.

A server that its own guest switched off, or that crashed, is off after it was reached; it is shown SHUTOFF, as
upstream does, and ``os-start`` asks for it again.  One that has yet to be reached is powering on.  In the same way
a server that is to be on and stands still (its disk is full, say) is shown PAUSED, and ``unpause`` asks again.
"""

from functools import lru_cache
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.sql.elements import ColumnElement

from cumulet.core.fixed import fixed
from cumulet.nova import moves, zones
from cumulet.nova.model import LIVE
from cumulet.nova.tables import aggregate_hosts, aggregates, migrations, server_actions, server_hosts, servers

VM_STATES = ("building", "active", "stopped", "paused", "suspended", "resized", "error", "deleted")
STATUSES = (
    "BUILD", "ACTIVE", "REBOOT", "HARD_REBOOT", "REBUILD", "SHUTOFF", "PAUSED", "SUSPENDED", "ERROR", "DELETED",
    "RESIZE", "VERIFY_RESIZE", "REVERT_RESIZE", "MIGRATING",
)  # fmt: skip
UPSTREAM_STATUSES = frozenset(STATUSES) | {
    "PASSWORD", "RESCUE", "SHELVED", "SHELVED_OFFLOADED", "SOFT_DELETED", "UNKNOWN",
}  # fmt: skip
"""Every status that a client may ask for in a filter; those we never have match nothing."""
NO_STATE, RUNNING, PAUSED, SHUTDOWN, CRASHED = 0, 1, 3, 4, 6
"""Upstream's power states.  A suspended server is 4: its hypervisor has it off."""

_s, _h, _a = servers.c, server_hosts.c, server_actions.c


def _unfinished(action: str, value: sa.ColumnElement[int] | int = 1) -> sa.ColumnElement[int]:
    """The greatest ``value`` among a server's verbs of this name, 0 if there is none."""
    return fixed(f"servers.{action}", sa.func.max(sa.case((_a.action == action, value), else_=0)))


_verbs = (
    sa.select(
        _a.server_id,
        _unfinished("reboot", sa.case((_a.params["type"].as_string() == "HARD", 2), else_=1)).label("reboot"),
        _unfinished("rebuild").label("rebuild"),
        sa.func.max(sa.case((_a.action == "createImage", 1), (_a.action == "createBackup", 2), else_=0)).label(
            "snapshot"
        ),
    )
    .where(_a.verb, _a.finished_at.is_(None))
    .group_by(_a.server_id)
    .subquery("verbs")
)

STATES = servers.outerjoin(
    server_hosts, sa.and_(_h.server_id == _s.id, _h.wanted == "run")
).outerjoin(_verbs, _verbs.c.server_id == _s.id).outerjoin(migrations, moves.UNFINISHED)  # fmt: skip
"""Servers, each with the host that should run it, the verbs it waits for and its move, if any."""

_gone = _s.gone_at.is_not(None)
_deleting = _s.deleted_at.is_not(None)
# The order to destroy is a generation of its own, which takes nothing away from what was seen before it.
_wish = sa.case((_deleting, _s.generation - 1), else_=_s.generation)
_acted = sa.func.coalesce(_h.seen_generation, 0) >= _wish
_reached = sa.and_(_acted, sa.func.coalesce(_h.seen_reached, sa.false()))
_seen = sa.func.coalesce(_h.seen_power, "")
_launched = sa.or_(_h.launched_at.is_not(None), sa.and_(_acted, _seen == "on"))
_unplaceable = sa.and_(_h.host.is_(None), sa.func.coalesce(_s.placement_fault, "") != "")
_broken = sa.and_(_acted, sa.func.coalesce(_h.seen_fault, "") != "")
_faulty = sa.or_(_unplaceable, _broken, _s.forced_error)
_reboot = sa.func.coalesce(_verbs.c.reboot, 0)
_rebooting = sa.and_(_reboot > 0, _s.power == "on")
_rebuilding = sa.func.coalesce(_verbs.c.rebuild, 0) > 0
_snapshot = sa.func.coalesce(_verbs.c.snapshot, 0)
_moves = migrations.c.id.is_not(None)
_on_trial = sa.and_(_moves, migrations.c.type.in_(moves.ON_TRIAL))
_live = sa.and_(_moves, migrations.c.type == LIVE)
_resized = sa.and_(_on_trial, migrations.c.arrived_at.is_not(None))
_reverting = sa.and_(_on_trial, migrations.c.wanted == "revert")
_evacuating = sa.and_(_moves, migrations.c.type == moves.EVACUATION)
_coming = sa.and_(_s.power == "on", _seen != "on", sa.not_(_reached))

vm_state: ColumnElement[str] = sa.case(
    (_gone, "deleted"),
    (_faulty, "error"),
    (sa.not_(_launched), "building"),
    (_resized, "resized"),
    (_live, sa.case((_s.power == "paused", "paused"), else_="active")),
    (sa.or_(_rebuilding, _moves), sa.case((_s.power == "on", "active"), else_="stopped")),
    (_rebooting, "active"),
    (_seen == "on", "active"),
    (_seen == "paused", "paused"),
    (_seen == "suspended", "suspended"),
    else_="stopped",
)

task_state: ColumnElement[str | None] = sa.case(
    (_gone, sa.null()),
    (_deleting, "deleting"),
    (_faulty, sa.null()),
    (sa.and_(sa.not_(_launched), _h.host.is_(None)), "scheduling"),
    (sa.not_(_launched), "spawning"),
    (_live, "migrating"),
    (_reverting, "resize_reverting"),
    (_resized, sa.null()),
    (sa.and_(_on_trial, migrations.c.destination.is_(None)), "resize_prep"),
    (_on_trial, sa.case((_seen == "", "resize_migrating"), else_="resize_finish")),
    (sa.or_(_rebuilding, _evacuating), "rebuilding"),
    (_rebooting, sa.case((_reboot == 2, "rebooting_hard"), else_="rebooting")),
    # its host tells when it is copied
    (sa.and_(_snapshot > 0, _acted), "image_uploading"),
    (_snapshot > 0, sa.case((_snapshot == 2, "image_backup"), else_="image_snapshot")),
    (sa.and_(_coming, _seen == "paused"), "unpausing"),
    (sa.and_(_coming, _seen == "suspended"), "resuming"),
    (_coming, "powering-on"),
    (sa.and_(_s.power == "off", _seen.in_(("on", "paused", "suspended"))), "powering-off"),
    (sa.and_(_s.power == "paused", _seen == "on"), "pausing"),
    (sa.and_(_s.power == "suspended", _seen.in_(("on", "paused"))), "suspending"),
    else_=sa.null(),
)

_host_zone = (
    sa.select(sa.func.max(aggregates.c.zone))
    .join_from(aggregate_hosts, aggregates)
    .where(aggregate_hosts.c.host == _h.host)
    .correlate(server_hosts)
    .scalar_subquery()
)
zone: ColumnElement[str | None] = sa.case(
    (_h.host.is_(None), sa.null()), else_=sa.func.coalesce(_host_zone, zones.DEFAULT)
)
"""The availability zone of a server's host; null while it has none."""

power_state: ColumnElement[int] = sa.case(
    (sa.or_(_gone, sa.not_(_launched)), NO_STATE),
    (_seen.in_(("on", "sent")), RUNNING),
    (_seen == "paused", PAUSED),
    (_seen.in_(("off", "suspended")), SHUTDOWN),
    (_seen == "crashed", CRASHED),
    else_=NO_STATE,
)

_plain_status = sa.case(
    (_seen == "on", "ACTIVE"), (_seen == "paused", "PAUSED"), (_seen == "suspended", "SUSPENDED"), else_="SHUTOFF"
)
status: ColumnElement[str] = sa.case(
    (_gone, "DELETED"),
    (_faulty, "ERROR"),
    (sa.not_(_launched), "BUILD"),
    (sa.and_(_resized, sa.not_(_deleting)), sa.case((_reverting, "REVERT_RESIZE"), else_="VERIFY_RESIZE")),
    (_live, sa.case((sa.not_(_deleting), "MIGRATING"), (_s.power == "paused", "PAUSED"), else_="ACTIVE")),
    (sa.and_(sa.or_(_rebuilding, _moves), _deleting), sa.case((_s.power == "on", "ACTIVE"), else_="SHUTOFF")),
    (sa.or_(_rebuilding, _evacuating), "REBUILD"),
    (_moves, "RESIZE"),
    (_rebooting, sa.case((_deleting, "ACTIVE"), (_reboot == 2, "HARD_REBOOT"), else_="REBOOT")),
    else_=_plain_status,
)

vm_state, task_state = fixed("servers.vm_state", vm_state), fixed("servers.task_state", task_state)
power_state, status = fixed("servers.power_state", power_state), fixed("servers.status", status)

changed_at: tuple[ColumnElement[str], ...] = (_s.updated_at, _s.gone_at, _h.seen_at, _h.launched_at)
"""Times of changes by each of a server's writers; the latest is its ``updated``."""

BRIEF = sa.select(
    _s.id, _s.name, _s.project_id, _s.user_id, _s.created_at, _h.host, vm_state.label("vm_state")
).select_from(STATES)  # fmt: skip


class SharedJson(sa.TypeDecorator[Any]):
    """JSON of which many rows have the same: it is decoded once, and nobody changes what comes of it."""

    impl = sa.Text
    cache_ok = True

    def process_result_value(self, value: str | None, dialect: sa.Dialect) -> Any:
        return None if value is None else _decoded(value)


_decoded = lru_cache(4096)(msgspec.json.decode)
_NOT_SHOWN = {"user_data", "key", "image", "scheduler_hints", "encrypted_password", "device_tags"}
_SHARED = ("flavor", "metadata")

DETAIL = sa.select(
    *(column for column in servers.c if column.name not in {*_NOT_SHOWN, *_SHARED}),
    _h.host,
    _h.seen_fault,
    _h.seen_fault_at,
    _h.seen_at,
    _h.launched_at,
    vm_state.label("vm_state"),
    task_state.label("task_state"),
    power_state.label("power_state"),
    status.label("status"),
    zone.label("zone"),
    *(sa.type_coerce(servers.c[name], SharedJson()).label(name) for name in _SHARED),
    *(sa.type_coerce(servers.c[name], sa.Text).label(f"{name}_json") for name in ("image", "scheduler_hints")),
    *moves.COLUMNS,
).select_from(STATES)
"""A row for everything that is shown of a server, but for its bulky user data.  What few look at is in it as the
text of its JSON.
"""

FULL = DETAIL.add_columns(servers.c.user_data)
