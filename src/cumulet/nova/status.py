"""What a server is: derived by one SQL statement from what is wanted of it and what its host has seen.

Nothing ever sets a status.  The expressions below serve what is shown, the filters of lists and the checks of
actions alike, so that they cannot disagree.  ``acted``: the host's report is about the present wish; before
that a difference between wanted and seen is a task under way.  ``reached``: it was on as this wish orders.

A server that its own guest switched off, or that crashed, is off after it was reached; it is shown SHUTOFF, as
upstream does, and ``os-start`` asks for it again.  One that has yet to be reached is powering on.
"""

import sqlalchemy as sa
from sqlalchemy.sql.elements import ColumnElement

from cumulet.nova.tables import server_actions, server_hosts, servers

VM_STATES = ("building", "active", "stopped", "paused", "error", "deleted")
STATUSES = ("BUILD", "ACTIVE", "REBOOT", "HARD_REBOOT", "SHUTOFF", "PAUSED", "ERROR", "DELETED")
UPSTREAM_STATUSES = frozenset(STATUSES) | {
    "MIGRATING", "PASSWORD", "REBUILD", "RESCUE", "RESIZE", "REVERT_RESIZE", "SHELVED", "SHELVED_OFFLOADED",
    "SOFT_DELETED", "SUSPENDED", "UNKNOWN", "VERIFY_RESIZE",
}  # fmt: skip
"""Every status that a client may ask for in a filter; those we never have match nothing."""
NO_STATE, RUNNING, PAUSED, SHUTDOWN, CRASHED = 0, 1, 3, 4, 6

_s, _h = servers.c, server_hosts.c

_reboots = (
    sa.select(
        server_actions.c.server_id,
        sa.func.max(sa.case((server_actions.c.params["type"].as_string() == "HARD", 1), else_=0)).label("hard"),
    )
    .where(server_actions.c.verb, server_actions.c.finished_at.is_(None), server_actions.c.action == "reboot")
    .group_by(server_actions.c.server_id)
    .subquery("reboots")
)

STATES = servers.outerjoin(
    server_hosts, sa.and_(_h.server_id == _s.id, _h.wanted == "run")
).outerjoin(_reboots, _reboots.c.server_id == _s.id)  # fmt: skip
"""Servers, each with the host that should run it and the reboot it waits for, if any."""

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
_faulty = sa.or_(_unplaceable, _broken)
_rebooting = _reboots.c.hard.is_not(None)

vm_state: ColumnElement[str] = sa.case(
    (_gone, "deleted"),
    (_faulty, "error"),
    (sa.not_(_launched), "building"),
    (sa.and_(_rebooting, _s.power == "on"), "active"),
    (_seen == "on", "active"),
    (_seen == "paused", "paused"),
    else_="stopped",
)

task_state: ColumnElement[str | None] = sa.case(
    (_gone, sa.null()),
    (_deleting, "deleting"),
    (_faulty, sa.null()),
    (sa.and_(sa.not_(_launched), _h.host.is_(None)), "scheduling"),
    (sa.not_(_launched), "spawning"),
    (sa.and_(_rebooting, _s.power == "on"), sa.case((_reboots.c.hard == 1, "rebooting_hard"), else_="rebooting")),
    (sa.and_(_s.power == "on", _seen.not_in(("on", "paused")), sa.not_(_reached)), "powering-on"),
    (sa.and_(_s.power == "off", _seen.in_(("on", "paused"))), "powering-off"),
    else_=sa.null(),
)

power_state: ColumnElement[int] = sa.case(
    (sa.or_(_gone, sa.not_(_launched)), NO_STATE),
    (_seen == "on", RUNNING),
    (_seen == "paused", PAUSED),
    (_seen == "off", SHUTDOWN),
    (_seen == "crashed", CRASHED),
    else_=NO_STATE,
)

status: ColumnElement[str] = sa.case(
    (_gone, "DELETED"),
    (_faulty, "ERROR"),
    (sa.not_(_launched), "BUILD"),
    (
        sa.and_(_rebooting, _s.power == "on"),
        sa.case((_deleting, "ACTIVE"), (_reboots.c.hard == 1, "HARD_REBOOT"), else_="REBOOT"),
    ),
    (_seen == "on", "ACTIVE"),
    (_seen == "paused", "PAUSED"),
    else_="SHUTOFF",
)

changed_at: tuple[ColumnElement[str], ...] = (_s.updated_at, _s.gone_at, _h.seen_at, _h.launched_at)
"""Times of changes by each of a server's writers; the latest is its ``updated``."""

BRIEF = sa.select(
    _s.id, _s.name, _s.project_id, _s.user_id, _s.created_at, _h.host, vm_state.label("vm_state")
).select_from(STATES)  # fmt: skip

_NOT_SHOWN = {"user_data", "key", "image", "scheduler_hints", "encrypted_password"}

DETAIL = sa.select(
    *(column for column in servers.c if column.name not in _NOT_SHOWN),
    _h.host,
    _h.seen_fault,
    _h.seen_fault_at,
    _h.seen_at,
    _h.launched_at,
    vm_state.label("vm_state"),
    task_state.label("task_state"),
    power_state.label("power_state"),
    status.label("status"),
).select_from(STATES)
"""A row for everything that is shown of a server, but for its bulky user data."""

FULL = DETAIL.add_columns(servers.c.user_data)
