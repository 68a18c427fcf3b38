"""What a project has from its first use of networks on: a row of its own and the group ``default``.

The row's update also serialises creations that count first, so that two of them cannot both take the last unit
of a quota.
"""

from typing import Any

import sqlalchemy as sa

from cumulet.core.db import Transaction
from cumulet.core.errors import Conflict, Retry
from cumulet.core.http import Request
from cumulet.neutron import standard
from cumulet.neutron.tables import network_projects, security_group_rules, security_groups

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
    values = {**rule, "remote_prefix": None} if rule.get("remote_prefix") in EVERYWHERE else rule
    return "|".join("" if values.get(name) is None else str(values[name]) for name in names)


def rule_row(project_id: str, group_id: str, **values: Any) -> dict[str, Any]:
    """A rule's row; what is not given is any."""
    nothing = dict.fromkeys(
        ("protocol", "protocol_number", "port_min", "port_max", "remote_prefix", "remote_group_id")
    )
    row = standard.new_row(project_id) | {"security_group_id": group_id} | nothing | values
    return row | {"fingerprint": fingerprint(row)}


def first_rules(project_id: str, group_id: str) -> list[dict[str, Any]]:
    """What every new group lets out: everything."""
    return [
        rule_row(project_id, group_id, direction="egress", ethertype=ethertype) for ethertype in ("IPv4", "IPv6")
    ]


def _create_default_group(tx: Transaction, project_id: str) -> str:
    row = standard.new_row(project_id) | {"name": "default", "description": "Default security group"}
    group_id: str = row["id"]
    tx.write(security_groups.insert(), row)
    among = [
        rule_row(project_id, group_id, direction="ingress", ethertype=ethertype, remote_group_id=group_id)
        for ethertype in ("IPv4", "IPv6")
    ]
    tx.write(security_group_rules.insert(), first_rules(project_id, group_id) + among)
    return group_id


_REPLACE = (
    sa.update(network_projects)
    .where(network_projects.c.project_id == sa.bindparam("project"), network_projects.c.default_group_id.is_(None))
    .values(default_group_id=sa.bindparam("new_group"), changes=network_projects.c.changes + 1)
)
