"""/v2.0/security-groups"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import sqlalchemy as sa
from msgspec import UNSET, UnsetType
from sqlalchemy.engine import Row

from cumulet.core import listing
from cumulet.core.db import Transaction
from cumulet.core.errors import Conflict, NotFound, Retry
from cumulet.core.http import Request, Route
from cumulet.core.listing import Listing
from cumulet.core.schema import Strict
from cumulet.neutron import checks, effects, notices, projects, quotas, sharing, standard
from cumulet.neutron.projects import ensure_default_group
from cumulet.neutron.security_group_rules import rule_view
from cumulet.neutron.standard import Json, Named, Owned
from cumulet.neutron.tables import network_projects, port_groups, security_group_rules, security_groups


class GroupsBody(Strict):
    security_group: Owned | UnsetType = UNSET
    security_groups: list[Owned] | UnsetType = UNSET


class GroupBody(Strict):
    security_group: Named


def create_groups(request: Request) -> Json:
    bodies, bulk = standard.wanted(request.body, "security_group", "security_groups")
    with request.db.transaction() as tx:
        ids = [_create(tx, request, body) for body in bodies]
        found = {row.id: row for row in tx.all(sa.select(security_groups).where(security_groups.c.id.in_(ids)))}
        documents = _views(tx, request, [found[group_id] for group_id in ids])
        notices.created(tx, request, "security_group", bodies, documents)
    return standard.created(documents, "security_group", "security_groups", bulk)


def _create(tx: Transaction, request: Request, body: Owned) -> str:
    project_id = standard.project_of(request, body)
    request.enforce("create_security_group", {"project_id": project_id, "tenant_id": project_id})
    projects.default_group(tx, project_id)
    _check_name(body)
    quotas.reserve(tx, project_id, "security_group")
    row = standard.new_row(project_id, body)
    rules = projects.first_rules(tx, project_id, row["id"])
    quotas.reserve(tx, project_id, "security_group_rule", len(rules))
    tx.write(security_groups.insert(), row)
    if rules:
        tx.write(security_group_rules.insert(), rules)
    return str(row["id"])


def _check_name(body: Named) -> None:
    """Only the project's first group has this name, and it has it from the beginning."""
    if (body.name or "").lower() == "default":
        raise Conflict("Default security group already exists.", kind="SecurityGroupDefaultAlreadyExists")


def list_groups(request: Request) -> Json:
    ensure_default_group(request)
    with request.db.read() as tx:
        scoped = sa.select(security_groups).where(sharing.visible(request, security_groups))
        shared = sharing.open_to(security_groups, standard.mine(request))
        listed = replace(LISTING, columns={**LISTING.columns, "shared": shared})
        page = listing.list_page(tx, scoped, request, listed)
        return standard.document(request, "security_groups", page, _views(tx, request, page.rows))


def get_group(tx: Transaction, request: Request, group_id: str) -> Row[Any]:
    """The group, if the caller may see it; 404 otherwise."""
    mine = sharing.visible(request, security_groups)
    row = tx.find(sa.select(security_groups).where(security_groups.c.id == group_id, mine))
    if row is None:
        raise not_found(group_id)
    return row


def show_group(request: Request) -> Json:
    with request.db.read() as tx:
        row = get_group(tx, request, request.params["security_group_id"])
        return {"security_group": standard.selected(request, _views(tx, request, [row])[0])}


def update_group(request: Request) -> Json:
    body: Named = request.body.security_group
    _check_name(body)
    with request.db.transaction() as tx:
        row = get_group(tx, request, request.params["security_group_id"])
        standard.permit(request, "update_security_group", row)
        if body.name is not UNSET and body.name != row.name and _is_default(tx, row):
            raise Conflict("Updating default security group not allowed.", kind="SecurityGroupCannotUpdateDefault")
        if not standard.change(tx, security_groups, row, standard.attributes(body)):
            raise Retry(f"security group {row.id} was changed by somebody else")
        document = _views(tx, request, [get_group(tx, request, row.id)])[0]
        notices.updated(tx, request, "security_group", body, document)
    return {"security_group": document}


def delete_group(request: Request) -> None:
    with request.db.transaction() as tx:
        row = get_group(tx, request, request.params["security_group_id"])
        standard.permit(request, "delete_security_group", row)
        if _is_default(tx, row):
            if not request.context.admin:
                raise Conflict(
                    "Insufficient rights for removing default security group.",
                    kind="SecurityGroupCannotRemoveDefault",
                )
            forget = sa.update(network_projects).where(network_projects.c.default_group_id == row.id)
            tx.write(forget.values(default_group_id=None))
        in_use = Conflict(f"Security Group {row.id} in use.", kind="SecurityGroupInUse")
        if tx.find(sa.select(port_groups.c.port_id).where(port_groups.c.security_group_id == row.id)):
            raise in_use
        _delete_rules_naming(tx, row.id)
        try:
            tx.write(sa.delete(security_groups).where(security_groups.c.id == row.id))
        except Conflict as used:
            raise in_use from used
        sharing.forget(tx, row.id)
        notices.deleted(tx, request, "security_group", row.id)


def _delete_rules_naming(tx: Transaction, group_id: str) -> None:
    """Rules of other groups that let the group in go with it."""
    rules = security_group_rules
    naming = tx.all(sa.select(rules.c.security_group_id).where(rules.c.remote_group_id == group_id).distinct())
    if naming:
        tx.write(sa.delete(rules).where(rules.c.remote_group_id == group_id))
        effects.hint_users(tx, {row.security_group_id for row in naming})


def _is_default(tx: Transaction, row: Row[Any]) -> bool:
    statement = sa.select(network_projects.c.project_id).where(network_projects.c.default_group_id == row.id)
    return tx.find(statement) is not None


def not_found(group_id: str) -> NotFound:
    return NotFound(f"Security group {checks.shown(group_id)} does not exist", kind="SecurityGroupNotFound")


def _views(tx: Transaction, request: Request, rows: Sequence[Row[Any]]) -> list[Json]:
    within = sa.select(security_group_rules).order_by(security_group_rules.c.created_at, security_group_rules.c.id)
    rules = standard.related(tx, within, security_group_rules.c.security_group_id, [row.id for row in rows])
    shared = sharing.shared_ones(tx, request, [row.id for row in rows])
    return [
        {
            **standard.standard_view(row),
            "stateful": True,
            "shared": row.id in shared,
            "security_group_rules": [rule_view(rule) for rule in rules.get(row.id, ())],
        }
        for row in rows
    ]


LISTING = Listing(security_groups.c.id, standard.columns(security_groups), standard.conditions(security_groups))
BASE = "/v2.0/security-groups"
ROUTES = [
    Route("GET", BASE, list_groups, "get_security_group"),
    Route("POST", BASE, create_groups, "create_security_group", 201, body=GroupsBody),
    Route("GET", BASE + "/{security_group_id}", show_group, "get_security_group"),
    Route("PUT", BASE + "/{security_group_id}", update_group, "update_security_group", body=GroupBody),
    Route("DELETE", BASE + "/{security_group_id}", delete_group, "delete_security_group", 204),
]
