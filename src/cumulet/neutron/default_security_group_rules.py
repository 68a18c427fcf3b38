"""/v2.0/default-security-group-rules: what new security groups begin with, as an administrator wishes.

The cloud begins with upstream's four (``projects.UPSTREAM``): everything may leave, and the members of a project's
first group reach each other.  They are constants; a row says that one of them was taken away.  Groups that are
there already stay as they are.
"""

from typing import Any

import sqlalchemy as sa
from msgspec import UNSET, UnsetType

from cumulet.core import clock
from cumulet.core.db import Transaction
from cumulet.core.errors import BadRequest, Conflict, NotFound
from cumulet.core.http import Request, Route
from cumulet.core.schema import Strict
from cumulet.neutron import checks, notices, projects, standard
from cumulet.neutron.rule_values import RuleFields, rule_values
from cumulet.neutron.standard import Json
from cumulet.neutron.tables import rule_templates, security_groups

KIND = "default_security_group_rule"


class NewTemplate(RuleFields, kw_only=True):
    used_in_default_sg: bool | UnsetType = UNSET
    used_in_non_default_sg: bool | UnsetType = UNSET


class TemplatesBody(Strict):
    default_security_group_rule: NewTemplate | UnsetType = UNSET
    default_security_group_rules: list[NewTemplate] | UnsetType = UNSET


def create_templates(request: Request) -> Json:
    bodies, bulk = standard.wanted(request.body, KIND, f"{KIND}s")
    with request.db.transaction() as tx:
        documents = [_create(tx, body) for body in bodies]
        notices.created(tx, request, KIND, bodies, documents)
    return standard.created(documents, KIND, f"{KIND}s", bulk)


def _create(tx: Transaction, body: NewTemplate) -> Json:
    if body.remote_ip_prefix and body.remote_group_id:
        raise BadRequest(
            "Only remote_ip_prefix or remote_group_id may be provided.",
            kind="SecurityGroupRemoteGroupAndRemoteIpPrefix",
        )
    values = rule_values(body)
    group_id = values["remote_group_id"]
    known = sa.select(security_groups.c.id).where(security_groups.c.id == group_id)
    if group_id not in (None, projects.PARENT) and not tx.find(known):
        raise NotFound(f"Security group {checks.shown(group_id)} does not exist", kind="SecurityGroupNotFound")
    row = {
        "id": projects.new_id(),
        "created_at": clock.now(),
        "description": body.description or "",
        **values,
        "in_default": body.used_in_default_sg is True,
        "in_others": body.used_in_non_default_sg is not False,
        "gone": False,
    }
    row["fingerprint"] = projects.fingerprint(row)
    same = [one for one in projects.templates(tx) if projects.fingerprint(one) == row["fingerprint"]]
    if same:
        raise _exists(same[0]["id"])
    try:
        tx.write(rule_templates.insert(), row)
    except Conflict as race:
        raise _exists("another one") from race
    return _view(row)


def _exists(template_id: str) -> Conflict:
    return Conflict(
        f"Default security group rule template already exists. Rule template id is {template_id}.",
        kind="DefaultSecurityGroupRuleExists",
    )


def list_templates(request: Request) -> Json:
    with request.db.read() as tx:
        views = [_view(template) for template in projects.templates(tx)]
    for name in views[0] if views else ():
        if wanted := request.many(name):
            views = [view for view in views if str(view[name]) in wanted]
    return {f"{KIND}s": [standard.selected(request, view) for view in views]}


def show_template(request: Request) -> Json:
    with request.db.read() as tx:
        return {KIND: standard.selected(request, _view(_get(tx, request)))}


def delete_template(request: Request) -> None:
    with request.db.transaction() as tx:
        template = _get(tx, request)
        if template["id"] in projects.UPSTREAM:
            tx.write(rule_templates.insert(), {**template, "fingerprint": f"gone {template['id']}", "gone": True})
        else:
            tx.write(sa.delete(rule_templates).where(rule_templates.c.id == template["id"]))
        notices.deleted(tx, request, KIND, template["id"])


def _get(tx: Transaction, request: Request) -> Json:
    template_id = request.params["rule_id"]
    for template in projects.templates(tx):
        if template["id"] == template_id:
            return template
    raise NotFound(
        f"Default Security Group rule {checks.shown(template_id)} does not exist",
        kind="DefaultSecurityGroupRuleNotFound",
    )


def _view(template: dict[str, Any]) -> Json:
    return {
        "id": template["id"],
        "description": template["description"],
        "direction": template["direction"],
        "ethertype": template["ethertype"],
        "protocol": template["protocol"],
        "port_range_min": template["port_min"],
        "port_range_max": template["port_max"],
        "remote_ip_prefix": template["remote_prefix"],
        "remote_group_id": template["remote_group_id"],
        "remote_address_group_id": None,
        "used_in_default_sg": template["in_default"],
        "used_in_non_default_sg": template["in_others"],
    }


BASE = "/v2.0/default-security-group-rules"
ROUTES = [
    Route("GET", BASE, list_templates, "get_default_security_group_rule"),
    Route("POST", BASE, create_templates, "create_default_security_group_rule", 201, body=TemplatesBody),
    Route("GET", BASE + "/{rule_id}", show_template, "get_default_security_group_rule"),
    Route("DELETE", BASE + "/{rule_id}", delete_template, "delete_default_security_group_rule", 204),
]
