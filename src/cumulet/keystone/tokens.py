"""Tokens: log in, take another scope, show, check, give back.

Who logs in is ``login``'s question; here it is what they may be in the scope that they ask for.
"""

import time
from datetime import UTC, datetime
from typing import Any, Literal

import sqlalchemy as sa

from cumulet.core import clock
from cumulet.core.context import AccessRule, Delegation
from cumulet.core.db import Transaction
from cumulet.core.errors import BadRequest, Conflict, Forbidden, NotFound, Unauthorized
from cumulet.core.http import Json, Reply, Request, Route
from cumulet.core.policy import PUBLIC
from cumulet.core.schema import UNSET, Open, Strict, UnsetType, encode
from cumulet.core.stamps import Memory
from cumulet.keystone import token_format, trusts
from cumulet.keystone.catalog import list_catalog
from cumulet.keystone.keys import Keyring, Keyrings
from cumulet.keystone.login import DENIED, DomainRef, IdentityBody, Proven, expected, in_domain, prove
from cumulet.keystone.model import Payload, Scope, Standing, Trust
from cumulet.keystone.standing import find_standing, find_standing_of, find_trusted
from cumulet.keystone.tables import STAMP, projects, revocations

LONGEST_LOGIN = 64 * 1024
MOST_RESCOPES = 32
_shown: Memory[bytes] = Memory(STAMP)  # by what is sealed in a token, and whether with the catalogue


class ProjectRef(Open):
    id: str | UnsetType = UNSET
    name: str | UnsetType = UNSET
    domain: DomainRef | UnsetType = UNSET


class SystemRef(Strict):
    all: Literal[True]


class TrustRef(Open):
    id: str


class ScopeBody(Strict, rename={"trust": "OS-TRUST:trust"}):
    """Unknown keys are refused: a scope that we cannot give must not become another one."""

    project: ProjectRef | UnsetType = UNSET
    domain: DomainRef | UnsetType = UNSET
    system: SystemRef | UnsetType = UNSET
    unscoped: dict[str, Any] | UnsetType = UNSET
    trust: TrustRef | UnsetType = UNSET


class AuthBody(Open):
    identity: IdentityBody
    scope: ScopeBody | Literal["unscoped"] | UnsetType = UNSET


class LoginBody(Open):
    auth: AuthBody


def create_token(request: Request) -> Reply:
    auth: AuthBody = request.body.auth
    proven = prove(request, auth.identity)
    now = int(time.time())
    audit_ids = (token_format.new_audit_id(), *proven.audit_ids)
    if len(audit_ids) > MOST_RESCOPES:
        raise Unauthorized("This token was made from too many others; log in again.")
    with request.db.read() as tx:
        standing = _choose_standing(tx, proven, auth.scope)
        payload = Payload(
            user_id=standing.user_id,
            scope=standing.scope,
            methods=tuple(sorted(proven.methods)),
            issued_at=now,
            expires_at=_end(request, proven, standing, now),
            audit_ids=audit_ids,
            revision=standing.revision,
            application_credential=proven.application_credential,
            trust=standing.trust.id if standing.trust else "",
        )
        document = view(tx, payload, standing, request.one("nocatalog") is None)
    if standing.trust:
        with request.db.transaction() as tx:
            trusts.use(tx, standing.trust.id)
    return _reply(document, token_format.seal(_keyring(request), payload), 201)


def _end(request: Request, proven: Proven, standing: Standing, now: int) -> int:
    """A token made from another one ends with it, one from an application credential or a trust not after it."""
    latest = now + request.config.identity.token_seconds
    end = proven.expires_at if proven.audit_ids else min(proven.expires_at or latest, latest)
    if standing.trust and standing.trust.expires_at:
        return min(end, int(clock.parse(standing.trust.expires_at).timestamp()))
    return end


def show_token(request: Request) -> Reply:
    text, payload = _subject(request, "identity:validate_token")
    with_catalog = request.one("nocatalog") is None
    with request.db.read() as tx:
        document = _shown.recall(tx, (payload, with_catalog), lambda: _encoded(tx, payload, with_catalog))
    if document is None:
        raise NotFound("Could not find token.")
    return _reply(document, text, 200)


def _encoded(tx: Transaction, payload: Payload, with_catalog: bool) -> bytes | None:
    standing = find_standing_of(tx, payload)
    return encode(view(tx, payload, standing, with_catalog)) if standing else None


def check_token(request: Request) -> Reply:
    _living(request, "identity:check_token")
    return Reply(None, 200)


def revoke_token(request: Request) -> None:
    payload = _living(request, "identity:revoke_token")
    with request.db.transaction() as tx:
        revoke(tx, payload)


def revoke(tx: Transaction, payload: Payload) -> None:
    """Kill the token and all that were made from it.  Killing it twice is the same."""
    row = {"audit_id": payload.audit_ids[0], "expires_at": payload.expires_at}
    if not tx.find(sa.select(revocations).where(revocations.c.audit_id == row["audit_id"])):
        try:
            tx.write(revocations.insert(), row)
        except Conflict:
            return


def view(tx: Transaction, payload: Payload, standing: Standing, with_catalog: bool) -> Json:
    token: Json = {
        "methods": list(payload.methods),
        "user": {
            "domain": {"id": standing.user_domain_id, "name": standing.user_domain_name},
            "id": standing.user_id,
            "name": standing.user_name,
            "password_expires_at": None,
        },
        "audit_ids": list(dict.fromkeys((payload.audit_ids[0], payload.audit_ids[-1]))),
        "expires_at": _time(payload.expires_at),
        "issued_at": _time(payload.issued_at),
    }
    scope = standing.scope
    if scope.kind == "project":
        domain = {"id": standing.scope_domain_id, "name": standing.scope_domain_name}
        token["project"] = {"domain": domain, "id": scope.id, "name": standing.scope_name}
        token["is_domain"] = False
    elif scope.kind == "domain":
        token["domain"] = {"id": scope.id, "name": standing.scope_name}
    elif scope.kind == "system":
        token["system"] = {"all": True}
    if scope.kind != "unscoped":
        token["roles"] = [{"id": role.id, "name": role.name} for role in standing.roles]
        if with_catalog:
            token["catalog"] = list_catalog(tx, standing)
    if standing.trust:
        token["OS-TRUST:trust"] = _trust(standing.trust)
    elif standing.delegation:
        token["application_credential"] = _delegation(standing.delegation)
    return {"token": token}


def _delegation(delegation: Delegation) -> Json:
    rules = {} if delegation.rules is None else {"access_rules": [_rule(rule) for rule in delegation.rules]}
    return {"id": delegation.id, "name": delegation.name, "restricted": not delegation.unrestricted, **rules}


def _trust(trust: Trust) -> Json:
    return {
        "id": trust.id,
        "impersonation": trust.impersonation,
        "trustor_user": {"id": trust.trustor_user_id},
        "trustee_user": {"id": trust.trustee_user_id},
    }


def _rule(rule: AccessRule) -> Json:
    return {"service": rule.service, "method": rule.method, "path": rule.path}


def _choose_standing(
    tx: Transaction, proven: Proven, body: ScopeBody | Literal["unscoped"] | UnsetType
) -> Standing:
    """In the scope that is asked for; else in the user's default project if they may be there; else in none."""
    if isinstance(body, ScopeBody) and not isinstance(body.trust, UnsetType):
        return _stand_by_trust(tx, proven, body)
    scope = _find_scope(tx, body)
    if proven.scope is not None:
        if scope not in (None, proven.scope):
            raise Unauthorized("Application credentials cannot request a scope.")
        standing = _stand(tx, proven, proven.scope)
    elif scope is None:
        default = Scope("project", proven.default_project_id)
        standing = _stand(tx, proven, default) if default.id else None
        standing = standing or _stand(tx, proven, Scope())
    else:
        standing = _stand(tx, proven, scope)
    if standing is None:
        raise Unauthorized(DENIED)
    return standing


def _stand(tx: Transaction, proven: Proven, scope: Scope) -> Standing | None:
    return find_standing(
        tx, proven.user_id, proven.revision, scope, proven.audit_ids, proven.application_credential
    )


def _stand_by_trust(tx: Transaction, proven: Proven, body: ScopeBody) -> Standing:
    """For the trustee of the trust in ``body``; one answer for everybody else and for any other trust."""
    assert not isinstance(body.trust, UnsetType)
    if _named(body) != ["trust"] or proven.scope is not None:
        raise BadRequest("A trust cannot be combined with another scope.")
    standing = find_trusted(tx, body.trust.id, proven.audit_ids)
    trustee = _stand(tx, proven, Scope())
    if not standing or not standing.trust or not trustee or standing.trust.trustee_user_id != proven.user_id:
        raise Forbidden("User is not a trustee.")
    return standing


def _named(body: ScopeBody) -> list[str]:
    return [name for name in body.__struct_fields__ if getattr(body, name) is not UNSET]


def _find_scope(tx: Transaction, body: ScopeBody | Literal["unscoped"] | UnsetType) -> Scope | None:
    """The scope that ``body`` names, None if it names none.  What does not exist is an id nobody has a role on."""
    if isinstance(body, UnsetType):
        return None
    if isinstance(body, str):
        return Scope()
    given = _named(body)
    if len(given) != 1:
        raise BadRequest("Expecting to find one of project, domain, system or unscoped in scope.")
    if not isinstance(body.project, UnsetType):
        return Scope("project", _find_project_id(tx, body.project))
    if not isinstance(body.domain, UnsetType):
        return Scope("domain", _find_domain_id(tx, body.domain))
    return Scope() if given == ["unscoped"] else Scope("system")


def _find_project_id(tx: Transaction, project: ProjectRef) -> str:
    if not isinstance(project.id, UnsetType):
        return project.id
    if project.name is UNSET:
        raise expected("id or name", "project")
    domains = projects.alias()
    statement = (
        sa.select(projects.c.id)
        .select_from(projects.join(domains, domains.c.id == projects.c.domain_id))
        .where(projects.c.name == project.name, *in_domain(project.domain, domains, "project"))
    )
    return tx.value(statement) or ""


def _find_domain_id(tx: Transaction, domain: DomainRef) -> str:
    domains = projects.alias()
    return tx.value(sa.select(domains.c.id).where(*in_domain(domain, domains, "scope"))) or ""


def _subject(request: Request, rule: str) -> tuple[str, Payload]:
    """The token in X-Subject-Token, if we made it and the caller may see it; it may have lost its ground."""
    text = request.headers.get("x-subject-token", "")
    payload = token_format.unseal(_keyring(request), text) if text else None
    request.enforce(rule, {"target.token.user_id": payload.user_id if payload else None})
    if payload is None:
        raise NotFound("Could not find token." if text else "No token in the request")
    return text, payload


def _living(request: Request, rule: str) -> Payload:
    _, payload = _subject(request, rule)
    with request.db.read() as tx:
        if find_standing_of(tx, payload) is None:
            raise NotFound("Could not find token.")
    return payload


def _reply(document: Json | bytes, text: str, status: int) -> Reply:
    return Reply(document, status, {"X-Subject-Token": text, "Vary": "X-Auth-Token"})


def _keyring(request: Request) -> Keyring:
    rings: Keyrings = request.app.extras
    return rings.tokens


def _time(seconds: int) -> str:
    return clock.text(datetime.fromtimestamp(seconds, UTC))


ROUTES = [
    Route("POST", "/v3/auth/tokens", create_token, PUBLIC, 201, LoginBody, also=(401,), longest_body=LONGEST_LOGIN),
    Route("GET", "/v3/auth/tokens", show_token, "identity:validate_token", also=(404,)),
    Route("HEAD", "/v3/auth/tokens", check_token, "identity:check_token", also=(404,)),
    Route("DELETE", "/v3/auth/tokens", revoke_token, "identity:revoke_token", 204),
]
