"""Tags of servers as rows: what the servers' resources share with the tags' own."""

import re
from collections.abc import Collection, Sequence
from typing import Any

import sqlalchemy as sa

from cumulet.core.among import among
from cumulet.core.db import Transaction
from cumulet.core.errors import BadRequest
from cumulet.nova.tables import server_tags, servers

MOST_TAGS = 50
LONGEST_TAG = 60
_TAG = re.compile(r"[^,/]{1,60}")
_TAGS = sa.select(server_tags).where(among(server_tags.c.server_id, "ids")).order_by(server_tags.c.tag)


def find_tags(tx: Transaction, ids: Sequence[str]) -> dict[str, list[str]]:
    """The tags of these servers, by id; servers without are left out."""
    found: dict[str, list[str]] = {}
    if ids:
        for row in tx.all(_TAGS, {"ids": list(ids)}):
            found.setdefault(row.server_id, []).append(row.tag)
    return found


def check_tags(tags: Sequence[str]) -> list[str]:
    """The tags of one server: each once, in order."""
    found = sorted(set(tags))
    for tag in found:
        if not _TAG.fullmatch(tag) or not tag.isprintable():
            raise BadRequest(
                f"Invalid input for field/attribute tags. Value: {tag[:300]!r}. "
                f"A tag has 1 to {LONGEST_TAG} characters, none of them a comma or a slash"
            )
    if len(found) > MOST_TAGS:
        raise BadRequest(f"The number of tags exceeded the per-server limit {MOST_TAGS}")
    return found


def write_tags(tx: Transaction, server_id: str, tags: Collection[str]) -> None:
    """Make these the tags of a server."""
    tx.write(sa.delete(server_tags).where(server_tags.c.server_id == server_id))
    if tags:
        tx.write(server_tags.insert(), [{"server_id": server_id, "tag": tag} for tag in tags])


def with_tags(tags: Collection[str], *, every: bool) -> sa.ColumnElement[bool]:
    """Servers that have all of the tags (``every``) or at least one of them."""
    column = servers.c.id
    if every:
        return sa.and_(*(column.in_(_having(server_tags.c.tag == tag)) for tag in tags))
    return column.in_(_having(server_tags.c.tag.in_(list(tags))))


def _having(condition: sa.ColumnElement[bool]) -> sa.Select[Any]:
    return sa.select(server_tags.c.server_id).where(condition)
