"""The list of who has which role where: as it was granted, or as it works out (``effective``).

In the effective list a group's role is each member's, an inherited one is one on every project below, and a
role brings those that it implies; links tell where each comes from.  A domain's own role is in no token, so it is
not in that list either; those that it implies are.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Row

from cumulet.core.db import Transaction
from cumulet.core.errors import BadRequest
from cumulet.core.http import Json, Request, Route
from cumulet.keystone import documents
from cumulet.keystone.effective import Assignment, Grant, Grounds, expand
from cumulet.keystone.tables import (
    assignments,
    group_members,
    groups,
    implied_roles,
    projects,
    roles,
    users,
)

FILTERS = {
    "user.id": ("actor", "user"),
    "group.id": ("actor", "group"),
    "scope.project.id": ("target", "project"),
    "scope.domain.id": ("target", "domain"),
    "scope.system": ("target", "system"),
}
EXCLUDING = (
    ("scope.domain.id", "scope.project.id", "Specify a domain or project, not both"),
    ("scope.domain.id", "scope.system", "Specify system or domain, not both"),
    ("scope.project.id", "scope.system", "Specify system or project, not both"),
    ("user.id", "group.id", "Specify a user or group, not both"),
)


def list_role_assignments(request: Request) -> Json:
    effective = _flag(request, "effective")
    _check_filters(request, effective)
    with request.db.read() as tx:
        tree = _tree(tx, request)
        if effective:
            domain_roles = {row.id for row in tx.all(sa.select(roles.c.id).where(roles.c.domain_id != ""))}
            found = [
                grant
                for grant in _effective(tx)
                if grant.shown.role_id not in domain_roles and _wanted(request, grant.shown, tree)
            ]
        else:
            found = [Grant(row, row) for row in _direct(tx, request, tree)]
        if request.context.domain_id:
            found = _in_domain(tx, request.context.domain_id, found)
        names = _names(tx, [grant.shown for grant in found]) if _flag(request, "include_names") else None
    return documents.collection(request, "role_assignments", (view(request, grant, names) for grant in found))


def view(request: Request, grant: Grant, names: "Names | None") -> Json:
    shown, source = grant
    target: Json = {shown.target_type: names.thing(shown.target_id) if names else {"id": shown.target_id}}
    if shown.target_type == "system":
        target = {"system": {"all": True}}
    if shown.inherited:
        target["OS-INHERIT:inherited_to"] = "projects"
    links = {"assignment": documents.link(request, _path(source))}
    if shown.role_id != source.role_id:
        links["prior_role"] = documents.link(request, f"prior_role/{source.role_id}/implies/{shown.role_id}")
    if source.actor_type != shown.actor_type:
        links["membership"] = documents.link(request, f"groups/{source.actor_id}/users/{shown.actor_id}")
    return {
        "role": names.thing(shown.role_id) if names else {"id": shown.role_id},
        shown.actor_type: names.thing(shown.actor_id) if names else {"id": shown.actor_id},
        "scope": target,
        "links": links,
    }


class Names:
    """Names and domains of what assignments speak of."""

    def __init__(self, rows: Iterable[Row[Any]], domains: dict[str, str]) -> None:
        self._rows = {row.id: row for row in rows}
        self._domains = domains

    def thing(self, key: str) -> Json:
        row = self._rows.get(key)
        if row is None:
            return {"id": key, "name": ""}
        domain = {"domain": {"id": row.domain_id, "name": self._domains[row.domain_id]}} if row.domain_id else {}
        return {"id": key, "name": row.name, **domain}


def _path(source: Assignment) -> str:
    """The URL that the assignment was made with."""
    where = "system" if source.target_type == "system" else f"{source.target_type}s/{source.target_id}"
    path = f"{where}/{source.actor_type}s/{source.actor_id}/roles/{source.role_id}"
    return f"OS-INHERIT/{path}/inherited_to_projects" if source.inherited else path


def _check_filters(request: Request, effective: bool) -> None:
    for one, other, message in EXCLUDING:
        if request.one(one) and request.one(other):
            raise BadRequest(message)
    if effective and request.one("group.id"):
        raise BadRequest("Combining effective and group filter will always result in an empty list.")
    if effective and request.one("scope.domain.id") and request.one("scope.OS-INHERIT:inherited_to"):
        raise BadRequest("Combining effective, domain and inherited filters will always result in an empty list.")
    if _flag(request, "include_subtree") and not request.one("scope.project.id"):
        raise BadRequest("scope.project.id must be specified if include_subtree is also specified")


def _tree(tx: Transaction, request: Request) -> frozenset[str]:
    """With ``include_subtree``: the project that is asked for and all below it."""
    root = request.one("scope.project.id")
    if not root or not _flag(request, "include_subtree"):
        return frozenset()
    row = documents.find_row(tx, projects, root)
    target = {"target.domain_id": row.domain_id or row.id} if row else {}
    request.enforce("identity:list_role_assignments_for_tree", target)
    tree = level = {root}
    while level:
        below = sa.select(projects.c.id).where(projects.c.parent_id.in_(level), sa.not_(projects.c.is_domain))
        level = {each.id for each in tx.all(below)} - tree
        tree = tree | level
    return frozenset(tree)


def _rows(tx: Transaction, *where: sa.ColumnElement[bool]) -> list[Assignment]:
    columns = [assignments.c[name] for name in Assignment._fields]
    return [Assignment._make(row) for row in tx.all(sa.select(*columns).where(*where).order_by(*columns))]


def _direct(tx: Transaction, request: Request, tree: frozenset[str]) -> list[Assignment]:
    """As granted.  The filters are the same as ``_wanted``'s."""
    where = []
    for name, (side, kind) in FILTERS.items():
        if value := request.one(name):
            where.append(assignments.c[f"{side}_type"] == kind)
            if kind == "project" and tree:
                where.append(assignments.c.target_id.in_(tree))
            elif kind != "system":
                where.append(assignments.c[f"{side}_id"] == value)
    if role_id := request.one("role.id"):
        where.append(assignments.c.role_id == role_id)
    if request.one("scope.OS-INHERIT:inherited_to"):
        where.append(assignments.c.inherited)
    return _rows(tx, *where)


def _effective(tx: Transaction) -> Iterator[Grant]:
    """All of them; a filter then takes what was asked for."""
    members: dict[str, list[str]] = defaultdict(list)
    for row in tx.all(sa.select(group_members)):
        members[row.group_id].append(row.user_id)
    children: dict[str, list[str]] = defaultdict(list)
    for row in tx.all(sa.select(projects.c.id, projects.c.parent_id).where(projects.c.parent_id.is_not(None))):
        children[row.parent_id].append(row.id)
    implied: dict[str, list[str]] = defaultdict(list)
    for row in tx.all(sa.select(implied_roles)):
        implied[row.prior_role_id].append(row.implied_role_id)
    return expand(_rows(tx), Grounds(members, children, implied))


def _wanted(request: Request, shown: Assignment, tree: frozenset[str]) -> bool:
    for name, (side, kind) in FILTERS.items():
        value = request.one(name)
        if value and getattr(shown, f"{side}_type") != kind:
            return False
        ids = tree if tree and kind == "project" else {value}
        if value and kind != "system" and getattr(shown, f"{side}_id") not in ids:
            return False
    if request.one("role.id") not in (None, "", shown.role_id):
        return False
    return not request.one("scope.OS-INHERIT:inherited_to") or shown.inherited


def _in_domain(tx: Transaction, domain_id: str, found: Sequence[Grant]) -> list[Grant]:
    """What a token for a domain shows: grants on it and on the projects in it."""
    inside = {row.id for row in tx.all(sa.select(projects.c.id).where(projects.c.domain_id == domain_id))}
    return [each for each in found if each.shown.target_id == domain_id or each.shown.target_id in inside]


def _names(tx: Transaction, found: Sequence[Assignment]) -> Names:
    rows: list[Row[Any]] = []
    for table, ids in (
        (users, {each.actor_id for each in found if each.actor_type == "user"}),
        (groups, {each.actor_id for each in found if each.actor_type == "group"}),
        (projects, {each.target_id for each in found}),
        (roles, {each.role_id for each in found}),
    ):
        if ids:
            rows += tx.all(sa.select(table.c.id, table.c.name, table.c.domain_id).where(table.c.id.in_(ids)))
    domains = tx.all(sa.select(projects.c.id, projects.c.name).where(projects.c.is_domain))
    return Names(rows, {row.id: row.name for row in domains})


def _flag(request: Request, name: str) -> bool:
    values = request.many(name)
    return bool(values) and documents.is_true(values)


ROUTES = [Route("GET", "/v3/role_assignments", list_role_assignments, "identity:list_role_assignments")]
