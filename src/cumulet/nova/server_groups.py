"""``/os-server-groups``: servers that shall be on one host, or on different ones.

A server joins when it is created (the scheduler hint ``group``) and leaves when it is deleted.  What the policies
mean is nova-scheduler's business (``nova.scheduling``).
"""

import uuid
from collections import defaultdict
from collections.abc import Iterable
from typing import Annotated, Any

import sqlalchemy as sa
from msgspec import UNSET, Meta, UnsetType
from sqlalchemy.engine import Row

from cumulet.core import clock
from cumulet.core.db import Transaction
from cumulet.core.errors import BadRequest, Forbidden, NotFound
from cumulet.core.http import Json, Reply, Request, Route
from cumulet.core.schema import Strict
from cumulet.nova import notices, quotas, versions
from cumulet.nova.checks import check_name
from cumulet.nova.paging import PAGE, boolean, whole_number
from cumulet.nova.tables import server_groups, servers


class Rules(Strict):
    max_server_per_host: Annotated[int, Meta(ge=1, le=quotas.LARGEST)] | UnsetType = UNSET


class OldGroup(Strict):
    name: str
    policies: Annotated[list[str], Meta(min_length=1, max_length=1)]


class NewGroup(Strict):
    name: str
    policy: str
    rules: Rules | UnsetType = UNSET


class CreateOldGroup(Strict):
    server_group: OldGroup


class CreateGroup(Strict):
    server_group: NewGroup


def get_group(tx: Transaction, request: Request, group_id: str) -> Row[Any]:
    row = tx.find(sa.select(server_groups).where(server_groups.c.id == group_id))
    if row is None or not _sees(request, row.project_id):
        raise NotFound(f"Instance group {group_id} could not be found.", kind="InstanceGroupNotFound")
    return row


def _sees(request: Request, project_id: str) -> bool:
    return request.context.project_id == project_id or request.context.admin


def join(tx: Transaction, request: Request, hints: dict[str, Any], number: int) -> str | None:
    """The group that the hints name, if it has room for so many more servers; None if they name none.

    Its project must be locked (``quotas.lock``), or somebody else may count at the same time.
    """
    group_id = hints.get("group")
    if group_id is None:
        return None
    mine = server_groups.c.project_id == request.context.project_id
    row = tx.find(sa.select(server_groups).where(server_groups.c.id == str(group_id), mine))
    if row is None:
        raise BadRequest(f"Instance group {str(group_id)[:300]} could not be found.", kind="InstanceGroupNotFound")
    limit = quotas.read_limits(tx, row.project_id)["server_group_members"]
    if 0 <= limit < len(_members(tx, [row.id])[row.id]) + number:
        raise Forbidden("Quota exceeded, too many servers in group", kind="OverQuota")
    return str(row.id)


def list_groups(request: Request) -> Json:
    versions.check_query("server_groups", request)
    every = request.one("all_projects") is not None and boolean(request.one("all_projects"), "all_projects")
    statement = sa.select(server_groups).order_by(server_groups.c.created_at, server_groups.c.id)
    if not (every and request.allows(POLICY + "index:all_projects")):
        statement = statement.where(server_groups.c.project_id == request.context.project_id)
    limit, offset = (whole_number(request.one(name), name) for name in ("limit", "offset"))
    page = statement.limit(min(limit or PAGE, PAGE)).offset(offset or 0)
    with request.db.read() as tx:
        rows = tx.all(page)
        members = _members(tx, [row.id for row in rows])
    return {"server_groups": [_view(request, row, members[row.id]) for row in rows]}


def show_group(request: Request) -> Json:
    with request.db.read() as tx:
        row = get_group(tx, request, request.params["id"])
        request.enforce(POLICY + "show", {"project_id": row.project_id})
        return {"server_group": _view(request, row, _members(tx, [row.id])[row.id])}


def create_old_group(request: Request) -> Json:
    wish: OldGroup = request.body.server_group
    return _create(request, wish.name, wish.policies[0], {})


def create_group(request: Request) -> Json:
    wish: NewGroup = request.body.server_group
    most = UNSET if wish.rules is UNSET else wish.rules.max_server_per_host
    if most is not UNSET and wish.policy != "anti-affinity":
        raise BadRequest("Only anti-affinity policy supports rules.")
    return _create(request, wish.name, wish.policy, {} if most is UNSET else {"max_server_per_host": most})


def _create(request: Request, name: str, policy: str, rules: dict[str, int]) -> Json:
    context = request.context
    if not context.project_id:
        raise Forbidden("A server group belongs to a project: use a token that is scoped to one")
    values = {
        "id": str(uuid.uuid4()),
        "project_id": context.project_id,
        "user_id": context.user_id,
        "name": check_name(name),
        "policy": versions.check_value("policy", policy, request.version),
        "rules": rules,
        "created_at": clock.now(),
    }
    with request.db.transaction() as tx:
        quotas.lock(tx, context.project_id)
        usage = quotas.read_usage(tx, context.project_id)
        if 0 <= usage.limits["server_groups"] <= usage.used["server_groups"]:
            raise Forbidden("Quota exceeded, too many server groups.", kind="ServerGroupLimitExceeded")
        tx.write(server_groups.insert(), values)
        told = {"server_group_id": values["id"], "name": name, "policies": [policy]}
        notices.tell_group(tx, request, "create", told)
        return {"server_group": _view(request, get_group(tx, request, str(values["id"])), [])}


def delete_group(request: Request) -> Reply:
    """The group only: its servers stay where they are, without a bond."""
    with request.db.transaction() as tx:
        row = get_group(tx, request, request.params["id"])
        request.enforce(POLICY + "delete", {"project_id": row.project_id})
        member = servers.c.server_group_id == row.id
        tx.write(sa.update(servers).where(member).values(server_group_id=None))
        tx.write(sa.delete(server_groups).where(server_groups.c.id == row.id))
        notices.tell_group(tx, request, "delete", {"server_group_id": row.id})
    return Reply()


def _members(tx: Transaction, group_ids: Iterable[str]) -> dict[str, list[str]]:
    """The servers of each group that are not ordered away, oldest first."""
    found: dict[str, list[str]] = defaultdict(list)
    statement = (
        sa.select(servers.c.id, servers.c.server_group_id)
        .where(servers.c.server_group_id.in_(list(group_ids)), servers.c.deleted_at.is_(None))
        .order_by(servers.c.created_at, servers.c.id)
    )
    for row in tx.all(statement):
        found[row.server_group_id].append(row.id)
    return found


def _view(request: Request, row: Row[Any], members: list[str]) -> Json:
    document = {
        "id": row.id,
        "name": row.name,
        "policy": row.policy,
        "rules": row.rules,
        "members": members,
        "project_id": row.project_id,
        "user_id": row.user_id,
    }
    return versions.render("server_group", document, request.version)


POLICY = "os_compute_api:os-server-groups:"
URL = "/v2.1/os-server-groups"
ROUTES = (
    Route("GET", URL, list_groups, POLICY + "index"),
    Route("POST", URL, create_old_group, POLICY + "create", body=CreateOldGroup, until=(2, 63)),
    Route("POST", URL, create_group, POLICY + "create", body=CreateGroup, since=(2, 64)),
    Route("GET", URL + "/{id}", show_group, POLICY + "show"),
    Route("DELETE", URL + "/{id}", delete_group, POLICY + "delete", 204),
)
