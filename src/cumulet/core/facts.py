"""Small facts of the whole cloud that all of it must agree on."""

import uuid

import sqlalchemy as sa

from cumulet.core.db import Transaction
from cumulet.core.tables import facts

CLOUD = "cloud_id"
_FIND = sa.select(facts.c.value).where(facts.c.name == CLOUD)


def find_cloud_id(tx: Transaction) -> str:
    """What tells this database from any other, however alike they are; empty before ``ensure_cloud_id``."""
    return str(tx.value(_FIND) or "")


def ensure_cloud_id(tx: Transaction) -> None:
    if not find_cloud_id(tx):
        tx.write(facts.insert(), {"name": CLOUD, "value": uuid.uuid4().hex})
