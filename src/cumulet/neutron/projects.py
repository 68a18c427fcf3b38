"""What a project has from its first use of networks on: a row of its own and the group ``default``.

The row's update also serialises creations that count first, so that two of them cannot both take the last unit
of a quota.
"""

from typing import Any
from uuid import NAMESPACE_DNS, uuid4, uuid5

import sqlalchemy as sa

from cumulet.core.db import Transaction
from cumulet.core.errors import Conflict, Retry
from cumulet.core.http import Request
from cumulet.neutron import checks, standard
from cumulet.neutron.tables import network_projects, rule_templates, security_group_rules, security_groups

EVERYWHERE = ("0.0.0.0/0", "::/0")
_LOCK = (
    sa.update(network_projects)
    .where(network_projects.c.project_id == sa.bindparam("project"))
    .values(changes=network_projects.c.changes + 1)
)
_DEFAULT_GROUP = sa.select(network_projects.c.default_group_id).where(
    network_projects.c.project_id == sa.bindparam("project")
)


def lock_project(tx: Transaction, project_id: str) -> None:
    """Nobody else counts and creates in this project until the end of the transaction."""
    if not tx.write(_LOCK, {"project": project_id}):
        default_group(tx, project_id)


def default_group(tx: Transaction, project_id: str) -> str:
    """The id of the project's group ``default``, made now if it has none."""
    found = tx.find(_DEFAULT_GROUP, {"project": project_id})
    if found and found.default_group_id:
        return str(found.default_group_id)
    group = _create_default_group(tx, project_id)
    try:
        if found is None:
            row = {"project_id": project_id, "default_group_id": group, "changes": 1}
            tx.write(network_projects.insert(), row)
        elif not tx.write(_REPLACE, {"project": project_id, "new_group": group}):
            raise Retry(f"somebody else makes the default group of {project_id}")
    except Conflict as race:
        raise Retry(f"somebody else makes the default group of {project_id}") from race
    return group


def ensure_default_group(request: Request) -> None:
    """Before groups are listed: the caller's project has its default one."""
    project_id = request.context.project_id
    if not project_id:
        return
    with request.db.read() as tx:
        found = tx.value(_DEFAULT_GROUP, {"project": project_id})
    if not found:
        with request.db.transaction() as tx:
            default_group(tx, project_id)


def fingerprint(rule: dict[str, Any]) -> str:
    """All that makes two rules of a group the same, as one key."""
    names = (
        "direction",
        "ethertype",
        "protocol_number",
        "port_min",
        "port_max",
        "remote_prefix",
        "remote_group_id",
    )
    prefix = checks.network_of(rule["remote_prefix"]) if rule.get("remote_prefix") else None
    values = {**rule, "remote_prefix": None if prefix in EVERYWHERE else prefix}
    return "|".join("" if values.get(name) is None else str(values[name]) for name in names)


def rule_row(project_id: str, group_id: str, **values: Any) -> dict[str, Any]:
    """A rule's row; what is not given is any."""
    nothing = dict.fromkeys(
        ("protocol", "protocol_number", "port_min", "port_max", "remote_prefix", "remote_group_id")
    )
    row = standard.new_row(project_id) | {"security_group_id": group_id} | nothing | values
    return row | {"fingerprint": fingerprint(row)}


PARENT = "PARENT"
"""In a template: the group that the rule is in."""


def new_id() -> str:
    return str(uuid4())


def _upstream(direction: str, ethertype: str) -> dict[str, Any]:
    inward = direction == "ingress"
    nothing = dict.fromkeys(("protocol", "protocol_number", "port_min", "port_max", "remote_prefix"))
    return {
        "id": str(uuid5(NAMESPACE_DNS, f"{direction}.{ethertype}.default-security-group-rules")),
        "created_at": "",
        "description": "",
        "direction": direction,
        "ethertype": ethertype,
        **nothing,
        "remote_group_id": PARENT if inward else None,
        "in_default": True,
        "in_others": not inward,
    }


UPSTREAM = {
    one["id"]: one for one in (_upstream(way, kind) for way in ("egress", "ingress") for kind in ("IPv4", "IPv6"))
}
"""What groups begin with unless an administrator says otherwise."""


def templates(tx: Transaction) -> list[dict[str, Any]]:
    """What new groups begin with."""
    rows = [dict(row._mapping) for row in tx.all(_TEMPLATES)]
    gone = {row["id"] for row in rows if row["gone"]}
    return [one for one in UPSTREAM.values() if one["id"] not in gone] + [row for row in rows if not row["gone"]]


def first_rules(tx: Transaction, project_id: str, group_id: str, *, default: bool = False) -> list[dict[str, Any]]:
    """The rules of a new group; ``default``: of the project's first one."""
    used = "in_default" if default else "in_others"
    return [
        rule_row(
            project_id,
            group_id,
            **{name: template[name] for name in _COPIED},
            remote_group_id=group_id if template["remote_group_id"] == PARENT else template["remote_group_id"],
        )
        for template in templates(tx)
        if template[used]
    ]


_COPIED = ("direction", "ethertype", "protocol", "protocol_number", "port_min", "port_max", "remote_prefix",
           "description")  # fmt: skip
_TEMPLATES = sa.select(rule_templates).order_by(rule_templates.c.created_at, rule_templates.c.id)


def _create_default_group(tx: Transaction, project_id: str) -> str:
    row = standard.new_row(project_id) | {"name": "default", "description": "Default security group"}
    group_id: str = row["id"]
    tx.write(security_groups.insert(), row)
    if rules := first_rules(tx, project_id, group_id, default=True):
        tx.write(security_group_rules.insert(), rules)
    return group_id


_REPLACE = (
    sa.update(network_projects)
    .where(network_projects.c.project_id == sa.bindparam("project"), network_projects.c.default_group_id.is_(None))
    .values(default_group_id=sa.bindparam("new_group"), changes=network_projects.c.changes + 1)
)
