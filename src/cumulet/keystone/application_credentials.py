"""Application credentials: a secret by which a program acts for a user in one project.

What it lends is part of what the token had that made it, and of what the user has at each moment of its use
(``standing``).  It goes with the user, the project and the user's role there; a new password of the user leaves it
alone, but ends the tokens made with it so far.
"""

import secrets
from collections import defaultdict
from collections.abc import Iterable, Sequence
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
from cumulet.keystone import documents, passwords
from cumulet.keystone.access_rules import RuleBody, ensure_rules, rule_view
from cumulet.keystone.documents import Description, IdText, Name
from cumulet.keystone.model import Role, Scope
from cumulet.keystone.policies import refuse_delegated
from cumulet.keystone.standing import find_standing
from cumulet.keystone.tables import (
    access_rules,
    application_credential_roles,
    application_credential_rules,
    application_credentials,
    roles,
)
from cumulet.keystone.users import get_user

MOST_RULES = 50


class RoleRef(Open):
    id: IdText | UnsetType = UNSET
    name: Name | UnsetType = UNSET


class NewApplicationCredential(Open):
    name: Name
    description: Description = None
    secret: Annotated[str, Meta(min_length=1, max_length=255)] | None = None
    expires_at: str | None = None
    roles: list[RoleRef] | None = None
    unrestricted: bool | None = False
    access_rules: Annotated[list[RuleBody], Meta(max_length=MOST_RULES)] | None = None


class NewApplicationCredentialBody(Open):
    application_credential: NewApplicationCredential


LISTING = Listing(
    application_credentials.c.id, {"name": application_credentials.c.name}, default_sort=(("name", "asc"),)
)


def list_application_credentials(request: Request) -> Json:
    with request.db.read() as tx:
        user = get_user(tx, request, "identity:list_application_credentials")
        mine = sa.select(application_credentials).where(application_credentials.c.user_id == user.id)
        page = list_page(tx, mine, request, LISTING)
        return documents.collection(request, "application_credentials", _views(tx, request, page.rows), page)


def show_application_credential(request: Request) -> Json:
    with request.db.read() as tx:
        row = get_application_credential(tx, request, "identity:get_application_credential")
        return {"application_credential": _views(tx, request, [row])[0]}


def create_application_credential(request: Request) -> Json:
    """The secret is shown here and never again."""
    refuse_delegated(request, "application credentials")
    wanted: NewApplicationCredential = request.body.application_credential
    secret = wanted.secret or secrets.token_urlsafe(64)
    row: Json = {
        "id": documents.new_id(),
        "user_id": request.params["user_id"],
        "project_id": request.context.project_id,
        "name": wanted.name.strip(),
        "description": wanted.description,
        "secret_hash": passwords.make_hash(secret, request.config.identity.bcrypt_rounds),
        "unrestricted": bool(wanted.unrestricted),
        "ruled": wanted.access_rules is not None,
        "expires_at": documents.expiry(wanted.expires_at),
        "created_at": clock.now(),
    }
    with request.db.transaction() as tx:
        user = get_user(tx, request, "identity:create_application_credential")
        lent = _lent(tx, request, user, wanted.roles)
        rules = ensure_rules(tx, user.id, wanted.access_rules or ())
        with documents.unique("application_credential", row["name"]):
            tx.write(application_credentials.insert(), row)
        tx.write(
            application_credential_roles.insert(), [{"credential_id": row["id"], "role_id": key} for key in lent]
        )
        if rules:
            tx.write(
                application_credential_rules.insert(),
                [{"credential_id": row["id"], "rule_id": key} for key in rules],
            )
        documents.notify(tx, request, "application_credential.created", row["id"])
        made = documents.find_row(tx, application_credentials, row["id"])
        return {"application_credential": {**_views(tx, request, [made] if made else [])[0], "secret": secret}}


def delete_application_credential(request: Request) -> None:
    """With its tokens: they stand on the row."""
    refuse_delegated(request, "application credentials")
    with request.db.transaction() as tx:
        row = get_application_credential(tx, request, "identity:delete_application_credential")
        tx.write(sa.delete(application_credentials).where(application_credentials.c.id == row.id))
        documents.notify(tx, request, "application_credential.deleted", row.id)


def delete_those_of(tx: Transaction, request: Request, user_id: str, project_id: str) -> None:
    """Those of a user in a project, whose role there was taken away."""
    mine = sa.and_(application_credentials.c.user_id == user_id, application_credentials.c.project_id == project_id)
    for row in tx.all(sa.select(application_credentials.c.id).where(mine)):
        documents.notify(tx, request, "application_credential.deleted", row.id)
    tx.write(sa.delete(application_credentials).where(mine))


def get_application_credential(tx: Transaction, request: Request, rule: str) -> Row[Any]:
    """The one in the URL, of the user in the URL."""
    user = get_user(tx, request, rule)
    key = request.params["application_credential_id"]
    row = documents.find_row(tx, application_credentials, key)
    if row is None or row.user_id != user.id:
        raise documents.missing("Application Credential", key)
    return row


def _lent(tx: Transaction, request: Request, user: Row[Any], wanted: Sequence[RoleRef] | None) -> list[str]:
    """The ids of the roles to lend: those that are wanted, else all that the caller's token has."""
    context = request.context
    if not context.project_id:
        raise Forbidden(
            "You are not authorized to perform the requested action: create an application credential with a token "
            "that is not scoped to a project."
        )
    delegation = context.delegation.id if context.delegation else ""
    scope = Scope("project", context.project_id)
    standing = find_standing(tx, user.id, user.token_revision, scope, application_credential=delegation)
    held = standing.roles if standing else ()
    lent = [_role_id(ref, held) for ref in wanted or ()]
    if not held or None in lent:
        raise BadRequest(
            "Invalid application credential: Cannot create an application credential with unassigned role"
        )
    return list(dict.fromkeys(key for key in lent if key)) or [role.id for role in held]


def _role_id(ref: RoleRef, held: Iterable[Role]) -> str | None:
    if ref.id is UNSET and ref.name is UNSET:
        raise BadRequest("Invalid input: a role is given by its id or its name")
    for role in held:
        if ref.id == role.id or (ref.id is UNSET and ref.name == role.name):
            return role.id
    return None


def _views(tx: Transaction, request: Request, rows: Sequence[Row[Any]]) -> list[Json]:
    ids = [row.id for row in rows]
    lent, ruled = _lent_roles(tx, ids), _rules(tx, ids)
    return [
        {
            "id": row.id,
            "name": row.name,
            "description": row.description,
            "project_id": row.project_id,
            "roles": lent[row.id],
            "unrestricted": row.unrestricted,
            "expires_at": row.expires_at and row.expires_at.removesuffix("Z"),  # upstream's form, and still UTC
            **({"access_rules": ruled[row.id]} if row.ruled else {}),
            "links": {
                "self": documents.link(request, f"users/{row.user_id}/application_credentials/{row.id}"),
            },
        }
        for row in rows
    ]


def _lent_roles(tx: Transaction, ids: Sequence[str]) -> dict[str, list[Json]]:
    found: dict[str, list[Json]] = defaultdict(list)
    statement = (
        sa.select(application_credential_roles.c.credential_id, roles.c.id, roles.c.name, roles.c.domain_id)
        .select_from(application_credential_roles.join(roles, roles.c.id == application_credential_roles.c.role_id))
        .where(application_credential_roles.c.credential_id.in_(ids))
        .order_by(roles.c.name)
    )
    for row in tx.all(statement) if ids else ():
        found[row.credential_id].append({"id": row.id, "name": row.name, "domain_id": row.domain_id or None})
    return found


def _rules(tx: Transaction, ids: Sequence[str]) -> dict[str, list[Json]]:
    found: dict[str, list[Json]] = defaultdict(list)
    statement = (
        sa.select(application_credential_rules.c.credential_id, access_rules)
        .select_from(
            application_credential_rules.join(
                access_rules, access_rules.c.id == application_credential_rules.c.rule_id
            )
        )
        .where(application_credential_rules.c.credential_id.in_(ids))
        .order_by(access_rules.c.created_at, access_rules.c.id)
    )
    for row in tx.all(statement) if ids else ():
        found[row.credential_id].append(rule_view(row))
    return found


_ALL = "/v3/users/{user_id}/application_credentials"
_ONE = f"{_ALL}/{{application_credential_id}}"
ROUTES = [
    Route("GET", _ALL, list_application_credentials, "identity:list_application_credentials"),
    Route(
        "POST", _ALL, create_application_credential, "identity:create_application_credential", 201,
        body=NewApplicationCredentialBody,
    ),
    Route("GET", _ONE, show_application_credential, "identity:get_application_credential"),
    Route("DELETE", _ONE, delete_application_credential, "identity:delete_application_credential", 204),
]  # fmt: skip
