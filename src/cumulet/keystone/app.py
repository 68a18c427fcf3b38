"""keystone, the service: the sum of its routes, the rotation of its keys, the sweeping of its revocations."""

import time

import sqlalchemy as sa

from cumulet.core import schema
from cumulet.core.controller import ControllerEnv
from cumulet.core.db import Database
from cumulet.core.errors import ApiError
from cumulet.core.http import App
from cumulet.core.reconcile import Reconciler
from cumulet.core.service import Service
from cumulet.keystone import (
    access_rules,
    application_credentials,
    credentials,
    domains,
    ec2_credentials,
    endpoints,
    grants,
    groups,
    implied_roles,
    keys,
    limits,
    project_tags,
    projects,
    regions,
    registered_limits,
    role_assignments,
    roles,
    scopes,
    services,
    stored_policies,
    tokens,
    trusts,
    users,
    versions,
)
from cumulet.keystone.policies import DEFAULTS, own_target
from cumulet.keystone.tables import revocations

PORT = 5000
SWEEP_SECONDS = 600.0
ROUTES = [
    *versions.ROUTES,
    *tokens.ROUTES,
    *scopes.ROUTES,
    *users.ROUTES,
    *application_credentials.ROUTES,
    *access_rules.ROUTES,
    *credentials.ROUTES,
    *ec2_credentials.ROUTES,
    *trusts.ROUTES,
    *groups.ROUTES,
    *projects.ROUTES,
    *project_tags.ROUTES,
    *domains.ROUTES,
    *roles.ROUTES,
    *implied_roles.ROUTES,
    *grants.ROUTES,
    *role_assignments.ROUTES,
    *services.ROUTES,
    *endpoints.ROUTES,
    *regions.ROUTES,
    *registered_limits.ROUTES,
    *limits.ROUTES,
    *stored_policies.ROUTES,
]


def build(env: ControllerEnv) -> Service:
    keys.ensure(env.config)
    app = App(
        "keystone",
        ROUTES,
        db=env.db,
        config=env.config,
        policies=env.policies("keystone", DEFAULTS),
        caller=env.caller,
        render_error=render_error,
        endpoint=env.config.public_url(PORT),
        extras=keys.keyrings(env.config),
        own_target=own_target,
    )
    return Service(app=app, loops=[keys.rotation_loop(env.config), sweep_loop(env.db)])


def render_error(error: ApiError) -> tuple[bytes, str]:
    message = error.message
    if error.kind == "PolicyNotAuthorized":
        rule = message.removeprefix("Policy doesn't allow ").removesuffix(" to be performed.")
        message = f"You are not authorized to perform the requested action: {rule}."
    body = {"error": {"code": error.status, "message": message, "title": error.title}}
    return schema.encode(body), "application/json"


def sweep_loop(db: Database) -> Reconciler[str]:
    """Forgets the revocations of tokens that have died of age.  Writes only when there are some."""

    def read() -> dict[str, str]:
        with db.read() as tx:
            old = tx.find(sa.select(revocations.c.audit_id).where(revocations.c.expires_at < int(time.time())))
        return {"expired": "expired"} if old else {}

    def reconcile(_: str) -> None:
        with db.transaction() as tx:
            tx.write(sa.delete(revocations).where(revocations.c.expires_at < int(time.time())))

    return Reconciler("keystone.revocations", read, reconcile, resync_seconds=SWEEP_SECONDS)
