"""/v2.0/security-group-rules"""

from collections import Counter
from typing import Any

import sqlalchemy as sa
from msgspec import UNSET, UnsetType
from sqlalchemy.engine import Row

from cumulet.core import listing
from cumulet.core.db import Transaction
from cumulet.core.errors import BadRequest, Conflict, NotFound
from cumulet.core.http import Request, Route
from cumulet.core.listing import Listing
from cumulet.core.schema import Strict
from cumulet.neutron import checks, effects, notices, projects, quotas, sharing, standard
from cumulet.neutron.checks import IdText
from cumulet.neutron.projects import ensure_default_group
from cumulet.neutron.rule_values import RuleFields, rule_values
from cumulet.neutron.standard import Json
from cumulet.neutron.tables import security_group_rules, security_groups


class NewRule(RuleFields, kw_only=True):
    security_group_id: IdText
    project_id: IdText | UnsetType = UNSET
    tenant_id: IdText | UnsetType = UNSET


class RulesBody(Strict):
    security_group_rule: NewRule | UnsetType = UNSET
    security_group_rules: list[NewRule] | UnsetType = UNSET


def create_rules(request: Request) -> Json:
    bodies, bulk = standard.wanted(request.body, "security_group_rule", "security_group_rules")
    with request.db.transaction() as tx:
        for project_id, count in Counter(standard.project_of(request, body) for body in bodies).items():
            quotas.reserve(tx, project_id, "security_group_rule", count)
        ids = [_create(tx, request, body) for body in bodies]
        groups = {body.security_group_id for body in bodies}
        standard.touch(tx, security_groups, groups)
        effects.hint_users(tx, groups)
        found = {row.id: row for row in tx.all(_RULES.where(security_group_rules.c.id.in_(ids)))}
        documents = [rule_view(found[rule_id]) for rule_id in ids]
        notices.created(tx, request, "security_group_rule", bodies, documents)
    return standard.created(documents, "security_group_rule", "security_group_rules", bulk)


def _create(tx: Transaction, request: Request, body: NewRule) -> str:
    project_id = standard.project_of(request, body)
    group = _get_group(tx, request, body.security_group_id, project_id)
    request.enforce("create_security_group_rule", _target(project_id, group.project_id))
    if body.remote_ip_prefix and body.remote_group_id:
        raise BadRequest(
            "Only remote_ip_prefix or remote_group_id may be provided.",
            kind="SecurityGroupRemoteGroupAndRemoteIpPrefix",
        )
    values = rule_values(body)
    if values["remote_group_id"] is not None:
        _get_group(tx, request, values["remote_group_id"], project_id, remote=True)
    row = projects.rule_row(project_id, body.security_group_id, **values, description=body.description or "")
    try:
        tx.write(security_group_rules.insert(), row)
    except Conflict as same:
        raise _exists(tx, row) from same
    return str(row["id"])


def _target(project_id: str, group_project_id: str) -> Json:
    """What a policy may ask of a rule: whose it is, and whose its group is."""
    return {
        "project_id": project_id,
        "tenant_id": project_id,
        "security_group:project_id": group_project_id,
        "security_group:tenant_id": group_project_id,
    }


def _get_group(
    tx: Transaction, request: Request, group_id: str, project_id: str, *, remote: bool = False
) -> Row[Any]:
    """A rule belongs to a group of its own project, and lets in one that its project may use."""
    allowed = security_groups.c.project_id == project_id
    if remote:
        allowed = sharing.usable_by(security_groups, project_id)
    statement = sa.select(security_groups.c.project_id).where(security_groups.c.id == group_id)
    row = tx.find(statement if request.context.admin else statement.where(allowed))
    if row is None:
        raise NotFound(f"Security group {checks.shown(group_id)} does not exist", kind="SecurityGroupNotFound")
    return row


def _exists(tx: Transaction, row: Json) -> Conflict:
    same = tx.value(
        sa.select(security_group_rules.c.id).where(
            security_group_rules.c.security_group_id == row["security_group_id"],
            security_group_rules.c.fingerprint == row["fingerprint"],
        )
    )
    return Conflict(f"Security group rule already exists. Rule id is {same}.", kind="SecurityGroupRuleExists")


def list_rules(request: Request) -> Json:
    ensure_default_group(request)
    with request.db.read() as tx:
        page = listing.list_page(tx, _RULES.where(_visible(request)), request, LISTING)
        views = [rule_view(row) for row in page.rows]
        return standard.document(request, "security_group_rules", page, views)


def get_rule(tx: Transaction, request: Request, rule_id: str) -> Row[Any]:
    row = tx.find(_RULES.where(security_group_rules.c.id == rule_id, _visible(request)))
    if row is None:
        raise NotFound(
            f"Security group rule {checks.shown(rule_id)} does not exist", kind="SecurityGroupRuleNotFound"
        )
    return row


def show_rule(request: Request) -> Json:
    with request.db.read() as tx:
        row = get_rule(tx, request, request.params["rule_id"])
        return {"security_group_rule": standard.selected(request, rule_view(row))}


def delete_rule(request: Request) -> None:
    with request.db.transaction() as tx:
        row = get_rule(tx, request, request.params["rule_id"])
        owner = sa.select(security_groups.c.project_id).where(security_groups.c.id == row.security_group_id)
        about = _target(row.project_id, tx.value(owner))
        standard.permit(request, "delete_security_group_rule", row, about)
        tx.write(sa.delete(security_group_rules).where(security_group_rules.c.id == row.id))
        standard.touch(tx, security_groups, [row.security_group_id])
        effects.hint_users(tx, {row.security_group_id})
        notices.deleted(tx, request, "security_group_rule", row.id)


def _visible(request: Request) -> sa.ColumnElement[bool]:
    """Rules of the caller's groups."""
    if standard.sees_all(request):
        return sa.true()
    groups = sa.select(security_groups.c.id).where(security_groups.c.project_id == standard.mine(request))
    return security_group_rules.c.security_group_id.in_(groups)


def rule_view(row: Any) -> Json:
    view = standard.standard_view(row)
    del view["name"]
    return {
        **view,
        "security_group_id": row.security_group_id,
        "direction": row.direction,
        "ethertype": row.ethertype,
        "protocol": row.protocol,
        "port_range_min": row.port_min,
        "port_range_max": row.port_max,
        "remote_ip_prefix": row.remote_prefix,
        "normalized_cidr": checks.network_of(row.remote_prefix) if row.remote_prefix else None,
        "remote_group_id": row.remote_group_id,
    }


_RULES = sa.select(security_group_rules)
LISTING = Listing(
    security_group_rules.c.id,
    standard.columns(
        security_group_rules,
        security_group_id=security_group_rules.c.security_group_id,
        direction=security_group_rules.c.direction,
        ethertype=security_group_rules.c.ethertype,
        protocol=security_group_rules.c.protocol,
        port_range_min=security_group_rules.c.port_min,
        port_range_max=security_group_rules.c.port_max,
        remote_ip_prefix=security_group_rules.c.remote_prefix,
        remote_group_id=security_group_rules.c.remote_group_id,
    ),
    standard.conditions(security_group_rules),
)
BASE = "/v2.0/security-group-rules"
ROUTES = [
    Route("GET", BASE, list_rules, "get_security_group_rule"),
    Route("POST", BASE, create_rules, "create_security_group_rule", 201, body=RulesBody),
    Route("GET", BASE + "/{rule_id}", show_rule, "get_security_group_rule"),
    Route("DELETE", BASE + "/{rule_id}", delete_rule, "delete_security_group_rule", 204),
]
