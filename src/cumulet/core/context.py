"""Who is asking.  Made by keystone from a token and passed to every handler."""

import secrets
import uuid
from contextvars import ContextVar

from msgspec import Struct

REQUEST_ID: ContextVar[str] = ContextVar("request_id", default="")
"""The request id of the work this thread or task is doing, for logs and hints."""


def new_request_id() -> str:
    return f"req-{uuid.uuid4()}"


class AccessRule(Struct, frozen=True):
    """One kind of request that an application credential is good for."""

    service: str  # a service's type, e.g. ``compute``
    method: str
    path: str  # with wildcards, see ``core.access``


class Delegation(Struct, frozen=True):
    """What bounds a token that acts for its user by an application credential, or for another by a trust.

    Without ``unrestricted`` it may not make or see what lets others act for the user.  ``rules`` are the only
    requests that it may make; None is all of them, an empty tuple none.
    """

    id: str
    name: str = ""
    unrestricted: bool = False
    rules: tuple[AccessRule, ...] | None = None
    method: str = "application_credential"  # or 'trust'


class Context(Struct, frozen=True):
    """The caller.  At most one of ``project_id``, ``domain_id``, ``system`` is the token's scope.

    ``host`` is set instead of a user where an agent authenticates with its host token.
    """

    request_id: str = ""
    global_request_id: str = ""
    user_id: str = ""
    user_name: str = ""
    user_domain_id: str = ""
    project_id: str = ""
    project_name: str = ""
    project_domain_id: str = ""
    domain_id: str = ""
    system: bool = False
    roles: frozenset[str] = frozenset()
    host: str = ""
    token_expires_at: str = ""
    audit_ids: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()
    delegation: Delegation | None = None

    @property
    def admin(self) -> bool:
        return "admin" in self.roles


class Secret(str):
    """Text that must not be shown: logs and tracebacks print ``***``."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'***'"

    @classmethod
    def generate(cls, length: int = 32) -> "Secret":
        return cls(secrets.token_urlsafe(length))
