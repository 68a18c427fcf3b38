"""The outbox's other end: notifications that were written with the changes they tell of, and now go to a broker.

Several relays may work at once, one on each controller, without a leader: each claims a batch of rows by
compare-and-set, for a short time.  Rows of a relay that dies are free again when its claim is over.  A row is
marked after the broker has confirmed it; who dies in between sends it a second time, under the same message id,
which is the row's: consumers drop what they have seen, as oslo.messaging does.

The format is that of OpenStack's notifications, version 2.0: one topic exchange per project, the priority in the
routing key, the message itself as text within an envelope.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.engine import Row

from cumulet.core import clock
from cumulet.core.db import Database, Transaction
from cumulet.core.tables import notifications

BATCH = 100
CLAIM_SECONDS = 30.0
EXCHANGES = {"compute": "nova", "network": "neutron", "identity": "keystone", "image": "glance"}
"""By the first word of a publisher's id, as upstream's services call themselves."""
OTHER_EXCHANGE = "openstack"
ROUTING_KEYS = ("notifications.info", "notifications.error")

_COLUMNS = notifications.c


@dataclass(frozen=True)
class Message:
    id: str
    exchange: str
    routing_key: str
    body: bytes


def claim(db: Database, relay: str) -> Sequence[Row[Any]]:
    """The oldest notifications that were not told yet, for ``relay`` (a UUID) alone for a while; a batch at most.

    Nothing is written if there are none.
    """
    until = f"{clock.later(CLAIM_SECONDS)} {relay}"
    free = sa.and_(_COLUMNS.relayed_at.is_(None), sa.or_(_COLUMNS.claim.is_(None), _COLUMNS.claim < clock.now()))
    oldest = sa.select(_COLUMNS.id).where(free).order_by(_COLUMNS.created_at, _COLUMNS.id).limit(BATCH)
    with db.read() as tx:
        ids = [row.id for row in tx.all(oldest)]
    if not ids:
        return []
    with db.transaction() as tx:
        tx.write(sa.update(notifications).where(_COLUMNS.id.in_(ids), free).values(claim=until))
        mine = sa.select(notifications).where(_COLUMNS.id.in_(ids), _COLUMNS.claim == until)
        return tx.all(mine.order_by(_COLUMNS.created_at, _COLUMNS.id))


def settle(db: Database, rows: Sequence[Row[Any]]) -> None:
    """The broker has them all."""
    with db.transaction() as tx:
        told = sa.and_(_COLUMNS.id.in_([row.id for row in rows]), _COLUMNS.relayed_at.is_(None))
        tx.write(sa.update(notifications).where(told).values(relayed_at=clock.now(), claim=None))


def release(db: Database, rows: Sequence[Row[Any]]) -> None:
    """They could not be told: whoever can may have them at once."""
    with db.transaction() as tx:
        mine = sa.and_(_COLUMNS.id.in_([row.id for row in rows]), _COLUMNS.claim == rows[0].claim)
        tx.write(sa.update(notifications).where(mine).values(claim=None))


def forget(tx: Transaction, before: str, most: int) -> int:
    """Remove up to ``most`` notifications that are older, told or not: nobody wanted them for so long."""
    ids = [row.id for row in tx.all(sa.select(_COLUMNS.id).where(_COLUMNS.created_at < before).limit(most))]
    if ids:
        tx.write(sa.delete(notifications).where(_COLUMNS.id.in_(ids)))
    return len(ids)


def message(row: Row[Any]) -> Message:
    """A notification as upstream's consumers read it."""
    priority = "ERROR" if row.event_type.endswith(".error") else "INFO"
    content = {
        "message_id": row.id,
        "publisher_id": row.publisher_id,
        "event_type": row.event_type,
        "priority": priority,
        "payload": row.payload,
        "timestamp": clock.parse(row.created_at).strftime("%Y-%m-%d %H:%M:%S.%f"),
        "_unique_id": row.id.replace("-", ""),
        **{f"_context_{name}": value for name, value in row.context.items()},
    }
    envelope = {"oslo.version": "2.0", "oslo.message": msgspec.json.encode(content).decode()}
    exchange = EXCHANGES.get(row.publisher_id.partition(".")[0], OTHER_EXCHANGE)
    return Message(row.id, exchange, f"notifications.{priority.lower()}", msgspec.json.encode(envelope))
