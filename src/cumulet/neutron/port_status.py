"""What is a port's status?  Derived from its binding and what the L2 agent of that host has reported."""

from typing import Any

import sqlalchemy as sa

from cumulet.neutron.tables import port_bindings, ports

ACTIVE, BUILD, DOWN, NOT_APPLICABLE = "ACTIVE", "BUILD", "DOWN", "N/A"


def status(row: Any) -> str:
    """The status of a row of ``port_rows.PORTS``; says the same as ``STATUS``."""
    if row.device_owner == "network:floatingip":
        return NOT_APPLICABLE
    if row.host is None or not row.admin_up:
        return DOWN
    if row.wired_generation == row.generation:
        return ACTIVE
    gone = row.wired_at is not None and row.wired_generation == 0
    return DOWN if gone else BUILD


STATUS: sa.ColumnElement[str] = sa.case(
    (ports.c.device_owner == "network:floatingip", NOT_APPLICABLE),
    (sa.or_(port_bindings.c.host.is_(None), ports.c.admin_up.is_(False)), DOWN),
    (port_bindings.c.wired_generation == port_bindings.c.generation, ACTIVE),
    (sa.and_(port_bindings.c.wired_at.is_not(None), port_bindings.c.wired_generation == 0), DOWN),
    else_=BUILD,
)
"""The same as an expression, for filters."""
