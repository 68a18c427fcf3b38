"""Availability zones: as an aggregate says, else ``nova``; what is no compute host is ``internal``."""

import sqlalchemy as sa

from cumulet.core.db import Transaction
from cumulet.nova.tables import aggregate_hosts, aggregates

DEFAULT, INTERNAL = "nova", "internal"
_ZONES = (
    sa.select(aggregate_hosts.c.host, aggregates.c.zone)
    .join_from(aggregate_hosts, aggregates)
    .where(aggregates.c.zone.is_not(None))
)


def read_zones(tx: Transaction, *conditions: sa.ColumnElement[bool]) -> dict[str, str]:
    """The zone of each host that some aggregate has put in one; the others are in ``DEFAULT``."""
    return {row.host: row.zone for row in tx.all(_ZONES.where(*conditions))}
