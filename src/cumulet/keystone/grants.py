"""Who gets which role where: one user or group, one project, domain or the system, one role.

The same four verbs under every pair of URLs, so the routes are made by a table.  Everything a URL names must
exist; to take away what is not there is a 404 and changes nothing.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Row

from cumulet.core.db import Transaction
from cumulet.core.errors import Conflict, Forbidden, NotFound
from cumulet.core.http import Json, Request, Route
from cumulet.keystone import application_credentials, documents
from cumulet.keystone.model import SYSTEM
from cumulet.keystone.roles import role_target, view
from cumulet.keystone.tables import assignments, groups, projects, roles, users


@dataclass(frozen=True)
class Place:
    """One kind of grant: on what, to whom, and whether it holds below the target instead of on it."""

    target: str  # 'project', 'domain', 'system'
    actor: str  # 'user', 'group'
    inherited: bool = False

    @property
    def path(self) -> str:
        target = "system" if self.target == "system" else f"{self.target}s/{{{self.target}_id}}"
        prefix = "/v3/OS-INHERIT" if self.inherited else "/v3"
        return f"{prefix}/{target}/{self.actor}s/{{{self.actor}_id}}/roles"

    def rule(self, verb: str) -> str:
        noun = "grants" if verb == "list" else "grant"
        return (
            f"identity:{verb}_{noun}"
            if self.target != "system"
            else f"identity:{verb}_system_{noun}_for_{self.actor}"
        )


def list_grants(request: Request, place: Place) -> Json:
    with request.db.read() as tx:
        where = _where(_check(tx, request, place, "list")[0])
        found = tx.all(
            sa.select(roles)
            .select_from(assignments.join(roles, roles.c.id == assignments.c.role_id))
            .where(where)
            .order_by(roles.c.name, roles.c.id)
        )
    return documents.collection(request, "roles", (view(request, row) for row in found))


def check_grant(request: Request, place: Place) -> None:
    with request.db.read() as tx:
        row, _ = _check(tx, request, place, "check")
        if not tx.find(sa.select(assignments).where(_where(row))):
            raise _absent(row)


def create_grant(request: Request, place: Place) -> None:
    with request.db.transaction() as tx:
        row, role = _check(tx, request, place, "create")
        if role is not None and role.domain_id:
            _check_domain_of_role(tx, place, row, role)
        if tx.find(sa.select(assignments).where(_where(row))):
            return
        try:
            tx.write(assignments.insert(), row)
        except Conflict:
            return  # somebody else was quicker with the same grant
        tx.notify(request.context, "identity.role_assignment.created", _publisher(request), _payload(row))


def revoke_grant(request: Request, place: Place) -> None:
    with request.db.transaction() as tx:
        row, _ = _check(tx, request, place, "revoke")
        if not tx.write(sa.delete(assignments).where(_where(row))):
            raise _absent(row)
        if place.actor == "user" and place.target == "project":
            application_credentials.delete_those_of(tx, request, row["actor_id"], row["target_id"])
        tx.notify(request.context, "identity.role_assignment.deleted", _publisher(request), _payload(row))


def _check(tx: Transaction, request: Request, place: Place, verb: str) -> tuple[Json, Row[Any] | None]:
    """What the URL names, as a row of ``assignments``, if it exists and the caller may; and the role."""
    params = request.params
    actor_id, target_id = params[f"{place.actor}_id"], params.get(f"{place.target}_id", SYSTEM)
    actor = documents.find_row(tx, users if place.actor == "user" else groups, actor_id)
    target = documents.find_row(tx, projects, target_id) if place.target != "system" else None
    if target is not None and place.target == "domain" and not target.is_domain:
        target = None
    role_id = params.get("role_id")
    role = documents.find_row(tx, roles, role_id) if role_id else None
    request.enforce(place.rule(verb), _policy_target(place, actor, target, role))
    if actor is None:
        raise documents.missing(place.actor, actor_id)
    if target is None and place.target != "system":
        raise documents.missing(place.target, target_id)
    if role is None and role_id:
        raise documents.missing("role", role_id)
    row: Json = {
        "actor_type": place.actor,
        "actor_id": actor_id,
        "target_type": place.target,
        "target_id": target_id,
        "inherited": place.inherited,
    }
    return {**row, "role_id": role_id} if role_id else row, role


def _policy_target(place: Place, actor: Row[Any] | None, target: Row[Any] | None, role: Row[Any] | None) -> Json:
    found: Json = role_target(role)
    if actor is not None:
        found[f"target.{place.actor}.id"] = actor.id
        found[f"target.{place.actor}.domain_id"] = actor.domain_id
    if target is not None and place.target == "project":
        found["target.project.id"] = target.id
        found["target.project.domain_id"] = target.domain_id or None
    elif target is not None:
        found["target.domain.id"] = target.id
    return found


def _check_domain_of_role(tx: Transaction, place: Place, row: Json, role: Row[Any]) -> None:
    target = documents.find_row(tx, projects, row["target_id"])
    domain_id = None if target is None else target.id if target.is_domain else target.domain_id
    if domain_id != role.domain_id:
        raise Forbidden(
            f"Project {row['target_id']} must be in the same domain as the role {role.id} being assigned."
        )


def _where(row: Json) -> sa.ColumnElement[bool]:
    return sa.and_(*(assignments.c[name] == value for name, value in row.items()))


def _absent(row: Json) -> NotFound:
    return NotFound(
        f"Could not find role assignment with role: {row['role_id']}, user or group: {row['actor_id']}, project, "
        f"domain, or system: {row['target_id']}."
    )


def _publisher(request: Request) -> str:
    return f"identity.{request.config.node.name}"


def _payload(row: Json) -> Json:
    return {
        row["actor_type"]: row["actor_id"],
        row["target_type"]: row["target_id"],
        "role": row["role_id"],
        "inherited_to_projects": row["inherited"],
    }


def _bound(handler: Callable[[Request, Place], Any], place: Place) -> Callable[[Request], Any]:
    return lambda request: handler(request, place)


def _routes(place: Place) -> list[Route]:
    end = "/inherited_to_projects" if place.inherited else ""
    one = f"{place.path}/{{role_id}}{end}"
    return [
        Route("GET", f"{place.path}{end}", _bound(list_grants, place), place.rule("list")),
        Route("GET", one, _bound(check_grant, place), place.rule("check"), 204),
        Route("PUT", one, _bound(create_grant, place), place.rule("create"), 204),
        Route("DELETE", one, _bound(revoke_grant, place), place.rule("revoke"), 204),
    ]


PLACES = (
    Place("project", "user"),
    Place("project", "group"),
    Place("domain", "user"),
    Place("domain", "group"),
    Place("system", "user"),
    Place("system", "group"),
    Place("project", "user", inherited=True),
    Place("project", "group", inherited=True),
    Place("domain", "user", inherited=True),
    Place("domain", "group", inherited=True),
)
ROUTES = [route for place in PLACES for route in _routes(place)]
