"""Access rules: the requests that a user's application credentials may be bounded to.

A rule is made with the credential that names it first, and shared by those that name the same afterwards.  Who
enforces them is ``core.access``, in every API.
"""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import sqlalchemy as sa
from msgspec import Meta
from sqlalchemy.engine import Row

from cumulet.core import clock
from cumulet.core.db import Transaction
from cumulet.core.errors import BadRequest, Conflict, Forbidden, NotFound, Retry
from cumulet.core.http import Json, Request, Route
from cumulet.core.listing import Listing, list_page
from cumulet.core.schema import UNSET, Open, UnsetType
from cumulet.keystone import documents
from cumulet.keystone.policies import refuse_delegated
from cumulet.keystone.tables import access_rules, application_credential_rules
from cumulet.keystone.users import get_user

Path = Annotated[str, Meta(max_length=128, pattern=r"^/")]
Method = Literal["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "CONNECT", "TRACE"]


class RuleBody(Open):
    """Either the ``id`` of a rule that is there, or all of the other three."""

    id: documents.IdText | UnsetType = UNSET
    service: documents.Name | UnsetType = UNSET
    method: Method | UnsetType = UNSET
    path: Path | UnsetType = UNSET


LISTING = Listing(
    access_rules.c.id,
    {"service": access_rules.c.service, "method": access_rules.c.method, "path": access_rules.c.path},
    default_sort=(("id", "asc"),),
)


def list_access_rules(request: Request) -> Json:
    with request.db.read() as tx:
        user = get_user(tx, request, "identity:list_access_rules")
        page = list_page(tx, sa.select(access_rules).where(access_rules.c.user_id == user.id), request, LISTING)
    return documents.collection(request, "access_rules", (view(request, row) for row in page.rows), page)


def show_access_rule(request: Request) -> Json:
    with request.db.read() as tx:
        return {"access_rule": view(request, get_access_rule(tx, request, "identity:get_access_rule"))}


def delete_access_rule(request: Request) -> None:
    refuse_delegated(request, "access rules")
    with request.db.transaction() as tx:
        row = get_access_rule(tx, request, "identity:delete_access_rule")
        used = application_credential_rules.c.rule_id == row.id
        if tx.find(sa.select(application_credential_rules).where(used)):
            raise Forbidden(
                f"You are not authorized to perform the requested action: delete access rule {row.id} in use by an "
                "application credential."
            )
        tx.write(sa.delete(access_rules).where(access_rules.c.id == row.id))
        documents.notify(tx, request, "access_rule.deleted", row.id)


def get_access_rule(tx: Transaction, request: Request, policy: str) -> Row[Any]:
    user = get_user(tx, request, policy)
    key = request.params["access_rule_id"]
    row = tx.find(sa.select(access_rules).where(access_rules.c.id == key, access_rules.c.user_id == user.id))
    if row is None:
        raise documents.missing("Access Rule", key)
    return row


def ensure_rules(tx: Transaction, user_id: str, bodies: Sequence[RuleBody]) -> list[str]:
    """The ids of the rules that are described, made where missing."""
    return list(dict.fromkeys(_ensure(tx, user_id, body) for body in bodies))


def _ensure(tx: Transaction, user_id: str, body: RuleBody) -> str:
    mine = access_rules.c.user_id == user_id
    if not isinstance(body.id, UnsetType):
        found = tx.value(sa.select(access_rules.c.id).where(mine, access_rules.c.id == body.id))
        if found is None:
            raise NotFound(f"Could not find Access Rule: {body.id}.")
        return str(found)
    what = {"service": body.service, "method": body.method, "path": body.path}
    missing = [name for name, value in what.items() if value is UNSET]
    if missing:
        raise BadRequest(f"Invalid input: an access rule needs service, method and path; {missing[0]} is missing")
    same = [access_rules.c[name] == value for name, value in what.items()]
    found = tx.value(sa.select(access_rules.c.id).where(mine, *same))
    if found is not None:
        return str(found)
    row = {"id": documents.new_id(), "user_id": user_id, **what, "created_at": clock.now()}
    try:
        tx.write(access_rules.insert(), row)
    except Conflict as error:
        raise Retry("the same access rule was made at the same time") from error
    return str(row["id"])


def view(request: Request, row: Row[Any]) -> Json:
    return {
        **rule_view(row),
        "links": {"self": documents.link(request, f"users/{row.user_id}/access_rules/{row.id}")},
    }


def rule_view(row: Row[Any]) -> Json:
    return {"id": row.id, "service": row.service, "method": row.method, "path": row.path}


_ALL = "/v3/users/{user_id}/access_rules"
ROUTES = [
    Route("GET", _ALL, list_access_rules, "identity:list_access_rules"),
    Route("GET", f"{_ALL}/{{access_rule_id}}", show_access_rule, "identity:get_access_rule"),
    Route("DELETE", f"{_ALL}/{{access_rule_id}}", delete_access_rule, "identity:delete_access_rule", 204),
]
