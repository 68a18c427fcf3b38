"""Which servers a list shows: whose, and the filters of ``GET /servers`` as conditions of its one statement.

What only administrators may ask for is ignored for others, as upstream does, never obeyed.
"""

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import sqlalchemy as sa

from cumulet.core import clock
from cumulet.core.db import Transaction
from cumulet.core.errors import BadRequest, Forbidden
from cumulet.core.http import Request
from cumulet.core.listing import Condition, Listing
from cumulet.core.microversion import Version
from cumulet.neutron import public as neutron
from cumulet.nova import status
from cumulet.nova.checks import check_regex
from cumulet.nova.paging import PAGE, PAGING, boolean, only
from cumulet.nova.tables import server_hosts, servers
from cumulet.nova.tag_rows import with_tags

_s, _h = servers.c, server_hosts.c

_ANYBODY: dict[str, Version] = dict.fromkeys(
    ("reservation_id", "name", "status", "image", "flavor", "ip", "changes-since", "all_tenants"), (2, 1)
) | {
    "ip6": (2, 5),
    "tags": (2, 26),
    "tags-any": (2, 26),
    "not-tags": (2, 26),
    "not-tags-any": (2, 26),
    "changes-before": (2, 66),
    "locked": (2, 73),
    "hostname": (2, 90),
    **dict.fromkeys(
        (
            "availability_zone", "config_drive", "key_name", "created_at", "launched_at", "terminated_at",
            "power_state", "task_state", "vm_state", "progress", "user_id",
        ),
        (2, 83),
    ),
}  # fmt: skip
"""Filters that anybody may use, and since when."""
_SCOPE = frozenset({"all_tenants", "project_id", "tenant_id", "deleted", "ip", "ip6", "status"})
"""Filters that ``wanted_servers`` obeys itself."""
_ELSEWHERE = frozenset(
    {"auto_disk_config", "kernel_id", "progress", "ramdisk_id", "root_device_name", "soft_deleted"}
)
"""Filters that upstream knows and that tell none of our servers from another."""


def wanted_servers(
    tx: Transaction, request: Request, statement: sa.Select[Any], rule: str
) -> tuple[sa.Select[Any], Request]:
    """``statement`` for those the caller may see, and the request with the filters that are left for the list."""
    if not request.query:
        return _living(statement, request.context.project_id), request
    names = {name for name, _ in request.query} - PAGING
    _check_names(names, request.version)
    if not request.allows("os_compute_api:servers:allow_all_filters"):
        names = {name for name in names if request.version >= _ANYBODY.get(name, (9, 9))}
        if {"host", "node"} & set(request.many("sort_key")):
            raise Forbidden("Only administrators can sort servers by host")
    scoped = statement.where(*_owned(request, rule), _alive(request, names), _in_status(request))
    for name in ("ip", "ip6"):
        if name in names:
            scoped = scoped.where(_s.id.in_(_with_address(tx, scoped, request.many(name)[-1])))
    return scoped, only(request, frozenset(names - _SCOPE))


@lru_cache(maxsize=64)
def _living(statement: sa.Select[Any], project_id: str) -> sa.Select[Any]:
    return statement.where(_s.project_id == project_id, _s.gone_at.is_(None))


def _check_names(names: set[str], version: Version) -> None:
    known = _SCOPE | _ELSEWHERE | set(LISTING.columns) | set(LISTING.conditions or ())
    for name in sorted(names - known):
        if name.startswith("_"):
            raise BadRequest(f"Invalid filter field: {name}.")
        if version >= (2, 75):
            raise BadRequest(
                f"Invalid input for query parameters {name[:300]}. Additional properties are not allowed",
                kind="ValidationError",
            )


def _in_status(request: Request) -> sa.ColumnElement[bool]:
    """Those in one of the statuses asked for.  A status that nobody knows is an error from 2.38 on, else none's."""
    wanted = {value.upper() for value in request.many("status")}
    if not wanted:
        return sa.true()
    if not wanted & status.UPSTREAM_STATUSES and request.version >= (2, 38):
        raise BadRequest("Invalid status value")
    return status.status.in_(sorted(wanted))


def _owned(request: Request, rule: str) -> list[sa.ColumnElement[bool]]:
    """The caller's project's servers; with ``all_tenants`` everybody's, or those of one project."""
    asked = request.one("all_tenants")
    if asked is None or not (asked == "" or boolean(asked, "all_tenants")):
        return [_s.project_id == request.context.project_id]
    request.enforce(f"{rule}:get_all_tenants")
    projects = request.many("project_id") or request.many("tenant_id")
    return [_s.project_id.in_(projects)] if projects else []


def _alive(request: Request, names: set[str]) -> sa.ColumnElement[bool]:
    """Servers that are not gone; gone ones for administrators who ask, and among recent changes."""
    if [value.upper() for value in request.many("status")] == ["DELETED"]:
        if not request.context.admin:
            raise Forbidden("Only administrators may list deleted instances")
        return _s.gone_at.is_not(None)
    if "deleted" in names and request.one("deleted") not in (None, ""):
        return _s.gone_at.is_not(None) if _is_true(request.one("deleted")) else _s.gone_at.is_(None)
    if names & {"changes-since", "changes-before"}:
        return sa.true()
    return _s.gone_at.is_(None)


def _is_true(word: str | None) -> bool:
    try:
        return boolean(word, "deleted")
    except BadRequest:
        return False


def _with_address(tx: Transaction, scoped: sa.Select[Any], pattern: str) -> Sequence[str]:
    """The servers with an address that the pattern is found in."""
    expression = re.compile(check_regex(pattern, "ip"))
    ids = [row.id for row in tx.all(scoped.with_only_columns(_s.id))]
    ports = neutron.list_server_ports(tx, ids)
    return [
        server_id
        for server_id, found in ports.items()
        if any(expression.search(address.ip) for port in found for address in port.addresses)
    ]


# ── conditions ───────────────────────────────────────────────────────────────────────────────────────────────


def _by_name(values: list[str]) -> sa.ColumnElement[bool]:
    return _s.name.regexp_match("(?i)" + check_regex(values[-1], "name"))


def _time(value: str, name: str) -> str:
    try:
        return clock.text(clock.parse(value.replace(" ", "+") if "T" in value else value))
    except ValueError as error:
        raise BadRequest(f"Invalid filter field: {name}.") from error


def _since(values: list[str]) -> sa.ColumnElement[bool]:
    time = _time(values[-1], "changes-since")
    return sa.or_(*(column >= time for column in status.changed_at))


def _before(values: list[str]) -> sa.ColumnElement[bool]:
    time = _time(values[-1], "changes-before")
    return sa.and_(*(sa.or_(column.is_(None), column <= time) for column in status.changed_at))


def _by_zone(values: list[str]) -> sa.ColumnElement[bool]:
    asked = sa.or_(*(_s.availability_zone.like(f"{_escaped(value)}%", escape="\\") for value in values))
    return sa.or_(status.zone.in_(values), sa.and_(_h.host.is_(None), asked))


def _escaped(text: str) -> str:
    return re.sub(r"([\\%_])", r"\\\1", text)


def _by_flag(column: sa.ColumnElement[bool], name: str) -> Condition:
    return lambda values: column.is_(boolean(values[-1], name))


def _by_number(expression: sa.ColumnElement[int], name: str) -> Condition:
    def condition(values: list[str]) -> sa.ColumnElement[bool]:
        if not all(re.fullmatch(r"[0-9]{1,9}", value, re.ASCII) for value in values):
            raise BadRequest(
                f"Invalid input for query parameters {name}. Value: {values[-1][:300]} is not a number"
            )
        return expression.in_([int(value) for value in values])

    return condition


def _words(values: list[str]) -> list[str]:
    return values[-1].split(",")


LISTING = Listing(
    zero_is_empty=True,
    id=_s.id,
    columns={
        "uuid": _s.id,
        "name": _s.name,
        "display_name": _s.name,
        "description": _s.description,
        "display_description": _s.description,
        "hostname": _s.hostname,
        "user_id": _s.user_id,
        "project_id": _s.project_id,
        "reservation_id": _s.reservation_id,
        "launch_index": _s.launch_index,
        "key_name": _s.key_name,
        "image": _s.image_id,
        "image_ref": _s.image_id,
        "flavor": _s.flavor["id"].as_string(),
        "host": _h.host,
        "node": _h.host,
        "created_at": _s.created_at,
        "updated_at": _s.updated_at,
        "launched_at": _h.launched_at,
        "terminated_at": _s.gone_at,
        "availability_zone": _s.availability_zone,
        "access_ip_v4": _s.access_ip_v4,
        "access_ip_v6": _s.access_ip_v6,
        "vm_state": status.vm_state,
        "task_state": status.task_state,
        "power_state": status.power_state,
        "locked_by": _s.locked_by,
        "locked": _s.locked,
        "config_drive": _s.config_drive,
    },
    conditions={
        "name": _by_name,
        "changes-since": _since,
        "changes-before": _before,
        "availability_zone": _by_zone,
        "locked": _by_flag(_s.locked, "locked"),
        "config_drive": _by_flag(_s.config_drive, "config_drive"),
        "power_state": _by_number(status.power_state, "power_state"),
        "tags": lambda values: with_tags(_words(values), every=True),
        "tags-any": lambda values: with_tags(_words(values), every=False),
        "not-tags": lambda values: sa.not_(with_tags(_words(values), every=True)),
        "not-tags-any": lambda values: sa.not_(with_tags(_words(values), every=False)),
    },
    default_sort=(("created_at", "desc"),),
    default_page=PAGE,
)
