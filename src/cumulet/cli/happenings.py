"""What has happened in the cloud, out of the outbox: what each notification is about, and what it says of it.

Notifications have upstream's forms, which differ by project; here they are one.  They are kept for a week.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.engine import Row

from cumulet.core.db import Transaction
from cumulet.core.tables import notifications

Json = dict[str, Any]
BATCH = 500
_n = notifications.c
_STATED = ("instance_id", "resource_info", "id", "parent_resource_id")
"""Where payloads name what they are about, if they are flat: nova's, keystone's, glance's and tags'."""


class Event(msgspec.Struct):
    """``state``: the thing as it was afterwards, as far as the notification tells; None if it was taken away."""

    id: str
    time: str
    type: str
    publisher: str
    thing: str
    name: str
    request_id: str
    user_id: str
    project_id: str
    state: Json | None


def newest(tx: Transaction, most: int) -> list[Event]:
    rows = tx.all(sa.select(notifications).order_by(_n.created_at.desc(), _n.id.desc()).limit(most))
    return [_event(row) for row in reversed(rows)]


def after(tx: Transaction, time: str, known: frozenset[str]) -> list[Event]:
    """Those since ``time``, without the ``known``: a transaction may end after one that began later."""
    rows = tx.all(sa.select(notifications).where(_n.created_at >= time).order_by(_n.created_at, _n.id).limit(BATCH))
    return [_event(row) for row in rows if row.id not in known]


def of_request(tx: Transaction, request_id: str) -> list[Event]:
    mine = sa.select(notifications).where(_n.request_id == request_id)
    return [_event(row) for row in tx.all(mine.order_by(_n.created_at, _n.id))]


def about(tx: Transaction, thing: str) -> Iterator[Event]:
    """Everything about the thing of this id or name, the oldest first; what was only asked for is left out."""
    named = sa.cast(_n.payload, sa.Text).contains(thing, autoescape=True)
    for row in tx.all(sa.select(notifications).where(named).order_by(_n.created_at, _n.id)):
        event = _event(row)
        if thing in (event.thing, event.name) and not event.type.endswith(".start"):
            yield event


def _event(row: Row[Any]) -> Event:
    thing, name, state = describe(row.event_type, row.payload)
    return Event(
        row.id,
        row.created_at,
        row.event_type,
        row.publisher_id,
        thing,
        name,
        row.request_id,
        row.context.get("user_id") or "",
        row.context.get("project_id") or "",
        state,
    )


def describe(event_type: str, payload: Mapping[str, Any]) -> tuple[str, str, Json | None]:
    """The id and name of what a notification is about, and its state."""
    taken = ".delete" in event_type or event_type.endswith(".deleted")
    kind = event_type.split(".")[0]
    inner = payload.get(kind)
    document = dict(inner) if isinstance(inner, Mapping) else dict(payload)
    found = (payload.get(f"{kind}_id"), *(document.get(field) for field in _STATED))
    thing = next((value for value in found if isinstance(value, str) and value), "")
    name = document.get("display_name") or document.get("name") or ""
    return thing, str(name), None if taken else document
