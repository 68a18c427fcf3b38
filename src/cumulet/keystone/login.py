"""Who is logging in: the proofs that a login may give, each method on its own.

A login reads the user, spends one bcrypt outside of any transaction, and reads again (``tokens``) what the user may
be; a password changed in between makes a token that is dead from birth, because it carries the older revision.
Whatever is wrong with a login, the answer is the same 401.
"""

from typing import Any, NamedTuple

import sqlalchemy as sa

from cumulet.core import clock
from cumulet.core.db import Transaction
from cumulet.core.errors import BadRequest, Forbidden, Unauthorized
from cumulet.core.http import Request
from cumulet.core.schema import UNSET, Open, UnsetType
from cumulet.keystone import passwords, token_format
from cumulet.keystone.keys import Keyrings
from cumulet.keystone.model import Scope
from cumulet.keystone.standing import find_standing_of
from cumulet.keystone.tables import application_credentials, projects, users

DENIED = "The request you have made requires authentication."


class DomainRef(Open):
    id: str | UnsetType = UNSET
    name: str | UnsetType = UNSET


class Owner(Open):
    id: str | UnsetType = UNSET
    name: str | UnsetType = UNSET
    domain: DomainRef | UnsetType = UNSET


class UserRef(Owner, kw_only=True):
    password: str


class PasswordMethod(Open):
    user: UserRef


class TokenMethod(Open):
    id: str


class ApplicationCredentialMethod(Open):
    """By ``id``, or by ``name`` and ``user``.  Whose it is, its row says; a ``user`` who is another is refused."""

    secret: str
    id: str | UnsetType = UNSET
    name: str | UnsetType = UNSET
    user: Owner | UnsetType = UNSET


class IdentityBody(Open):
    methods: list[str]
    password: PasswordMethod | UnsetType = UNSET
    token: TokenMethod | UnsetType = UNSET
    application_credential: ApplicationCredentialMethod | UnsetType = UNSET


class Proven(NamedTuple):
    """Whom a login has proven to be, and what the new token takes over from the one it is made from."""

    user_id: str
    revision: int
    default_project_id: str
    methods: frozenset[str]
    audit_ids: tuple[str, ...] = ()
    expires_at: int = 0  # when the new token must end; 0: as late as any
    application_credential: str = ""
    scope: Scope | None = None  # the only one that the new token may have


def prove(request: Request, identity: IdentityBody) -> Proven:
    """Every method that is named must prove the same user; whatever bounds one of them bounds the token."""
    found = [_prove_one(request, identity, method) for method in dict.fromkeys(identity.methods)]
    if len({proven.user_id for proven in found}) != 1:
        raise Unauthorized(DENIED)
    if len({proven.application_credential for proven in found if proven.application_credential}) > 1:
        raise Unauthorized(DENIED)
    parent = next((proven for proven in found if proven.audit_ids), found[0])
    lender = next((proven for proven in found if proven.application_credential), parent)
    return parent._replace(
        methods=frozenset().union(*(proven.methods for proven in found)),
        expires_at=min((proven.expires_at for proven in found if proven.expires_at), default=0),
        application_credential=lender.application_credential,
        scope=lender.scope,
    )


def _prove_one(request: Request, identity: IdentityBody, method: str) -> Proven:
    if method == "password":
        if isinstance(identity.password, UnsetType):
            raise expected("password", "identity")
        return _prove_password(request, identity.password.user)
    if method == "token":
        if isinstance(identity.token, UnsetType):
            raise expected("token", "identity")
        return _prove_token(request, identity.token.id)
    if method == "application_credential":
        if isinstance(identity.application_credential, UnsetType):
            raise expected("application_credential", "identity")
        return _prove_application_credential(request, identity.application_credential)
    raise Unauthorized("Attempted to authenticate with an unsupported method.")


def _prove_password(request: Request, who: UserRef) -> Proven:
    with request.db.read() as tx:
        row = _find_user(tx, who)
    stored = row.password_hash if row and row.enabled and row.domain_enabled else None
    if not passwords.matches(who.password, stored, request.config.identity.bcrypt_rounds) or row is None:
        raise Unauthorized(DENIED)
    return Proven(row.id, row.token_revision, row.default_project_id or "", frozenset({"password"}))


def _find_user(tx: Transaction, who: Owner) -> sa.Row[Any] | None:
    domains = projects.alias()
    statement = sa.select(users, domains.c.enabled.label("domain_enabled")).select_from(
        users.join(domains, domains.c.id == users.c.domain_id)
    )
    if who.id is not UNSET:
        return tx.find(statement.where(users.c.id == who.id))
    if who.name is UNSET:
        raise expected("id or name", "user")
    return tx.find(statement.where(users.c.name == who.name, *in_domain(who.domain, domains, "user")))


def _prove_token(request: Request, text: str) -> Proven:
    """The token must be alive in its own scope to be made into another."""
    rings: Keyrings = request.app.extras
    payload = token_format.unseal(rings.tokens, text)
    if payload is None:
        raise Unauthorized(DENIED)
    if payload.trust:
        raise Forbidden(
            "You are not authorized to perform the requested action: Using trust-scoped token to create another "
            "token. Create a new trust-scoped token instead."
        )
    with request.db.read() as tx:
        if find_standing_of(tx, payload) is None:
            raise Unauthorized(DENIED)
        default = tx.value(sa.select(users.c.default_project_id).where(users.c.id == payload.user_id))
    return Proven(
        payload.user_id,
        payload.revision,
        default or "",
        frozenset({"token", *payload.methods}),
        payload.audit_ids,
        payload.expires_at,
        payload.application_credential,
        payload.scope if payload.application_credential else None,
    )


def _prove_application_credential(request: Request, given: ApplicationCredentialMethod) -> Proven:
    rounds = request.config.identity.bcrypt_rounds
    with request.db.read() as tx:
        owner = None if isinstance(given.user, UnsetType) else _find_user(tx, given.user)
        row = _find_application_credential(tx, given, owner)
    usable = row is not None and (owner is None or owner.id == row.user_id) and not _is_over(row)
    stored = row.secret_hash if usable and row is not None else None
    if not passwords.matches(given.secret, stored, rounds) or row is None:
        raise Unauthorized(DENIED)
    return Proven(
        row.user_id,
        row.token_revision,
        "",
        frozenset({"application_credential"}),
        expires_at=int(clock.parse(row.expires_at).timestamp()) if row.expires_at else 0,
        application_credential=row.id,
        scope=Scope("project", row.project_id),
    )


def _find_application_credential(
    tx: Transaction, given: ApplicationCredentialMethod, owner: sa.Row[Any] | None
) -> sa.Row[Any] | None:
    """With the owner's token revision.  Nothing for an owner who was named and does not exist."""
    if given.id is UNSET and (given.name is UNSET or given.user is UNSET):
        raise expected("id, or name and user,", "application_credential")
    if owner is None and given.user is not UNSET:
        return None
    statement = sa.select(application_credentials, users.c.token_revision).select_from(
        application_credentials.join(users, users.c.id == application_credentials.c.user_id)
    )
    if given.id is not UNSET:
        return tx.find(statement.where(application_credentials.c.id == given.id))
    assert owner is not None
    mine = application_credentials.c.user_id == owner.id
    return tx.find(statement.where(mine, application_credentials.c.name == given.name))


def _is_over(row: sa.Row[Any]) -> bool:
    return row.expires_at is not None and row.expires_at <= clock.now()


def in_domain(domain: DomainRef | UnsetType, table: sa.FromClause, what: str) -> list[sa.ColumnElement[bool]]:
    if not isinstance(domain, UnsetType):
        if domain.id is not UNSET:
            return [table.c.id == domain.id]
        if domain.name is not UNSET:
            return [table.c.name == domain.name, table.c.is_domain]
    raise expected("domain", what)


def expected(what: str, where: str) -> BadRequest:
    return BadRequest(
        f"Expecting to find {what} in {where}. The server could not comply with the request since it is either "
        "malformed or otherwise incorrect. The client is assumed to be in error."
    )
