"""Groups of users.  A role of a group is a role of each member, from the commit that makes them one."""

from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Row

from cumulet.core import clock, schema
from cumulet.core.db import Transaction
from cumulet.core.errors import BadRequest, Conflict, NotFound
from cumulet.core.http import Json, Request, Route
from cumulet.core.listing import Listing, list_page
from cumulet.core.schema import UNSET, Open, UnsetType
from cumulet.keystone import documents, users
from cumulet.keystone.documents import Description, IdText, Name
from cumulet.keystone.tables import assignments, group_members, groups, projects
from cumulet.keystone.tables import users as users_table


class NewGroup(Open):
    name: Name
    domain_id: IdText | UnsetType = UNSET
    description: Description = ""


class NewGroupBody(Open):
    group: NewGroup


class ChangedGroup(Open):
    name: Name | UnsetType = UNSET
    domain_id: str | UnsetType = UNSET
    description: Description | UnsetType = UNSET


class ChangedGroupBody(Open):
    group: ChangedGroup


LISTING = Listing(
    groups.c.id,
    {"name": groups.c.name, "domain_id": groups.c.domain_id},
    documents.name_filters(groups.c.name),
    default_sort=(("name", "asc"),),
)


def list_groups(request: Request) -> Json:
    return _page(request, sa.select(groups))


def list_groups_of_user(request: Request) -> Json:
    with request.db.read() as tx:
        user = users.get_user(tx, request, "identity:list_groups_for_user")
    mine = sa.select(group_members.c.group_id).where(group_members.c.user_id == user.id)
    return _page(request, sa.select(groups).where(groups.c.id.in_(mine)))


def list_users_of_group(request: Request) -> Json:
    with request.db.read() as tx:
        row = get_group(tx, request, "identity:list_users_in_group")
        inside = sa.select(group_members.c.user_id).where(group_members.c.group_id == row.id)
        page = list_page(tx, sa.select(users_table).where(users_table.c.id.in_(inside)), request, users.LISTING)
    return documents.collection(request, "users", (users.view(request, each) for each in page.rows), page)


def show_group(request: Request) -> Json:
    with request.db.read() as tx:
        return {"group": view(request, get_group(tx, request, "identity:get_group"))}


def create_group(request: Request) -> Json:
    wanted: NewGroup = request.body.group
    domain_id = documents.home_domain(request) if isinstance(wanted.domain_id, UnsetType) else wanted.domain_id
    request.enforce("identity:create_group", {"target.group.domain_id": domain_id})
    row: Json = {
        "id": documents.new_id(),
        "domain_id": domain_id,
        "name": wanted.name.strip(),
        "description": wanted.description or "",
        "extra": documents.extras(request, "group", NewGroup),
        "created_at": clock.now(),
    }
    with request.db.transaction() as tx:
        if not tx.find(sa.select(projects.c.id).where(projects.c.id == domain_id, projects.c.is_domain)):
            raise documents.missing("domain", domain_id)
        with documents.unique("group", row["name"], domain_id):
            tx.write(groups.insert(), row)
        documents.notify(tx, request, "group.created", row["id"])
        return {"group": view(request, _row(tx, row["id"]))}


def update_group(request: Request) -> Json:
    wanted: ChangedGroup = request.body.group
    with request.db.transaction() as tx:
        row = get_group(tx, request, "identity:update_group", lock=True)
        values = schema.given(wanted)
        if values.pop("domain_id", row.domain_id) != row.domain_id:
            raise BadRequest("Cannot change Domain ID")
        if "description" in values:
            values["description"] = values["description"] or ""
        values["extra"] = {**row.extra, **documents.extras(request, "group", ChangedGroup)}
        with documents.unique("group", values.get("name", row.name), row.domain_id):
            tx.write(sa.update(groups).where(groups.c.id == row.id).values(values))
        documents.notify(tx, request, "group.updated", row.id)
        return {"group": view(request, _row(tx, row.id))}


def delete_group(request: Request) -> None:
    with request.db.transaction() as tx:
        row = get_group(tx, request, "identity:delete_group")
        theirs = sa.and_(assignments.c.actor_type == "group", assignments.c.actor_id == row.id)
        tx.write(sa.delete(assignments).where(theirs))
        tx.write(sa.delete(groups).where(groups.c.id == row.id))
        documents.notify(tx, request, "group.deleted", row.id)


def check_member(request: Request) -> None:
    with request.db.read() as tx:
        member = _member(tx, request, "identity:check_user_in_group")
        if not tx.find(sa.select(group_members).where(_where(member))):
            raise _not_inside(member)


def add_member(request: Request) -> None:
    with request.db.transaction() as tx:
        member = _member(tx, request, "identity:add_user_to_group")
        if tx.find(sa.select(group_members).where(_where(member))):
            return
        try:
            tx.write(group_members.insert(), member)
        except Conflict:
            return  # somebody else was quicker
        documents.notify(tx, request, "group.updated", member["group_id"])


def remove_member(request: Request) -> None:
    with request.db.transaction() as tx:
        member = _member(tx, request, "identity:remove_user_from_group")
        if not tx.write(sa.delete(group_members).where(_where(member))):
            raise _not_inside(member)
        documents.notify(tx, request, "group.updated", member["group_id"])


def get_group(tx: Transaction, request: Request, rule: str, *, lock: bool = False) -> Row[Any]:
    """The group in the URL; who may not see it is told the same as of one that does not exist."""
    group_id = request.params["group_id"]
    row = documents.find_row(tx, groups, group_id, lock=lock)
    request.enforce(rule, {"target.group.domain_id": row.domain_id} if row else {})
    if row is None:
        raise documents.missing("group", group_id)
    return row


def view(request: Request, row: Row[Any]) -> Json:
    return {
        **row.extra,
        "id": row.id,
        "name": row.name,
        "domain_id": row.domain_id,
        "description": row.description,
        "links": {"self": documents.link(request, f"groups/{row.id}")},
    }


def _page(request: Request, statement: sa.Select[Any]) -> Json:
    if request.context.domain_id:
        statement = statement.where(groups.c.domain_id == request.context.domain_id)
    with request.db.read() as tx:
        page = list_page(tx, statement, request, LISTING)
    return documents.collection(request, "groups", (view(request, row) for row in page.rows), page)


def _row(tx: Transaction, group_id: str) -> Row[Any]:
    return tx.all(sa.select(groups).where(groups.c.id == group_id))[0]


def _member(tx: Transaction, request: Request, rule: str) -> dict[str, str]:
    group_id, user_id = request.params["group_id"], request.params["user_id"]
    group = documents.find_row(tx, groups, group_id)
    user = documents.find_row(tx, users_table, user_id)
    target = users.user_target(user)
    request.enforce(rule, {**target, "target.group.domain_id": group.domain_id} if group else target)
    if group is None:
        raise documents.missing("group", group_id)
    if user is None:
        raise documents.missing("user", user_id)
    return {"group_id": group_id, "user_id": user_id}


def _where(member: dict[str, str]) -> sa.ColumnElement[bool]:
    return sa.and_(*(group_members.c[name] == value for name, value in member.items()))


def _not_inside(member: dict[str, str]) -> NotFound:
    return NotFound(f"User '{member['user_id']}' not found in group '{member['group_id']}'")


ONE, MEMBER = "/v3/groups/{group_id}", "/v3/groups/{group_id}/users/{user_id}"
ROUTES = [
    Route("GET", "/v3/groups", list_groups, "identity:list_groups"),
    Route("POST", "/v3/groups", create_group, "identity:create_group", 201, body=NewGroupBody),
    Route("GET", ONE, show_group, "identity:get_group"),
    Route("PATCH", ONE, update_group, "identity:update_group", body=ChangedGroupBody),
    Route("DELETE", ONE, delete_group, "identity:delete_group", 204),
    Route("GET", f"{ONE}/users", list_users_of_group, "identity:list_users_in_group"),
    Route("GET", MEMBER, check_member, "identity:check_user_in_group", 204),
    Route("PUT", MEMBER, add_member, "identity:add_user_to_group", 204),
    Route("DELETE", MEMBER, remove_member, "identity:remove_user_from_group", 204),
    Route("GET", "/v3/users/{user_id}/groups", list_groups_of_user, "identity:list_groups_for_user"),
]
