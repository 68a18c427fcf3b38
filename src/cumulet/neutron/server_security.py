"""The security groups of a server's ports, for nova, inside its own transaction (part of ``neutron.public``)."""

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Row

from cumulet.core.context import Context
from cumulet.core.db import Transaction
from cumulet.core.errors import BadRequest, Conflict, NotFound
from cumulet.neutron import checks, effects, port_rows, sharing, standard
from cumulet.neutron.model import Inlet, SecurityGroup
from cumulet.neutron.projects import default_group
from cumulet.neutron.tables import port_groups, ports, security_group_rules, security_groups


def list_security_groups(tx: Transaction, server_id: str) -> list[SecurityGroup]:
    """The groups of the server's ports, each with what it lets in."""
    mine = (
        sa.select(port_groups.c.security_group_id)
        .join(ports, ports.c.id == port_groups.c.port_id)
        .where(ports.c.server_id == server_id)
    )
    rows = tx.all(
        sa.select(security_groups)
        .where(security_groups.c.id.in_(mine))
        .order_by(security_groups.c.name, security_groups.c.id)
    )
    remote = security_groups.alias("remote")
    rules = tx.all(
        sa.select(
            security_group_rules, remote.c.name.label("remote_name"), remote.c.project_id.label("remote_project")
        )
        .outerjoin(remote, remote.c.id == security_group_rules.c.remote_group_id)
        .where(
            security_group_rules.c.security_group_id.in_([row.id for row in rows]),
            security_group_rules.c.direction == "ingress",
        )
        .order_by(security_group_rules.c.created_at, security_group_rules.c.id)
    )
    inlets: dict[str, list[Inlet]] = {row.id: [] for row in rows}
    for rule in rules:
        inlets[rule.security_group_id].append(_inlet(rule))
    return [SecurityGroup(row.id, row.name, row.description, row.project_id, tuple(inlets[row.id])) for row in rows]


def _inlet(rule: Row[Any]) -> Inlet:
    return Inlet(
        rule.id,
        rule.ethertype,
        rule.protocol,
        rule.port_min,
        rule.port_max,
        rule.remote_prefix,
        (rule.remote_name, rule.remote_project) if rule.remote_name is not None else None,
    )


def find_groups(tx: Transaction, context: Context, names: Sequence[str]) -> list[str]:
    """The ids of groups given by name or id; the project's default one if none is given."""
    if not names:
        return [default_group(tx, context.project_id)]
    if "default" in names:
        default_group(tx, context.project_id)
    wanted = list(dict.fromkeys(names))
    rows = tx.all(
        sa.select(security_groups.c.id, security_groups.c.name).where(
            sa.or_(
                sa.and_(sharing.usable_by(security_groups, context.project_id), security_groups.c.id.in_(wanted)),
                sa.and_(security_groups.c.project_id == context.project_id, security_groups.c.name.in_(wanted)),
            )
        )
    )
    found = []
    for name in wanted:
        ids = [row.id for row in rows if row.id == name] or [row.id for row in rows if row.name == name]
        if not ids:
            raise NotFound(
                f"Security group {checks.shown(name)} not found for project {context.project_id}.",
                kind="SecurityGroupNotFound",
            )
        if len(ids) > 1:
            raise Conflict(
                f"Multiple security_groups matches found for name '{checks.shown(name)}', use an ID to be more "
                "specific.",
                kind="NoUniqueMatch",
            )
        found.append(ids[0])
    return list(dict.fromkeys(found))


def add_security_group(tx: Transaction, context: Context, server_id: str, name: str) -> None:
    """Put all ports of the server that have a firewall into the group (given by name or id)."""
    group_id = find_groups(tx, context, [name])[0]
    guarded = _port_ids(tx, server_id, ports.c.port_security)
    if not guarded:
        raise BadRequest(
            f"Network requires port_security_enabled and subnet associated in order to apply security groups "
            f"{checks.shown(name)}.",
            kind="SecurityGroupCannotBeApplied",
        )
    new = guarded - _port_ids(tx, server_id, ports.c.id.in_(_in_group(group_id)))
    for port_id in sorted(new):
        port_rows.set_groups(tx, port_id, [group_id])
    _regrouped(tx, new, group_id)


def remove_security_group(tx: Transaction, context: Context, server_id: str, name: str) -> None:
    """Take all ports of the server out of the group; BadRequest if none is in it."""
    group_id = find_groups(tx, context, [name])[0]
    old = _port_ids(tx, server_id, ports.c.id.in_(_in_group(group_id)))
    if not old:
        raise BadRequest(
            f"Security group {checks.shown(name)} is not associated with the instance {server_id}",
            kind="SecurityGroupNotExistsForInstance",
        )
    within = sa.and_(port_groups.c.security_group_id == group_id, port_groups.c.port_id.in_(old))
    tx.write(sa.delete(port_groups).where(within))
    _regrouped(tx, old, group_id)


def _in_group(group_id: str) -> sa.Select[Any]:
    return sa.select(port_groups.c.port_id).where(port_groups.c.security_group_id == group_id)


def _port_ids(tx: Transaction, server_id: str, which: sa.ColumnElement[bool]) -> set[str]:
    return {row.id for row in tx.all(sa.select(ports.c.id).where(ports.c.server_id == server_id, which))}


def _regrouped(tx: Transaction, port_ids: set[str], group_id: str) -> None:
    """These ports came into the group, or left it."""
    if port_ids:
        standard.touch(tx, ports, port_ids)
        effects.hint_members(tx, [group_id])
    for port_id in sorted(port_ids):
        effects.hint_port(tx, port_id)
