"""What other projects call: who holds a token, and the cloud's first users, roles and endpoints.

``bootstrap`` may run at every start: it makes what is missing and mends what it made before (the administrator's
password and roles, the URL of an endpoint); what an administrator has added stays.
"""

import hashlib
import os
import uuid
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

import sqlalchemy as sa

from cumulet.core import clock
from cumulet.core.config import Config
from cumulet.core.context import Context
from cumulet.core.db import Database, Transaction
from cumulet.core.errors import Unauthorized
from cumulet.core.secrets import same
from cumulet.core.stamps import Memory
from cumulet.keystone import keys, passwords, token_format
from cumulet.keystone.model import DEFAULT_DOMAIN, SYSTEM, CatalogEntry, Payload
from cumulet.keystone.standing import find_standing_of
from cumulet.keystone.tables import (
    STAMP,
    assignments,
    endpoints,
    implied_roles,
    projects,
    regions,
    roles,
    services,
    users,
)

__all__ = ["CatalogEntry", "bootstrap", "build_authenticator"]
ROLES = ("admin", "manager", "member", "reader")  # each implies the next
DESCRIPTIONS = {
    "compute": "OpenStack Compute",
    "identity": "OpenStack Identity",
    "image": "OpenStack Image",
    "network": "OpenStack Networking",
}
"""Of services, by type: what the installation guides call them."""
SERVICE_ROLE = "service"  # for services' own users: implies nothing, and nothing implies it
_contexts: Memory[Context] = Memory(STAMP)
DENIED = "The request you have made requires authentication."


def build_authenticator(config: Config, db: Database) -> Callable[[str], Context]:
    """The function that finds the caller of a token, at this moment; it raises Unauthorized."""
    keyring = keys.Keyring(keys.directory(config))

    def authenticate(text: str) -> Context:
        payload = token_format.unseal(keyring, text)
        if payload is None:
            raise Unauthorized(DENIED)
        with db.read() as tx:
            found = _contexts.recall(tx, payload, lambda: _find_context(tx, payload))
        if found is None:
            raise Unauthorized(DENIED)
        return found

    return authenticate


def _find_context(tx: Transaction, payload: Payload) -> Context | None:
    standing = find_standing_of(tx, payload)
    if standing is None:
        return None
    kind, scope_id = payload.scope.kind, payload.scope.id
    return Context(
        user_id=standing.user_id,
        user_name=standing.user_name,
        user_domain_id=standing.user_domain_id,
        project_id=scope_id if kind == "project" else "",
        project_name=standing.scope_name if kind == "project" else "",
        project_domain_id=standing.scope_domain_id,
        domain_id=scope_id if kind == "domain" else "",
        system=kind == "system",
        roles=frozenset(role.name.lower() for role in standing.roles),
        token_expires_at=clock.text(datetime.fromtimestamp(payload.expires_at, UTC)),
        audit_ids=payload.audit_ids,
        methods=payload.methods,
        delegation=standing.delegation,
    )


def bootstrap(tx: Transaction, config: Config, admin_password: str, catalog: Sequence[CatalogEntry]) -> None:
    """Make or mend what a cloud needs before anybody can log in."""
    keys.ensure(config)
    _ensure_domain(tx)
    role_ids = [_ensure_role(tx, name) for name in ROLES]
    for prior, implied in pairwise(role_ids):
        _ensure(tx, implied_roles, {"prior_role_id": prior, "implied_role_id": implied})
    _ensure_role(tx, SERVICE_ROLE)
    project_id = _ensure_project(tx, "admin", "The administrators' project")
    _ensure_project(tx, "service", "The services' project")
    user_id = _ensure_admin(tx, config, admin_password, project_id)
    for target_type, target_id, inherited in (
        ("project", project_id, False),
        ("domain", DEFAULT_DOMAIN, False),
        ("domain", DEFAULT_DOMAIN, True),
        ("system", SYSTEM, False),
    ):
        grant = {"actor_type": "user", "actor_id": user_id, "target_type": target_type, "target_id": target_id}
        _ensure(tx, assignments, {**grant, "role_id": role_ids[0], "inherited": inherited})
    if not tx.find(sa.select(regions.c.id).where(regions.c.id == config.node.region)):
        tx.write(regions.insert(), {"id": config.node.region, "created_at": clock.now()})
    for entry in catalog:
        _ensure_endpoints(tx, config.node.region, entry)


def _ensure(tx: Transaction, table: sa.Table, row: dict[str, object]) -> None:
    """Insert ``row``, all of it the key, unless it is there."""
    if not tx.find(sa.select(table).where(*(table.c[name] == value for name, value in row.items()))):
        tx.write(table.insert(), row)


def _ensure_domain(tx: Transaction) -> None:
    if not tx.find(sa.select(projects.c.id).where(projects.c.id == DEFAULT_DOMAIN)):
        text = "The default domain"
        row = {"id": DEFAULT_DOMAIN, "name": "Default", "description": text, "domain_id": "", "is_domain": True}
        tx.write(projects.insert(), {**row, "created_at": clock.now()})


def _ensure_role(tx: Transaction, name: str) -> str:
    found = tx.value(sa.select(roles.c.id).where(roles.c.name == name, roles.c.domain_id == ""))
    if not found:
        found = uuid.uuid4().hex
        row = {"id": found, "name": name, "options": {"immutable": True}, "created_at": clock.now()}
        tx.write(roles.insert(), row)
    return str(found)


def _ensure_project(tx: Transaction, name: str, description: str) -> str:
    mine = sa.and_(projects.c.domain_id == DEFAULT_DOMAIN, projects.c.name == name)
    found = tx.value(sa.select(projects.c.id).where(mine))
    if not found:
        found = uuid.uuid4().hex
        row = {"id": found, "domain_id": DEFAULT_DOMAIN, "parent_id": DEFAULT_DOMAIN, "name": name}
        tx.write(projects.insert(), {**row, "description": description, "created_at": clock.now()})
    return str(found)


def _ensure_admin(tx: Transaction, config: Config, password: str, project_id: str) -> str:
    """The user ``admin`` with this password; their tokens die only if it was another one."""
    rounds = config.identity.bcrypt_rounds
    row = tx.find(sa.select(users).where(users.c.domain_id == DEFAULT_DOMAIN, users.c.name == "admin"))
    stored = row.password_hash if row else ""
    if row is None:
        stored = passwords.make_hash(password, rounds)
        user = {"id": uuid.uuid4().hex, "domain_id": DEFAULT_DOMAIN, "name": "admin", "password_hash": stored}
        tx.write(users.insert(), {**user, "default_project_id": project_id, "created_at": clock.now()})
        user_id = user["id"]
    else:
        user_id = str(row.id)
        if _was_checked(config, password, stored):
            return user_id
        if not passwords.matches(password, stored, rounds):
            stored = passwords.make_hash(password, rounds)
            changed = {"password_hash": stored, "token_revision": users.c.token_revision + 1}
            tx.write(sa.update(users).where(users.c.id == user_id).values(changed))
    _note_checked(config, password, stored)
    return user_id


def _was_checked(config: Config, password: str, stored: str | None) -> bool:
    """Whether this very hash was found to be this password's before: no start spends a bcrypt on it again."""
    try:
        return same(_checked_file(config).read_text(), _pair(password, stored))
    except FileNotFoundError:
        return False


def _note_checked(config: Config, password: str, stored: str | None) -> None:
    """Among the keys, as secret as they are."""
    descriptor = os.open(_checked_file(config), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(_pair(password, stored))


def _checked_file(config: Config) -> Path:
    return keys.directory(config) / "admin-checked"


def _pair(password: str, stored: str | None) -> str:
    return hashlib.sha256(f"{stored} {password}".encode(errors="surrogatepass")).hexdigest()


def _ensure_endpoints(tx: Transaction, region: str, entry: CatalogEntry) -> None:
    service_id = tx.value(sa.select(services.c.id).where(services.c.type == entry.type))
    if not service_id:
        service_id = uuid.uuid4().hex
        about = {"name": entry.name, "description": DESCRIPTIONS.get(entry.type)}
        row = {"id": service_id, "type": entry.type, **about, "created_at": clock.now()}
        tx.write(services.insert(), row)
    for interface in ("public", "internal", "admin"):
        place = {"service_id": service_id, "region_id": region, "interface": interface}
        mine = sa.and_(*(endpoints.c[name] == value for name, value in place.items()))
        found = tx.find(sa.select(endpoints.c.id, endpoints.c.url).where(mine))
        if found is None:
            row = {"id": uuid.uuid4().hex, **place, "url": entry.url, "created_at": clock.now()}
            tx.write(endpoints.insert(), row)
        elif found.url != entry.url:
            tx.write(sa.update(endpoints).where(endpoints.c.id == found.id).values(url=entry.url))
