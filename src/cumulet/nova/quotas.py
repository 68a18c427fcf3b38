"""How much a project may have: defaults, an administrator's limits, what is used; and ``/os-quota-sets``.

A limit is the user's in the project, else the project's, else that of the class ``default``, else one of
``DEFAULTS``.  A user's limit counts what that user has in the project, and comes on top of the project's.

``claim`` counts what a project has while nobody else counts: it first moves the project's guard on, and who comes
second waits for that row until the first is done.  So a quota cannot be overrun by requests that run side by side.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import sqlalchemy as sa
from msgspec import UNSET, Meta, UnsetType, field

from cumulet.core.context import Context
from cumulet.core.db import Transaction
from cumulet.core.errors import BadRequest, Conflict, Forbidden, Retry
from cumulet.core.http import Json, Reply, Request, Route
from cumulet.core.schema import Strict, given
from cumulet.nova import versions
from cumulet.nova.paging import boolean
from cumulet.nova.tables import migrations, quota_class_limits, quota_guards, quota_limits, server_groups, servers

DEFAULTS: Mapping[str, int] = {
    "cores": 20,
    "fixed_ips": -1,
    "floating_ips": -1,
    "injected_file_content_bytes": 10240,
    "injected_file_path_bytes": 255,
    "injected_files": 5,
    "instances": 10,
    "key_pairs": 100,
    "metadata_items": 128,
    "ram": 51200,
    "security_group_rules": -1,
    "security_groups": -1,
    "server_group_members": 10,
    "server_groups": 10,
}
LARGEST = 0x7FFFFFFF
DEFAULT_CLASS = "default"

_USED = sa.select(
    sa.func.count().label("instances"),
    sa.func.coalesce(sa.func.sum(servers.c.vcpus), 0).label("cores"),
    sa.func.coalesce(sa.func.sum(servers.c.memory_mb), 0).label("ram"),
).where(servers.c.project_id == sa.bindparam("project"), servers.c.gone_at.is_(None))
_MORE = (
    sa.select(
        sa.func.coalesce(sa.func.sum(migrations.c.more_vcpus), 0).label("cores"),
        sa.func.coalesce(sa.func.sum(migrations.c.more_memory_mb), 0).label("ram"),
    )
    .join_from(migrations, servers)
    .where(
        servers.c.project_id == sa.bindparam("project"),
        migrations.c.finished_at.is_(None),
        migrations.c.placed_at.is_(None),
    )
)
"""What servers get on top whose new flavor waits for a host."""
_GROUPS = (
    sa.select(sa.func.count())
    .select_from(server_groups)
    .where(server_groups.c.project_id == sa.bindparam("project"))
)
_LOCK = (
    sa.update(quota_guards)
    .where(quota_guards.c.project_id == sa.bindparam("project"))
    .values(generation=quota_guards.c.generation + 1)
)


@dataclass(frozen=True)
class Usage:
    limits: Mapping[str, int]
    used: Mapping[str, int]


_OF_PROJECT, _OF_USER = (quota_limits.c[name] == sa.bindparam(name[:-3]) for name in ("project_id", "user_id"))
_LIMITS = (
    sa.select(quota_limits)
    .where(_OF_PROJECT, sa.or_(_OF_USER, quota_limits.c.user_id == ""))
    .order_by(quota_limits.c.user_id)
)
_USERS_LIMITS = sa.select(quota_limits.c.resource).where(_OF_PROJECT, _OF_USER)
_CLASS_LIMITS = sa.select(quota_class_limits).where(quota_class_limits.c.class_name == sa.bindparam("name"))


def read_limits(tx: Transaction, project_id: str, user_id: str = "") -> dict[str, int]:
    rows = tx.all(_LIMITS, {"project": project_id, "user": user_id})
    return read_class(tx, DEFAULT_CLASS) | {row.resource: row.hard_limit for row in rows}


def read_class(tx: Transaction, name: str) -> dict[str, int]:
    rows = tx.all(_CLASS_LIMITS, {"name": name})
    return dict(DEFAULTS) | {row.resource: row.hard_limit for row in rows}


def read_usage(tx: Transaction, project_id: str, user_id: str = "") -> Usage:
    """Of the project, or of one user in it."""
    used: Counter[str] = Counter()
    for statement in (_USED, _MORE):
        mine = statement.where(servers.c.user_id == user_id) if user_id else statement
        for row in tx.all(mine, {"project": project_id}):
            used.update({name: int(amount) for name, amount in row._mapping.items()})
    used["server_groups"] = int(tx.value(_GROUPS, {"project": project_id}))
    return Usage(read_limits(tx, project_id, user_id), used)


def claim(tx: Transaction, context: Context, vcpus: int, memory_mb: int, least: int, most: int) -> int:
    """How many servers of this size, from ``least`` to ``most``, the project may still make; Forbidden if none."""
    lock(tx, context.project_id)
    size = {"instances": 1, "cores": vcpus, "ram": memory_mb}
    number = most
    for usage in _usages(tx, context.project_id, context.user_id):
        number = min([number, *(_room(usage, name) // each for name, each in size.items() if each)])
        if number < least:
            wanted = {name: each * least for name, each in size.items()}
            raise Forbidden(_refusal(usage, wanted), kind="TooManyInstances")
    return number


def check_growth(tx: Transaction, project_id: str, user_id: str, vcpus: int, memory_mb: int) -> None:
    """Forbidden unless a server of this project and user may get so much more."""
    lock(tx, project_id)
    wanted = {"cores": max(0, vcpus), "ram": max(0, memory_mb)}
    for usage in _usages(tx, project_id, user_id):
        if any(amount > _room(usage, name) for name, amount in wanted.items()):
            raise Forbidden(_refusal(usage, wanted), kind="TooManyInstances")


def _usages(tx: Transaction, project_id: str, user_id: str) -> Iterator[Usage]:
    """The project's, and the user's if there are limits for this user."""
    yield read_usage(tx, project_id)
    if tx.find(_USERS_LIMITS, {"project": project_id, "user": user_id}):
        yield read_usage(tx, project_id, user_id)


def lock(tx: Transaction, owner: str) -> None:
    """Let nobody else count for this project (of key pairs: this user) before the transaction ends."""
    if not tx.write(_LOCK, {"project": owner}):
        try:
            tx.write(quota_guards.insert(), {"project_id": owner, "generation": 1})
        except Conflict as lost:
            raise Retry("another request makes the first thing that counts") from lost


def _room(usage: Usage, name: str) -> int:
    limit = usage.limits[name]
    return LARGEST if limit < 0 else max(0, limit - usage.used[name])


def _refusal(usage: Usage, wanted: Mapping[str, int]) -> str:
    """Upstream's text, which clients and people look for."""
    over = sorted(name for name, amount in wanted.items() if amount > _room(usage, name))
    names = ", ".join(over)
    asked = ", ".join(str(wanted[name]) for name in over)
    used = ", ".join(str(usage.used[name]) for name in over)
    allowed = ", ".join(str(usage.limits[name]) for name in over)
    return f"Quota exceeded for {names}: Requested {asked}, but already used {used} of {allowed} {names}"


# ── /os-quota-sets ───────────────────────────────────────────────────────────────────────────────────────────

Limit = Annotated[int, Meta(ge=-1, le=LARGEST)] | UnsetType


class Limits(Strict):
    cores: Limit = UNSET
    fixed_ips: Limit = UNSET
    floating_ips: Limit = UNSET
    injected_file_content_bytes: Limit = UNSET
    injected_file_path_bytes: Limit = UNSET
    injected_files: Limit = UNSET
    instances: Limit = UNSET
    key_pairs: Limit = UNSET
    metadata_items: Limit = UNSET
    ram: Limit = UNSET
    security_group_rules: Limit = UNSET
    security_groups: Limit = UNSET
    server_group_members: Limit = UNSET
    server_groups: Limit = UNSET


class QuotaSet(Limits):
    tenant_id: str | UnsetType = UNSET
    force: bool | str = False


class QuotaBody(Strict):
    quota_set: QuotaSet = field()


def show_quota_set(request: Request) -> Json:
    project_id = _project(request, "show")
    with request.db.read() as tx:
        limits = read_limits(tx, project_id, _user(request))
    return _document(request, {"id": project_id, **limits})


def show_defaults(request: Request) -> Json:
    project_id = _project(request, "defaults")
    with request.db.read() as tx:
        return _document(request, {"id": project_id, **read_class(tx, DEFAULT_CLASS)})


def show_detail(request: Request) -> Json:
    project_id = _project(request, "detail")
    with request.db.read() as tx:
        usage = read_usage(tx, project_id, _user(request))
    detail = {
        name: {"limit": limit, "in_use": usage.used.get(name, 0), "reserved": 0}
        for name, limit in usage.limits.items()
    }
    return _document(request, {"id": project_id, **detail})


def update_quota_set(request: Request) -> Json:
    """Set limits; below what is used, or a user's above the project's, only with ``force``."""
    project_id, user_id = _project(request, "update"), _user(request)
    wish: QuotaSet = request.body.quota_set
    wanted, forced = given_limits(wish), boolean(wish.force, "force")
    with request.db.transaction() as tx:
        usage = read_usage(tx, project_id, user_id)
        if not forced:
            most = read_limits(tx, project_id) if user_id else {}
            for name, limit in wanted.items():
                _check_limit(name, limit, usage.used.get(name, 0), most.get(name, -1))
        for name, limit in wanted.items():
            row = {"project_id": project_id, "user_id": user_id, "resource": name}
            tx.write(sa.delete(quota_limits).where(*(quota_limits.c[key] == value for key, value in row.items())))
            tx.write(quota_limits.insert(), {**row, "hard_limit": limit})
    return _document(request, {**usage.limits, **wanted})


def given_limits(wish: Limits) -> dict[str, int]:
    return {name: limit for name, limit in given(wish).items() if name in DEFAULTS}


def _check_limit(name: str, limit: int, used: int, most: int) -> None:
    if 0 <= limit < used:
        raise BadRequest(
            f"Quota limit {limit} for {name} must be greater than or equal to already used and reserved {used}."
        )
    if most >= 0 and (limit < 0 or most < limit):
        raise BadRequest(f"Quota limit {limit} for {name} must be less than or equal to {most}.")


def delete_quota_set(request: Request) -> Reply:
    """The user's limits, or all of the project and its users."""
    project_id, user_id = _project(request, "delete"), _user(request)
    mine = quota_limits.c.project_id == project_id
    with request.db.transaction() as tx:
        tx.write(sa.delete(quota_limits).where(mine, quota_limits.c.user_id == user_id if user_id else sa.true()))
    return Reply()


def _user(request: Request) -> str:
    versions.check_query("quota_set", request)
    return request.one("user_id") or ""


def _project(request: Request, verb: str) -> str:
    project_id = request.params["id"]
    request.enforce(f"os_compute_api:os-quota-sets:{verb}", {"project_id": project_id})
    return project_id


def _document(request: Request, quota_set: dict[str, Any]) -> Json:
    return {"quota_set": versions.render("quota_set", quota_set, request.version)}


POLICY = "os_compute_api:os-quota-sets:"
ROUTES = (
    Route("GET", "/v2.1/os-quota-sets/{id}", show_quota_set, POLICY + "show"),
    Route("GET", "/v2.1/os-quota-sets/{id}/defaults", show_defaults, POLICY + "defaults"),
    Route("GET", "/v2.1/os-quota-sets/{id}/detail", show_detail, POLICY + "detail"),
    Route("PUT", "/v2.1/os-quota-sets/{id}", update_quota_set, POLICY + "update", body=QuotaBody),
    Route("DELETE", "/v2.1/os-quota-sets/{id}", delete_quota_set, POLICY + "delete", 202),
)
