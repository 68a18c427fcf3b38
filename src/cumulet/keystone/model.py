"""keystone's nouns.  Types only."""

from typing import Literal

from msgspec import Struct

from cumulet.core.context import Delegation

ScopeKind = Literal["unscoped", "project", "domain", "system"]
DEFAULT_DOMAIN = "default"
SYSTEM = "system"  # the target id of assignments on the system


class CatalogEntry(Struct, frozen=True):
    """One service of the catalogue: ``CatalogEntry("compute", "nova", "http://127.0.0.1:8774/v2.1")``."""

    type: str
    name: str
    url: str


class Scope(Struct, frozen=True):
    """What a token is for.  ``id`` is the project's or domain's, and empty for the other kinds."""

    kind: ScopeKind = "unscoped"
    id: str = ""


class Payload(Struct, frozen=True):
    """What is sealed in a token.  Times are seconds since 1970.

    ``audit_ids`` name the token itself, then the tokens it was made from, the first login last: giving back any
    of them kills this one.  ``revision`` is the user's at the time of issue, with a trust the sum of both users'.
    ``application_credential`` and ``trust`` are the ids of what the token stands on, if any.
    """

    user_id: str
    scope: Scope
    methods: tuple[str, ...]
    issued_at: int
    expires_at: int
    audit_ids: tuple[str, ...]
    revision: int
    application_credential: str = ""
    trust: str = ""


class Role(Struct, frozen=True):
    id: str
    name: str


class Trust(Struct, frozen=True):
    """By which the trustor lends the trustee roles in a project.  ``impersonation``: who acts is the trustor."""

    id: str
    trustor_user_id: str
    trustee_user_id: str
    impersonation: bool
    expires_at: str | None


class Standing(Struct, frozen=True):
    """What a user is and may be in a scope at this moment."""

    user_id: str
    user_name: str
    user_domain_id: str
    user_domain_name: str
    revision: int
    scope: Scope
    scope_name: str = ""
    scope_domain_id: str = ""
    scope_domain_name: str = ""
    roles: tuple[Role, ...] = ()
    delegation: Delegation | None = None
    trust: Trust | None = None
