"""Users, and their passwords.

A new password, or disabling, raises the user's revision in the same statement, which ends all their tokens.
"""

from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Row

from cumulet.core import clock, schema
from cumulet.core.db import Transaction
from cumulet.core.errors import BadRequest, Conflict, Forbidden, Unauthorized
from cumulet.core.http import Json, Request, Route
from cumulet.core.listing import Listing, list_page
from cumulet.core.policy import PUBLIC
from cumulet.core.schema import UNSET, Open, Strict, UnsetType
from cumulet.keystone import documents, passwords
from cumulet.keystone.documents import Description, IdText, Name
from cumulet.keystone.tables import assignments, projects, users

DENIED = "The request you have made requires authentication."


class UserOptions(Strict):
    """Those that are true here.  Passwords neither expire nor lock, so the ``ignore_`` ones are kept as given."""

    ignore_change_password_upon_first_use: bool | UnsetType | None = UNSET
    ignore_lockout_failure_attempts: bool | UnsetType | None = UNSET
    ignore_password_expiry: bool | UnsetType | None = UNSET
    ignore_user_inactivity: bool | UnsetType | None = UNSET
    lock_password: bool | UnsetType | None = UNSET


class NewUser(Open):
    name: Name
    domain_id: IdText | UnsetType = UNSET
    enabled: bool = True
    password: str | None = None
    default_project_id: IdText | None = None
    description: Description | UnsetType = UNSET
    options: UserOptions | UnsetType = UNSET


class NewUserBody(Open):
    user: NewUser


class ChangedUser(Open):
    name: Name | UnsetType = UNSET
    domain_id: str | UnsetType = UNSET
    enabled: bool | UnsetType = UNSET
    password: str | UnsetType | None = UNSET
    default_project_id: IdText | UnsetType | None = UNSET
    description: Description | UnsetType = UNSET
    options: UserOptions | UnsetType = UNSET


class ChangedUserBody(Open):
    user: ChangedUser


class OwnPassword(Open):
    password: str
    original_password: str


class OwnPasswordBody(Open):
    user: OwnPassword


LISTING = Listing(
    users.c.id,
    {"name": users.c.name, "domain_id": users.c.domain_id},
    {
        "enabled": lambda values: users.c.enabled == documents.is_true(values),
        **documents.name_filters(users.c.name),
    },
    default_sort=(("name", "asc"),),
)


def list_users(request: Request) -> Json:
    """All of them, or those of the caller's domain if that is the token's scope."""
    statement = sa.select(users)
    if request.context.domain_id:
        statement = statement.where(users.c.domain_id == request.context.domain_id)
    with request.db.read() as tx:
        page = list_page(tx, statement, request, LISTING)
    return documents.collection(request, "users", (view(request, row) for row in page.rows), page)


def show_user(request: Request) -> Json:
    with request.db.read() as tx:
        return {"user": view(request, get_user(tx, request, "identity:get_user"))}


def create_user(request: Request) -> Json:
    wanted: NewUser = request.body.user
    domain_id = documents.home_domain(request) if isinstance(wanted.domain_id, UnsetType) else wanted.domain_id
    request.enforce("identity:create_user", {"target.user.domain_id": domain_id})
    row: Json = {
        "id": documents.new_id(),
        "domain_id": domain_id,
        "name": wanted.name.strip(),
        "enabled": wanted.enabled,
        "default_project_id": wanted.default_project_id,
        "password_hash": _hash(request, wanted.password),
        "options": documents.changed_options({}, wanted.options),
        "extra": _extra(request, wanted),
        "created_at": clock.now(),
    }
    with request.db.transaction() as tx:
        if not tx.find(sa.select(projects.c.id).where(projects.c.id == domain_id, projects.c.is_domain)):
            raise documents.missing("domain", domain_id)
        with documents.unique("user", row["name"], domain_id):
            tx.write(users.insert(), row)
        documents.notify(tx, request, "user.created", row["id"])
        return {"user": view(request, _row(tx, row["id"]))}


def update_user(request: Request) -> Json:
    wanted: ChangedUser = request.body.user
    password_hash = None if isinstance(wanted.password, UnsetType) else _hash(request, wanted.password)
    with request.db.transaction() as tx:
        row = get_user(tx, request, "identity:update_user", lock=True)
        if wanted.domain_id not in (UNSET, row.domain_id):
            raise BadRequest("Cannot change Domain ID")
        given = schema.given(wanted)
        values: Json = {name: given[name] for name in ("name", "enabled", "default_project_id") if name in given}
        values["options"] = documents.changed_options(row.options, wanted.options)
        values["extra"] = {**row.extra, **_extra(request, wanted)}
        if "password" in given:
            values["password_hash"] = password_hash
        if "password" in given or given.get("enabled") is False:
            values["token_revision"] = users.c.token_revision + 1
        with documents.unique("user", given.get("name", row.name), row.domain_id):
            tx.write(sa.update(users).where(users.c.id == row.id).values(values))
        documents.notify(tx, request, "user.updated", row.id)
        if given.get("enabled") is False:
            documents.notify(tx, request, "user.disabled", row.id)
        return {"user": view(request, _row(tx, row.id))}


def delete_user(request: Request) -> None:
    with request.db.transaction() as tx:
        row = get_user(tx, request, "identity:delete_user")
        tx.write(sa.delete(assignments).where(assignments.c.actor_type == "user", assignments.c.actor_id == row.id))
        tx.write(sa.delete(users).where(users.c.id == row.id))
        documents.notify(tx, request, "user.deleted", row.id)


def change_password(request: Request) -> None:
    """With the old password as the proof, so without a token.  Two at once: one of them is told to repeat."""
    wanted: OwnPassword = request.body.user
    user_id, rounds = request.params["user_id"], request.config.identity.bcrypt_rounds
    domains = projects.alias()
    with request.db.read() as tx:
        row = tx.find(
            sa.select(users, domains.c.enabled.label("domain_enabled"))
            .select_from(users.join(domains, domains.c.id == users.c.domain_id))
            .where(users.c.id == user_id)
        )
    stored = row.password_hash if row and row.enabled and row.domain_enabled else None
    if not passwords.matches(wanted.original_password, stored, rounds) or row is None:
        raise Unauthorized(DENIED)
    if row.options.get("lock_password"):
        raise Forbidden(
            "You cannot change your password at this time due to password policy disallowing password changes. "
            "Please contact your administrator to reset your password."
        )
    values = {
        "password_hash": passwords.make_hash(wanted.password, rounds),
        "token_revision": users.c.token_revision + 1,
    }
    same = sa.and_(users.c.id == user_id, users.c.token_revision == row.token_revision, users.c.enabled)
    with request.db.transaction() as tx:
        if not tx.write(sa.update(users).where(same).values(values)):
            raise Conflict("The user was changed at the same time; try again.")
        documents.notify(tx, request, "user.updated", user_id)


def get_user(tx: Transaction, request: Request, rule: str, *, lock: bool = False) -> Row[Any]:
    """The user in the URL; who may not see them is told the same as of one who does not exist."""
    user_id = request.params["user_id"]
    row = documents.find_row(tx, users, user_id, lock=lock)
    request.enforce(rule, user_target(row))
    if row is None:
        raise documents.missing("user", user_id)
    return row


def user_target(row: Row[Any] | None) -> Json:
    if row is None:
        return {}
    return {"user_id": row.id, "target.user.id": row.id, "target.user.domain_id": row.domain_id}


def view(request: Request, row: Row[Any]) -> Json:
    default = {"default_project_id": row.default_project_id} if row.default_project_id else {}
    return {
        **row.extra,
        **default,
        "id": row.id,
        "name": row.name,
        "domain_id": row.domain_id,
        "enabled": row.enabled,
        "password_expires_at": None,
        "options": row.options,
        "links": {"self": documents.link(request, f"users/{row.id}")},
    }


def _row(tx: Transaction, user_id: str) -> Row[Any]:
    return tx.all(sa.select(users).where(users.c.id == user_id))[0]


def _hash(request: Request, password: str | None) -> str | None:
    """Made before the transaction begins: it takes a quarter of a second."""
    return None if password is None else passwords.make_hash(password, request.config.identity.bcrypt_rounds)


def _extra(request: Request, wanted: NewUser | ChangedUser) -> Json:
    extra = documents.extras(request, "user", type(wanted))
    extra.pop("password_expires_at", None)
    if wanted.description is not UNSET:
        extra["description"] = wanted.description
    return extra


ROUTES = [
    Route("GET", "/v3/users", list_users, "identity:list_users"),
    Route("POST", "/v3/users", create_user, "identity:create_user", 201, body=NewUserBody),
    Route("GET", "/v3/users/{user_id}", show_user, "identity:get_user"),
    Route("PATCH", "/v3/users/{user_id}", update_user, "identity:update_user", body=ChangedUserBody),
    Route("DELETE", "/v3/users/{user_id}", delete_user, "identity:delete_user", 204),
    Route("POST", "/v3/users/{user_id}/password", change_password, PUBLIC, 204, body=OwnPasswordBody, also=(401,)),
]
