"""What a token stands on, looked up in one query.

The user is enabled and so is their domain; their password is the one they had; the token's scope exists and is
enabled with its domain; neither the token nor one it was made from was given back; and the roles are those of
now, with what groups, parents and role inferences add.  A token from an application credential has of these only
what the credential lends, while it is there and in its time.  A token by a trust stands on two users: it has what
the trustor lends and has, while both may log in.  A token dies with the commit that takes away its ground, and a
new role counts from its commit: what is remembered of a token is forgotten with any change of keystone's tables
(``core.stamps``).  Time needs no look: a token ends no later than the credential or trust that it stands on.
"""

from functools import cache
from typing import Any

import sqlalchemy as sa
from msgspec.structs import replace
from sqlalchemy.sql.elements import ColumnElement
from sqlalchemy.sql.expression import CTE

from cumulet.core import clock
from cumulet.core.context import AccessRule, Delegation
from cumulet.core.db import Transaction
from cumulet.keystone.model import SYSTEM, Payload, Role, Scope, ScopeKind, Standing, Trust
from cumulet.keystone.tables import (
    access_rules,
    application_credential_roles,
    application_credential_rules,
    application_credentials,
    assignments,
    group_members,
    implied_roles,
    projects,
    revocations,
    roles,
    trust_roles,
    trusts,
    users,
)

USER: Any = sa.bindparam("user")
SCOPE: Any = sa.bindparam("scope")
_home = projects.alias("home")  # the user's domain
_project = projects.alias("project")
_domain = projects.alias("domain")
_who = users.alias("who")
_place = projects.alias("place")
_credential = application_credentials.alias("credential")
_RULES = (
    sa.select(access_rules)
    .select_from(
        access_rules.join(application_credential_rules, application_credential_rules.c.rule_id == access_rules.c.id)
    )
    .where(application_credential_rules.c.credential_id == sa.bindparam("credential"))
)
_trustor = users.alias("trustor")
_trustee = users.alias("trustee")
_TRUST = (
    sa.select(
        trusts,
        _trustor.c.token_revision.label("trustor_revision"),
        _trustee.c.token_revision.label("trustee_revision"),
    )
    .select_from(
        trusts.join(_trustor, _trustor.c.id == trusts.c.trustor_user_id).join(
            _trustee, _trustee.c.id == trusts.c.trustee_user_id
        )
    )
    .where(
        trusts.c.id == sa.bindparam("trust"),
        sa.or_(trusts.c.expires_at.is_(None), trusts.c.expires_at > sa.bindparam("now")),
    )
)
_TRUST_ROLES = sa.select(trust_roles.c.role_id).where(trust_roles.c.trust_id == sa.bindparam("trust"))


def find_standing_of(tx: Transaction, payload: Payload) -> Standing | None:
    """What the holder of a token may be now; None if the token is dead."""
    if payload.trust:
        standing = find_trusted(tx, payload.trust, payload.audit_ids)
        return standing if standing and standing.revision == payload.revision else None
    return find_standing(
        tx, payload.user_id, payload.revision, payload.scope, payload.audit_ids, payload.application_credential
    )


def find_standing(
    tx: Transaction,
    user_id: str,
    revision: int,
    scope: Scope,
    audit_ids: tuple[str, ...] = (),
    application_credential: str = "",
) -> Standing | None:
    """What the user may be in ``scope`` now; None if they may not be there, or a token of this kind is dead.

    An application credential is good for its own user and project, so for no other scope at all.
    """
    values: dict[str, Any] = {"user": user_id, "revision": revision}
    if scope.kind in ("project", "domain"):
        values["scope"] = scope.id
    if application_credential:
        if scope.kind != "project":
            return None
        values |= {"credential": application_credential, "now": clock.now()}
    values.update((f"audit_{number}", audit_id) for number, audit_id in enumerate(audit_ids))
    rows = tx.all(_statement(scope.kind, len(audit_ids), bool(application_credential)), values)
    if not rows:
        return None
    row = rows[0]
    return Standing(
        user_id,
        row.user_name,
        row.user_domain_id,
        row.user_domain_name,
        revision,
        scope,
        row.scope_name,
        row.scope_domain_id,
        row.scope_domain_name,
        tuple(Role(each.role_id, each.role_name) for each in rows) if scope.kind != "unscoped" else (),
        _delegation(tx, row) if application_credential else None,
    )


def _delegation(tx: Transaction, row: sa.Row[Any]) -> Delegation:
    rules = None
    if row.credential_ruled:
        found = tx.all(_RULES, {"credential": row.credential_id})
        rules = tuple(AccessRule(each.service, each.method, each.path) for each in found)
    return Delegation(row.credential_id, row.credential_name, row.credential_unrestricted, rules)


def find_trusted(tx: Transaction, trust_id: str, audit_ids: tuple[str, ...] = ()) -> Standing | None:
    """What the trustee may be by this trust now; None unless the trustor has every role that the trust names."""
    row = tx.find(_TRUST, {"trust": trust_id, "now": clock.now()})
    if row is None:
        return None
    scope = Scope("project", row.project_id)
    trustor = find_standing(tx, row.trustor_user_id, row.trustor_revision, scope, audit_ids)
    trustee = find_standing(tx, row.trustee_user_id, row.trustee_revision, Scope())
    named = {each.role_id for each in tx.all(_TRUST_ROLES, {"trust": trust_id})}
    if trustor is None or trustee is None or not named or not named <= {role.id for role in trustor.roles}:
        return None
    lent = {each.role_id for each in tx.all(_TRUST_LENDS, {"trust": trust_id})}
    who = trustor if row.impersonation else trustee
    return replace(
        trustor,
        user_id=who.user_id,
        user_name=who.user_name,
        user_domain_id=who.user_domain_id,
        user_domain_name=who.user_domain_name,
        revision=row.trustor_revision + row.trustee_revision,
        roles=tuple(role for role in trustor.roles if role.id in lent),
        delegation=Delegation(row.id, method="trust"),
        trust=Trust(row.id, row.trustor_user_id, row.trustee_user_id, row.impersonation, row.expires_at),
    )


def held_by(user: Any) -> ColumnElement[bool]:
    """Assignments of the user and of the groups they are in."""
    member = sa.select(group_members.c.group_id).where(group_members.c.user_id == user)
    return sa.or_(
        sa.and_(assignments.c.actor_type == "user", assignments.c.actor_id == user),
        sa.and_(assignments.c.actor_type == "group", assignments.c.actor_id.in_(member)),
    )


def _held_roles(kind: ScopeKind) -> CTE:
    """Of the user, in the scope: the roles assigned there, and all roles that those imply."""
    columns: list[ColumnElement[Any]] = [assignments.c.role_id, _who.c.id.label("user_id")]
    where = [_who.c.id == USER, held_by(_who.c.id), _assigned(kind)]
    if kind != "system":
        columns.append(_place.c.id.label("scope_id"))
        where.append(_place.c.id == SCOPE)
    held = sa.select(*columns).where(*where).cte("held", recursive=True)
    implied = [implied_roles.c.implied_role_id, *list(held.c)[1:]]
    return held.union(sa.select(*implied).where(implied_roles.c.prior_role_id == held.c.role_id))


def _assigned(kind: ScopeKind) -> ColumnElement[bool]:
    here = sa.and_(
        assignments.c.target_type == kind,
        assignments.c.target_id == (SYSTEM if kind == "system" else _place.c.id),
        sa.not_(assignments.c.inherited),
    )
    return sa.or_(here, _inherited()) if kind == "project" else here


def _inherited() -> ColumnElement[bool]:
    """Assigned below one of the project's parents, its domain the last of them."""
    line = sa.select(projects.c.parent_id.label("id")).where(projects.c.id == SCOPE).cte("line", recursive=True)
    line = line.union(sa.select(projects.c.parent_id).where(projects.c.id == line.c.id))
    parents = sa.select(line.c.id).where(line.c.id.is_not(None))
    return sa.and_(assignments.c.inherited, assignments.c.target_id.in_(parents))


def _lent() -> ColumnElement[bool]:
    """The role is one that the application credential names, or is implied by one of those."""
    named = sa.select(application_credential_roles.c.role_id).where(
        application_credential_roles.c.credential_id == sa.bindparam("credential")
    )
    return roles.c.id.in_(_with_implied(named))


def _with_implied(named: sa.Select[Any]) -> sa.Select[Any]:
    lent = named.cte("lent", recursive=True)
    lent = lent.union(
        sa.select(implied_roles.c.implied_role_id).where(implied_roles.c.prior_role_id == lent.c.role_id)
    )
    return sa.select(lent.c.role_id)


_TRUST_LENDS = _with_implied(_TRUST_ROLES)


def _delegated(statement: sa.Select[Any]) -> sa.Select[Any]:
    """``statement`` on the project of an application credential, with no more than that lends."""
    return (
        statement.add_columns(
            _credential.c.id.label("credential_id"),
            _credential.c.name.label("credential_name"),
            _credential.c.unrestricted.label("credential_unrestricted"),
            _credential.c.ruled.label("credential_ruled"),
        )
        .join(_credential, sa.and_(_credential.c.user_id == users.c.id, _credential.c.project_id == _project.c.id))
        .where(
            _credential.c.id == sa.bindparam("credential"),
            sa.or_(_credential.c.expires_at.is_(None), _credential.c.expires_at > sa.bindparam("now")),
            _lent(),
        )
    )


@cache
def _statement(kind: ScopeKind, audit_count: int, delegated: bool) -> sa.Select[Any]:
    """Built once for each kind of scope and number of audit ids; of each there are few."""
    empty = sa.literal("")
    scope: tuple[ColumnElement[Any], ...] = (empty, empty, empty)
    ground: Any = users.join(_home, _home.c.id == users.c.domain_id)
    if kind != "unscoped":
        held = _held_roles(kind)
        ground = ground.join(held, held.c.user_id == users.c.id).join(
            roles, sa.and_(roles.c.id == held.c.role_id, roles.c.domain_id == "")
        )
    if kind == "project":
        scope = (_project.c.name, _project.c.domain_id, _domain.c.name)
        ground = ground.join(
            _project, sa.and_(_project.c.id == held.c.scope_id, _project.c.enabled, sa.not_(_project.c.is_domain))
        ).join(_domain, sa.and_(_domain.c.id == _project.c.domain_id, _domain.c.enabled))
    elif kind == "domain":
        scope = (_domain.c.name, empty, empty)
        ground = ground.join(
            _domain, sa.and_(_domain.c.id == held.c.scope_id, _domain.c.enabled, _domain.c.is_domain)
        )
    columns: list[ColumnElement[Any]] = [
        users.c.name.label("user_name"),
        users.c.domain_id.label("user_domain_id"),
        _home.c.name.label("user_domain_name"),
        scope[0].label("scope_name"),
        scope[1].label("scope_domain_id"),
        scope[2].label("scope_domain_name"),
    ]
    if kind != "unscoped":
        columns += [roles.c.id.label("role_id"), roles.c.name.label("role_name")]
    audit_ids: list[Any] = [sa.bindparam(f"audit_{number}") for number in range(audit_count)]
    given_back = sa.exists().where(revocations.c.audit_id.in_(audit_ids))
    statement = (
        sa.select(*columns)
        .select_from(ground)
        .where(
            users.c.id == USER,
            users.c.enabled,
            users.c.token_revision == sa.bindparam("revision"),
            _home.c.enabled,
            sa.not_(given_back),
        )
    )
    return _delegated(statement) if delegated else statement
