"""Trusts: by one the trustor lets the trustee act with some of the trustor's roles in one project.

A trust lends what the trustor has at each moment of its use (``standing``).  It goes with either user and with the
project; who has a token by a trust cannot make another trust with it, so nothing is lent on.
"""

from collections.abc import Sequence
from typing import Annotated, Any

import sqlalchemy as sa
from msgspec import Meta
from sqlalchemy.engine import Row

from cumulet.core import clock
from cumulet.core.db import Transaction
from cumulet.core.errors import BadRequest, Forbidden
from cumulet.core.http import Json, Request, Route
from cumulet.core.listing import Listing, list_page
from cumulet.core.schema import UNSET, Open, UnsetType
from cumulet.keystone import documents, roles
from cumulet.keystone.documents import IdText, Name
from cumulet.keystone.model import Role, Scope
from cumulet.keystone.policies import refuse_lent
from cumulet.keystone.standing import find_standing
from cumulet.keystone.tables import projects, trust_roles, trusts, users
from cumulet.keystone.tables import roles as roles_table

_RULES = {
    "trustor_user_id": "identity:list_trusts_for_trustor",
    "trustee_user_id": "identity:list_trusts_for_trustee",
}


class RoleRef(Open):
    id: IdText | UnsetType = UNSET
    name: Name | UnsetType = UNSET


class NewTrust(Open):
    """Trusts that may be lent on are refused, as by a keystone with ``allow_redelegation = false``."""

    trustor_user_id: IdText
    trustee_user_id: IdText
    impersonation: bool
    project_id: IdText | None = None
    roles: list[RoleRef] | None = None
    expires_at: str | None = None
    remaining_uses: Annotated[int, Meta(ge=1, le=0x7FFFFFFF)] | None = None
    allow_redelegation: bool | None = None
    redelegation_count: Annotated[int, Meta(ge=0, le=0x7FFFFFFF)] | None = None


class NewTrustBody(Open):
    trust: NewTrust


LISTING = Listing(
    trusts.c.id,
    {"trustor_user_id": trusts.c.trustor_user_id, "trustee_user_id": trusts.c.trustee_user_id},
    default_sort=(("id", "asc"),),
)


def list_trusts(request: Request) -> Json:
    """Those of the trustor or trustee in the query; all of them is for administrators."""
    asked = [name for name in _RULES if request.one(name) is not None]
    for name in asked[:1]:
        request.enforce(_RULES[name], {f"target.trust.{name}": request.one(name)})
    if not asked:
        request.enforce("identity:list_trusts", {})
    refuse_lent(request, "trusts")
    with request.db.read() as tx:
        page = list_page(tx, sa.select(trusts), request, LISTING)
    return documents.collection(request, "trusts", (view(request, row) for row in page.rows), page)


def show_trust(request: Request) -> Json:
    with request.db.read() as tx:
        return {"trust": _full(tx, request, _usable(tx, request, "identity:get_trust"))}


def create_trust(request: Request) -> Json:
    wanted: NewTrust = request.body.trust
    request.enforce("identity:create_trust", {"target.trust.trustor_user_id": wanted.trustor_user_id})
    refuse_lent(request, "trusts")
    if wanted.trustor_user_id != request.context.user_id:
        raise _forbidden("The authenticated user should match the trustor")
    if not wanted.project_id or not wanted.roles:
        raise _forbidden("At least one role should be specified")
    if wanted.allow_redelegation and wanted.redelegation_count != 0:
        raise _forbidden("Redelegation of trusts is not allowed")
    row: Json = {
        "id": documents.new_id(),
        "trustor_user_id": wanted.trustor_user_id,
        "trustee_user_id": wanted.trustee_user_id,
        "project_id": wanted.project_id,
        "impersonation": wanted.impersonation,
        "expires_at": documents.expiry(wanted.expires_at),
        "remaining_uses": wanted.remaining_uses,
        "extra": documents.extras(request, "trust", NewTrust),
        "created_at": clock.now(),
    }
    with request.db.transaction() as tx:
        if documents.find_row(tx, users, wanted.trustee_user_id) is None:
            raise documents.missing("user", wanted.trustee_user_id)
        lent = _lent(tx, wanted.trustor_user_id, wanted.project_id, wanted.roles)
        tx.write(trusts.insert(), row)
        tx.write(trust_roles.insert(), [{"trust_id": row["id"], "role_id": role_id} for role_id in lent])
        documents.notify(tx, request, "OS-TRUST:trust.created", row["id"])
        made = tx.all(sa.select(trusts).where(trusts.c.id == row["id"]))[0]
        return {"trust": _full(tx, request, made)}


def delete_trust(request: Request) -> None:
    """With its tokens: they stand on the row.  One that is used up can still be ended."""
    with request.db.transaction() as tx:
        row = get_trust(tx, request, "identity:delete_trust")
        tx.write(sa.delete(trusts).where(trusts.c.id == row.id))
        documents.notify(tx, request, "OS-TRUST:trust.deleted", row.id)


def list_trust_roles(request: Request) -> Json:
    with request.db.read() as tx:
        row = _usable(tx, request, "identity:list_roles_for_trust")
        return documents.collection(request, "roles", _roles(tx, request, row))


def show_trust_role(request: Request) -> Json:
    with request.db.read() as tx:
        row = _usable(tx, request, "identity:get_role_for_trust")
        for role in _roles(tx, request, row):
            if role["id"] == request.params["role_id"]:
                return {"role": role}
    raise documents.missing("role", request.params["role_id"])


def get_trust(tx: Transaction, request: Request, rule: str) -> Row[Any]:
    """The one in the URL: a 404 if there is none, as upstream, a 403 for who has no part in it."""
    key = request.params["trust_id"]
    row = documents.find_row(tx, trusts, key)
    if row is None:
        raise documents.missing("trust", key)
    names = ("trustor_user_id", "trustee_user_id")
    request.enforce(rule, {f"target.trust.{name}": getattr(row, name) for name in names})
    refuse_lent(request, "trusts")
    return row


def use(tx: Transaction, trust_id: str) -> None:
    """Count one login by the trust; Forbidden if that was one too many."""
    if tx.value(sa.select(trusts.c.remaining_uses).where(trusts.c.id == trust_id)) is None:
        return
    left = sa.and_(trusts.c.id == trust_id, trusts.c.remaining_uses > 0)
    if not tx.write(sa.update(trusts).where(left).values(remaining_uses=trusts.c.remaining_uses - 1)):
        raise Forbidden(f"No remaining uses for trust: {trust_id}.")


def view(request: Request, row: Row[Any]) -> Json:
    return {
        **row.extra,
        "id": row.id,
        "trustor_user_id": row.trustor_user_id,
        "trustee_user_id": row.trustee_user_id,
        "project_id": row.project_id,
        "impersonation": row.impersonation,
        "expires_at": row.expires_at,
        "remaining_uses": row.remaining_uses,
        "redelegation_count": 0,
        "deleted_at": None,
        "links": {"self": documents.link(request, f"OS-TRUST/trusts/{row.id}")},
    }


def _full(tx: Transaction, request: Request, row: Row[Any]) -> Json:
    link = documents.link(request, f"OS-TRUST/trusts/{row.id}/roles")
    return {
        **view(request, row),
        "roles": _roles(tx, request, row),
        "roles_links": {"self": link, "next": None, "previous": None},
    }


def _roles(tx: Transaction, request: Request, row: Row[Any]) -> list[Json]:
    statement = (
        sa.select(roles_table)
        .select_from(trust_roles.join(roles_table, roles_table.c.id == trust_roles.c.role_id))
        .where(trust_roles.c.trust_id == row.id)
        .order_by(roles_table.c.name)
    )
    return [roles.view(request, each) for each in tx.all(statement)]


def _usable(tx: Transaction, request: Request, rule: str) -> Row[Any]:
    row = get_trust(tx, request, rule)
    if row.remaining_uses == 0 or (row.expires_at is not None and row.expires_at <= clock.now()):
        raise documents.missing("trust", row.id)
    return row


def _lent(tx: Transaction, trustor_id: str, project_id: str, wanted: Sequence[RoleRef]) -> list[str]:
    """The ids of the roles to lend, which the trustor must have in the project."""
    if documents.find_row(tx, projects, project_id) is None:
        raise documents.missing("project", project_id)
    trustor = documents.find_row(tx, users, trustor_id)
    scope = Scope("project", project_id)
    standing = find_standing(tx, trustor_id, trustor.token_revision if trustor else 0, scope)
    held = standing.roles if standing else ()
    return list(dict.fromkeys(_role_id(ref, held) for ref in wanted))


def _role_id(ref: RoleRef, held: Sequence[Role]) -> str:
    for role in held:
        if ref.id == role.id or (ref.id is UNSET and ref.name == role.name):
            return role.id
    key = ref.name if isinstance(ref.id, UnsetType) else ref.id
    if isinstance(key, UnsetType):
        raise BadRequest("Invalid input: a role is given by its id or its name")
    raise documents.missing("role", key)


def _forbidden(action: str) -> Forbidden:
    return Forbidden(f"You are not authorized to perform the requested action: {action}.")


_ALL, _ONE = "/v3/OS-TRUST/trusts", "/v3/OS-TRUST/trusts/{trust_id}"
ROUTES = [
    Route("GET", _ALL, list_trusts, "identity:list_trusts_for_trustor"),
    Route("POST", _ALL, create_trust, "identity:create_trust", 201, body=NewTrustBody),
    Route("GET", _ONE, show_trust, "identity:get_trust"),
    Route("DELETE", _ONE, delete_trust, "identity:delete_trust", 204),
    Route("GET", f"{_ONE}/roles", list_trust_roles, "identity:list_roles_for_trust"),
    Route("GET", f"{_ONE}/roles/{{role_id}}", show_trust_role, "identity:get_role_for_trust"),
]
